"""sendmmsg and recvmmsg: many segmented sends or receives in one system call.

Python's socket module makes one call a message, and each costs it some microseconds for the
addresses as text and for the control message. A busy endpoint sends and receives dozens at once,
so here all of their headers stand ready in arrays, as the kernel wants them (struct mmsghdr of
socket(7) and recvmmsg(2)), and only what changes is written into them.

Only 64-bit little-endian Linux is laid out here; elsewhere `available` is False and the endpoint
makes its calls one by one.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos.udp_socket import SOL_UDP, UDP_SEGMENT, Address
from p4xos.wire import alike

MESSAGES_MAX = 64
"""Of one system call: more gains nothing, and the kernel takes at most 1,024."""
OVERFLOW_BYTES = 65_536
CONTROL_BYTES = 24
"""One control message with a C int, padded: CMSG_SPACE(4)."""

_MESSAGE = np.dtype(
    {
        "names": ["name", "name_bytes", "pieces", "piece_count", "control", "control_bytes",
                  "flags", "size"],
        "formats": ["u8", "u4", "u8", "u8", "u8", "u8", "i4", "u4"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56],
        "itemsize": 64,
    }
)  # fmt: skip
_TOLD = ("size", "flags", "control_bytes")
"""What the kernel tells of each message beside its sender and segment."""
_PIECE = np.dtype([("base", "u8"), ("size", "u8")])
_CONTROL = struct.Struct("=QiiH6x")
_IPV4 = struct.Struct("=H2s4s8x")
_IPV6 = struct.Struct("=H2sI16sI")
_NAME_BYTES = 32
"""Room for a sockaddr_in6 of 28 bytes, in whole words."""


def _library() -> ctypes.CDLL | None:
    if sys.platform != "linux" or sys.byteorder != "little" or sys.maxsize < 2**32:
        return None
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "sendmmsg") or not hasattr(library, "recvmmsg"):
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_uint
    library.sendmmsg.argtypes = (ctypes.c_int, pointer, number, ctypes.c_int)
    library.recvmmsg.argtypes = (ctypes.c_int, pointer, number, ctypes.c_int, pointer)
    return library


_LIBRARY = _library()
available = _LIBRARY is not None


def _error() -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number))


def _pointer(array: NDArray[np.generic]) -> int:
    address: int = array.__array_interface__["data"][0]
    return address


def pack_address(address: Address) -> bytes | None:
    """A sockaddr; None for what has a scope or no numeric form, which goes the plain way."""
    host, port = address
    try:
        if ":" in host:
            raw = socket.inet_pton(socket.AF_INET6, host)
            return _IPV6.pack(socket.AF_INET6, port.to_bytes(2, "big"), 0, raw, 0)
        raw = socket.inet_pton(socket.AF_INET, host)
    except OSError:
        return None
    return _IPV4.pack(socket.AF_INET, port.to_bytes(2, "big"), raw)


def unpack_address(name: bytes) -> Address:
    """The inverse of `pack_address`, for what the kernel wrote."""
    family = int.from_bytes(name[:2], sys.byteorder)
    port = int.from_bytes(name[2:4], "big")
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
    return socket.inet_ntop(socket.AF_INET, name[4:8]), port


class SendPlan:
    """Chunks of rows of one stride, each to several addresses: chunks outside, addresses inside."""

    def __init__(self, stride: int, rows_per_chunk: int, addresses: Sequence[Address]) -> None:
        """The headers of as many messages as one call takes.

        Args:
          stride: bytes of a row: the segment size.
          rows_per_chunk: rows of one message.
          addresses: those for which `pack_address` has an answer.
        """
        names = [pack_address(address) for address in addresses]
        assert all(name is not None for name in names)
        self.addresses = len(addresses)
        self.chunks_max = max(MESSAGES_MAX // self.addresses, 1)
        self._chunk_bytes = rows_per_chunk * stride
        count = self.chunks_max * self.addresses
        self._names = np.zeros((self.addresses, _NAME_BYTES), np.uint8)
        for row, name in enumerate(names):
            assert name is not None
            self._names[row, : len(name)] = np.frombuffer(name, np.uint8)
        control = _CONTROL.pack(_CONTROL.size - 6, SOL_UDP, UDP_SEGMENT, stride)
        self._control = np.frombuffer(control, np.uint8).copy()
        self._pieces = np.zeros(self.chunks_max, _PIECE)
        self._pieces["size"] = self._chunk_bytes
        self._offsets = np.arange(self.chunks_max, dtype=np.uint64) * np.uint64(self._chunk_bytes)
        self._messages = np.zeros(count, _MESSAGE)
        chunk, address = np.divmod(np.arange(count, dtype=np.uint64), np.uint64(self.addresses))
        self._messages["name"] = _pointer(self._names) + address * np.uint64(_NAME_BYTES)
        self._messages["name_bytes"] = [len(name or b"") for name in names] * self.chunks_max
        self._messages["pieces"] = _pointer(self._pieces) + chunk * np.uint64(_PIECE.itemsize)
        self._messages["piece_count"] = 1
        self._messages["control"] = _pointer(self._control)
        self._messages["control_bytes"] = CONTROL_BYTES
        self._base = _pointer(self._messages)

    def set(self, rows: NDArray[np.uint8]) -> int:
        """Points at contiguous rows, at most `chunks_max` chunks; returns how many messages."""
        chunks, rest = divmod(rows.nbytes, self._chunk_bytes)
        chunks += rest > 0
        self._pieces["base"][:chunks] = self._offsets[:chunks] + np.uint64(_pointer(rows))
        self._pieces["size"][chunks - 1] = rest or self._chunk_bytes
        return chunks * self.addresses

    def send(self, descriptor: int, first: int, end: int) -> int:
        """Sends messages [first, end) of those set; returns the first that was not sent.

        Raises:
          OSError: message `first` could not be sent; none behind it was tried.
        """
        assert _LIBRARY is not None
        sent = _LIBRARY.sendmmsg(
            descriptor, self._base + first * _MESSAGE.itemsize, end - first, 0
        )
        if sent < 0:
            raise _error()
        return first + int(sent)

    def reset(self, messages: int) -> None:
        """Makes the last chunk whole again, for the next `set`."""
        self._pieces["size"][messages // self.addresses - 1] = self._chunk_bytes


class Stretch(NamedTuple):
    """Messages of one sender, size and segment, one behind the other."""

    first: int
    stop: int
    size: int
    segment: int
    name: bytes
    flags: int


class ReceiveSlots:
    """Headers for receives of one expected size into consecutive places of an arena."""

    def __init__(self, arena: NDArray[np.uint8]) -> None:
        self._arena = _pointer(arena)
        self.overflow = np.empty((MESSAGES_MAX, OVERFLOW_BYTES), np.uint8)
        """What was longer than expected; pages that nobody writes take no memory."""
        self._names = np.zeros((MESSAGES_MAX, _NAME_BYTES), np.uint8)
        self._controls = np.zeros((MESSAGES_MAX, CONTROL_BYTES), np.uint8)
        self._pieces = np.zeros((MESSAGES_MAX, 2), _PIECE)
        number = np.arange(MESSAGES_MAX, dtype=np.uint64)
        self._number = number
        self._pieces["base"][:, 1] = _pointer(self.overflow) + number * np.uint64(OVERFLOW_BYTES)
        self._pieces["size"][:, 1] = OVERFLOW_BYTES
        self._messages = np.zeros(MESSAGES_MAX, _MESSAGE)
        self._messages["name"] = _pointer(self._names) + number * np.uint64(_NAME_BYTES)
        self._messages["name_bytes"] = 28
        self._messages["pieces"] = _pointer(self._pieces) + number * np.uint64(2 * _PIECE.itemsize)
        self._messages["piece_count"] = 2
        self._messages["control"] = _pointer(self._controls) + number * np.uint64(CONTROL_BYTES)
        self._messages["control_bytes"] = CONTROL_BYTES
        self._places = (0, 0)  # offset and size that the first pieces stand for
        self._fresh = self._messages.view(np.uint8).copy()
        self._raw = self._messages.view(np.uint8)
        self._base = _pointer(self._messages)

    def receive(self, descriptor: int, offset: int, size: int, count: int) -> list[Stretch]:
        """Receives up to `count` messages, message k into arena[offset + k * size:].

        Returns:
          What came, in order; a size above the expected one continues in `overflow`. Empty:
          nothing there.

        Raises:
          OSError: an error that waited in the socket.
        """
        assert _LIBRARY is not None
        self._raw[:] = self._fresh  # the kernel has written into the last ones
        if (offset, size) != self._places:
            self._places = (offset, size)
            self._pieces["base"][:, 0] = self._number * np.uint64(size) + np.uint64(
                self._arena + offset
            )
            self._pieces["size"][:, 0] = size
        got = _LIBRARY.recvmmsg(
            descriptor, self._base, count, socket.MSG_DONTWAIT, None
        )
        if got < 0:
            error = _error()
            if isinstance(error, BlockingIOError):
                return []
            raise error
        return self._stretches(int(got))

    def _stretches(self, count: int) -> list[Stretch]:
        messages = self._messages[:count]
        busy = (  # one sender, and all of one size
            all(alike(messages[field]) for field in _TOLD)
            and _all_as_first(self._controls[:count])
            and _all_as_first(self._names[:count])
        )
        starts = [0] if busy else self._changes(messages)
        return [
            self._stretch(first, stop)
            for first, stop in zip(starts, [*starts[1:], count], strict=True)
        ]

    def _stretch(self, first: int, stop: int) -> Stretch:
        message = self._messages[first]
        size = int(message["size"])
        return Stretch(
            first, stop, size, self._segment(first, size), self._names[first].tobytes(),
            int(message["flags"]),
        )  # fmt: skip

    def _segment(self, row: int, size: int) -> int:
        """Without aggregation there is no control message, and the segment is the datagram."""
        if not self._messages[row]["control_bytes"]:
            return size
        return int.from_bytes(self._controls[row, 16:20].tobytes(), sys.byteorder)

    def _changes(self, messages: NDArray[np.void]) -> list[int]:
        """Where another stretch begins."""
        count = len(messages)
        segments = self._controls[:count, 16:20].view(np.int32)[:, 0]
        names = self._names[:count].view(np.uint64)
        changes = (names[1:] != names[:-1]).any(axis=1)
        changes |= segments[1:] != segments[:-1]
        for field in _TOLD:
            changes |= messages[field][1:] != messages[field][:-1]
        return [0, *(np.flatnonzero(changes) + 1).tolist()]


def _all_as_first(rows: NDArray[np.uint8]) -> bool:
    data = rows.tobytes()
    return data == data[: rows.shape[1]] * len(rows)
