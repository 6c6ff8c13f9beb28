"""One replica's data in RocksDB: keys, counts, applied instance and learner state in one batch.

Strategy. Everything lives in one column family, told apart by the first byte of the key
(`kvstore.records`), so one `WriteBatch` is atomic over all of it. During a batch, writes go to
`memory` and are seen by the reads behind them; `commit` writes them with `applied` and log time.
Writes reach the operating system at once and the disk at `sync`: after a crash RocksDB's log ends
somewhere, and whatever it holds, data and `applied` agree (docs/PROTOCOL.md, section 7;
docs/traps.md, 14).

All calls come from one thread, save `sync` and `write_out`, which a worker thread may make.
"""

from __future__ import annotations

import shutil
import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rocksdict import (
    AccessType,
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
)

from kvstore.digest import Record, View, overlaid
from kvstore.expiry import ExpiryIndex
from kvstore.keyspace import Keyspace, Reader
from kvstore.logtime import Clock, LogTime, wall_clock
from kvstore.memory import Memory
from kvstore.packing import DATABASES
from kvstore.records import DATA, INDEX, U64, stamp_of
from p4xos import checkpointed, generations
from p4xos.errors import P4xosError
from p4xos.generations import Reached, explain
from p4xos.write_ahead import WRITE_BUFFER_BYTES, WriteAhead

__all__ = ["Keyspace", "Store", "StoreError"]

FORMAT = 2
"""Version of all that is below; a store of another one is refused."""
POINT_DELETES = 64
"""A database of no more keys is emptied key by key: every range tombstone slows all later reads."""

_BINDING_FILE = "rocksdict-config.json"
"""What the binding writes beside RocksDB's files, at every opening."""
_META_FORMAT = b"\x00format"
_META_APPLIED = b"\x00applied"
_META_LEARNER = b"\x00learner"
_META_COUNTS = b"\x00counts"
_META_TIME = b"\x00time"
_FORMAT = struct.Struct(">II")
_COUNTS = struct.Struct(f">{2 * DATABASES}Q{DATABASES}B")
"""Keys of each slot, keys with an expiry of each slot, the slot of each database."""


class StoreError(P4xosError):
    """The store cannot be used; the message names the directory and what to do."""

    def __init__(self, directory: Path, what: str) -> None:
        super().__init__(f"store {directory}: {what}")
        self.directory = directory
        self.what = f"store {directory}: {what.partition(';')[0]}"
        """The same without what to do."""
        self.damaged = what.startswith(generations.DAMAGED)
        """Whether it holds something else than was written; nothing in it can be believed then."""


