"""Commands of many clients packed into values of the log, and back.

A value is a msgpack array: its stamp (its proposer's clock, ms since the epoch), its origin (its
proposer's id), then commands; without commands it only moves log time (`kvstore.logtime`). A
command is an array of its name and arguments, as binary. One for another database than 0 begins
with a mark that no command name can be: a zero byte and the database's number. A transaction is one
command: `TRANSACTION`, the watched keys as a msgpack array of [database, key, mark], then each
command of it packed, as binary. Every replica takes a value apart in the same way, so what cannot
be taken apart is skipped by all of them alike.

That is version 1. A value of a later version begins with `NEWER`, a byte that no msgpack has, and
its version: a replica of this release stops at it, since to skip what others apply would make it a
different replica for ever. A release that adds a command that writes, or changes what one does,
packs what holds it as a later version (docs/versions.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import msgpack

from kvstore.resp import Command

VALUE_OVERHEAD_BYTES = 5 + 9 + 3
"""The array header, the stamp and the origin of a value at their longest."""
DATABASES = 16
"""As many as Redis has by default."""

TRANSACTION = b"\x00exec"
"""The name of a transaction, which no client's command can have."""

VERSION = 1
"""Of what is written here, and the latest that is read."""
NEWER = b"\xc1"

_DATABASE_MARKS = [bytes((0, database)) for database in range(DATABASES)]
_DATABASE_OF = {mark: database for database, mark in enumerate(_DATABASE_MARKS)}
_PACKER = msgpack.Packer(autoreset=True)
_STAMP_MAX = (1 << 63) - 1
_ORIGIN_MAX = 0xFFFF


class BadValue(Exception):
    """A value of the log that holds no commands of ours."""


def newer_version(payload: bytes) -> int | None:
    """The version of a value that a later release has written; None: it is one for `split_value`.

    A mark without a version, or with one of this release, is what no release writes.
    """
    if payload[:1] != NEWER or len(payload) < 2 or payload[1] <= VERSION:
        return None
    return payload[1]


def pack_commands(commands: Sequence[Command], database: int) -> list[bytes]:
    """Each command packed by itself, ready to be joined into values.

    Args:
      commands: names and arguments.
      database: 0 to 15, the one that all of them work on.
    """
    pack = _PACKER.pack
    if database == 0:
        return [pack(command) for command in commands]
    mark = _DATABASE_MARKS[database]
    return [pack([mark, *command]) for command in commands]


def join_value(packed: Sequence[bytes], stamp: int, origin: int) -> bytes:
    """The value that holds these packed commands, `VALUE_OVERHEAD_BYTES` longer at most."""
    pack = _PACKER.pack
    header: bytes = _PACKER.pack_array_header(len(packed) + 2)
    return b"".join((header, pack(stamp), pack(origin), *packed))


def split_value(payload: bytes) -> tuple[int, int, list[Command]]:
    """Stamp, origin and commands of a value; each command still has its database's mark, if any.

    Raises:
      BadValue: anything else than such an array, with commands that are not empty.
    """
    try:
        commands: list[Any] = msgpack.unpackb(payload)
        stamp, origin = commands[:2]
        del commands[:2]
        # Fails unless every item of every item is bytes; one pass in C instead of one in Python.
        b"".join(chain.from_iterable(commands))
    except Exception as error:  # msgpack's own errors share no base, and TypeErrors count too
        raise BadValue(str(error)) from None
    if type(stamp) is not int or type(origin) is not int:
        raise BadValue("no stamp, or no origin")
    if not (0 <= stamp <= _STAMP_MAX and 0 <= origin <= _ORIGIN_MAX):
        raise BadValue(f"stamp {stamp} or origin {origin} is out of range")
    if not all(commands) or set(map(type, commands)) - {list}:
        raise BadValue("a command that is no array, or an empty one")
    return stamp, origin, commands


class Watched(NamedTuple):
    """A key that must not have changed since it was watched."""

    database: int
    key: bytes
    mark: int
    """See `Keyspace.mark`."""


def pack_transaction(watched: Sequence[Watched], packed: Sequence[bytes]) -> Command:
    """The command that runs these packed commands if no watched key has changed."""
    return [TRANSACTION, _PACKER.pack(watched), *packed]


def split_transaction(command: Command) -> tuple[list[Watched], list[Command]]:
    """What `pack_transaction` was given, its commands unpacked.

    Raises:
      BadValue: anything else.
    """
    try:
        places: list[Any] = msgpack.unpackb(command[1])
        commands: list[Command] = [msgpack.unpackb(packed) for packed in command[2:]]
        b"".join(chain.from_iterable(commands))
        b"".join([key for _, key, _ in places])
        # As they came, not as a `Watched` of them says: True is no number here.
        numbers = {type(n) for database, _, mark in places for n in (database, mark)}
        watched = [Watched(*place) for place in places]
    except Exception as error:
        raise BadValue(str(error)) from None
    if not all(commands) or set(map(type, commands)) - {list} or numbers - {int}:
        raise BadValue("a command that is no array, or an empty one, or a bad mark")
    if not all(0 <= database < DATABASES for database, _, _ in watched):
        raise BadValue("a watched key of no database")
    return watched, commands


def take_database(command: Command) -> tuple[int, Command]:
    """A command of a value without its mark, and the database that it works on."""
    database = _DATABASE_OF.get(command[0])
    if database is None:
        return 0, command
    return database, command[1:]
