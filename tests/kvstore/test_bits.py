"""Commands on strings as rows of bits: here, and in a real Redis."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from kvstore.commands import bits
from kvstore.commands.bitfields import Field
from kvstore.keyspace import MAX_VALUE_BYTES
from kvstore.replies import OK, Error
from tests.kvstore.conversations import (
    NOT_AN_INTEGER,
    SYNTAX,
    Conversation,
    RealRedis,
    fresh_replica,
)

BAD_OFFSET = Error(b"ERR bit offset is not an integer or out of range")
BAD_BIT = Error(b"ERR bit is not an integer or out of range")
BAD_TYPE = Error(
    b"ERR Invalid bitfield type. Use something like i16 u8. "
    b"Note that u64 is not supported but i64 is."
)
LIMIT = 8 * MAX_VALUE_BYTES

CONVERSATIONS: dict[str, Conversation] = {
    "setbit, getbit": [
        (b"SETBIT a 1 1", 0), (b"GET a", b"@"), (b"SETBIT a 1 0", 1), (b"GET a", b"\0"),
        (b"SETBIT a 20 0", 0), (b"GET a", b"\0\0\0"), (b"SET a @", OK), (b"SETBIT a 2 1", 0),
        (b"GET a", b"`"), (b"SET a 1", OK), (b"SETBIT a 6 1", 0), (b"GET a", b"3"),
        (b"GETBIT a 6", 1), (b"GETBIT a 0", 0), (b"GETBIT a 4000", 0), (b"GETBIT b 0", 0),
        (b"SETBIT a -1 1", BAD_OFFSET), (b"SETBIT a x 1", BAD_OFFSET), (b"GETBIT a -1", BAD_OFFSET),
        (b"SETBIT a 4294967296 1", BAD_OFFSET), (b"GETBIT a 4294967296", BAD_OFFSET),
        (b"SETBIT a 0 2", BAD_BIT), (b"SETBIT a 0 -1", BAD_BIT), (b"SETBIT a 0 x", BAD_BIT),
        (b"SETBIT a 0 20", BAD_BIT), (b"SETBIT a #1 1", BAD_OFFSET),
    ],
    "bitcount": [
        (b"BITCOUNT a", 0), (b"BITCOUNT a x y z", 0), (b"SET a foobar", OK), (b"BITCOUNT a", 26),
        (b"BITCOUNT a 0 0", 4), (b"BITCOUNT a 1 1 byte", 6), (b"BITCOUNT a 5 30 BIT", 17),
        (b"BITCOUNT a -2 -1", 7), (b"BITCOUNT a -1 -2", 0), (b"BITCOUNT a -1 -2 foo", 0),
        (b"BITCOUNT a 0 -1000", 4), (b"BITCOUNT a 10 20", 0), (b"BITCOUNT a 1000 0 BIT", 0),
        (b"BITCOUNT a 3 3 BIT", 0), (b"BITCOUNT a 1 1 bit", 1), (b"BITCOUNT a 1", SYNTAX),
        (b"BITCOUNT a 0 1 foo", SYNTAX), (b"BITCOUNT a 0 1 BIT x", SYNTAX),
        (b"BITCOUNT a x 1", NOT_AN_INTEGER), (b"SET a ''", OK), (b"BITCOUNT a 0 -1", 0),
    ],
    "bitpos": [
        (b"BITPOS a 0", 0), (b"BITPOS a 1", -1), (b"BITPOS a 1 x", -1),
        (rb'SET a "\xff\xf0\x00"', OK), (b"BITPOS a 0", 12), (b"BITPOS a 0 2", 16),
        (b"BITPOS a 1 2", -1), (b"BITPOS a 1 -2", 8), (b"BITPOS a 0 0 0", -1),
        (b"BITPOS a 0 7 15 BIT", 12), (b"BITPOS a 0 7 11 BIT", -1), (b"BITPOS a 1 11 15 bit", 11),
        (b"BITPOS a 1 12 -1 BIT", -1), (b"BITPOS a 1 2 1", -1), (b"BITPOS a 1 3", -1),
        (rb'SET a "\xff\xff\xff"', OK), (b"BITPOS a 0", 24), (b"BITPOS a 0 0", 24),
        (b"BITPOS a 0 3", -1), (b"BITPOS a 0 0 -1", -1), (b"BITPOS a 0 0 -1 BIT", -1),
        (b"BITPOS a 1 9 -1 BIT", 9), (b"SET a ''", OK), (b"BITPOS a 0", -1), (b"BITPOS a 1", -1),
        (b"BITPOS a 2", Error(b"ERR The bit argument must be 1 or 0.")),
        (b"BITPOS a x", NOT_AN_INTEGER), (b"BITPOS a 1 x", NOT_AN_INTEGER),
        (b"BITPOS a 1 0 1 foo", SYNTAX), (b"BITPOS a 1 0 x BIT", NOT_AN_INTEGER),
        (b"BITPOS a 1 0 1 BIT x", SYNTAX),
    ],
    "bitop": [
        (b"BITOP NOT x none", 0), (b"EXISTS x", 0), (rb'SET a "\xaa\x00\xff\x55"', OK),
        (b"BITOP NOT x a", 4), (b"GET x", b"\x55\xff\x00\xaa"), (rb'SET b "\x01\x02\xff"', OK),
        (b"BITOP AND x a b", 4), (b"GET x", b"\x00\x00\xff\x00"), (b"BITOP or x b a none", 4),
        (b"GET x", b"\xab\x02\xff\x55"), (b"BITOP xor x a b", 4), (b"GET x", b"\xab\x02\x00\x55"),
        (b"BITOP AND x a none b", 4), (b"GET x", b"\0\0\0\0"), (b"BITOP AND a a", 4),
        (b"BITOP AND x none nor", 0), (b"EXISTS x", 0), (b"BITOP foo x a", SYNTAX),
        (b"BITOP NOT x a b", Error(b"ERR BITOP NOT must be called with a single source key.")),
    ],
    "bitfield": [
        (b"BITFIELD a", []), (b"BITFIELD a GET u8 0", [0]), (b"EXISTS a", 0),
        (b"BITFIELD a SET i8 0 -100 SET i8 0 101 GET i8 0", [0, -100, 101]),
        (b"BITFIELD a SET u8 0 255 GET u8 0 GET i8 0 GET u4 4", [101, 255, -1, 15]),
        (b"BITFIELD a SET u8 #1 65 SET u8 #0 66", [0, 255]), (b"GET a", b"BA"),
        (b"BITFIELD a GET i64 0 GET u63 0 GET i5 14",
         [4774097079989436416, 2387048539994718208, 8]),
        (b"BITFIELD a INCRBY u8 #0 10 incrby u8 #0 100", [76, 176]),
        (b"BITFIELD a SET i64 3 -1 INCRBY i64 3 -9223372036854775807", [-9077005048965234688,
         -9223372036854775808]), (b"BITFIELD a GET i1 0 GET u1 3", [-1, 1]),
    ],
    "bitfield, overflow": [
        (b"BITFIELD a SET u8 0 250 INCRBY u8 0 10", [0, 4]),
        (b"BITFIELD a OVERFLOW SAT INCRBY u8 0 300 INCRBY u8 0 -1000", [255, 0]),
        (b"BITFIELD a SET i8 0 100 INCRBY i8 0 100 OVERFLOW SAT INCRBY i8 0 -100",
         [0, -56, -128]),
        (b"BITFIELD a OVERFLOW fail INCRBY i8 0 -1 SET u8 0 256 GET u8 0", [None, None, 128]),
        (b"BITFIELD a OVERFLOW SAT SET u4 0 -1 SET i4 0 -9 SET i4 0 9", [8, -1, -8]),
        (b"BITFIELD a OVERFLOW WRAP SET u4 0 -2 GET u4 0", [7, 14]),
        (b"BITFIELD b OVERFLOW FAIL SET u8 8 256", [None]), (b"GET b", b"\0\0"),
        (b"BITFIELD b SET i64 0 9223372036854775807 INCRBY i64 0 1", [0, -9223372036854775808]),
        (b"BITFIELD b OVERFLOW FAIL INCRBY i64 0 -1", [None]),
        (b"BITFIELD b SET u63 0 9223372036854775807 INCRBY u63 0 2", [4611686018427387904, 1]),
    ],
    "bitfield, what is wrong": [
        (b"BITFIELD a GET u64 0", BAD_TYPE), (b"BITFIELD a GET i65 0", BAD_TYPE),
        (b"BITFIELD a GET u0 0", BAD_TYPE), (b"BITFIELD a GET x8 0", BAD_TYPE),
        (b"BITFIELD a GET '' 0", BAD_TYPE), (b"BITFIELD a GET u8 -1", BAD_OFFSET),
        (b"BITFIELD a GET u8 #-1", BAD_OFFSET), (b"BITFIELD a GET u8 #536870912", BAD_OFFSET),
        (b"BITFIELD a SET u8 0", SYNTAX), (b"BITFIELD a GET u8", SYNTAX),
        (b"BITFIELD a foo u8 0", SYNTAX), (b"BITFIELD a SET u8 0 x", NOT_AN_INTEGER),
        (b"BITFIELD a OVERFLOW", SYNTAX),
        (b"BITFIELD a OVERFLOW foo GET u8 0", Error(b"ERR Invalid OVERFLOW type specified")),
        (b"BITFIELD a SET u8 0 1 GET u64 0", BAD_TYPE), (b"EXISTS a", 0),
    ],
    "bitfield_ro": [
        (b"SET a foobar", OK), (b"BITFIELD_RO a GET u8 0 get i8 #1", [102, 111]),
        (b"BITFIELD_RO a OVERFLOW SAT GET u8 0", [102]), (b"BITFIELD_RO b GET u8 0", [0]),
        (b"BITFIELD_RO a", []),
        (b"BITFIELD_RO a GET u8 0 SET u8 0 1",
         Error(b"ERR BITFIELD_RO only supports the GET subcommand")),
        (b"BITFIELD_RO a SET u64 0 1", BAD_TYPE),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_replies_in_redis_words(tmp_path: Path, name: str) -> None:
    with fresh_replica(tmp_path) as replica:
        replica.hold(CONVERSATIONS[name])


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_redis_says_the_same(redis_connection: RealRedis, name: str) -> None:
    redis_connection.hold(CONVERSATIONS[name])


def test_no_bit_beyond_the_longest_value(tmp_path: Path) -> None:
    """As in a Redis whose proto-max-bulk-len is as small; there a field may stick out."""
    with fresh_replica(tmp_path) as replica:
        for line in (
            b"SETBIT a %d 1" % LIMIT, b"GETBIT a %d" % LIMIT, b"BITFIELD a GET u1 %d" % LIMIT,
            b"BITFIELD a SET u2 %d 1" % (LIMIT - 1), b"BITFIELD a GET u8 #%d" % MAX_VALUE_BYTES,
        ):  # fmt: skip
            assert replica.run(*line.split()) == BAD_OFFSET, line
        replica.hold([
            (b"EXISTS a", 0), (b"BITFIELD a GET u2 %d" % (LIMIT - 1), [0]),
            (b"BITFIELD a SET u2 %d 1" % (LIMIT - 2), [0]), (b"STRLEN a", MAX_VALUE_BYTES),
            (b"SETBIT a %d 1" % (LIMIT - 2), 0), (b"GETBIT a %d" % (LIMIT - 1), 1),
            (b"BITCOUNT a", 2), (b"BITPOS a 1", LIMIT - 2), (b"BITPOS a 0 -1", LIMIT - 8),
        ])  # fmt: skip


def test_what_stays_as_it_is_is_not_written(tmp_path: Path) -> None:
    """A watched key counts as changed only where it was; as in Redis."""
    with fresh_replica(tmp_path) as replica:
        replica.keys.put(b"a", b"\x80")
        version = replica.keys.version(b"a")
        replica.pass_time(1)
        replica.hold([
            (b"SETBIT a 0 1", 1), (b"SETBIT a 7 0", 0), (b"BITFIELD a SET u8 0 128", [128]),
            (b"BITFIELD a GET u8 0 OVERFLOW FAIL INCRBY u8 0 128", [128, None]),
            (b"SETRANGE a 0 ''", 1),
        ])  # fmt: skip
        assert replica.keys.version(b"a") == version
        replica.hold([(b"SETBIT a 8 0", 0), (b"STRLEN a", 2)])
        assert replica.keys.version(b"a") > version


@pytest.mark.parametrize("length", [1, 7, 8, 9, 65535, 65536, 65537, 131072, 200_001])
def test_long_rows_of_bits_are_searched_and_counted_right(tmp_path: Path, length: int) -> None:
    """Against one integer; with the bit in every block, at its edges, and nowhere."""
    places = {0, 7, 8, 8 * length - 1, 4 * length, 8 * 65535 + 3, 8 * 65536, 8 * 65536 + 9}
    with fresh_replica(tmp_path) as replica:
        for place in sorted(place for place in places if place < 8 * length):
            one = (1 << (8 * length - 1 - place)).to_bytes(length)
            for bit, value in ((b"1", one), (b"0", bytes(byte ^ 0xFF for byte in one))):
                replica.keys.put(b"a", value)
                assert replica.run(b"BITPOS", b"a", bit) == place
                assert replica.run(b"BITPOS", b"a", bit, b"%d" % place, b"-1", b"BIT") == place
                behind = b"%d" % (place + 1)
                assert replica.run(b"BITPOS", b"a", bit, behind, b"-1", b"BIT") == -1
            assert replica.run(b"BITCOUNT", b"a") == 8 * length - 1
            assert replica.run(b"BITCOUNT", b"a", b"0", b"%d" % place, b"BIT") == place


@pytest.mark.parametrize("length", [1, 8, 1001, 65536])
def test_operations_on_long_rows_of_bits(tmp_path: Path, length: int) -> None:
    chance = random.Random(length)
    values = [chance.randbytes(size) for size in (length, length // 2, length, length + 3)]
    integers = [int.from_bytes(value.ljust(length + 3, b"\0")) for value in values]
    with fresh_replica(tmp_path) as replica:
        for number, value in enumerate(values):
            replica.keys.put(b"%d" % number, value)
        conjunction, disjunction, exclusion = integers[0], integers[0], integers[0]
        for integer in integers[1:]:
            conjunction &= integer
            disjunction |= integer
            exclusion ^= integer
        for name, expected in (
            (b"AND", conjunction), (b"OR", disjunction), (b"XOR", exclusion),
        ):  # fmt: skip
            reply = replica.run(b"BITOP", name, b"x", b"0", b"1", b"2", b"3")
            assert reply == length + 3
            assert replica.keys.get(b"x") == expected.to_bytes(length + 3)
        assert bits.count_ones(values[0]) == int.from_bytes(values[0]).bit_count()


def test_a_field_is_read_and_written_anywhere() -> None:
    chance = random.Random(1)
    for _ in range(500):
        signed = chance.random() < 0.5
        field = Field(chance.randrange(100), chance.randint(1, 63 + signed), signed)
        value = bytearray(chance.randbytes(21))
        before = int.from_bytes(value)
        integer = chance.getrandbits(64)
        field.write(value, integer)
        shift = 8 * len(value) - field.offset - field.bits
        mask = (1 << field.bits) - 1
        assert int.from_bytes(value) == before & ~(mask << shift) | (integer & mask) << shift
        assert field.read(value) == field.wrapped(integer)
        assert field.fitted(field.read(value), b"fail") == field.read(value)
