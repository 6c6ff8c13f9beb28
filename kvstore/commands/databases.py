"""Commands on whole databases: DBSIZE, FLUSHDB, FLUSHALL, SWAPDB; numbers of databases."""

from __future__ import annotations

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer
from kvstore.keyspace import Keyspace
from kvstore.packing import DATABASES
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command

_LEAST, _MOST = -(1 << 31), (1 << 31) - 1
_OUT_OF_RANGE = f"ERR value is out of range, value must between {_LEAST} and {_MOST}"
_NO_SUCH_DATABASE = "ERR DB index is out of range"


def parse_database(text: bytes) -> int:
    """The number of a database.

    Raises:
      CommandError: it is no number, or none of a database.
    """
    number = parse_integer(text)
    if not _LEAST <= number <= _MOST:
        raise CommandError(_OUT_OF_RANGE)
    return _checked(number)


def _checked(number: int) -> int:
    if not 0 <= number < DATABASES:
        raise CommandError(_NO_SUCH_DATABASE)
    return number


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
        if keyspace.records():  # not `count`, which looks only so far, and so may differ
            keyspace.clear()
    return OK


def _swapdb(keys: Keyspace, command: Command) -> Reply:
    # Redis reads both numbers before it looks whether there are such databases.
    numbers = [
        _any_number(text, f"ERR invalid {place} DB index")
        for place, text in zip(("first", "second"), command[1:], strict=True)
    ]
    first, second = map(_checked, numbers)
    if first != second:
        keys.store.swap(first, second)
    return OK


def _any_number(text: bytes, complaint: str) -> int:
    """A 32-bit integer."""
    try:
        number = parse_integer(text)
    except CommandError:
        raise CommandError(complaint) from None
    if not _LEAST <= number <= _MOST:
        raise CommandError(complaint)
    return number


COMMANDS: list[Entry] = [
    Entry(b"dbsize", 1, Kind.READ, _dbsize, "Return the number of keys in the selected database",
          "1.0.0", "server", ("readonly", "fast")),
    Entry(b"flushdb", -1, Kind.WRITE, _flushdb, "Remove all keys from the current database",
          "1.0.0", "server", ("write",)),
    Entry(b"flushall", -1, Kind.WRITE, _flushall, "Remove all keys from all databases", "1.0.0",
          "server", ("write",)),
    Entry(b"swapdb", 3, Kind.WRITE, _swapdb, "Swaps two databases", "4.0.0", "server",
          ("write", "fast")),
]  # fmt: skip
