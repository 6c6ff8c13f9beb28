"""The cluster of a run: nodes are processes on hosts of their own, to be broken and mended."""

from __future__ import annotations

import http.client
import random
import shutil
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from bench.chaos.hosts import Host, Network
from bench.chaos.preload import Page, build
from bench.errors import BenchError
from bench.processes import Child, Unmet, kill_all, python_module, wait_until
from bench.store_cluster import ask
from kvstore import comparison
from kvstore.config import endpoints, with_endpoints
from p4xos import secret
from p4xos.config import (
    ACCEPTOR_OFFSET,
    COORDINATOR_OFFSET,
    LEARNER_OFFSET,
    METRICS_OFFSET,
    PEER_OFFSET,
    ROLE_NAMES,
    Cluster,
    Member,
    Node,
    RoleName,
)
from p4xos.creation import CLUSTER_NAME, Wanted, find_or_create
from p4xos.dialing import ask_untrusted, dial
from p4xos.errors import P4xosError
from p4xos.tables import Address

SMALL_DISK_BYTES = 160 << 20
_STATUS_LIMIT_S = 1.0
_BASE_PORT = 7101
_PROBE = b"*3\r\n$3\r\nSET\r\n$5\r\nprobe\r\n$1\r\n1\r\n"
_LEARNERS, _COORDINATORS = 3, 2


class Violation(P4xosError):
    """The cluster broke a promise; the message says which."""


class HarnessLost(BenchError):
    """What belongs to the run ended by itself, so the run says nothing about the cluster."""


def layout(nodes: int, *, separate: bool) -> dict[str, tuple[RoleName, ...]]:
    """Which roles each node runs: all of them, or one each.

    Args:
      nodes: of the acceptors; odd.
      separate: whether a role is a node, so that a kill is that of one role.
    """
    if not separate:
        return {f"n{k + 1}": ROLE_NAMES for k in range(nodes)}
    names: dict[str, tuple[RoleName, ...]] = {f"a{k + 1}": ("acceptor",) for k in range(nodes)}
    names |= {f"c{k + 1}": ("coordinator",) for k in range(_COORDINATORS)}
    names |= {f"l{k + 1}": ("learner",) for k in range(_LEARNERS)}
    return names


def placed(
    cluster: Cluster, roles: Mapping[str, Sequence[RoleName]], hosts: Mapping[str, str], window: int
) -> Cluster:
    """A new cluster with these roles on these hosts, ports as `kvstore create` has them."""
    offsets = {
        "acceptor": ACCEPTOR_OFFSET, "coordinator": COORDINATOR_OFFSET, "learner": LEARNER_OFFSET,
    }  # fmt: skip

    def members(role: RoleName) -> tuple[Member, ...]:
        names = [name for name in roles if role in roles[name]]
        port = _BASE_PORT + offsets[role]
        return tuple(Member(k, name, Address(hosts[name], port)) for k, name in enumerate(names))

    nodes = tuple(
        Node(
            name, Address(hosts[name], _BASE_PORT + PEER_OFFSET), name,
            metrics=Address(hosts[name], _BASE_PORT + METRICS_OFFSET),
        )
        for name in roles
    )  # fmt: skip
    moved = replace(
        cluster, nodes=nodes, acceptors=members("acceptor"), coordinators=members("coordinator"),
        learners=members("learner"), window=window,
    )  # fmt: skip
    served = {m.node: Address(hosts[m.node], _BASE_PORT) for m in moved.learners}
    moved = with_endpoints(moved, served)
    return Cluster.parse(moved.to_toml(), "<new cluster>", cluster.directory)


