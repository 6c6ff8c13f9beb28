"""Thrift's binary protocol, as far as bmv2's control plane speaks it: calls out, replies in.

    call     i32 0x80010000 | 1, name, i32 sequence, struct of arguments
    reply    i32 0x80010000 | 2, name, i32 sequence, struct: field 0 the result, field 1 a refusal
    failed   i32 0x80010000 | 3, name, i32 sequence, struct: field 1 a text
    struct   fields (i8 type, i16 number, value), then i8 0
    text     i32 length, bytes

A service's name stands before that of the call, with a colon between, and is missing in the reply.

Own code, no library: bmv2's stubs are written where it is built and for the Python there, the only
ones in a registry are of 2021, and this is all that they would do. It also sends many calls before
it reads the first answer, which stubs do not.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum
from typing import NamedTuple

from p4xos.errors import BadPacket

REPLY_BYTES_MAX = 1 << 20
"""More than any answer here: all cells of the largest register are 128 KiB."""
_VERSION, _VERSION_MASK = 0x8001_0000, 0xFFFF_0000
_CALL, _REPLY, _FAILED = 1, 2, 3
_DEPTH_MAX = 8

Value = bool | int | bytes | list["Value"] | dict[int, "Value"]
"""A list's elements, or a struct's fields by number."""


class Kind(IntEnum):
    """Types of fields."""

    STOP, BOOL, BYTE, DOUBLE, I16, I32, I64 = 0, 2, 3, 4, 6, 8, 10
    STRING, STRUCT, MAP, SET, LIST = 11, 12, 13, 14, 15


_NUMBERS = {
    Kind.BYTE: struct.Struct(">b"), Kind.I16: struct.Struct(">h"),
    Kind.I32: struct.Struct(">i"), Kind.I64: struct.Struct(">q"),
}  # fmt: skip


class Reply(NamedTuple):
    """What came back."""

    name: str
    sequence: int
    failed: bool
    """The service knows no such call, or could not read it."""
    fields: dict[int, Value]


# Out ---------------------------------------------------------------------------------------------


def i32(number: int, value: int) -> bytes:
    """A field of that number."""
    return struct.pack(">bhi", Kind.I32, number, value)


def i64(number: int, value: int) -> bytes:
    """A field of that number."""
    return struct.pack(">bhq", Kind.I64, number, value)


def flag(number: int, value: bool) -> bytes:
    """A field of that number."""
    return struct.pack(">bhb", Kind.BOOL, number, value)


def text(number: int, value: str | bytes) -> bytes:
    """A field of that number; Thrift has one type for texts and bytes."""
    return struct.pack(">bh", Kind.STRING, number) + _text(value)


def texts(number: int, values: Sequence[bytes]) -> bytes:
    """A field that is a list of them."""
    head = struct.pack(">bhbi", Kind.LIST, number, Kind.STRING, len(values))
    return head + b"".join(map(_text, values))


def record(number: int, *fields: bytes) -> bytes:
    """A field that is a struct."""
    return struct.pack(">bh", Kind.STRUCT, number) + body(*fields)


def records(number: int, bodies: Sequence[bytes]) -> bytes:
    """A field that is a list of structs, each made by `body`."""
    return struct.pack(">bhbi", Kind.LIST, number, Kind.STRUCT, len(bodies)) + b"".join(bodies)


def body(*fields: bytes) -> bytes:
    """A struct without its number."""
    return b"".join(fields) + b"\0"


def call(service: str, name: str, sequence: int, *fields: bytes) -> bytes:
    """A whole message."""
    head = struct.pack(">I", _VERSION | _CALL) + _text(f"{service}:{name}")
    return head + struct.pack(">i", sequence) + body(*fields)


def _text(value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return struct.pack(">i", len(data)) + data


# In ----------------------------------------------------------------------------------------------


def decode_reply_untrusted(data: bytes) -> tuple[Reply, int] | None:
    """The first reply in what has come so far, and how long it is; None where the rest is missing.

    Raises:
      BadPacket: no such thing, or longer than REPLY_BYTES_MAX.
    """
    reader = _Reader(data)
    try:
        reply = reader.reply()
    except _Short:
        if len(data) > REPLY_BYTES_MAX:
            raise BadPacket(f"a reply of more than {REPLY_BYTES_MAX} bytes") from None
        return None
    return reply, reader.at


class _Short(Exception):
    """There are not yet enough bytes."""


class _Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def reply(self) -> Reply:
        version = self.number(Kind.I32) & 0xFFFF_FFFF
        type = version & 0xFF
        if version & _VERSION_MASK != _VERSION or type not in (_REPLY, _FAILED):
            raise BadPacket(f"{version:#010x} begins no reply of Thrift's binary protocol")
        name = self.bytes().decode(errors="replace")
        sequence = self.number(Kind.I32)
        return Reply(name, sequence, type == _FAILED, self.struct(0))

    def take(self, size: int) -> bytes:
        if size < 0 or size > REPLY_BYTES_MAX:
            raise BadPacket(f"{size} is no size of anything in a reply")
        if self.at + size > len(self.data):
            raise _Short
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, kind: Kind) -> int:
        form = _NUMBERS[kind]
        value: int = form.unpack(self.take(form.size))[0]
        return value

    def bytes(self) -> bytes:
        return self.take(self.number(Kind.I32))

    def struct(self, depth: int) -> dict[int, Value]:
        fields: dict[int, Value] = {}
        while (kind := self.kind()) != Kind.STOP:
            number = self.number(Kind.I16)
            fields[number] = self.value(kind, depth)
        return fields

    def kind(self) -> Kind:
        found = self.number(Kind.BYTE)
        if found not in Kind._value2member_map_:
            raise BadPacket(f"{found} is no type of a field")
        return Kind(found)

    def value(self, kind: Kind, depth: int) -> Value:
        if depth > _DEPTH_MAX:
            raise BadPacket(f"more than {_DEPTH_MAX} structs or lists in one another")
        if kind in _NUMBERS:
            return self.number(kind)
        if kind is Kind.BOOL:
            return self.take(1) != b"\0"
        if kind is Kind.STRING:
            return self.bytes()
        if kind is Kind.STRUCT:
            return self.struct(depth + 1)
        if kind in (Kind.LIST, Kind.SET):
            of, count = self.kind(), self.number(Kind.I32)
            if not 0 <= count <= REPLY_BYTES_MAX or of is Kind.STOP:
                raise BadPacket(f"a list of {count} values of type {int(of)}")
            return [self.value(of, depth + 1) for _ in range(count)]
        raise BadPacket(f"a {kind.name.lower()}: no call here answers one")
