"""Copies of a node's state under load: a backup, and a node that begins with nothing.

The cluster is filled, then clients write to two of its nodes all the while. First a backup is taken
and the latency of the clients' requests is compared with that of the time just before it. Then the
third node is killed, loses its directory and joins again.
"""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import hiredis

from bench.errors import BenchError
from bench.processes import Child, python_module, wait_until
from bench.results import Metric, Sample
from bench.store_cluster import CATCH_UP_LIMIT_S, StoreCluster
from kvstore import comparison
from p4xos import inquiries
from p4xos.creation import CLUSTER_NAME
from p4xos.tables import Address

KEYS = 1_000_000
VALUE_BYTES = 64
KEY = b"key:%010d"
KEYS_AT_ONCE = 100
FILL_WINDOW = 20
"""MSETs that are sent before their answers are awaited."""
CLIENTS_PER_NODE = 2
BEFORE_S = 5.0
BACKUP_LIMIT_S = 300.0
ANSWER_LIMIT_S = 30.0
MEBIBYTE = 1 << 20

RSS = Metric("copies", "memory of a node with 1 M keys of 64 bytes, largest", "MiB")
P99_BEFORE = Metric("copies", "SET of 4 clients, p99 before a backup", "ms")
P99_DURING = Metric("copies", "SET of 4 clients, p99 during a backup", "ms")
P99_RATIO = Metric("copies", "p99 during a backup against before", "times", at_most=3)
LONGEST = Metric("copies", "SET of 4 clients, longest during a backup", "ms")
HASH = Metric("copies", "states of three replicas with 1 M keys compared under load", "s")
HASH_RATIO = Metric("copies", "p99 while states are hashed against before", "times", at_most=3)
BACKUP = Metric("copies", "backup of 1 M keys under load", "s")
CATCH_UP = Metric("copies", "an empty node has caught up with 1 M keys under load", "s")
RATE = Metric("copies", "acknowledged meanwhile", "writes/s")


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields memory, latencies and times; the cluster is filled once."""
    with StoreCluster(scratch / "copies") as cluster:
        cluster.start()
        cluster.wait_until_writable()
        fill(cluster.endpoint(cluster.names[0]), round(KEYS * scale))
        cluster.wait_until_alike()
        for number in range(runs):
            yield Sample(RSS, max(map(rss_bytes, cluster.running_pids())) / MEBIBYTE)
            victim = _not_coordinating(cluster)
            addresses = [cluster.endpoint(name) for name in cluster.names if name != victim]
            with writing(addresses * CLIENTS_PER_NODE) as clients:
                yield from _back_up(cluster, scratch / f"backup-{number}", clients)
                yield from _compare(cluster, clients)
                yield from _lose(cluster, victim, clients)


def _not_coordinating(cluster: StoreCluster) -> str:
    leader = cluster.coordinator()
    return next(name for name in cluster.names if name != leader)


def _back_up(cluster: StoreCluster, to: Path, clients: Sequence[Client]) -> Iterator[Sample]:
    time.sleep(BEFORE_S)
    before = [latency for client in clients for latency in client.take()]
    began = time.monotonic()
    file = cluster.cluster.directory / CLUSTER_NAME
    command = python_module("kvstore", "backup", "--cluster", str(file), "--to", str(to))
    child = Child("kvstore backup", command, to.with_suffix(".txt"))
    if child.wait(BACKUP_LIMIT_S) != 0:
        raise BenchError(f"the backup failed:\n{child.last_lines()}")
    yield Sample(BACKUP, time.monotonic() - began)
    during = [latency for client in clients for latency in client.take()]
    yield Sample(P99_BEFORE, 1000 * quantile(before, 0.99))
    yield Sample(P99_DURING, 1000 * quantile(during, 0.99))
    yield Sample(P99_RATIO, quantile(during, 0.99) / quantile(before, 0.99))
    yield Sample(LONGEST, 1000 * max(during))
    shutil.rmtree(to)


def _compare(cluster: StoreCluster, clients: Sequence[Client]) -> Iterator[Sample]:
    """Every node hashes its state."""
    for client in clients:
        client.take()
    time.sleep(BEFORE_S)
    before = [latency for client in clients for latency in client.take()]
    began = time.monotonic()
    compared = comparison.compare(cluster.cluster)
    yield Sample(HASH, time.monotonic() - began)
    if not compared.good:
        raise BenchError(f"the replicas are not alike: {compared}")
    during = [latency for client in clients for latency in client.take()]
    yield Sample(HASH_RATIO, quantile(during, 0.99) / quantile(before, 0.99))


def _lose(cluster: StoreCluster, victim: str, clients: Sequence[Client]) -> Iterator[Sample]:
    """The node's directory is lost, and the node joins again."""
    cluster.kill(victim)
    shutil.rmtree(cluster.data(victim))
    for client in clients:
        client.take()
    began = time.monotonic()
    cluster.launch(victim)
    wait_until(lambda: _caught_up(cluster, victim), CATCH_UP_LIMIT_S, f"{victim} catching up")
    seconds = time.monotonic() - began
    yield Sample(CATCH_UP, seconds)
    yield Sample(RATE, sum(len(client.take()) for client in clients) / seconds)


