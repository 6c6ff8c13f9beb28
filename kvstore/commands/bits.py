"""Commands on strings as rows of bits: SETBIT, GETBIT, BITCOUNT, BITPOS, BITOP.

Bit 0 is the highest of the first byte. Long values are worked on by numpy or by what compares
whole blocks in C; no loop here runs once for each byte.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer
from kvstore.commands.values import overwritten
from kvstore.keyspace import LARGE_BYTES, MAX_VALUE_BYTES, Keyspace
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command

_BAD_OFFSET = "ERR bit offset is not an integer or out of range"
_BAD_BIT = "ERR bit is not an integer or out of range"
_SEARCH_BYTES = 65536
"""BITPOS skips blocks of this size by one comparison each."""
_BLANK = {0: b"\xff" * _SEARCH_BYTES, 1: bytes(_SEARCH_BYTES)}
"""A block without the bit looked for."""


def parse_bit_offset(text: bytes) -> int:
    """A bit's place in a string that may be as long as any."""
    try:
        offset = parse_integer(text)
    except CommandError:
        raise CommandError(_BAD_OFFSET) from None
    return check_bit_offset(offset)


def check_bit_offset(offset: int) -> int:
    """The offset itself, unless no string has such a bit."""
    if not 0 <= offset < 8 * MAX_VALUE_BYTES:
        raise CommandError(_BAD_OFFSET)
    return offset


def _bit_at(value: bytes, offset: int) -> int:
    byte = offset >> 3
    return value[byte] >> (7 - (offset & 7)) & 1 if byte < len(value) else 0


def _getbit(keys: Keyspace, command: Command) -> Reply:
    offset = parse_bit_offset(command[2])
    return _bit_at(keys.get(command[1]) or b"", offset)


def _setbit(keys: Keyspace, command: Command) -> Reply:
    offset = parse_bit_offset(command[2])
    if command[3] not in (b"0", b"1"):
        raise CommandError(_BAD_BIT)
    value = keys.get(command[1]) or b""
    old, new = _bit_at(value, offset), int(command[3])
    byte = offset >> 3
    if byte > LARGE_BYTES:
        keys.work(byte)
    if byte >= len(value) or old != new:
        flipped = (value[byte] if byte < len(value) else 0) ^ (old ^ new) << (7 - (offset & 7))
        keys.replace(command[1], overwritten(value, byte, bytes((flipped,))))
    return old


def _counts_bits(unit: bytes) -> bool:
    """Whether a range is given in bits, as its last word says."""
    if unit.lower() not in (b"bit", b"byte"):
        raise CommandError(SYNTAX_ERROR)
    return unit.lower() == b"bit"


def _within(start: int, end: int, length: int) -> tuple[int, int]:
    """A range as Redis takes it, negative ends counted from behind, cut to a length.

    The end belongs to it; it is empty when it begins behind its end.
    """
    if start < 0:
        start = max(0, start + length)
    if end < 0:
        end = max(0, end + length)
    return start, min(end, length - 1)


def _bitcount(keys: Keyspace, command: Command) -> Reply:
    value = keys.get(command[1])
    if value is None:
        return 0  # before the range is looked at, as in Redis
    if len(command) == 2:
        return count_ones(value)
    if not 4 <= len(command) <= 5:
        raise CommandError(SYNTAX_ERROR)
    start, end = parse_integer(command[2]), parse_integer(command[3])
    if start < 0 and end < 0 and start > end:
        return 0
    in_bits = len(command) == 5 and _counts_bits(command[4])
    start, end = _within(start, end, len(value) * 8 if in_bits else len(value))
    if start > end:
        return 0
    if not in_bits:
        return count_ones(memoryview(value)[start : end + 1])
    first, last = start >> 3, end >> 3
    before = value[first] & ~(0xFF >> (start & 7))
    behind = value[last] & (0x7F >> (end & 7))
    ones = count_ones(memoryview(value)[first : last + 1])
    return ones - before.bit_count() - behind.bit_count()


def count_ones(value: bytes | memoryview) -> int:
    """How many bits are 1."""
    words = len(value) & ~7
    ones = int.from_bytes(value[words:]).bit_count()
    if words:
        ones += int(np.bitwise_count(np.frombuffer(value[:words], np.uint64)).sum(dtype=np.int64))
    return ones


