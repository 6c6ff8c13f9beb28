"""Keys that expire: missing at once for everybody, removed in bounded steps, never miscounted."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from kvstore import expiry as expiry_module
from kvstore import machine as machine_module
from kvstore import timekeeper as timekeeper_module
from kvstore.keyspace import NeedsTime
from kvstore.machine import IDLE_SWEEP_KEYS, SWEEP_KEYS
from kvstore.packing import split_value
from kvstore.records import DATA, INDEX
from p4xos.errors import NoQuorum
from tests.kvstore.replicas import NOON, Clock, Replica, value_of
from tests.kvstore.serving import Running, pack, serving


@pytest.fixture
def clock() -> Clock:
    return Clock()


def stored(replica: Replica) -> int:
    """Records of data that RocksDB has, those of keys that are due among them."""
    return sum(DATA <= key[0] < INDEX for key in replica.content())


def test_a_key_is_missing_from_its_moment_on(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    space = replica.store.keyspaces[0]
    replica.run([b"SET", b"k", b"v", b"PX", b"100"])
    assert space.expire_at(b"k") == NOON + 100
    for late, expected in [(99, b"v"), (100, None), (101, None)]:
        replica.tick(NOON + late)
        assert space.get(b"k") == expected
        assert space.contains(b"k") is (expected is not None)
        assert space.count() == space.expiring() == len(replica.keys()) == (expected is not None)
        assert (space.version(b"k") > 0) is (expected is not None)
    assert replica.machine.counters["keys_expired"] == 1
    assert replica.content().keys() & {b"\x10k"} == set()
    replica.store.close()


def test_what_is_written_in_the_past_does_not_exist(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    space = replica.store.keyspaces[0]
    replica.tick(NOON)
    space.put(b"k", b"v")
    space.put(b"k", b"w", NOON)
    space.put(b"new", b"w", NOON - 1)
    space.put(b"later", b"v")
    space.set_expiry(b"later", NOON)
    assert [space.get(k) for k in (b"k", b"new", b"later")] == [None] * 3
    assert (space.count(), space.expiring()) == (0, 0)
    replica.store.commit(2, {})
    assert stored(replica) == 0
    replica.store.close()


def test_an_expiry_is_kept_changed_or_taken_away(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    space = replica.store.keyspaces[0]
    replica.tick(NOON)
    space.put(b"k", b"v", NOON + 50)
    space.replace(b"k", b"longer")
    assert (space.get(b"k"), space.expire_at(b"k")) == (b"longer", NOON + 50)
    space.set_expiry(b"k", NOON + 70)
    assert (space.get(b"k"), space.expire_at(b"k")) == (b"longer", NOON + 70)
    space.set_expiry(b"k", None)
    assert (space.get(b"k"), space.expire_at(b"k"), space.expiring()) == (b"longer", None, 0)
    space.set_expiry(b"k", NOON + 90)
    space.put(b"k", b"plain")
    space.replace(b"other", b"made")
    replica.store.commit(2, {})
    replica.tick(NOON + 100)
    assert [space.get(k) for k in (b"k", b"other")] == [b"plain", b"made"]
    assert not any(key[0] == INDEX for key in replica.content())
    replica.store.close()


def test_a_sweep_is_bounded_and_nobody_sees_what_it_left(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    space, count = replica.store.keyspaces[0], IDLE_SWEEP_KEYS + 3 * SWEEP_KEYS
    for number in range(count):
        space.put(b"%04d" % number, b"v", NOON + 10 + number % 7)
    space.put(b"stays", b"v")
    replica.store.commit(1, {})
    replica.apply(value_of(NOON, [b"SET", b"other", b"v"]))
    assert space.count() == count + 2
    left = count
    for swept in (SWEEP_KEYS, IDLE_SWEEP_KEYS, SWEEP_KEYS, SWEEP_KEYS, 0):
        commands = [] if swept == IDLE_SWEEP_KEYS else [[b"SET", b"other", b"w"]]
        replica.apply(value_of(NOON + 20, *commands))
        left -= swept
        assert stored(replica) == left + 2
        assert (space.count(), space.expiring()) == (2, 0)
        assert replica.keys() == [b"other", b"stays"]
        assert space.get(b"%04d" % (count - 1)) is None
        replica.reopen()
        space = replica.store.keyspaces[0]
    assert left == 0
    replica.store.close()


def test_flushall_does_the_same_however_batches_are_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though all that is left is due, and more of it than is counted."""
    monkeypatch.setattr(expiry_module, "COUNTED_DUE", 3)
    monkeypatch.setattr(machine_module, "SWEEP_KEYS", 1)
    one, other = Replica(tmp_path / "one"), Replica(tmp_path / "other")
    first = value_of(NOON, *[[b"SET", b"a%d" % n, b"v", b"PX", b"10"] for n in range(3)])
    rest = [
        value_of(NOON, *[[b"SET", b"b%d" % n, b"v", b"PX", b"10"] for n in range(3)]),
        value_of(NOON + 20, [b"FLUSHALL"]),
    ]
    for replica in (one, other):
        replica.apply(first)
    one.apply(*rest)
    for value in rest:
        other.apply(value)
    assert one.content() == other.content()
    assert stored(one) == 0
    one.store.close()
    other.store.close()


