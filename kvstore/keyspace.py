"""One database as the handlers of commands see it: `Keyspace` for writes, `Reader` for reads.

Handlers never read a clock: time is `now`, which is log time. Times are in ms since the epoch.
A key whose expiry is at or before log time is missing, whether or not its record is still there.
"""

from __future__ import annotations

from collections.abc import Iterable
from heapq import merge
from typing import TYPE_CHECKING

from kvstore.memory import CACHE_BYTES, CACHE_KEYS, MISSING
from kvstore.packing import DATABASES
from kvstore.records import (
    DATA,
    EXPIRING,
    EXPIRING_HEADER,
    PLAIN,
    PLAIN_HEADER,
    U64,
    expiry_of,
    version_of,
)
from kvstore.replies import CommandError

if TYPE_CHECKING:
    from kvstore.store import Store

MAX_VALUE_BYTES = 8 << 20
"""The longest value: what still travels through the log in fragments at the usual window."""
LARGE_BYTES = 64 << 10
"""Longer values are counted by `ENTRY_BYTES`."""
ENTRY_BYTES = 32 << 20
"""Of large values that one entry writes, or that its writes reply. A value of the log carries less;
but commands of a few bytes lengthen or copy values, and a batch is in memory until all of it is
applied."""
COUNTED_BYTES = 256
"""Shorter values are not counted: the most commands that an entry has hold 32 MiB of them."""
ENTRY_SMALL_BYTES = 256 << 20
"""The same as `ENTRY_BYTES` for values that are not large: four clients' fullest runs."""
ENTRY_WORK_BYTES = 1 << 30
"""Of values that one entry's writes work on, whether or not they are refused then: some tenths of a
second, on every replica. Counted are large ones, and those of commands that name many keys."""
WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class NeedsTime(Exception):
    """A key is due by this node's clock and not yet by log time: that has to move first."""


