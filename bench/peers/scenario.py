"""All peers that are installed, one after the other, each alone on the machine while it runs."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench import redis_benchmark
from bench.errors import BenchError
from bench.peers.etcd import Etcd
from bench.peers.libpaxos import Libpaxos
from bench.peers.ours import Ours
from bench.peers.peer import Figures, Peer
from bench.peers.pysyncobj import PySyncObj
from bench.peers.redis import RedisAlone, RedisReplicated
from bench.results import Figure, Metric, Point, Sample
from p4xos.errors import P4xosError

CLIENTS = (1, 16, 64, 256)
READERS = 64
LOAD_S = 4.0
WARM_UP_SHARE = 0.25
"""Of a load, before it, not counted: connections, caches, a leader that has just been elected."""

WRITES = Figure("peers", "writes", "clients", "writes/s", x_log=True, y_log=True)


def peers() -> list[Peer]:
    """Each of them, in the order in which they are shown; none is started."""
    return [
        Ours("ours, durable", "disk"),
        Ours("ours, memory", "memory"),
        Ours("ours, unreplicated", "disk", nodes=1),
        Etcd("etcd, durable", fsync=True),
        Etcd("etcd, without fsync", fsync=False),
        RedisAlone(),
        RedisReplicated(),
        PySyncObj("pysyncobj, memory"),
        PySyncObj("pysyncobj, memory, without batching", batching=False),
        Libpaxos("libpaxos, memory", "memory"),
        Libpaxos("libpaxos, durable", "lmdb"),
    ]


def needs() -> None:
    """The load generator; the peers are optional.

    Raises:
      BenchError: it is missing.
    """
    redis_benchmark.find()


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields each peer's figures, all peers once a run, so that a slow spell hits all alike."""
    yield from compare(peers(), scratch, runs, scale)


def compare(
    candidates: Sequence[Peer], scratch: Path, runs: int, scale: float
) -> Iterator[Sample | Point]:
    """The same for these peers; one that is not installed is skipped, with one line on stderr.

    Raises:
      BenchError: in the end, when a peer failed; the others were measured all the same.
    """
    present = []
    for peer in candidates:
        why = peer.missing()
        if why is None:
            present.append(peer)
        else:
            print(f"peers: {peer.name}: skipped: {why}", file=sys.stderr, flush=True)
    failed: dict[str, P4xosError] = {}
    for number in range(runs):
        for peer in present:
            if peer.name in failed:
                continue
            directory = scratch / f"{number}-{peer.name.replace(',', '').replace(' ', '-')}"
            directory.mkdir()
            try:
                peer.start(directory)
                yield from _measure(peer, LOAD_S * scale)
            except P4xosError as error:
                failed[peer.name] = error
            finally:
                peer.stop()
                shutil.rmtree(directory)
    if failed:
        raise BenchError("; ".join(f"{name}: {error}" for name, error in failed.items()))


def _measure(peer: Peer, seconds: float) -> Iterator[Sample | Point]:
    """One peer's loads, while it runs."""
    for clients in CLIENTS:
        peer.load(clients, "write", seconds * WARM_UP_SHARE)
        found = peer.load(clients, "write", seconds)
        yield from _samples(f"{peer.name}: writes -c {clients}", "writes/s", found)
        yield Point(WRITES, peer.name, clients, found.per_s)
    if peer.reads:
        peer.load(READERS, "read", seconds * WARM_UP_SHARE)
        found = peer.load(READERS, "read", seconds)
        yield from _samples(f"{peer.name}: reads -c {READERS}", "reads/s", found)


def _samples(what: str, unit: str, found: Figures) -> Iterator[Sample]:
    yield Sample(Metric("peers", what, unit), found.per_s)
    for name, value in (("p50", found.p50_ms), ("p99", found.p99_ms)):
        if value is not None:
            yield Sample(Metric("peers", f"{what}, {name}", "ms"), value)
