"""Keys that are due, in order of time, and their removal.

A key whose expiry is at or before log time is missing for everybody at once; its record is removed
later, by sweeps. A sweep is part of applying an entry, removes a bounded number of keys, and
depends on the state alone: every replica removes the same keys at the same entry, however its
batches were cut. The index is in RocksDB, beside the data (`kvstore.records`); only the keys of the
batch under way are here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from heapq import heappop, heappush
from itertools import islice

from kvstore.memory import Memory
from kvstore.packing import DATABASES
from kvstore.records import DATA, INDEX, U64, index_key, split_index_key

NEVER = 1 << 64
"""Later than any expiry."""
COUNTED_DUE = 4096
"""Keys that are due and not yet removed, as far as `count_due` looks: it must not take long."""
_NO_KEY = b"\xff"
"""Behind every key of the index."""

StoredKeys = Callable[[bytes], Iterator[bytes]]
"""The keys in RocksDB from one on, in order, that begin with the same byte."""


class ExpiryIndex:
    """The expiries of one store."""

    def __init__(self, memory: Memory, stored_keys: StoredKeys) -> None:
        """Knows nothing yet; see `load`."""
        self._memory = memory
        self._stored_keys = stored_keys
        self.reset()

    def reset(self) -> None:
        """Forgets what it knows of RocksDB's content."""
        self.counts = [0] * DATABASES
        """Keys with an expiry, by slot."""
        self.next_due = NEVER
        """No key expires before; some key at about then."""
        self._next_due = [NEVER] * DATABASES
        self._starts = [bytes((INDEX + slot,)) for slot in range(DATABASES)]
        """Nothing of the index lies before: RocksDB would walk through what was deleted there."""
        self._added: list[list[bytes]] = [[] for _ in range(DATABASES)]
        """Index keys added in this batch, each a heap; those of them that `dirty` has as deleted
        do not count."""

    def load(self, counts: list[int]) -> None:
        """Finds in RocksDB when the first key is due."""
        self.counts = counts
        for slot in range(DATABASES):
            if counts[slot]:
                for key in islice(self._stored(slot), 1):
                    self._next_due[slot] = U64.unpack_from(key, 1)[0]
        self.next_due = min(self._next_due)

    def add(self, full: bytes, expire_at: int) -> None:
        """A key of the data has this expiry from now on, which is ahead of log time."""
        key = index_key(full, expire_at)
        slot = full[0] - DATA
        self._memory.dirty[key] = b""
        heappush(self._added[slot], key)
        self.counts[slot] += 1
        if expire_at < self._next_due[slot]:
            self._next_due[slot] = expire_at
            self.next_due = min(self.next_due, expire_at)

    def discard(self, full: bytes, expire_at: int) -> None:
        """A key of the data no longer has this expiry."""
        self._memory.dirty[index_key(full, expire_at)] = None
        self.counts[full[0] - DATA] -= 1

    def sweep(self, now: int, limit: int) -> list[bytes]:
        """Takes the first `limit` keys that are due out of the index.

        Returns:
          The keys of the data, which the caller deletes.
        """
        swept: list[bytes] = []
        for slot in range(DATABASES):
            if self._next_due[slot] <= now:
                self._sweep_slot(slot, now, limit, swept)
        self.next_due = min(self._next_due)
        return swept

    def _sweep_slot(self, slot: int, now: int, limit: int, swept: list[bytes]) -> None:
        dirty, added = self._memory.dirty, self._added[slot]
        stored = self._stored(slot)
        from_stored = next(stored, _NO_KEY)
        while True:
            while added and dirty[added[0]] is None:
                heappop(added)  # discarded again
            key = min(from_stored, added[0]) if added else from_stored
            if key == _NO_KEY:
                self._next_due[slot] = NEVER
                return
            if key == from_stored:
                from_stored = next(stored, _NO_KEY)
                if dirty.get(key, b"") is None:
                    continue
            expire_at, full = split_index_key(key)
            if expire_at > now or len(swept) == limit:
                self._next_due[slot] = expire_at
                return
            swept.append(full)
            dirty[key] = None
            self.counts[slot] -= 1
            self._starts[slot] = key

    def is_due(self, slot: int, moment: int) -> bool:
        """Whether a key of the slot may be due by then; no is certain."""
        return self._next_due[slot] <= moment

    def count_due(self, slot: int, now: int) -> int:
        """How many keys are due and not yet removed; stops at about `COUNTED_DUE`."""
        if self._next_due[slot] > now:
            return 0
        dirty, until = self._memory.dirty, U64.pack(now)
        due = {
            key
            for key in self._added[slot]
            if key[1:9] <= until and dirty[key] is not None
        }
        for key in islice(self._stored(slot), COUNTED_DUE):
            if key[1:9] > until:
                break
            if dirty.get(key, b"") is not None:
                due.add(key)
        return len(due)

    def clear(self, slot: int) -> None:
        """The slot is emptied; the caller has the memory do it."""
        self.counts[slot] = 0
        self._added[slot] = []
        self._next_due[slot] = NEVER
        self.next_due = min(self._next_due)

    def committed(self) -> None:
        """The batch is in RocksDB."""
        for added in self._added:
            if added:
                added.clear()

    def _stored(self, slot: int) -> Iterator[bytes]:
        """The index of a slot in RocksDB, in order."""
        if INDEX + slot in self._memory.cleared:
            return iter(())
        return self._stored_keys(self._starts[slot])
