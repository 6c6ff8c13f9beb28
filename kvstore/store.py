"""One replica's data in RocksDB: keys, counts, applied instance and learner state in one batch.

Strategy. Everything lives in one column family, told apart by the first byte of the key, so one
`WriteBatch` is atomic over all of it. During a batch, writes go to `_dirty` and are seen by the
reads behind them; `commit` writes them with `applied`. `_recent` keeps what was lately read or
written, so that a hot key costs a dictionary look-up and no RocksDB call. Writes reach the
operating system at once and the disk at `sync`: after a crash RocksDB's log ends somewhere, and
whatever it holds, data and `applied` agree (docs/PROTOCOL.md, section 7; docs/traps.md, 14).

All calls come from one thread, save `sync`, which a worker thread may make.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Checkpoint,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
)

from kvstore.packing import DATABASES
from kvstore.replies import CommandError
from p4xos import generations
from p4xos.errors import P4xosError
from p4xos.generations import explain

FORMAT = 1
"""Version of all that is below; a store of another one is refused."""
CACHE_BYTES = 8 << 20
"""Keys and values in one generation of `_recent`; two generations exist."""
CACHE_KEYS = 65536
"""Keys in one generation; each costs some 150 bytes beside its text."""
POINT_DELETES = 64
"""A database of no more keys is emptied key by key: every range tombstone slows all later reads."""
STRING = b"s"
"""First byte of a stored string; other first bytes are for other kinds of value."""

_META_FORMAT = b"\x00format"
_META_APPLIED = b"\x00applied"
_META_LEARNER = b"\x00learner"
_META_COUNTS = b"\x00counts"
_DATA = 0x10
"""First byte of database 0's keys; the sixteen databases follow one another."""
_U64 = struct.Struct(">Q")
_FORMAT = struct.Struct(">II")
_COUNTS = struct.Struct(f">{DATABASES}Q")
_WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"


class StoreError(P4xosError):
    """The store cannot be used; the message names the directory and what to do."""

    def __init__(self, directory: Path, what: str) -> None:
        super().__init__(f"store {directory}: {what}")
        self.directory = directory


class _Missing:
    """Marks that a cache says nothing about a key; None says that the key does not exist."""


_MISSING: Final = _Missing()


