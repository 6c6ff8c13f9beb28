"""YCSB's workloads and the store's curves: three durable replicas, clients spread over all nodes.

The workloads run in closed loops. Then one thing at a time is varied: the size of values, the
number of clients, how many operations each has on the way. Last comes an open loop, workload A at
shares of what the closed loop reached at most: latency up to the knee and beyond it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.errors import BenchError
from bench.load.outcome import Late, Outcome, StoodStill
from bench.load.plan import Distribution, Plan
from bench.load.running import run as run_load
from bench.results import Figure, Metric, Point, Sample
from bench.store_cluster import StoreCluster

RECORDS, CLIENTS = 10_000, 64
SECONDS, WARM_UP_S = 1.5, 0.5
LEAST_S = 0.1
"""Of what is measured, whatever the scale."""
TRIES = 3
LOAD_LIMIT_S = 600.0
DISTRIBUTIONS: tuple[tuple[str, Distribution], ...] = (
    ("A", "uniform"), ("A", "zipfian"), ("B", "zipfian"), ("C", "zipfian"), ("D", "latest"),
    ("E", "zipfian"), ("F", "zipfian"),
)  # fmt: skip
"""As YCSB's files have them, and A uniform besides."""
VALUE_BYTES = (16, 256, 4 << 10, 64 << 10, 1 << 20)
VALUE_CLIENTS = 4
VALUES_BYTES = 8 << 20
"""Of all values of one size together, but at least one for each client."""
CLIENT_COUNTS = (1, 8, 64, 256, 1024)
PIPELINES = (1, 4, 16, 64)
MOST_PIPELINE = 16
"""Of the closed loop that tells what the store does at most."""
MOST_LIMIT_S = 60.0
SHARES = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2)

RATE, LATENCY = "operations/s", "latency, ms"
BY_VALUE = Figure("ycsb", f"value size, {VALUE_CLIENTS} clients", "bytes", RATE, True, True)
BY_CLIENTS = Figure("ycsb", "clients, workload A", "clients", RATE, True, True)
LATENCY_BY_CLIENTS = Figure(
    "ycsb", "latency by clients, workload A", "clients", LATENCY, True, True
)
BY_PIPELINE = Figure("ycsb", f"pipelining, {CLIENTS} clients, workload A", "operations", RATE, True)
SHARE = "offered, share of the closed loop's most"
KNEE = Figure("ycsb", "open loop, workload A", SHARE, LATENCY, y_log=True)
ANSWERED = Figure("ycsb", "open loop, workload A, answered", SHARE, "answered, share of the same")

