"""libpaxos (libpaxos3, in C), by the sample programs that it builds; Debian has no package."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp
from typing import Literal, NamedTuple

from bench.errors import BenchError
from bench.peers.peer import REPLICAS, VALUE_BYTES, Figures, Kind, wait_for
from bench.processes import Child, children
from bench.store_cluster import free_base_port
from p4xos.tables import Address

VARIABLE = "LIBPAXOS_BIN"
"""Of the environment: the directory with the programs, `sample` in libpaxos' build directory."""
PROGRAMS = ("acceptor", "proposer", "client")
LMDB_BYTES = 4 << 30
"""Its default, 10 MB, is full after some 50,000 values, and then it stops without a word."""
_LEAST_SECONDS = 3
"""It tells of whole seconds, and the first is not counted."""
_STATISTICS = re.compile(
    r"^(\d+) value/sec, [\d.]+ Mbps, latency min (\d+) us max (\d+) us avg (\d+) us$", re.MULTILINE
)


class Second(NamedTuple):
    """What its client tells each second."""

    values: int
    min_us: int
    max_us: int
    mean_us: int


class Libpaxos:
    """Three acceptors, a proposer, and its client with so many values outstanding.

    The client is a learner too, and counts a value when it has learned it: nobody applies it. It
    tells no percentiles, and there is nothing to read.
    """

    reads = False

    def __init__(self, name: str, storage: Literal["memory", "lmdb"]) -> None:
        self.name = name
        self._storage: Literal["memory", "lmdb"] = storage
        self._directory = Path(os.environ.get(VARIABLE, ""))
        self._scratch = Path()

    def missing(self) -> str | None:
        """The programs."""
        if VARIABLE not in os.environ:
            return (
                f"{VARIABLE} is not set; build libpaxos3 (cmake, libevent-dev, libmsgpack-dev) and "
                "set it to the directory of the sample programs"
            )
        lacking = [name for name in PROGRAMS if not os.access(self._directory / name, os.X_OK)]
        return f"{VARIABLE}={self._directory} has no {', '.join(lacking)}" if lacking else None

    def start(self, scratch: Path) -> None:
        """Notes where its files go: each load has processes of its own.

        A client that joins acceptors with a past is told nothing at all now and then.
        """
        scratch.mkdir(parents=True, exist_ok=True)
        self._scratch = scratch

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """Starts all of it; its client for whole seconds, without the first."""
        wanted = max(round(seconds), _LEAST_SECONDS) + 1
        with children() as started:
            client = self.launch(started, clients)

            def told() -> list[Second]:
                return parse_statistics(client.log_text())

            wait_for(lambda: len(told()) >= wanted, started, f"{wanted} seconds of libpaxos")
            # Not asked to stop but killed: it sometimes crashes while it clears up.
        values = [second.values for second in told()[1:]]
        if not any(values):
            raise BenchError(f"libpaxos delivered nothing; it said:\n{client.last_lines()}")
        return Figures(sum(values) / len(values), None, None)

    def stop(self) -> None:
        """Nothing: no process outlives its load."""

    def program(self, name: str, *arguments: str, log: Path) -> Child:
        """Starts one of its programs; `log` is the directory of what it says."""
        # It would keep its lines back until it ends.
        command = ["stdbuf", "-oL", str(self._directory / name), *arguments]
        number = sum(1 for _ in log.glob(f"*-{name}.txt"))
        return Child(f"libpaxos' {name}", command, log / f"{number}-{name}.txt")

    def launch(self, started: list[Child], outstanding: int) -> Child:
        """Starts all processes, each when those that it connects to are listening; the client."""
        directory = Path(mkdtemp(dir=self._scratch))
        conf = directory / "paxos.conf"

        def launch(program: str, *arguments: str) -> Child:
            started.append(self.program(program, *arguments, log=directory))
            return started[-1]

        base = free_base_port()
        *acceptors, proposer = (Address("127.0.0.1", base + k) for k in range(REPLICAS + 1))
        conf.write_text(conf_text(acceptors, proposer, self._storage, directory / "lmdb"))
        for k in range(REPLICAS):
            launch("acceptor", str(k), str(conf))
        wait_for(lambda: all(map(_listens, acceptors)), started, "that its acceptors listen")
        launch("proposer", "0", str(conf))
        wait_for(lambda: _listens(proposer), started, "that its proposer listens")
        return launch("client", str(conf), "-o", str(outstanding), "-v", str(VALUE_BYTES))


def conf_text(
    acceptors: Sequence[Address],
    proposer: Address,
    storage: Literal["memory", "lmdb"],
    lmdb_path: Path,
) -> str:
    """A paxos.conf; with lmdb, every vote is synced before it is told.

    Args:
      acceptors: in the order of their ids.
      proposer: the only one.
      storage: of the acceptors.
      lmdb_path: of their databases, which libpaxos names after it.
    """
    lines = [f"acceptor {k} {a.host} {a.port}" for k, a in enumerate(acceptors)]
    lines.append(f"proposer 0 {proposer.host} {proposer.port}")
    lines += ["verbosity error", "tcp-nodelay yes", "learner-catch-up no"]
    lines.append(f"storage-backend {storage}")
    if storage == "lmdb":
        lines += ["lmdb-sync yes", f"lmdb-env-path {lmdb_path}", f"lmdb-mapsize {LMDB_BYTES}"]
    return "\n".join(lines) + "\n"


def parse_statistics(text: str) -> list[Second]:
    """The seconds that its client tells of, whatever else it says."""
    return [Second(*map(int, found)) for found in _STATISTICS.findall(text)]


def _listens(address: Address) -> bool:
    with suppress(OSError), socket.create_connection(address):
        return True
    return False
