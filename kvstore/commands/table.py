"""What a command is, and how one is found and refused in Redis' words.

A family of commands is a file beside this one with a list `COMMANDS`; `kvstore.commands` joins
them into the one table. Redis documents the fields: https://redis.io/commands/command/
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from kvstore.replies import CommandError, Reply, Status
from kvstore.resp import MAX_ARGUMENTS, Command

SYNTAX_ERROR = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
_SHOWN_BYTES = 128
"""Redis shows no more of a name, or of all arguments together, in an error."""


class Kind(IntEnum):
    """Where a command runs."""

    CONNECTION = 0
    """At once, where the client is connected; the handler gets the `Client`."""
    READ = 1
    """On the local store behind a read index; the handler gets a `Keyspace`."""
    WRITE = 2
    """On every replica when it comes out of the log: deterministic, no clock, no randomness, and
    everything checked before the first write; the handler gets a `Keyspace`."""


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One command, or one subcommand, of the table."""

    name: bytes
    """Lower case."""
    arity: int
    """Words, the name among them; negative: at least so many."""
    kind: Kind
    handler: Callable[[Any, Command], Reply]
    summary: str
    since: str
    group: str
    flags: Sequence[str] = ()
    keys: tuple[int, int, int] = (0, 0, 0)
    """First key, last key, step; as in COMMAND INFO."""
    subcommands: dict[bytes, Entry] = field(default_factory=dict)
    parent: bytes = b""
    minimum: int = 0
    """Fewest words, from the arity; set here so that the hot path compares and no more."""
    alone: bool = False
    """Its reply changes the client: no other command shares its run."""
    maximum: int = 0
    connects: bool = False
    """Its kind is CONNECTION, for the hot path."""
    writes: bool = False
    """Its kind is WRITE, for the hot path."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "minimum", abs(self.arity))
        object.__setattr__(self, "maximum", self.arity if self.arity > 0 else MAX_ARGUMENTS)
        object.__setattr__(self, "connects", self.kind is Kind.CONNECTION)
        object.__setattr__(self, "writes", self.kind is Kind.WRITE)

    @property
    def full_name(self) -> bytes:
        """`get`, or `config|get`."""
        return self.parent + b"|" + self.name if self.parent else self.name


def container(
    name: bytes, summary: str, since: str, group: str, children: Sequence[Entry]
) -> Entry:
    """A command whose first argument chooses one of its subcommands."""
    by_name: dict[bytes, Entry] = {}

    def dispatch(target: object, command: Command) -> Reply:
        chosen = by_name.get(command[1].lower())
        if chosen is None:
            shown = command[1][:_SHOWN_BYTES]
            raise CommandError(
                b"ERR unknown subcommand '%b'. Try %b HELP." % (shown, name.upper())
            )
        if not chosen.minimum <= len(command) <= chosen.maximum:
            raise wrong_arity(chosen)
        return chosen.handler(target, command)

    def explain(target: object, command: Command) -> Reply:
        lines = [b"%b <subcommand> [<arg> ...]. Subcommands are:" % name.upper()]
        for child in by_name.values():
            lines += [child.name.upper(), b"    " + child.summary.rstrip(".").encode() + b"."]
        return [Status(line) for line in lines]

    help_ = Entry(
        b"help", 2, Kind.CONNECTION, explain, "Show helpful text about the subcommands", since,
        group, ("loading", "stale"),
    )  # fmt: skip
    for child in (*children, help_):
        # Words are counted with the container's name, as Redis counts them.
        by_name[child.name] = Entry(
            child.name, child.arity, child.kind, child.handler, child.summary, child.since,
            child.group, child.flags, child.keys, {}, name,
        )
    return Entry(name, -2, Kind.CONNECTION, dispatch, summary, since, group, subcommands=by_name)


def wrong_arity(entry: Entry) -> CommandError:
    """Too few or too many words."""
    return CommandError(b"ERR wrong number of arguments for '%b' command" % entry.full_name)


def unknown_command(command: Command) -> CommandError:
    """No such name; shows the beginning of what was sent."""
    shown = b""
    for argument in command[1:]:
        if len(shown) >= _SHOWN_BYTES:
            break
        shown += b"'%b' " % argument[: _SHOWN_BYTES - len(shown)]
    return CommandError(
        b"ERR unknown command '%b', with args beginning with: %b"
        % (command[0][:_SHOWN_BYTES], shown)
    )


def parse_integer(text: bytes) -> int:
    """A signed 64-bit integer written as Redis writes it: no plus, no zeros before, no spaces.

    Raises:
      CommandError: anything else.
    """
    # Lengths first: int() takes quadratic time for very long digits.
    if len(text) <= 20:
        try:
            value = int(text)
        except ValueError:
            raise CommandError(NOT_AN_INTEGER) from None
        if b"%d" % value == text and -(1 << 63) <= value < 1 << 63:
            return value
    raise CommandError(NOT_AN_INTEGER)
