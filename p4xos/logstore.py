r"""What a plain node keeps of the log: the state machine behind `deliver` and `recover`.

Strategy. Values are stored as they were chosen, a stretch of them under one key, so that a batch
is a handful of puts whatever the number of its values. Beside each stretch stands a mark for each
value: delivered as it is, delivered joined (the last fragment of a command, whose payload has a key
of its own), or not delivered (no-op, duplicate, OPEN, fragment). Everything of a batch, the
position and the learner's state are one `WriteBatch` (docs/traps.md, 14). Batches that follow one
another closely share one: what is applied is written when somebody reads it or has it made
durable, when WRITE_BYTES have gathered, and when a segment ends. What a crash takes along the
acceptors still have, since no checkpoint has told of it.

Retention is by segments, as in the acceptor's log: stretches of the log of about a 32nd of the
bound, dropped whole, oldest first, by one range deletion. `low` is where the oldest begins.

    \\x00format               u32 format, u32 cluster
    \\x00position             u64 applied; the newest segment's first instance and bytes, u64 each
    \\x00learner              the learner's state
    \\x00segments             the segments but the newest: msgpack [[first instance, bytes], ...]
    c <u64 first instance>   u32 count, the marks, then `packing.pack_chosen`
    j <u64 instance>         a joined payload
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgpack
import numpy as np
import trio
from numpy.typing import NDArray
from rocksdict import Checkpoint, DBRecoveryMode, Options, Rdict, WriteBatch

from p4xos import checkpointed, generations
from p4xos.config import Cluster
from p4xos.effects import Chosen, Delivery
from p4xos.envelope import ENVELOPE_BYTES, open_envelope
from p4xos.errors import NoQuorum, P4xosError, SessionLost, Trimmed
from p4xos.generations import Reached, explain
from p4xos.packing import Deliveries, pack_chosen, split_chosen, unpack_chosen_untrusted
from p4xos.retained import HELD_FACTOR
from p4xos.submissions import Submissions
from p4xos.tables import Table
from p4xos.write_ahead import WRITE_BUFFER_BYTES, WriteAhead

FORMAT = 2
STRETCH_BYTES = 256 << 10
"""Of values under one key: what one look at a single value has to read."""
WRITE_BYTES = 256 << 10
"""Applied and not written at most: a crash has as much fetched again."""
SEGMENTS = 32
"""How many segments make up the retained log: it exceeds its bound by one of them at most."""

_NOTHING, _WHOLE, _JOINED = 0, 1, 2  # marks
_FORMAT = struct.Struct(">II")
_POSITION = struct.Struct(">QQQ")
_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_META_FORMAT, _META_POSITION = b"\x00format", b"\x00position"
_META_LEARNER, _META_SEGMENTS = b"\x00learner", b"\x00segments"
_STRETCH, _PAYLOAD = b"c", b"j"

_Applied = tuple[Chosen, Sequence[tuple[Delivery, int | None]]]
"""What was chosen, and what of it, or of more, was delivered."""


class LogStoreError(P4xosError):
    """The store cannot be used; the message names the directory and what to do."""

    def __init__(self, directory: Path, what: str) -> None:
        super().__init__(f"log {directory}: {what}")
        self.directory = directory


class Retention(NamedTuple):
    """How much of the log a plain node keeps: the table [log] of the cluster file."""

    bytes_max: int = 1 << 30
    instances_max: int = 1 << 40

    @classmethod
    def of(cls, cluster: Cluster) -> Retention:
        """From the cluster file.

        Raises:
          ConfigError: the table is no good.
        """
        keys = ("retain_bytes", "retain_instances")
        table = Table(cluster.source, "[log]", cluster.extensions.get("log", {}), keys)
        bytes_max, instances_max = cls()
        if table.has("retain_bytes"):
            bytes_max = table.integer("retain_bytes", 1 << 20, 1 << 50)
        if table.has("retain_instances"):
            instances_max = table.integer("retain_instances", 1 << 10, 1 << 50)
        return cls(bytes_max, instances_max)


class LogStore:
    """A BatchMachine and the retained log in one; see the module's text."""

    def __init__(self, directory: Path, cluster: int, retention: Retention | None = None) -> None:
        """Opens the store.

        Args:
          directory: created when it does not exist.
          cluster: its id; a store of another cluster is refused.
          retention: how much to keep.

        Raises:
          LogStoreError: in use, damaged, of another cluster or format, or not permitted.
        """
        self.directory = directory
        self.cluster = cluster
        self.retention = retention or Retention()
        self.submissions = Submissions()
        self.applied = 0
        self.low = 1
        """The oldest instance kept; applied + 1 when there is none."""
        self._synced = 0
        self._segments: list[tuple[int, int]] = []  # (first instance, bytes), but the newest
        self._newest = (1, 0)
        self._held: int | None = None
        self._pending: list[Chosen] = []  # given by `append`, taken by the next `apply`
        self._applied_more = trio.Event()
        # RocksDB must not be closed in the midst of either.
        self._writing_out, self._syncing = threading.Lock(), threading.Lock()
        try:
            self._live = generations.open_current(directory)
        except OSError as error:
            raise LogStoreError(directory, explain(error)) from error
        except ValueError as error:
            raise LogStoreError(directory, str(error)) from error
        fresh = not generations.is_marked(directory)
        self._open(self._live, create=fresh)
        self._reached: Reached | None = None
        try:
            self._load(fresh=fresh)
            self._reached = Reached(directory)
            short = self._reached.check(self.applied)
            if short is not None:
                raise LogStoreError(directory, short)
            generations.mark(directory, self._live)
        except OSError as error:
            self._close_files()
            raise LogStoreError(directory, explain(error)) from error
        except BaseException:
            self._close_files()
            raise

    def _open(self, path: Path, *, create: bool = False) -> None:
        options = _options()
        options.create_if_missing(create)  # else what is left of a damaged one would be removed
        try:
            self._database = Rdict(str(path), options)
            self._log = WriteAhead(self._database)
        except Exception as error:  # rocksdict raises plain Exception
            raise LogStoreError(self.directory, explain(error)) from error

    def _load(self, *, fresh: bool) -> None:
        found = self._get(_META_FORMAT)
        if found is None:
            if not fresh:
                raise LogStoreError(self.directory, explain("Corruption: no format record"))
            batch = WriteBatch(raw_mode=True)
            batch.put(_META_FORMAT, _FORMAT.pack(FORMAT, self.cluster))
            self._write(batch)
            self._flush()
            self._forget_unwritten()
            return
        version, cluster = _FORMAT.unpack(found)
        if version != FORMAT:
            what = f"it has format {version}, this program writes format {FORMAT}"
            raise LogStoreError(self.directory, f"{what}; use the program that wrote it")
        if cluster != self.cluster:
            what = f"it belongs to cluster {cluster:08x}, not to {self.cluster:08x}"
            mend = "name another directory, or move this one away"
            raise LogStoreError(self.directory, f"{what}; {mend}")
        position = self._get(_META_POSITION)
        segments: list[list[int]] = msgpack.unpackb(self._get(_META_SEGMENTS) or b"\x90")
        self._segments = [(first, size) for first, size in segments]
        if position is not None:
            self.applied, newest_first, newest_bytes = _POSITION.unpack(position)
            self._newest = (newest_first, newest_bytes)
        self._synced = self.applied
        self._forget_unwritten()
        self.low = (self._segments or [self._newest])[0][0]

    def close(self) -> None:
        """Closes the store; what is applied is durable afterwards."""
        try:
            self.sync()
        finally:
            self._close_files()

    def _close_files(self) -> None:
        self._database.close()
        if self._reached is not None:
            self._reached.close()

    # BatchMachine --------------------------------------------------------------------------------

    def learner_state(self) -> Mapping[bytes, bytes]:
        """The learner's records that `apply` stored beside `applied`."""
        self._write_applied()
        try:
            return checkpointed.read(self._database, _META_LEARNER)
        except Exception as error:
            raise LogStoreError(self.directory, explain(error)) from error

    def check(self, payloads: Sequence[bytes]) -> None:
        """Refuses what a client must not have in the log, before it is proposed; here nothing is.

        Raises:
          ValueError: one of them would harm whoever reads the log.
        """

    def append(self, chosen: Chosen) -> None:
        """Takes what the next `apply` was made from."""
        self._pending.append(chosen)

    def apply(
        self,
        deliveries: Sequence[tuple[Delivery, int | None]],
        through: int,
        learner_state: Mapping[bytes, bytes | None],
    ) -> None:
        """Takes the appended values in one piece, then tells whoever submitted or waits.

        Raises:
          LogStoreError: a write failed. The store must not be used any more.
        """
        assert through >= self.applied, "the applied instance never goes back"
        self._unwritten += [(chosen, deliveries) for chosen in self._pending]
        self._unwritten_bytes += sum(chosen.values.nbytes for chosen in self._pending)
        self._unwritten_state.update(learner_state)
        self._pending.clear()
        self.applied = through
        bytes_max, instances_max = self.retention
        if (
            self._unwritten_bytes >= min(WRITE_BYTES, bytes_max // SEGMENTS)
            or through - self._written >= instances_max // SEGMENTS
        ):
            self._write_applied()
        for delivery, ticket in deliveries:
            if ticket is not None:
                self.submissions.delivered(ticket, delivery.instance, len(delivery.lengths))
        self._tell()

    def _write_applied(self) -> None:
        """Writes all that is applied, with the position, in one piece."""
        if self._written == self.applied:
            return
        batch = WriteBatch(raw_mode=True)
        size = 0
        for chosen, deliveries in _joined(self._unwritten):
            for stretch in split_chosen(chosen, STRETCH_BYTES):
                size += self._put_stretch(batch, stretch, deliveries)
        self._retain(batch, self.applied, size)
        checkpointed.write(batch, _META_LEARNER, self._unwritten_state)
        batch.put(_META_POSITION, _POSITION.pack(self.applied, *self._newest))
        checkpointed.write(batch, b"", dict(self._records()))
        self._write(batch)
        self._forget_unwritten()

    def _forget_unwritten(self) -> None:
        self._unwritten: list[_Applied] = []
        self._unwritten_bytes = 0
        self._unwritten_state: dict[bytes, bytes | None] = {}
        self._written = self.applied

    def _records(self) -> Iterable[tuple[bytes, bytes | None]]:
        """What a store that is built on this one writes with a batch; None: what it removes."""
        return ()

    def _put_stretch(
        self,
        batch: WriteBatch,
        stretch: Chosen,
        deliveries: Sequence[tuple[Delivery, int | None]],
    ) -> int:
        """Puts a stretch with its marks and joined payloads; returns the bytes it takes."""
        first, count = stretch.instance, len(stretch.lengths)
        marks = np.full(count, _NOTHING, np.uint8)
        taken = 0
        for delivery, _ in deliveries:
            start = max(delivery.instance - first, 0)
            stop = min(delivery.instance + len(delivery.lengths) - first, count)
            if start >= stop:
                continue
            marks[start:stop] = _WHOLE
            if stop - start == 1 and _is_fragment(stretch, start):
                marks[start] = _JOINED
                payload = delivery.payloads()[first + start - delivery.instance]
                batch.put(_PAYLOAD + _U64.pack(first + start), payload)
                taken += len(payload)
        value = b"".join((_U32.pack(count), marks.tobytes(), pack_chosen(stretch)))
        batch.put(_STRETCH + _U64.pack(first), value)
        return taken + len(value)

    def _retain(self, batch: WriteBatch, through: int, written: int) -> None:
        """Begins a new segment, and drops the oldest ones over the bound."""
        bytes_max, instances_max = self.retention
        first, size = self._newest
        self._newest = (first, size + written)
        segments = list(self._segments)
        full = through + 1 - first >= max(instances_max // SEGMENTS, 1)
        if full or size + written >= bytes_max // SEGMENTS:
            segments.append(self._newest)
            self._newest = (through + 1, 0)
        total = sum(size for _, size in segments) + self._newest[1]
        dropped = 0
        while len(segments) - dropped > 1:
            behind = segments[dropped + 1][0]
            if total <= bytes_max and through + 1 - behind < instances_max:
                break
            held = self._held is not None and behind > self._held
            if held and total <= HELD_FACTOR * bytes_max:
                break
            total -= segments[dropped][1]
            dropped += 1
        del segments[:dropped]
        if segments != self._segments:
            self._segments = segments
            batch.put(_META_SEGMENTS, msgpack.packb(segments))
        if dropped:
            self.low = segments[0][0]
            for kind in (_STRETCH, _PAYLOAD):
                batch.delete_range(kind + _U64.pack(0), kind + _U64.pack(self.low))

    def unknown(self, tickets: Sequence[int], error: NoQuorum | SessionLost) -> None:
        """Tells whoever submitted these."""
        self.submissions.failed(tickets, error)

    def sync(self) -> int:
        """Makes what is applied durable, by one fsync; returns the instance it is durable through.

        Raises:
          LogStoreError: the fsync failed. Nothing since the last one may be counted on.
        """
        return self.begin_sync()()

    def begin_sync(self) -> Callable[[], int]:
        """As `SyncingBeside.begin_sync`: what is applied is written here, and synced beside.

        Raises:
          LogStoreError: a write failed, or the fsync; see `sync`.
        """
        self._write_applied()
        return partial(self._sync_through, self.applied)

    def _sync_through(self, written: int) -> int:
        with self._syncing:
            if written > self._synced:
                self._flush()
                try:
                    if self._reached is not None:
                        self._reached.write(written)
                except OSError as error:
                    raise LogStoreError(self.directory, explain(error)) from error
                self._synced = written
        return written

    def write_out(self) -> None:
        """Writes tables of what is only in memory and RocksDB's log, so that `snapshot` is quick.

        A worker thread may call it at any time.

        Raises:
          LogStoreError: it could not be written.
        """
        with self._writing_out:
            try:
                self._log.write_out()
            except Exception as error:
                raise LogStoreError(self.directory, explain(error)) from error

    def snapshot(self, directory: Path) -> int:
        """Writes a consistent copy into `directory`, which must not exist; returns its instance."""
        self._write_applied()
        try:
            self._log.sync()  # the checkpoint begins a new log: see `write_ahead`
            Checkpoint(self._database).create_checkpoint(str(directory))
        except Exception as error:
            raise LogStoreError(directory, explain(error)) from error
        return self.applied

    def install(self, directory: Path) -> None:
        """Replaces everything by a snapshot; a crash leaves either the old or the new.

        Raises:
          LogStoreError: the snapshot is damaged or of another cluster; the old state is untouched.
        """
        try:
            incoming = generations.prepare(self.directory, self._live, directory)
            type(self).__new__(type(self))._check(incoming, self.cluster)
            generations.mark(self.directory, incoming)
        except OSError as error:
            raise LogStoreError(self.directory, explain(error)) from error
        with self._writing_out, self._syncing:
            self._database.close()
            self._live = incoming
            self._open(incoming)
            self._pending.clear()
            self._load(fresh=False)
        generations.drop_others(self.directory, incoming)
        self._tell()

    def verify(self, directory: Path) -> int:
        """Reads all of a snapshot, which checks each block of it; returns its instance.

        A worker thread may call it, and nobody else uses the snapshot meanwhile.

        Raises:
          LogStoreError: it is damaged, or not of this cluster.
        """
        candidate = type(self).__new__(type(self))
        candidate.directory, candidate.cluster = directory, self.cluster
        candidate.applied = 0
        candidate._open(directory)
        try:
            candidate._load(fresh=False)
            sum(1 for _ in candidate._database.keys())  # noqa: SIM118 - a database, no dict
        except P4xosError:
            raise
        except Exception as error:
            raise LogStoreError(directory, explain(error)) from error
        finally:
            candidate._database.close()
        return candidate.applied

    def _check(self, incoming: Path, cluster: int) -> None:
        """Opens a snapshot as a store would, without making it the one in use."""
        self.directory, self.cluster = incoming, cluster
        self._open(incoming)
        try:
            self._load(fresh=False)
        finally:
            self._database.close()

    # Reading -------------------------------------------------------------------------------------

    @property
    def next(self) -> int:
        """Behind the newest instance kept."""
        return self.applied + 1

    async def wait_beyond(self, instance: int) -> None:
        """Returns once more than `instance` is applied."""
        while self.applied <= instance:
            await self._applied_more.wait()

    def delivered(self, first: int, bytes_max: int) -> tuple[Deliveries, int]:
        """Delivered values from an instance on.

        Args:
          first: the first instance asked for.
          bytes_max: stops behind the stretch that reaches it.

        Returns:
          (instance, payload) in order, and the instance to ask for next.

        Raises:
          Trimmed: `first` is no longer kept.
        """
        found: Deliveries = []
        size = 0
        for marks, stretch in self._stretches(first):
            if size >= bytes_max:
                return found, stretch.instance
            for row in np.flatnonzero(marks).tolist():
                instance = stretch.instance + row
                if marks[row] == _JOINED:
                    payload = self._get(_PAYLOAD + _U64.pack(instance)) or b""
                else:
                    value = stretch.values[row, ENVELOPE_BYTES : int(stretch.lengths[row])]
                    payload = value.tobytes()
                found.append((instance, payload))
                size += len(payload)
        return found, max(first, self.next)

    def hold(self, first: int | None) -> None:
        """Keeps the values from an instance on beyond the bound; see `Retained.hold`."""
        self._held = first

    def since(self, first: int) -> Iterator[Chosen]:
        """Chosen values from an instance on, in order; Trimmed when it is no longer kept."""
        for _, stretch in self._stretches(first):
            yield stretch

    def value(self, instance: int) -> bytes:
        """What was chosen, raw: with its envelope, b"" for a no-op.

        Raises:
          Trimmed: no longer kept.
          LookupError: not delivered here yet.
        """
        for chosen in self.since(instance):
            return chosen.values[0, : int(chosen.lengths[0])].tobytes()
        raise LookupError(f"instance {instance} is not delivered here yet")

    def _stretches(self, first: int) -> Iterator[tuple[NDArray[np.uint8], Chosen]]:
        """Marks and values from an instance on."""
        if first < self.low:
            raise Trimmed(first, self.low)
        if first > self.applied:
            return
        self._write_applied()
        try:
            iterator = self._database.iter()
            iterator.seek_for_prev(_STRETCH + _U64.pack(first))
            while iterator.valid():
                key: bytes = iterator.key()
                if key[:1] != _STRETCH:
                    break
                marks, stretch = _unpack_stretch(iterator.value())
                skip = max(first - stretch.instance, 0)
                if skip < len(marks):
                    rest = Chosen(
                        stretch.instance + skip, stretch.values[skip:], stretch.lengths[skip:]
                    )
                    yield marks[skip:], rest
                iterator.next()
            iterator.status()  # an iterator that met damage is merely not valid
        except P4xosError:
            raise
        except Exception as error:
            raise LogStoreError(self.directory, explain(error)) from error

    def _tell(self) -> None:
        self._applied_more.set()
        self._applied_more = trio.Event()

    def _get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._database.get(key)
        except Exception as error:
            raise LogStoreError(self.directory, explain(error)) from error
        return value

    def _write(self, batch: Any) -> None:
        try:
            self._log.write(batch)
        except Exception as error:
            raise LogStoreError(self.directory, explain(error)) from error

    def _flush(self) -> None:
        try:
            self._log.sync()
        except Exception as error:
            raise LogStoreError(self.directory, explain(error)) from error


def _joined(applied: list[_Applied]) -> Iterator[_Applied]:
    """The same with those that follow one another as one, up to about STRETCH_BYTES."""
    some: list[_Applied] = []
    width = count = 0
    for chosen, deliveries in applied:
        width = max(width, chosen.values.shape[1])
        count += len(chosen.lengths)
        if some and width * count > STRETCH_BYTES:
            yield _join(some)
            some = []
            count, width = chosen.values.shape
        some.append((chosen, deliveries))
    if some:
        yield _join(some)


def _join(some: list[_Applied]) -> _Applied:
    if len(some) == 1:
        return some[0]
    lengths = np.concatenate([chosen.lengths for chosen, _ in some])
    width = max(chosen.values.shape[1] for chosen, _ in some)
    values = np.zeros((len(lengths), width), np.uint8)
    row = 0
    for chosen, _ in some:
        count, own = chosen.values.shape
        values[row : row + count, :own] = chosen.values
        row += count
    # What one call has applied of several stretches is to be looked through once.
    told = {id(deliveries): deliveries for _, deliveries in some}
    deliveries = [delivery for those in told.values() for delivery in those]
    return Chosen(some[0][0].instance, values, lengths), deliveries


def _is_fragment(stretch: Chosen, row: int) -> bool:
    head = open_envelope(stretch.values[row, :ENVELOPE_BYTES].tobytes())
    return head is not None and (head.fragment, head.fragments) != (0, 1)


def _unpack_stretch(value: bytes) -> tuple[NDArray[np.uint8], Chosen]:
    count: int = _U32.unpack_from(value)[0]
    marks = np.frombuffer(value, np.uint8, count, _U32.size)
    return marks, unpack_chosen_untrusted(value[_U32.size + count :])


def _options() -> Options:
    """How RocksDB is opened."""
    options = Options(raw_mode=True)
    # Of what was not synced a power cut may keep a later piece and lose an earlier: the log then
    # counts up to there. That nothing which was synced is cut off so, `generations.Reached` sees.
    options.set_wal_recovery_mode(DBRecoveryMode.point_in_time())
    options.set_write_buffer_size(WRITE_BUFFER_BYTES)
    options.set_max_background_jobs(2)
    options.set_max_open_files(256)
    options.set_max_log_file_size(4 << 20)  # RocksDB's own LOG: without these it grows for ever
    options.set_keep_log_file_num(4)
    options.set_stats_dump_period_sec(0)
    options.set_bytes_per_sync(1 << 20)  # spreads writing back, so that a sync finds little to do
    options.set_wal_bytes_per_sync(1 << 20)
    return options
