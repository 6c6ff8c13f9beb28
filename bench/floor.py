"""What no figure of the other scenarios can be below: clock, loopback, bare UDP, the disk.

One message of 64 bytes at a time goes to another process and back, with plain blocking calls; one
write of 4 KiB at a time is made durable where the data of the run are.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from bench.echo import MESSAGE_BYTES
from bench.errors import BenchError
from bench.histogram import BEYOND_LEAST, Histogram
from bench.processes import Child, children, python_module, wait_until
from bench.results import Metric, Sample

READINGS = 100_000
ROUND_TRIPS = 10_000
SYNCS = 1_000
WARM_UP = 0.1
"""A share of each, made before and not counted."""
LEAST = 2 * BEYOND_LEAST
"""Fewer have no median."""
LIMIT_S = 10.0
_PAGE = bytes(4096)

CLOCK = Metric("floor", "clock, one reading to the next, p50", "ns")
TCP = Metric("floor", "TCP loopback, there and back, p50", "us")
UDP = Metric("floor", "UDP loopback, there and back, p50", "us")
SYNC = Metric("floor", "write and fdatasync of 4 KiB, p50", "us")


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields all four once a run."""
    ports_file = scratch / "ports"
    with children() as started:
        command = python_module("bench.echo", str(ports_file))
        started.append(Child("echo", command, scratch / "echo.txt"))
        wait_until(ports_file.exists, LIMIT_S, "that the echo process listens")
        tcp_port, udp_port = map(int, ports_file.read_text().split())
        for _ in range(runs):
            yield Sample(CLOCK, clock_ns(_scaled(READINGS, scale)))
            yield Sample(TCP, _tcp_ns(tcp_port, _scaled(ROUND_TRIPS, scale)) / 1e3)
            yield Sample(UDP, _udp_ns(udp_port, _scaled(ROUND_TRIPS, scale)) / 1e3)
            yield Sample(SYNC, _sync_ns(scratch / "page", _scaled(SYNCS, scale)) / 1e3)


def clock_ns(readings: int, now: Callable[[], int] = time.monotonic_ns) -> int:
    """How far apart two readings are between which the clock went on: its step or its cost."""
    times = [now() for _ in range(readings)]
    steps = [after - before for before, after in pairwise(times)]
    return _median([step for step in steps if step])


def _tcp_ns(port: int, count: int) -> int:
    with socket.create_connection(("127.0.0.1", port), LIMIT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

        def there_and_back() -> None:
            connection.sendall(bytes(MESSAGE_BYTES))
            left = MESSAGE_BYTES
            while left:
                data = connection.recv(left)
                if not data:
                    raise BenchError("the echo process closed the connection")
                left -= len(data)

        return _timed(there_and_back, count)


def _udp_ns(port: int, count: int) -> int:
    with socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.settimeout(LIMIT_S)
        udp.connect(("127.0.0.1", port))

        def there_and_back() -> None:
            udp.send(bytes(MESSAGE_BYTES))
            udp.recv(MESSAGE_BYTES)

        return _timed(there_and_back, count)


def _sync_ns(file: Path, count: int) -> int:
    descriptor = os.open(file, os.O_CREAT | os.O_WRONLY)
    try:

        def write_and_sync() -> None:
            os.write(descriptor, _PAGE)
            os.fdatasync(descriptor)

        return _timed(write_and_sync, count)
    finally:
        os.close(descriptor)


def _timed(action: Callable[[], None], count: int) -> int:
    """The median, ns, of so many after the warm-up."""
    for _ in range(int(count * WARM_UP)):
        action()
    taken = []
    for _ in range(count):
        began = time.perf_counter_ns()
        action()
        taken.append(time.perf_counter_ns() - began)
    return _median(taken)


def _median(taken: list[int]) -> int:
    histogram = Histogram()
    histogram.record(taken)
    found = histogram.percentile(50)
    if found is None:
        raise BenchError(f"{len(taken)} measurements have no median; raise --scale")
    return found


def _scaled(count: int, scale: float) -> int:
    return max(int(count * scale), LEAST)
