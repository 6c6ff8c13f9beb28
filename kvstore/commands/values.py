"""What commands that change part of a string share: how long one may be, and writing into one."""

from __future__ import annotations

from kvstore.keyspace import MAX_VALUE_BYTES
from kvstore.replies import CommandError

_TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"


def check_length(length: int) -> None:
    """Refuses to build a string of so many bytes when that is too long."""
    if length > MAX_VALUE_BYTES:
        raise CommandError(_TOO_LONG)


def overwritten(value: bytes, offset: int, piece: bytes) -> bytes:
    """A value with a piece written over it at a byte offset; zeros fill what lies between."""
    if offset >= len(value):
        return b"".join((value, bytes(offset - len(value)), piece))
    whole = memoryview(value)
    return b"".join((whole[:offset], piece, whole[offset + len(piece) :]))
