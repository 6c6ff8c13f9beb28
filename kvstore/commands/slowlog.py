"""SLOWLOG: what took long, as `kvstore.slowlog` keeps it."""

from __future__ import annotations

from itertools import islice

from kvstore.commands.client import Client
from kvstore.commands.table import Entry, Kind, container, parse_integer
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command

_SHOWN_BY_DEFAULT = 10
_FLAGS = ("admin", "loading", "stale")


def _get(client: Client, command: Command) -> Reply:
    """The newest ten, or so many as were asked for; -1 asks for all."""
    if len(command) > 3:
        raise CommandError(
            b"ERR unknown subcommand or wrong number of arguments for '%b'. Try SLOWLOG HELP."
            % command[1]
        )
    log = client.server.meter.slowlog
    count = _SHOWN_BY_DEFAULT
    if len(command) == 3:
        try:
            count = parse_integer(command[2])
        except CommandError:
            count = -2
        if count < -1:
            raise CommandError("ERR count should be greater than or equal to -1")
        if count == -1:
            count = len(log)
    return [
        [
            entry.number, entry.at_s, entry.duration_us, list(entry.words),
            entry.address.encode(), entry.name,
        ]
        for entry in islice(log, count)
    ]  # fmt: skip


def _len(client: Client, command: Command) -> Reply:
    return len(client.server.meter.slowlog)


def _reset(client: Client, command: Command) -> Reply:
    client.server.meter.slowlog.reset()
    return OK


def _subcommand(name: bytes, arity: int, handler: object, summary: str) -> Entry:
    assert callable(handler)
    return Entry(name, arity, Kind.CONNECTION, handler, summary, "2.2.12", "server", _FLAGS)


COMMANDS: list[Entry] = [
    container(b"slowlog", "A container for slow log commands", "2.2.12", "server", [
        _subcommand(b"get", -2, _get, "Returns the slow log's entries."),
        _subcommand(b"len", 2, _len, "Returns the number of entries in the slow log."),
        _subcommand(b"reset", 2, _reset, "Clears all entries from the slow log."),
    ]),
]
