"""kill -9 of the coordinator's node, then of another, while clients write to the other nodes.

The gap is the longest time that any of those clients waited for an acknowledgement; its own
request is in it. Then the killed node is started again, has to have everything, and the next kill
hits whichever node coordinates by then, or does not. The curves tell the acknowledged writes of the
two other nodes in short buckets of time around each kill.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from math import floor
from pathlib import Path

from bench.results import Figure, Metric, Point, Sample
from bench.store_cluster import StoreCluster
from bench.writers import lost, writing

CLIENTS_PER_NODE = 3
BEFORE_S, AFTER_S = 1.5, 3.0
"""Load before the kill, and behind it: longer than any takeover that is still acceptable."""

BUCKET_S = 0.1

GAP = Metric("failover", "longest gap of service", "s", at_most=1.0)
LOST = Metric("failover", "acknowledged writes lost", "writes", at_most=0)
UNKNOWN = Metric("failover", "writes with unknown outcome", "writes")
RATE = Metric("failover", "acknowledged around the kill", "writes/s")
AROUND = Figure("failover", "acknowledged writes around a kill", "s since the kill", "writes/s")


def _of_another(metric: Metric) -> Metric:
    """The same metric for a node that does not coordinate."""
    return metric._replace(name=f"another node killed: {metric.name}")


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields gap, losses, unknown outcomes, rate and curve of each kill."""
    with StoreCluster(scratch / "failover") as cluster:
        cluster.start()
        for number in range(runs):
            cluster.wait_until_writable()
            yield from _kill_once(cluster, cluster.coordinator(), f"run{number}-", scale)
            cluster.wait_until_writable()
            leader = cluster.coordinator()
            another = next(name for name in cluster.names if name != leader)
            for one in _kill_once(cluster, another, f"other{number}-", scale):
                if isinstance(one, Sample):
                    yield one._replace(metric=_of_another(one.metric))
                else:
                    yield one._replace(series="another node")


def _kill_once(
    cluster: StoreCluster, victim: str, prefix: str, scale: float
) -> Iterator[Sample | Point]:
    others = [name for name in cluster.names if name != victim]
    addresses = [cluster.endpoint(name) for name in others] * CLIENTS_PER_NODE
    started = time.monotonic()
    with writing(addresses, prefix) as writers:
        time.sleep(BEFORE_S * scale)
        killed = time.monotonic()
        cluster.kill(victim)
        time.sleep(AFTER_S)
    ended = time.monotonic()
    yield Sample(GAP, max(writer.longest_gap_s for writer in writers))
    yield Sample(UNKNOWN, sum(len(writer.unknown) for writer in writers))
    yield Sample(RATE, sum(len(writer.acknowledged) for writer in writers) / (ended - started))
    times = [at for writer in writers for at in writer.acknowledged_at]
    for since_s, rate in buckets(times, killed, started, ended):
        yield Point(AROUND, "the coordinator's node", since_s, rate)
    cluster.start(victim)
    cluster.wait_until_alike()
    # Each acknowledged write is looked for on every node: one that lost it is one too many.
    yield Sample(LOST, sum(len(lost(writers, cluster.endpoint(name))) for name in cluster.names))


def buckets(
    times: Sequence[float], killed: float, started: float, ended: float
) -> list[tuple[float, float]]:
    """Rates in the buckets that lie within the load whole; one of them begins with the kill.

    Args:
      times: of the acknowledgements, in any order, seconds.
      killed, started, ended: of the load, by the same clock.

    Returns:
      (begin of the bucket in seconds since the kill, acknowledgements/s) pairs, in order.
    """
    first = -int((killed - started) / BUCKET_S)
    end = int((ended - killed) / BUCKET_S)
    counts = Counter(floor((at - killed) / BUCKET_S) for at in times)
    return [(round(k * BUCKET_S, 3), counts[k] / BUCKET_S) for k in range(first, end)]
