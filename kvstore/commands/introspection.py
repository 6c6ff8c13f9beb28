"""Commands about the server and about commands: INFO, CONFIG, COMMAND, TIME, WAIT, ROLE."""

from __future__ import annotations

import time

from kvstore.commands.client import Client
from kvstore.commands.keyspecs import KeySpec, categories, key_specs, keys_of, tips
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, container, parse_integer
from kvstore.patterns import compile_glob
from kvstore.replies import OK, CommandError, Flags, Reply, Verbatim
from kvstore.resp import Command

NAMED_MAX = 1024
"""Commands that COMMAND INFO and DOCS are asked for at a time, and patterns of CONFIG GET: many
thousands fit into a command; what is told of one is long, and a pattern is to be compiled."""
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
    if len(command) - 2 > NAMED_MAX:
        raise CommandError(f"ERR more than {NAMED_MAX} patterns; ask for fewer")
    found: dict[bytes, Reply] = {}
    found.update(client.server.settings().find(command[2:]))
    return found


def _config_set(client: Client, command: Command) -> Reply:
    if len(command) % 2:
        raise CommandError(SYNTAX_ERROR)
    client.server.settings().change(command[2:])
    return OK


def _config_resetstat(client: Client, command: Command) -> Reply:
    """Counters here are for monitoring and only ever grow; Redis' tools want the OK."""
    return OK


def _config_rewrite(client: Client, command: Command) -> Reply:
    """What CONFIG SET changes lasts until the node stops: the cluster file is everybody's."""
    raise CommandError("ERR The server is running without a config file")


def _time(client: Client, command: Command) -> Reply:
    """This node's clock; nothing of the store depends on it."""
    now_us = time.time_ns() // 1000
    return [b"%d" % (now_us // 1_000_000), b"%d" % (now_us % 1_000_000)]


def parse_timeout(text: bytes) -> int:
    """A number of milliseconds that a client will wait."""
    try:
        timeout = parse_integer(text)
    except CommandError:
        raise CommandError("ERR timeout is not an integer or out of range") from None
    if timeout < 0:
        raise CommandError("ERR timeout is negative")
    return timeout


def _wait(client: Client, command: Command) -> Reply:
    """How many other nodes have every acknowledged write, for certain.

    A write is acknowledged once a majority of acceptors has it on disk, so there is nothing to
    wait for, and waiting longer would promise nothing more: it answers at once, also with fewer
    than were asked for.
    """
    parse_integer(command[1])
    parse_timeout(command[2])
    return client.server.copies()


def _role(client: Client, command: Command) -> Reply:
    """Every node takes writes: to clients that ask for a master, each is one."""
    return [b"master", client.server.applied(), []]


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
                self._sub(b"getkeysandflags", -4, self._getkeysandflags,
                          "Extract keys and access flags given a full command"),
            ],
        )  # fmt: skip

        def bare(client: Client, command: Command) -> Reply:
            return chosen.handler(client, command) if len(command) > 1 else self._all()

        return Entry(
            b"command", -1, Kind.CONNECTION, bare, chosen.summary, chosen.since, chosen.group,
            ("loading", "stale"), subcommands=chosen.subcommands,
        )  # fmt: skip

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
        """All names, or those that a filter chooses, of subcommands too, as in Redis."""
        if len(command) == 2:
            return list(self._table)
        if len(command) != 5 or command[2].lower() != b"filterby":
            raise CommandError(SYNTAX_ERROR)
        by, argument = command[3].lower(), command[4].lower()
        every = [
            found for entry in self._table.values()
            for found in (entry, *entry.subcommands.values())
        ]  # fmt: skip
        if by == b"module":
            return []
        if by == b"aclcat":
            return [
                entry.full_name for entry in every
                if argument in (category.encode() for category in categories(entry))
            ]  # fmt: skip
        if by == b"pattern":
            glob = compile_glob(argument)
            return [entry.full_name for entry in every if glob.matches(entry.full_name)]
        raise CommandError(SYNTAX_ERROR)

    def _find(self, name: bytes) -> Entry | None:
        first, _, second = name.lower().partition(b"|")
        entry = self._table.get(first)
        return entry.subcommands.get(second) if entry and second else entry

    def _info(self, client: Client, command: Command) -> Reply:
        if len(command) == 2:
            return self._all()
        return [_describe(entry) if entry else None for entry in self._named(command)]

    def _docs(self, client: Client, command: Command) -> Reply:
        found = self._named(command) if len(command) > 2 else self._table.values()
        return {entry.full_name: _document(entry) for entry in found if entry}

    def _named(self, command: Command) -> list[Entry | None]:
        """The commands that are asked for, None for an unknown one."""
        if len(command) - 2 > NAMED_MAX:
            raise CommandError(f"ERR more than {NAMED_MAX} commands; ask for fewer")
        return [self._find(name) for name in command[2:]]

    def _keys_of(self, words: Command) -> list[tuple[bytes, tuple[str, ...]]]:
        entry = self._table.get(words[0].lower())
        if entry is not None and entry.subcommands:
            entry = entry.subcommands.get(words[1].lower())
        if entry is None:
            raise CommandError("ERR Invalid command specified")
        if not key_specs(entry):
            raise CommandError("ERR The command has no key arguments")
        if not entry.minimum <= len(words) <= entry.maximum:
            raise CommandError("ERR Invalid number of arguments specified for command")
        return keys_of(entry, words)

    def _getkeys(self, client: Client, command: Command) -> Reply:
        return [key for key, _ in self._keys_of(command[2:])]

    def _getkeysandflags(self, client: Client, command: Command) -> Reply:
        return [[key, _flags(names)] for key, names in self._keys_of(command[2:])]