class Store:
    """The state of one replica; `Store(directory, cluster)` opens or creates it."""

    def __init__(self, directory: Path, cluster: int) -> None:
        """Opens the store.

        Args:
          directory: created when it does not exist.
          cluster: the cluster's id; a store of another cluster is refused.

        Raises:
          StoreError: in use, damaged, of another cluster or format, or not permitted.
        """
        self.directory = directory
        self.cluster = cluster
        try:
            self._live = generations.open_current(directory)
        except OSError as error:
            raise StoreError(directory, explain(error)) from error
        except ValueError as error:
            raise StoreError(directory, str(error)) from error
        self._database = self._open(self._live)
        self._reset()
        try:
            self._load_meta(fresh=not generations.is_marked(directory))
            generations.mark(directory, self._live)
        except OSError as error:
            self._database.close()
            raise StoreError(directory, explain(error)) from error
        except BaseException:
            self._database.close()
            raise
        self.keyspaces = [Keyspace(self, database) for database in range(DATABASES)]

    def _open(self, path: Path) -> Rdict:
        try:
            return Rdict(str(path), _options())
        except Exception as error:  # rocksdict raises plain Exception
            raise StoreError(self.directory, explain(error)) from error

    def _reset(self) -> None:
        """Forgets everything that stands for the content of the database."""
        self._recent: dict[bytes, bytes | None] = {}
        self._older: dict[bytes, bytes | None] = {}
        self._recent_bytes = 0
        self._dirty: dict[bytes, bytes | None] = {}
        self._cleared: set[int] = set()
        """First bytes of databases emptied in this batch: RocksDB's content does not count."""
        self._stored_counts = b""
        self._stored_learner = b""
        self._counts = [0] * DATABASES
        self._applied = 0
        self._synced = 0

    def _load_meta(self, *, fresh: bool) -> None:
        found = self._get(_META_FORMAT)
        if found is None:
            if not fresh:
                raise StoreError(self.directory, explain("Corruption: no format record"))
            try:
                self._database[_META_FORMAT] = _FORMAT.pack(FORMAT, self.cluster)
                self._database.flush_wal(True)
            except Exception as error:
                raise StoreError(self.directory, explain(error)) from error
            return
        version, cluster = _FORMAT.unpack(found)
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
        applied, learner, counts = map(self._get, (_META_APPLIED, _META_LEARNER, _META_COUNTS))
        if applied is not None:
            self._applied = self._synced = _U64.unpack(applied)[0]
        self._stored_learner = learner or b""
        if counts is not None:
            self._stored_counts = counts
            self._counts = list(_COUNTS.unpack(counts))

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

    def learner_state(self) -> bytes:
        """What the last `commit` stored beside `applied`."""
        return self._stored_learner

    def look_up(self, key: bytes) -> bytes | None:
        """The stored form of a key (first byte: its database) as this batch has left it."""
        value = self._older.get(key, _MISSING)
        if value is _MISSING:
            value = self._dirty.get(key, _MISSING)
        if isinstance(value, _Missing):
            value = None if key[0] in self._cleared else self._get(key)
        self.remember(key, value)
        return value

    def remember(self, key: bytes, value: bytes | None) -> None:
        """Keeps what a key holds for the next look."""
        self._recent[key] = value
        self._recent_bytes += len(key) + (0 if value is None else len(value))
        if self._recent_bytes > CACHE_BYTES or len(self._recent) > CACHE_KEYS:
            self._turn_cache()

    def _turn_cache(self) -> None:
        """The younger generation becomes the older one, and that is forgotten."""
        self._older, self._recent, self._recent_bytes = self._recent, {}, 0

    def clear(self, database: int) -> None:
        """Empties a database, as part of this batch."""
        first = _DATA + database
        for cache in (self._recent, self._older, self._dirty):
            for key in [key for key in cache if key[0] == first]:
                del cache[key]
        self._cleared.add(first)
        self._counts[database] = 0

    def commit(self, applied: int, learner_state: bytes) -> None:
        """Writes this batch in one piece: data, counts, applied instance and learner state.

        Raises:
          StoreError: the write failed. The store must not be used any more.
        """
        assert applied >= self._applied, "the applied instance never goes back"
        try:
            batch = WriteBatch(raw_mode=True)
            for first in sorted(self._cleared):
                self._delete_database(batch, first)
            put, delete = batch.put, batch.delete
            for key, value in self._dirty.items():
                if value is None:
                    delete(key)
                else:
                    put(key, value)
            counts = _COUNTS.pack(*self._counts)
            if counts != self._stored_counts:
                put(_META_COUNTS, counts)
            if learner_state != self._stored_learner:
                put(_META_LEARNER, learner_state)
            put(_META_APPLIED, _U64.pack(applied))
            self._database.write(batch)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error
        self._applied = applied
        self._stored_counts = counts
        self._stored_learner = learner_state
        self._dirty.clear()
        self._cleared.clear()

    def _delete_database(self, batch: WriteBatch, first: int) -> None:
        keys = []
        for key in self._keys(first):
            keys.append(key)
            if len(keys) > POINT_DELETES:
                batch.delete_range(bytes((first,)), bytes((first + 1,)))
                return
        for key in keys:
            batch.delete(key)

    def _keys(self, first: int) -> Iterator[bytes]:
        """The keys in RocksDB of the database with this first byte, in order."""
        try:
            iterator = self._database.iter()
            iterator.seek(bytes((first,)))
            while iterator.valid():
                key: bytes = iterator.key()
                if key[0] != first:
                    break
                yield key
                iterator.next()
            iterator.status()  # an iterator that met damage is merely not valid
        except Exception as error:
            raise StoreError(self.directory, explain(error)) from error

    def sync(self) -> int:
        """Makes what is applied durable, by one fsync; returns the instance it is durable through.

        Raises:
          StoreError: the fsync failed. Nothing since the last one may be counted on.
        """
        through = self._applied
        if through > self._synced:
            try:
                self._database.flush_wal(True)
            except Exception as error:
                raise StoreError(self.directory, explain(error)) from error
            self._synced = through
        return through

    def snapshot(self, directory: Path) -> int:
        """Writes a consistent copy into `directory`, which must not exist; returns its instance."""
        assert not self._dirty, "a snapshot is taken between batches"
        try:
            Checkpoint(self._database).create_checkpoint(str(directory))
        except Exception as error:
            raise StoreError(directory, explain(error)) from error
        return self._applied

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
        self._database.close()
        self._live = incoming
        self._database = self._open(incoming)
        self._reset()
        self._load_meta(fresh=False)
        generations.drop_others(self.directory, incoming)

    @staticmethod
    def _check_snapshot(incoming: Path, cluster: int) -> None:
        """Opens a snapshot as a store would, without making it the one in use."""
        candidate = Store.__new__(Store)
        candidate.directory, candidate.cluster = incoming, cluster
        candidate._database = candidate._open(incoming)
        try:
            candidate._reset()
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

    def abandon(self) -> None:
        """Closes the store behind an error; what was not synced may be lost, the log has it."""
        with suppress(Exception):  # the error that led here is the one to be told
            self._database.close()

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


