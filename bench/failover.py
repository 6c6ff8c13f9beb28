"""kill -9 of the coordinator's node while clients write to the other nodes.

The gap is the longest time that any of those clients waited for an acknowledgement; its own
request is in it. Then the killed node is started again, has to have everything, and the next run
kills whichever node coordinates by then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster
from bench.writers import lost, writing

CLIENTS_PER_NODE = 3
BEFORE_S, AFTER_S = 1.5, 3.0
"""Load before the kill, and behind it: longer than any takeover that is still acceptable."""

GAP = Metric("failover", "longest gap of service", "s", at_most=1.0)
LOST = Metric("failover", "acknowledged writes lost", "writes", at_most=0)
UNKNOWN = Metric("failover", "writes with unknown outcome", "writes")
RATE = Metric("failover", "acknowledged around the kill", "writes/s")


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields gap, losses, unknown outcomes and rate of each kill."""
    with StoreCluster(scratch / "failover") as cluster:
        cluster.start()
        for number in range(runs):
            cluster.wait_until_writable()
            yield from _kill_once(cluster, f"run{number}-", scale)


def _kill_once(cluster: StoreCluster, prefix: str, scale: float) -> Iterator[Sample]:
    victim = cluster.coordinator()
    others = [name for name in cluster.names if name != victim]
    addresses = [cluster.endpoint(name) for name in others] * CLIENTS_PER_NODE
    started = time.monotonic()
    with writing(addresses, prefix) as writers:
        time.sleep(BEFORE_S * scale)
        cluster.kill(victim)
        time.sleep(AFTER_S)
    seconds = time.monotonic() - started
    yield Sample(GAP, max(writer.longest_gap_s for writer in writers))
    yield Sample(UNKNOWN, sum(len(writer.unknown) for writer in writers))
    yield Sample(RATE, sum(len(writer.acknowledged) for writer in writers) / seconds)
    cluster.start(victim)
    cluster.wait_until_alike()
    # Each acknowledged write is looked for on every node: one that lost it is one too many.
    yield Sample(LOST, sum(len(lost(writers, cluster.endpoint(name))) for name in cluster.names))
