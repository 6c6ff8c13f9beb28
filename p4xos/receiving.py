"""The receiving half of a UDP endpoint: many datagrams a call, into an arena that is the batch.

With UDP_GRO one receive returns up to 64 KiB of datagrams of one sender and size, and their size in
a control message. It lands in the arena behind the one before, at an aligned place, so neighbours
of one sender and stride are one batch and nothing is copied. A receive that is long is most likely
followed by others of its size: those are taken many at once, each into its slot.
"""

from __future__ import annotations

import errno
import socket
import sys
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos import multi_message
from p4xos.multi_message import MESSAGES_MAX, ReceiveSlots, Stretch, unpack_address
from p4xos.udp_socket import OUR_BUGS, Address
from p4xos.wire import HEADER_BYTES, Rows

ROW_ALIGNMENT = 8
"""Rows start and end on 64-bit words, see p4xos.wire."""
RECEIVE_BYTES = 65_536
"""Room for one receive: more than UDP's 16-bit length can describe, so nothing is cut."""
RECEIVE_CALLS_MAX = 256
"""Receives of one drain, so that a flood of single datagrams ends it too (about 1 ms)."""
TOGETHER_BYTES = 8_192
"""A receive of so much is followed by one call for all there is of its size."""
CONTROL_BYTES = socket.CMSG_SPACE(4)
"""Room for the one control message asked for: the stride, a C int."""
CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
"""Plain: the members are IntFlags, and combining those anew for each receive costs 3 us."""
SENDERS_MAX = 4096
"""Senders remembered by their packed address; past it the memory starts afresh."""

assert RECEIVE_BYTES % ROW_ALIGNMENT == 0


class Received(NamedTuple):
    """Datagrams of one stride from one source, in the order of arrival.

    rows: (n, stride) uint8, writable, rows and stride aligned to 8 bytes; a view into the
      endpoint's arena, valid until the next `receive_nowait`. Copy what must live longer.
    source: the sender's numeric address and port.
    """

    rows: Rows
    source: Address


