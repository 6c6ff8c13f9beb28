"""Stores with a clock that a test sets, and the values of the log that it feeds them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from kvstore.machine import KvStateMachine
from kvstore.packing import join_value, pack_commands
from kvstore.replies import Reply
from kvstore.resp import Command
from kvstore.store import Store
from p4xos.log import Delivered

CLUSTER = 0x5EED
NOON = 1_700_000_000_000
"""A time in ms that no test leaves far behind."""


class Clock:
    """A clock that a test moves."""

    def __init__(self, now: int = NOON) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def value_of(stamp: int, *commands: Command, origin: int = 0, database: int = 0) -> bytes:
    """A value of the log."""
    return join_value(pack_commands(commands, database), stamp, origin)


class Replica:
    """A store and its state machine, fed by hand."""

    def __init__(
        self, directory: Path, now: int = NOON, origin: int = 0, *, alone: bool = True
    ) -> None:
        self.directory = directory
        self.clock = Clock(now)
        self.origin = origin
        self.alone = alone
        self.leaps = 0
        self.replies: dict[int, list[Reply]] = {}
        self._open()

    def _open(self) -> None:
        self.store = Store(self.directory, CLUSTER, self.clock)
        self.machine = KvStateMachine(self.store, self.origin, alone=self.alone)
        self.machine.on_leap = self._leap
        self.machine.on_replies = self.replies.__setitem__

    def _leap(self) -> None:
        self.leaps += 1

    def reopen(self) -> None:
        self.store.close()
        self._open()

    def apply(self, *values: bytes) -> None:
        """One batch, as of another node."""
        first = self.store.applied + 1
        batch = [Delivered(first + k, None, value) for k, value in enumerate(values)]
        self.machine.apply(batch, first + len(values) - 1, {})

    def run(self, *commands: Command, stamp: int | None = None) -> list[Reply]:
        """One entry of this node, and its replies."""
        instance = self.store.applied + 1
        value = value_of(
            self.clock.now if stamp is None else stamp, *commands, origin=self.origin
        )
        self.machine.apply([Delivered(instance, instance, value)], instance, {})
        return self.replies[instance]

    def tick(self, stamp: int, origin: int = 0) -> None:
        """An entry that only moves time."""
        self.apply(value_of(stamp, origin=origin))

    def content(self) -> dict[bytes, bytes | None]:
        """Everything that RocksDB has."""
        store = self.store
        return {
            key: store._get(key)
            for first in range(0x30)
            for key in store.stored_keys(bytes((first,)))
        }

    def keys(self, database: int = 0) -> Sequence[bytes]:
        return self.store.keyspaces[database].scan(None, 1 << 20)
