"""KEYS, SCAN and RANDOMKEY: replies, the guarantee of SCAN, cursors that are forgotten."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvstore.commands import TABLE
from kvstore.commands import scanning as scanning_module
from kvstore.commands.scanning import cursors_of, random_key
from kvstore.cursors import CursorTable
from kvstore.keyspace import Keyspace
from kvstore.store import Store
from tests.kvstore.serving import Running, talk, talk_to_empty

SYNTAX = b"-ERR syntax error\r\n"
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"
NO_CURSOR = b"-ERR invalid cursor\r\n"
EMPTY = b"*2\r\n$1\r\n0\r\n*0\r\n"

# Of one key at most: in what order there are more is for each server to say.
CONVERSATIONS: list[tuple[bytes, bytes]] = [
    (b"KEYS *\r\nSCAN 0\r\nSET key:1 1\r\nKEYS *\r\nKEYS key:?\r\nKEYS k\r\nKEYS key:1\r\n"
     b"KEYS key:1*\r\nKEYS key:1?\r\nKEYS kez*\r\nKEYS [^a]*[0-9]\r\nKEYS\r\nKEYS a b\r\n",
     b"*0\r\n" + EMPTY + b"+OK\r\n" + b"*1\r\n$5\r\nkey:1\r\n" * 2 + b"*0\r\n"
     + b"*1\r\n$5\r\nkey:1\r\n" * 2 + b"*0\r\n" * 2 + b"*1\r\n$5\r\nkey:1\r\n"
     + b"-ERR wrong number of arguments for 'keys' command\r\n" * 2),
    (b"SET '' 1\r\nKEYS *\r\nKEYS ''\r\nKEYS **\r\nKEYS ?\r\nSCAN 0 MATCH ''\r\n"
     b"SCAN 0 MATCH **\r\n",
     b"+OK\r\n" + b"*1\r\n$0\r\n\r\n" * 2 + b"*0\r\n" * 2 + b"*2\r\n$1\r\n0\r\n*1\r\n$0\r\n\r\n"
     + EMPTY),
    (b"SET a 1\r\nSCAN 0\r\nscan 0 match A count 5 type STRING\r\nSCAN 0 TYPE hash\r\n"
     b"SCAN 0 TYPE foo\r\nSCAN 0 MATCH b MATCH a\r\n",
     b"+OK\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n" + EMPTY * 3
     + b"*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n"),
    (b"SCAN x\r\nSCAN ' 1'\r\nSCAN 1x\r\nSCAN -\r\nSCAN 18446744073709551616\r\nSCAN ''\r\n"
     b"SCAN -0\r\nSCAN +0\r\n",
     NO_CURSOR * 5 + EMPTY * 3),
    (b"SCAN 0 COUNT\r\nSCAN 0 COUNT 0\r\nSCAN 0 COUNT -1\r\nSCAN 0 COUNT x\r\nSCAN 0 FOO 1\r\n"
     b"SCAN 0 COUNT 1 MATCH\r\nSCAN 0 COUNT x MATCH\r\nSCAN\r\n",
     SYNTAX * 3 + NO_INTEGER + SYNTAX * 2 + NO_INTEGER
     + b"-ERR wrong number of arguments for 'scan' command\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS)
async def test_replies_in_redis_words(running: Running, sent: bytes, expected: bytes) -> None:
    assert await talk(await running.connect(), sent) == expected


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS)
async def test_redis_says_the_same(real_redis: int, sent: bytes, expected: bytes) -> None:
    assert await talk_to_empty(real_redis, sent) == expected


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "store", 1) as store:
        yield store


_instances = itertools.count(1)


def commit(store: Store) -> None:
    store.commit(next(_instances), {})


def fill(keys: Keyspace, names: list[bytes]) -> None:
    for name in names:
        keys.put(name, b"v")
    commit(keys.store)


def scan(keys: Keyspace, cursor: bytes, *options: bytes) -> tuple[bytes, list[bytes]]:
    reply = TABLE[b"scan"].handler(keys, [b"scan", cursor, *options])
    assert isinstance(reply, list)
    following, found = reply
    assert isinstance(following, bytes)
    assert isinstance(found, list)
    return following, [key for key in found if isinstance(key, bytes)]


def scan_all(keys: Keyspace, *options: bytes) -> list[bytes]:
    cursor, found = scan(keys, b"0", *options)
    while cursor != b"0":
        cursor, more = scan(keys, cursor, *options)
        found += more
    return found


NAMES = [b"key:%d" % number for number in range(1000)]


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ((), NAMES),
        ((b"COUNT", b"7"), NAMES),
        ((b"COUNT", b"1000"), NAMES),
        ((b"COUNT", b"99999999"), NAMES),
        ((b"MATCH", b"key:1??"), [name for name in NAMES if len(name) == 7 and name[4] == 49]),
        ((b"MATCH", b"*9"), [name for name in NAMES if name.endswith(b"9")]),
        ((b"MATCH", b"key:5"), [b"key:5"]),
        ((b"MATCH", b"kez*"), []),
        ((b"MATCH", b"key:*", b"TYPE", b"string", b"COUNT", b"10"), NAMES),
        ((b"TYPE", b"list"), []),
    ],
)
def test_every_key_is_returned_once(
    store: Store, options: tuple[bytes, ...], chosen: list[bytes]
) -> None:
    keys = store.keyspaces[2]
    fill(keys, NAMES)
    fill(store.keyspaces[3], [b"another"])
    assert scan_all(keys, *options) == sorted(chosen)


def test_a_pattern_with_a_beginning_looks_at_no_other_keys(store: Store) -> None:
    keys = store.keyspaces[0]
    fill(keys, [b"a%d" % n for n in range(500)] + [b"b", b"b1", b"b2"])
    assert scan(keys, b"0", b"MATCH", b"b*") == (b"0", [b"b", b"b1", b"b2"])


def test_one_call_is_bounded(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scanning_module, "SCAN_KEYS_MAX", 100)
    keys = store.keyspaces[0]
    fill(keys, NAMES)
    cursor, found = scan(keys, b"0", b"COUNT", b"1000")
    assert len(found) == 100
    assert cursor != b"0"


OPERATIONS = st.lists(st.tuples(st.booleans(), st.binary(max_size=2)), max_size=6)


@settings(max_examples=60, deadline=None)
@given(
    kept=st.sets(st.binary(max_size=2), min_size=1, max_size=25),
    steps=st.lists(OPERATIONS, max_size=30),
    count=st.integers(1, 4),
)
def test_a_key_that_is_there_throughout_is_returned(
    tmp_path_factory: pytest.TempPathFactory, kept: set[bytes],
    steps: list[list[tuple[bool, bytes]]], count: int,
) -> None:  # fmt: skip
    """Whatever is added and deleted meanwhile; and what was never there is not returned."""
    with Store(tmp_path_factory.mktemp("scan"), 1) as store:
        keys = store.keyspaces[0]
        fill(keys, list(kept))
        ever = set(kept)
        returned: set[bytes] = set()
        cursor = b"0"
        changes = iter(steps)
        while True:
            cursor, found = scan(keys, cursor, b"COUNT", b"%d" % count)
            returned |= set(found)
            if cursor == b"0":
                break
            for adds, name in next(changes, []):
                if name not in kept:
                    if adds:
                        keys.put(name, b"v")
                        ever.add(name)
                    else:
                        keys.remove(name)
            commit(store)
        assert kept <= returned <= ever


def test_an_unknown_cursor_starts_over(store: Store) -> None:
    keys = store.keyspaces[0]
    fill(keys, NAMES[:25])
    first = scan(keys, b"0")[1]
    assert scan(keys, b"12345")[1] == first
    cursor = scan(keys, b"0")[0]
    other = store.keyspaces[1]
    fill(other, NAMES[:25])
    assert scan(other, cursor)[1] == first, "a cursor is of one database"
    assert scan(keys, cursor)[1] != first


def test_a_cursor_may_be_used_again(store: Store) -> None:
    """A client whose reply was lost asks again, and goes on from there."""
    keys = store.keyspaces[0]
    fill(keys, NAMES[:40])
    cursor, _ = scan(keys, b"0")
    following, found = scan(keys, cursor)
    again, same = scan(keys, cursor)
    assert found == same
    assert scan(keys, following)[1] == scan(keys, again)[1]


def test_an_iteration_keeps_two_cursors_at_most(store: Store) -> None:
    keys = store.keyspaces[0]
    fill(keys, NAMES)
    cursor = b"0"
    while True:
        cursor, _ = scan(keys, cursor)
        assert len(cursors_of(store)) <= 2
        if cursor == b"0":
            return


def test_cursors_are_bounded_and_the_longest_unused_goes_first() -> None:
    numbers = itertools.chain([0, 5, 5], itertools.count(6))
    table = CursorTable(lambda bits: next(numbers), most=3, most_bytes=10)
    assert table.add(0, b"a", 0) == 5
    assert table.add(0, b"b", 0) == 6
    assert table.add(0, b"c", 0) == 7
    assert table.find(5, 0) == b"a"
    assert table.add(0, b"d", 0) == 8
    assert [table.find(cursor, 0) for cursor in (5, 6, 7, 8)] == [b"a", None, b"c", b"d"]
    long = table.add(0, b"x" * 100, 0)
    assert len(table) == 1
    assert table.find(long, 0) == b"x" * 100


def test_expired_keys_are_not_returned(store: Store) -> None:
    keys = store.keyspaces[0]
    store.time.alone = True
    store.time.advance(1000, 1)
    fill(keys, NAMES[:50])
    for name in NAMES[:40]:
        keys.set_expiry(name, 2000)
    commit(store)
    store.time.advance(2000, 1)
    assert set(scan_all(keys)) == set(NAMES[40:50])
    assert TABLE[b"keys"].handler(keys, [b"keys", b"*"]) == sorted(NAMES[40:50])
    assert random_key(keys, random.Random(1)) in NAMES[40:50]


SHAPES: list[list[bytes]] = [
    [b"%d" % n for n in range(300)],
    [b"user:%06d:name" % n for n in range(400)],
    [b"a" * n for n in range(300)],
    [bytes((n, m)) for n in range(16) for m in range(20)],
    [bytes((n * 7 % 256, n % 256, n // 3)) for n in range(700)],
    [b"", b"\xff", b"\xff\xff", *(b"session:%d" % n for n in range(300))],
]


@pytest.mark.parametrize("names", SHAPES, ids=range(len(SHAPES)))
def test_a_random_key_is_a_key_and_seldom_the_same(store: Store, names: list[bytes]) -> None:
    keys = store.keyspaces[0]
    fill(keys, names)
    chance = random.Random(7)
    drawn = Counter(random_key(keys, chance) for _ in range(200))
    assert drawn.keys() <= set(names)
    assert len(drawn) > 15


def test_random_keys_with_numbers_are_near_to_equally_likely(store: Store) -> None:
    keys = store.keyspaces[0]
    fill(keys, [b"key:%04d" % n for n in range(1000)])
    chance = random.Random(3)
    by_hundred = Counter((random_key(keys, chance) or b"")[5:6] for _ in range(500))
    assert len(by_hundred) == 10
    assert max(by_hundred.values()) < 100
