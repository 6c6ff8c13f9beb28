"""The wire format: the one place with offsets (docs/PROTOCOL.md, section 2).

Strategy: one datagram is one message, a batch of them is one array. `Rows` is a (n, stride) uint8
array of n datagrams, each a 40-byte header, the value and zero padding. The stride is a multiple
of 8, so the header is also five 64-bit words a row: the checks that every message passes compare
words, and no Python object is made for a message unless somebody asks for one by `messages`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos.errors import BadPacket

Rows = NDArray[np.uint8]
"""(n, stride) uint8, rows contiguous: n datagrams of one stride."""

VERSION = 1
HEADER = np.dtype(
    {
        "names": [
            "version", "type", "group", "cluster", "instance", "round", "vround",
            "sender", "length", "incarnation", "low",
        ],
        "formats": [
            "u1", "u1", ">u2", ">u4", ">u8", ">u4", ">u4",
            ">u2", ">u2", ">u4", ">u8",
        ],
        "offsets": [0, 1, 2, 4, 8, 16, 20, 24, 26, 28, 32],
        "itemsize": 40,
    }
)  # fmt: skip
HEADER_BYTES = HEADER.itemsize
HEADER_STRUCT = struct.Struct(">BBHIQIIHHIQ")
"""The same header for one message; fields in the order of HEADER."""
assert HEADER_STRUCT.size == HEADER_BYTES == 40

END_OF_LOG = 2**64 - 1
ASK_ONE_BY_ONE = 2**32 - 1
"""A summary's count of an acceptor that answers one instance at a time (a switch)."""
LOW_MAX = 1 << 62
"""No group comes near it; registers of instances have 63 bits."""
LOW_JUMP_MAX = 1 << 40
"""A `low` further ahead than this is damage or malice, never progress."""
LOW_UNKNOWN = 1
"""The `low` of a coordinator or learner that has been told none yet. It takes the first, however
high: at a million values a second a group is beyond LOW_JUMP_MAX within a fortnight, and whoever
starts then must learn where it is."""
VALUE_BYTES_MAX = 1472 - HEADER_BYTES
"""The largest value: what one 1,500-byte frame carries behind IPv4 and UDP headers."""


class Type(IntEnum):
    """Message types; 1 to 4 are the numbers of the published P4."""

    PHASE1A = 1
    PHASE1B = 2
    PHASE2A = 3
    PHASE2B = 4
    REQUEST = 5
    HEARTBEAT = 6
    RECOVER = 7
    LEARN = 8
    CHECKPOINT = 9
    READ_INDEX = 10
    READ_INDEX_REPLY = 11
    RECORD = 12
    RECORDED = 13
    RECOVERING = 14
    ASK_CHECKPOINT = 15


class Message(NamedTuple):
    """One message as Python values: for scalar paths, models, tests and people."""

    version: int
    type: int
    group: int
    cluster: int
    instance: int
    round: int
    vround: int
    sender: int
    length: int
    incarnation: int
    low: int
    value: bytes


def stride_for(value_bytes: int) -> int:
    """The row size, in bytes, for values of up to so many bytes."""
    return HEADER_BYTES + (value_bytes + 7 & ~7)


def new_rows(count: int, value_bytes: int) -> Rows:
    """Zeroed rows for values of up to `value_bytes` bytes."""
    return np.zeros((count, stride_for(value_bytes)), dtype=np.uint8)


def headers(rows: Rows) -> NDArray[np.void]:
    """The rows' headers.

    Args:
      rows: (n, stride) uint8, contiguous.

    Returns:
      (n,) HEADER, a view: assigning to a field changes the rows.
    """
    # A quarter of the time of `rows.view`, which asks in Python whether the types are safe.
    count, stride = rows.shape
    return np.ndarray((count,), HEADER, rows, 0, (stride,))


def words(rows: Rows) -> NDArray[np.uint64]:
    """The rows as native 64-bit words, for comparisons only (the bytes are in network order).

    Args:
      rows: (n, stride) uint8, stride a multiple of 8.

    Returns:
      (n, stride / 8) uint64, a view.
    """
    return rows.view(np.uint64)


def low_jumps(low: int, known: int) -> bool:
    """Whether a `low` that a coordinator or learner is told is too far ahead of what it knows."""
    return low > LOW_MAX or (known != LOW_UNKNOWN and low > known + LOW_JUMP_MAX)


def alike(values: NDArray[np.generic]) -> bool:
    """Whether all elements of a one-dimensional array, not empty, are equal.

    Comparing bytes objects beats a numpy comparison and its reduction fourfold at a hundred
    elements, and one column at a time beats several at once fivefold.
    """
    data = values.tobytes()
    return data == data[: values.itemsize] * len(values)


