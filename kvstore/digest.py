"""The state hash of a replica: equal on all replicas that have applied the same instances.

It covers log time, which slot each database has, and every record of the data and of the expiry
index, as stored, in the order of their keys; the store's other records (position, sessions,
cluster) are left out, so that the hash of a backup is that of the replicas which are restored from
it. Hashed are blocks:

    log time, as stored; the slot of each database, a byte each
    of each BLOCK_RECORDS records, the last block having fewer:
        u32 bytes of key, u32 bytes of value, for each record    big-endian
        key, value, for each record

Replicas cut the log into batches as they like, so a state at a given instance is often one that no
batch ended with. `Moments` takes it as the batch crosses the instance: an iterator, which sees
RocksDB as it is then, and the batch's changes until there (`View`). Hashing goes on beside the
node's work, in short turns.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import islice
from typing import Final, NamedTuple, Protocol

import trio

from kvstore.packing import DATABASES
from kvstore.records import DATA
from p4xos.errors import P4xosError
from p4xos.framing import integer_untrusted

Record = tuple[bytes, bytes]

BLOCK_RECORDS = 256
HASH_BYTES = 16
TURN_S = 0.0005
"""How long the node's loop is kept by one turn; other tasks of the node wait so long at most."""
PAUSE_S = 0.001
"""Between two turns: the node's work comes first."""
WAIT_S = 3.0
"""How long an instance is waited for that has not been applied yet."""
NEVER: Final = 1 << 64
"""Above every instance."""

_FIRST_RECORD = bytes((DATA,))


class View(NamedTuple):
    """A state that does not change any more."""

    instance: int
    """The last one in it."""
    log_time: bytes
    slots: list[int]
    """Where each database is: by number, what its first byte is above `DATA`."""
    counts: list[int]
    """Keys by slot, as the store keeps count."""
    records: Iterator[Record]
    """From `_FIRST_RECORD` on, in the order of their keys."""


class Digest(NamedTuple):
    """What a state comes to."""

    hash: str
    counts: list[int]
    """Keys by slot, counted."""

    @property
    def keys(self) -> int:
        """Of all databases."""
        return sum(self.counts)


class StateHash:
    """Takes a state record by record."""

    def __init__(self, log_time: bytes, slots: list[int]) -> None:
        self._hash = hashlib.blake2b(log_time + bytes(slots), digest_size=HASH_BYTES)
        self._counts = [0] * (DATA + DATABASES)

    def take(self, block: list[Record]) -> None:
        """The next BLOCK_RECORDS records; the last time, what is left."""
        parts = [part for record in block for part in record]
        self._hash.update(struct.pack(f">{len(parts)}I", *map(len, parts)))
        self._hash.update(b"".join(parts))
        if block[0][0][0] == block[-1][0][0] < len(self._counts):
            self._counts[block[0][0][0]] += len(block)
            return
        for key, _ in block:
            if key[0] < len(self._counts):
                self._counts[key[0]] += 1

    def digest(self) -> Digest:
        """Of what was taken."""
        return Digest(self._hash.hexdigest(), self._counts[DATA:])


def digest_of(view: View) -> Digest:
    """The digest of a state, in one go; for states that nobody serves."""
    state = StateHash(view.log_time, view.slots)
    while block := list(islice(view.records, BLOCK_RECORDS)):
        state.take(block)
    return state.digest()


async def digest_beside(view: View) -> Digest:
    """The digest of a state, in short turns beside a node's work."""
    state = StateHash(view.log_time, view.slots)
    turn_ends = trio.current_time() + TURN_S
    while block := list(islice(view.records, BLOCK_RECORDS)):
        state.take(block)
        if trio.current_time() >= turn_ends:
            await trio.sleep(PAUSE_S)
            turn_ends = trio.current_time() + TURN_S
    return state.digest()


def overlaid(
    stored: Iterator[Record], changes: Mapping[bytes, bytes | None], cleared: frozenset[int]
) -> Iterator[Record]:
    """Records as changes leave them, in order.

    Args:
      stored: by key.
      changes: what keys hold from now on; None: nothing.
      cleared: first bytes of keys of which nothing stored counts.
    """
    if cleared:
        stored = (record for record in stored if record[0][0] not in cleared)
    if not changes:
        yield from stored
        return
    kept = (record for record in stored if record[0] not in changes)
    new = ((key, value) for key, value in sorted(changes.items()) if value is not None)
    yield from merge(kept, new)


class Viewed(Protocol):
    """A store that can be looked at."""

    @property
    def applied(self) -> int:
        """The last instance in it."""
        ...

    def view(self, instance: int) -> View:
        """What it holds now, with the changes of the batch under way, which are through there."""
        ...


class MomentPassed(P4xosError):
    """The state at an instance cannot be had."""

    def __init__(self, instance: int, applied: int) -> None:
        where = "already" if applied > instance else "only"
        super().__init__(
            f"this replica is {where} at instance {applied}, and its state at {instance} was asked "
            "for; ask for a later one, or an earlier one"
        )
        self.applied = applied


class _Wait:
    """Somebody waits for an instance."""

    def __init__(self, instance: int) -> None:
        self.instance = instance
        self.view: View | None = None
        self.settled = trio.Event()


class Moments:
    """Views of a store at given instances, for whoever waits for them."""

    def __init__(self, store: Viewed) -> None:
        self.due = NEVER
        """The lowest instance that is waited for: whoever applies instances looks at this first."""
        self._store = store
        self._waits: list[_Wait] = []

    async def at(self, instance: int) -> View:
        """The state that has applied this instance, and none behind it.

        Raises:
          MomentPassed: it is past already, or was not reached within WAIT_S.
        """
        if self._store.applied >= instance:
            if self._store.applied > instance:
                raise MomentPassed(instance, self._store.applied)
            return self._store.view(instance)
        wait = _Wait(instance)
        self._waits.append(wait)
        self._look()
        try:
            with trio.move_on_after(WAIT_S):
                await wait.settled.wait()
        finally:
            if wait in self._waits:
                self._waits.remove(wait)
                self._look()
        if wait.view is None:
            raise MomentPassed(instance, self._store.applied)
        return wait.view

    def reached(self, instance: int) -> None:
        """Everything through an instance is applied, and nothing behind it."""
        for wait in self._take(instance):
            wait.view = self._store.view(wait.instance)
            wait.settled.set()

    def jumped(self, instance: int) -> None:
        """A snapshot took the place of the state: what was jumped over cannot be had."""
        for wait in self._take(instance):
            wait.settled.set()

    def _take(self, through: int) -> list[_Wait]:
        taken = [wait for wait in self._waits if wait.instance <= through]
        self._waits = [wait for wait in self._waits if wait.instance > through]
        self._look()
        return taken

    def _look(self) -> None:
        self.due = min((wait.instance for wait in self._waits), default=NEVER)


class Answers:
    """What a node answers to the question `digest`; one at a time, since each costs a share."""

    def __init__(self, moments: Moments) -> None:
        self._moments = moments
        self._one_at_a_time = trio.CapacityLimiter(1)

    async def digest_untrusted(self, head: Mapping[str, object]) -> Mapping[str, object]:
        """Asked: at, an instance. Answered: hash and counts; or passed, where the node is."""
        instance = integer_untrusted(head, "at")
        try:
            view = await self._moments.at(instance)
        except MomentPassed as error:
            return {"passed": error.applied}
        async with self._one_at_a_time:
            digest = await digest_beside(view)
        return {"hash": digest.hash, "counts": digest.counts, "kept_counts": view.counts}
