"""ACL: who a client is, and what there is to allow. Users are in a file (`kvstore.users`)."""

from __future__ import annotations

from collections.abc import Mapping

from kvstore.commands.client import Client
from kvstore.commands.keyspecs import CATEGORIES, categories
from kvstore.commands.table import Entry, Kind, container, wrong_arity
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command
from kvstore.users import DEFAULT_USER


def _whoami(client: Client, command: Command) -> Reply:
    return client.user_name.encode()


def _users(client: Client, command: Command) -> Reply:
    access = client.server.access
    names = [DEFAULT_USER] if access is None else sorted(access.users)
    return [name.encode() for name in names]


class AclCommand:
    """ACL; of its subcommands one tells of the table that it is in."""

    def __init__(self, table: Mapping[bytes, Entry]) -> None:
        self._table = table

    def entry(self) -> Entry:
        """The container for the table."""
        return container(
            b"acl", "A container for Access List Control commands ", "6.0.0", "server",
            [
                _sub(b"whoami", 2, _whoami,
                     "Return the name of the user associated to the current connection"),
                _sub(b"users", 2, _users,
                     "List the username of all the configured ACL rules", "admin"),
                _sub(b"cat", -2, self._cat,
                     "List the ACL categories or the commands inside a category"),
            ],
        )  # fmt: skip

    def _cat(self, client: Client, command: Command) -> Reply:
        if len(command) == 2:
            return [category.encode() for category in CATEGORIES]
        if len(command) > 3:
            raise wrong_arity(self._table[b"acl"].subcommands[b"cat"])
        wanted = command[2].lower().decode("latin-1")
        if wanted not in CATEGORIES:
            raise CommandError(b"ERR Unknown category '%b'" % command[2])
        return [
            found.full_name
            for entry in self._table.values()
            for found in (entry, *entry.subcommands.values())
            if wanted in categories(found)
        ]


def _sub(name: bytes, arity: int, handler: object, summary: str, *flags: str) -> Entry:
    assert callable(handler)
    return Entry(name, arity, Kind.CONNECTION, handler, summary, "6.0.0", "server",
                 (*flags, "noscript", "loading", "stale"))  # fmt: skip
