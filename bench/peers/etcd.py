"""etcd; Debian's package etcd-server."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.request import urlopen

from bench.peers.closed_loop import closed_loop
from bench.peers.grpc import Call
from bench.peers.peer import REPLICAS, Figures, Kind, figures, wait_for
from bench.processes import Child, children
from bench.store_cluster import free_base_port
from p4xos.tables import Address

PROGRAM = "etcd"
NO_FSYNC = "--unsafe-no-fsync"
_LOOK_LIMIT_S = 5.0


class Etcd:
    """Three members; clients connect to the leader, which spares them a hop between members."""

    reads = True

    def __init__(self, name: str, fsync: bool) -> None:
        self.name = name
        self.address: Address
        """The leader's address for clients, once it was started."""
        self._fsync = fsync
        self._stack = ExitStack()

    def missing(self) -> str | None:
        """The server, or its option."""
        if shutil.which(PROGRAM) is None:
            return f"no {PROGRAM}; apt-get install etcd-server"
        if not self._fsync:
            told = subprocess.run([PROGRAM, "--help"], capture_output=True, text=True)
            if NO_FSYNC not in told.stdout + told.stderr:
                return (
                    f"this {PROGRAM} has no {NO_FSYNC}; install etcd 3.5 or later, or see what "
                    "--directory /dev/shm does for all peers alike"
                )
        return None

    def start(self, scratch: Path) -> None:
        """Starts the members, and waits until one of them leads."""
        base = free_base_port()
        serving = [Address("127.0.0.1", base + k) for k in range(REPLICAS)]
        peering = [Address("127.0.0.1", base + REPLICAS + k) for k in range(REPLICAS)]
        members = ",".join(f"m{k}=http://{address}" for k, address in enumerate(peering))
        started = self._stack.enter_context(children())
        for k in range(REPLICAS):
            client, peer = f"http://{serving[k]}", f"http://{peering[k]}"
            command = [
                PROGRAM, "--name", f"m{k}", "--data-dir", str(scratch / f"m{k}"),
                "--listen-client-urls", client, "--advertise-client-urls", client,
                "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                "--initial-cluster", members, "--initial-cluster-state", "new",
                "--logger", "zap", "--log-level", "warn",
            ]  # fmt: skip
            command += [] if self._fsync else [NO_FSYNC]
            started.append(Child(f"{PROGRAM} m{k}", command, scratch / f"m{k}.txt"))
        leaders: list[Address] = []

        def led() -> bool:
            leaders[:] = [address for address in serving if _leads(address)]
            return len(leaders) == 1

        wait_for(led, started, f"that one {PROGRAM} leads")
        (self.address,) = leaders

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """gRPC, as etcd's own clients speak; a Range is linearizable unless asked otherwise."""
        outcome = closed_loop(self.address, clients, seconds, lambda: Call(kind, str(self.address)))
        return figures(outcome.latencies_s, outcome.elapsed_s)

    def stop(self) -> None:
        """Kills the members."""
        self._stack.close()


def _leads(address: Address) -> bool:
    """Whether a member says so in its metrics."""
    with suppress(OSError), urlopen(f"http://{address}/metrics", timeout=_LOOK_LIMIT_S) as told:
        return b"\netcd_server_is_leader 1\n" in told.read()
    return False