class Frame(NamedTuple):
    """What all messages of one sender have in common."""

    cluster: int
    group: int
    sender: int


def encode(
    cluster: int,
    group: int,
    type: int,
    *,
    instance: int = 0,
    round: int = 0,
    vround: int = 0,
    sender: int = 0,
    incarnation: int = 0,
    low: int = 0,
    value: bytes = b"",
) -> Rows:
    """One message as (1, stride) rows; ValueError when the value is longer than a frame carries."""
    if len(value) > VALUE_BYTES_MAX:
        raise ValueError(
            f"a value of {len(value)} bytes does not fit one datagram: the largest is "
            f"{VALUE_BYTES_MAX} bytes; split it into fragments"
        )
    rows = new_rows(1, len(value))
    HEADER_STRUCT.pack_into(
        rows.data.cast("B"), 0, VERSION, type, group, cluster, instance, round, vround,
        sender, len(value), incarnation, low,
    )  # fmt: skip
    if value:
        rows[0, HEADER_BYTES : HEADER_BYTES + len(value)] = np.frombuffer(value, np.uint8)
    return rows


def message(rows: Rows, row: int) -> Message:
    """One row as Python values."""
    data = rows[row].tobytes()
    fields = HEADER_STRUCT.unpack_from(data)
    return Message._make((*fields, data[HEADER_BYTES : HEADER_BYTES + fields[8]]))


def messages(rows: Rows) -> list[Message]:
    """All rows as Python values."""
    return [message(rows, row) for row in range(len(rows))]


def from_messages(batch: list[Message]) -> Rows:
    """Messages as rows of one stride, that of the longest value."""
    rows = new_rows(len(batch), max((len(m.value) for m in batch), default=0))
    for row, m in enumerate(batch):
        HEADER_STRUCT.pack_into(rows[row].data, 0, *m[:8], len(m.value), *m[9:11])
        rows[row, HEADER_BYTES : HEADER_BYTES + len(m.value)] = np.frombuffer(m.value, np.uint8)
    return rows


# Who is expected at an address, and what is taken from it --------------------------------------

_NOT_ACCEPTED = -1
DROP_REASONS = ("version", "type", "cluster", "length", "sender", "foreign_address")
"""Why `decode_untrusted` drops a datagram; `short` is counted where datagrams are received."""


class Peer:
    """What one address may send: for each message type, the sender id that it must show.

    A configured sender is one whose address and id are in the cluster file.
    """

    def __init__(self, cluster: int, group: int, senders: dict[int, int]) -> None:
        self.cluster = cluster
        self.group = group
        self.senders = dict(senders)
        self.other_version: int | None = None
        """The last version other than ours of what came from there; None when there was none."""
        self._sender_by_type = np.full(256, _NOT_ACCEPTED, dtype=np.int32)
        for type, sender in senders.items():
            self._sender_by_type[type] = sender
        stamp = np.zeros(1, dtype=HEADER)
        stamp["version"], stamp["group"], stamp["cluster"] = VERSION, group, cluster
        every_type = stamp.copy()
        every_type["type"] = 0xFF
        self._stamp = stamp.view(np.uint64)[0]
        self._not_type = ~(stamp.view(np.uint64)[0] ^ every_type.view(np.uint64)[0])


def decode_untrusted(rows: Rows, peer: Peer, counters: dict[str, int]) -> Rows:
    """The rows that are well-formed and from a configured sender; the others are counted.

    Args:
      rows: (n, stride) uint8, n datagrams of one source address, stride a multiple of 8, at least
        HEADER_BYTES.
      peer: what that address may send.
      counters: the counts by reason of DROP_REASONS, increased in place.

    Returns:
      (m, stride) uint8: `rows` itself when all are good, else a fresh array. Never raises.
    """
    if not len(rows):
        return rows
    if len(rows) < _SCALAR_BELOW:
        return _decode_one_by_one(rows, peer, counters)
    word = words(rows)
    if alike(word[:, 0]) and alike(word[:, 3]):  # busy: one type, sender, length: one row tells
        fields = HEADER_STRUCT.unpack_from(rows[0].data)
        if (
            fields[0] == VERSION
            and fields[2] == peer.group
            and fields[3] == peer.cluster
            and peer.senders.get(fields[1]) == fields[7]
            and fields[8] <= rows.shape[1] - HEADER_BYTES
        ):
            return rows
    header = headers(rows)
    stamped = (word[:, 0] & peer._not_type) == peer._stamp
    known = peer._sender_by_type[header["type"]] == header["sender"]
    fits = header["length"] <= rows.shape[1] - HEADER_BYTES
    good = stamped & known & fits
    if good.all():
        return rows
    for row in np.flatnonzero(~good):
        reason = _why_dropped(header[row], peer, bool(fits[row]))
        counters[reason] = counters.get(reason, 0) + 1
    kept: Rows = rows[good]
    return kept


