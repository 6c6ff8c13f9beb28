"""The bytes of an acceptor's log: segment headers and frames (pure, no disk).

    segment = header (64 bytes), frame, frame, ..., zeros up to the size reserved for it
    frame   = header (40 bytes), parts x (rows u32, stride u32), the rows of each part

One append is one frame, whatever its number of parts: if an append were several frames, a crash
could keep a later one and lose an earlier, which looks like damage. Frames are numbered without a
gap from the first append on, over all segments. Checksums start from the segment's salt, drawn at
random, so that no value that a client submits can pass for a frame.

A frame is written onto zeros and synced before the next is, so only the last one can be torn. A
disk writes whole sectors: what a power cut leaves of a frame lacks all that lies in some sector,
and is zero there, or in the file. A bad last frame that lacks nothing was good once, and an answer
may have depended on it: that is damage. The rule is that of etcd's log (isTornEntry). It does not
tell damage in a frame that holds a sector of zeros by itself.

All integers are in network order, as in the rows themselves.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from p4xos import wire
from p4xos.storage.disk import Buffer
from p4xos.wire import Rows

FORMAT_VERSION = 1
SEGMENT_MAGIC = b"P4xLogSg"
FRAME_MAGIC = b"P4xFrame"
SEAL_MAGIC = b"P4xSealS"
"""A seal is a frame without payload that says: a later segment exists."""

_SEGMENT = struct.Struct(">8sIIIIIIQQQII")
SEGMENT_HEADER_BYTES = _SEGMENT.size
_FRAME = struct.Struct(">8sQQIIII")
FRAME_HEADER_BYTES = _FRAME.size
_PART = struct.Struct(">II")
_CHECKSUM_BYTES = 4
SECTOR_BYTES = 512
"""The least that a disk writes as a whole; larger sectors are made of these."""
assert SEGMENT_HEADER_BYTES == 64
assert FRAME_HEADER_BYTES == 40
assert (SEGMENT_HEADER_BYTES | FRAME_HEADER_BYTES | _PART.size) % 8 == 0  # frames start at words


class BadHeaderError(Exception):
    """A segment header that is not one, or fails its checksum."""


class SegmentHeader(NamedTuple):
    """Whose log a segment belongs to, and its place in it."""

    version: int
    cluster: int
    group: int
    acceptor: int
    window: int  # slots
    salt: int  # u32, where the segment's checksums start
    segment: int  # number of this segment, from 1
    oldest: int  # number of the oldest segment that is needed with this one
    first_frame: int  # sequence number of its first frame
    head_frames: int  # how many were durable before the segment got its name: never torn

    def pack(self) -> bytes:
        """As 64 bytes, the checksum last."""
        data = _SEGMENT.pack(SEGMENT_MAGIC, *self, 0)[:-_CHECKSUM_BYTES]
        return data + crc32(data).to_bytes(_CHECKSUM_BYTES, "big")


def unpack_segment_header(data: Buffer) -> SegmentHeader:
    """The inverse of `pack`; BadHeaderError with the reason. The version is the caller's to check.

    Later versions keep the place of magic, version and checksum.
    """
    view = memoryview(data)[:SEGMENT_HEADER_BYTES]
    if view.nbytes < SEGMENT_HEADER_BYTES:
        raise BadHeaderError(f"only {view.nbytes} bytes")
    magic, *fields, checksum = _SEGMENT.unpack(view)
    if magic != SEGMENT_MAGIC:
        raise BadHeaderError("not a segment of an acceptor's log")
    if crc32(view[:-_CHECKSUM_BYTES]) != checksum:
        raise BadHeaderError("the segment header fails its checksum")
    return SegmentHeader(*fields)


# Writing ---------------------------------------------------------------------------------------


def trim(rows: Rows) -> Rows:
    """The rows without the padding that no value of the batch needs.

    Args:
      rows: (n, stride) uint8, n at least 1.

    Returns:
      (n, smaller stride) uint8, a copy; `rows` itself when there is nothing to save.
    """
    needed = wire.stride_for(int(wire.headers(rows)["length"].max()))
    assert needed <= rows.shape[1], "a row is shorter than its value"
    return rows if needed == rows.shape[1] else np.ascontiguousarray(rows[:, :needed])


def frame_bytes(batches: Sequence[Rows]) -> int:
    """The size of the frame that holds these batches."""
    return FRAME_HEADER_BYTES + len(batches) * _PART.size + sum(rows.nbytes for rows in batches)


def encode_frame(batches: Sequence[Rows], sequence: int, salt: int) -> list[Buffer]:
    """One frame as buffers, for one vectored write; the rows are not copied."""
    table = b"".join(_PART.pack(*rows.shape) for rows in batches)
    contents = [rows.reshape(-1).data for rows in batches]
    checksum = crc32(table, salt)
    for content in contents:
        checksum = crc32(content, checksum)
    rows_count = sum(len(rows) for rows in batches)
    size = frame_bytes(batches) - FRAME_HEADER_BYTES
    header = _header(FRAME_MAGIC, sequence, size, len(batches), rows_count, checksum, salt)
    return [header + table, *contents]


def encode_seal(sequence: int, salt: int) -> bytes:
    """What ends a segment that has a successor; `sequence` is that of the successor's first."""
    return _header(SEAL_MAGIC, sequence, 0, 0, 0, salt, salt)


