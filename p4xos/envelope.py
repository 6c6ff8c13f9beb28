"""The envelope in front of every value, which no switch reads (docs/PROTOCOL.md, section 2).

A value of length 0 is a no-op. Any other begins with 24 bytes in network order: session,
sequence, fragment index, fragment count. Session 0 opens a session: the sequence is then a random
nonce by which the proposer knows its own OPEN, and the payload is the proposer's id.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos.batching import SCALAR_BELOW
from p4xos.wire import (
    HEADER,
    HEADER_BYTES,
    HEADER_STRUCT,
    VERSION,
    Frame,
    Rows,
    Type,
    alike,
    new_rows,
    stride_for,
)

ENVELOPE = np.dtype(
    [("session", ">u8"), ("sequence", ">u8"), ("fragment", ">u4"), ("fragments", ">u4")]
)
ENVELOPE_BYTES = ENVELOPE.itemsize
_ENVELOPE = struct.Struct(">QQII")
_SESSION_AND_SEQUENCE = struct.Struct(">QQ")
_PROPOSER = struct.Struct(">I")
_REQUEST = int(Type.REQUEST)
assert _ENVELOPE.size == ENVELOPE_BYTES == 24

UNPACK_ENVELOPE = _ENVELOPE.unpack_from
"""(buffer, offset) to the fields of one envelope, for scalar paths."""
OPEN_SESSION = 0
"""The session of an OPEN value; never that of a session, since instances begin at 1."""


class Envelope(NamedTuple):
    """One value's envelope."""

    session: int
    sequence: int
    fragment: int
    fragments: int


def open_envelope(value: bytes) -> Envelope | None:
    """The envelope of a value, or None when the value is too short to have one."""
    if len(value) < ENVELOPE_BYTES:
        return None
    return Envelope(*_ENVELOPE.unpack_from(value))


def seal(
    session: int, sequence: int, payload: bytes, fragment: int = 0, fragments: int = 1
) -> bytes:
    """A payload with its envelope in front."""
    return _ENVELOPE.pack(session, sequence, fragment, fragments) + payload


def open_value(proposer: int, nonce: int) -> bytes:
    """The OPEN value of a proposer."""
    return seal(OPEN_SESSION, nonce, _PROPOSER.pack(proposer))


def proposer_of_open(value: bytes) -> int | None:
    """The proposer that an OPEN value names, or None when it is malformed."""
    if len(value) != ENVELOPE_BYTES + _PROPOSER.size:
        return None
    proposer: int = _PROPOSER.unpack_from(value, ENVELOPE_BYTES)[0]
    return proposer


def seal_requests(
    frame: Frame, session: int, sequence: int, payloads: Sequence[bytes | memoryview]
) -> Rows:
    """REQUEST rows for payloads that travel whole, sequences counted up from `sequence`.

    Args:
      payloads: each at most the data plane's largest value less ENVELOPE_BYTES.

    Returns:
      (len(payloads), stride) uint8, fresh, the stride that of the longest payload.
    """
    lengths = [len(payload) for payload in payloads]
    if len(payloads) < SCALAR_BELOW:
        return _requests_one_by_one(frame, session, sequence, payloads, lengths)
    rows = request_rows(frame, session, sequence, lengths)
    if len(set(lengths)) == 1:
        flat = np.frombuffer(b"".join(payloads), np.uint8).reshape(len(payloads), lengths[0])
        start = HEADER_BYTES + ENVELOPE_BYTES
        rows[:, start : start + lengths[0]] = flat
        return rows
    for row, payload in enumerate(payloads):
        start = HEADER_BYTES + ENVELOPE_BYTES
        rows[row, start : start + lengths[row]] = np.frombuffer(payload, np.uint8)
    return rows


