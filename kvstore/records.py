"""How keys are stored in RocksDB: the one place that knows the bytes.

One column family holds everything; the first byte of a RocksDB key tells what it is:

    0x00        records of the store itself (`kvstore.store`)
    0x10 + d    a key of the database in slot d; SWAPDB exchanges two slots
    0x20 + d    expiry index of slot d: u64 expire_at, key; in order of time; no value

What a key of a database holds, integers big-endian, times in ms since the epoch:

    "s"  u64 version                 value      a string without expiry
    "S"  u64 version  u64 expire_at  value      a string with expiry

`version` is the instance of the log whose entry last changed the key. Other kinds of value will
have other letters, a capital one where the key has an expiry.
"""

from __future__ import annotations

import struct
from typing import Final

DATA: Final = 0x10
"""First byte of slot 0's keys; the sixteen slots follow one another."""
INDEX: Final = 0x20
"""First byte of slot 0's expiry index."""
PLAIN: Final = ord("s")
"""First byte of what a key without expiry holds."""
EXPIRING: Final = ord("S")
"""First byte of what a key with expiry holds."""
PLAIN_HEADER: Final = 9
"""Bytes before the value of a key without expiry."""
EXPIRING_HEADER: Final = 17
"""Bytes before the value of a key with expiry."""

U64: Final = struct.Struct(">Q")
MAX_TIME_MS: Final = (1 << 63) - 1
"""Redis' times are signed; none beyond this is stored."""


def stamp_of(version: int) -> bytes:
    """What stands before the value of a key without expiry."""
    return b"s" + U64.pack(version)


def version_of(stored: bytes) -> int:
    """The instance whose entry last changed the key."""
    version: int = U64.unpack_from(stored, 1)[0]
    return version


def expiry_of(stored: bytes) -> int | None:
    """When the key expires, in ms since the epoch; None: never."""
    if stored[0] != EXPIRING:
        return None
    expire_at: int = U64.unpack_from(stored, PLAIN_HEADER)[0]
    return expire_at


def index_key(full: bytes, expire_at: int) -> bytes:
    """Where the expiry of a key stands in the index; `full` begins with its slot's byte."""
    return bytes((full[0] + INDEX - DATA,)) + U64.pack(expire_at) + full[1:]


def split_index_key(key: bytes) -> tuple[int, bytes]:
    """When, and which key with its slot's byte: the reverse of `index_key`."""
    return U64.unpack_from(key, 1)[0], bytes((key[0] - INDEX + DATA,)) + key[9:]