class ChaosCluster:
    """Makes hosts and a cluster on them; nothing of it is left when the block ends but files."""

    heal_limit_s = 180.0
    """Far longer than nodes need to start, elect and catch up, on a machine that does much else."""

    def __init__(
        self,
        directory: Path,
        *,
        nodes: int = 3,
        separate: bool = False,
        window: int = 65536,
        small_disk: bool = False,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Nothing runs yet.

        Args:
          directory: empty, or not there.
          nodes: odd.
          separate: whether each role is a node.
          window: instances that acceptors hold.
          small_disk: whether the last node with a store has a small disk, in memory: a store needs
            room all the time, where an acceptor has some reserved.
          environment: variables for the nodes besides.
        """
        self.directory = directory
        self.roles = layout(nodes, separate=separate)
        self.names = list(self.roles)
        self.children: dict[str, Child] = {}
        """The last process of each node that was started, ended or not."""
        self.out: set[str] = set()
        """Nodes that a fault has taken; another one leaves them alone."""
        self.forgetful: set[str] = set()
        """Nodes that have lost their disk, until they have joined: `all_have_joined` looks."""
        self.helpers: list[Child] = []
        """Processes of faults."""
        self.kills = 0
        stores = [name for name, roles in self.roles.items() if "learner" in roles]
        self.small = stores[-1] if small_disk else None
        self._window = window
        self._environment = dict(environment or {})
        self._all: list[Child] = []
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.directory.mkdir(parents=True, exist_ok=True)
            self.network = stack.enter_context(Network(self.names, self.directory))
            stack.callback(kill_all, self._all)  # before their hosts go
            stack.callback(kill_all, self.helpers)
            addresses = {name: self.network.hosts[name].address for name in self.names}
            home = self.directory / "cluster"  # a new cluster wants an empty directory
            home.mkdir()
            self.cluster = find_or_create(
                home, Wanted(base_port=0),
                lambda new, _: placed(new, self.roles, addresses, self._window),
            )  # fmt: skip
            self.endpoints = endpoints(self.cluster)
            library = build(self.directory)
            self.pages: dict[str, Page] = {}
            for name in self.names:
                page = self.pages[name] = Page(self.directory / f"{name}.page", library)
                stack.callback(page.close)
            if self.small is not None:
                self._mount_small_disk(self.small)
            self._resources = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._resources.close()

    def _mount_small_disk(self, name: str) -> None:
        """In the host's own mount namespace, so that it goes with the host."""
        place, aside = self.cluster.data_directory(name), self.directory / f"{name}.aside"
        place.mkdir(exist_ok=True)  # a learner's is made when it starts
        shutil.copytree(place, aside)
        size = f"size={SMALL_DISK_BYTES}"
        self.host(name).run(["mount", "-t", "tmpfs", "-o", size, "small", str(place)])
        shutil.copytree(aside, self.data(name), dirs_exist_ok=True)
        shutil.rmtree(aside)

    def keep_small_disk(self) -> None:
        """Copies what is on the small disk to a file system that stays, to be looked at."""
        if self.small is not None:
            shutil.copytree(self.data(self.small), self.directory / f"{self.small}.small-disk")

    # Nodes

    def host(self, name: str) -> Host:
        """Where a node runs."""
        return self.network.hosts[name]

    def data(self, name: str) -> Path:
        """A node's directory, as its host sees it."""
        return self.host(name).path(self.cluster.data_directory(name))

    def launch(self, name: str) -> Child:
        """Starts a node, as an operator would after what has befallen it; waits for nothing."""
        module = "kvstore" if "learner" in self.roles[name] else "p4xos"
        file = str(self.cluster.directory / CLUSTER_NAME)
        flags = ["--join"] if name in self.forgetful and module == "kvstore" else []
        command = python_module(module, "node", "--cluster", file, "--name", name, *flags)
        command = ["env", *(f"{k}={v}" for k, v in self._environment.items()), *command]
        command = self.host(name).command(self.pages[name].command(command))
        child = Child(f"node {name}", command, self.directory / f"{name}.txt")
        self.children[name] = child
        self._all.append(child)
        return child

    def start(self) -> None:
        """Starts all nodes, and returns when they serve."""
        for name in self.names:
            self.launch(name)
        self.wait_until_alike()

    def kill(self, names: Iterable[str]) -> None:
        """SIGKILL to these nodes at once."""
        chosen = [self.children[name] for name in names]
        self.kills += sum(child.running for child in chosen)
        kill_all(chosen)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Sends a node a signal."""
        self.children[name].process.send_signal(number)

    def free(self) -> list[str]:
        """Nodes that no fault has taken."""
        return [name for name in self.names if name not in self.out]

    def all_have_joined(self) -> bool:
        """Whether no node lacks anything any more that it lost with its disk."""
        self.forgetful = {name for name in self.forgetful if self._ready(name)}
        return not self.forgetful

    def check_running(self) -> None:
        """Every node runs that no fault has taken.

        Raises:
          Violation: one has ended by itself.
        """
        for name in self.free():
            child = self.children[name]
            if not child.running:
                raise Violation(
                    f"{child.name} ended by itself with status {child.process.returncode}; "
                    f"its last lines:\n{child.last_lines()}"
                )
        for host in self.network.hosts.values():
            if not host.holder.running:
                raise HarnessLost(f"{host.holder.name} is gone; was its `sleep` killed?")

    # Questions

    def ask(self, name: str, request: bytes, limit_s: float = 20.0) -> bytes:
        """The first bytes of a node's answer over RESP; empty for whatever goes wrong."""
        with self.network.clients.entered():
            return ask(self.endpoints[name], request, limit_s)

    def statuses(self, names: Iterable[str]) -> dict[str, Mapping[str, object]]:
        """What these nodes tell of themselves; one that does not answer soon is left out."""
        with self.network.clients.entered():
            return trio.run(self._statuses, list(names))

    async def _statuses(self, names: list[str]) -> dict[str, Mapping[str, object]]:
        found: dict[str, Mapping[str, object]] = {}
        shared = secret.of(self.cluster)

        async def one(name: str) -> None:
            with trio.move_on_after(_STATUS_LIMIT_S), suppress(P4xosError):
                dialed = await dial(self.cluster.node(name).peer, self.cluster.id, shared)
                try:
                    frame = await ask_untrusted(dialed, {"ask": "status", "id": 1})
                finally:
                    await dialed.frames.aclose()
                status = frame.head.get("status")
                if isinstance(status, dict):
                    found[name] = status

        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(one, name)
        return found

    def coordinator(self, chance: random.Random) -> str | None:
        """A free node whose coordinator serves; a guess when none says so, None: none is free."""
        able = [name for name in self.free() if "coordinator" in self.roles[name]]
        statuses = self.statuses(able)
        serving = [name for name in able if _serves(statuses.get(name))]
        return chance.choice(serving or able) if able else None

    def wait_until_serving(self) -> None:
        """All nodes are ready, and each store takes a write.

        Raises:
          Violation: they do not get there, though nothing hinders them any more.
        """
        self._wait_until_no(self._hindrance)

    def wait_until_alike(self) -> None:
        """All stores have applied the same, and are ready; for when nobody writes.

        Raises:
          Violation: they do not get there.
        """
        self._wait_until_no(lambda: self._hindrance() or self._difference())

    def _wait_until_no(self, problem: Callable[[], str]) -> None:
        """Returns when there is no problem any more."""
        said = "nothing was asked yet"

        def solved() -> bool:
            nonlocal said
            self.check_running()
            said = problem()
            return not said

        try:
            wait_until(solved, self.heal_limit_s, "healing")
        except Unmet:
            raise Violation(
                f"no service {self.heal_limit_s:g} s after all was mended: {said}"
            ) from None

    def _hindrance(self) -> str:
        """Why the cluster does not serve, empty when it does."""
        for name in self.names:
            told = self._ready(name)
            if told:
                return f"node {name}: {told}"
        self.forgetful.clear()  # who is ready does not stay silent
        for name in self.endpoints:
            answer = self.ask(name, _PROBE)
            if not answer.startswith(b"+OK"):
                return f"node {name} answers a write with {answer!r}"
        return ""

    def _difference(self) -> str:
        """How the stores differ in what they have applied, empty when they do not."""
        statuses = self.statuses(self.endpoints)
        places = {name: _part(s, "learner").get("delivered") for name, s in statuses.items()}
        if len(places) == len(self.endpoints) and len(set(places.values())) == 1:
            return ""
        return f"applied: {places}"

    def _ready(self, name: str) -> str:
        """What a node's page says of why it is not ready; empty when it is."""
        address = self.cluster.node(name).metrics
        assert address is not None
        try:
            with self.network.clients.entered():
                connection = http.client.HTTPConnection(*address, timeout=5)
                connection.connect()
            try:
                connection.request("GET", "/readyz")
                answer = connection.getresponse()
                text = answer.read().decode(errors="replace").strip()
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            return f"its page /readyz does not answer ({error!r})"
        return "" if answer.status == http.HTTPStatus.OK else text

    def compare(self) -> None:
        """All replicas have the same state.

        Raises:
          Violation: they have not.
        """
        with self.network.clients.entered():
            found = comparison.compare(self.cluster)
        if not found.good:
            raise Violation(f"the replicas differ: {found.lines()}")


def _part(status: Mapping[str, object] | None, name: str) -> Mapping[str, object]:
    """One role's part of a status."""
    part = (status or {}).get(name)
    return part if isinstance(part, dict) else {}


def _serves(status: Mapping[str, object] | None) -> bool:
    """Whether a node's coordinator takes itself for the one in charge."""
    return _part(status, "coordinator").get("phase") == "serving"