def test_a_key_that_is_due_and_still_stored_may_be_written_again(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    space, count = replica.store.keyspaces[0], 2 * SWEEP_KEYS + 1
    for number in range(count):
        space.put(b"%04d" % number, b"old", NOON + 10)
    replica.store.commit(1, {})
    last, other = b"%04d" % (count - 1), b"%04d" % (count - 2)
    again = [b"SET", last, b"new"]
    assert replica.run(again, [b"DEL", other], stamp=NOON + 20)[1] == 0
    assert (space.get(last), space.count(), space.expiring()) == (b"new", 1, 0)
    replica.tick(NOON + 30)
    assert (space.get(last), space.count()) == (b"new", 1)
    assert stored(replica) == 1
    replica.store.close()


def test_sweeps_of_one_batch_go_on_where_the_last_one_stopped(tmp_path: Path) -> None:
    """Within a batch RocksDB still has what was removed, and lacks what was added."""
    one, other = Replica(tmp_path / "one"), Replica(tmp_path / "other")
    values = []
    for step in range(12):
        sets = [
            [b"SET", b"%02d-%02d" % (step, n), b"v", b"PX", b"%d" % (1 + (n * 7) % 25)]
            for n in range(SWEEP_KEYS + 20)
        ]
        values.append(value_of(NOON + 3 * step, *sets))
    one.apply(*values)
    for value in values:
        other.apply(value)
    assert one.content() == other.content()
    for replica in (one, other):
        replica.tick(NOON + 100)
        replica.tick(NOON + 100)
        assert replica.content().keys() == {
            b"\0applied", b"\0counts", b"\0format", b"\0time",
        }  # fmt: skip
        replica.store.close()


steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 4), st.none() | st.integers(-2, 40)),
        st.tuples(st.just("replace"), st.integers(0, 4), st.none()),
        st.tuples(st.just("set_expiry"), st.integers(0, 4), st.none() | st.integers(-2, 40)),
        st.tuples(st.just("remove"), st.integers(0, 4), st.none()),
        st.tuples(st.just("clear"), st.just(0), st.none()),
        st.tuples(st.just("tick"), st.integers(0, 15), st.none()),
        st.tuples(st.just("entry"), st.integers(0, 15), st.none()),
        st.tuples(st.just("reopen"), st.just(0), st.none()),
    ),
    max_size=40,
)


