"""The plain node's store: one write a batch, retention, snapshots, damage."""

from __future__ import annotations

import itertools
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from p4xos.config import Cluster
from p4xos.effects import Chosen, Delivery
from p4xos.envelope import ENVELOPE_BYTES, open_value, seal
from p4xos.errors import NoQuorum, P4xosError, Trimmed
from p4xos.log import Retained
from p4xos.logstore import WRITE_BYTES, LogStore, LogStoreError, Retention
from p4xos.retained import RetainedLog
from p4xos.roles.sessions import Sessions
from p4xos.tables import ConfigError


class Feeder:
    """Gives a store what a learner would: chosen values and what a session table makes of them."""

    def __init__(self, store: LogStore, retained: Retained | None = None) -> None:
        self.store = store
        self.retained = retained or store
        self.sessions = Sessions(fragments_max=1000, counters={})
        self.next = 1
        self.delivered: list[tuple[int, bytes]] = []
        self.sequence = itertools.count(1)
        self.feed([open_value(0, 9)])

    def feed(self, values: list[bytes], tickets: int | None = None) -> None:
        width = max(map(len, values), default=0)
        rows = np.zeros((len(values), width), np.uint8)
        for row, value in enumerate(values):
            rows[row, : len(value)] = np.frombuffer(value, np.uint8)
        chosen = Chosen(self.next, rows, np.array([len(value) for value in values]))
        deliveries = [e for e in self.sessions.deliver(chosen) if isinstance(e, Delivery)]
        self.next += len(values)
        self.retained.append(chosen)
        pairs = [(delivery, tickets) for delivery in deliveries]
        self.store.apply(pairs, self.next - 1, {b"table": b"state %d" % self.next})
        for delivery in deliveries:
            self.delivered += [
                (delivery.instance + k, payload) for k, payload in enumerate(delivery.payloads())
            ]

    def values(self, count: int, size: int = 10) -> list[bytes]:
        return [seal(1, next(self.sequence), b"%0*d" % (size, k)) for k in range(count)]

    def command(self, pieces: list[bytes]) -> list[bytes]:
        return [seal(1, next(self.sequence), p, k, len(pieces)) for k, p in enumerate(pieces)]


def read_all(store: LogStore, first: int = 1, bytes_max: int = 100) -> list[tuple[int, bytes]]:
    found, nothing_new = [], False
    while not nothing_new:
        part, following = store.delivered(first, bytes_max)
        found += part
        nothing_new, first = following > store.applied, following
    return found


def test_what_was_delivered_comes_back_after_opening_again(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "log", 7)
    feeder = Feeder(store)
    values = feeder.values(50)
    feeder.feed([*values, *values[:10], b"", *feeder.command([b"ab", b"cd", b"e"])])
    feeder.feed([])
    feeder.feed(feeder.values(1))
    feeder.feed([b"", b""])
    assert len(feeder.delivered) == 52
    for first in range(1, feeder.next + 2):
        expected = [value for value in feeder.delivered if value[0] >= first]
        assert read_all(store, first) == expected
    store.close()

    store = LogStore(tmp_path / "log", 7)
    assert store.applied == feeder.next - 1
    assert store.learner_state() == {b"table": b"state %d" % feeder.next}
    assert read_all(store) == feeder.delivered
    assert store.value(2) == values[0]
    assert store.value(62) == b""
    assert store.value(63)[ENVELOPE_BYTES:] == b"ab"
    with pytest.raises(LookupError):
        store.value(feeder.next)
    store.close()


def test_an_unsynced_write_is_whole_or_not_there(tmp_path: Path) -> None:
    """Data, position and learner state agree after a crash (docs/traps.md, 14)."""
    store = LogStore(tmp_path / "log", 7)
    feeder = Feeder(store)
    for _ in range(20):
        feeder.feed(feeder.values(5))
    assert store.sync() == store.applied
    feeder.feed(feeder.values(5))
    assert store.value(store.applied)  # what is read is written first
    shutil.copytree(tmp_path / "log", tmp_path / "crashed")
    logs = sorted((tmp_path / "crashed").glob("generation-*/*.log"))
    for cut in (1, 50, 100):
        with logs[-1].open("r+b") as file:
            file.truncate(logs[-1].stat().st_size - cut)
        shutil.rmtree(tmp_path / "copy", ignore_errors=True)
        shutil.copytree(tmp_path / "crashed", tmp_path / "copy")
        again = LogStore(tmp_path / "copy", 7)
        assert again.learner_state() == {b"table": b"state %d" % (again.applied + 1)}
        assert read_all(again) == [v for v in feeder.delivered if v[0] <= again.applied]
        again.close()
    store.close()


def test_batches_that_follow_one_another_are_written_together(tmp_path: Path) -> None:
    """Nobody sees that: reading and syncing write first, and a crash takes whole batches along."""
    store = LogStore(tmp_path / "log", 7)
    feeder = Feeder(store)
    feeder.feed(feeder.values(3))
    store.sync()
    synced = store.applied
    for size in (10, 300, 20):
        feeder.feed(feeder.values(4, size))
    feeder.feed(feeder.command([b"x" * 50, b"y" * 50, b"z"]))
    shutil.copytree(tmp_path / "log", tmp_path / "crashed")
    with closing(LogStore(tmp_path / "crashed", 7)) as crashed:
        assert crashed.applied == synced
        assert read_all(crashed) == [v for v in feeder.delivered if v[0] <= synced]
    assert read_all(store) == feeder.delivered
    shutil.copytree(tmp_path / "log", tmp_path / "later")
    with closing(LogStore(tmp_path / "later", 7)) as later:
        assert later.applied == store.applied
        assert read_all(later) == feeder.delivered
    while store._unwritten:  # a write comes by itself as well
        feeder.feed(feeder.values(20, 1000))
        assert store._unwritten_bytes < WRITE_BYTES
    store.close()