MOST = Metric("ycsb", f"A, {CLIENTS} clients, pipeline {MOST_PIPELINE}", RATE)
UNANSWERED = Metric("ycsb", "open loop, never answered", "operations")
LAG = Metric("ycsb", "open loop, generator lag, p99, worst point", "ms")
VOID = Metric("ycsb", "open loop, points void (generator late)", "points")


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields workloads, then curves, all once a run."""
    with StoreCluster(scratch / "ycsb") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        bench = _Bench(cluster, scratch / "load", scale)
        for number in range(runs):
            bench.seed = number + 1
            yield from bench.workloads()
            yield from bench.values()
            bench.load(bench.plan)  # records as they were
            yield from bench.clients()
            yield from bench.pipelining()
            yield from bench.open_loop()


class _Bench:
    def __init__(self, cluster: StoreCluster, directory: Path, scale: float) -> None:
        addresses = tuple(cluster.endpoint(name) for name in cluster.names)
        self.seed = 1
        self.plan = Plan(
            addresses,
            records=max(int(RECORDS * min(scale, 1)), 100),
            clients=CLIENTS,
            seconds=max(SECONDS * scale, LEAST_S),
            warm_up_s=WARM_UP_S * min(scale, 1),
        )
        self._directory = directory

    def _run(self, plan: Plan) -> Outcome:
        """Again when the machine stood still: that is nothing of the store's."""
        for _ in range(TRIES - 1):
            with suppress(StoodStill):
                return run_load(plan._replace(seed=self.seed), self._directory)
        return run_load(plan._replace(seed=self.seed), self._directory)

    def load(self, plan: Plan) -> None:
        """Makes the records of a plan, each once."""
        outcome = self._run(
            plan._replace(
                workload="load", operations=plan.records, seconds=LOAD_LIMIT_S, warm_up_s=0
            )
        )
        if outcome.answered != plan.records:
            raise BenchError(
                f"{outcome.answered} of {plan.records} records were written within "
                f"{LOAD_LIMIT_S:g} s; lower --scale"
            )

    def workloads(self) -> Iterator[Sample]:
        """Rate, p50 and p99 of YCSB's six; what D and E insert is beyond the others' records."""
        self.load(self.plan)
        for workload, distribution in DISTRIBUTIONS:
            outcome = self._run(self.plan._replace(workload=workload, distribution=distribution))
            name = f"{workload}, {distribution}"
            yield Sample(Metric("ycsb", name, RATE), outcome.rate)
            for percent in (50, 99):
                if (found := outcome.percentile_ms(percent)) is not None:
                    yield Sample(Metric("ycsb", f"{name}, p{percent}", "ms"), found)

    def values(self) -> Iterator[Point]:
        """Writes alone and reads alone, by the size of values."""
        for size in VALUE_BYTES:
            records = max(VALUE_CLIENTS, min(self.plan.records, VALUES_BYTES // size))
            plan = self.plan._replace(value_bytes=size, clients=VALUE_CLIENTS, records=records)
            self.load(plan)
            for series, workload in (("SET", "update"), ("GET", "C")):
                outcome = self._run(plan._replace(workload=workload))
                yield Point(BY_VALUE, series, size, outcome.rate)

    def clients(self) -> Iterator[Point]:
        """Rate and latency, by the number of clients."""
        for clients in CLIENT_COUNTS:
            outcome = self._run(self.plan._replace(clients=clients))
            yield Point(BY_CLIENTS, "rate", clients, outcome.rate)
            yield from _percentiles(LATENCY_BY_CLIENTS, clients, outcome)

    def pipelining(self) -> Iterator[Point]:
        """Rate, by operations that each client has on the way."""
        for pipeline in PIPELINES:
            outcome = self._run(self.plan._replace(pipeline=pipeline))
            yield Point(BY_PIPELINE, "rate", pipeline, outcome.rate)

    def _most(self) -> float:
        """The rate of a closed loop that keeps the store busy."""
        plan = self.plan._replace(pipeline=MOST_PIPELINE)
        # All clients send at once: a window that is short by --scale may end before any answer.
        while not (rate := self._run(plan).rate):
            plan = plan._replace(seconds=2 * plan.seconds)
            if plan.seconds > MOST_LIMIT_S:
                raise BenchError(f"the store answered nothing within {plan.seconds / 2:g} s")
        return rate

    def open_loop(self) -> Iterator[Sample | Point]:
        """Latency, and what was answered, by the rate that is offered."""
        most = self._most()
        yield Sample(MOST, most)
        unanswered, void, lag_ms = 0, 0, 0.0
        for share in SHARES:
            try:
                outcome = self._run(self.plan._replace(rate=share * most))
            except Late as late:
                void += 1
                lag_ms = max(lag_ms, late.lag_ms)
                continue
            unanswered += outcome.unanswered
            lag_ms = max(lag_ms, outcome.lag_ms)
            yield Point(ANSWERED, "answered", share, outcome.rate / most)
            yield from _percentiles(KNEE, share, outcome)
        yield Sample(UNANSWERED, unanswered)
        yield Sample(LAG, lag_ms)
        yield Sample(VOID, void)


def _percentiles(figure: Figure, x: float, outcome: Outcome) -> Iterator[Point]:
    """Those that enough operations lie beyond."""
    for percent in (50, 99):
        if (found := outcome.percentile_ms(percent)) is not None:
            yield Point(figure, f"p{percent}", x, found)
