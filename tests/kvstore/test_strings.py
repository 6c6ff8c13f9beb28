"""Commands on whole strings and parts of them, and LCS: here, and in a real Redis."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kvstore.commands import lcs
from kvstore.commands.lcs import Run, matching_runs
from kvstore.keyspace import MAX_VALUE_BYTES
from kvstore.replies import OK, Error
from tests.kvstore.conversations import (
    NOT_AN_INTEGER,
    NOW,
    SYNTAX,
    WRONG_TYPE,
    Conversation,
    RealRedis,
    fresh_replica,
)

TOO_LONG = Error(b"ERR string exceeds maximum allowed size (proto-max-bulk-len)")


def bad_expiry(command: bytes) -> Error:
    return Error(b"ERR invalid expire time in '%b' command" % command)


def bad_arity(command: bytes) -> Error:
    return Error(b"ERR wrong number of arguments for '%b' command" % command)


CONVERSATIONS: dict[str, Conversation] = {
    "set, conditions": [
        (b"SET a 1 XX", None), (b"SET a 1 NX", OK), (b"SET a 2 nx", None), (b"SET a 3 XX", OK),
        (b"SET a 4 GET", b"3"), (b"SET a 5 NX GET", b"4"), (b"SET b 1 XX GET", None),
        (b"SET c 1 NX GET", None), (b"MGET a b c", [b"4", None, b"1"]),
        (b"SET a 1 NX NX", None), (b"SET a 9 GET GET", b"4"),
    ],
    "set, wrong options": [
        (b"SET a 1 NX XX", SYNTAX), (b"SET a 1 foo", SYNTAX), (b"SET a 1 EX", SYNTAX),
        (b"SET a 1 EX 10 PX 10", SYNTAX), (b"SET a 1 EX 10 KEEPTTL", SYNTAX),
        (b"SET a 1 KEEPTTL EXAT 10", SYNTAX), (b"SET a 1 PERSIST", SYNTAX),
        (b"SET a 1 EX 0", bad_expiry(b"set")), (b"SET a 1 PX -1", bad_expiry(b"set")),
        (b"SET a 1 EX x", NOT_AN_INTEGER), (b"SET a 1 EX 1.0", NOT_AN_INTEGER),
        (b"SET a 1 EX 9223372036854775807", bad_expiry(b"set")),
        (b"SET a 1 EXAT 9223372036854775807", bad_expiry(b"set")),
        (b"SET a 1 PX 9223372036854775807", bad_expiry(b"set")),
        (b"SET a 1 EX NX", NOT_AN_INTEGER), (b"GET a", None), (b"SET a", bad_arity(b"set")),
        (b"SET a 1 EX 10 EX 20", OK), (b"SET a 1 PXAT 9223372036854775807", OK),
    ],
    "set, due at once": [
        (b"SET a 1", OK), (b"SET a 2 EXAT 1", OK), (b"GET a", None), (b"SETNX a 3", 1),
        (b"SET a 4 PXAT 1 GET", b"3"), (b"EXISTS a", 0),
    ],
    "setnx, setex, psetex": [
        (b"SETNX a 1", 1), (b"SETNX a 2", 0), (b"GET a", b"1"),
        (b"SETEX a 10 2", OK), (b"PSETEX a 10000 3", OK), (b"GET a", b"3"),
        (b"SETEX a 0 x", bad_expiry(b"setex")), (b"SETEX a -5 x", bad_expiry(b"setex")),
        (b"PSETEX a 0 x", bad_expiry(b"psetex")), (b"SETEX a x x", NOT_AN_INTEGER),
        (b"SETEX a 9223372036854775807 x", bad_expiry(b"setex")), (b"GET a", b"3"),
    ],
    "getset, getdel": [
        (b"GETSET a 1", None), (b"GETSET a 2", b"1"), (b"GETDEL a", b"2"), (b"GETDEL a", None),
        (b"EXISTS a", 0), (b"GETDEL", bad_arity(b"getdel")),
    ],
    "getex": [
        (b"GETEX a", None), (b"GETEX a EX x", None), (b"GETEX a foo", SYNTAX), (b"SET a 1", OK),
        (b"GETEX a", b"1"), (b"GETEX a EX 10", b"1"), (b"GETEX a PERSIST", b"1"),
        (b"GETEX a EX 10 PERSIST", SYNTAX), (b"GETEX a KEEPTTL", SYNTAX), (b"GETEX a EX", SYNTAX),
        (b"GETEX a EX x", NOT_AN_INTEGER), (b"GETEX a EX 0", bad_expiry(b"getex")),
        (b"GETEX a NX", SYNTAX), (b"GETEX a EXAT 1", b"1"), (b"GET a", None),
    ],
    "mset, msetnx": [
        (b"MSET a 1 b 2 a 3", OK), (b"MGET a b c", [b"3", b"2", None]),
        (b"MSETNX c 1 a 2", 0), (b"MSETNX c 1 d 2 c 3", 1), (b"MGET a c d", [b"3", b"3", b"2"]),
        (b"MSET a 1 b", bad_arity(b"mset")), (b"MSETNX a 1 b", bad_arity(b"msetnx")),
    ],
    "append, strlen": [
        (b"STRLEN a", 0), (b"APPEND a foo", 3), (b"APPEND a 100", 6), (b"APPEND a ''", 6),
        (b"GET a", b"foo100"), (b"STRLEN a", 6), (b"APPEND b ''", 0), (b"EXISTS b", 1),
    ],
    "getrange, substr": [
        (b"SET a 'Hello World'", OK), (b"GETRANGE a 0 3", b"Hell"), (b"GETRANGE a 0 -1",
        b"Hello World"), (b"GETRANGE a -4 -1", b"orld"), (b"GETRANGE a 5 3", b""),
        (b"GETRANGE a -1 -5", b""), (b"GETRANGE a -5000 10000", b"Hello World"),
        (b"GETRANGE a 5 5000", b" World"), (b"GETRANGE a -100 -50", b"H"),
        (b"GETRANGE a -50 -100", b""), (b"GETRANGE a 11 12", b""), (b"SUBSTR a 1 2", b"el"),
        (b"GETRANGE b 0 -1", b""), (b"GETRANGE b x 1", NOT_AN_INTEGER),
        (b"GETRANGE a 0 9223372036854775808", NOT_AN_INTEGER),
        (b"GETRANGE a 0 4294967297", b"Hello World"), (b"SET b ''", OK), (b"GETRANGE b 0 0", b""),
    ],
    "setrange": [
        (b"SETRANGE a 0 ''", 0), (b"EXISTS a", 0), (b"SETRANGE a 1 foo", 4),
        (b"GET a", b"\0foo"), (b"SETRANGE a 0 b", 4), (b"SETRANGE a 2 bar!", 6),
        (b"GET a", b"bfbar!"), (b"SETRANGE a 8 x", 9), (b"GET a", b"bfbar!\0\0x"),
        (b"SETRANGE a 3 ''", 9), (b"SETRANGE a -1 x", Error(b"ERR offset is out of range")),
        (b"SETRANGE a x x", NOT_AN_INTEGER), (b"SETRANGE a 9223372036854775807 x", TOO_LONG),
        (b"SETRANGE b 536870912 x", TOO_LONG), (b"EXISTS b", 0),
    ],
    "lcs": [
        (b"MSET a ohmytext b mynewtext", OK), (b"LCS a b", b"mytext"), (b"LCS a b LEN", 6),
        (b"LCS a b IDX", {b"matches": [[[4, 7], [5, 8]], [[2, 3], [0, 1]]], b"len": 6}),
        (b"LCS a b idx minmatchlen 4 withmatchlen",
         {b"matches": [[[4, 7], [5, 8], 4]], b"len": 6}),
        (b"LCS a b IDX MINMATCHLEN -5 WITHMATCHLEN",
         {b"matches": [[[4, 7], [5, 8], 4], [[2, 3], [0, 1], 2]], b"len": 6}),
        (b"LCS a none", b""), (b"LCS none a LEN", 0), (b"LCS a a", b"ohmytext"),
        (b"LCS none a IDX", {b"matches": [], b"len": 0}),
        (b"LCS a b LEN IDX",
         Error(b"ERR If you want both the length and indexes, please just use IDX.")),
        (b"LCS a b foo", SYNTAX), (b"LCS a b MINMATCHLEN", SYNTAX),
        (b"LCS a b MINMATCHLEN x", NOT_AN_INTEGER), (b"LCS a", bad_arity(b"lcs")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_replies_in_redis_words(tmp_path: Path, name: str) -> None:
    with fresh_replica(tmp_path) as replica:
        replica.hold(CONVERSATIONS[name])


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_redis_says_the_same(redis_connection: RealRedis, name: str) -> None:
    redis_connection.hold(CONVERSATIONS[name])


def test_set_if_equal(tmp_path: Path) -> None:
    """IFEQ is Valkey's, not Redis': set when the key holds the value that is named."""
    with fresh_replica(tmp_path) as replica:
        replica.hold([
            (b"SET a new IFEQ old", None), (b"EXISTS a", 0), (b"SET a old", OK),
            (b"SET a new ifeq wrong", None), (b"SET a new IFEQ old", OK), (b"GET a", b"new"),
            (b"SET a x IFEQ wrong GET", b"new"), (b"SET a newer IFEQ new GET", b"new"),
            (b"GET a", b"newer"), (b"SET b x IFEQ '' GET", None), (b"EXISTS b", 0),
            (b"SET a 1 IFEQ newer NX", SYNTAX), (b"SET a 1 XX IFEQ newer", SYNTAX),
            (b"SET a 1 IFEQ", SYNTAX), (b"SET a 1 IFEQ newer EX 10", OK),
            (b"SET a 2 IFEQ 1 KEEPTTL", OK),
        ])  # fmt: skip
        assert replica.keys.expire_at(b"a") == NOW + 10_000
        replica.hold_another_kind(b"h")
        assert replica.run(b"SET", b"h", b"1", b"IFEQ", b"x") == WRONG_TYPE


@pytest.mark.parametrize(
    ("line", "expire_at"),
    [
        (b"SET a 1", None),
        (b"SET a 1 KEEPTTL", NOW + 5000),
        (b"SET a 1 EX 10", NOW + 10_000),
        (b"SET a 1 px 10", NOW + 10),
        (b"SET a 1 EXAT 1800000000", 1_800_000_000_000),
        (b"SET a 1 PXAT 1800000000001", 1_800_000_000_001),
        (b"SET a 1 XX EX 1 GET", NOW + 1000),
        (b"SET a 1 NX EX 1", NOW + 5000),
        (b"SETEX a 3 1", NOW + 3000),
        (b"PSETEX a 3 1", NOW + 3),
        (b"GETSET a 1", None),
        (b"MSET a 1", None),
        (b"GET a", NOW + 5000),
        (b"GETEX a", NOW + 5000),
        (b"GETEX a EX 7", NOW + 7000),
        (b"GETEX a PX 7", NOW + 7),
        (b"GETEX a EXAT 1800000000", 1_800_000_000_000),
        (b"GETEX a PXAT 1800000000001", 1_800_000_000_001),
        (b"GETEX a PERSIST", None),
        (b"APPEND a 1", NOW + 5000),
        (b"SETRANGE a 5 1", NOW + 5000),
        (b"INCR a", NOW + 5000),
        (b"INCRBYFLOAT a 1.5", NOW + 5000),
        (b"SETBIT a 100 1", NOW + 5000),
        (b"BITFIELD a SET u8 0 1", NOW + 5000),
        (b"BITOP NOT a a", None),
    ],
)
def test_what_becomes_of_an_expiry(tmp_path: Path, line: bytes, expire_at: int | None) -> None:
    """Relative times count from log time; what changes part of a value keeps its expiry."""
    with fresh_replica(tmp_path) as replica:
        replica.keys.put(b"a", b"1", NOW + 5000)
        assert not isinstance(replica.run(*line.split()), Error)
        assert replica.keys.expire_at(b"a") == expire_at


def test_what_is_due_is_not_there(tmp_path: Path) -> None:
    with fresh_replica(tmp_path) as replica:
        for line in (b"SET a 1 PX 100", b"SET b 5 PX 100", b"SET c abc PX 100"):
            assert replica.run(*line.split()) == OK
        replica.pass_time(99)
        assert replica.run(b"MGET", b"a", b"b", b"c") == [b"1", b"5", b"abc"]
        replica.pass_time(1)
        replica.hold([
            (b"GET a", None), (b"SET a 2 XX", None), (b"SET a 3 NX", OK), (b"INCR b", 1),
            (b"APPEND c d", 1), (b"GETRANGE c 0 -1", b"d"),
        ])  # fmt: skip
        assert replica.keys.expire_at(b"c") is None


def test_no_command_builds_a_value_that_is_too_long(tmp_path: Path) -> None:
    with fresh_replica(tmp_path) as replica:
        full = bytes(MAX_VALUE_BYTES)
        replica.keys.put(b"a", full)
        assert replica.run(b"APPEND", b"a", b"x") == TOO_LONG
        assert replica.run(b"APPEND", b"a", b"") == MAX_VALUE_BYTES
        last = b"%d" % (MAX_VALUE_BYTES - 1)
        assert replica.run(b"SETRANGE", b"a", last, b"xy") == TOO_LONG
        assert replica.keys.get(b"a") == full
        assert replica.run(b"SETRANGE", b"b", last, b"x") == MAX_VALUE_BYTES
        assert replica.keys.get(b"b") == full[1:] + b"x"


@pytest.mark.parametrize(
    "line",
    [
        b"GET h", b"SET h 1 GET", b"GETSET h 1", b"GETDEL h", b"GETEX h", b"APPEND h x",
        b"STRLEN h", b"GETRANGE h 0 1", b"SETRANGE h 0 x", b"INCR h", b"INCRBYFLOAT h 1",
        b"SETBIT h 0 1", b"GETBIT h 0", b"BITCOUNT h", b"BITPOS h 1", b"BITOP AND x s h",
        b"BITFIELD h GET u8 0", b"BITFIELD h SET u8 0 1", b"BITFIELD_RO h GET u8 0",
    ],
)  # fmt: skip
def test_another_kind_of_value_is_refused(tmp_path: Path, line: bytes) -> None:
    with fresh_replica(tmp_path) as replica:
        replica.hold_another_kind(b"h")
        replica.keys.put(b"s", b"text")
        assert replica.run(*line.split()) == WRONG_TYPE
        assert replica.run(b"MGET", b"s", b"h") == [b"text", None]
        assert replica.run(b"LCS", b"s", b"h") == Error(
            b"ERR The specified keys must contain string values"
        )
        assert replica.run(b"SET", b"h", b"1") == OK


def runs_by_table(left: bytes, right: bytes) -> list[Run]:
    """The table of lengths in full, and the walk back through it, as Redis documents them."""
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left, 1):
        for j, b in enumerate(right, 1):
            longest = max(table[i - 1][j], table[i][j - 1])
            table[i][j] = table[i - 1][j - 1] + 1 if a == b else longest
    i, j = len(left), len(right)
    runs: list[Run] = []
    while i and j:
        if left[i - 1] == right[j - 1]:
            i, j = i - 1, j - 1
            if runs and runs[-1][:2] == (i + 1, j + 1):
                runs[-1] = Run(i, j, runs[-1].length + 1)
            else:
                runs.append(Run(i, j, 1))
        elif table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    return runs


@pytest.mark.parametrize("letters", [1, 2, 3, 8])
def test_rows_of_bits_find_what_the_table_finds(letters: int) -> None:
    chance = random.Random(letters)
    for _ in range(200):
        left, right = (
            bytes(chance.randrange(letters) for _ in range(chance.randrange(24))) for _ in "lr"
        )
        assert matching_runs(left, right) == runs_by_table(left, right)


def test_an_lcs_that_redis_has_no_memory_for_is_refused(tmp_path: Path) -> None:
    with fresh_replica(tmp_path) as replica:
        replica.keys.put(b"a", bytes(lcs.MAX_CELLS // 4096 - 1))
        replica.keys.put(b"b", bytes(4095))
        assert replica.run(b"LCS", b"a", b"b", b"LEN") == 4095
        replica.keys.put(b"b", bytes(4096))
        assert replica.run(b"LCS", b"a", b"b", b"LEN") == Error(
            b"ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"
        )
