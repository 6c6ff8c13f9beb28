"""Commands on strings that are numbers: here, and in a real Redis."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore.commands import extended
from kvstore.replies import OK, Error
from tests.kvstore.conversations import NOT_AN_INTEGER, Conversation, RealRedis, fresh_replica

OVERFLOW = Error(b"ERR increment or decrement would overflow")
NOT_A_FLOAT = Error(b"ERR value is not a valid float")
INFINITE = Error(b"ERR increment would produce NaN or Infinity")

CONVERSATIONS: dict[str, Conversation] = {
    "incr, decr": [
        (b"INCR a", 1), (b"INCR a", 2), (b"DECR a", 1), (b"DECR b", -1), (b"GET b", b"-1"),
        (b"INCRBY a 41", 42), (b"DECRBY a 2", 40), (b"DECRBY a -2", 42), (b"INCRBY a -43", -1),
        (b"SET c ' 1'", OK), (b"INCR c", NOT_AN_INTEGER), (b"SET c '1 '", OK),
        (b"DECR c", NOT_AN_INTEGER), (b"SET c ''", OK), (b"INCR c", NOT_AN_INTEGER),
        (b"SET c 1.0", OK), (b"INCR c", NOT_AN_INTEGER), (b"SET c +1", OK),
        (b"INCR c", NOT_AN_INTEGER), (b"INCRBY a x", NOT_AN_INTEGER),
        (b"INCRBY a 9223372036854775808", NOT_AN_INTEGER), (b"GET a", b"-1"),
    ],
    "the ends of 64 bits": [
        (b"SET a 9223372036854775806", OK), (b"INCR a", 9223372036854775807),
        (b"INCR a", OVERFLOW), (b"INCRBY a 9223372036854775807", OVERFLOW),
        (b"DECRBY a 9223372036854775807", 0), (b"INCRBY a -9223372036854775808",
        -9223372036854775808), (b"DECR a", OVERFLOW), (b"INCRBY a 9223372036854775807", -1),
        (b"DECRBY a -9223372036854775808", Error(b"ERR decrement would overflow")),
        (b"GET a", b"-1"),
    ],
    "incrbyfloat": [
        (b"INCRBYFLOAT a 1", b"1"), (b"INCRBYFLOAT a 0.25", b"1.25"), (b"GET a", b"1.25"),
        (b"SET a 1.5", OK), (b"INCRBYFLOAT a 1.5", b"3"), (b"SET a 10.50", OK),
        (b"INCRBYFLOAT a 0.1", b"10.6"), (b"INCRBYFLOAT a -5", b"5.6"),
        (b"SET a 5.0e3", OK), (b"INCRBYFLOAT a 2.0e2", b"5200"),
        (b"SET a 0.1", OK), (b"INCRBYFLOAT a 0.2", b"0.3"), (b"INCRBYFLOAT a -1.1", b"-0.8"),
        (b"SET a 17179869184", OK), (b"INCRBYFLOAT a 1.5", b"17179869185.5"),
        (b"SET a 1", OK), (b"INCRBYFLOAT a -1", b"0"), (b"INCRBYFLOAT a -1e-18", b"0"),
        (b"SET a 123456789012345678901", OK), (b"INCRBYFLOAT a 1", b"123456789012345678904"),
        (b"SET a 3", OK), (b"INCRBYFLOAT a 1.1", b"4.1"), (b"SET a 56", OK),
        (b"INCRBYFLOAT a 0.9999999999999999999", b"57"),
    ],
    "incrbyfloat, no numbers": [
        (b"INCRBYFLOAT a x", NOT_A_FLOAT), (b"INCRBYFLOAT a ''", NOT_A_FLOAT),
        (b"INCRBYFLOAT a ' 1'", NOT_A_FLOAT), (b"INCRBYFLOAT a '1 '", NOT_A_FLOAT),
        (b"INCRBYFLOAT a 1_0", NOT_A_FLOAT), (b"INCRBYFLOAT a nan", NOT_A_FLOAT),
        (b"INCRBYFLOAT a .", NOT_A_FLOAT), (b"INCRBYFLOAT a 1e", NOT_A_FLOAT),
        (b"INCRBYFLOAT a 0x", NOT_A_FLOAT), (b"INCRBYFLOAT a 0x.p1", NOT_A_FLOAT),
        (b"INCRBYFLOAT a 1e4933", NOT_A_FLOAT), (b"INCRBYFLOAT a 1e-4952", NOT_A_FLOAT),
        (b"INCRBYFLOAT a 0x1p16384", NOT_A_FLOAT), (b"INCRBYFLOAT a 1e999999999", NOT_A_FLOAT),
        (b"INCRBYFLOAT a " + b"1" * 5120, NOT_A_FLOAT),
        (b"INCRBYFLOAT a inf", INFINITE), (b"INCRBYFLOAT a -Infinity", INFINITE),
        (b"EXISTS a", 0), (b"SET a foo", OK), (b"INCRBYFLOAT a 1", NOT_A_FLOAT),
        (b"SET a inf", OK), (b"INCRBYFLOAT a -inf", INFINITE), (b"INCRBYFLOAT a 1", INFINITE),
        (b"SET a 1e4932", OK), (b"INCRBYFLOAT a 1e4932", INFINITE),
    ],
    "incrbyfloat, every form": [
        (b"INCRBYFLOAT a +5.", b"5"), (b"INCRBYFLOAT a .5", b"5.5"),
        (b"INCRBYFLOAT a 0x.8", b"6"), (b"INCRBYFLOAT a -0XaP-1", b"1"),
        (b"INCRBYFLOAT a 1E2", b"101"), (b"INCRBYFLOAT a 3e-4951", b"101"),
        (b"INCRBYFLOAT a 0e5", b"101"), (b"INCRBYFLOAT a 0x0p99999", b"101"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_replies_in_redis_words(tmp_path: Path, name: str) -> None:
    with fresh_replica(tmp_path) as replica:
        replica.hold(CONVERSATIONS[name])


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_redis_says_the_same(redis_connection: RealRedis, name: str) -> None:
    redis_connection.hold(CONVERSATIONS[name])


@pytest.mark.parametrize(
    ("text", "number"),
    [
        (b"1", extended.Number(1, 0)),
        (b"-0.5", extended.Number(-1, -1)),
        # Ties go to the even mantissa; a bit below the tie tips them.
        (b"%d" % ((1 << 64) + 1), extended.Number(1 << 63, 1)),
        (b"%d" % ((1 << 64) + 3), extended.Number((1 << 63) + 2, 1)),
        (b"%d.0001" % ((1 << 64) + 1), extended.Number((1 << 63) + 1, 1)),
        (b"-%d" % ((1 << 64) + 3), extended.Number(-(1 << 63) - 2, 1)),
        # The ends of the format: the largest number, the smallest, and half of that.
        (b"0x.ffffffffffffffffp16384", extended.Number((1 << 64) - 1, 16320)),
        (b"0x1p-16445", extended.Number(1, -16445)),
        (b"0x1.8p-16446", extended.Number(1, -16445)),
    ],
)
def test_numbers_are_rounded_as_the_format_rounds(text: bytes, number: extended.Number) -> None:
    parsed = extended.parse(text)
    assert parsed is not None
    mantissa, exponent = parsed
    while mantissa % 2 == 0 and exponent < number.exponent:
        mantissa, exponent = mantissa // 2, exponent + 1
    assert (mantissa, exponent) == number


@pytest.mark.parametrize(
    "text", [b"0x.ffffffffffffffff8p16384", b"0x1p-16446", b"0x1p-99999", b"-0x1p99999"]
)
def test_numbers_beyond_the_format_are_no_numbers(text: bytes) -> None:
    with pytest.raises(ValueError):
        extended.parse(text)


def test_the_longest_number_is_printed_in_full(tmp_path: Path) -> None:
    """Longer than what Python's int reads and prints by itself."""
    with fresh_replica(tmp_path) as replica:
        reply = replica.run(b"INCRBYFLOAT", b"a", b"1" + b"0" * 4931)
        assert isinstance(reply, bytes)
        assert len(reply) == 4932
        assert replica.run(b"INCRBYFLOAT", b"a", b"-" + reply) == b"0"