class Keyspace:
    """One database; writes belong to the current batch and to the entry under way.

    A handler checks everything before its first write: a batch is never taken back.
    """

    def __init__(self, store: Store, database: int) -> None:
        self.store = store
        self.database = database
        self._memory = store.memory
        self._time = store.time
        self._expiries = store.expiries
        self.set_slot(database)

    def set_slot(self, slot: int) -> None:
        """Where this database is stored; SWAPDB exchanges two slots."""
        self._slot = slot
        self._prefix = bytes((DATA + slot,))

    @property
    def now(self) -> int:
        """What relative times are counted from; the same on all replicas."""
        return self._time.entry

    def clock_ms(self) -> int:
        """What remaining times are counted to, never behind a key that is still there."""
        return self._time.now

    def get(self, key: bytes) -> bytes | None:
        """The string under a key, None when it is missing.

        Raises:
          CommandError: the key holds another kind of value.
        """
        full = self._prefix + key
        held = self._memory.recent.get(full, MISSING)
        if held is MISSING:
            held = self._memory.look_up(full)
        if held is None:
            return None
        kind = held[0]
        if len(held) > LARGE_BYTES:
            self.work(len(held))
        if kind == PLAIN:
            return held[PLAIN_HEADER:]
        if kind == EXPIRING:
            return None if self._is_due(held) else held[EXPIRING_HEADER:]
        raise CommandError(WRONG_TYPE)

    def get_for_reply(self, key: bytes) -> bytes | None:
        """As `get`, for a write that replies the value: all replicas hold it until they are done.

        Raises:
          CommandError: another kind of value; or this entry replies too much.
        """
        value = self.get(key)
        if value is not None:
            self._charge(len(value))
        return value

    def get_source(self, key: bytes) -> bytes:
        """As `get`, empty when missing, for a write that works on any number of keys.

        Raises:
          CommandError: another kind of value; or this entry works on too much.
        """
        value = self.get(key) or b""
        if len(value) <= LARGE_BYTES:  # else `get` has counted it
            self.work(len(value))
        return value

    def work(self, size: int) -> None:
        """Before a large value is copied or built: refuses to, where the entry has done too much.

        Else some ten thousand refused commands on a large value would keep all replicas busy for
        minutes.

        Raises:
          CommandError: this entry works on too much.
        """
        store = self.store
        store.work_bytes += size
        if store.work_bytes > ENTRY_WORK_BYTES:
            raise _too_much("values that one pipeline or transaction works on", ENTRY_WORK_BYTES)

    def contains(self, key: bytes) -> bool:
        """Whether the key exists, of whatever kind."""
        return self._held(key) is not None

    def version(self, key: bytes) -> int:
        """The instance of the log that last changed a key; 0 when it is missing."""
        held = self._held(key)
        return 0 if held is None else version_of(held)

    def mark(self, key: bytes) -> int:
        """What WATCH remembers of a key: another number whenever it has changed; 0: missing.

        The version alone would not do: SWAPDB may bring another database's key that the same
        entry wrote. A record's slot and version tell it from every other.
        """
        held = self._held(key)
        return 0 if held is None else version_of(held) * DATABASES + self._slot

    def expire_at(self, key: bytes) -> int | None:
        """When a key expires; None when it never does or is missing."""
        held = self._held(key)
        return None if held is None else expiry_of(held)

    def put(self, key: bytes, value: bytes, expire_at: int | None = None) -> None:
        """Makes a key hold a string, with this expiry or none, whatever it held before."""
        store = self.store
        memory = self._memory
        if len(value) > COUNTED_BYTES:
            self._charge(len(value))
        full = self._prefix + key
        before = memory.recent.get(full, MISSING)
        if before is MISSING:
            before = memory.look_up(full)
        if before is None:
            store.counts[self._slot] += 1
        elif before[0] == EXPIRING:
            self._expiries.discard(full, U64.unpack_from(before, PLAIN_HEADER)[0])
        stored = store.stamp + value
        if expire_at is not None:
            if expire_at <= self._time.now:
                self._delete(full)
                return
            self._expiries.add(full, expire_at)
            stored = b"S" + store.stamp[1:] + U64.pack(expire_at) + value
        memory.dirty[full] = memory.recent[full] = stored
        memory.recent_bytes += len(full) + len(stored)
        if memory.recent_bytes > CACHE_BYTES or len(memory.recent) > CACHE_KEYS:
            memory.turn()

    def replace(self, key: bytes, value: bytes) -> None:
        """Makes a key hold a string; an expiry that it has is kept."""
        held = self._held(key)
        if held is None or held[0] != EXPIRING:
            self.put(key, value)
            return
        if len(value) > COUNTED_BYTES:
            self._charge(len(value))
        header = b"S" + self.store.stamp[1:] + held[PLAIN_HEADER:EXPIRING_HEADER]
        self._memory.write(self._prefix + key, header + value)

    def set_expiry(self, key: bytes, expire_at: int | None) -> None:
        """Gives a key that exists an expiry, or takes it away; a past one deletes the key."""
        held = self._held(key)
        assert held is not None, "set_expiry wants a key that exists"
        if len(held) > LARGE_BYTES:
            self.work(len(held))
        value = held[EXPIRING_HEADER if held[0] == EXPIRING else PLAIN_HEADER :]
        self.put(key, value, expire_at)

    def remove(self, key: bytes) -> bool:
        """Deletes a key; false when there was none."""
        held = self._held(key)
        if held is None:
            return False  # the record of one that is due is left to the next sweep
        full = self._prefix + key
        if held[0] == EXPIRING:
            self._expiries.discard(full, U64.unpack_from(held, PLAIN_HEADER)[0])
        self._delete(full)
        return True

    def count(self) -> int:
        """Keys in this database; of very many that are due, those not yet removed still count."""
        due = self._expiries.count_due(self._slot, self._time.now)
        return self.store.counts[self._slot] - due

    def records(self) -> int:
        """Keys stored in this database, those that are due and not yet removed among them."""
        return self.store.counts[self._slot]

    def expiring(self) -> int:
        """How many of them have an expiry."""
        due = self._expiries.count_due(self._slot, self._time.now)
        return self._expiries.counts[self._slot] - due

    def clear(self) -> None:
        """Deletes every key of this database."""
        self.store.clear(self._slot)

    def scan(self, after: bytes | None, count: int) -> list[bytes]:
        """The first `count` keys in byte order behind `after`, from the first one when None."""
        dirty = self._memory.dirty
        prefix = self._prefix
        # No key lies between one and the same with a zero byte behind it.
        start = prefix if after is None else prefix + after + b"\0"
        new = sorted(key for key in dirty if key >= start and key[0] == prefix[0])
        stored = () if prefix[0] in self._memory.cleared else self.store.stored_keys(start)
        some_due = self._expiries.is_due(self._slot, self._time.now)
        found: list[bytes] = []
        last = b""
        for full in merge(stored, new):
            if len(found) == count:
                break
            if full == last or dirty.get(full, b"") is None:
                continue
            last = full
            if not (some_due and self._is_over(full)):
                found.append(full[1:])
        return found

    def _is_over(self, full: bytes) -> bool:
        """Whether a key that is stored no longer counts; leaves the cache as it is."""
        held = self._memory.peek(full)
        return held is None or (held[0] == EXPIRING and self._is_due(held))

    def _held(self, key: bytes) -> bytes | None:
        """What is stored for a key, None when it is missing."""
        full = self._prefix + key
        held = self._memory.recent.get(full, MISSING)
        if held is MISSING:
            held = self._memory.look_up(full)
        if held is not None and held[0] == EXPIRING and self._is_due(held):
            return None
        return held

    def check_room(self, values: Iterable[bytes]) -> None:
        """Before the first of several values is put: refuses them unless there is room for all."""
        store = self.store
        before = store.large_bytes, store.small_bytes
        try:
            for value in values:
                self._charge(len(value))
        finally:
            store.large_bytes, store.small_bytes = before

    def _charge(self, size: int) -> None:
        """Refuses to hold far more than the entry carries; on all replicas alike."""
        store = self.store
        if size > LARGE_BYTES:
            store.large_bytes += size
            if store.large_bytes > ENTRY_BYTES:
                raise _too_much("large values of one pipeline or transaction", ENTRY_BYTES)
        elif size > COUNTED_BYTES:
            store.small_bytes += size
            if store.small_bytes > ENTRY_SMALL_BYTES:
                raise _too_much("values of one pipeline or transaction", ENTRY_SMALL_BYTES)

    def _delete(self, full: bytes) -> None:
        self.store.counts[self._slot] -= 1
        self._memory.write(full, None)

    def _is_due(self, held: bytes) -> bool:
        """Whether a record with an expiry no longer counts."""
        due: bool = U64.unpack_from(held, PLAIN_HEADER)[0] <= self._time.now
        return due


