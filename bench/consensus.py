"""Values a second through three acceptors and one learner, each role a process of its own.

The bench itself is the learner with its proposer, which keeps so many values in flight (a closed
loop). What counts is what its learner delivers, in order and once. The time before the first tenth
is delivered is warm-up: the coordinator's takeover, the session, the first growth of every buffer.
CPU is what the kernel has charged to each process between that moment and the end, in clock ticks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trio

from bench.errors import BenchError
from bench.processes import Child, children, process_cpu_s, python_module
from bench.results import Metric, Sample
from p4xos.application import Application
from p4xos.config import Cluster, Member, Storage
from p4xos.config import Node as NodeEntry
from p4xos.creation import CLUSTER_NAME
from p4xos.driver import Driver
from p4xos.effects import Delivery, Effects
from p4xos.envelope import ENVELOPE_BYTES, request_rows
from p4xos.errors import P4xosError
from p4xos.node import Node
from p4xos.ports import free_addresses
from p4xos.storage import create_mark
from p4xos.wire import HEADER_BYTES

PAYLOAD_BYTES = 64
IN_FLIGHT = 6144
BURST = 2048
"""Values of one submission."""
WARM_UP_SHARE = 0.1
STALL_LIMIT_S = 30.0
"""Nothing delivered for so long, and the run is void."""
VALUE_BYTES_MIN = 80
"""What the control messages need (p4xos.config)."""


class Case(NamedTuple):
    """A storage and how many values go through it."""

    storage: Storage
    values: int
    at_least: float | None

    def metric(self, name: str, unit: str, at_least: float | None = None) -> Metric:
        """A metric of this storage."""
        return Metric("consensus", f"{self.storage}: {name}", unit, at_least=at_least)


CASES = (Case("memory", 2_000_000, 1_000_000), Case("disk", 500_000, None))


class Figures(NamedTuple):
    """One run."""

    values_per_s: float
    cpu_us: Mapping[str, float]  # for each value delivered, by role; acceptors: the mean of them
    resent: int  # values that the proposer sent again, for want of an answer
    repaired: int  # times that the learner asked for votes or recovery again


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields each storage's figures, all of them once a run."""
    for number in range(runs):
        for case in CASES:
            values = max(int(case.values * scale), 10 * BURST)
            figures = measure(scratch / f"{case.storage}-{number}", case.storage, values)
            yield Sample(case.metric("delivered", "values/s", case.at_least), figures.values_per_s)
            for role, cpu_us in figures.cpu_us.items():
                yield Sample(case.metric(f"CPU of {role}", "us/value"), cpu_us)
            yield Sample(case.metric("sent again", "values"), figures.resent)
            yield Sample(case.metric("asked again", "times"), figures.repaired)


def measure(
    directory: Path,
    storage: Storage,
    values: int,
    payload_bytes: int = PAYLOAD_BYTES,
    in_flight: int = IN_FLIGHT,
) -> Figures:
    """One run in a new directory.

    Raises:
      BenchError: a process ended, or nothing was delivered for a long time.
    """
    cluster = _create(directory, storage, payload_bytes)
    with children() as started:
        for role in ("acceptor", "coordinator"):
            for member in cluster.members(role):
                name = f"{role} {member.id}"
                arguments = ["role", role, str(member.id), "--cluster", cluster.source]
                command = python_module("p4xos", *arguments)
                started.append(Child(name, command, directory / f"{role}-{member.id}.txt"))
        try:
            return trio.run(_measure, cluster, started, values, payload_bytes, in_flight)
        except BaseExceptionGroup as group:
            raise _only_error(group) from None


def _create(directory: Path, storage: Storage, payload_bytes: int) -> Cluster:
    """Three acceptors, a coordinator and a learner, each a node of its own; all new."""
    names = ["a0", "a1", "a2", "c0", "l0"]
    addresses = free_addresses(2 * len(names))
    peers, udp = addresses[: len(names)], addresses[len(names) :]
    value_bytes = (ENVELOPE_BYTES + payload_bytes + 7) & ~7
    cluster = replace(
        Cluster.template(1, storage=storage, directory=directory),
        nodes=tuple(NodeEntry(n, p, n) for n, p in zip(names, peers, strict=True)),
        acceptors=tuple(Member(k, names[k], udp[k]) for k in range(3)),
        coordinators=(Member(0, "c0", udp[3]),),
        learners=(Member(0, "l0", udp[4]),),
        value_bytes=max(value_bytes, VALUE_BYTES_MIN),
    )
    directory.mkdir()
    file = directory / CLUSTER_NAME
    file.write_text(cluster.to_toml())
    for acceptor in cluster.acceptors:
        place = cluster.member_directory("acceptor", acceptor.id)
        create_mark(place, cluster=cluster.id, group=cluster.group, acceptor=acceptor.id)
    return Cluster.load(file)


