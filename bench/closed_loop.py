"""A closed loop on the log: so many values in flight, each replaced once it is delivered.

The process of the loop is a learner with its proposer. What counts is what its learner delivers, in
order and once. The time before the first tenth is delivered is warm-up: the coordinator's takeover,
the session, the first growth of every buffer. CPU is what the kernel has charged to each process
between that moment and the end, in clock ticks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import trio
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.processes import Child, children, process_cpu_s
from bench.role_cluster import Counter, Deliveries, run_learner, start_learners, start_voters
from p4xos.config import Cluster
from p4xos.driver import Driver
from p4xos.effects import Effects
from p4xos.envelope import ENVELOPE_BYTES, request_rows
from p4xos.node import Node
from p4xos.roles.proposer import Proposer
from p4xos.wire import HEADER_BYTES

BURST = 2048
"""Values of one submission at most."""
BURSTS_IN_FLIGHT = 3
"""While one is on its way others are answered and made."""
WARM_UP_SHARE = 0.1
STALL_LIMIT_S = 30.0
"""Nothing delivered for so long, and the run is void."""


class Load(NamedTuple):
    """How many values go through, and how many of them at once."""

    values: int
    in_flight: int

    @property
    def burst(self) -> int:
        """Values of one submission."""
        return min(BURST, max(self.in_flight // BURSTS_IN_FLIGHT, 1))


class Figures(NamedTuple):
    """One run, from the end of its warm-up on, but for what was mended, of all of it."""

    values_per_s: float
    cpu_us: Mapping[str, float]  # for each value delivered, by role; the mean of several
    resent: int  # values that the proposer sent again, for want of an answer
    repaired: int  # times that the learner asked for votes or recovery again
    latency_us: NDArray[np.float64]  # from submitting to delivering, of each value

    def percentile_us(self, share: float) -> float:
        """The latency that this share of the values does not exceed."""
        return float(np.quantile(self.latency_us, share))


def measure(
    cluster: Cluster, loads: Sequence[Load], payload_bytes: int, learners: int = 1
) -> list[Figures]:
    """Runs the loads one after the other on one group, which is started for it.

    Args:
      cluster: of `role_cluster.create`; learner 0 is this process.
      loads: as many values as are in flight, at least.
      payload_bytes: of each value.
      learners: that run, this one among them.

    Raises:
      BenchError: a process ended, or nothing was delivered for a long time.
    """
    with children() as started:
        start_voters(cluster, started)
        start_learners(cluster, range(1, learners), started)
        return submit(cluster, started, loads, payload_bytes)


def submit(
    cluster: Cluster, started: Sequence[Child], loads: Sequence[Load], payload_bytes: int
) -> list[Figures]:
    """Runs the loads one after the other on a group that runs, with learner 0 in this process.

    Raises:
      BenchError: as `measure`.
    """
    counter = Counter()

    async def run(node: Node) -> list[Figures]:
        with closing(_ClosedLoop(node, counter, started, payload_bytes)) as loop:
            return [await loop.run(load) for load in loads]

    return run_learner(cluster, cluster.learners[0].node, counter, run)


@dataclass
class _Mark:
    """Where everything stood at a moment of the run."""

    values: int
    at_s: float
    cpu_s: dict[str, float]


class _Progress:
    """How far a load is."""

    def __init__(self, load: Load, before: int, mended: tuple[int, int]) -> None:
        self.load = load
        self.before = before  # values that were delivered for earlier loads
        self.mended = mended  # what was mended during these
        self.submitted = 0
        self.warm: _Mark | None = None
        self.done = trio.Event()


class _ClosedLoop:
    def __init__(
        self, node: Node, counter: Counter, started: Sequence[Child], payload_bytes: int
    ) -> None:
        assert node.application is not None
        self._proposer: Proposer = node.application.replica.proposer
        self._driver: Driver = node.drivers[-1]
        self._counter = counter
        self._children = started
        self._payload = np.arange(payload_bytes, dtype=np.uint8)
        self._progress: _Progress | None = None
        self._times = Times()
        self._node = node
        self._moved = os.eventfd(0, os.EFD_NONBLOCK)
        counter.on_deliveries = self._on_deliveries
        node.application.applied_more = self._wake
        node.watch(self._moved, self._go_on)

    def close(self) -> None:
        """Submits nothing more."""
        self._node.unwatch(self._moved)
        os.close(self._moved)

    def _wake(self) -> None:
        os.eventfd_write(self._moved, 1)

    def _on_deliveries(self, deliveries: Deliveries) -> None:
        now = time.perf_counter()
        for delivery, ticket in deliveries:
            if ticket is not None:
                self._times.delivered.append((ticket, len(delivery.lengths), now))

    async def run(self, load: Load) -> Figures:
        """Submits and waits until all are delivered."""
        progress = _Progress(load, self._counter.values, self._mended())
        self._progress, self._times = progress, Times()
        self._wake()
        while not progress.done.is_set():
            await self._wait(progress.done)
        self._progress = None
        if progress.warm is None:
            raise BenchError(f"{load.values} values came all at once: give a larger --scale")
        return self._figures(progress.warm, self._mark(), progress)

    def _go_on(self) -> None:
        """Fills up what is in flight, between two turns of the loop, as a server for its clients.

        A task of its own would measure the event loop's way to it, twice a value.
        """
        os.eventfd_read(self._moved)
        progress = self._progress
        if progress is None:
            return
        load, delivered = progress.load, self._counter.values - progress.before
        while progress.submitted < load.values and self._has_room(load):
            progress.submitted += self._submit(min(load.burst, load.values - progress.submitted))
        if progress.warm is None and delivered >= load.values * WARM_UP_SHARE:
            progress.warm = self._mark()
        if delivered >= load.values:
            progress.done.set()

    def _has_room(self, load: Load) -> bool:
        proposer = self._proposer
        return proposer.in_flight + load.burst <= load.in_flight and proposer.room >= load.burst

    def _submit(self, count: int) -> int:
        """One burst, as rows: a Python object a value would measure Python."""
        lengths = np.full(count, len(self._payload), dtype=np.uint16)
        rows = request_rows(self._proposer.frame, 0, 0, lengths)
        start = HEADER_BYTES + ENVELOPE_BYTES
        rows[:, start : start + len(self._payload)] = self._payload
        effects, now = Effects.none(), trio.current_time()
        at = time.perf_counter()
        ticket = self._proposer.submit_rows(rows, now, effects)
        self._times.submitted.append((ticket, len(rows), at))
        self._driver.perform(effects, now)
        return len(rows)

    async def _wait(self, done: trio.Event) -> None:
        before = self._counter.values
        with trio.move_on_after(STALL_LIMIT_S):
            await done.wait()
        if self._counter.values == before:
            ended = [child for child in self._children if not child.running]
            said = "".join(f"\n{child.name} ended:\n{child.last_lines()}" for child in ended)
            raise BenchError(f"nothing was delivered for {STALL_LIMIT_S:g} s{said}")

    def _mark(self) -> _Mark:
        cpu_s = {child.name: child.cpu_s() for child in self._children}
        cpu_s["learner and proposer"] = process_cpu_s(os.getpid())
        return _Mark(self._counter.values, time.perf_counter(), cpu_s)

    def _mended(self) -> tuple[int, int]:
        """Values sent again, and times that votes or recovery were asked for again."""
        counters = self._driver.counters()
        return counters["resent"], counters["learns_sent"] + counters["recovers_sent"]

    def _figures(self, first: _Mark, last: _Mark, progress: _Progress) -> Figures:
        values = last.values - first.values
        resent, repaired = self._mended()
        by_role: dict[str, list[float]] = {}
        for name, cpu_s in last.cpu_s.items():
            role = name.rstrip(" 0123456789")
            by_role.setdefault(role, []).append((cpu_s - first.cpu_s[name]) / values * 1e6)
        return Figures(
            values_per_s=values / (last.at_s - first.at_s),
            cpu_us={role: sum(each) / len(each) for role, each in by_role.items()},
            resent=resent - progress.mended[0],
            repaired=repaired - progress.mended[1],
            latency_us=self._times.latency_us()[first.values - progress.before :],
        )


class Times:
    """When values were submitted and delivered: (first ticket, how many, seconds) of each batch."""

    def __init__(self) -> None:
        self.submitted: list[tuple[int, int, float]] = []
        """With consecutive tickets."""
        self.delivered: list[tuple[int, int, float]] = []
        """Each ticket once, in any order."""

    def latency_us(self) -> NDArray[np.float64]:
        """Of each value, by ticket.

        Returns:
          (n,) float64, a fresh array, for the n values submitted; all must be delivered.
        """
        counts = [count for _, count, _ in self.submitted]
        latency_s = np.repeat([-at for _, _, at in self.submitted], counts)
        base = self.submitted[0][0]
        for ticket, count, at in self.delivered:
            latency_s[ticket - base : ticket - base + count] += at
        return latency_s * 1e6
