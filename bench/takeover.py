"""kill -9 of the coordinator's node, again and again, while clients write to all nodes.

A kill's gap is the longest time that any client of the two other nodes waited between two
acknowledgements; its own request is in it. Then the killed node is started again, its clients
write again, and the next kill hits whichever node coordinates by then. In the end everything that
clients were told is compared with what every node has.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.appenders import Appender, appending, judge, wait_for_more
from bench.copies import quantile
from bench.errors import BenchError
from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster
from kvstore import comparison

CLIENTS_PER_NODE = 2
QUIET_S = 1.0
"""Load before a kill, of which the gap is told too: what the machine itself does to it."""
JITTER_S = 0.1
"""About one heartbeat: a kill at any moment between two of them."""
AFTER_S = 0.5
"""Load behind the first acknowledgements: a takeover that fails again belongs to the gap."""
BACK = 5
"""Writes at the node that came back: each waits until its replica has it."""

GAP = Metric("takeover", "time without an acknowledged write, of a kill", "s", at_most=0.3)
NINTH = Metric("takeover", "time without an acknowledged write, p90 of all kills", "s")
WORST = Metric("takeover", "time without an acknowledged write, worst of all", "s", at_most=1.0)
QUIET = Metric("takeover", "the same before a kill, of the machine", "s")
ACKNOWLEDGED = Metric("takeover", "acknowledged", "writes")
UNKNOWN = Metric("takeover", "writes with unknown outcome", "writes")
LOST = Metric("takeover", "acknowledged writes lost", "writes", at_most=0)
TWICE = Metric("takeover", "writes applied twice", "writes", at_most=0)


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields the gap of each kill, then what became of all writes; `runs` is the kills."""
    gaps: list[float] = []
    with StoreCluster(scratch / "takeover") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        addresses = [cluster.endpoint(name) for name in cluster.names]
        with appending(addresses * CLIENTS_PER_NODE) as appenders:
            wait_for_more(appenders, BACK)
            for _ in range(runs):
                time.sleep(QUIET_S * scale + JITTER_S * random.random())
                victim = cluster.coordinator()
                others = survivors(appenders, cluster, victim)
                now = time.monotonic()
                yield Sample(QUIET, max(a.longest_gap_s(now - QUIET_S, now) for a in others))
                gaps.append(kill(cluster, victim, others))
                yield Sample(GAP, gaps[-1])
                bring_back(cluster, appenders, victim)
        yield Sample(NINTH, quantile(gaps, 0.9))
        yield Sample(WORST, max(gaps))
        acknowledged, unknown, lost, twice = account(cluster, appenders)
    yield Sample(ACKNOWLEDGED, acknowledged)
    yield Sample(UNKNOWN, unknown)
    yield Sample(LOST, lost)
    yield Sample(TWICE, twice)


def survivors(appenders: list[Appender], cluster: StoreCluster, *victims: str) -> list[Appender]:
    """The clients of the other nodes."""
    dead = [cluster.endpoint(name) for name in victims]
    return [appender for appender in appenders if appender.address not in dead]


def kill(cluster: StoreCluster, victim: str, others: list[Appender]) -> float:
    """Kills a node; the longest wait of any client of the others, in seconds."""
    began = time.monotonic()
    cluster.kill(victim)
    wait_for_more(others, 2)  # the first may have been on its way already
    time.sleep(AFTER_S)
    now = time.monotonic()
    return max(appender.longest_gap_s(began, now) for appender in others)


def bring_back(cluster: StoreCluster, appenders: list[Appender], *victims: str) -> None:
    """Starts killed nodes; returns when their own clients are served, under load."""
    cluster.start(*victims)
    addresses = [cluster.endpoint(name) for name in victims]
    wait_for_more([appender for appender in appenders if appender.address in addresses], BACK)


def account(cluster: StoreCluster, appenders: list[Appender]) -> tuple[int, int, int, int]:
    """What became of all writes: how many were acknowledged, unknown, lost, and applied twice.

    Raises:
      BenchError: something else is wrong: states that differ, an order that nobody wrote.
    """
    lost = twice = 0
    cluster.wait_until_alike()
    for name in cluster.names:
        verdict = judge(appenders, cluster.endpoint(name))
        lost, twice = max(lost, len(verdict.lost)), max(twice, len(verdict.twice))
        if not verdict.good:
            print(f"node {name}: {verdict}", file=sys.stderr)
        if verdict.denied or verdict.misplaced:
            raise BenchError(f"node {name} has what it should not: {verdict}")
    compared = comparison.compare(cluster.cluster)
    if not compared.good:
        raise BenchError(f"the replicas are not alike: {compared}")
    return (
        sum(len(appender.acknowledged) for appender in appenders),
        sum(len(appender.unknown) for appender in appenders),
        lost,
        twice,
    )
