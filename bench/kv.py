"""The store under redis-benchmark: three replicas, durable, every node a process.

All clients connect to the first node, which is the coordinator's unless that was just taken over.
The figures hold for the whole machine: nodes and load generator share its cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import redis_benchmark
from bench.redis_benchmark import Load
from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster


class _Case(NamedTuple):
    load: Load
    rate: Metric
    p50: Metric | None = None


def _case(what: str, load: Load, at_least: float | None = None, p50: bool = False) -> _Case:
    latency = Metric("kv", f"{what}, p50", "ms") if p50 else None
    return _Case(load, Metric("kv", what, "requests/s", at_least=at_least), latency)


CASES = (
    _case("SET -c 1", Load("set", 1, 1, 4_000), p50=True),
    _case("SET -c 64 -P 1", Load("set", 64, 1, 100_000), 15_000, p50=True),
    _case("SET -c 50 -P 16", Load("set", 50, 16, 400_000), 60_000),
    _case("SET -c 50 -P 64", Load("set", 50, 64, 400_000)),
    _case("SET -c 50 -P 16 -d 64 -r 100000", Load("set", 50, 16, 200_000, 64, 100_000)),
    _case("GET -c 64 -P 1", Load("get", 64, 1, 100_000), p50=True),
)


def needs() -> None:
    """The load generator.

    Raises:
      BenchError: it is missing.
    """
    redis_benchmark.find()


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields each case's figures, all cases once a run, so that a slow spell hits all alike."""
    with StoreCluster(scratch / "kv") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        address = cluster.endpoint(cluster.names[0])
        for case in CASES:  # warm-up: connections, caches, the first flush of the store
            redis_benchmark.run(_scaled(case.load, scale / 10), address)
        for _ in range(runs):
            for case in CASES:
                result = redis_benchmark.run(_scaled(case.load, scale), address)
                yield Sample(case.rate, result.requests_per_s)
                if case.p50 is not None:
                    yield Sample(case.p50, result.p50_ms)


def _scaled(load: Load, scale: float) -> Load:
    """At least so many requests that each client sends a few."""
    least = 4 * load.clients * load.pipeline
    return load._replace(requests=max(int(load.requests * scale), least))