def _only_error(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error in nested groups; the group itself when there are several."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        if len(error.exceptions) > 1:
            return group
        error = error.exceptions[0]
    return error


class Counter:
    """A state machine that counts what it is given."""

    def __init__(self) -> None:
        self.applied = 0
        self.values = 0

    def learner_state(self) -> Mapping[bytes, bytes]:
        """Nothing was ever stored."""
        return {}

    def apply(
        self,
        deliveries: Sequence[tuple[Delivery, int | None]],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Counts."""
        self.values += sum(len(delivery.lengths) for delivery, _ in deliveries)
        self.applied = through

    def unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """A value that got no answer makes the run void."""
        raise BenchError(f"{len(tickets)} values got no answer: {error}")

    def sync(self) -> int:
        """There is nothing to lose."""
        return self.applied

    def snapshot(self, directory: Path) -> int:
        """There is no other learner that could ask."""
        raise NotImplementedError

    def install(self, directory: Path) -> None:
        """There is no other learner that could be asked: being left behind makes the run void."""
        raise BenchError("the learner fell behind what the acceptors keep")


async def _measure(
    cluster: Cluster, started: Sequence[Child], values: int, payload_bytes: int, in_flight: int
) -> Figures:
    counter = Counter()
    with Node(cluster, "l0").open(counter) as node:
        assert node.application is not None
        load = _Load(node.application, node.drivers[-1], counter, started, payload_bytes, in_flight)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            figures = await load.run(values)
            nursery.cancel_scope.cancel()
    return figures


@dataclass
class _Mark:
    """Where everything stood at a moment of the run."""

    values: int
    at_s: float
    cpu_s: dict[str, float]


class _Load:
    """Keeps `in_flight` values under way until all are delivered."""

    def __init__(
        self,
        application: Application,
        driver: Driver,
        counter: Counter,
        started: Sequence[Child],
        payload_bytes: int,
        in_flight: int,
    ) -> None:
        self._proposer = application.replica.proposer
        self._driver = driver
        self._counter = counter
        self._children = started
        self._in_flight = in_flight
        self._burst = min(BURST, in_flight)
        self._lengths = np.full(self._burst, payload_bytes, dtype=np.uint16)
        self._payload = np.arange(payload_bytes, dtype=np.uint8)
        self._moved = trio.Event()
        application.applied_more = self._on_applied

    def _on_applied(self) -> None:
        self._moved.set()

    async def run(self, values: int) -> Figures:
        """Submits and waits; the figures from the end of the warm-up on."""
        warm: _Mark | None = None
        submitted = 0
        while self._counter.values < values:
            while submitted < values and self._has_room():
                self._submit()
                submitted += self._burst
            if warm is None and self._counter.values >= values * WARM_UP_SHARE:
                warm = self._mark()
            await self._wait_for_more()
        assert warm is not None, "the warm-up is a part of the run"
        return self._figures(warm, self._mark())

    def _has_room(self) -> bool:
        proposer = self._proposer
        return proposer.in_flight + self._burst <= self._in_flight and proposer.room >= self._burst

    def _submit(self) -> None:
        """One burst, as rows: a Python object a value would measure Python."""
        rows = request_rows(self._proposer.frame, 0, 0, self._lengths)
        start = HEADER_BYTES + ENVELOPE_BYTES
        rows[:, start : start + len(self._payload)] = self._payload
        effects, now = Effects.none(), trio.current_time()
        self._proposer.submit_rows(rows, now, effects)
        self._driver.perform(effects, now)

    async def _wait_for_more(self) -> None:
        with trio.move_on_after(STALL_LIMIT_S) as scope:
            await self._moved.wait()
        self._moved = trio.Event()
        if scope.cancelled_caught:
            ended = [child for child in self._children if not child.running]
            said = "".join(f"\n{child.name} ended:\n{child.last_lines()}" for child in ended)
            raise BenchError(f"nothing was delivered for {STALL_LIMIT_S:g} s{said}")

    def _mark(self) -> _Mark:
        cpu_s = {child.name: child.cpu_s() for child in self._children}
        cpu_s["learner and proposer"] = process_cpu_s(os.getpid())
        return _Mark(self._counter.values, time.perf_counter(), cpu_s)

    def _figures(self, first: _Mark, last: _Mark) -> Figures:
        values = last.values - first.values
        by_role: dict[str, list[float]] = {}
        for name, cpu_s in last.cpu_s.items():
            role = name.rstrip(" 0123456789")
            by_role.setdefault(role, []).append((cpu_s - first.cpu_s[name]) / values * 1e6)
        counters = self._driver.counters()
        return Figures(
            values_per_s=values / (last.at_s - first.at_s),
            cpu_us={role: sum(each) / len(each) for role, each in by_role.items()},
            resent=counters["resent"],
            repaired=counters["learns_sent"] + counters["recovers_sent"],
        )
