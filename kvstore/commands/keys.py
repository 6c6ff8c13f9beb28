"""Commands on keys of any kind: DEL UNLINK EXISTS TOUCH TYPE RENAME RENAMENX COPY MOVE OBJECT."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kvstore.commands.databases import parse_database
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, container, parse_integer
from kvstore.keyspace import Keyspace
from kvstore.replies import OK, CommandError, Reply, Status
from kvstore.resp import Command

STRING_TYPE = b"string"
"""What TYPE says of every key: the store holds nothing else."""
_NO_SUCH_KEY = "ERR no such key"
_SAME_OBJECT = "ERR source and destination objects are the same"
_EMBEDDED_BYTES = 44
"""Redis keeps strings up to this length in one allocation with their header, and says so."""
_SHARED_INTEGERS = 10_000
"""Redis keeps one object for each of the numbers below, which is never freed, ..."""
_SHARED_COUNT = (1 << 31) - 1
"""... and shows this as its reference count."""
_NO_FREQUENCY = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that "
    "when switching between policies at runtime LRU and LFU data will take some time to adjust."
)


def _del(keys: Keyspace, command: Command) -> Reply:
    return sum(keys.remove(key) for key in command[1:])


def _exists(keys: Keyspace, command: Command) -> Reply:
    return sum(keys.contains(key) for key in command[1:])


def _type(keys: Keyspace, command: Command) -> Reply:
    return Status(STRING_TYPE if keys.contains(command[1]) else b"none")


def _transfer(
    source: Keyspace, key: bytes, value: bytes, target: Keyspace, new_key: bytes
) -> None:
    """Puts a key's value, with its expiry, in another place."""
    target.put(new_key, value, source.expire_at(key))


def _rename(keys: Keyspace, command: Command) -> Reply:
    key, new_key = command[1], command[2]
    value = keys.get(key)
    if value is None:
        raise CommandError(_NO_SUCH_KEY)
    if key != new_key:
        _transfer(keys, key, value, keys, new_key)
        keys.remove(key)
    return OK


def _renamenx(keys: Keyspace, command: Command) -> Reply:
    key, new_key = command[1], command[2]
    if not keys.contains(key):
        raise CommandError(_NO_SUCH_KEY)
    if keys.contains(new_key):
        return 0
    _rename(keys, command)
    return 1


def _copy(keys: Keyspace, command: Command) -> Reply:
    key, new_key = command[1], command[2]
    target, overwrite = keys, False
    position = 3
    while position < len(command):
        option = command[position].lower()
        if option == b"replace":
            overwrite = True
        elif option == b"db" and position + 1 < len(command):
            position += 1
            target = keys.store.keyspaces[parse_database(command[position])]
        else:
            raise CommandError(SYNTAX_ERROR)
        position += 1
    if target.database == keys.database and key == new_key:
        raise CommandError(_SAME_OBJECT)
    value = keys.get(key)
    if value is None or (target.contains(new_key) and not overwrite):
        return 0
    _transfer(keys, key, value, target, new_key)
    return 1


def _move(keys: Keyspace, command: Command) -> Reply:
    key = command[1]
    target = keys.store.keyspaces[parse_database(command[2])]
    if target.database == keys.database:
        raise CommandError(_SAME_OBJECT)
    value = keys.get(key)
    if value is None or target.contains(key):
        return 0
    _transfer(keys, key, value, target, key)
    keys.remove(key)
    return 1


def _is_integer(value: bytes) -> bool:
    try:
        parse_integer(value)
    except CommandError:
        return False
    return True


def _encoding(keys: Keyspace, command: Command) -> Reply:
    """What Redis calls a string just SET; one that was appended to is raw there at any length."""
    value = keys.get(command[2])
    if value is None:
        return None
    if _is_integer(value):
        return b"int"
    return b"embstr" if len(value) <= _EMBEDDED_BYTES else b"raw"


def _refcount(keys: Keyspace, command: Command) -> Reply:
    value = keys.get(command[2])
    if value is None:
        return None
    shared = _is_integer(value) and 0 <= int(value) < _SHARED_INTEGERS
    return _SHARED_COUNT if shared else 1


def _idletime(keys: Keyspace, command: Command) -> Reply:
    """Always 0: who reads leaves no trace in the store."""
    return 0 if keys.contains(command[2]) else None


def _freq(keys: Keyspace, command: Command) -> Reply:
    if not keys.contains(command[2]):
        return None
    raise CommandError(_NO_FREQUENCY)


def _entry(
    name: bytes, arity: int, kind: Kind, handler: Callable[[Keyspace, Command], Reply],
    summary: str, since: str, flags: str, keys: tuple[int, int, int],
) -> Entry:
    return Entry(name, arity, kind, handler, summary, since, "generic", tuple(flags.split()), keys)


_OBJECT_SUBCOMMANDS = [
    _entry(b"encoding", 3, Kind.READ, _encoding, "Inspect the internal encoding of an object",
           "2.2.3", "readonly", (2, 2, 1)),
    _entry(b"freq", 3, Kind.READ, _freq, "Get the logarithmic access frequency counter of an "
           "object", "4.0.0", "readonly", (2, 2, 1)),
    _entry(b"idletime", 3, Kind.READ, _idletime, "Get the time since an object was last accessed; "
           "0, as it is not tracked", "2.2.3", "readonly", (2, 2, 1)),
    _entry(b"refcount", 3, Kind.READ, _refcount, "Get the number of references to the value of "
           "the key", "2.2.3", "readonly", (2, 2, 1)),
]  # fmt: skip
_OBJECT = container(
    b"object", "A container for object introspection commands", "2.2.3", "generic",
    _OBJECT_SUBCOMMANDS,
)  # fmt: skip

COMMANDS: list[Entry] = [
    _entry(b"del", -2, Kind.WRITE, _del, "Delete a key", "1.0.0", "write", (1, -1, 1)),
    _entry(b"unlink", -2, Kind.WRITE, _del, "Delete a key, as DEL does", "4.0.0", "write fast",
           (1, -1, 1)),
    _entry(b"exists", -2, Kind.READ, _exists, "Determine if a key exists", "1.0.0",
           "readonly fast", (1, -1, 1)),
    _entry(b"touch", -2, Kind.READ, _exists, "Count those of the keys that exist", "3.2.1",
           "readonly fast", (1, -1, 1)),
    _entry(b"type", 2, Kind.READ, _type, "Determine the type stored at key", "1.0.0",
           "readonly fast", (1, 1, 1)),
    _entry(b"rename", 3, Kind.WRITE, _rename, "Rename a key", "1.0.0", "write", (1, 2, 1)),
    _entry(b"renamenx", 3, Kind.WRITE, _renamenx, "Rename a key, only if the new key does not "
           "exist", "1.0.0", "write fast", (1, 2, 1)),
    _entry(b"copy", -3, Kind.WRITE, _copy, "Copy a key", "6.2.0", "write denyoom", (1, 2, 1)),
    _entry(b"move", 3, Kind.WRITE, _move, "Move a key to another database", "1.0.0", "write fast",
           (1, 1, 1)),
    replace(_OBJECT, kind=Kind.READ),  # the only container whose subcommands look at keys
]  # fmt: skip
