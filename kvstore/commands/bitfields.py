"""BITFIELD and BITFIELD_RO: integers of 1 to 64 bits at any bit of a string."""

from __future__ import annotations

from dataclasses import dataclass

from kvstore.commands.bits import check_bit_offset, parse_bit_offset
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer
from kvstore.keyspace import LARGE_BYTES, Keyspace
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command

_BAD_TYPE = (
    "ERR Invalid bitfield type. Use something like i16 u8. "
    "Note that u64 is not supported but i64 is."
)
_WORDS = {b"get": 3, b"set": 4, b"incrby": 4}
"""Words of each operation, its name among them."""
_OVERFLOWS = (b"wrap", b"sat", b"fail")


@dataclass(frozen=True, slots=True)
class Field:
    """An integer's place in a string, and how it is read."""

    offset: int
    """In bits, from the highest bit of the first byte."""
    bits: int
    signed: bool

    def _window(self) -> tuple[int, int, int]:
        """The first byte that the field touches, the one behind its last, bits behind it there."""
        first, end = self.offset >> 3, (self.offset + self.bits + 7) >> 3
        return first, end, 8 * end - self.offset - self.bits

    def read(self, value: bytes | bytearray) -> int:
        """The integer; behind the value's end all bits are zero."""
        first, end, behind = self._window()
        window = int.from_bytes(value[first:end].ljust(end - first, b"\0"))
        return self.wrapped(window >> behind)

    def write(self, value: bytearray, integer: int) -> None:
        """Puts the integer's lowest bits there; the value must be long enough."""
        first, end, behind = self._window()
        mask = (1 << self.bits) - 1
        window = int.from_bytes(value[first:end]) & ~(mask << behind)
        window |= (integer & mask) << behind
        value[first:end] = window.to_bytes(end - first)

    def wrapped(self, integer: int) -> int:
        """What the integer's lowest bits say."""
        integer &= (1 << self.bits) - 1
        negative = self.signed and integer >> (self.bits - 1)
        return integer - (1 << self.bits) if negative else integer

    def fitted(self, integer: int, overflow: bytes) -> int | None:
        """The integer made to fit, or None when that is refused."""
        high = (1 << (self.bits - self.signed)) - 1
        low = -high - 1 if self.signed else 0
        if low <= integer <= high:
            return integer
        if overflow == b"fail":
            return None
        if overflow == b"sat":
            return high if integer > high else low
        return self.wrapped(integer)


@dataclass(frozen=True, slots=True)
class Operation:
    """GET, SET or INCRBY on one field."""

    name: bytes
    field: Field
    amount: int
    overflow: bytes

    def run(self, value: bytearray) -> int | None:
        """Changes the value, and returns what BITFIELD replies for it."""
        old = self.field.read(value)
        # SET of a negative number into an unsigned field means its 64 bits.
        amount = self.amount if self.field.signed else self.amount & ((1 << 64) - 1)
        wanted = amount if self.name == b"set" else old + self.amount
        new = self.field.fitted(wanted, self.overflow)
        if new is None:
            return None
        self.field.write(value, new)
        return old if self.name == b"set" else new


def _parse_type(text: bytes) -> tuple[bool, int]:
    """Whether a type such as `i16` is signed, and its bits."""
    try:
        bits = parse_integer(text[1:])
    except CommandError:
        raise CommandError(_BAD_TYPE) from None
    signed = text[:1] == b"i"
    if text[:1] not in (b"i", b"u") or not 1 <= bits <= 63 + signed:
        raise CommandError(_BAD_TYPE)
    return signed, bits


def _parse_field(kind: bytes, place: bytes) -> Field:
    signed, bits = _parse_type(kind)
    if place[:1] == b"#":
        offset = check_bit_offset(parse_bit_offset(place[1:]) * bits)
    else:
        offset = parse_bit_offset(place)
    return Field(offset, bits, signed)


def _parse_operations(words: Command) -> list[Operation]:
    operations = []
    overflow = _OVERFLOWS[0]
    position = 0
    while position < len(words):
        name = words[position].lower()
        if name == b"overflow" and position + 1 < len(words):
            overflow = words[position + 1].lower()
            if overflow not in _OVERFLOWS:
                raise CommandError("ERR Invalid OVERFLOW type specified")
            position += 2
            continue
        count = _WORDS.get(name)
        if count is None or position + count > len(words):
            raise CommandError(SYNTAX_ERROR)
        field = _parse_field(words[position + 1], words[position + 2])
        amount = 0
        if name != b"get":
            check_bit_offset(field.offset + field.bits - 1)
            amount = parse_integer(words[position + 3])
        operations.append(Operation(name, field, amount, overflow))
        position += count
    return operations


def _bitfield(keys: Keyspace, command: Command) -> Reply:
    key = command[1]
    operations = _parse_operations(command[2:])
    writes = [operation.field for operation in operations if operation.name != b"get"]
    held = keys.get(key) or b""
    if not writes:
        return [operation.field.read(held) for operation in operations]
    # Room for all of them first, as in Redis: even where every operation overflows and fails.
    needed = (max(field.offset + field.bits for field in writes) + 7) >> 3
    if needed > LARGE_BYTES:
        keys.work(needed)
    value = bytearray(held.ljust(needed, b"\0"))
    replies: list[Reply] = [
        operation.field.read(value) if operation.name == b"get" else operation.run(value)
        for operation in operations
    ]
    if value != held:
        keys.replace(key, bytes(value))
    return replies


def _bitfield_ro(keys: Keyspace, command: Command) -> Reply:
    operations = _parse_operations(command[2:])
    if any(operation.name != b"get" for operation in operations):
        raise CommandError("ERR BITFIELD_RO only supports the GET subcommand")
    held = keys.get(command[1]) or b""
    return [operation.field.read(held) for operation in operations]


COMMANDS: list[Entry] = [
    Entry(b"bitfield", -2, Kind.WRITE, _bitfield, "Perform arbitrary bitfield integer operations "
          "on strings", "3.2.0", "bitmap", ("write", "denyoom"), (1, 1, 1)),
    Entry(b"bitfield_ro", -2, Kind.READ, _bitfield_ro, "Perform arbitrary bitfield integer "
          "operations on strings. Read-only variant of BITFIELD", "6.0.0", "bitmap",
          ("readonly", "fast"), (1, 1, 1)),
]
