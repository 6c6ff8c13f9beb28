"""Commands on whole strings and parts of them: SET and GET in all their forms, APPEND, GETRANGE."""

from __future__ import annotations

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer, wrong_arity
from kvstore.commands.values import check_length, overwritten
from kvstore.keyspace import LARGE_BYTES, Keyspace
from kvstore.records import MAX_TIME_MS
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command

MGET_BYTES = 256 << 20
"""Of one reply, which is in memory before its client takes any of it: few keys, each named a
thousand times, would be more than a node has."""
_EXPIRIES = {
    b"ex": (1000, True), b"px": (1, True), b"exat": (1000, False), b"pxat": (1, False)
}  # fmt: skip
"""Milliseconds of one unit, and whether it counts from now."""
_WITH_ARGUMENT = frozenset((b"ifeq", *_EXPIRIES))

# Options of one group exclude each other; the same one may be repeated, and its last counts.
_LIFETIME = dict.fromkeys(_EXPIRIES, "lifetime")
_SET_OPTIONS = {
    b"nx": "condition", b"xx": "condition", b"ifeq": "condition", b"get": "get",
    b"keepttl": "lifetime", **_LIFETIME,
}  # fmt: skip
_GETEX_OPTIONS = {b"persist": "lifetime", **_LIFETIME}


def _parse_options(words: Command, groups: dict[bytes, str]) -> dict[bytes, bytes]:
    """The options given, in lower case, each with its argument.

    Args:
      words: what stands behind the fixed arguments.
      groups: the options that the command has, each with its group.

    Raises:
      CommandError: an unknown option, two that exclude each other, or an argument left out.
    """
    options: dict[bytes, bytes] = {}
    chosen: dict[str, bytes] = {}
    remaining = iter(words)
    for word in remaining:
        name = word.lower()
        group = groups.get(name)
        if group is None or chosen.setdefault(group, name) != name:
            raise CommandError(SYNTAX_ERROR)
        argument = next(remaining, None) if name in _WITH_ARGUMENT else b""
        if argument is None:
            raise CommandError(SYNTAX_ERROR)
        options[name] = argument
    return options


def _expire_at(keys: Keyspace, option: bytes, text: bytes, command: bytes) -> int:
    """When a key is due that is given one of the options of `_EXPIRIES`."""
    unit_ms, relative = _EXPIRIES[option]
    amount = parse_integer(text)
    due = amount * unit_ms + (keys.now if relative else 0)
    if amount <= 0 or due > MAX_TIME_MS:
        raise CommandError(b"ERR invalid expire time in '%b' command" % command)
    return due


def _chosen_expiry(keys: Keyspace, options: dict[bytes, bytes], command: bytes) -> int | None:
    """When the key is due by the one expiry among the options, if there is one."""
    for option in _EXPIRIES:
        if option in options:
            return _expire_at(keys, option, options[option], command)
    return None


def _get(keys: Keyspace, command: Command) -> Reply:
    return keys.get(command[1])


def _set(keys: Keyspace, command: Command) -> Reply:
    key, value = command[1], command[2]
    if len(command) == 3:
        keys.put(key, value)
        return OK
    options = _parse_options(command[3:], _SET_OPTIONS)
    due = _chosen_expiry(keys, options, b"set")
    returns, compares = b"get" in options, b"ifeq" in options
    # Both refuse another kind of value, and nothing else does.
    held = None
    if returns:
        held = keys.get_for_reply(key)
    elif compares:
        held = keys.get(key)
    exists = keys.contains(key)
    allowed = not (
        (exists and b"nx" in options)
        or (not exists and b"xx" in options)
        or (compares and held != options[b"ifeq"])
    )
    if allowed and b"keepttl" in options:
        keys.replace(key, value)
    elif allowed:
        keys.put(key, value, due)
    if returns:
        return held
    return OK if allowed else None


def _setnx(keys: Keyspace, command: Command) -> Reply:
    if keys.contains(command[1]):
        return 0
    keys.put(command[1], command[2])
    return 1


def _setex(keys: Keyspace, command: Command) -> Reply:
    keys.put(command[1], command[3], _expire_at(keys, b"ex", command[2], b"setex"))
    return OK


def _psetex(keys: Keyspace, command: Command) -> Reply:
    keys.put(command[1], command[3], _expire_at(keys, b"px", command[2], b"psetex"))
    return OK


def _getset(keys: Keyspace, command: Command) -> Reply:
    held = keys.get_for_reply(command[1])
    keys.put(command[1], command[2])
    return held


def _getdel(keys: Keyspace, command: Command) -> Reply:
    held = keys.get_for_reply(command[1])
    if held is not None:
        keys.remove(command[1])
    return held


def _getex(keys: Keyspace, command: Command) -> Reply:
    key = command[1]
    options = _parse_options(command[2:], _GETEX_OPTIONS)
    held = keys.get_for_reply(key)
    if held is None:
        return None
    due = _chosen_expiry(keys, options, b"getex")
    if due is not None:
        keys.set_expiry(key, due)
    elif b"persist" in options and keys.expire_at(key) is not None:
        keys.set_expiry(key, None)
    return held


def _append(keys: Keyspace, command: Command) -> Reply:
    key, piece = command[1], command[2]
    held = keys.get(key)
    value = piece
    if held is not None:
        check_length(len(held) + len(piece))
        value = held + piece
    keys.replace(key, value)
    return len(value)