def _header(
    magic: bytes, sequence: int, size: int, parts: int, rows: int, checksum: int, salt: int
) -> bytes:
    data = _FRAME.pack(magic, sequence, size, parts, rows, checksum, 0)[:-_CHECKSUM_BYTES]
    return data + crc32(data, salt).to_bytes(_CHECKSUM_BYTES, "big")


# Reading ---------------------------------------------------------------------------------------


class FrameAt(NamedTuple):
    """A good frame of a segment: where it lies, and its parts as (offset, rows, stride)."""

    offset: int
    end: int
    parts: list[tuple[int, int, int]]


class Tail(Enum):
    """What follows the last good frame of a segment."""

    CLEAN = auto()  # nothing but zeros
    SEALED = auto()  # a seal: a later segment exists
    TORN = auto()  # what one write that a power cut interrupted can leave
    DAMAGED = auto()  # anything else where the next frame would be
    DAMAGED_BEFORE = auto()  # the same, with something behind it


class Scan(NamedTuple):
    """The frames of a segment up to the first that is not good."""

    frames: list[FrameAt]
    end: int  # offset behind the last good frame
    next_sequence: int


def scan(data: bytes, salt: int, first_sequence: int) -> Scan:
    """Reads frames from behind the segment header until one is not good."""
    frames: list[FrameAt] = []
    offset, sequence = SEGMENT_HEADER_BYTES, first_sequence
    view = memoryview(data)
    while True:
        header = _frame_header(view, offset, salt)
        if header is None or header[0] != FRAME_MAGIC or header[1] != sequence:
            break
        _, _, size, part_count, _, checksum = header
        start = offset + FRAME_HEADER_BYTES
        end = start + size
        if end > len(data) or crc32(view[start:end], salt) != checksum:
            break
        parts = []
        content = start + part_count * _PART.size
        for rows, stride in _PART.iter_unpack(view[start:content]):
            parts.append((content, rows, stride))
            content += rows * stride
        assert content == end, "a checksummed frame contradicts itself"
        frames.append(FrameAt(offset, end, parts))
        offset, sequence = end, sequence + 1
    return Scan(frames, offset, sequence)


