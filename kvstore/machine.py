"""The state machine: values of the log become commands, changes of the store, and replies."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import thread_time

from kvstore import commands
from kvstore.commands.table import Entry, unknown_command, wrong_arity
from kvstore.digest import Moments
from kvstore.keyspace import Keyspace
from kvstore.logtime import LEAP_MS
from kvstore.packing import (
    NEWER,
    TRANSACTION,
    VERSION,
    BadValue,
    newer_version,
    split_transaction,
    split_value,
    take_database,
)
from kvstore.replies import CommandError, Reply, internal_error
from kvstore.resp import Command
from kvstore.store import Store
from p4xos.errors import P4xosError
from p4xos.log import Delivered

SWEEP_KEYS = 64
"""Keys that are due, removed with an entry of clients: some tenths of a millisecond."""
IDLE_SWEEP_KEYS = 512
"""The same for an entry that only moves time: some milliseconds."""

SMALL_BYTES = 64
"""What an item of a reply takes beside its bytes, at the least."""
RIDING_BYTES = 64 << 20
"""Replies to the reads in one value: they cannot wait until their client takes the first ones."""


RIDING_S = 1.0
"""Of CPU, what the reads in one value may take together, on the one replica that runs them: a
transaction holds a hundred thousand, and the node does nothing else meanwhile. A node that was
stopped, or whose machine is busy, refuses none of them for that."""


class NewerEntry(P4xosError):
    """An entry of the log was written by a later release; this replica must not go past it."""

    def __init__(self, instance: int, version: int) -> None:
        super().__init__(
            f"instance {instance} of the log has entries of version {version}, and this release "
            f"reads version {VERSION}: to skip them would make this replica another one than the "
            "others, so it stops, with nothing lost; upgrade this node to the release that the "
            "others run, and start it again"
        )
        self.instance = instance
        self.version = version


class KvStateMachine:
    """Applies the log to the store, and hands the replies of its own tickets on.

    Every replica runs the writes and gets the same results. Reads that travel in the log, to keep
    their place among the writes of a pipeline, run only where their client waits.
    """

    def __init__(self, store: Store, origin: int = 0, *, alone: bool = True) -> None:
        """With the state that the store has.

        Args:
          store: the replica's.
          origin: this learner's id, for the entries that it proposes.
          alone: the cluster has no other learner; the same on all replicas.
        """
        self.store = store
        self.origin = origin
        self._room = RIDING_BYTES
        self._time_left = RIDING_S
        store.time.alone = alone
        self.moments = Moments(store)
        """States at given instances, for whoever compares replicas."""
        self.counters = dict.fromkeys(
            ("commands_applied", "bad_values", "bad_commands", "keys_expired", "leaps_refused"), 0
        )
        """`bad_*`: what no replica of this version proposes; skipped on all of them alike.
        `leaps_refused`: stamps too far ahead to be believed from one node (`kvstore.logtime`)."""
        self.on_leap: Callable[[], None] = _ignore
        """Called when another node's stamp was not believed, though this node's clock confirms it:
        an entry of this node settles it."""
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

    def learner_state(self) -> Mapping[bytes, bytes]:
        """As `StateMachine.learner_state`."""
        return self.store.learner_state()

    def apply(
        self,
        batch: Sequence[Delivered],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """As `StateMachine.apply`; then the waiting clients get their replies.

        Raises:
          NewerEntry: a later release has written an entry; nothing of the batch was applied.
          StoreError: the batch could not be written; no reply of it was sent.
        """
        for instance, _, payload in batch:
            if payload[:1] == NEWER and (version := newer_version(payload)) is not None:
                raise NewerEntry(instance, version)
        results: list[tuple[int, list[Reply]]] = []
        for instance, ticket, payload in batch:
            if instance > self.moments.due:
                self.moments.reached(instance - 1)
            try:
                stamp, origin, entries = split_value(payload)
            except BadValue:
                self.counters["bad_values"] += 1
                entries = []
            else:
                self._begin(instance, stamp, origin, idle=not entries)
            self._room, self._time_left = RIDING_BYTES, RIDING_S
            replies = self._run(entries, own=ticket is not None)
            if ticket is not None:
                results.append((ticket, replies))
        self.store.commit(through, learner_state)
        if through >= self.moments.due:
            self.moments.reached(through)
        for ticket, replies in results:
            self.on_replies(ticket, replies)
        self.on_applied()

    def _begin(self, instance: int, stamp: int, origin: int, *, idle: bool) -> None:
        """Moves log time, and removes keys that are due; more of them when nobody waits."""
        limit = IDLE_SWEEP_KEYS if idle else SWEEP_KEYS
        believed, swept = self.store.begin(instance, stamp, origin, limit)
        if swept:
            self.counters["keys_expired"] += swept
        if not believed:
            self.counters["leaps_refused"] += 1
            if origin != self.origin and self.store.clock() >= stamp - LEAP_MS:
                self.on_leap()

    def _run(
        self, entries: list[Command], *, own: bool, nested: bool = False
    ) -> list[Reply]:
        """Runs the commands of one value, or of a transaction in one; replies in their order."""
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
                    if command and command[0] == TRANSACTION and not nested:
                        replies.append(self._run_transaction(command, own=own))
                        continue
                    keyspace = keyspaces[database]
                    entry = find(command[0]) if command else None
                    if entry is None:
                        self.counters["bad_commands"] += 1
                        raise unknown_command(command or [b""])
                if not entry.minimum <= len(command) <= entry.maximum:
                    self.counters["bad_commands"] += 1
                    raise wrong_arity(entry)
                if entry.writes:
                    replies.append(entry.handler(keyspace, command))
                else:
                    replies.append(self._ride(entry, keyspace, command) if own else None)
            except CommandError as error:
                replies.append(error.reply)
        self.counters["commands_applied"] += len(entries)
        return replies

    def _ride(self, entry: Entry, keyspace: Keyspace, command: Command) -> Reply:
        """Runs a read that keeps its place among writes, for the client that waits here."""
        if entry.connects:
            return None
        if self._room <= 0:
            raise CommandError(
                f"ERR replies to reads among these writes are over {RIDING_BYTES} bytes; "
                "read them apart from the writes, or in smaller pieces"
            )
        if self._time_left <= 0:
            raise CommandError(
                f"ERR reads among these writes have taken more than {RIDING_S:g} s; read them "
                "apart from the writes, or in smaller pieces"
            )
        work_bytes = self.store.work_bytes
        began = thread_time()
        try:
            reply = entry.handler(keyspace, command)
        except CommandError:
            raise
        except Exception as error:  # a read changes nothing, here or elsewhere
            return internal_error(entry.full_name, error)
        finally:
            self.store.work_bytes = work_bytes  # no other replica runs it: writes must not differ
            self._time_left -= thread_time() - began
        self._room -= _held_bytes(reply)
        return reply

    def _run_transaction(self, command: Command, *, own: bool) -> Reply:
        """Runs the commands of a transaction; None when a watched key has changed."""
        try:
            watched, entries = split_transaction(command)
        except BadValue:
            self.counters["bad_commands"] += 1
            raise unknown_command(command) from None
        keyspaces = self.store.keyspaces
        for database, key, mark in watched:
            if keyspaces[database].mark(key) != mark:
                return None
        return self._run(entries, own=own, nested=True)

    def unknown(self, tickets: Sequence[int], error: P4xosError) -> None:
        """As `StateMachine.unknown`."""
        self.on_unknown(tickets, error)
        self.on_applied()

    def sync(self) -> int:
        """As `StateMachine.sync`."""
        return self.store.sync()

    def begin_sync(self) -> Callable[[], int]:
        """As `SyncingBeside.begin_sync`: all of it may be done beside the loop."""
        return self.store.sync

    def write_out(self) -> None:
        """As `WritingOut.write_out`."""
        self.store.write_out()

    def snapshot(self, directory: Path) -> int:
        """As `StateMachine.snapshot`."""
        return self.store.snapshot(directory)

    def verify(self, directory: Path) -> int:
        """As `Verifying.verify`."""
        return self.store.verify(directory)

    def install(self, directory: Path) -> None:
        """As `StateMachine.install`."""
        self.store.install(directory)
        self.moments.jumped(self.store.applied)


def _held_bytes(reply: Reply) -> int:
    """About what a reply takes in memory beside a small object."""
    if type(reply) is bytes:
        return len(reply)
    if type(reply) is list:
        return sum([SMALL_BYTES + _held_bytes(item) for item in reply])
    if type(reply) is dict:
        return sum([SMALL_BYTES + _held_bytes(item) for item in reply.values()])
    return 0


def _ignore(*_: object) -> None:
    """No server listens to this state machine."""