def _too_much(what: str, limit: int) -> CommandError:
    return CommandError(f"ERR {what} are over {limit} bytes; write them in smaller steps")


class Reader(Keyspace):
    """One database for reads behind a read index, at a moment of this node's clock.

    What is due by that moment must not be seen, and only log time may hide it: `NeedsTime` is
    raised by whatever meets such a key.
    """

    moment = 0
    """This node's clock when the read came; 0 once log time is all that is asked for."""

    def work(self, size: int) -> None:
        """Not counted: a read belongs to no entry, and keeps this replica alone busy."""

    @property
    def now(self) -> int:
        """Log time."""
        return self._time.now

    def clock_ms(self) -> int:
        """This node's clock when the read came, or log time when that is ahead."""
        return max(self.moment, self._time.now)

    def count(self) -> int:
        """As `Keyspace.count`."""
        self._check_moment()
        return super().count()

    def expiring(self) -> int:
        """As `Keyspace.expiring`."""
        self._check_moment()
        return super().expiring()

    def scan(self, after: bytes | None, count: int) -> list[bytes]:
        """As `Keyspace.scan`."""
        self._check_moment()
        return super().scan(after, count)

    def _check_moment(self) -> None:
        if self._time.now < self.moment and self._expiries.is_due(self._slot, self.moment):
            raise NeedsTime

    def _is_due(self, held: bytes) -> bool:
        expire_at = U64.unpack_from(held, PLAIN_HEADER)[0]
        if expire_at <= self._time.now:
            return True
        if expire_at <= self.moment:
            raise NeedsTime
        return False
