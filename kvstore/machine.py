"""The state machine: values of the log become commands, changes of the store, and replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from kvstore import commands
from kvstore.commands.table import unknown_command, wrong_arity
from kvstore.packing import BadValue, split_value, take_database
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command
from kvstore.store import Store
from p4xos.errors import P4xosError
from p4xos.log import Delivered


class KvStateMachine:
    """Applies the log to the store, and hands the replies of its own tickets on.

    Every replica runs the writes and gets the same results. Reads that travel in the log, to keep
    their place among the writes of a pipeline, run only where their client waits.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.counters = {"commands_applied": 0, "bad_values": 0, "bad_commands": 0}
        """`bad_*`: what no replica of this version proposes; skipped on all of them alike."""
        self.on_replies: Callable[[int, list[Reply]], None] = _ignore
        """Gets each own ticket's replies, in the order of its commands, once they are written."""
        self.on_unknown: Callable[[Sequence[int], P4xosError], None] = _ignore
        """Gets own tickets whose outcome nobody knows."""
        self.on_applied: Callable[[], None] = _ignore
        """Called behind the last of them: time to send."""

    @property
    def applied(self) -> int:
        """As `StateMachine.applied`."""
        return self.store.applied

    def learner_state(self) -> bytes:
        """As `StateMachine.learner_state`."""
        return self.store.learner_state()

    def apply(self, batch: Sequence[Delivered], through: int, learner_state: bytes) -> None:
        """As `StateMachine.apply`; then the waiting clients get their replies.

        Raises:
          StoreError: the batch could not be written; no reply of it was sent.
        """
        results: list[tuple[int, list[Reply]]] = []
        for _, ticket, payload in batch:
            try:
                entries = split_value(payload)
            except BadValue:
                self.counters["bad_values"] += 1
                entries = []
            replies = self._run(entries, own=ticket is not None)
            if ticket is not None:
                results.append((ticket, replies))
        self.store.commit(through, learner_state)
        for ticket, replies in results:
            self.on_replies(ticket, replies)
        self.on_applied()

    def _run(self, entries: list[Command], *, own: bool) -> list[Reply]:
        """Runs the commands of one value; replies in their order."""
        known, find = commands.SPELLINGS.get, commands.find
        keyspaces = self.store.keyspaces
        database_0 = keyspaces[0]
        replies: list[Reply] = []
        for command in entries:
            entry = known(command[0]) or find(command[0])
            keyspace = database_0
            try:
                if entry is None:
                    database, command = take_database(command)
                    keyspace = keyspaces[database]
                    entry = find(command[0]) if command else None
                    if entry is None:
                        self.counters["bad_commands"] += 1
                        raise unknown_command(command or [b""])
                if not entry.minimum <= len(command) <= entry.maximum:
                    self.counters["bad_commands"] += 1
                    raise wrong_arity(entry)
                if entry.writes or (own and not entry.connects):
                    replies.append(entry.handler(keyspace, command))
                else:
                    replies.append(None)
            except CommandError as error:
                replies.append(error.reply)
        self.counters["commands_applied"] += len(entries)
        return replies

    def unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """As `StateMachine.unknown`."""
        self.on_unknown(tickets, error)
        self.on_applied()

    def sync(self) -> int:
        """As `StateMachine.sync`."""
        return self.store.sync()

    def snapshot(self, directory: Path) -> int:
        """As `StateMachine.snapshot`."""
        return self.store.snapshot(directory)

    def install(self, directory: Path) -> None:
        """As `StateMachine.install`."""
        self.store.install(directory)


def _ignore(*_: object) -> None:
    """No server listens to this state machine."""
