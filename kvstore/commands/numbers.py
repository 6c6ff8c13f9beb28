"""Commands on strings that are numbers: INCR, DECR, INCRBY, DECRBY, INCRBYFLOAT."""

from __future__ import annotations

from kvstore.commands import extended
from kvstore.commands.table import Entry, Kind, parse_integer
from kvstore.keyspace import Keyspace
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command

_MAX_INTEGER = (1 << 63) - 1
_MIN_INTEGER = -(1 << 63)


def _add(keys: Keyspace, key: bytes, amount: int) -> int:
    held = keys.get(key)
    value = amount if held is None else parse_integer(held) + amount
    if not _MIN_INTEGER <= value <= _MAX_INTEGER:
        raise CommandError("ERR increment or decrement would overflow")
    keys.replace(key, b"%d" % value)
    return value


def _incr(keys: Keyspace, command: Command) -> Reply:
    return _add(keys, command[1], 1)


def _decr(keys: Keyspace, command: Command) -> Reply:
    return _add(keys, command[1], -1)


def _incrby(keys: Keyspace, command: Command) -> Reply:
    return _add(keys, command[1], parse_integer(command[2]))


def _decrby(keys: Keyspace, command: Command) -> Reply:
    amount = parse_integer(command[2])
    if amount == _MIN_INTEGER:
        raise CommandError("ERR decrement would overflow")
    return _add(keys, command[1], -amount)


def _incrbyfloat(keys: Keyspace, command: Command) -> Reply:
    held = keys.get(command[1])
    try:
        value = extended.parse(b"0" if held is None else held)
        amount = extended.parse(command[2])
    except ValueError:
        raise CommandError("ERR value is not a valid float") from None
    try:
        text = extended.format_plain(extended.add(value, amount))
    except OverflowError:
        raise CommandError("ERR increment would produce NaN or Infinity") from None
    keys.replace(command[1], text)
    return text


_FLAGS = ("write", "denyoom", "fast")
_ONE_KEY = (1, 1, 1)
COMMANDS: list[Entry] = [
    Entry(b"incr", 2, Kind.WRITE, _incr, "Increment the integer value of a key by one", "1.0.0",
          "string", _FLAGS, _ONE_KEY),
    Entry(b"decr", 2, Kind.WRITE, _decr, "Decrement the integer value of a key by one", "1.0.0",
          "string", _FLAGS, _ONE_KEY),
    Entry(b"incrby", 3, Kind.WRITE, _incrby, "Increment the integer value of a key by the given "
          "amount", "1.0.0", "string", _FLAGS, _ONE_KEY),
    Entry(b"decrby", 3, Kind.WRITE, _decrby, "Decrement the integer value of a key by the given "
          "number", "1.0.0", "string", _FLAGS, _ONE_KEY),
    Entry(b"incrbyfloat", 3, Kind.WRITE, _incrbyfloat, "Increment the float value of a key by "
          "the given amount", "2.6.0", "string", _FLAGS, _ONE_KEY),
]
