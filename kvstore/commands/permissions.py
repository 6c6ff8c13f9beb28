"""What a client with certain rights may run, judged from the table of commands.

A client without all rights has a view of the table in which every command that it may not run is a
connection command that says so: the hot path asks its own table, and judges nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from kvstore.commands.table import Entry, Kind
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command

NO_AUTH = b"NOAUTH Authentication required."
_DESTROYS = frozenset((b"flushall", b"flushdb", b"swapdb"))
"""Changes of whole databases: for admins, though they are writes."""
_OPEN = frozenset((b"client|no-evict",))
"""Flagged for admins in Redis; it changes nothing here, and clients send it unasked."""


def of_admins(entry: Entry) -> bool:
    """Whether only an admin may run it."""
    name = entry.full_name
    return name in _DESTROYS or ("admin" in entry.flags and name not in _OPEN)


def of_writers(entry: Entry) -> bool:
    """Whether it may change keys."""
    return entry.kind is Kind.WRITE


class View:
    """The table as a client without all rights sees it."""

    def __init__(
        self,
        table: Mapping[bytes, Entry],
        allowed: Callable[[Entry], bool],
        refusal: Callable[[Entry], bytes],
    ) -> None:
        """Judges every command once.

        Args:
          table: all commands.
          allowed: whether a command, or a subcommand, may be run.
          refusal: the error that one gets which may not.
        """
        self._refusals: dict[Entry, bytes] = {}
        """By entries of this view, and by subcommands."""
        entries: dict[bytes, Entry] = {}
        for name, entry in table.items():
            for child in entry.subcommands.values():
                if not allowed(child):
                    self._refusals[child] = refusal(child)
            refused = [child in self._refusals for child in entry.subcommands.values()]
            if not allowed(entry) or (refused and all(refused)):
                told = refusal(entry)
                entry = replace(entry, kind=Kind.CONNECTION, handler=_refuse, alone=False)
                self._refusals[entry] = told
            entries[name] = entry
        self._entries = entries
        self.known: Callable[[bytes], Entry | None] = {
            spelling: entry for name, entry in entries.items() for spelling in (name, name.upper())
        }.get
        """What hot loops ask before they call `find`."""

    def find(self, name: bytes) -> Entry | None:
        """The command of this name in any spelling, or None."""
        return self._entries.get(name.lower())

    def check(self, entry: Entry, command: Command) -> None:
        """Refuses what may not be run.

        Args:
          entry: as this view gave it.
          command: of the right length.

        Raises:
          CommandError: in Redis' words.
        """
        refusal = self._refusals.get(entry)
        if refusal is None and entry.subcommands and len(command) > 1:
            child = entry.subcommands.get(command[1].lower())
            refusal = None if child is None else self._refusals.get(child)
        if refusal is not None:
            raise CommandError(refusal)


def views(table: Mapping[bytes, Entry]) -> dict[str, View]:
    """By rights; those of an admin need none, and "" is of who is not known yet."""

    def no_permission(entry: Entry) -> bytes:
        name = entry.full_name
        return b"NOPERM this user has no permissions to run the '%b' command" % name

    return {
        "": View(table, lambda entry: "no_auth" in entry.flags, lambda entry: NO_AUTH),
        "read": View(table, lambda e: not of_admins(e) and not of_writers(e), no_permission),
        "write": View(table, lambda e: not of_admins(e), no_permission),
    }


def _refuse(target: object, command: Command) -> Reply:
    raise AssertionError("a view was not asked before it was run")
