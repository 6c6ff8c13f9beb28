"""A string as DUMP gives it and RESTORE takes it: Redis' own format, so that keys can move.

    type (1 byte, 0: a string) | string | version (u16) | CRC-64 of all before (u64)

Integers behind the string are little-endian. A string is its length and its bytes, or one of the
short forms that Redis chooses: an integer of 8, 16 or 32 bits, or bytes compressed by LZF. All are
read; LZF is not written, as Redis does not with `rdbcompression no`.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

_VERSION: Final = 10
"""Of Redis 7.0, which is written."""
_VERSION_MAX: Final = 12
"""Of Redis 8.0. A string has been the same since the first, so all of these are read."""
_STRING: Final = 0
_FOOTER = struct.Struct("<HQ")
_INTEGERS = {0xC0: struct.Struct("<b"), 0xC1: struct.Struct("<h"), 0xC2: struct.Struct("<i")}
_LZF: Final = 0xC3
_INTEGER_BYTES: Final = 11
"""The longest 32-bit integer as text."""


class BadPayload(Exception):
    """The version or the checksum is wrong: it was not made by DUMP, or has changed since."""


class BadFormat(Exception):
    """The checksum is right and the content is none that can be read, such as a list."""


def dump(value: bytes) -> bytes:
    """What RESTORE takes, here and in Redis."""
    body = bytes((_STRING,)) + (_integer(value) or _length(len(value)) + value)
    body += struct.pack("<H", _VERSION)
    return body + struct.pack("<Q", crc64(body))


def restore_untrusted(payload: bytes, limit: int) -> bytes:
    """The string in a client's bytes.

    Args:
      payload: as DUMP gave it.
      limit: bytes that a string may have.

    Raises:
      BadPayload: the checksum is wrong, or the version one that is not known.
      BadFormat: no string, or one that is longer than the limit.
    """
    if len(payload) < _FOOTER.size:
        raise BadPayload
    version, checksum = _FOOTER.unpack_from(payload, len(payload) - _FOOTER.size)
    if version > _VERSION_MAX:
        raise BadPayload(
            f"it has version {version}, and versions up to {_VERSION_MAX} are read here; upgrade "
            "this node, or take the payload from an older server"
        )
    # Redis takes 0 for a payload that was written without a checksum.
    if checksum and checksum != crc64(payload[:-8]):
        raise BadPayload
    body = payload[: -_FOOTER.size]
    if not body or body[0] != _STRING:
        raise BadFormat
    try:
        value, end = _read_string(body, 1, limit)
    except (IndexError, struct.error):
        raise BadFormat from None
    if end != len(body) or len(value) > limit:
        raise BadFormat
    return value


def _integer(value: bytes) -> bytes | None:
    """The short form of a string that is an integer of up to 32 bits, as Redis prints it."""
    if len(value) > _INTEGER_BYTES or not value.removeprefix(b"-").isdigit():
        return None
    number = int(value)
    if b"%d" % number == value:
        for mark, form in _INTEGERS.items():
            if -(1 << 8 * form.size - 1) <= number < 1 << 8 * form.size - 1:
                return bytes((mark,)) + form.pack(number)
    return None


def _length(length: int) -> bytes:
    if length < 1 << 6:
        return bytes((length,))
    if length < 1 << 14:
        return struct.pack(">H", 1 << 14 | length)
    return b"\x80" + struct.pack(">I", length)


def _read_length(body: bytes, at: int) -> tuple[int, int]:
    """A length and where it ends."""
    first = body[at]
    if first < 0x40:
        return first, at + 1
    if first < 0x80:
        return (first & 0x3F) << 8 | body[at + 1], at + 2
    if first == 0x80:
        return struct.unpack_from(">I", body, at + 1)[0], at + 5
    if first == 0x81:
        return struct.unpack_from(">Q", body, at + 1)[0], at + 9
    raise BadFormat


def _read_string(body: bytes, at: int, limit: int) -> tuple[bytes, int]:
    """A string of any form and where it ends."""
    form = _INTEGERS.get(body[at])
    if form is not None:
        (number,) = form.unpack_from(body, at + 1)
        return b"%d" % number, at + 1 + form.size
    if body[at] != _LZF:
        length, at = _read_length(body, at)
        return body[at : at + length], at + length
    packed, at = _read_length(body, at + 1)
    length, at = _read_length(body, at)
    if length > limit:
        raise BadFormat  # before anything is made of it
    return _decompress(body[at : at + packed], length), at + packed


def _decompress(packed: bytes, length: int) -> bytes:
    """LZF: runs of bytes as they are, and copies of what stands up to 8 KiB before."""
    out = bytearray()
    at = 0
    while at < len(packed) and len(out) <= length:
        control = packed[at]
        at += 1
        if control < 32:
            out += packed[at : at + control + 1]
            at += control + 1
            continue
        count = control >> 5
        if count == 7:
            count += packed[at]
            at += 1
        distance = ((control & 31) << 8 | packed[at]) + 1
        at += 1
        count += 2
        start = len(out) - distance
        if start < 0:
            raise BadFormat
        # A copy may reach into what it has just written: then it repeats.
        piece = bytes(out[start : start + count])
        out += (piece * (count // len(piece) + 1))[:count]
    if len(out) != length or at != len(packed):
        raise BadFormat
    return bytes(out)


# --- CRC-64 (Jones), bits reversed, as Redis has it ---


def _table(bits: int) -> NDArray[np.uint64]:
    """What becomes of the sum's lowest bits, so many, when zeros of that length follow."""
    sums = np.arange(1 << bits, dtype=np.uint64)
    one, polynomial = np.uint64(1), np.uint64(0x95AC9329AC4BC9B5)
    for _ in range(bits):
        sums = (sums >> one) ^ (sums & one) * polynomial
    return sums


_BYTES: list[int] = _table(8).tolist()
_PAIRS = _table(16)
_SHORT: Final = 4096
"""Bytes up to which one after the other is quicker."""


def crc64(data: bytes) -> int:
    """The checksum; 8 MiB take some 0.1 s.

    Long data are cut into pieces that are summed side by side, two bytes at a step. What a piece's
    sum becomes when the next piece follows is linear in its bits: 64 more lanes, each with one
    bit set and nothing but zeros behind it, say what becomes of each bit.
    """
    if len(data) <= _SHORT:
        crc = 0
        for byte in data:
            crc = _BYTES[(crc ^ byte) & 0xFF] ^ (crc >> 8)
        return crc
    pieces = 2 * int(len(data) ** 0.5)
    pairs = -(-len(data) // (2 * pieces))
    # Zeros in front change nothing, since the sum begins as 0.
    padded = np.zeros(pieces * pairs * 2, np.uint8)
    padded[-len(data) :] = np.frombuffer(data, np.uint8)
    columns = np.ascontiguousarray(padded.view("<u2").reshape(pieces, pairs).T)
    sums = np.zeros(pieces + 64, np.uint64)
    sums[pieces:] = np.uint64(1) << np.arange(64, dtype=np.uint64)
    of_data = sums[:pieces]
    low, sixteen = np.uint64(0xFFFF), np.uint64(16)
    for column in columns:
        of_data ^= column
        sums[:] = _PAIRS[sums & low] ^ (sums >> sixteen)
    moved: list[int] = sums[pieces:].tolist()
    total = 0
    for crc in of_data.tolist():
        for bit in range(64):
            if total >> bit & 1:
                crc ^= moved[bit]
        total = crc
    return total