def _flags(names: tuple[str, ...] | list[str]) -> Flags:
    return Flags(tuple(name.encode() for name in names))


def _describe(entry: Entry) -> Reply:
    """An item of COMMAND INFO."""
    hints: list[Reply] = [tip.encode() for tip in tips(entry)]
    return [
        entry.full_name,
        entry.arity,
        _flags(tuple(entry.flags)),
        *entry.keys,
        _flags(["@" + category for category in categories(entry)]),
        hints,
        [_specification(spec) for spec in key_specs(entry)],
        [_describe(child) for child in entry.subcommands.values()],
    ]


def _specification(spec: KeySpec) -> Reply:
    kind = b"keynum" if spec.counted else b"range"
    details: dict[bytes, Reply] = (
        {b"keynumidx": 0, b"firstkey": 1, b"keystep": spec.step}
        if spec.counted
        else {b"lastkey": spec.last, b"keystep": spec.step, b"limit": 0}
    )
    return {
        b"flags": _flags(spec.flags),
        b"begin_search": {b"type": b"index", b"spec": {b"index": spec.first}},
        b"find_keys": {b"type": kind, b"spec": details},
    }


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


def _config(name: bytes, arity: int, handler: object, summary: str, since: str) -> Entry:
    assert callable(handler)
    return Entry(name, arity, Kind.CONNECTION, handler, summary, since, "server",
                 ("admin", "noscript", "loading", "stale"))  # fmt: skip


COMMANDS: list[Entry] = [
    Entry(b"info", -1, Kind.CONNECTION, _info, "Get information and statistics about the server",
          "1.0.0", "server", ("loading", "stale")),
    Entry(b"time", 1, Kind.CONNECTION, _time, "Return the current server time", "2.6.0", "server",
          ("loading", "stale", "fast")),
    Entry(b"role", 1, Kind.CONNECTION, _role, "Return the role of the instance in the context of "
          "replication", "2.8.12", "server", ("noscript", "loading", "stale", "fast")),
    Entry(b"wait", 3, Kind.CONNECTION, _wait, "Tell how many other nodes have all acknowledged "
          "writes for certain", "3.0.0", "generic", ("noscript",)),
    container(b"config", "A container for server configuration commands", "2.0.0", "server", [
        _config(b"get", -3, _config_get, "Get the values of configuration parameters", "2.0.0"),
        _config(b"resetstat", 2, _config_resetstat, "Reset the stats returned by INFO", "2.0.0"),
        _config(b"rewrite", 2, _config_rewrite,
                "Rewrite the configuration file with the in memory configuration", "2.8.0"),
        _config(b"set", -4, _config_set,
                "Set configuration parameters to the given values", "2.0.0"),
    ]),
]  # fmt: skip