_SCALAR_BELOW = 8  # fewer headers are unpacked sooner than compared as arrays


def _decode_one_by_one(rows: Rows, peer: Peer, counters: dict[str, int]) -> Rows:
    """The same for a few messages."""
    data = rows.reshape(-1).data
    stride = rows.shape[1]
    bad = []
    for row in range(len(rows)):
        fields = HEADER_STRUCT.unpack_from(data, row * stride)
        if not (
            fields[0] == VERSION
            and fields[2] == peer.group
            and fields[3] == peer.cluster
            and peer.senders.get(fields[1]) == fields[7]
            and fields[8] <= stride - HEADER_BYTES
        ):
            bad.append(row)
    if not bad:
        return rows
    header = headers(rows)
    for row in bad:
        fits = bool(header[row]["length"] <= stride - HEADER_BYTES)
        reason = _why_dropped(header[row], peer, fits)
        counters[reason] = counters.get(reason, 0) + 1
    kept: Rows = np.delete(rows, bad, axis=0)
    return kept


def _why_dropped(header: np.void, peer: Peer, fits: bool) -> str:
    """The first reason, in the order of DROP_REASONS, for which a datagram is dropped."""
    if header["version"] != VERSION:
        peer.other_version = int(header["version"])
        return "version"
    if header["type"] not in Type._value2member_map_:
        return "type"
    if header["cluster"] != peer.cluster or header["group"] != peer.group:
        return "cluster"
    return "sender" if fits else "length"


# Values with a layout of their own -------------------------------------------------------------

_U64 = struct.Struct(">Q")
_SUMMARY = struct.Struct(">QII")


def pack_end(end: int) -> bytes:
    """The value of PHASE1A, RECOVER and LEARN: the exclusive end of the range."""
    return _U64.pack(end)


def unpack_end(value: bytes) -> int:
    """The inverse of `pack_end`; BadPacket when the value is of another size."""
    if len(value) != _U64.size:
        raise BadPacket(f"the end of a range takes {_U64.size} bytes, not {len(value)}")
    end: int = _U64.unpack(value)[0]
    return end


class Summary(NamedTuple):
    """The value of a PHASE1B summary: what an acceptor holds of the range it was asked for."""

    highest: int
    votes: int
    nonce: int
    seen: tuple[int, ...]


def pack_summary(summary: Summary) -> bytes:
    """A summary as bytes: u64 highest, u32 count, u32 nonce, u32 seen[n]."""
    return _SUMMARY.pack(summary.highest, summary.votes, summary.nonce) + pack_seen(summary.seen)


def unpack_summary(value: bytes, acceptors: int) -> Summary:
    """The inverse of `pack_summary`; BadPacket when the value is of another size."""
    if len(value) != _SUMMARY.size + 4 * acceptors:
        raise BadPacket(
            f"a summary of {acceptors} acceptors takes {_SUMMARY.size + 4 * acceptors} bytes, "
            f"not {len(value)}"
        )
    seen = unpack_seen(value[_SUMMARY.size :], acceptors)
    highest, votes, nonce = _SUMMARY.unpack_from(value)
    return Summary(highest, votes, nonce, seen)


def is_summary(vround: int, length: int) -> bool:
    """Whether a PHASE1B is the summary: a vote has a vround, and no vote has no value."""
    return vround == NO_VOTE and length > 0


NO_VOTE = 0
"""The vround of a PHASE1B that reports a promise without a vote."""


_U32 = struct.Struct(">I")


def pack_incarnation(incarnation: int) -> bytes:
    """The value of RECORD; 0 only asks."""
    return _U32.pack(incarnation)


def unpack_incarnation(value: bytes) -> int:
    """The inverse of `pack_incarnation`; BadPacket when the value is of another size."""
    if len(value) != _U32.size:
        raise BadPacket(f"an incarnation takes {_U32.size} bytes, not {len(value)}")
    incarnation: int = _U32.unpack(value)[0]
    return incarnation


def pack_seen(seen: tuple[int, ...]) -> bytes:
    """The incarnations last seen of each acceptor, u32 each."""
    return struct.pack(f">{len(seen)}I", *seen)


def unpack_seen(value: bytes, acceptors: int) -> tuple[int, ...]:
    """The inverse of `pack_seen`; BadPacket when the value is of another size."""
    if len(value) != 4 * acceptors:
        raise BadPacket(f"seen of {acceptors} acceptors takes {4 * acceptors} bytes")
    return struct.unpack(f">{acceptors}I", value)
