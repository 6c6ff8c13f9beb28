"""A cluster of the store on this machine, every node a process that can be killed and started."""

from __future__ import annotations

import dataclasses
import random
import socket
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.errors import BenchError
from bench.processes import Child, kill_all, wait_until
from kvstore.cluster import StoreApplication
from kvstore.config import endpoints
from p4xos.config import LEARNER_OFFSET, Cluster, Storage
from p4xos.creation import CLUSTER_NAME, Wanted, find_or_create
from p4xos.ports import obstacles
from p4xos.tables import Address

START_LIMIT_S = 60.0
"""Far longer than a node needs to serve, on a machine that does much else."""
CATCH_UP_LIMIT_S = 120.0
_PING = b"*1\r\n$4\r\nPING\r\n"
_PROBE = b"*3\r\n$3\r\nSET\r\n$5\r\nprobe\r\n$1\r\n1\r\n"
_INFO = b"*2\r\n$4\r\nINFO\r\n$9\r\nconsensus\r\n"
_DBSIZE = b"*1\r\n$6\r\nDBSIZE\r\n"
_FIRST_PORT = 10_000
_PORTS = LEARNER_OFFSET + 10


class StoreCluster:
    """Creates the cluster, or finds it, in a directory; runs its nodes until the block ends."""

    def __init__(
        self,
        directory: Path,
        storage: Storage = "disk",
        nodes: int = 3,
        window: int | None = None,
        data_plane: str | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
          directory: made when it does not exist.
          storage: of the acceptors.
          nodes: odd.
          window: instances held at once, of a cluster that is created; None: as by default.
          data_plane: of a cluster that is created; None: numpy.

        Raises:
          P4xosError, OSError: it could not be created.
        """
        self.application = StoreApplication()
        directory.mkdir(parents=True, exist_ok=True)
        created = (directory / CLUSTER_NAME).exists()
        wanted = Wanted()
        if not created:
            wanted = Wanted(nodes, free_base_port(), storage, data_plane)
        self.cluster: Cluster = find_or_create(directory, wanted, self.application.complete)
        if window is not None and not created:
            file = directory / CLUSTER_NAME
            file.write_text(dataclasses.replace(self.cluster, window=window).to_toml())
            self.cluster = Cluster.load(file)
        self.names = [node.name for node in self.cluster.nodes]
        self.children: dict[str, Child] = {}
        """The last process of each node that was started, ended or not."""
        self._endpoints = endpoints(self.cluster)
        self._all: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        kill_all(self._all)

    def endpoint(self, name: str) -> Address:
        """Where a node serves RESP."""
        return self._endpoints[name]

    def data(self, name: str) -> Path:
        """A node's directory."""
        return self.cluster.data_directory(name)

    def start(self, *names: str) -> None:
        """Starts nodes, all of them by default, and returns when each answers PING.

        Raises:
          BenchError: one ended, or does not answer; its last lines are in the message.
        """
        chosen = names or tuple(self.names)
        for name in chosen:
            self.launch(name)
        for name in chosen:
            self.wait_for_answer(name, _PING, b"+PONG")

    def launch(self, name: str, *flags: str) -> Child:
        """Starts a node, with these flags besides, and does not wait for anything."""
        file = self.cluster.directory / CLUSTER_NAME
        command = [*self.application.command(file, name), *flags]
        # Not in the node's own directory: what it says of a full disk must find room.
        child = Child(f"node {name}", command, self.cluster.directory / f"{name}.txt")
        self.children[name] = child
        self._all.append(child)
        return child

    def wait_until_writable(self, *names: str) -> None:
        """Returns when a write through each node was acknowledged: a coordinator serves."""
        for name in names or tuple(self.names):
            self.wait_for_answer(name, _PROBE, b"+OK")

    def wait_for_answer(self, name: str, request: bytes, expected: bytes) -> None:
        """Asks a node until the answer begins as expected."""
        child = self.children[name]

        def answered() -> bool:
            if not child.running:
                status = child.process.returncode
                raise BenchError(
                    f"{child.name} ended with status {status}; its last lines:\n"
                    f"{child.last_lines()}"
                )
            return ask(self.endpoint(name), request).startswith(expected)

        try:
            wait_until(answered, START_LIMIT_S, f"an answer {expected!r} of {child.name}")
        except BenchError as error:
            raise BenchError(f"{error}; its last lines:\n{child.last_lines()}") from None

    def kill(self, *names: str) -> None:
        """SIGKILL to these nodes at once, all of them by default."""
        kill_all([self.children[name] for name in names or self.names])

    def stop(self) -> dict[str, int]:
        """Asks all running nodes to stop; their exit statuses."""
        running = {name: child for name, child in self.children.items() if child.running}
        for child in running.values():
            child.process.terminate()
        return {name: child.wait() for name, child in running.items()}

    def consensus(self, name: str) -> dict[str, str]:
        """What a running node tells of its roles; empty when it does not answer."""
        lines = ask(self.endpoint(name), _INFO).decode(errors="replace").splitlines()
        pairs = (line.partition(":") for line in lines)
        return {key: value for key, colon, value in pairs if colon}

    def coordinator(self) -> str:
        """The running node whose coordinator serves; waits until there is exactly one."""
        found: list[str] = []

        def known() -> bool:
            running = (name for name, child in self.children.items() if child.running)
            found[:] = [n for n in running if self.consensus(n).get("coordinator") == "serving"]
            return len(found) == 1

        wait_until(known, START_LIMIT_S, "that one coordinator serves")
        return found[0]

    def wait_until_alike(self, *names: str) -> None:
        """Returns when these nodes, all by default, tell the same number of keys at one time.

        A linearizable DBSIZE waits until its node has caught up, so equal numbers are not those
        of a node that lags: with no writes under way, each has everything.
        """

        def alike() -> bool:
            sizes = {ask(self.endpoint(name), _DBSIZE) for name in names or self.names}
            return len(sizes) == 1 and sizes.pop().startswith(b":")

        wait_until(alike, CATCH_UP_LIMIT_S, f"catching up (nodes {', '.join(names) or 'all'})")

    def wait_until_all_vote(self, *names: str) -> None:
        """Returns when no acceptor of these nodes, all by default, is one that has forgotten."""

        def all_vote() -> bool:
            wanted = names or tuple(self.names)
            return all(self.consensus(n).get("silent_acceptors") == "0" for n in wanted)

        wait_until(all_vote, CATCH_UP_LIMIT_S, "that every acceptor has joined again")

    def running_pids(self) -> list[int]:
        """The processes of all running nodes."""
        return [child.pid for child in self.children.values() if child.running]

    def cpu_s(self) -> float:
        """CPU seconds of all running nodes so far."""
        return sum(child.cpu_s() for child in self.children.values() if child.running)


def ask(address: Address, request: bytes, limit_s: float = 20.0) -> bytes:
    """The first bytes of a TCP server's answer; empty for whatever goes wrong.

    `limit_s` is longer than a node waits for a majority, so that its own answer comes first.
    """
    with suppress(OSError), socket.create_connection(address, limit_s) as connection:
        connection.sendall(request)
        return connection.recv(4096)
    return b""


def free_base_port() -> int:
    """A base port for `Cluster.template` whose block of ports is free.

    Below the range from which the kernel takes ports for outgoing connections: in that range a
    client's connection could sit on the port of a node that is down, which then could not start.
    """
    text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
    last = min(int(text.split()[0]), 65_536) - _PORTS
    if last <= _FIRST_PORT:
        raise BenchError(
            f"outgoing connections use ports from {last + _PORTS}; nothing is left below for "
            "the nodes: sysctl net.ipv4.ip_local_port_range='32768 60999'"
        )
    for base in random.sample(range(_FIRST_PORT, last), 50):
        addresses = [Address("127.0.0.1", base + k) for k in range(_PORTS)]
        wanted = [(kind, a, "") for a in addresses for kind in ("TCP", "UDP")]
        if not obstacles(wanted):  # type: ignore[arg-type]  # the literals are widened to str
            return base
    raise BenchError("no block of free ports was found; stop what holds so many")