class Store:
    """The state of one replica; `Store(directory, cluster)` opens or creates it."""

    def __init__(self, directory: Path, cluster: int, clock: Clock = wall_clock) -> None:
        """Opens the store.

        Args:
          directory: created when it does not exist.
          cluster: the cluster's id; a store of another cluster is refused.
          clock: this node's, for what it proposes and reads; the state never depends on it.

        Raises:
          StoreError: in use, damaged, of another cluster or format, or not permitted.
        """
        self.directory = directory
        self.cluster = cluster
        self.clock = clock
        self._prepare()
        # RocksDB must not be closed in the midst of either.
        self._writing_out, self._syncing = threading.Lock(), threading.Lock()
        try:
            condemned = generations.condemned(directory)
            if condemned is not None:
                raise StoreError(directory, explain(f"Corruption: found before: {condemned}"))
            self._live = generations.open_current(directory)
        except OSError as error:
            raise StoreError(directory, explain(error)) from error
        except ValueError as error:
            raise StoreError(directory, str(error)) from error
        fresh = not generations.is_marked(directory)
        self._open(self._live, create=fresh)
        self._reached: Reached | None = None
        try:
            self._load_meta(fresh=fresh)
            self._reached = Reached(directory)
            short = self._reached.check(self._applied)
            if short is not None:
                raise StoreError(directory, short)
            generations.mark(directory, self._live)
        except OSError as error:
            self.abandon()
            raise StoreError(directory, explain(error)) from error
        except BaseException:
            self.abandon()
            raise

    def _prepare(self) -> None:
        """What stands for the content of the database; `_reset` and `_load_meta` fill it."""
        self.memory = Memory(self._get)
        self.time = LogTime()
        self.expiries = ExpiryIndex(self.memory, self.stored_keys)
        self.keyspaces = [Keyspace(self, database) for database in range(DATABASES)]
        self.readers = [Reader(self, database) for database in range(DATABASES)]
        self._reset()

    def _open(self, path: Path, *, create: bool = False) -> None:
        options = _options()
        options.create_if_missing(create)  # else what is left of a damaged one would be removed
        try:
            self._database = Rdict(str(path), options)
            self._log = WriteAhead(self._database)
        except Exception as error:  # rocksdict raises plain Exception
            raise StoreError(self.directory, explain(error)) from error

    def _reset(self) -> None:
        """Forgets everything that stands for the content of the database."""
        self.memory.reset()
        self.time.reset()
        self.expiries.reset()
        self.counts = [0] * DATABASES
        """Records of each slot, those of keys that are due among them."""
        self._set_slots(list(range(DATABASES)))
        self.stamp = stamp_of(0)
        """What `Keyspace.put` writes before a value: the kind, and the entry under way."""
        self.large_bytes = self.small_bytes = self.work_bytes = 0
        """What the entry under way has written and worked on: see the bounds in `Keyspace`."""
        self._stored_counts = b""
        self._stored_time = b""
        self._applied = 0
        self._synced = 0

    def _load_meta(self, *, fresh: bool) -> None:
        found = self._get(_META_FORMAT)
        if found is None:
            if not fresh:
                raise StoreError(self.directory, explain("Corruption: no format record"))
            try:
                self._database[_META_FORMAT] = _FORMAT.pack(FORMAT, self.cluster)
                self._log.sync()
            except Exception as error:
                raise StoreError(self.directory, explain(error)) from error
            return
        version, cluster = _FORMAT.unpack_from(found)
        if version != FORMAT:
            raise StoreError(
                self.directory, f"it has format {version}, this program writes format {FORMAT}; "
                "use the program that wrote it"
            )
        if cluster != self.cluster:
            raise StoreError(
                self.directory, f"it belongs to cluster {cluster:08x}, not to {self.cluster:08x}; "
                "name another directory, or move this one away"
            )
        applied = self._get(_META_APPLIED)
        counts, time = self._get(_META_COUNTS), self._get(_META_TIME)
        if applied is not None:
            self._applied = self._synced = U64.unpack(applied)[0]
        if time is not None:
            self._stored_time = time
            self.time.unpack(time)
        if counts is not None:
            self._stored_counts = counts
            numbers = list(_COUNTS.unpack(counts))
            self.counts = numbers[:DATABASES]
            self.expiries.load(numbers[DATABASES : 2 * DATABASES])
            self._set_slots(numbers[2 * DATABASES :])

    def _get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error
        return value

    @property
    def applied(self) -> int:
        """The last instance whose effect is in the store; 0 when none."""
        return self._applied

    def learner_state(self) -> dict[bytes, bytes]:
        """The learner's records that `commit` stored beside `applied`."""
        try:
            return checkpointed.read(self._database, _META_LEARNER)
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error

    def begin(self, instance: int, stamp: int, origin: int, sweep_limit: int) -> tuple[bool, int]:
        """Begins an entry of the log: its time, its version, and the removal of what is due.

        Args:
          instance: of the entry.
          stamp: its proposer's clock, in ms since the epoch.
          origin: its proposer's id.
          sweep_limit: keys removed at most.

        Returns:
          Whether the stamp was believed, and how many keys were removed.
        """
        self.stamp = stamp_of(instance)
        self.large_bytes = self.small_bytes = self.work_bytes = 0
        believed = self.time.advance(stamp, origin)
        if self.expiries.next_due > self.time.now:
            return believed, 0
        swept = self.expiries.sweep(self.time.now, sweep_limit)
        for full in swept:
            self.memory.drop(full)
            self.counts[full[0] - DATA] -= 1
        return believed, len(swept)

    def clear(self, slot: int) -> None:
        """Empties the database in a slot, as part of this batch."""
        self.memory.clear(DATA + slot)
        self.memory.clear(INDEX + slot)
        self.expiries.clear(slot)
        self.counts[slot] = 0

    def swap(self, first: int, second: int) -> None:
        """Exchanges two databases, as part of this batch; no key is touched."""
        slots = self._slots
        slots[first], slots[second] = slots[second], slots[first]
        self._set_slots(slots)

    def _set_slots(self, slots: list[int]) -> None:
        self._slots = slots
        for keyspace in (*self.keyspaces, *self.readers):
            keyspace.set_slot(slots[keyspace.database])

    def commit(self, applied: int, learner_state: Mapping[bytes, bytes | None]) -> None:
        """Writes this batch in one piece: data, counts, applied instance and learner state.

        Args:
          applied: the last instance of the batch.
          learner_state: the learner's records that changed; None: to be removed.

        Raises:
          StoreError: the write failed. The store must not be used any more.
        """
        assert applied >= self._applied, "the applied instance never goes back"
        try:
            batch = WriteBatch(raw_mode=True)
            for first in sorted(self.memory.cleared):
                self._delete_all(batch, first)
            put, delete = batch.put, batch.delete
            for key, value in self.memory.dirty.items():
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            counts = _COUNTS.pack(*self.counts, *self.expiries.counts, *self._slots)
            if counts != self._stored_counts:
                put(_META_COUNTS, counts)
            checkpointed.write(batch, _META_LEARNER, learner_state)
            time = self.time.pack()
            if time != self._stored_time:
                put(_META_TIME, time)
            put(_META_APPLIED, U64.pack(applied))
            self._log.write(batch)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error
        self._applied = applied
        self._stored_counts = counts
        self._stored_time = time
        self.memory.committed()
        self.expiries.committed()

    def _delete_all(self, batch: WriteBatch, first: int) -> None:
        """Deletes what RocksDB has under this first byte."""
        keys = []
        for key in self.stored_keys(bytes((first,))):
            keys.append(key)
            if len(keys) > POINT_DELETES:
                batch.delete_range(bytes((first,)), bytes((first + 1,)))
                return
        for key in keys:
            batch.delete(key)

    def stored_keys(self, start: bytes) -> Iterator[bytes]:
        """The keys in RocksDB from `start` on that begin with its first byte, in order."""
        try:
            iterator = self._database.iter()
            iterator.seek(start)
            while iterator.valid():
                key: bytes = iterator.key()
                if key[0] != start[0]:
                    break
                yield key
                iterator.next()
            iterator.status()  # an iterator that met damage is merely not valid
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error

    def sync(self) -> int:
        """Makes what is applied durable, by one fsync; returns the instance it is durable through.

        A worker thread may call it at any time.

        Raises:
          StoreError: the fsync failed. Nothing since the last one may be counted on.
        """
        with self._syncing:
            through = self._applied  # what is written while it lasts is not counted on
            if through > self._synced:
                try:
                    self._log.sync()
                    if self._reached is not None:
                        self._reached.write(through)
                except Exception as error:
                    raise StoreError(self.directory, explain(error)) from error
                self._synced = through
            return through

    def write_out(self) -> None:
        """Writes tables of what is only in memory and RocksDB's log, so that `snapshot` is quick.

        A worker thread may call it at any time.

        Raises:
          StoreError: it could not be written.
        """
        with self._writing_out:
            try:
                self._log.write_out()
            except Exception as error:
                raise StoreError(self.directory, explain(error)) from error

    def sizes(self) -> dict[str, int]:
        """Bytes of the data by part: tables on disk, changes in memory, blocks in the cache."""
        names = {
            "tables": "rocksdb.total-sst-files-size",
            "memory": "rocksdb.cur-size-all-mem-tables",
            "cache": "rocksdb.block-cache-usage",
        }
        found = {part: self._database.property_int_value(name) for part, name in names.items()}
        return {part: size or 0 for part, size in found.items()}

    def snapshot(self, directory: Path) -> int:
        """Writes a consistent copy into `directory`, which must not exist; returns its instance."""
        assert not self.memory.dirty, "a snapshot is taken between batches"
        try:
            self._log.sync()  # the checkpoint begins a new log: see `write_ahead`
            Checkpoint(self._database).create_checkpoint(str(directory))
        except Exception as error:
            raise StoreError(directory, explain(error)) from error
        return self._applied

    def view(self, instance: int) -> View:
        """What it holds now, with the changes of the batch under way, which are through there."""
        reading = ReadOptions()
        reading.fill_cache(False)  # type: ignore[call-arg]  # rocksdict's types miss the argument
        try:
            # An iterator sees what there is when it is made; a snapshot's would forget that when
            # it is given options.
            stored: Any = self._database.items(from_key=bytes((DATA,)), read_opt=reading)
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error
        changes, cleared = dict(self.memory.dirty), frozenset(self.memory.cleared)
        records = overlaid(self._read_on(iter(stored)), changes, cleared)
        return View(instance, self.time.pack(), list(self._slots), list(self.counts), records)

    def _read_on(self, stored: Iterator[Record]) -> Iterator[Record]:
        try:
            yield from stored
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error

    def install(self, directory: Path) -> None:
        """Replaces all data by those of a snapshot; a crash leaves either the old or the new.

        Raises:
          StoreError: the snapshot is damaged or of another cluster; the old state is untouched.
        """
        try:
            incoming = generations.prepare(self.directory, self._live, directory)
            Store._check_snapshot(incoming, self.cluster)
            generations.mark(self.directory, incoming)
        except OSError as error:
            raise StoreError(self.directory, explain(error)) from error
        with self._writing_out, self._syncing:
            self._database.close()
            self._live = incoming
            self._open(incoming)
            self._reset()
            self._load_meta(fresh=False)
        generations.drop_others(self.directory, incoming)

    @classmethod
    def look_at(cls, snapshot: Path, scratch: Path) -> Self:
        """Opens a snapshot of any cluster to read it; nothing in it changes.

        Args:
          snapshot: written by `snapshot`, of this format.
          scratch: an empty directory, for what RocksDB writes even when it only reads.

        Raises:
          StoreError: it is damaged, or of another format.
        """
        for path in snapshot.iterdir():
            (scratch / path.name).symlink_to(path.absolute())
        own = scratch / _BINDING_FILE
        own.unlink(missing_ok=True)
        with suppress(FileNotFoundError):
            shutil.copyfile(snapshot / _BINDING_FILE, own)
        store = cls.__new__(cls)
        store.directory, store.clock = snapshot, wall_clock
        store._reached = None
        store._prepare()
        try:
            store._database = Rdict(str(scratch), _options(), access_type=AccessType.read_only())
        except Exception as error:
            raise StoreError(snapshot, explain(error)) from error
        try:
            store.cluster = _FORMAT.unpack_from(store._get(_META_FORMAT) or bytes(8))[1]
            store._load_meta(fresh=False)
        except BaseException:
            store._database.close()
            raise
        return store

    @staticmethod
    def give_away(snapshot: Path, cluster: int) -> None:
        """Makes a snapshot that of another cluster, without sessions; its instance stays.

        Raises:
          StoreError: it is damaged, or could not be written.
        """
        try:
            database = Rdict(str(snapshot), _options())
            try:
                batch = WriteBatch(raw_mode=True)
                batch.put(_META_FORMAT, _FORMAT.pack(FORMAT, cluster))
                batch.delete_range(_META_LEARNER, _META_LEARNER + b"\xff")
                database.write(batch)
                database.flush(True)
                database.flush_wal(True)
            finally:
                database.close()
        except Exception as error:
            raise StoreError(snapshot, explain(error)) from error

    def verify(self, directory: Path) -> int:
        """Reads all of a snapshot, which checks each block of it; returns its instance.

        What was copied from a damaged table is as damaged, though it came whole. A worker thread
        may call it, and nobody else uses the snapshot meanwhile.

        Raises:
          StoreError: it is damaged, or not of this cluster.
        """
        candidate = Store.__new__(Store)
        candidate.directory, candidate.cluster = directory, self.cluster
        candidate._prepare()
        candidate._open(directory)
        try:
            candidate._load_meta(fresh=False)
            found = [0] * DATABASES
            for first, keys in groupby(candidate._all_keys(), key=itemgetter(0)):
                if DATA <= first < DATA + DATABASES:
                    found[first - DATA] = sum(1 for _ in keys)
            if found != candidate.counts:
                raise StoreError(directory, explain("Corruption: it has not the keys it counts"))
            return candidate._applied
        finally:
            candidate._database.close()

    def _all_keys(self) -> Iterator[bytes]:
        reading = ReadOptions()
        reading.fill_cache(False)  # type: ignore[call-arg]  # rocksdict's types miss the argument
        try:
            yield from self._database.keys(read_opt=reading)
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error

    @staticmethod
    def _check_snapshot(incoming: Path, cluster: int) -> None:
        """Opens a snapshot as a store would, without making it the one in use."""
        candidate = Store.__new__(Store)
        candidate.directory, candidate.cluster = incoming, cluster
        candidate._prepare()
        candidate._open(incoming)
        try:
            candidate._load_meta(fresh=False)
        finally:
            candidate._database.close()

    def close(self) -> None:
        """Closes the store; what is applied is durable afterwards.

        Raises:
          StoreError: it could not be made durable; closed all the same.
        """
        try:
            self.sync()
        except StoreError:
            self.abandon()
            raise
        try:
            self._database.close()
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error
        finally:
            if self._reached is not None:
                self._reached.close()

    def abandon(self) -> None:
        """Closes the store behind an error; what was not synced may be lost, the log has it."""
        with suppress(Exception):  # the error that led here is the one to be told
            self._database.close()
        if self._reached is not None:
            self._reached.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
        else:
            self.abandon()


def _options() -> Options:
    """How RocksDB is opened; values that bound memory, disk or damage carry their reason."""
    options = Options(raw_mode=True)
    # Of what was not synced a power cut may keep a later piece and lose an earlier: the log then
    # counts up to there. That nothing which was synced is cut off so, `generations.Reached` sees.
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(3)
    options.set_max_background_jobs(2)
    options.set_max_open_files(512)
    options.set_max_log_file_size(4 << 20)  # RocksDB's own LOG: without these it grows for ever
    options.set_keep_log_file_num(4)
    options.set_stats_dump_period_sec(0)
    options.set_bytes_per_sync(1 << 20)  # spreads writing back, so that a sync finds little to do
    options.set_wal_bytes_per_sync(1 << 20)
    table = BlockBasedOptions()
    table.set_bloom_filter(10, False)  # most SETs ask whether a key exists
    table.set_block_cache(Cache(32 << 20))
    options.set_block_based_table_factory(table)
    return options
