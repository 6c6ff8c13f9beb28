"""Commands on keys of any kind and on whole databases: DEL, EXISTS, DBSIZE, FLUSHDB, FLUSHALL."""

from __future__ import annotations

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command
from kvstore.store import Keyspace


def _del(keys: Keyspace, command: Command) -> Reply:
    return sum(keys.remove(key) for key in command[1:])


def _exists(keys: Keyspace, command: Command) -> Reply:
    return sum(keys.contains(key) for key in command[1:])


def _dbsize(keys: Keyspace, command: Command) -> Reply:
    return keys.count()


def _check_flush(command: Command) -> None:
    """SYNC and ASYNC are the same here: either is one entry of a write batch."""
    if len(command) > 2 or (len(command) == 2 and command[1].lower() not in (b"sync", b"async")):
        raise CommandError(SYNTAX_ERROR)


def _flushdb(keys: Keyspace, command: Command) -> Reply:
    _check_flush(command)
    keys.clear()
    return OK


def _flushall(keys: Keyspace, command: Command) -> Reply:
    _check_flush(command)
    for keyspace in keys.store.keyspaces:
        if keyspace.count():
            keyspace.clear()
    return OK


COMMANDS = [
    Entry(b"del", -2, Kind.WRITE, _del, "Delete a key", "1.0.0", "generic", ("write",),
          (1, -1, 1)),
    Entry(b"exists", -2, Kind.READ, _exists, "Determine if a key exists", "1.0.0", "generic",
          ("readonly", "fast"), (1, -1, 1)),
    Entry(b"dbsize", 1, Kind.READ, _dbsize, "Return the number of keys in the selected database",
          "1.0.0", "server", ("readonly", "fast")),
    Entry(b"flushdb", -1, Kind.WRITE, _flushdb, "Remove all keys from the current database",
          "1.0.0", "server", ("write",)),
    Entry(b"flushall", -1, Kind.WRITE, _flushall, "Remove all keys from all databases", "1.0.0",
          "server", ("write",)),
]
