"""Redis, alone and with replicas that are waited for; Debian's package redis-server."""

from __future__ import annotations

import shutil
from contextlib import ExitStack
from pathlib import Path

from bench.peers import resp
from bench.peers.closed_loop import closed_loop
from bench.peers.peer import REPLICAS, START_LIMIT_S, Figures, Kind, figures, wait_for
from bench.peers.resp import Writes
from bench.processes import Child, children, wait_until
from bench.store_cluster import ask, free_base_port
from p4xos.tables import Address

PROGRAM = "redis-server"
_REPLICATION = b"*2\r\n$4\r\nINFO\r\n$11\r\nreplication\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"


class _Servers:
    """Servers on ports in a row, the first of which clients write to."""

    def __init__(self) -> None:
        self.address: Address
        """Where clients connect, once it was started."""
        self._stack = ExitStack()

    def missing(self) -> str | None:
        """The server."""
        found = shutil.which(PROGRAM)
        return None if found else f"no {PROGRAM}; apt-get install redis-server"

    def stop(self) -> None:
        """Kills the servers."""
        self._stack.close()

    def _start(self, scratch: Path, servers: int, *flags: str) -> None:
        base = free_base_port()
        self.address = Address("127.0.0.1", base)
        started = self._stack.enter_context(children())
        for k in range(servers):
            directory = scratch / str(k)
            directory.mkdir(parents=True)
            place = ["--bind", "127.0.0.1", "--port", str(base + k), "--dir", str(directory)]
            follow = ["--replicaof", f"127.0.0.1 {base}"] if k else []
            command = [PROGRAM, *place, "--save", "", *flags, *follow]
            started.append(Child(f"{PROGRAM} {k}", command, scratch / f"{k}.txt"))
        addresses = [Address("127.0.0.1", base + k) for k in range(servers)]

        def answering() -> bool:
            return all(ask(address, _PING) == b"+PONG\r\n" for address in addresses)

        wait_for(answering, started, f"an answer of each {PROGRAM}")


class RedisAlone(_Servers):
    """One server that syncs its log before it answers: durable, and not replicated."""

    name = "Redis alone, AOF always"
    reads = True

    def start(self, scratch: Path) -> None:
        """Starts it."""
        self._start(scratch, 1, "--appendonly", "yes", "--appendfsync", "always")

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """redis-benchmark."""
        return resp.measured(self.address, clients, kind, seconds)


class RedisReplicated(_Servers):
    """Two replicas, nothing on disk; a write counts when one replica has it too (WAIT 1).

    Its reads are not compared: after a failover an acknowledged write may be gone.
    """

    name = "Redis and WAIT 1"
    reads = False

    def start(self, scratch: Path) -> None:
        """Starts them, and waits until both replicas follow."""
        self._start(scratch, REPLICAS, "--appendonly", "no", "--repl-diskless-sync-delay", "0")

        def following() -> bool:
            return ask(self.address, _REPLICATION).count(b"state=online") == REPLICAS - 1

        wait_until(following, START_LIMIT_S, "that both replicas follow")

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """SET and WAIT in one piece, which redis-benchmark cannot send."""
        outcome = closed_loop(self.address, clients, seconds, lambda: Writes(replicas=1))
        return figures(outcome.latencies_s, outcome.elapsed_s)
