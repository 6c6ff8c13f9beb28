"""How the rates change with the size of things: acceptors, learners, the window, the keys stored.

The first three are the closed loop of `consensus` with acceptors in memory, one size changed at a
time. Then the store: three durable nodes with the default window are filled by MSETs, and at each
size redis-benchmark sets keys drawn from those that are there; in the end a node's memory is looked
at. At scale 1 that ends with a million keys; ten millions take --scale 10.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench import closed_loop, redis_benchmark
from bench.closed_loop import BURST, Load
from bench.copies import MEBIBYTE, fill, rss_bytes
from bench.redis_benchmark import Load as Requests
from bench.results import Figure, Metric, Point, Sample
from bench.role_cluster import WINDOW, create
from bench.store_cluster import StoreCluster

ACCEPTORS = (1, 3, 5, 7, 9)
LEARNERS = (1, 3, 5)
WINDOWS = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18)
"""Odd numbers of acceptors and learners, for majorities; powers of two for the window."""
VALUES, VALUES_LEAST = 500_000, 4 * BURST
IN_FLIGHT = 6144
PAYLOAD_BYTES = 64

KEYS = (10_000, 100_000, 1_000_000, 10_000_000)
KEYS_AT_SCALE_1 = 1_000_000
"""The largest of them at scale 1; other scales go to as many times that."""
VALUE_BYTES = 3
"""redis-benchmark's own default: a small key with a small value."""
KEY = b"key:%012d"
"""As redis-benchmark names them, so that it sets keys that are there."""
SETS = Requests("set", 50, 16, 100_000, VALUE_BYTES)

BY_ACCEPTORS = Figure("scale", "consensus by acceptors", "acceptors", "values/s")
BY_LEARNERS = Figure("scale", "consensus by learners", "learners", "values/s")
BY_WINDOW = Figure("scale", "consensus by window", "window, instances", "values/s", x_log=True)
BY_KEYS = Figure("scale", "SET -c 50 -P 16 by keys stored", "keys", "requests/s", x_log=True)
MEMORY = Figure("scale", "memory of a node by keys stored", "keys", "MiB", x_log=True)
MEMORY_AT_MILLION = Metric(
    "scale", "memory of a node with 1 M small keys, largest", "MiB", at_most=250
)


def needs() -> None:
    """The load generator.

    Raises:
      BenchError: it is missing.
    """
    redis_benchmark.find()


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields the rate at each size, and the memory at each number of keys."""
    values = max(int(VALUES * scale), VALUES_LEAST)
    for number in range(runs):
        place = scratch / f"run-{number}"
        place.mkdir()
        for acceptors in ACCEPTORS:
            rate = consensus(place / f"acceptors-{acceptors}", values, acceptors=acceptors)
            yield Point(BY_ACCEPTORS, "memory", acceptors, rate)
        for learners in LEARNERS:
            rate = consensus(place / f"learners-{learners}", values, learners=learners)
            yield Point(BY_LEARNERS, "memory", learners, rate)
        for window in WINDOWS:
            rate = consensus(place / f"window-{window}", values, window=window)
            yield Point(BY_WINDOW, "memory", window, rate)
        yield from _store(place / "store", scale)


def consensus(
    directory: Path, values: int, *, acceptors: int = 3, learners: int = 1, window: int = WINDOW
) -> float:
    """Values/s that a new group delivers, with as many in flight as a small window takes."""
    cluster = create(
        directory, "memory", PAYLOAD_BYTES, acceptors=acceptors, learners=learners, window=window
    )
    load = Load(values, min(IN_FLIGHT, window // 2))
    return closed_loop.measure(cluster, [load], PAYLOAD_BYTES, learners)[0].values_per_s


def _store(directory: Path, scale: float) -> Iterator[Sample | Point]:
    with StoreCluster(directory) as cluster:
        cluster.start()
        cluster.wait_until_writable()
        address = cluster.endpoint(cluster.names[0])
        filled = 0
        for keys in sizes(scale):
            fill(address, keys, first=filled, key=KEY, value_bytes=VALUE_BYTES)
            filled = keys
            cluster.wait_until_alike()
            load = SETS.scaled(min(scale, 1.0))._replace(keys=keys)
            rate = redis_benchmark.run(load, address).requests_per_s
            yield Point(BY_KEYS, "three nodes", keys, rate)
            memory = max(map(rss_bytes, cluster.running_pids())) / MEBIBYTE
            yield Point(MEMORY, "largest node", keys, memory)
            if keys == KEYS_AT_SCALE_1:
                yield Sample(MEMORY_AT_MILLION, memory)


def sizes(scale: float) -> list[int]:
    """The numbers of keys that a scale goes through; a small one has a size of its own."""
    most = round(KEYS_AT_SCALE_1 * scale)
    return [keys for keys in KEYS if keys <= most] or [most]

