"""Counting: the same iids on every replica, after restarts, and with a snapshot of another one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from p4xos.compat.libpaxos import store as store_module
from p4xos.compat.libpaxos.packs import pack
from p4xos.compat.libpaxos.store import PackStore, Taken
from p4xos.effects import Chosen, Delivery
from p4xos.envelope import seal
from p4xos.errors import P4xosError, Trimmed
from p4xos.logstore import LogStore, LogStoreError, Retention
from p4xos.packing import pack_payloads

CLUSTER = 7


class Log:
    """Chosen values for a store, one payload an instance, with a no-op in front of each batch."""

    def __init__(self) -> None:
        self.instance = 0

    def apply(self, store: LogStore, *payloads: bytes) -> None:
        first = self.instance + 2
        self.instance += 1 + len(payloads)
        values = [b"", *(seal(1, first + k, payload) for k, payload in enumerate(payloads))]
        width = max(map(len, values))
        rows = np.zeros((len(values), width), np.uint8)
        for row, value in zip(rows, values, strict=True):
            row[: len(value)] = np.frombuffer(value, np.uint8)
        lengths = np.array([len(value) for value in values], np.int64)
        store.append(Chosen(first - 1, rows, lengths))
        deliveries = []
        if payloads:
            inner = np.maximum(lengths[1:] - 24, 0)
            deliveries = [(Delivery(first, 1, first, rows[1:, 24:], inner), first)]
        store.apply(deliveries, self.instance, {})


def packed(client: int, number: int, *values: bytes) -> bytes:
    return pack(client, number, pack_payloads(values))


def told(store: PackStore, first: int = 1) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    while more := store.values(first, 1):
        found += [pair for values in more for pair in values.each()]
        first = found[-1][0] + 1
    return found


def opened(directory: Path, retention: Retention | None = None) -> PackStore:
    return PackStore(directory, CLUSTER, retention)


def test_values_are_counted_and_repeats_are_not(tmp_path: Path) -> None:
    store, log = opened(tmp_path), Log()
    taken: list[Taken] = []
    store.on_taken = taken.extend
    log.apply(store, packed(5, 1, b"a", b"b"), b"plain", packed(5, 1, b"a", b"b"), packed(5, 2))
    log.apply(store)
    log.apply(store, packed(5, 1, b"a", b"b"), packed(6, 2, b"?"), packed(5, 3, b"c"))
    expected = [(1, b"a"), (2, b"b"), (3, b"plain"), (4, b"c")]
    assert told(store) == expected
    assert taken == [
        Taken(5, 1, 1, False), Taken(5, 1, None, False), Taken(5, 2, 4, False),
        Taken(5, 1, None, False), Taken(6, 2, None, True), Taken(5, 3, 4, False),
    ]  # fmt: skip
    store.close()
    again = opened(tmp_path)
    assert told(again) == expected
    assert told(again, 3) == expected[2:]
    assert again.next_iid == 5
    log.apply(again, packed(5, 3, b"c"), packed(5, 4, b"d"))
    assert told(again) == [*expected, (5, b"d")]
    assert again.values(6) == []
    again.close()


def test_what_is_read_does_not_depend_on_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the newest in memory and from disk alike, in any steps."""
    monkeypatch.setattr(store_module, "TAIL_BYTES", 2000)
    store, log = opened(tmp_path), Log()
    expected = []
    for number in range(1, 200):
        values = [b"%d %d" % (number, k) * 5 for k in range(number % 4)]
        log.apply(store, *([packed(1, number, *values)] * (1 + number % 2)))
        expected += values
    assert [value for _, value in told(store)] == expected
    for first in range(1, len(expected), 7):
        assert [value for _, value in told(store, first)] == expected[first - 1 :]
    store.close()
    again = opened(tmp_path)
    assert [value for _, value in told(again)] == expected
    again.close()


def test_what_is_dropped_is_told_as_trimmed(tmp_path: Path) -> None:
    store, log = opened(tmp_path, Retention(1 << 20, 1 << 10)), Log()
    for number in range(1, 1201):
        log.apply(store, packed(1, number, b"a", b"b"))
        if number == 50:
            store.hold_values(21)
        if number == 1000:
            assert store.low_iid <= 21
            store.hold_values(None)
    low = store.low_iid
    assert 21 < low < 2400
    store._tail.clear()
    assert told(store, low)[0] == (low, b"a")
    with pytest.raises(Trimmed) as caught:
        store.values(low - 1)
    assert caught.value.low == low
    store.close()
    again = opened(tmp_path)
    assert again.low_iid == low
    again.close()


def test_a_snapshot_brings_the_count_along(tmp_path: Path) -> None:
    giver, log = opened(tmp_path / "a"), Log()
    log.apply(giver, packed(1, 1, b"a"), packed(1, 2, b"b"))
    giver.snapshot(tmp_path / "copy")
    taker = opened(tmp_path / "b")
    assert taker.verify(tmp_path / "copy") == giver.applied
    taker.install(tmp_path / "copy")
    assert told(taker) == [(1, b"a"), (2, b"b")]
    log.apply(taker, packed(1, 2, b"b"), packed(1, 3, b"c"))
    assert told(taker) == [(1, b"a"), (2, b"b"), (3, b"c")]
    giver.close()
    taker.close()


def test_a_log_that_nobody_counted_is_refused(tmp_path: Path) -> None:
    """A plain node's; and nothing of the one that is there is lost."""
    plain, log = LogStore(tmp_path / "plain", CLUSTER), Log()
    log.apply(plain, b"x")
    plain.snapshot(tmp_path / "copy")
    plain.close()
    with pytest.raises(LogStoreError, match="without the libpaxos gateway"):
        opened(tmp_path / "plain")
    store, log = opened(tmp_path / "store"), Log()
    log.apply(store, packed(1, 1, b"a"))
    with pytest.raises(P4xosError, match="without the libpaxos gateway"):
        store.verify(tmp_path / "copy")
    with pytest.raises(LogStoreError, match="without the libpaxos gateway"):
        store.install(tmp_path / "copy")
    assert told(store) == [(1, b"a")]
    store.close()


def test_a_hold_below_what_is_kept_begins_where_that_does(tmp_path: Path) -> None:
    """Learners say what they like, also when what they name is dropped by the very next write."""
    store, log = opened(tmp_path, Retention(1 << 20, 1 << 10)), Log()
    for number in range(1, 3001):
        log.apply(store, packed(1, number, b"a", b"b"))
        if number % 3 == 0:
            store.hold_values(number % 2)
            store.hold_values(None)
    assert store.low_iid > 1
    store.close()