def _caught_up(cluster: StoreCluster, victim: str) -> bool:
    """Whether it has delivered what any node had delivered at this look, under load."""
    status = inquiries.status(cluster.cluster)
    learners = {
        name: told.get("learner")
        for name, told in status.items()
        if isinstance(told, dict) and "catching_up" not in told
    }
    own = learners.get(victim)
    return isinstance(own, dict) and own["delivered"] > 0 and own["lag"] <= _LAG_MAX


_LAG_MAX = 256
"""Instances between what two nodes tell at almost the same time, under this load."""


def fill(
    address: Address, end: int, *, first: int = 0, key: bytes = KEY, value_bytes: int = VALUE_BYTES
) -> None:
    """Writes the keys of the numbers from `first` to `end`, as fast as one client can.

    Args:
      address: of the node.
      first, end: numbers; `end` is not written.
      key: with a place for the number.
      value_bytes: of each value.

    Raises:
      BenchError: a write was refused.
    """
    value = b"v" * value_bytes
    with socket.create_connection(address, ANSWER_LIMIT_S) as connection:
        reader = hiredis.Reader()
        outstanding = 0
        for start in range(first, end, KEYS_AT_ONCE):
            words: list[bytes] = [b"MSET"]
            for number in range(start, min(start + KEYS_AT_ONCE, end)):
                words += [key % number, value]
            connection.sendall(hiredis.pack_command(tuple[Any, ...](words)))
            outstanding += 1
            while outstanding >= FILL_WINDOW:
                outstanding -= _answers(connection, reader)
        while outstanding:
            outstanding -= _answers(connection, reader)


def _answers(connection: socket.socket, reader: hiredis.Reader) -> int:
    """How many answers came; each must be OK."""
    data = connection.recv(1 << 16)
    if not data:
        raise BenchError("the node ended the connection while it was filled")
    reader.feed(data)
    count = 0
    while (answer := reader.gets()) is not False:
        if answer != b"OK":
            raise BenchError(f"filling failed: {answer!r}")
        count += 1
    return count


class Client(threading.Thread):
    """Sets one key after the other, and notes how long each answer took."""

    def __init__(self, number: int, address: Address) -> None:
        super().__init__(daemon=True)
        self.stop_asked = threading.Event()
        self._number = number
        self._address = address
        self._latencies: list[float] = []

    def run(self) -> None:
        """Until `stop_asked`; an answer that is no OK ends it, which shows as no latencies."""
        value = b"w" * VALUE_BYTES
        with socket.create_connection(self._address, ANSWER_LIMIT_S) as connection:
            written = 0
            while not self.stop_asked.is_set():
                key = b"key:%d:%010d" % (self._number, written % 100_000)
                request = hiredis.pack_command(tuple[Any, ...]((b"SET", key, value)))
                began = time.monotonic()
                connection.sendall(request)
                if connection.recv(256) != b"+OK\r\n":
                    return
                self._latencies.append(time.monotonic() - began)
                written += 1

    def take(self) -> list[float]:
        """Seconds of each request since the last call.

        Raises:
          BenchError: there was none: it was refused, or the cluster stands still.
        """
        taken, self._latencies = self._latencies, []
        if not taken:
            raise BenchError(f"no request was answered at {self._address}")
        return taken


@contextmanager
def writing(addresses: Sequence[Address]) -> Iterator[list[Client]]:
    """A client for each address; all have ended when the block is left."""
    clients = [Client(number, address) for number, address in enumerate(addresses)]
    for client in clients:
        client.start()
    try:
        yield clients
    finally:
        for client in clients:
            client.stop_asked.set()
        for client in clients:
            client.join()


def quantile(values: Sequence[float], share: float) -> float:
    """The value that this share of the values does not exceed."""
    return sorted(values)[min(int(share * len(values)), len(values) - 1)]


def rss_bytes(pid: int) -> int:
    """Resident memory of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"process {pid} has ended")
