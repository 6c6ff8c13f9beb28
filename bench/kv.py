"""The store under redis-benchmark: three replicas, durable and in memory, every node a process.

All clients connect to one node, which is the coordinator's unless that was just taken over; where
it says so, to all three alike. The figures hold for the whole machine: nodes and load generators
share its cores.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from bench import redis_benchmark
from bench.redis_benchmark import Load, Result
from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster
from p4xos.config import Storage


class _Case(NamedTuple):
    load: Load
    rate: Metric
    p50: Metric | None = None
    everywhere: bool = False  # as many clients at each node, together as many as the load says


def _case(
    what: str,
    load: Load,
    at_least: float | None = None,
    *,
    p50: bool = False,
    p50_at_most: float | None = None,
    everywhere: bool = False,
) -> _Case:
    latency = Metric("kv", f"{what}, p50", "ms", at_most=p50_at_most) if p50 else None
    return _Case(load, Metric("kv", what, "requests/s", at_least=at_least), latency, everywhere)


CASES: dict[Storage, tuple[_Case, ...]] = {
    "disk": (
        _case("SET -c 1", Load("set", 1, 1, 4_000), p50=True, p50_at_most=0.6),
        _case("SET -c 64 -P 1", Load("set", 64, 1, 100_000), 22_000, p50=True),
        _case("SET -c 50 -P 16", Load("set", 50, 16, 400_000), 90_000),
        _case("SET -c 50 -P 64", Load("set", 50, 64, 400_000), 120_000),
        _case("SET -c 50 -P 16 -d 64 -r 100000", Load("set", 50, 16, 200_000, 64, 100_000)),
        _case("GET -c 64 -P 1", Load("get", 64, 1, 100_000), p50=True),
        _case(
            "GET, 64 clients over three nodes", Load("get", 64, 1, 100_000), 40_000,
            everywhere=True,
        ),
    ),
    "memory": (
        _case("memory: SET -c 1", Load("set", 1, 1, 4_000), p50=True, p50_at_most=0.2),
        _case("memory: SET -c 64 -P 1", Load("set", 64, 1, 100_000), 30_000, p50=True),
    ),
}  # fmt: skip


def needs() -> None:
    """The load generator.

    Raises:
      BenchError: it is missing.
    """
    redis_benchmark.find()


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields each case's figures, all cases once a run, so that a slow spell hits all alike."""
    for storage, cases in CASES.items():
        with StoreCluster(scratch / storage, storage) as cluster:
            cluster.start()
            cluster.wait_until_writable()
            for case in cases:  # warm-up: connections, caches, the first flush of the store
                _measure(cluster, case, scale / 10)
            for _ in range(runs):
                for case in cases:
                    results = _measure(cluster, case, scale)
                    yield Sample(case.rate, sum(result.requests_per_s for result in results))
                    if case.p50 is not None:
                        (result,) = results
                        yield Sample(case.p50, result.p50_ms)


def _measure(cluster: StoreCluster, case: _Case, scale: float) -> list[Result]:
    """What each load generator saw."""
    names = cluster.names if case.everywhere else cluster.names[:1]
    shares = [case.load.clients // len(names)] * len(names)
    shares[0] += case.load.clients - sum(shares)
    loads = [
        case.load._replace(clients=share).scaled(scale / len(names)) for share in shares
    ]
    return redis_benchmark.run_together(loads, [cluster.endpoint(name) for name in names])

