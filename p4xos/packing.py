"""Values in a run of bytes, as they stand in frames and in the log's store.

    payloads:  u32 count, u32 length of each, the payloads
    delivered: u32 count, u64 instance of each, u32 length of each, the payloads
    chosen:    u64 first instance, u32 count, u32 length of each, the values

All in network byte order, nothing padded. What `*_untrusted` reads is checked against the number of
bytes that are there before anything is allocated.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from p4xos.effects import Chosen
from p4xos.errors import BadPacket
from p4xos.wire import Rows

VALUES_MAX = 1 << 16
"""Values of one run at most."""
_PADDED_BYTES_MAX = 64 << 20
"""One long value among many short ones must not unfold into gigabytes of padding."""
_COUNT = struct.Struct(">I")
_CHOSEN = struct.Struct(">QI")

Deliveries = list[tuple[int, bytes]]
"""(instance, payload) in order."""


def pack_payloads(payloads: Sequence[bytes]) -> bytes:
    """Payloads, at most VALUES_MAX."""
    assert len(payloads) <= VALUES_MAX
    lengths = np.fromiter(map(len, payloads), dtype=">u4", count=len(payloads))
    return b"".join((_COUNT.pack(len(payloads)), lengths.tobytes(), *payloads))


def unpack_payloads_untrusted(data: bytes) -> list[bytes]:
    """The inverse of `pack_payloads`, or BadPacket."""
    count = _count_untrusted(data, 0, 4)
    lengths = np.frombuffer(data, ">u4", count, _COUNT.size)
    return _split_untrusted(data, _COUNT.size + 4 * count, lengths)


def pack_delivered(delivered: Deliveries) -> bytes:
    """Instances and payloads, at most VALUES_MAX."""
    count = len(delivered)
    assert count <= VALUES_MAX
    instances = np.fromiter((instance for instance, _ in delivered), dtype=">u8", count=count)
    payloads = [payload for _, payload in delivered]
    lengths = np.fromiter(map(len, payloads), dtype=">u4", count=count)
    return b"".join((_COUNT.pack(count), instances.tobytes(), lengths.tobytes(), *payloads))


def unpack_delivered_untrusted(data: bytes) -> Deliveries:
    """The inverse of `pack_delivered`, or BadPacket."""
    count = _count_untrusted(data, 0, 12)
    instances = np.frombuffer(data, ">u8", count, _COUNT.size)
    lengths = np.frombuffer(data, ">u4", count, _COUNT.size + 8 * count)
    payloads = _split_untrusted(data, _COUNT.size + 12 * count, lengths)
    return list(zip(instances.tolist(), payloads, strict=True))


def pack_chosen(chosen: Chosen) -> bytes:
    """Chosen values with their envelopes, without padding."""
    count = len(chosen.lengths)
    assert count <= VALUES_MAX
    width = chosen.values.shape[1]
    if count and int(chosen.lengths.min()) < width:
        values = chosen.values[np.arange(width) < chosen.lengths[:, np.newaxis]].tobytes()
    else:
        values = chosen.values.tobytes()
    lengths = chosen.lengths.astype(">u4").tobytes()
    return b"".join((_CHOSEN.pack(chosen.instance, count), lengths, values))


def unpack_chosen_untrusted(data: bytes) -> Chosen:
    """The inverse of `pack_chosen`, or BadPacket; the arrays are fresh."""
    if len(data) < _CHOSEN.size:
        raise BadPacket("values end before their first instance")
    instance: int = _CHOSEN.unpack_from(data)[0]
    count = _count_untrusted(data, 8, 4)
    lengths = np.frombuffer(data, ">u4", count, _CHOSEN.size).astype(np.int64)
    values = np.frombuffer(data, np.uint8, offset=_CHOSEN.size + 4 * count)
    width = int(lengths.max()) if count else 0
    if int(lengths.sum()) != len(values) or width * count > _PADDED_BYTES_MAX:
        raise BadPacket("the lengths of values do not add up to what is there")
    return Chosen(instance, _padded(values, lengths, width), lengths)


def pack_runs(runs: Sequence[Chosen]) -> bytes:
    """Several runs of chosen values, each behind its length in bytes."""
    packed = [pack_chosen(run) for run in runs]
    return b"".join(part for run in packed for part in (_COUNT.pack(len(run)), run))


def unpack_runs_untrusted(data: bytes) -> list[Chosen]:
    """The inverse of `pack_runs`, or BadPacket."""
    runs, start = [], 0
    while start < len(data):
        if start + _COUNT.size > len(data):
            raise BadPacket("a run of values ends before its length")
        stop = start + _COUNT.size + _COUNT.unpack_from(data, start)[0]
        if stop > len(data):
            raise BadPacket("a run of values ends early")
        runs.append(unpack_chosen_untrusted(data[start + _COUNT.size : stop]))
        start = stop
    return runs


def pack_instances(instances: Sequence[int]) -> bytes:
    """Instances, 8 bytes each."""
    return np.array(instances, ">u8").tobytes()


def unpack_instances_untrusted(data: bytes) -> list[int]:
    """The inverse of `pack_instances`, or BadPacket."""
    if len(data) % 8:
        raise BadPacket("instances end early")
    instances: list[int] = np.frombuffer(data, ">u8").tolist()
    return instances


def split_payloads(
    payloads: Sequence[bytes], values_max: int, bytes_max: int
) -> Iterator[Sequence[bytes]]:
    """The same payloads in parts within both bounds, or of a single longer payload."""
    start = size = 0
    for k, payload in enumerate(payloads):
        if k > start and (k - start >= values_max or size + len(payload) > bytes_max):
            yield payloads[start:k]
            start, size = k, 0
        size += len(payload)
    if start < len(payloads):
        yield payloads[start:]


def split_chosen(chosen: Chosen, bytes_max: int) -> list[Chosen]:
    """The same values in parts of about so many bytes each, at least one value a part."""
    step = min(max(bytes_max // max(chosen.values.shape[1], 1), 1), VALUES_MAX)
    return [
        Chosen(
            chosen.instance + start,
            chosen.values[start : start + step],
            chosen.lengths[start : start + step],
        )
        for start in range(0, len(chosen.lengths), step)
    ]


def _padded(values: NDArray[np.uint8], lengths: NDArray[np.int64], width: int) -> Rows:
    rows = np.zeros((len(lengths), width), np.uint8)
    rows[np.arange(width) < lengths[:, np.newaxis]] = values
    return rows


def _count_untrusted(data: bytes, offset: int, bytes_each: int) -> int:
    if len(data) < offset + _COUNT.size:
        raise BadPacket("values end before their count")
    count: int = _COUNT.unpack_from(data, offset)[0]
    if count > VALUES_MAX or offset + _COUNT.size + count * bytes_each > len(data):
        raise BadPacket(f"{count} values are announced: too many, or they end early")
    return count


def _split_untrusted(data: bytes, start: int, lengths: NDArray[np.uint32]) -> list[bytes]:
    ends = np.cumsum(lengths, dtype=np.uint64) + np.uint64(start)
    if (int(ends[-1]) if len(ends) else start) != len(data):
        raise BadPacket("the lengths of values do not add up to what is there")
    bounds = [start, *ends.tolist()]
    return [data[bounds[k] : bounds[k + 1]] for k in range(len(lengths))]
