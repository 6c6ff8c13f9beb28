"""Reading an acceptor's log: what survived, or why it cannot be trusted.

Only the last write of the last segment can be torn, since each append is durable before the next
begins. A tail that a power cut can have left (`frames`) is cut off. Everything else that does not
fit (a hole in the sequence, a bad frame with something behind it, one that lacks no sector, a bad
header) means that records which an answer depended on may be gone: the acceptor is Forgetful then,
and the files stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from p4xos.storage.directory import (
    Forgetful,
    Owner,
    refuse_other_owner,
    refuse_version,
    segment_path,
)
from p4xos.storage.disk import Disk, StorageError
from p4xos.storage.frames import (
    FORMAT_VERSION,
    SEGMENT_HEADER_BYTES,
    BadHeaderError,
    Batch,
    Scan,
    SegmentHeader,
    Tail,
    batches,
    classify_tail,
    scan,
    unpack_segment_header,
)


class Segment(NamedTuple):
    """A segment as read: its frames are good; `data` behind them is the tail."""

    path: Path
    header: SegmentHeader
    data: bytes
    scan: Scan

    @property
    def head_end(self) -> int:
        """The offset behind the records with which the segment began."""
        head_frames = self.header.head_frames
        return self.scan.frames[head_frames - 1].end if head_frames else SEGMENT_HEADER_BYTES

    def batches(self) -> list[Batch]:
        """Its records in order."""
        return batches(self.data, self.scan.frames)


class Cut(NamedTuple):
    """A torn last record that was cut off; no answer ever depended on it."""

    path: Path
    offset: int  # where it began
    size: int  # bytes reserved behind the offset, the torn record and zeros

    def __str__(self) -> str:
        return f"{self.path}, byte {self.offset}: a record torn by a crash was cut off"


def read_segment(
    disk: Disk, directory: Path, number: int, owner: Owner, window: int
) -> Segment | Forgetful:
    """The good frames of one segment.

    Raises StorageError when the segment is another acceptor's, of another format version, or of
    another window.
    """
    path = segment_path(directory, number)
    data = disk.read(path)
    try:
        header = unpack_segment_header(data)
    except BadHeaderError as error:
        return Forgetful(path, str(error), 0)
    refuse_version(path, header.version, FORMAT_VERSION)
    refuse_other_owner(path, Owner(header.cluster, header.group, header.acceptor), owner)
    if header.window != window:
        raise StorageError(
            path,
            f"a window of {header.window} instances was found, {window} was expected",
            f"set the window back to {header.window} in the cluster file",
        )
    if header.segment != number:
        return Forgetful(path, f"this is segment {header.segment} under another name", 0)
    return Segment(path, header, data, scan(data, header.salt, header.first_frame))


def read_log(
    disk: Disk, directory: Path, numbers: Sequence[int], owner: Owner, window: int
) -> tuple[list[Segment], Cut | None] | Forgetful:
    """All segments in order, and what is to be cut off the last.

    `numbers`: of the segments that are there, ascending, at least one.
    """
    segments: list[Segment] = []
    for number in numbers:
        if segments and number != segments[-1].header.segment + 1:
            return _missing(directory, segments[-1].header.segment + 1)
        segment = read_segment(disk, directory, number, owner, window)
        if isinstance(segment, Forgetful):
            return segment
        if segments and segment.header.first_frame != segments[-1].scan.next_sequence:
            before = segments[-1]
            return Forgetful(before.path, "a record is damaged or missing", before.scan.end)
        segments.append(segment)
    last = segments[-1]
    if numbers[0] > last.header.oldest:
        return _missing(directory, last.header.oldest)
    if len(last.scan.frames) < last.header.head_frames:
        return Forgetful(last.path, "the records that begin it are damaged", last.scan.end)
    tail, offset = classify_tail(last.data, last.scan, last.header.salt)
    if tail is Tail.SEALED:
        return _missing(directory, last.header.segment + 1)
    if tail is Tail.DAMAGED_BEFORE:
        return Forgetful(last.path, "a record before the last is damaged", offset)
    if tail is Tail.DAMAGED:
        return Forgetful(last.path, "the last record is damaged, by no interrupted write", offset)
    if tail is Tail.TORN:
        return segments, Cut(last.path, offset, len(last.data) - offset)
    return segments, None


def _missing(directory: Path, number: int) -> Forgetful:
    return Forgetful(segment_path(directory, number), "this segment of the log is missing")
