"""Commands of many clients packed into values of the log, and back.

A value is a msgpack array of commands; a command is an array of its name and arguments, as
binary. One for another database than 0 begins with a mark that no command name can be: a zero
byte and the database's number. Every replica takes a value apart in the same way, so what cannot
be taken apart is skipped by all of them alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

import msgpack

from kvstore.resp import Command

VALUE_OVERHEAD_BYTES = 5
"""The array header of a value at its longest."""
DATABASES = 16
"""As many as Redis has by default."""

_DATABASE_MARKS = [bytes((0, database)) for database in range(DATABASES)]
_DATABASE_OF = {mark: database for database, mark in enumerate(_DATABASE_MARKS)}
_PACKER = msgpack.Packer(autoreset=True)


class BadValue(Exception):
    """A value of the log that holds no commands of ours."""


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


def join_value(packed: Sequence[bytes]) -> bytes:
    """The value that holds these packed commands, `VALUE_OVERHEAD_BYTES` longer at most."""
    header: bytes = _PACKER.pack_array_header(len(packed))
    return header + b"".join(packed)


def split_value(payload: bytes) -> list[Command]:
    """The commands of a value; each still begins with its database's mark, if it has one.

    Raises:
      BadValue: anything else than an array of non-empty arrays of binary.
    """
    try:
        commands: list[Command] = msgpack.unpackb(payload)
        # Fails unless every item of every item is bytes; one pass in C instead of one in Python.
        b"".join(chain.from_iterable(commands))
    except Exception as error:  # msgpack's own errors share no base, and TypeErrors count too
        raise BadValue(str(error)) from None
    if not all(commands) or set(map(type, commands)) - {list} or type(commands) is not list:
        raise BadValue("a command that is no array, or an empty one")
    return commands


def take_database(command: Command) -> tuple[int, Command]:
    """A command of a value without its mark, and the database that it works on."""
    database = _DATABASE_OF.get(command[0])
    if database is None:
        return 0, command
    return database, command[1:]
