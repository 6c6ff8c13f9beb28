"""What stands in the log: packs, each many values of libpaxos' clients under one number.

    4  MARK            a later version has another last byte, and no value may begin so
    8  client          who submits: drawn at random; 0 is nobody
    8  number          counts that client's packs from 1
    .  payloads        `packing.pack_payloads`: u32 count, u32 length of each, the values

All in network byte order. A client that does not know what became of a pack sends it again, through
any gateway: the number says that it is the same (`clients`). A payload of the log that is no pack,
as one that came through a node's own port, is one value.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos.errors import P4xosError
from p4xos.packing import VALUES_MAX

VERSION = 1
MARK = b"LPX%d" % VERSION
_HEAD = struct.Struct(">4sQQI")
_COUNT = struct.Struct(">I")
HEAD_BYTES = _HEAD.size
LENGTH_BYTES = 4
"""Of a pack for each of its values, beside the value."""

Lengths = NDArray[np.uint32]


class NewerPack(P4xosError):
    """A pack of a later release: who cannot read it cannot count on."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the log has a pack of version {version}, this release reads version {VERSION}; "
            "upgrade this node: nothing was applied"
        )


class Values(NamedTuple):
    """Values of libpaxos' instances that follow one another."""

    first: int
    """The instance of the first one, as libpaxos counts: `iid`."""
    lengths: Lengths
    """(n,) >u4: bytes of each, n at least 1."""
    data: bytes
    """All of them, one behind the other."""

    @property
    def next(self) -> int:
        """Behind the last one."""
        return self.first + len(self.lengths)

    def since(self, first: int) -> Values:
        """The same without those below `first`, which is one of them."""
        skip = first - self.first
        if skip <= 0:
            return self
        start = int(self.lengths[:skip].sum())
        return Values(first, self.lengths[skip:], self.data[start:])

    def before(self, stop: int) -> Values:
        """The same without those from `stop` on, which lies behind the first."""
        count = stop - self.first
        if count >= len(self.lengths):
            return self
        return Values(self.first, self.lengths[:count], self.data[: self.lengths[:count].sum()])

    def each(self) -> Iterator[tuple[int, bytes]]:
        """(iid, value), in order."""
        start = 0
        for iid, length in enumerate(self.lengths.tolist(), self.first):
            yield iid, self.data[start : start + length]
            start += length


class Pack(NamedTuple):
    """A payload of the log, read."""

    client: int
    number: int
    lengths: Lengths
    data: bytes


def joined(values: Sequence[Values]) -> Values:
    """Values that follow one another, at least one, as one."""
    if len(values) == 1:
        return values[0]
    return Values(
        values[0].first, np.concatenate([some.lengths for some in values]),
        b"".join([some.data for some in values]),
    )  # fmt: skip


def pack(client: int, number: int, payloads: bytes) -> bytes:
    """A pack of values as `packing.pack_payloads` writes them."""
    return b"".join((MARK, client.to_bytes(8, "big"), number.to_bytes(8, "big"), payloads))


def read_pack_untrusted(payload: bytes) -> Pack:
    """What a payload of the log holds: a pack, or one value that nobody numbered.

    The log may hold what other clients wrote, so nothing of it is believed; and all gateways must
    read the same, so this never changes for a mark that is in use.

    Raises:
      NewerPack: a later release wrote it.
    """
    if payload[:4] == MARK and len(payload) >= HEAD_BYTES:
        _, client, number, count = _HEAD.unpack_from(payload)
        start = HEAD_BYTES + LENGTH_BYTES * count
        if count <= VALUES_MAX and start <= len(payload) and client and number:
            lengths = np.frombuffer(payload, ">u4", count, HEAD_BYTES)
            if int(lengths.sum(dtype=np.uint64)) == len(payload) - start:
                return Pack(client, number, lengths, payload[start:])
    if payload[:3] == MARK[:3] and VERSION < int.from_bytes(payload[3:4]) - ord("0") <= 9:
        raise NewerPack(payload[3] - ord("0"))
    return Pack(0, 0, np.array([len(payload)], ">u4"), payload)


def read_payloads_untrusted(payloads: bytes) -> int | None:
    """How many values payloads of a pack are; None when they are none."""
    found = read_pack_untrusted(pack(1, 1, payloads))
    return len(found.lengths) if found.client else None


def cut(lengths: Sequence[int], data: bytes, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """Values as payloads of packs of at most so many bytes each, or of one longer value.

    Yields:
      How many values, and the payloads.
    """
    sizes = np.array(lengths, ">u4")
    ends = np.cumsum(sizes, dtype=np.int64)
    costs = ends + LENGTH_BYTES * np.arange(1, len(sizes) + 1)
    room = bytes_max - HEAD_BYTES
    first = start = taken = 0
    while first < len(sizes):
        stop = int(np.searchsorted(costs, taken + room, "right"))
        stop = min(max(stop, first + 1), first + VALUES_MAX)
        end = int(ends[stop - 1])
        yield stop - first, b"".join(
            (_COUNT.pack(stop - first), sizes[first:stop].tobytes(), data[start:end])
        )
        first, start, taken = stop, end, int(costs[stop - 1])