def classify_tail(data: bytes, at: Scan, salt: int) -> tuple[Tail, int]:
    """What follows the frames that were read, and the offset that shows it."""
    header = _frame_header(memoryview(data), at.end, salt)
    if header is not None and header[1] != at.next_sequence:
        return Tail.DAMAGED_BEFORE, at.end
    if header is not None and header[0] == SEAL_MAGIC:
        return Tail.SEALED, at.end
    rest = np.frombuffer(data, np.uint8, offset=at.end)
    if not rest.any():
        return Tail.CLEAN, at.end
    # The extent of the bad frame is known: one interrupted write leaves nothing behind it.
    end = at.end + FRAME_HEADER_BYTES + (0 if header is None else header[2])
    if header is not None and rest[end - at.end :].any():
        return Tail.DAMAGED_BEFORE, at.end
    if _any_frame(data, at.end + 8, salt) is not None:
        return Tail.DAMAGED_BEFORE, at.end
    return (Tail.TORN if _lacks_a_sector(data, at.end, end) else Tail.DAMAGED), at.end


def _lacks_a_sector(data: bytes, start: int, end: int) -> bool:
    """Whether bytes that a frame filled, when it was written, were never written in some sector.

    Args:
      data: the segment.
      start: where the frame begins.
      end: behind it, or behind its header where that is bad: then it is the header that lacks.
    """
    if end > len(data):
        return True
    bounds = range((start // SECTOR_BYTES + 1) * SECTOR_BYTES, end, SECTOR_BYTES)
    parts = np.array([0, *(bound - start for bound in bounds)])
    content: NDArray[np.uint8] = np.frombuffer(data, np.uint8, count=end - start, offset=start)
    return not np.bitwise_or.reduceat(content, parts).all()


_FrameHeader = tuple[bytes, int, int, int, int, int]


def _frame_header(view: memoryview, offset: int, salt: int) -> _FrameHeader | None:
    """Magic, sequence, payload bytes, parts, rows, payload checksum; None when it is not good."""
    end = offset + FRAME_HEADER_BYTES
    if end > view.nbytes:
        return None
    *fields, checksum = _FRAME.unpack_from(view, offset)
    if crc32(view[offset : end - _CHECKSUM_BYTES], salt) != checksum:
        return None
    if fields[0] not in (FRAME_MAGIC, SEAL_MAGIC):
        return None
    return fields[0], fields[1], fields[2], fields[3], fields[4], fields[5]


def _any_frame(data: bytes, start: int, salt: int) -> int | None:
    """The offset of a good frame header at or behind `start` (a multiple of 8), if there is one."""
    usable = (len(data) - start) // 8
    if usable <= 0:
        return None
    words: NDArray[np.uint64] = np.frombuffer(data, np.uint64, count=usable, offset=start)
    for magic in (FRAME_MAGIC, SEAL_MAGIC):
        for index in np.flatnonzero(words == np.frombuffer(magic, np.uint64)[0]):
            offset = start + 8 * int(index)
            if _frame_header(memoryview(data), offset, salt) is not None:
                return offset
    return None


class Batch(NamedTuple):
    """Rows of one stride that lay one behind the other in a segment."""

    rows: Rows  # read-only
    stored_bytes: int  # with their share of frame headers and other parts


def batches(data: bytes, frames: Sequence[FrameAt]) -> list[Batch]:
    """The rows of frames in order, in as few arrays as their strides allow.

    Appends of one row are the rule on an idle system: joined, the reader is quick with them.
    """
    result: list[Batch] = []
    pieces: list[memoryview] = []
    stride = stored = 0
    view = memoryview(data)

    def flush() -> None:
        if pieces:
            content = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            rows = np.frombuffer(content, np.uint8).reshape(-1, stride)
            result.append(Batch(rows, stored))
            pieces.clear()

    for frame in frames:
        overhead = frame.end - frame.offset - sum(n * size for _, n, size in frame.parts)
        for start, count, part_stride in frame.parts:
            if part_stride != stride:
                flush()
                stride, stored = part_stride, 0
            pieces.append(view[start : start + count * part_stride])
            stored += count * part_stride + overhead // len(frame.parts)
    flush()
    return result