@given(steps, st.sampled_from([1, 64]))
@settings(max_examples=60, deadline=None)
def test_the_store_is_a_dictionary_with_expiries(
    tmp_path_factory: pytest.TempPathFactory,
    actions: list[tuple[str, int, int | None]],
    limit: int,
) -> None:
    replica = Replica(tmp_path_factory.mktemp("model") / "s")
    replica.tick(NOON)
    model: dict[bytes, tuple[bytes, int | None]] = {}
    now = NOON
    for step, (what, number, offset) in enumerate(actions):
        store = replica.store
        space, key, value = store.keyspaces[0], b"k%d" % number, b"%d" % step
        expire_at = None if offset is None else now + offset
        if what == "put":
            space.put(key, value, expire_at)
            model[key] = (value, expire_at)
        elif what == "replace":
            space.replace(key, value)
            model[key] = (value, model.get(key, (b"", None))[1])
        elif what == "set_expiry":
            if key in model:
                space.set_expiry(key, expire_at)
                model[key] = (model[key][0], expire_at)
        elif what == "remove":
            assert space.remove(key) is (model.pop(key, None) is not None)
        elif what == "clear":
            space.clear()
            model.clear()
        elif what == "reopen":
            store.commit(store.applied + 1, {})
            replica.reopen()
        else:
            now += number
            store.begin(store.applied + 1, now, 0, limit)
            if what == "tick":
                store.commit(store.applied + 1, {})
        model = {k: held for k, held in model.items() if held[1] is None or held[1] > now}
        space = replica.store.keyspaces[0]
        assert [space.get(b"k%d" % n) for n in range(5)] == [
            model.get(b"k%d" % n, (None,))[0] for n in range(5)
        ]
        assert space.count() == len(model)
        assert space.expiring() == sum(held[1] is not None for held in model.values())
        assert space.scan(None, 99) == sorted(model)
        assert space.scan(b"k1", 1) == sorted(k for k in model if k > b"k1")[:1]
    replica.store.commit(replica.store.applied + 1, {})
    for _ in range(len(actions) + 1):
        replica.tick(now)
    assert stored(replica) == len(model)
    replica.store.close()


def test_of_very_many_keys_that_are_due_some_are_still_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counting must not take long; Redis counts all keys that are not yet removed."""
    monkeypatch.setattr(expiry_module, "COUNTED_DUE", 10)
    replica = Replica(tmp_path / "s")
    space = replica.store.keyspaces[0]
    for number in range(100):
        space.put(b"%04d" % number, b"v", NOON + 10)
    replica.store.commit(1, {})
    replica.apply(value_of(NOON + 20, [b"SET", b"k", b"v"]))
    assert space.count() == 1 + 100 - SWEEP_KEYS - 10
    replica.tick(NOON + 20)
    assert space.count() == 1
    replica.store.close()


def test_expired_keys_stay_expired_in_a_snapshot(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    sets = [[b"SET", b"%03d" % n, b"v", b"PX", b"%d" % (10 + n)] for n in range(200)]
    replica.apply(value_of(NOON, *sets))
    replica.apply(value_of(NOON + 110, [b"SET", b"k", b"v"]))  # some are swept, some are not
    replica.store.snapshot(tmp_path / "copy")
    fresh = Replica(tmp_path / "fresh")
    fresh.store.install(tmp_path / "copy")
    for each in (replica, fresh):
        assert each.keys() == [*[b"%03d" % n for n in range(101, 200)], b"k"]
        assert each.store.keyspaces[0].count() == 100
    for replica_ in (replica, fresh):
        replica_.tick(NOON + 150)
    assert replica.content() == fresh.content()
    replica.store.close()
    fresh.store.close()


def test_a_read_that_meets_a_due_key_needs_time(tmp_path: Path) -> None:
    replica = Replica(tmp_path / "s")
    replica.run([b"SET", b"k", b"v", b"PX", b"100"], [b"SET", b"plain", b"v"])
    reader = replica.store.readers[0]
    reader.moment = NOON + 99
    assert reader.get(b"k") == b"v"
    assert reader.clock_ms() == NOON + 99
    assert reader.scan(None, 9) == [b"k", b"plain"]
    reader.moment = NOON + 100
    assert reader.get(b"plain") == b"v"
    for read in (reader.get, reader.contains, reader.version, reader.expire_at):
        with pytest.raises(NeedsTime):
            read(b"k")
    for look in (reader.count, reader.expiring, lambda: reader.scan(None, 9)):
        with pytest.raises(NeedsTime):
            look()
    assert replica.store.keyspaces[0].count() == 2  # what INFO asks does not wait
    replica.tick(NOON + 100)
    assert reader.get(b"k") is None
    assert reader.count() == 1
    replica.store.close()


# The server: who moves the time, and when ---------------------------------------------------------


async def settle() -> None:
    await wait_all_tasks_blocked(0.002)


def times(running: Running) -> int:
    """Values in the log that only move time."""
    return sum(not split_value(value)[2] for value in running.log.proposed)


async def test_a_read_of_a_due_key_moves_the_time_first(running: Running, clock: Clock) -> None:
    running.log.recording = True
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v", b"PX", b"100") + pack(b"GET", b"k"))
    await talker.expect(b"+OK\r\n$1\r\nv\r\n")
    clock.now += 99
    await talker.send(pack(b"GET", b"k"))
    await talker.expect(b"$1\r\nv\r\n")
    assert times(running) == 0
    clock.now += 1
    await talker.send(pack(b"GET", b"other") + pack(b"GET", b"k") + pack(b"EXISTS", b"k"))
    await talker.expect(b"$-1\r\n$-1\r\n:0\r\n")
    assert times(running) == 1
    assert running.store.time.now == clock.now


async def test_reads_of_one_pipeline_that_wait_keep_their_order(
    running: Running, clock: Clock
) -> None:
    talker = await running.connect()
    await talker.send(pack(b"MSET", b"a", b"1", b"b", b"2"))
    await talker.send(pack(b"SET", b"k", b"v", b"PX", b"100"))
    await talker.expect(b"+OK\r\n+OK\r\n")
    clock.now += 200
    await talker.send(
        pack(b"GET", b"a") + pack(b"DBSIZE") + pack(b"GET", b"b") + pack(b"GET", b"k")
    )
    await talker.expect(b"$1\r\n1\r\n:2\r\n$1\r\n2\r\n$-1\r\n")


async def test_time_that_does_not_come_is_not_waited_for_long(
    running: Running, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The reply is what log time says: nobody else knows better."""
    monkeypatch.setattr(timekeeper_module, "PATIENCE_S", 0.0)
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v", b"PX", b"100"))
    await talker.expect(b"+OK\r\n")
    running.machine.store.time.alone = False
    clock.now += 10**6  # a leap: in a cluster of several it waits for another node
    await talker.send(pack(b"GET", b"k"))
    await talker.expect(b"$1\r\nv\r\n")
    running.log.deliver_foreign([value_of(clock.now, origin=7)])
    await talker.send(pack(b"GET", b"k"))
    await talker.expect(b"$-1\r\n")


