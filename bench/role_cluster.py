"""A group whose roles are processes of their own, all new, and a learner that only counts.

    python -m bench.role_cluster FILE NODE      runs a node with such a learner until SIGTERM
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import trio

from bench.errors import BenchError
from bench.processes import Child, python_module, wait_until
from p4xos.config import Cluster, Member, RoleName, Storage, Timing
from p4xos.config import Node as NodeEntry
from p4xos.creation import CLUSTER_NAME
from p4xos.effects import Delivery
from p4xos.envelope import ENVELOPE_BYTES
from p4xos.errors import P4xosError
from p4xos.node import Node, until_signalled
from p4xos.ports import free_addresses
from p4xos.storage import create_mark

VALUE_BYTES_MIN = 80
"""What the control messages need (p4xos.config)."""
WINDOW = Cluster.window
DEADLINE_S = 60.0
"""The first values are submitted while acceptors and coordinator are still starting."""
START_LIMIT_S = 120.0
"""Far longer than twenty learners need to start on two cores."""
_READY = "learning"

T = TypeVar("T")

Deliveries = Sequence[tuple[Delivery, int | None]]


def create(
    directory: Path,
    storage: Storage,
    payload_bytes: int,
    *,
    acceptors: int = 3,
    learners: int = 1,
    window: int = WINDOW,
) -> Cluster:
    """A coordinator, acceptors and learners, each a node of its own, in a new directory.

    Args:
      directory: is made here.
      storage: of the acceptors.
      payload_bytes: of the values, which have envelopes besides.
      acceptors, learners: how many; odd.
      window: instances, a power of two.
    """
    roles: list[tuple[RoleName, int]] = [("acceptor", k) for k in range(acceptors)]
    roles += [("coordinator", 0), *(("learner", k) for k in range(learners))]
    names = [f"{role[0]}{k}" for role, k in roles]
    addresses = free_addresses(2 * len(names))
    peers, udp = addresses[: len(names)], addresses[len(names) :]

    def members(wanted: RoleName) -> tuple[Member, ...]:
        return tuple(
            Member(k, name, address)
            for (role, k), name, address in zip(roles, names, udp, strict=True)
            if role == wanted
        )

    value_bytes = (ENVELOPE_BYTES + payload_bytes + 7) & ~7
    cluster = replace(
        Cluster.template(1, storage=storage, directory=directory),
        nodes=tuple(NodeEntry(n, p, n) for n, p in zip(names, peers, strict=True)),
        acceptors=members("acceptor"),
        coordinators=members("coordinator"),
        learners=members("learner"),
        value_bytes=max(value_bytes, VALUE_BYTES_MIN),
        window=window,
        timing=Timing(deadline_s=DEADLINE_S),
    )
    directory.mkdir()
    file = directory / CLUSTER_NAME
    file.write_text(cluster.to_toml())
    for acceptor in cluster.acceptors:
        place = cluster.member_directory("acceptor", acceptor.id)
        create_mark(place, cluster=cluster.id, group=cluster.group, acceptor=acceptor.id)
    return Cluster.load(file)


def start_role(cluster: Cluster, role: RoleName, member: int, started: list[Child]) -> Child:
    """Starts one role as `p4xos role` does; the child is added to `started`."""
    command = python_module("p4xos", "role", role, str(member), "--cluster", cluster.source)
    child = Child(f"{role} {member}", command, cluster.directory / f"{role}-{member}.txt")
    started.append(child)
    return child


def start_voters(cluster: Cluster, started: list[Child]) -> None:
    """Starts all acceptors and coordinators."""
    roles: tuple[RoleName, ...] = ("acceptor", "coordinator")
    for role in roles:
        for member in cluster.members(role):
            start_role(cluster, role, member.id, started)


def start_learners(cluster: Cluster, ids: Sequence[int], started: list[Child]) -> None:
    """Starts learners that count; returns when all are there to hear of votes.

    Raises:
      BenchError: one ended, or needs too long.
    """
    own = []
    for id in ids:
        node = cluster.member("learner", id).node
        command = python_module("bench.role_cluster", cluster.source, node)
        own.append(Child(f"learner {id}", command, cluster.directory / f"learner-{id}.txt"))
        started.append(own[-1])
    for child in own:

        def ready(child: Child = child) -> bool:
            if not child.running:
                raise BenchError(f"{child.name} ended:\n{child.last_lines()}")
            return _READY in child.log_text()

        wait_until(ready, START_LIMIT_S, f"the start of {child.name}")


class Counter:
    """A state machine that counts what it is given."""

    def __init__(self) -> None:
        self.applied = 0
        self.values = 0
        self.on_deliveries: Callable[[Deliveries], None] | None = None
        """Gets each batch besides, as it is applied."""

    def learner_state(self) -> Mapping[bytes, bytes]:
        """Nothing was ever stored."""
        return {}

    def apply(
        self,
        deliveries: Deliveries,
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Counts."""
        self.values += sum(len(delivery.lengths) for delivery, _ in deliveries)
        self.applied = through
        if self.on_deliveries is not None:
            self.on_deliveries(deliveries)

    def unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """A value that got no answer makes the run void."""
        raise BenchError(f"{len(tickets)} values got no answer: {error}")

    def sync(self) -> int:
        """There is nothing to lose."""
        return self.applied

    def snapshot(self, directory: Path) -> int:
        """A count is no state to begin from: a learner that asks for one makes the run void."""
        raise BenchError("another learner fell behind what the acceptors keep")

    def install(self, directory: Path) -> None:
        """Being left behind makes the run void."""
        raise BenchError("the learner fell behind what the acceptors keep")


def run_learner(
    cluster: Cluster, name: str, counter: Counter, main: Callable[[Node], Awaitable[T]]
) -> T:
    """Runs a learner's node in this process until `main` returns; returns what that does.

    Raises:
      BenchError: the run is void.
    """

    async def run() -> T:
        with Node(cluster, name).open(counter) as node:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.run)
                result = await main(node)
                nursery.cancel_scope.cancel()
        return result

    with _own_process():
        try:
            return trio.run(run)
        except BaseExceptionGroup as group:
            raise _only_error(group) from None


@contextmanager
def _own_process() -> Iterator[None]:
    """Takes back what a node sets for its whole process: it is that of other scenarios too.

    What they start would inherit the scheduling class, a load generator among it.
    """
    policy, threshold = os.sched_getscheduler(0), gc.get_threshold()
    try:
        yield
    finally:
        if os.sched_getscheduler(0) != policy:
            os.sched_setscheduler(0, policy, os.sched_param(0))
        gc.set_threshold(*threshold)
        gc.unfreeze()


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in nested groups; the group itself when there are several."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) > 1:
            return group
        error = error.exceptions[0]
    return error


def _main(file: str, name: str) -> None:
    async def main(node: Node) -> None:
        print(_READY, flush=True)
        await until_signalled(trio.sleep_forever)

    run_learner(Cluster.load(file), name, Counter(), main)


if __name__ == "__main__":
    _main(*sys.argv[1:])
