"""Log time: the same on all replicas, and no single clock's."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.logtime import LEAP_MS, LogTime
from kvstore.resp import Command
from tests.kvstore.replicas import NOON, Replica, value_of


def started(*, alone: bool = False) -> LogTime:
    time = LogTime()
    time.alone = alone
    assert time.advance(NOON, 0)
    return time


def test_time_is_the_highest_stamp_and_never_goes_back() -> None:
    time = started()
    for stamp, expected in [(NOON + 5, 5), (NOON + 3, 5), (NOON - 10**9, 5), (NOON + 6, 6)]:
        assert time.advance(stamp, 1)
        assert time.now == NOON + expected
        assert time.entry == time.now


def test_a_leap_is_refused_until_another_node_confirms_it() -> None:
    time = started()
    assert time.advance(NOON + LEAP_MS, 0)  # not yet one
    leap = NOON + 2 * LEAP_MS + 1
    assert not time.advance(leap, 0)
    assert not time.advance(leap + 50, 0)  # the same node again
    assert time.now == NOON + LEAP_MS
    assert time.advance(leap + 20, 1)
    assert time.now == leap + 20
    assert time.leaps == {0: leap + 50}
    assert time.advance(leap + 60, 0)
    assert time.leaps == {}


def test_a_wrong_clock_is_not_believed_because_others_leap_too() -> None:
    """A quiet hour: all leap. What two nodes vouch for is the lower stamp, not the wrong clock's"""
    hour = 3_600_000
    for wrong_first in (True, False):
        time = started()
        stamps = [(NOON + 1000 * hour, 0), (NOON + hour, 1)]
        for stamp, origin in stamps if wrong_first else reversed(stamps):
            time.advance(stamp, origin)
        assert time.now == NOON + hour
        assert not time.advance(NOON + 1000 * hour, 0)
        assert time.advance(NOON + hour + 3, 2)
        assert time.now == NOON + hour + 3


def test_one_wrong_clock_among_right_ones_moves_nothing() -> None:
    time = started()
    for step in range(1, 500):
        assert not time.advance(NOON + 10**10 + step, 0)
        assert time.advance(NOON + step, 1 + step % 2)
        assert time.now == NOON + step
    assert list(time.leaps) == [0]


def test_what_a_leaping_entry_writes_lasts_as_long_as_its_client_asked() -> None:
    time = started()
    assert not time.advance(NOON + 10**6, 0)
    assert (time.now, time.entry) == (NOON, NOON + 10**6)


def test_a_single_learner_believes_itself() -> None:
    time = started(alone=True)
    assert time.advance(NOON + 10**9, 0)
    assert time.now == NOON + 10**9


def test_time_is_stored_with_its_leaps() -> None:
    time, again = started(), LogTime()
    time.advance(NOON + 10**6, 3)
    again.unpack(time.pack())
    assert (again.now, again.leaps) == (NOON, {3: NOON + 10**6})


KEYS = [b"a", b"b", b"c"]
key = st.sampled_from(KEYS)
ahead = st.integers(-20, 400)
command = st.one_of(
    st.builds(lambda k, n: [b"SET", k, b"%d" % n], key, st.integers(0, 9)),
    st.builds(lambda k, n: [b"SET", k, b"x", b"PX", b"%d" % n], key, st.integers(1, 400)),
    st.builds(lambda k, n: [b"SET", k, b"x", b"PXAT", b"%d" % (NOON + n)], key, ahead),
    st.builds(lambda k: [b"SET", k, b"y", b"KEEPTTL"], key),
    st.builds(lambda k: [b"SET", k, b"z", b"NX", b"PX", b"30"], key),
    st.builds(lambda k: [b"DEL", k], key),
    st.builds(lambda k: [b"GETDEL", k], key),
    st.just([b"FLUSHDB"]),
    st.just([b"SWAPDB", b"0", b"1"]),
)
entry = st.tuples(
    st.one_of(st.integers(-50, 600), st.integers(0, 3).map(lambda n: n * 2 * LEAP_MS)),
    st.integers(0, 2),
    st.integers(0, 1),
    st.lists(command, max_size=3),
)


@given(st.lists(entry, max_size=25), st.data())
@settings(max_examples=60, deadline=None)
def test_replicas_agree_whatever_their_clocks_and_batches(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[int, int, int, list[Command]]],
    data: st.DataObject,
) -> None:
    """The same entries, cut into other batches, beside other clocks, with stops between."""
    values = [
        value_of(NOON + offset, *commands, origin=origin, database=database)
        for offset, origin, database, commands in entries
    ]
    directory = tmp_path_factory.mktemp("replicas")
    one = Replica(directory / "one", NOON - 10**7, 1, alone=False)
    other = Replica(directory / "other", NOON + 10**7, 2, alone=False)
    one.apply(*values)
    position = 0
    while position < len(values):
        count = data.draw(st.integers(1, 5))
        other.apply(*values[position : position + count])
        position += count
        if data.draw(st.booleans()):
            other.reopen()
    other.store.commit(one.store.applied, {})
    assert one.content() == other.content()
    for database in (0, 1):
        spaces = [replica.store.keyspaces[database] for replica in (one, other)]
        assert [space.get(k) for space in spaces[:1] for k in KEYS] == [
            space.get(k) for space in spaces[1:] for k in KEYS
        ]
        assert spaces[0].count() == spaces[1].count() == len(one.keys(database))
        assert spaces[0].expiring() == spaces[1].expiring()
    one.store.close()
    other.store.close()


def test_a_replica_confirms_what_its_own_clock_says(tmp_path: Path) -> None:
    later = NOON + 10**6
    right = Replica(tmp_path / "right", later, 1, alone=False)
    slow = Replica(tmp_path / "slow", NOON, 2, alone=False)
    proposer = Replica(tmp_path / "proposer", later, 0, alone=False)
    for replica in (right, slow, proposer):
        replica.tick(NOON)
        replica.apply(value_of(later, [b"SET", b"k", b"v"], origin=0))
        assert replica.machine.counters["leaps_refused"] == 1
        assert replica.store.time.now == NOON
        assert replica.store.keyspaces[0].get(b"k") == b"v"  # what it asks for is done
    assert (right.leaps, slow.leaps, proposer.leaps) == (1, 0, 0)
    for replica in (right, slow, proposer):
        replica.tick(later + 3, origin=1)
        assert replica.store.time.now == later + 3
        replica.store.close()


def test_time_survives_a_restart_and_travels_in_snapshots(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s", alone=False)
    replica.tick(NOON + 7)
    replica.tick(NOON + 10**6, origin=4)
    replica.store.snapshot(tmp_path / "copy")
    replica.reopen()
    fresh = Replica(tmp_path / "fresh", alone=False)
    fresh.tick(5)
    fresh.store.install(tmp_path / "copy")
    for each in (replica, fresh):
        assert each.store.time.now == NOON + 7
        assert each.store.time.leaps == {4: NOON + 10**6}
        each.store.close()