async def test_a_read_waits_for_the_node_that_confirms_its_clock(
    running: Running, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timekeeper_module, "PATIENCE_S", 1e9)
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v", b"PX", b"100"))
    await talker.expect(b"+OK\r\n")
    running.machine.store.time.alone = False
    clock.now += 10**6
    await talker.send(pack(b"GET", b"k"))
    while not running.server._time.late:
        await trio.sleep(0)
    while not running.machine.counters["leaps_refused"]:
        await trio.sleep(0)
    running.log.deliver_foreign([value_of(clock.now - 5, origin=7)])
    running.log.deliver_foreign([value_of(clock.now + 5, origin=7)])
    await talker.expect(b"$-1\r\n")


async def test_a_leap_of_another_node_is_confirmed_by_an_entry(
    running: Running, clock: Clock
) -> None:
    running.log.recording = True
    running.store.time.alone = False
    running.log.deliver_foreign([value_of(NOON, origin=7)])
    clock.now += 10**6
    running.log.deliver_foreign([value_of(clock.now, [b"SET", b"k", b"v"], origin=7)])
    while running.store.time.now == NOON:
        await trio.sleep(0)
    assert running.store.time.now == clock.now
    await settle()
    assert times(running) == 1


async def test_keys_that_are_due_are_removed_though_nobody_asks(
    tmp_path: Path, clock: Clock, autojump_clock: trio.testing.MockClock
) -> None:
    """In as many entries as they need, and no entry before or after."""
    async with serving(tmp_path, clock) as running:
        running.log.recording = True
        space, count = running.store.keyspaces[0], IDLE_SWEEP_KEYS * 2 + 5
        running.log.deliver_foreign([value_of(NOON)])
        for number in range(count):
            space.put(b"%d" % number, b"v", NOON + 100)
        running.store.commit(1, {})
        await trio.sleep(60)
        assert times(running) == 0
        clock.now += 100
        await trio.sleep(60)
        assert times(running) == 3
        assert running.machine.counters["keys_expired"] == count


async def test_no_read_is_answered_when_time_is_wanted_and_there_is_no_quorum(
    running: Running, clock: Clock
) -> None:
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v", b"PX", b"100"))
    await talker.expect(b"+OK\r\n")
    running.log.failing = NoQuorum(None, 5.0)
    clock.now += 200
    await talker.send(pack(b"GET", b"k"))
    await talker.expect(b"-NOQUORUM no majority answered")