@pytest.mark.parametrize("retention", [Retention(1 << 20, 100), Retention(100_000, 1 << 40)])
def test_retention(tmp_path: Path, retention: Retention) -> None:
    """Old values go, the newest stay, and the bound holds, also after opening again."""
    store = LogStore(tmp_path / "log", 7, retention)
    feeder = Feeder(store)
    for k in range(300):
        feeder.feed(feeder.values(10, size=100))
        if k == 150:
            store.close()
            store = feeder.store = feeder.retained = LogStore(tmp_path / "log", 7, retention)
        if k % 10 == 0:
            expected = [v for v in feeder.delivered if v[0] >= store.low]
            assert read_all(store, store.low, 10_000) == expected
    kept = store.applied + 1 - store.low
    slack = 1.2
    assert kept <= retention.instances_max * slack
    assert kept * 100 <= retention.bytes_max * slack
    assert kept >= min(retention.instances_max, retention.bytes_max // 250)
    with pytest.raises(Trimmed):
        store.delivered(store.low - 1, 100)
    with pytest.raises(Trimmed):
        store.value(1)
    store.close()


@pytest.mark.parametrize("own", [True, False])
def test_values_behind_a_snapshot_are_held(tmp_path: Path, own: bool) -> None:
    """A peer that fetches a copy finds what follows it, however much is written meanwhile."""
    store = LogStore(tmp_path / "log", 7, Retention(100_000, 1 << 40))
    retained: Retained = store if own else RetainedLog(1, bytes_max=400_000)
    feeder = Feeder(store, retained)
    for _ in range(2000):
        feeder.feed(feeder.values(1, size=100))
    held = feeder.next
    assert retained.low > 1
    retained.hold(held)
    for _ in range(2000):
        feeder.feed(feeder.values(1, size=100))
    assert retained.low <= held
    assert sum(len(run.lengths) for run in retained.since(held)) == 2000
    for _ in range(10):
        feeder.feed(feeder.values(100, size=1000))
    assert retained.low > held  # but not without a bound
    retained.hold(None)
    store.close()


def test_a_snapshot_replaces_everything(tmp_path: Path) -> None:
    source, target = LogStore(tmp_path / "a", 7), LogStore(tmp_path / "b", 7)
    feeder = Feeder(source)
    feeder.feed(feeder.values(100))
    Feeder(target)
    assert source.snapshot(tmp_path / "snapshot") == 101
    feeder.feed(feeder.values(1))
    target.install(tmp_path / "snapshot")
    assert target.applied == 101
    assert target.learner_state() == {b"table": b"state 102"}
    assert read_all(target) == feeder.delivered[:-1]
    target.close()
    assert LogStore(tmp_path / "b", 7).applied == 101
    foreign = LogStore(tmp_path / "c", 8)
    with pytest.raises(LogStoreError, match="belongs to cluster"):
        foreign.install(tmp_path / "snapshot")
    for path in (tmp_path / "snapshot").glob("MANIFEST*"):
        path.write_bytes(b"damaged")
    other = LogStore(tmp_path / "d", 7)
    with pytest.raises(LogStoreError):
        other.install(tmp_path / "snapshot")
    assert other.applied == 0
    for store in (source, foreign, other):
        store.close()


def test_whose_store_it_is(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "log", 7)
    with pytest.raises(LogStoreError, match="another process"):
        LogStore(tmp_path / "log", 7)
    store.close()
    with pytest.raises(LogStoreError, match="belongs to cluster"):
        LogStore(tmp_path / "log", 8)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(LogStoreError, match="not a store"):
        LogStore(tmp_path / "other", 7)


def test_tickets_end_once(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "log", 7)
    feeder = Feeder(store)
    ended: list[list[int] | P4xosError] = []
    store.submissions.expect([10, 11, 12], ended.append)
    feeder.feed(feeder.values(2), tickets=10)
    assert not ended
    feeder.feed(feeder.values(1), tickets=12)
    assert ended == [[2, 3, 4]]
    store.submissions.expect([20, 21], ended.append)
    error = NoQuorum(None, 1.0)
    store.unknown([21, 20], error)
    feeder.feed(feeder.values(2), tickets=20)
    assert ended == [[2, 3, 4], error]
    assert len(store.submissions) == 0
    store.close()


def test_the_table_log() -> None:
    cluster = Cluster.template(nodes=1)
    assert Retention.of(cluster) == Retention()
    given = replace(
        cluster, extensions={"log": {"retain_bytes": 1 << 24, "retain_instances": 5000}}
    )
    assert Retention.of(given) == (1 << 24, 5000)
    for wrong in ({"retain_bytes": 1}, {"retain": 1}, {"retain_instances": "x"}, 5):
        with pytest.raises(ConfigError, match=r"\[log\]"):
            Retention.of(replace(cluster, extensions={"log": wrong}))
