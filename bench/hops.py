"""Round trips over each thing that messages of the project may travel by (`bench.round_trips`).

Each is measured by itself: the floor on which the latencies of the whole stand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np

from bench.results import Figure, Metric, Point, Sample
from bench.round_trips import (
    Trips,
    loopback_udp,
    memory_channel,
    missing_for_veth,
    unix_sockets,
    veth,
)

TRIPS, TRIPS_LEAST = 20_000, 200
WARM_UP_SHARE = 0.1

SPREAD = Figure("hops", "round trip by percentile", "percentile", "us", y_log=True)
PERCENTILES = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9)


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields p50 and p99 of each hop."""
    trips = max(int(TRIPS * scale), TRIPS_LEAST)
    hops: dict[str, Callable[[], AbstractContextManager[Trips]]] = {
        "memory channel": memory_channel,
        "Unix sockets": unix_sockets,
        "loopback UDP": loopback_udp,
    }
    missing = missing_for_veth()
    if missing:
        print(f"hops: veth UDP is skipped: {missing}", file=sys.stderr)
    else:
        hops["veth UDP"] = lambda: veth(scratch)
    for _ in range(runs):
        for name, hop in hops.items():
            with hop() as make:
                taken_us = make(trips)[int(trips * WARM_UP_SHARE) :] * 1e6
            for share in (50.0, 99.0):
                metric = Metric("hops", f"{name}, round trip, p{share:g}", "us")
                yield Sample(metric, float(np.percentile(taken_us, share)))
            for share in PERCENTILES:
                yield Point(SPREAD, name, share, float(np.percentile(taken_us, share)))