def _strlen(keys: Keyspace, command: Command) -> Reply:
    return len(keys.get(command[1]) or b"")


def _getrange(keys: Keyspace, command: Command) -> Reply:
    start, end = parse_integer(command[2]), parse_integer(command[3])
    value = keys.get(command[1]) or b""
    if start < 0 and end < 0 and start > end:
        return b""  # both may lie before the first byte, which is what a short string would give
    if start < 0:
        start = max(0, start + len(value))
    if end < 0:
        end = max(0, end + len(value))
    return value[start : end + 1]


def _setrange(keys: Keyspace, command: Command) -> Reply:
    key, piece = command[1], command[3]
    offset = parse_integer(command[2])
    if offset < 0:
        raise CommandError("ERR offset is out of range")
    held = keys.get(key)
    value = held or b""
    if not piece:
        return len(value)
    check_length(offset + len(piece))
    if offset > LARGE_BYTES:
        keys.work(offset)
    value = overwritten(value, offset, piece)
    keys.replace(key, value)
    return len(value)


def _mget(keys: Keyspace, command: Command) -> Reply:
    values: list[Reply] = []
    size = 0
    for key in command[1:]:
        try:
            value = keys.get(key)
        except CommandError:
            value = None  # MGET alone calls a key of another kind missing
        if value is not None:
            size += len(value)
            if size > MGET_BYTES:
                raise CommandError(f"ERR values of more than {MGET_BYTES} bytes; ask for fewer")
        values.append(value)
    return values


def _mset(keys: Keyspace, command: Command) -> Reply:
    if len(command) % 2 == 0:
        raise wrong_arity(_MSET)
    keys.check_room(command[2::2])
    for position in range(1, len(command), 2):
        keys.put(command[position], command[position + 1])
    return OK


def _msetnx(keys: Keyspace, command: Command) -> Reply:
    if len(command) % 2 == 0:
        raise wrong_arity(_MSETNX)
    if any(map(keys.contains, command[1::2])):
        return 0
    keys.check_room(command[2::2])
    for position in range(1, len(command), 2):
        keys.put(command[position], command[position + 1])
    return 1


_READ = ("readonly",)
_READ_FAST = ("readonly", "fast")
_WRITE = ("write", "denyoom")
_WRITE_FAST = ("write", "denyoom", "fast")
_ONE_KEY = (1, 1, 1)

_MSET = Entry(b"mset", -3, Kind.WRITE, _mset, "Set multiple keys to multiple values", "1.0.1",
              "string", _WRITE, (1, -1, 2))
_MSETNX = Entry(b"msetnx", -3, Kind.WRITE, _msetnx, "Set multiple keys to multiple values, only "
                "if none of the keys exist", "1.0.1", "string", _WRITE, (1, -1, 2))
COMMANDS: list[Entry] = [
    Entry(b"get", 2, Kind.READ, _get, "Get the value of a key", "1.0.0", "string", _READ_FAST,
          _ONE_KEY),
    Entry(b"mget", -2, Kind.READ, _mget, "Get the values of all the given keys", "1.0.0",
          "string", _READ_FAST, (1, -1, 1)),
    Entry(b"strlen", 2, Kind.READ, _strlen, "Get the length of the value stored in a key",
          "2.2.0", "string", _READ_FAST, _ONE_KEY),
    Entry(b"getrange", 4, Kind.READ, _getrange, "Get a substring of the string stored at a key",
          "2.4.0", "string", _READ, _ONE_KEY),
    Entry(b"substr", 4, Kind.READ, _getrange, "Get a substring of the string stored at a key",
          "1.0.0", "string", _READ, _ONE_KEY),
    Entry(b"set", -3, Kind.WRITE, _set, "Set the string value of a key", "1.0.0", "string",
          _WRITE, _ONE_KEY),
    Entry(b"setnx", 3, Kind.WRITE, _setnx, "Set the value of a key, only if the key does not "
          "exist", "1.0.0", "string", _WRITE_FAST, _ONE_KEY),
    Entry(b"setex", 4, Kind.WRITE, _setex, "Set the value and expiration of a key", "2.0.0",
          "string", _WRITE, _ONE_KEY),
    Entry(b"psetex", 4, Kind.WRITE, _psetex, "Set the value and expiration in milliseconds of a "
          "key", "2.6.0", "string", _WRITE, _ONE_KEY),
    Entry(b"getset", 3, Kind.WRITE, _getset, "Set the string value of a key and return its old "
          "value", "1.0.0", "string", _WRITE_FAST, _ONE_KEY),
    Entry(b"getdel", 2, Kind.WRITE, _getdel, "Get the value of a key and delete the key", "6.2.0",
          "string", ("write", "fast"), _ONE_KEY),
    Entry(b"getex", -2, Kind.WRITE, _getex, "Get the value of a key and optionally set its "
          "expiration", "6.2.0", "string", ("write", "fast"), _ONE_KEY),
    Entry(b"append", 3, Kind.WRITE, _append, "Append a value to a key", "2.0.0", "string",
          _WRITE_FAST, _ONE_KEY),
    Entry(b"setrange", 4, Kind.WRITE, _setrange, "Overwrite part of a string at key starting at "
          "the specified offset", "2.2.0", "string", _WRITE, _ONE_KEY),
    _MSET,
    _MSETNX,
]
