"""Commands on strings: GET, SET, MGET, MSET, INCR, INCRBY."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer, wrong_arity
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command
from kvstore.store import Keyspace

MAX_INTEGER = (1 << 63) - 1


def _get(keys: Keyspace, command: Command) -> Reply:
    return keys.get(command[1])


def _set(keys: Keyspace, command: Command) -> Reply:
    if len(command) == 3:
        keys.put(command[1], command[2])
        return OK
    options = {option.lower() for option in command[3:]}
    # Options that set an expiry are not known yet, and answer as misspelt ones do.
    if not options <= {b"nx", b"xx", b"get", b"keepttl"} or {b"nx", b"xx"} <= options:
        raise CommandError(SYNTAX_ERROR)
    old = keys.get(command[1]) if b"get" in options else None
    exists = keys.contains(command[1])
    allowed = not ((exists and b"nx" in options) or (not exists and b"xx" in options))
    if allowed:
        keys.put(command[1], command[2])
    if b"get" in options:
        return old
    return OK if allowed else None


def _mget(keys: Keyspace, command: Command) -> Reply:
    values: list[Reply] = []
    for key in command[1:]:
        try:
            values.append(keys.get(key))
        except CommandError:
            values.append(None)  # MGET alone calls a key of another kind missing
    return values


def _mset(keys: Keyspace, command: Command) -> Reply:
    if len(command) % 2 == 0:
        raise wrong_arity(_MSET)
    for position in range(1, len(command), 2):
        keys.put(command[position], command[position + 1])
    return OK


def _incr(keys: Keyspace, command: Command) -> Reply:
    return _add(keys, command[1], 1)


def _incrby(keys: Keyspace, command: Command) -> Reply:
    return _add(keys, command[1], parse_integer(command[2]))


def _add(keys: Keyspace, key: bytes, amount: int) -> int:
    held = keys.get(key)
    value = amount if held is None else parse_integer(held) + amount
    if not -MAX_INTEGER - 1 <= value <= MAX_INTEGER:
        raise CommandError("ERR increment or decrement would overflow")
    keys.put(key, b"%d" % value)
    return value


def _read(
    name: bytes, arity: int, handler: Callable[[Any, Command], Reply], summary: str,
    keys: tuple[int, int, int],
) -> Entry:
    return Entry(name, arity, Kind.READ, handler, summary, "1.0.0", "string",
                 ("readonly", "fast"), keys)


def _write(
    name: bytes, arity: int, handler: Callable[[Any, Command], Reply], summary: str, since: str,
    flags: tuple[str, ...], keys: tuple[int, int, int],
) -> Entry:
    return Entry(name, arity, Kind.WRITE, handler, summary, since, "string",
                 ("write", "denyoom", *flags), keys)


_MSET = _write(b"mset", -3, _mset, "Set multiple keys to multiple values", "1.0.1", (),
               (1, -1, 2))
COMMANDS = [
    _read(b"get", 2, _get, "Get the value of a key", (1, 1, 1)),
    _read(b"mget", -2, _mget, "Get the values of all the given keys", (1, -1, 1)),
    _write(b"set", -3, _set, "Set the string value of a key", "1.0.0", (), (1, 1, 1)),
    _MSET,
    _write(b"incr", 2, _incr, "Increment the integer value of a key by one", "1.0.0", ("fast",),
           (1, 1, 1)),
    # Beside INCR because redis-py's `incr` sends it.
    _write(b"incrby", 3, _incrby, "Increment the integer value of a key by the given amount",
           "1.0.0", ("fast",), (1, 1, 1)),
]
