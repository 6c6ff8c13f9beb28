"""Transactions: MULTI, EXEC, DISCARD, WATCH, UNWATCH.

A transaction is one entry of the log. Its commands run one behind the other on every replica, with
nothing between them, if no watched key has changed: the entry carries the mark that each had
when it was watched, and all replicas compare alike (`kvstore.machine`).
"""

from __future__ import annotations

from kvstore.commands.client import Client
from kvstore.commands.queued import Execution, Transaction
from kvstore.commands.table import Entry, Kind, wrong_arity
from kvstore.keyspace import Keyspace
from kvstore.packing import Watched
from kvstore.replies import OK, CommandError, Error, Reply
from kvstore.resp import Command

NOT_QUEUED = frozenset((b"multi", b"exec", b"discard", b"watch", b"quit", b"reset"))
"""What runs at once though a transaction is open."""
WATCHED_MAX = 1 << 16
"""Keys that one client may watch."""


def check_queued(client: Client, entry: Entry, command: Command) -> None:
    """Redis' checks of what comes behind MULTI, and one of ours: who queues is who runs.

    Raises:
      CommandError: it may not be queued; EXEC will refuse the rest.
    """
    if entry.subcommands and len(command) > 1:
        child = entry.subcommands.get(command[1].lower())
        if child is None:
            entry.handler(None, command)  # says so
        elif not child.minimum <= len(command) <= child.maximum:
            raise wrong_arity(child)
    if client.server.access is not None and (
        entry.name == b"auth"
        or (entry.name == b"hello" and any(word.lower() == b"auth" for word in command))
    ):
        raise CommandError("ERR AUTH inside MULTI is not allowed; authenticate before it")
    if "no_multi" in entry.flags:
        raise CommandError("ERR Command not allowed inside a transaction")


def refused(client: Client, entry: Entry | None, error: CommandError) -> Reply:
    """The reply to a command that could not even be queued, if there is a queue."""
    transaction = client.transaction
    if transaction is None:
        return error.reply
    if entry is None or entry.name != b"exec":
        transaction.failed = True
        return error.reply
    client.transaction = None
    client.watched.clear()
    why = error.reply.text.removeprefix(b"ERR ")
    return Error(b"EXECABORT Transaction discarded because of: " + why)


def _multi(client: Client, command: Command) -> Reply:
    if client.transaction is not None:
        raise CommandError("ERR MULTI calls can not be nested")
    client.transaction = Transaction(client.database, client.server.transaction_bytes_max)
    return OK


def _discard(client: Client, command: Command) -> Reply:
    if client.transaction is None:
        raise CommandError("ERR DISCARD without MULTI")
    client.transaction = None
    client.watched.clear()
    return OK


def _exec(client: Client, command: Command) -> Reply:
    """The reply when nothing needs the log; else it is in `client.execution`."""
    transaction = client.transaction
    if transaction is None:
        raise CommandError("ERR EXEC without MULTI")
    watched = [Watched(*place, mark) for place, mark in client.watched.items()]
    client.transaction = None
    client.watched.clear()
    if transaction.failed:
        raise CommandError("EXECABORT Transaction discarded because of previous errors.")
    execution = Execution(transaction, watched)
    if not execution.command:
        return execution.finish(client, [])
    client.execution = execution
    return None


def _watch(keys: Keyspace | Client, command: Command) -> Reply:
    """The marks; the server keeps them with the client, and answers OK (`add_watched`)."""
    if isinstance(keys, Client):  # not read, since a transaction is open
        raise CommandError("ERR WATCH inside MULTI is not allowed")
    return [keys.mark(key) for key in command[1:]]


def add_watched(client: Client, command: Command, marks: Reply) -> Reply:
    """Keeps what WATCH has read; of a key watched twice the first mark counts."""
    assert isinstance(marks, list)
    if len(client.watched) + len(marks) > WATCHED_MAX:
        raise CommandError(f"ERR more than {WATCHED_MAX} watched keys; UNWATCH some")
    limit = client.server.transaction_bytes_max  # longer ones could not travel with EXEC
    if sum([len(key) for _, key in client.watched]) + sum(map(len, command[1:])) > limit:
        raise CommandError(f"ERR watched keys of more than {limit} bytes; UNWATCH some")
    for key, mark in zip(command[1:], marks, strict=True):
        assert isinstance(mark, int)
        client.watched.setdefault((client.database, key), mark)
    return OK


def _unwatch(client: Client, command: Command) -> Reply:
    client.watched.clear()
    return OK


def _entry(
    name: bytes, arity: int, handler: object, summary: str, since: str, *flags: str
) -> Entry:
    assert callable(handler)
    return Entry(name, arity, Kind.CONNECTION, handler, summary, since, "transactions",
                 ("noscript", "loading", "stale", *flags))  # fmt: skip


COMMANDS: list[Entry] = [
    _entry(b"multi", 1, _multi, "Mark the start of a transaction block", "1.2.0", "fast",
           "allow_busy"),
    _entry(b"exec", 1, _exec, "Execute all commands issued after MULTI", "1.2.0", "skip_slowlog"),
    _entry(b"discard", 1, _discard, "Discard all commands issued after MULTI", "2.0.0",
           "fast", "allow_busy"),
    Entry(b"watch", -2, Kind.READ, _watch, "Watch the given keys to determine execution of the "
          "MULTI/EXEC block", "2.2.0", "transactions",
          ("noscript", "loading", "stale", "fast", "allow_busy"), (1, -1, 1), alone=True),
    _entry(b"unwatch", 1, _unwatch, "Forget about all watched keys", "2.2.0", "fast",
           "allow_busy"),
]  # fmt: skip
