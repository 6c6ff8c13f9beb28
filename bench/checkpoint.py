"""The store's rate by how often it makes a checkpoint (the P4xos slides' RocksDB figure).

A checkpoint makes what is applied durable, by one fsync, so that the acceptors may forget it. First
the store alone, in process: values of the log, one SET of 64 bytes in each, applied as a node does,
with a checkpoint at every so many of them. Then a whole cluster under redis-benchmark: what decides
there is the key `window` of the cluster file, since a node makes a checkpoint at every eighth of a
window, and at the latest every 0.1 s.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from bench import redis_benchmark
from bench.redis_benchmark import Load
from bench.results import Figure, Metric, Point, Sample
from bench.store_cluster import StoreCluster
from kvstore.machine import KvStateMachine
from kvstore.packing import join_value, pack_commands
from kvstore.store import Store
from p4xos.config import Cluster
from p4xos.log import Delivered

INTERVALS = (1, 8, 64, 512, 1024, 4096, 8192, 32_768)
"""Instances between two checkpoints."""
BATCH = 256
"""Instances applied in one write at most: what load makes of them."""
VALUES, CHECKPOINTS_MAX, VALUES_LEAST = 100_000, 1_000, 200
"""Applied at each interval at scale 1; fewer where that would be more checkpoints than this."""
KEYS = 100_000
VALUE_BYTES = 64
WINDOWS = (512, 2048, 8192, 32_768, 65_536)
LOAD = Load("set", 50, 16, 100_000, VALUE_BYTES, KEYS)
CHECKPOINTS_PER_WINDOW = 8

ALONE = Figure(
    "checkpoint", "SET of the store alone by checkpoint interval",
    "instances between checkpoints", "SET/s", x_log=True, y_log=True,
)  # fmt: skip
CLUSTER = Figure(
    "checkpoint", "SET -c 50 -P 16 of a cluster by checkpoint interval",
    "instances between checkpoints", "requests/s", x_log=True,
)  # fmt: skip
DEFAULT_INTERVAL = Cluster.window // CHECKPOINTS_PER_WINDOW
AS_DEFAULT = Metric("checkpoint", f"store alone, every {DEFAULT_INTERVAL:,}", "SET/s")
EACH = Metric("checkpoint", "store alone, every instance", "SET/s")

assert DEFAULT_INTERVAL in INTERVALS


def needs() -> None:
    """The load generator.

    Raises:
      BenchError: it is missing.
    """
    redis_benchmark.find()


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields the rates at each interval, of the store alone and of a cluster."""
    for number in range(runs):
        for interval in INTERVALS:
            values = max(int(min(VALUES, CHECKPOINTS_MAX * interval) * scale), VALUES_LEAST)
            rate = alone(scratch / f"alone-{number}-{interval}", interval, values)
            yield Point(ALONE, "store alone", interval, rate)
            if interval in (1, DEFAULT_INTERVAL):
                yield Sample(EACH if interval == 1 else AS_DEFAULT, rate)
        for window in WINDOWS:
            directory = scratch / f"cluster-{number}-{window}"
            rate = whole(directory, window, LOAD.scaled(scale))
            yield Point(CLUSTER, "three nodes", window // CHECKPOINTS_PER_WINDOW, rate)


def alone(directory: Path, interval: int, values: int) -> float:
    """SETs that a new store applies a second; with the last checkpoint all are durable."""
    with Store(directory, cluster=1) as store:
        machine = KvStateMachine(store)
        payloads = [_set(number) for number in range(values)]
        began = time.perf_counter()
        for checkpoint in range(0, values, interval):
            end = min(checkpoint + interval, values)
            for first in range(checkpoint, end, BATCH):
                last = min(first + BATCH, end)
                batch = [Delivered(k + 1, None, payloads[k]) for k in range(first, last)]
                machine.apply(batch, last, {})
            machine.sync()
        taken_s = time.perf_counter() - began
        assert machine.counters["commands_applied"] == values
    shutil.rmtree(directory)
    return values / taken_s


def _set(number: int) -> bytes:
    """A value of the log with one SET, of keys in an order that is no order of RocksDB's."""
    key = b"key:%010d" % (number * 7919 % KEYS)
    return join_value(pack_commands([[b"SET", key, b"v" * VALUE_BYTES]], 0), 1 + number, 0)


def whole(directory: Path, window: int, load: Load) -> float:
    """Requests/s of a new cluster of three durable nodes."""
    with StoreCluster(directory, window=window) as cluster:
        cluster.start()
        cluster.wait_until_writable()
        address = cluster.endpoint(cluster.names[0])
        redis_benchmark.run(load.scaled(0.1), address)
        return redis_benchmark.run(load, address).requests_per_s
