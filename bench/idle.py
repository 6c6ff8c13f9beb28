"""What a cluster of three nodes costs when nobody asks anything of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster

WATCH_S = 10.0
SETTLE_S = 2.0
"""The last write's checkpoint, and everything that a start leaves to do."""

CPU = Metric("idle", "three nodes together", "% of a core", at_most=3.0)


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields the CPU share of all nodes together, once a run."""
    with StoreCluster(scratch / "idle") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        time.sleep(SETTLE_S)
        for _ in range(runs):
            started, before = time.monotonic(), cluster.cpu_s()
            time.sleep(WATCH_S * scale)
            used_s = cluster.cpu_s() - before
            yield Sample(CPU, 100 * used_s / (time.monotonic() - started))
