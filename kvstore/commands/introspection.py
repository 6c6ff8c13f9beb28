"""Commands about the server and about commands: INFO, CONFIG GET, COMMAND."""

from __future__ import annotations

from fnmatch import fnmatchcase

from kvstore.commands.client import Client
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, container
from kvstore.replies import OK, CommandError, Flags, Reply, Verbatim
from kvstore.resp import Command

_EVERYTHING = frozenset((b"all", b"everything", b"default"))


def _info(client: Client, command: Command) -> Reply:
    wanted = {word.lower() for word in command[1:]} or _EVERYTHING
    parts = [
        f"# {title}\r\n" + "".join(f"{name}:{value}\r\n" for name, value in section.items())
        for title, section in client.server.sections().items()
        if wanted & _EVERYTHING or title.lower().encode() in wanted
    ]
    return Verbatim("\r\n".join(parts).encode())


def _config_get(client: Client, command: Command) -> Reply:
    patterns = [pattern.decode("latin-1").lower() for pattern in command[2:]]
    return {
        name.encode(): value.encode()
        for name, value in client.server.settings().items()
        if any(fnmatchcase(name, pattern) for pattern in patterns)
    }


def _config_resetstat(client: Client, command: Command) -> Reply:
    """Counters here are for monitoring and only ever grow; Redis' tools want the OK."""
    return OK


class CommandCommand:
    """COMMAND and its subcommands; they describe the table that they are in."""

    def __init__(self, table: dict[bytes, Entry]) -> None:
        self._table = table

    def entry(self) -> Entry:
        """The container for the table, which also answers without a subcommand."""
        chosen = container(
            b"command", "Get array of Redis command details", "2.8.13", "server",
            [
                self._sub(b"count", 2, self._count, "Get total number of Redis commands"),
                self._sub(b"docs", -2, self._docs, "Get array of specific Redis command docs"),
                self._sub(b"info", -2, self._info, "Get array of specific Redis command details"),
                self._sub(b"list", -2, self._list, "Get an array of Redis command names"),
                self._sub(b"getkeys", -4, self._getkeys, "Extract keys given a full command"),
            ],
        )

        def bare(client: Client, command: Command) -> Reply:
            return chosen.handler(client, command) if len(command) > 1 else self._all()

        return Entry(
            b"command", -1, Kind.CONNECTION, bare, chosen.summary, chosen.since, chosen.group,
            ("loading", "stale"), subcommands=chosen.subcommands,
        )

    @staticmethod
    def _sub(name: bytes, arity: int, handler: object, summary: str) -> Entry:
        assert callable(handler)
        flags = ("loading", "stale")
        return Entry(name, arity, Kind.CONNECTION, handler, summary, "2.8.13", "server", flags)

    def _all(self) -> Reply:
        return [_describe(entry) for entry in self._table.values()]

    def _count(self, client: Client, command: Command) -> Reply:
        return len(self._table)

    def _list(self, client: Client, command: Command) -> Reply:
        if len(command) > 2:
            raise CommandError(SYNTAX_ERROR)
        return list(self._table)

    def _find(self, name: bytes) -> Entry | None:
        first, _, second = name.lower().partition(b"|")
        entry = self._table.get(first)
        return entry.subcommands.get(second) if entry and second else entry

    def _info(self, client: Client, command: Command) -> Reply:
        if len(command) == 2:
            return self._all()
        found = map(self._find, command[2:])
        return [_describe(entry) if entry else None for entry in found]

    def _docs(self, client: Client, command: Command) -> Reply:
        found = map(self._find, command[2:]) if len(command) > 2 else self._table.values()
        return {entry.full_name: _document(entry) for entry in found if entry}

    def _getkeys(self, client: Client, command: Command) -> Reply:
        words = command[2:]
        entry = self._table.get(words[0].lower())
        if entry is None:
            raise CommandError("ERR Invalid command specified")
        if not entry.minimum <= len(words) <= entry.maximum:
            raise CommandError("ERR Invalid number of arguments specified for command")
        first, last, step = entry.keys
        if not first:
            raise CommandError("ERR The command has no key arguments")
        return list(words[first : (last if last > 0 else len(words) + last) + 1 : step])


def _describe(entry: Entry) -> Reply:
    """An item of COMMAND INFO; categories, tips and key specifications are left empty."""
    return [
        entry.full_name,
        entry.arity,
        Flags(tuple(flag.encode() for flag in entry.flags)),
        *entry.keys,
        Flags(()),
        Flags(()),
        Flags(()),
        [_describe(child) for child in entry.subcommands.values()],
    ]


def _document(entry: Entry) -> Reply:
    document: dict[bytes, Reply] = {
        b"summary": entry.summary.encode(),
        b"since": entry.since.encode(),
        b"group": entry.group.encode(),
    }
    if entry.subcommands:
        document[b"subcommands"] = {
            child.full_name: _document(child) for child in entry.subcommands.values()
        }
    return document


COMMANDS = [
    Entry(b"info", -1, Kind.CONNECTION, _info, "Get information and statistics about the server",
          "1.0.0", "server", ("loading", "stale")),
    container(b"config", "A container for server configuration commands", "2.0.0", "server", [
        Entry(b"get", -3, Kind.CONNECTION, _config_get, "Get the values of configuration "
              "parameters", "2.0.0", "server", ("admin", "noscript", "loading", "stale")),
        Entry(b"resetstat", 2, Kind.CONNECTION, _config_resetstat, "Reset the stats returned by "
              "INFO", "2.0.0", "server", ("admin", "noscript", "loading", "stale")),
    ]),
]