def _bitpos(keys: Keyspace, command: Command) -> Reply:
    bit = parse_integer(command[2])
    if bit not in (0, 1):
        raise CommandError("ERR The bit argument must be 1 or 0.")
    value = keys.get(command[1])
    if value is None:
        return -1 if bit else 0  # before the range is looked at, as in Redis
    if len(command) > 6:
        raise CommandError(SYNTAX_ERROR)
    start = parse_integer(command[3]) if len(command) > 3 else 0
    in_bits = len(command) == 6 and _counts_bits(command[5])
    length = len(value) * 8 if in_bits else len(value)
    end = parse_integer(command[4]) if len(command) > 4 else length - 1
    start, end = _within(start, end, length)
    if start > end:
        return -1
    found = _find(value, bit, start, end) if in_bits else _find(value, bit, 8 * start, 8 * end + 7)
    if found < 0 and bit == 0 and len(command) < 5:
        return 8 * len(value)  # without an end, zeros follow the string
    return found


def _find(value: bytes, bit: int, start: int, end: int) -> int:
    """The first bit of this kind from `start` to `end`, both in bits, or -1."""
    first = start >> 3
    piece = bytearray(memoryview(value)[first : (end >> 3) + 1])
    outside_before, outside_behind = ~(0xFF >> (start & 7)) & 0xFF, 0x7F >> (end & 7)
    if bit:
        piece[0] &= ~outside_before
        piece[-1] &= ~outside_behind
    else:
        piece[0] |= outside_before
        piece[-1] |= outside_behind
    found = _find_first(piece, bit)
    return found if found < 0 else 8 * first + found


def _find_first(value: bytearray, bit: int) -> int:
    blank = _BLANK[bit]
    position = 0
    while value.startswith(blank, position):
        position += _SEARCH_BYTES
    rest = value[position : position + _SEARCH_BYTES].lstrip(blank[:1])
    if not rest:
        return -1
    # What lstrip took, and in the byte that stopped it the zeros before its first other bit.
    position = min(position + _SEARCH_BYTES, len(value)) - len(rest)
    differs = rest[0] ^ blank[0]
    return 8 * position + 8 - differs.bit_length()


_Operation = Callable[..., NDArray[np.uint8]]
_OPERATIONS: dict[bytes, _Operation] = {
    b"and": np.bitwise_and, b"or": np.bitwise_or, b"xor": np.bitwise_xor,
}  # fmt: skip


def _bitop(keys: Keyspace, command: Command) -> Reply:
    name, target = command[1].lower(), command[2]
    operation = _OPERATIONS.get(name)
    if operation is None and name != b"not":
        raise CommandError(SYNTAX_ERROR)
    if operation is None and len(command) != 4:
        raise CommandError("ERR BITOP NOT must be called with a single source key.")
    sources = map(keys.get_source, command[3:])  # one at a time: there may be very many
    if operation is None:
        value = (~np.frombuffer(next(sources), np.uint8)).tobytes()
    else:
        value = combined(operation, sources)
    if value:
        keys.put(target, value)
    else:
        keys.remove(target)
    return len(value)


def combined(operation: _Operation, sources: Iterator[bytes]) -> bytes:
    """All sources joined by an operation, short ones filled with zeros to the longest."""
    result = np.frombuffer(next(sources), np.uint8).copy()
    for source in sources:
        if len(source) > len(result):
            result = np.concatenate((result, np.zeros(len(source) - len(result), np.uint8)))
        head = result[: len(source)]
        operation(head, np.frombuffer(source, np.uint8), out=head)
        if operation is np.bitwise_and:
            result[len(source) :] = 0
    return result.tobytes()


_ONE_KEY = (1, 1, 1)
COMMANDS: list[Entry] = [
    Entry(b"setbit", 4, Kind.WRITE, _setbit, "Sets or clears the bit at offset in the string "
          "value stored at key", "2.2.0", "bitmap", ("write", "denyoom"), _ONE_KEY),
    Entry(b"getbit", 3, Kind.READ, _getbit, "Returns the bit value at offset in the string value "
          "stored at key", "2.2.0", "bitmap", ("readonly", "fast"), _ONE_KEY),
    Entry(b"bitcount", -2, Kind.READ, _bitcount, "Count set bits in a string", "2.6.0", "bitmap",
          ("readonly",), _ONE_KEY),
    Entry(b"bitpos", -3, Kind.READ, _bitpos, "Find first bit set or clear in a string", "2.8.7",
          "bitmap", ("readonly",), _ONE_KEY),
    Entry(b"bitop", -4, Kind.WRITE, _bitop, "Perform bitwise operations between strings",
          "2.6.0", "bitmap", ("write", "denyoom"), (2, -1, 1)),
]