class Keyspace:
    """One database as the handlers of commands see it; writes belong to the current batch.

    A handler checks everything before its first write: a batch is never taken back.
    """

    def __init__(self, store: Store, database: int) -> None:
        self.store = store
        self.database = database
        self._prefix = bytes((_DATA + database,))

    def get(self, key: bytes) -> bytes | None:
        """The string that a key holds, or None.

        Raises:
          CommandError: the key holds another kind of value.
        """
        full = self._prefix + key
        stored = self.store._recent.get(full, _MISSING)
        if isinstance(stored, _Missing):
            stored = self.store.look_up(full)
        if stored is None:
            return None
        if stored[:1] != STRING:
            raise CommandError(_WRONG_TYPE)
        return stored[1:]

    def contains(self, key: bytes) -> bool:
        """Whether the key exists, whatever it holds."""
        full = self._prefix + key
        stored = self.store._recent.get(full, _MISSING)
        return (self.store.look_up(full) if isinstance(stored, _Missing) else stored) is not None

    def put(self, key: bytes, value: bytes) -> None:
        """Makes a key hold a string, whatever it held."""
        store = self.store
        full = self._prefix + key
        before = store._recent.get(full, _MISSING)
        if before is _MISSING:
            before = store.look_up(full)
        if before is None:
            store._counts[self.database] += 1
        stored = STRING + value
        store._dirty[full] = store._recent[full] = stored
        store._recent_bytes += len(full) + len(stored)
        if store._recent_bytes > CACHE_BYTES or len(store._recent) > CACHE_KEYS:
            store._turn_cache()

    def remove(self, key: bytes) -> bool:
        """Deletes a key; false when there was none."""
        if not self.contains(key):
            return False
        full = self._prefix + key
        self.store._counts[self.database] -= 1
        self.store._dirty[full] = None
        self.store.remember(full, None)
        return True

    def count(self) -> int:
        """Keys in this database."""
        return self.store._counts[self.database]

    def clear(self) -> None:
        """Deletes every key of this database."""
        self.store.clear(self.database)


def _options() -> Options:
    """How RocksDB is opened; values that bound memory, disk or damage carry their reason."""
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    # A torn end of the log is a crash; anything else damaged is an error, not a silent cut.
    options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
    options.set_write_buffer_size(32 << 20)
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