class Receiver:
    """Drains a socket into an arena."""

    def __init__(
        self, bound: socket.socket, arena_bytes: int, counters: dict[str, int], *, together: bool
    ) -> None:
        """With an arena of its own.

        Args:
          bound: not blocking.
          arena_bytes: the most that one drain returns.
          counters: those of the endpoint, increased in place.
          together: whether the socket has UDP_GRO, so that long receives come in series.
        """
        self.socket = bound
        self.arena: NDArray[np.uint8] = np.empty(arena_bytes, np.uint8)
        assert self.arena.ctypes.data % ROW_ALIGNMENT == 0
        self._counters = counters
        self._view = self.arena.data
        together = together and multi_message.available
        self._slots = ReceiveSlots(self.arena) if together else None
        self._senders: dict[bytes, Address] = {}
        self._results: list[Received] = []
        # The open batch is arena[begin:end], rows of `stride` from `source`.
        self._begin = self._end = self._stride = 0
        self._source: Address = ("", 0)

    def drain(self) -> list[Received]:
        """As `UdpEndpoint.receive_nowait`."""
        receive, view = self.socket.recvmsg_into, self._view
        self._results = []
        self._begin = self._end = self._stride = 0
        offset = calls = 0  # dropped datagrams do not move `offset`
        offset_max = len(view) - RECEIVE_BYTES
        while calls < RECEIVE_CALLS_MAX and offset <= offset_max:
            calls += 1
            try:
                size, control, flags, sender = receive(
                    [view[offset : offset + RECEIVE_BYTES]], CONTROL_BYTES
                )
            except BlockingIOError:
                calls -= 1
                break
            except OSError as error:
                self._failed(error)
                continue
            # UDP_GRO is the only control message asked for; without it this is one datagram.
            segment = int.from_bytes(control[0][2], sys.byteorder) if control else size
            if segment < HEADER_BYTES or flags & CUT:
                self._drop(size, segment, flags)
                continue
            # An IPv6 source has flow and scope behind host and port.
            offset = self._take(offset, size, segment, sender[:2])
            if size >= TOGETHER_BYTES and self._slots is not None and not size % ROW_ALIGNMENT:
                begin = offset
                offset, more = self._drain_together(self._slots, begin, size)
                calls += more or offset != begin  # one that finds nothing is not counted
                if not more:
                    break
        self._close_batch()
        self._counters["receive_calls"] += calls
        results, self._results = self._results, []
        return results

    def _drain_together(self, slots: ReceiveSlots, offset: int, size: int) -> tuple[int, bool]:
        """Takes many messages with one call, each expected to be as long as the last one.

        Returns:
          Where the arena goes on, and whether there may be more.
        """
        count = min((len(self._view) - offset) // size, MESSAGES_MAX)
        if not count:
            return offset, False
        try:
            stretches = slots.receive(self.socket.fileno(), offset, size, count)
        except OSError as error:
            self._failed(error)
            return offset, True
        for stretch in stretches:
            self._take_stretch(slots, stretch, offset, size)
        got = stretches[-1].stop if stretches else 0
        return offset + got * size, got == count

    def _take_stretch(
        self, slots: ReceiveSlots, stretch: Stretch, offset: int, size: int
    ) -> None:
        """Takes what one sender sent in messages of one length, each in a slot of `size`."""
        length, segment, source = stretch.size, stretch.segment, self._sender(stretch.name)
        if segment < HEADER_BYTES or stretch.flags & CUT:
            for _ in range(stretch.first, stretch.stop):
                self._drop(length, segment, stretch.flags)
        elif length == size and size % segment == 0:
            place = offset + stretch.first * size
            self._take(place, (stretch.stop - stretch.first) * size, segment, source)
        else:
            for slot in range(stretch.first, stretch.stop):
                place = offset + slot * size
                if length <= size:
                    self._take(place, length, segment, source)
                else:
                    self._close_batch()
                    rest = slots.overflow[slot, : length - size]
                    whole = np.concatenate((self.arena[place : place + size], rest))
                    self._take_uneven(whole, segment, source)

    def _sender(self, name: bytes) -> Address:
        address = self._senders.get(name)
        if address is None:
            if len(self._senders) >= SENDERS_MAX:
                self._senders.clear()
            address = self._senders[name] = unpack_address(name)
        return address

    def _take(self, place: int, size: int, segment: int, source: Address) -> int:
        """Takes arena[place : place + size], datagrams of `segment`; returns where it goes on."""
        if size % segment == 0 and segment % ROW_ALIGNMENT == 0:
            if place != self._end or segment != self._stride or source != self._source:
                self._close_batch()
                self._begin, self._stride, self._source = place, segment, source
            self._end = place + size
            return self._end
        self._close_batch()
        self._take_uneven(self.arena[place : place + size], segment, source)
        self._begin = self._end = place + -(-size // ROW_ALIGNMENT) * ROW_ALIGNMENT
        return self._end

    def _close_batch(self) -> None:
        """Hands the open batch over; the next one begins where it ended."""
        if self._begin != self._end:
            self._append(self.arena[self._begin : self._end], self._stride, self._source)
            self._begin = self._end

    def _append(self, data: NDArray[np.uint8], stride: int, source: Address) -> None:
        """Hands rows of `stride`, an aligned whole number of them, over."""
        rows = data.reshape(-1, stride)
        self._counters["received"] += len(rows)
        self._results.append(Received(rows, source))

    def _take_uneven(self, data: NDArray[np.uint8], stride: int, source: Address) -> None:
        """Takes a receive whose last datagram is shorter, or whose stride is not aligned."""
        count, tail = divmod(len(data), stride)
        whole = count * stride
        if count:
            self._take_padded(data[:whole], stride, source)
        if tail >= HEADER_BYTES:
            self._take_padded(data[whole:], tail, source)
        elif tail:
            self._counters["receive_short"] += 1

    def _take_padded(self, data: NDArray[np.uint8], stride: int, source: Address) -> None:
        """Takes datagrams of one stride: as they lie if that is aligned, else a padded copy."""
        if stride % ROW_ALIGNMENT == 0 and data.ctypes.data % ROW_ALIGNMENT == 0:
            self._append(data, stride, source)
            return
        padded = -(-stride // ROW_ALIGNMENT) * ROW_ALIGNMENT
        rows = np.zeros((len(data) // stride, padded), np.uint8)
        rows[:, :stride] = data.reshape(-1, stride)
        self._counters["receive_copied"] += len(rows)
        self._append(rows, padded, source)

    def _drop(self, size: int, segment: int, flags: int) -> None:
        """Counts a receive that holds no message."""
        if flags & CUT:
            self._counters["receive_truncated"] += 1
        elif size == 0:
            self._counters["receive_empty"] += 1
        else:
            self._counters["receive_short"] += -(-size // max(segment, 1))

    def _failed(self, error: OSError) -> None:
        if error.errno in OUR_BUGS:
            raise error
        refused = error.errno == errno.ECONNREFUSED
        self._counters["receive_refused" if refused else "receive_failed"] += 1
