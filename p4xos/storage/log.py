"""The acceptor's log: durable before any answer leaves (docs/PROTOCOL.md, section 3).

An append is one vectored write and one fdatasync. Segments are reserved in full when they begin
(posix_fallocate), so that an append changes no file size and a full disk shows at a segment's
beginning. Rejected: writing zeros instead, which is faster for large appends but stalls each roll
for longer than it saves.

When a segment is full, the next begins with everything that the oldest ones are still needed for
besides live votes (`carry_over`), and with the append that did not fit; all of it in one frame
that is durable before the segment gets its name. The append must be in that frame: `carry_over`
is asked after the role has acted, so a promise that the append turns into a vote is no longer in
it, and deleting the old promise before the vote is durable would lose both. Only then do the
segments go that hold nothing live (`retention`). Disk use is what the live votes take,
DEAD_SEGMENTS dead ones, and the segment being filled.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

from p4xos.histogram import Histogram
from p4xos.storage.directory import (
    Forgetful,
    Owner,
    lock_directory,
    read_contents,
    read_mark,
    released_on_error,
    remove_mark,
    segment_path,
)
from p4xos.storage.disk import (
    TEMPORARY,
    Buffer,
    Disk,
    RealDisk,
    StorageError,
    disk_errors,
    write_fully,
)
from p4xos.storage.frames import (
    FORMAT_VERSION,
    SEGMENT_HEADER_BYTES,
    SegmentHeader,
    encode_frame,
    encode_seal,
    frame_bytes,
    trim,
)
from p4xos.storage.recovery import Cut, Segment, read_log, read_segment
from p4xos.storage.retention import LiveVotes, dispensable
from p4xos.wire import Rows

SEGMENT_BYTES = 16 << 20
"""Large enough that a roll is rare, small enough to be read back in a few milliseconds."""


class Restored(NamedTuple):
    """A log that was there already, or a new one under the mark of a new acceptor."""

    log: AcceptorLog
    records: list[Rows]  # read-only, in the order in which they were appended, strides as stored
    cut: Cut | None  # for the operator's log


class AcceptorLog:
    """Appends records of one acceptor. One thread, one process."""

    def __init__(
        self,
        disk: Disk,
        directory: Path,
        lock: int,
        owner: Owner,
        window: int,
        segment_bytes: int,
        carry_over: Callable[[], list[Rows]],
        draw_salt: Callable[[], int],
    ) -> None:
        """For `open` and `begin` only."""
        self.counters = dict.fromkeys(
            ("appends", "rows", "bytes", "rolls", "segments_deleted", "votes_copied"), 0
        )
        self.sync_seconds = Histogram()
        """How long appends took, nearly all of it fdatasync."""
        self._disk = disk
        self._directory = directory
        self._lock: int | None = lock
        self._owner = owner
        self._segment_bytes = segment_bytes
        self._carry_over = carry_over
        self._draw_salt = draw_salt
        self._live = LiveVotes(window)
        self._sizes: dict[int, int] = {}  # bytes on disk of each segment, by number, ascending
        self._newest = 0  # number of the segment that takes appends
        self._handle: int | None = None  # its file
        self._salt = 0  # its salt
        self._used = 0  # its bytes that hold frames
        self._limit = 0  # a frame that would end beyond goes to a new segment
        self._sequence = 1  # of the next frame
        self._failure: str | None = None  # not None: no append is taken any more

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        cluster: int,
        group: int,
        acceptor: int,
        window: int,
        carry_over: Callable[[], list[Rows]],
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
        draw_salt: Callable[[], int] = lambda: secrets.randbits(32),
    ) -> Restored | Forgetful:
        """Opens the log of an acceptor that has run before, or runs for the first time.

        Args:
          directory: made if need be.
          cluster: whose log it must be; so `group` and `acceptor`.
          group: as above.
          acceptor: as above.
          window: slots, a power of two.
          carry_over: called within `append` when a segment is full: registers (RECORDED rows) and
            all promises without a vote or above it (PHASE1B rows), in the state after the records
            being appended. The role must have taken `records` before the first append.
          segment_bytes: what a segment takes before the next begins.
          disk: the operating system's unless given.
          draw_salt: a random u32 for each segment's checksums.

        Returns:
          Forgetful when there is no log, or a damaged one; nothing was changed then, and the
          directory is not locked.

        Raises:
          StorageError: in use, another acceptor's, another format version or window, disk error.
        """
        disk = disk or RealDisk()
        owner = Owner(cluster, group, acceptor)
        lock = lock_directory(disk, directory)
        log = cls(disk, directory, lock, owner, window, segment_bytes, carry_over, draw_salt)
        try:
            with disk_errors(directory, "open the acceptor's log"):
                opened = log._open()
        except BaseException:
            log.close()
            raise
        if isinstance(opened, Forgetful):
            log.close()
        return opened

    @classmethod
    def begin(
        cls,
        directory: Path,
        *,
        cluster: int,
        group: int,
        acceptor: int,
        window: int,
        carry_over: Callable[[], list[Rows]],
        segment_bytes: int = SEGMENT_BYTES,
        disk: Disk | None = None,
        draw_salt: Callable[[], int] = lambda: secrets.randbits(32),
    ) -> AcceptorLog:
        """A new log for a forgetful acceptor that has joined again, beginning with `carry_over()`.

        Arguments as for `open`. Raises StorageError when the directory holds anything: a damaged
        log is the operator's to move away.
        """
        disk = disk or RealDisk()
        owner = Owner(cluster, group, acceptor)
        lock = lock_directory(disk, directory)
        log = cls(disk, directory, lock, owner, window, segment_bytes, carry_over, draw_salt)
        try:
            with disk_errors(directory, "begin an acceptor's log"):
                found = read_contents(disk, directory)
                if found.segments or found.foreign or found.mark:
                    raise StorageError(
                        directory,
                        "is not empty, and a new log is to begin here",
                        "look at what it holds, and move it away",
                    )
                log._start_segment(1, 1, _trimmed(carry_over()))
        except BaseException:
            log.close()
            raise
        return log

    @property
    def disk_bytes(self) -> int:
        """What the segments take on disk."""
        return sum(self._sizes.values())

    def append(self, records: list[Rows]) -> None:
        """All records are durable when this returns.

        Args:
          records: (n, stride) uint8 each, of any strides; not kept.

        Raises:
          StorageError: they may or may not be durable; every later append raises too. A failed
            fdatasync is never tried again: the kernel may have dropped what it could not write.
        """
        batches = _trimmed(records)
        if not batches:
            return
        began = perf_counter()
        with self._last_chance("append to the acceptor's log"):
            size = frame_bytes(batches)
            if self._used + size > self._limit:
                self._roll(batches)
            else:
                assert self._handle is not None, "an open log has a segment"
                frame = encode_frame(batches, self._sequence, self._salt)
                write_fully(self._disk, self._handle, frame, self._used)
                self._disk.sync(self._handle)
                self._used += size
                self._sequence += 1
                self._live.note(batches, self._newest, size)
        self.sync_seconds.observe(perf_counter() - began)
        self.counters["appends"] += 1
        self.counters["rows"] += sum(map(len, batches))
        self.counters["bytes"] += size

    def close(self) -> None:
        """Gives files and lock back. Every append that returned is durable already."""
        if self._failure is None:
            self._failure = "it is closed"
        for handle in (self._handle, self._lock):
            if handle is not None:
                self._disk.close(handle)
        self._handle = self._lock = None

    @contextmanager
    def _last_chance(self, action: str) -> Iterator[None]:
        """After any failure in the block the log takes nothing more."""
        path = segment_path(self._directory, self._newest)
        if self._failure is not None:
            raise StorageError(
                path,
                f"the log takes no more records: {self._failure}",
                "mend the cause, then start the acceptor again",
            )
        self._failure = "an append was interrupted"
        try:
            with disk_errors(path, action):
                yield
        except StorageError as error:
            self._failure = error.what
            raise
        self._failure = None

    # Opening -------------------------------------------------------------------------------------

    def _open(self) -> Restored | Forgetful:
        found = read_contents(self._disk, self._directory)
        if found.foreign:
            return Forgetful(
                self._directory / found.foreign[0], "this does not belong to an acceptor's log"
            )
        if not found.segments:
            return self._open_first_time(found.mark)
        survived = read_log(
            self._disk, self._directory, found.segments, self._owner, self._live.window
        )
        if isinstance(survived, Forgetful):
            return survived
        segments, cut = survived
        records = self._take(segments)
        self._resume(segments[-1], cut)
        for name in found.temporary:  # a roll that a crash interrupted
            self._disk.unlink(self._directory / name)
        if found.mark:  # the first start was interrupted behind the durable first segment
            remove_mark(self._disk, self._directory)
        return Restored(self, records, cut)

    def _open_first_time(self, marked: bool) -> Restored | Forgetful:
        if not marked:
            return Forgetful(self._directory, "there is no log")
        forgetful = read_mark(self._disk, self._directory, self._owner)
        if forgetful is not None:
            return forgetful
        self._start_segment(1, 1, [])
        remove_mark(self._disk, self._directory)
        return Restored(self, [], None)

    def _take(self, segments: list[Segment]) -> list[Rows]:
        """Learns from all records what is live, and returns them."""
        records = []
        for segment in segments:
            number = segment.header.segment
            self._sizes[number] = len(segment.data)
            for batch in segment.batches():
                self._live.note([batch.rows], number, batch.stored_bytes)
                records.append(batch.rows)
        return records

    def _resume(self, last: Segment, cut: Cut | None) -> None:
        """Makes the last segment take appends.

        The last frame may have been read from memory that never reached the disk (the process was
        killed, or its fdatasync failed): it is written again, so that what the role takes for
        durable is. The same holds for the names in the directory.
        """
        self._newest = last.header.segment
        self._salt = last.header.salt
        self._used = last.scan.end
        self._limit = last.head_end + self._segment_bytes
        self._sequence = last.scan.next_sequence
        self._handle = self._disk.open(last.path, create=False)
        size = len(last.data)
        if cut is not None:  # what is cut must not lie behind a later, shorter record
            self._disk.truncate(self._handle, cut.offset)
            size = cut.offset
        if size < self._limit:
            self._disk.allocate(self._handle, self._limit)
            size = self._limit
        self._sizes[self._newest] = size
        if len(last.scan.frames) > last.header.head_frames:
            frame = last.scan.frames[-1]
            again = last.data[frame.offset : frame.end]
            write_fully(self._disk, self._handle, [again], frame.offset)
        self._disk.sync(self._handle)
        self._disk.sync_directory(self._directory)

    # Rolling -------------------------------------------------------------------------------------

    def _roll(self, records: list[Rows]) -> None:
        """Begins a segment with all that the going ones are needed for, and with `records`."""
        number = self._newest + 1
        carried = _trimmed(self._carry_over())
        self._live.note(records, number, frame_bytes(records))
        self._live.note(carried, number, frame_bytes(carried))
        live = self._live.live_bytes(min(self._sizes), number)
        first = min(self._sizes)
        oldest = first + dispensable(
            list(self._sizes.values()), live[:-1].tolist(), self._segment_bytes
        )
        going = range(first, oldest)
        copied = [rows for old in going if live[old - first] > 0 for rows in self._copy(old)]
        self._live.note(copied, number, frame_bytes(copied))
        full, full_end, full_salt = self._handle, self._used, self._salt
        # Votes first: the promises among `carried` may be above them, and later records win.
        self._start_segment(number, oldest, [*copied, *carried, *records])
        assert full is not None, "an open log has a segment"
        # The seal tells a later start that this segment is not the last. It waits for no sync:
        # it guards against a file that somebody removes, not against a crash.
        seal = encode_seal(self._sequence - 1, full_salt)
        write_fully(self._disk, full, [seal], full_end)
        self._disk.close(full)
        for old in going:
            self._disk.unlink(segment_path(self._directory, old))
            self._disk.sync_directory(self._directory)  # in order: no crash may leave a hole
            del self._sizes[old]
            self.counters["segments_deleted"] += 1
        self.counters["rolls"] += 1
        self.counters["votes_copied"] += sum(map(len, copied))

    def _copy(self, number: int) -> list[Rows]:
        """The live votes of a segment that goes."""
        segment = read_segment(self._disk, self._directory, number, self._owner, self._live.window)
        if isinstance(segment, Forgetful):
            raise StorageError(segment.path, segment.reason, "check the disk (dmesg)")
        return self._live.select([batch.rows for batch in segment.batches()], number)

    def _start_segment(self, number: int, oldest: int, head: list[Rows]) -> None:
        """Makes a segment that begins with `head`, durably; it takes the appends from then on."""
        salt = self._draw_salt()
        header = SegmentHeader(
            FORMAT_VERSION, *self._owner, self._live.window, salt, number, oldest,
            self._sequence, 1 if head else 0,
        )  # fmt: skip
        buffers: list[Buffer] = [header.pack()]
        used = SEGMENT_HEADER_BYTES
        if head:
            buffers += encode_frame(head, self._sequence, salt)
            used += frame_bytes(head)
        path = segment_path(self._directory, number)
        temporary = path.with_name(path.name + TEMPORARY)
        handle = self._disk.open(temporary, create=True)
        with released_on_error(self._disk, handle):
            self._disk.allocate(handle, used + self._segment_bytes)
            write_fully(self._disk, handle, buffers, 0)
            self._disk.sync(handle)
            self._disk.rename(temporary, path)
            self._disk.sync_directory(self._directory)
        self._newest, self._handle, self._salt = number, handle, salt
        self._used, self._limit = used, used + self._segment_bytes
        self._sizes[number] = self._limit
        self._sequence += 1 if head else 0


def _trimmed(records: list[Rows]) -> list[Rows]:
    return [trim(rows) for rows in records if len(rows)]