def request_rows(
    frame: Frame, session: int, sequence: int, lengths: Sequence[int] | NDArray[np.uint16]
) -> Rows:
    """REQUEST rows with headers and envelopes, the payloads still zero; see `seal_requests`."""
    values = np.asarray(lengths, dtype=np.uint16) + ENVELOPE_BYTES
    # One row is made by hand and copied into all: a tenth of setting every field of every row.
    row = new_rows(1, int(values.max()))
    head = HEADER_STRUCT.pack(
        VERSION, Type.REQUEST, frame.group, frame.cluster, 0, 0, 0, frame.sender, values[0], 0, 0
    ) + _ENVELOPE.pack(session, sequence, 0, 1)
    row[0, : len(head)] = np.frombuffer(head, np.uint8)
    rows = np.empty((len(values), row.shape[1]), dtype=np.uint8)
    rows[:] = row
    envelope = rows[:, HEADER_BYTES : HEADER_BYTES + ENVELOPE_BYTES].view(ENVELOPE)[:, 0]
    envelope["sequence"] = np.arange(sequence, sequence + len(values), dtype=np.uint64)
    if not alike(values):
        rows[:, :HEADER_BYTES].view(HEADER)[:, 0]["length"] = values
    return rows


def fragment_requests(
    frame: Frame, session: int, sequence: int, payload: bytes, piece_bytes: int
) -> Rows:
    """REQUEST rows for one payload that travels in pieces of at most `piece_bytes` bytes.

    Each fragment has a sequence of its own, counted up from `sequence`.
    """
    count = -(-len(payload) // piece_bytes)
    last = len(payload) - (count - 1) * piece_bytes
    if count < SCALAR_BELOW:
        view = memoryview(payload)
        pieces = [view[k * piece_bytes : (k + 1) * piece_bytes] for k in range(count)]
        return _requests_one_by_one(
            frame, session, sequence, pieces, [*map(len, pieces)], fragments=count
        )
    lengths = np.full(count, piece_bytes, dtype=np.uint16)
    lengths[-1] = last
    rows = request_rows(frame, session, sequence, lengths)
    start = HEADER_BYTES + ENVELOPE_BYTES
    data = np.frombuffer(payload, np.uint8)
    if count > 1:
        rows[:-1, start : start + piece_bytes] = data[:-last].reshape(count - 1, piece_bytes)
    rows[-1, start : start + last] = data[-last:]
    envelope = rows[:, HEADER_BYTES : HEADER_BYTES + ENVELOPE_BYTES].view(ENVELOPE)[:, 0]
    envelope["fragment"] = np.arange(count, dtype=np.uint32)
    envelope["fragments"] = count
    return rows


def _requests_one_by_one(
    frame: Frame,
    session: int,
    sequence: int,
    payloads: Sequence[bytes | memoryview],
    lengths: Sequence[int],
    *,
    fragments: int = 1,
) -> Rows:
    """The same rows for a few payloads; with `fragments` they are those of one command."""
    stride = stride_for(ENVELOPE_BYTES + max(lengths))
    data = bytearray(stride * len(payloads))
    start = 0
    for row, payload in enumerate(payloads):
        HEADER_STRUCT.pack_into(
            data, start, VERSION, _REQUEST, frame.group, frame.cluster, 0, 0, 0, frame.sender,
            ENVELOPE_BYTES + lengths[row], 0, 0,
        )  # fmt: skip
        fragment = row if fragments > 1 else 0
        _ENVELOPE.pack_into(
            data, start + HEADER_BYTES, session, sequence + row, fragment, fragments
        )
        first = start + HEADER_BYTES + ENVELOPE_BYTES
        data[first : first + lengths[row]] = payload
        start += stride
    return np.frombuffer(data, np.uint8).reshape(len(payloads), stride)


def stamp(rows: Rows, session: int, sequence: int) -> None:
    """Writes a session, and sequences counted up, into the envelopes of REQUEST rows."""
    if len(rows) < SCALAR_BELOW:
        data, stride = rows.reshape(-1).data, rows.shape[1]
        for row in range(len(rows)):
            place = row * stride + HEADER_BYTES
            _SESSION_AND_SEQUENCE.pack_into(data, place, session, sequence + row)
        return
    envelope = rows[:, HEADER_BYTES : HEADER_BYTES + ENVELOPE_BYTES].view(ENVELOPE)[:, 0]
    envelope["session"] = session
    envelope["sequence"] = np.arange(sequence, sequence + len(rows), dtype=np.uint64)
