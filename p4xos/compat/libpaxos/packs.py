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

from p4xos.errors import P4xosError
from p4xos.packing import VALUES_MAX

VERSION = 1
MARK = b"LPX%d" % VERSION
_HEAD = struct.Struct(">4sQQI")
_COUNT = struct.Struct(">I")
HEAD_BYTES = _HEAD.size
LENGTH_BYTES = 4
"""Of a pack for each of its values, beside the value."""


def total(lengths: bytes) -> int:
    """The sum of lengths; most values have one length, and then it is a product."""
    count = len(lengths) // LENGTH_BYTES
    if lengths == lengths[:LENGTH_BYTES] * count:
        return count * int.from_bytes(lengths[:LENGTH_BYTES], "big")
    return int(np.frombuffer(lengths, ">u4").sum(dtype=np.uint64))


class NewerPack(P4xosError):
    """A pack of a later release: who cannot read it cannot count on."""

    def __init__(self, version: int) -> None:
        super().__init__(
            f"the log has a pack of version {version}, this release reads version {VERSION}; "
            "upgrade this node: nothing was applied"
        )


class Values(NamedTuple):
    """Values of libpaxos' instances that follow one another, at least one."""

    first: int
    """The instance of the first one, as libpaxos counts: `iid`."""
    lengths: bytes
    """Bytes of each: u32, one behind the other."""
    data: bytes
    """All of them, one behind the other."""

    @property
    def size(self) -> int:
        """How many they are."""
        return len(self.lengths) // LENGTH_BYTES

    @property
    def next(self) -> int:
        """Behind the last one."""
        return self.first + len(self.lengths) // LENGTH_BYTES

    def since(self, first: int) -> Values:
        """The same without those below `first`, which is one of them."""
        skip = LENGTH_BYTES * (first - self.first)
        if skip <= 0:
            return self
        return Values(first, self.lengths[skip:], self.data[total(self.lengths[:skip]) :])

    def before(self, stop: int) -> Values:
        """The same without those from `stop` on, which lies behind the first."""
        if stop >= self.next:
            return self
        lengths = self.lengths[: LENGTH_BYTES * (stop - self.first)]
        return Values(self.first, lengths, self.data[: total(lengths)])

    def each(self) -> Iterator[tuple[int, bytes]]:
        """(iid, value), in order."""
        start = 0
        for iid, length in enumerate(np.frombuffer(self.lengths, ">u4").tolist(), self.first):
            yield iid, self.data[start : start + length]
            start += length


class Pack(NamedTuple):
    """A payload of the log, read."""

    client: int
    number: int
    lengths: bytes
    data: bytes


def joined(values: Sequence[Values]) -> Values:
    """Values that follow one another, at least one, as one."""
    if len(values) == 1:
        return values[0]
    return Values(
        values[0].first, b"".join([some.lengths for some in values]),
        b"".join([some.data for some in values]),
    )  # fmt: skip


def pack(client: int, number: int, payloads: bytes) -> bytes:
    """A pack of values as `packing.pack_payloads` writes them."""
    return b"".join((MARK, client.to_bytes(8, "big"), number.to_bytes(8, "big"), payloads))


def is_newer(payload: bytes) -> bool:
    """Whether a payload begins as the packs of a later release do."""
    return payload[:3] == MARK[:3] and VERSION < int.from_bytes(payload[3:4]) - ord("0") <= 9


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
            lengths = payload[HEAD_BYTES:start]
            if total(lengths) == len(payload) - start:
                return Pack(client, number, lengths, payload[start:])
    if is_newer(payload):
        raise NewerPack(payload[3] - ord("0"))
    return Pack(0, 0, _COUNT.pack(len(payload)), payload)


def read_payloads_untrusted(payloads: bytes) -> int | None:
    """How many values payloads of a pack are; None when they are none."""
    found = read_pack_untrusted(pack(1, 1, payloads))
    return len(found.lengths) // LENGTH_BYTES if found.client else None


def cut(lengths: list[int], data: bytes, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """Values as payloads of packs of at most so many bytes each, or of one longer value.

    Yields:
      How many values, and the payloads.
    """
    if lengths.count(lengths[0]) == len(lengths):
        yield from _cut_alike(lengths[0], len(lengths), data, bytes_max)
        return
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


def _cut_alike(length: int, count: int, data: bytes, bytes_max: int) -> Iterator[tuple[int, bytes]]:
    """The same for values of one length."""
    most = max((bytes_max - HEAD_BYTES) // (LENGTH_BYTES + length), 1)
    most = min(most, count, VALUES_MAX)
    written = _COUNT.pack(length)
    head = _COUNT.pack(most) + written * most
    for first in range(0, count, most):
        some = min(most, count - first)
        if some < most:
            head = _COUNT.pack(some) + written * some
        yield some, head + data[first * length : (first + some) * length]
