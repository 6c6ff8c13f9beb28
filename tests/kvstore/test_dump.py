"""DUMP and RESTORE: Redis' own format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.dump import BadFormat, BadPayload, crc64, dump, restore_untrusted
from kvstore.replies import OK, Error
from tests.kvstore.replicas import NOON, Replica

LIMIT = 1 << 20


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    made = Replica(tmp_path)
    yield made
    made.store.close()


def plain_crc64(data: bytes) -> int:
    """Bit by bit."""
    crc = 0
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x95AC9329AC4BC9B5 if crc & 1 else 0)
    return crc


def test_checksum_of_the_usual_text() -> None:
    assert crc64(b"123456789") == 0xE9C6D914C4B8D9CA


@pytest.mark.parametrize("size", [0, 1, 4096, 4097, 5000, 40_007, 65_536])
def test_checksum_of_long_data(size: int) -> None:
    data = bytes(n * n % 251 for n in range(size))
    assert crc64(data) == plain_crc64(data)


@given(st.one_of(st.binary(max_size=200), st.integers(-(1 << 33), 1 << 33).map(b"%d".__mod__)))
def test_what_is_dumped_is_restored(value: bytes) -> None:
    assert restore_untrusted(dump(value), LIMIT) == value


@pytest.mark.parametrize("size", [63, 64, 16_383, 16_384])
def test_every_form_of_a_length(size: int) -> None:
    assert restore_untrusted(dump(bytes(size)), LIMIT) == bytes(size)


@given(st.binary(max_size=60), st.booleans())
def test_a_clients_bytes_do_no_harm(body: bytes, string: bool) -> None:
    body = b"\x00" + body if string else body
    for payload in (body, body + bytes(10), body + b"\n\x00" + bytes(8)):
        with suppress(BadPayload, BadFormat):
            restore_untrusted(payload, LIMIT)


FROM_REDIS = [
    (b"\x00\xc0\x05", b"5"),
    (b"\x00\xc1\x18\xfc", b"-1000"),
    (b"\x00\xc2\x40\x42\x0f\x00", b"1000000"),
    (b"\x00\x05hello", b"hello"),
    (b"\x00\xc3\x09\x40\x64\x01\x61\x61\xe0\x57\x00\x01\x61\x61", b"a" * 100),
]
"""Forms that Redis 7.0 chooses, without the footer; the last is compressed."""


@pytest.mark.parametrize(("body", "value"), FROM_REDIS)
def test_forms_that_redis_writes(body: bytes, value: bytes) -> None:
    body += b"\x0a\x00"
    payload = body + crc64(body).to_bytes(8, "little")
    assert restore_untrusted(payload, LIMIT) == value
    if len(value) < 20:
        assert dump(value) == payload


@pytest.mark.parametrize(
    ("body", "limit"),
    [
        (b"\x01\x01\x01a", LIMIT),  # a list
        (b"\x00\x05hell", LIMIT),  # shorter than it says
        (b"\x00\x05hello!", LIMIT),  # something behind it
        (b"\x00\x05hello", 4),  # longer than allowed
        (b"\x00\xc3\x02\x05\x20\x00", LIMIT),  # a copy of what is not there
        (b"\x00\xc3\x02\x80\xff\xff\xff\xff\x00a", LIMIT),  # 4 GiB out of two bytes
        (b"\x00", LIMIT),
    ],
)
def test_what_cannot_be_read_is_refused(body: bytes, limit: int) -> None:
    body += b"\x0a\x00"
    with pytest.raises(BadFormat):
        restore_untrusted(body + crc64(body).to_bytes(8, "little"), limit)


def test_commands(replica: Replica) -> None:
    (_, payload) = replica.run([b"SET", b"a", b"hello", b"PX", b"5"], [b"DUMP", b"a"])
    assert isinstance(payload, bytes)
    assert replica.run(
        [b"RESTORE", b"a", b"0", payload],
        [b"RESTORE", b"b", b"0", payload[:-1] + b"!"],
        [b"RESTORE", b"b", b"-1", payload],
        [b"RESTORE", b"b", b"0", payload, b"FREQ", b"256"],
        [b"RESTORE", b"b", b"0", payload, b"KEEP"],
        [b"EXISTS", b"b"],
        [b"DUMP", b"b"],
    ) == [
        Error(b"BUSYKEY Target key name already exists."),
        Error(b"ERR DUMP payload version or checksum are wrong"),
        Error(b"ERR Invalid TTL value, must be >= 0"),
        Error(b"ERR Invalid FREQ value, must be >= 0 and <= 255"),
        Error(b"ERR syntax error"),
        0,
        None,
    ]
    assert replica.run(
        [b"RESTORE", b"a", b"0", payload, b"REPLACE"],
        [b"PTTL", b"a"],
        [b"RESTORE", b"b", b"70", payload, b"IDLETIME", b"3"],
        [b"PEXPIRETIME", b"b"],
        [b"RESTORE", b"c", b"%d" % (NOON + 9), payload, b"ABSTTL"],
        [b"PEXPIRETIME", b"c"],
        [b"RESTORE", b"a", b"1", payload, b"ABSTTL", b"REPLACE"],
        [b"EXISTS", b"a"],
    ) == [OK, -1, OK, NOON + 70, OK, NOON + 9, OK, 0]
