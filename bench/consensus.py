"""Values a second through three acceptors and one learner, each role a process of its own.

First at one load, with the CPU that each role takes; then throughput against latency: more and
more values in flight, from one at a time to more than the roles can use.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import closed_loop
from bench.closed_loop import BURST, Figures, Load
from bench.results import Figure, Metric, Point, Sample
from bench.role_cluster import create
from p4xos.config import Storage

PAYLOAD_BYTES = 64
IN_FLIGHT = 6144
SWEEP = (1, 8, 64, 512, 2048, 6144, 16384)
"""Values in flight."""
SWEEP_ROUNDS = 5_000
"""Values of a step of the sweep for each one in flight, before `sweep_values` bounds them."""
SWEEP_VALUES_LEAST = 500
"""For percentiles; at small scales, with few in flight."""

RATE = Figure(
    "consensus", "values delivered by values in flight", "values in flight", "values/s", x_log=True
)
LATENCY = Figure(
    "consensus", "latency against throughput", "values/s", "submit to deliver, us",
    x_log=True, y_log=True,
)  # fmt: skip


class Case(NamedTuple):
    """A storage, how many values go through it, and what is asked of it."""

    storage: Storage
    values: int
    sweep_values: int  # of a step, at most
    at_least: float  # values/s
    alone_at_most: float | None  # us, the p50 of one value outstanding

    def metric(
        self, name: str, unit: str, at_least: float | None = None, at_most: float | None = None
    ) -> Metric:
        """A metric of this storage."""
        return Metric("consensus", f"{self.storage}: {name}", unit, at_least, at_most)


CASES = (
    Case("memory", 2_000_000, 500_000, 1_500_000, 130),
    Case("disk", 500_000, 200_000, 400_000, None),
)


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields each storage's figures, then its curves, all of them once a run."""
    for number in range(runs):
        for case in CASES:
            values = max(int(case.values * scale), 10 * BURST)
            figures = measure(scratch / f"{case.storage}-{number}", case.storage, values)
            yield Sample(case.metric("delivered", "values/s", case.at_least), figures.values_per_s)
            for role, cpu_us in figures.cpu_us.items():
                yield Sample(case.metric(f"CPU of {role}", "us/value"), cpu_us)
            yield Sample(case.metric("sent again", "values"), figures.resent)
            yield Sample(case.metric("asked again", "times"), figures.repaired)
        for case in CASES:
            yield from sweep(scratch / f"{case.storage}-sweep-{number}", case, scale)


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
    cluster = create(directory, storage, payload_bytes)
    return closed_loop.measure(cluster, [Load(values, in_flight)], payload_bytes)[0]


def sweep(directory: Path, case: Case, scale: float) -> Iterator[Sample | Point]:
    """Throughput and latency at each number of values in flight, of one group."""
    cluster = create(directory, case.storage, PAYLOAD_BYTES)
    loads = []
    for in_flight in SWEEP:
        values = int(min(case.sweep_values, SWEEP_ROUNDS * in_flight) * scale)
        loads.append(Load(max(values, 2 * in_flight, SWEEP_VALUES_LEAST), in_flight))
    found = closed_loop.measure(cluster, loads, PAYLOAD_BYTES)
    for load, figures in zip(loads, found, strict=True):
        yield Point(RATE, case.storage, load.in_flight, figures.values_per_s)
        for name, share in (("p50", 0.5), ("p99", 0.99)):
            latency_us = figures.percentile_us(share)
            yield Point(LATENCY, f"{case.storage}, {name}", figures.values_per_s, latency_us)
            if load.in_flight == 1:
                asked = case.alone_at_most if name == "p50" else None
                metric = case.metric(f"one value outstanding, {name}", "us", at_most=asked)
                yield Sample(metric, latency_us)
