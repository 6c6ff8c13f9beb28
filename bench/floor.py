"""What no figure of the other scenarios can be below: clock, loopback, bare UDP, the disk.

One message of 64 bytes at a time goes to another process and back, with plain blocking calls; one
write of 4 KiB at a time is made durable where the data of the run are.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from bench.errors import BenchError
from bench.histogram import BEYOND_LEAST, Histogram
from bench.results import Metric, Sample
from bench.round_trips import Trips, loopback_tcp, loopback_udp

READINGS = 100_000
ROUND_TRIPS = 10_000
SYNCS = 1_000
WARM_UP = 0.1
"""A share of each, made before and not counted."""
LEAST = 2 * BEYOND_LEAST
"""Fewer have no median."""
_PAGE = bytes(4096)

CLOCK = Metric("floor", "clock, one reading to the next, p50", "ns")
TCP = Metric("floor", "TCP loopback, there and back, p50", "us")
UDP = Metric("floor", "UDP loopback, there and back, p50", "us")
SYNC = Metric("floor", "write and fdatasync of 4 KiB, p50", "us")


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields all four once a run."""
    for _ in range(runs):
        yield Sample(CLOCK, clock_ns(_scaled(READINGS, scale)))
        for metric, connected in ((TCP, loopback_tcp), (UDP, loopback_udp)):
            with connected() as trips:
                yield Sample(metric, _round_trip_ns(trips, _scaled(ROUND_TRIPS, scale)) / 1e3)
        yield Sample(SYNC, _sync_ns(scratch / "page", _scaled(SYNCS, scale)) / 1e3)


def clock_ns(readings: int, now: Callable[[], int] = time.monotonic_ns) -> int:
    """How far apart two readings are between which the clock went on: its step or its cost."""
    times = [now() for _ in range(readings)]
    steps = [after - before for before, after in pairwise(times)]
    return _median([step for step in steps if step])


def _round_trip_ns(trips: Trips, count: int) -> int:
    trips(int(count * WARM_UP))
    return _median([round(taken_s * 1e9) for taken_s in trips(count)])


def _sync_ns(file: Path, count: int) -> int:
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    taken = []
    try:
        for _ in range(int(count * WARM_UP) + count):
            began = time.perf_counter_ns()
            os.write(descriptor, _PAGE)
            os.fdatasync(descriptor)
            taken.append(time.perf_counter_ns() - began)
    finally:
        os.close(descriptor)
    return _median(taken[-count:])


def _median(taken: list[int]) -> int:
    histogram = Histogram()
    histogram.record(taken)
    found = histogram.percentile(50)
    if found is None:
        raise BenchError(f"{len(taken)} measurements have no median; raise --scale")
    return found


def _scaled(count: int, scale: float) -> int:
    return max(int(count * scale), LEAST)
