"""The UDP endpoint: rows in, rows out, many datagrams in one system call (docs/PROTOCOL.md, 2).

Strategy: a call costs microseconds whether it carries one datagram or a hundred, so batches go to
the kernel as they are. On sending, UDP_SEGMENT (GSO) makes one `sendmsg` of up to 128 rows of one
stride. On receiving, UDP_GRO makes one `recvmsg_into` of up to 64 KiB of them; it lands in an
arena at an aligned offset, so the arena itself is the batch and nothing is copied. Where the
kernel or an interface cannot do this the same bytes travel by one call each.

Consensus handles loss, so a datagram that cannot leave, or that is no message, is counted by reason
and never raised. What raises is a port that cannot be had, and a caller's mistake.
"""

from __future__ import annotations

import errno
import ipaddress
import logging
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import NamedTuple, Protocol, Self

import numpy as np
import trio
from numpy.typing import NDArray

from p4xos.udp_socket import (
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SOL_UDP,
    UDP_GRO,
    UDP_SEGMENT,
    bound_socket,
    dropped_when_full,
    grant,
    probe_segments,
)
from p4xos.udp_socket import Address as Address
from p4xos.udp_socket import BindFailed as BindFailed
from p4xos.wire import HEADER_BYTES, Rows

Fault = Callable[[Rows, Address], list[Rows]]
"""What a test does to a send: the rows that leave instead, none, changed, or several times."""
Plan = tuple[int, list[tuple[int, int, bytes]]]
"""How rows of one stride go out: rows in one call, and the control message that says so."""

ROW_ALIGNMENT = 8
"""Rows start and end on 64-bit words, see p4xos.wire."""
DATAGRAM_BYTES_MAX = 65_507
"""The largest UDP payload over IPv4."""
SEND_BYTES_MAX = 65_536 - 18 - 40 - 8
"""The most that one segmented send carries. With Ethernet (and a VLAN tag), IPv6 and UDP headers it
must stay within an interface's 65,536: the kernel takes more, up to DATAGRAM_BYTES_MAX, but cuts it
into single datagrams on the way, and each then costs the receiver a call."""
RECEIVE_BYTES = 65_536
"""Room for one receive: more than UDP's 16-bit length can describe, so nothing is cut."""
RECEIVE_CALLS_MAX = 256
"""Receives of one drain, so that a flood of single datagrams ends it too (about 1 ms)."""
ARENA_BYTES = 4 << 20
BUFFER_BYTES = 4 << 20
CONTROL_BYTES = socket.CMSG_SPACE(4)
"""Room for the one control message asked for: the stride, a C int."""
CUT = int(socket.MSG_TRUNC | socket.MSG_CTRUNC)
"""Plain: the members are IntFlags, and combining those anew for each receive costs 3 us."""
NUMERIC_ADDRESSES_MAX = 4096
"""Addresses remembered as checked; past it the memory starts afresh."""

assert SEND_BYTES_MAX <= DATAGRAM_BYTES_MAX < RECEIVE_BYTES <= ARENA_BYTES
assert ARENA_BYTES % ROW_ALIGNMENT == RECEIVE_BYTES % ROW_ALIGNMENT == 0

COUNTERS = (
    "sent",  # datagrams that the kernel took
    "send_calls",
    "send_full",  # no room in a socket buffer or interface queue
    "send_forbidden",  # a firewall, or a broadcast address
    "send_unreachable",  # no route, host or interface
    "send_too_large",  # larger than UDP or the path takes; also logged
    "send_refused",  # an ICMP answer to an earlier send took this one's place
    "send_failed",  # any other reason
    "offload_fallback",  # segmented sends that only worked as single datagrams
    "received",  # datagrams given to the caller
    "receive_calls",
    "receive_copied",  # of those: copied, for their stride is not a multiple of 8
    "receive_truncated",
    "receive_empty",
    "receive_short",  # shorter than a header
    "receive_refused",  # an ICMP answer to an earlier send
    "receive_failed",
)
LOST = {
    errno.EAGAIN: "send_full",
    errno.ENOBUFS: "send_full",
    errno.ENOMEM: "send_full",
    errno.EPERM: "send_forbidden",
    errno.EACCES: "send_forbidden",
    errno.ENETUNREACH: "send_unreachable",
    errno.EHOSTUNREACH: "send_unreachable",
    errno.ENETDOWN: "send_unreachable",
    errno.EHOSTDOWN: "send_unreachable",
    errno.EADDRNOTAVAIL: "send_unreachable",
    errno.EMSGSIZE: "send_too_large",
    errno.ECONNREFUSED: "send_refused",
}
OUR_BUGS = (errno.EBADF, errno.ENOTSOCK, errno.EFAULT)
"""Use after close and the like: raised, since no peer and no network can cause them."""
SEGMENTATION_REFUSED = (errno.EIO, errno.EINVAL, errno.EMSGSIZE)

log = logging.getLogger(__name__)


class Received(NamedTuple):
    """Datagrams of one stride from one source, in the order of arrival.

    rows: (n, stride) uint8, writable, rows and stride aligned to 8 bytes; a view into the
      endpoint's arena, valid until the next `receive_nowait`. Copy what must live longer.
    source: the sender's numeric address and port.
    """

    rows: Rows
    source: Address


class Network(Protocol):
    """What a driver needs of a network; UdpEndpoint is the real one."""

    counters: dict[str, int]

    def receive_nowait(self) -> list[Received]:
        """What has arrived, bounded; the rows are valid until the next call."""
        ...

    @property
    def address(self) -> Address:
        """Where it is bound."""
        ...

    def fileno(self) -> int:
        """The descriptor that is readable when `receive_nowait` may have something."""
        ...

    def send(self, rows: Rows, addresses: Sequence[Address]) -> None:
        """Send every row to every address; what cannot leave is counted, not raised."""
        ...

    def close(self) -> None:
        """Give the address back; a second call does nothing."""
        ...


class UdpEndpoint:
    """One bound UDP socket with batched sends and receives; made by `bind`."""

    def __init__(self, bound: socket.socket, segments_max: int, arena_bytes: int) -> None:
        self.counters: dict[str, int] = dict.fromkeys(COUNTERS, 0)
        self.fault: Fault | None = None
        self.segments_max = segments_max
        self.receive_buffer_bytes = 0
        """What the kernel granted, in the unit that was asked for (it reports twice that)."""
        self._socket = bound
        self.address: Address = bound.getsockname()[:2]
        # Strides at or above this go as single datagrams; it only falls, when an interface refuses.
        self._offload_below = DATAGRAM_BYTES_MAX if segments_max > 1 else 0
        self._plans: dict[int, Plan] = {}
        self._numeric: set[Address] = set()
        self._strides_too_large: set[int] = set()
        self._arena: NDArray[np.uint8] = np.empty(arena_bytes, np.uint8)
        assert self._arena.ctypes.data % ROW_ALIGNMENT == 0
        self._view = self._arena.data

    @classmethod
    def bind(
        cls,
        address: Address,
        *,
        offload: bool | None = None,
        receive_buffer_bytes: int = BUFFER_BYTES,
        arena_bytes: int = ARENA_BYTES,
    ) -> Self:
        """Open a UDP socket at `address`; port 0 takes a free one, see `address`.

        Args:
          address: IPv4 or IPv6 address, or a name that is resolved once, here; and a port.
          offload: None uses UDP_SEGMENT and UDP_GRO where the kernel has them, True requires them,
            False sends and receives each datagram by itself.
          receive_buffer_bytes: asked of the kernel, which may grant less without privileges.
          arena_bytes: the most that one `receive_nowait` returns; at least one receive's 64 KiB.

        Raises:
          ValueError: a port or size out of range, before any I/O.
          BindFailed: the address is in use or not local, or offload is required and missing.
        """
        if not 0 <= address[1] <= 0xFFFF:
            raise ValueError(f"port {address[1]} of {address[0]} is outside 0 to 65535")
        if receive_buffer_bytes < 1:
            raise ValueError(f"receive_buffer_bytes is {receive_buffer_bytes}: give at least 1")
        if arena_bytes < RECEIVE_BYTES or arena_bytes % ROW_ALIGNMENT:
            raise ValueError(f"arena_bytes is {arena_bytes}: give a multiple of 8 from 65536 up")
        segments_max = 0 if offload is False else probe_segments()
        if offload and not segments_max:
            reason = "this kernel has no UDP_SEGMENT and UDP_GRO"
            raise BindFailed(address, reason, "do not require offload, or use Linux 5.0 or later")
        bound = bound_socket(address)
        try:
            bound.setblocking(False)
            if segments_max:
                bound.setsockopt(SOL_UDP, UDP_GRO, 1)
            # Three acceptors' worth of full sends do not fit the default send buffer.
            grant(bound, SO_SNDBUFFORCE, socket.SO_SNDBUF, BUFFER_BYTES)
            endpoint = cls(bound, segments_max, arena_bytes)
            endpoint.receive_buffer_bytes = grant(
                bound, SO_RCVBUFFORCE, socket.SO_RCVBUF, receive_buffer_bytes
            )
        except BaseException:
            bound.close()
            raise
        return endpoint

    @property
    def offload(self) -> bool:
        """Whether sends still go out segmented; turns False when an interface refuses them."""
        return self._offload_below > HEADER_BYTES

    # Receiving

    def receive_nowait(self) -> list[Received]:
        """Take what has arrived, until nothing is left or the arena or call bound is reached.

        Returns:
          Batches in the order of arrival; neighbours of one source and stride are one batch. The
          rows are views into the arena, writable, and **valid until the next call**. A datagram
          whose length is not a multiple of 8 is zero-padded to one. An empty list: nothing there.
        """
        receive, view = self._socket.recvmsg_into, self._view
        results: list[Received] = []
        # The open batch is arena[begin:offset], rows of `stride` from `source`; dropped datagrams
        # do not move `offset`, so what is received next always continues it.
        begin = offset = stride = calls = 0
        source: Address | None = None
        offset_max = len(view) - RECEIVE_BYTES
        for _ in range(RECEIVE_CALLS_MAX):
            if offset > offset_max:
                break
            try:
                size, control, flags, sender = receive(
                    [view[offset : offset + RECEIVE_BYTES]], CONTROL_BYTES
                )
            except BlockingIOError:
                break
            except OSError as error:
                self._receive_failed(error)
                continue
            calls += 1
            # UDP_GRO is the only control message asked for; without it this is one datagram.
            segment = int.from_bytes(control[0][2], sys.byteorder) if control else size
            if segment < HEADER_BYTES or flags & CUT:
                self._drop(size, segment, flags)
                continue
            even = size % segment == 0 and segment % ROW_ALIGNMENT == 0
            if not even or segment != stride or sender != source:
                if begin != offset:
                    assert source is not None
                    self._take(results, begin, offset, stride, source)
                begin, stride, source = offset, segment, sender
            if even:
                offset += size
            else:
                self._take_uneven(results, offset, size, segment, sender)
                offset += -(-size // ROW_ALIGNMENT) * ROW_ALIGNMENT
                begin, stride = offset, 0
        if begin != offset:
            assert source is not None
            self._take(results, begin, offset, stride, source)
        self.counters["receive_calls"] += calls
        return results

    def fileno(self) -> int:
        """The descriptor that is readable when `receive_nowait` may have something."""
        return self._socket.fileno()

    async def wait_readable(self) -> None:
        """Return when `receive_nowait` may have something.

        Raises:
          trio.ClosedResourceError: the endpoint was closed meanwhile.
        """
        await trio.lowlevel.wait_readable(self._socket)

    def overflow(self) -> int:
        """Datagrams that the kernel dropped because this socket's receive buffer was full."""
        return dropped_when_full(self._socket)

    def _take(
        self, results: list[Received], begin: int, end: int, stride: int, source: Address
    ) -> None:
        """Append arena[begin:end] as rows of `stride`, an aligned whole number of them."""
        rows = self._arena[begin:end].reshape(-1, stride)
        self.counters["received"] += len(rows)
        # An IPv6 source has flow and scope behind host and port.
        results.append(Received(rows, source[:2]))

    def _take_uneven(
        self, results: list[Received], begin: int, size: int, stride: int, source: Address
    ) -> None:
        """Append a receive whose last datagram is shorter, or whose stride is not aligned."""
        count, tail = divmod(size, stride)
        end = begin + size
        if count:
            begin = self._take_padded(results, begin, end, count, stride, source)
        if tail >= HEADER_BYTES:
            self._take_padded(results, begin, end, 1, tail, source)
        elif tail:
            self.counters["receive_short"] += 1

    def _take_padded(
        self,
        results: list[Received],
        begin: int,
        end: int,
        count: int,
        stride: int,
        source: Address,
    ) -> int:
        """Append `count` datagrams from `begin`, padded; return where the next one starts."""
        after = begin + count * stride
        padded = -(-stride // ROW_ALIGNMENT) * ROW_ALIGNMENT
        aligned = begin % ROW_ALIGNMENT == 0
        if aligned and padded == stride:
            self._take(results, begin, after, stride, source)
        elif aligned and count == 1 and after == end:
            # Nothing lies behind it yet: the padding fits in place.
            self._arena[after : begin + padded] = 0
            self._take(results, begin, begin + padded, padded, source)
        else:
            rows = np.zeros((count, padded), np.uint8)
            rows[:, :stride] = self._arena[begin:after].reshape(count, stride)
            self.counters["received"] += count
            self.counters["receive_copied"] += count
            results.append(Received(rows, source[:2]))
        return after

    def _drop(self, size: int, segment: int, flags: int) -> None:
        """Count a receive that holds no message."""
        if flags & CUT:
            self.counters["receive_truncated"] += 1
        elif size == 0:
            self.counters["receive_empty"] += 1
        else:
            self.counters["receive_short"] += -(-size // max(segment, 1))

    def _receive_failed(self, error: OSError) -> None:
        if error.errno in OUR_BUGS:
            raise error
        refused = error.errno == errno.ECONNREFUSED
        self.counters["receive_refused" if refused else "receive_failed"] += 1

    # Sending

    def send(self, rows: Rows, addresses: Sequence[Address]) -> None:
        """Send every row to every address, in order; what cannot leave is counted, not raised.

        Args:
          rows: (n, stride) uint8; read during the call only. A slice of rows goes as it is,
            anything that is not contiguous is copied first.
          addresses: numeric addresses of the endpoint's own family; a name would be a blocking
            look-up in the middle of the event loop.

        Raises:
          ValueError: an address that is not numeric, of the other family, or a port out of range.
        """
        if self.fault is not None:
            for address in addresses:
                for left in self.fault(rows, address):
                    self._send(left, (address,))
        else:
            self._send(rows, addresses)

    def _send(self, rows: Rows, addresses: Sequence[Address]) -> None:
        count, stride = rows.shape
        for address in addresses:
            if address not in self._numeric:
                self._check_address(address)
        data = rows.data
        if not data.c_contiguous:
            data = np.ascontiguousarray(rows).data
        step, control = self._plans.get(stride) or self._plan(stride)
        if count <= 1 or step <= 1:
            self._send_single(data, stride, addresses)
            return
        chunks = [data]
        if count > step:
            chunks = [data[start : start + step] for start in range(0, count, step)]
        sendmsg = self._socket.sendmsg
        sent = calls = 0
        # Chunks outside, addresses inside: all acceptors start on the first chunk at once.
        for chunk in chunks:
            for address in addresses:
                calls += 1
                try:
                    sendmsg((chunk,), control, 0, address)
                except OSError as error:
                    self._send_chunk_failed(error, chunk, stride, address)
                else:
                    sent += len(chunk)
        self.counters["sent"] += sent
        self.counters["send_calls"] += calls

    def _plan(self, stride: int) -> Plan:
        """How rows of a stride are sent from now on; remembered until an interface refuses."""
        step = min(SEND_BYTES_MAX // stride, self.segments_max)
        if stride >= self._offload_below:
            step = 1
        # Given with each call rather than set on the socket: a segment size on the socket also
        # keeps single datagrams above an interface's MTU from being sent at all.
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", stride))] if step > 1 else []
        plan = (step, control)
        self._plans[stride] = plan
        return plan

    def _send_single(self, data: memoryview, stride: int, addresses: Sequence[Address]) -> int:
        """Send each row by its own call; return how many datagrams left."""
        sendto = self._socket.sendto
        sent = calls = 0
        for k in range(len(data)):
            row = data[k : k + 1]
            for address in addresses:
                calls += 1
                try:
                    sendto(row, address)
                except OSError as error:
                    self._send_lost(error, 1, stride)
                else:
                    sent += 1
        self.counters["sent"] += sent
        self.counters["send_calls"] += calls
        return sent

    def _send_chunk_failed(
        self, error: OSError, chunk: memoryview, stride: int, address: Address
    ) -> None:
        """Count a chunk as lost; or, if it is the segmentation that failed, do without it."""
        if error.errno not in SEGMENTATION_REFUSED:
            self._send_lost(error, len(chunk), stride)
            return
        # EINVAL is also what an address with port 0 gives, which any peer can make us answer: only
        # when single datagrams do leave was segmentation the reason.
        if self._send_single(chunk, stride, (address,)):
            self.counters["offload_fallback"] += 1
            # EIO: the interface cannot do it. The others: not for a stride above its MTU.
            limit = 0 if error.errno == errno.EIO else stride
            self._offload_below = min(self._offload_below, limit)
            self._plans.clear()
            log.warning(
                "segmented sends of %d bytes each refused by the interface towards %s (%s); "
                "sending such datagrams one by one from now on",
                stride,
                address[0],
                error.strerror,
            )

    def _send_lost(self, error: OSError, datagrams: int, stride: int) -> None:
        if error.errno in OUR_BUGS:
            raise error
        reason = LOST.get(error.errno or 0, "send_failed")
        self.counters[reason] += datagrams
        if reason == "send_too_large" and stride not in self._strides_too_large:
            # Once a stride: no retry will ever deliver such a datagram.
            self._strides_too_large.add(stride)
            log.error(
                "datagrams of %d bytes are too large for UDP or the path and never arrive; "
                "lower the largest value, or raise the MTU",
                stride,
            )

    def _check_address(self, address: Address) -> None:
        """Raise ValueError unless `sendto` takes the address without a look-up; remember it."""
        host, port = address
        try:
            version = ipaddress.ip_address(host).version
        except ValueError:
            raise ValueError(f"{host!r} is not a numeric address: resolve it first") from None
        if (version == 6) != (self._socket.family == socket.AF_INET6):
            raise ValueError(f"{host} is of another address family than {self.address[0]}")
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"port {port} of {host} is outside 0 to 65535")
        if len(self._numeric) >= NUMERIC_ADDRESSES_MAX:
            self._numeric.clear()
        self._numeric.add(address)

    # Life

    def close(self) -> None:
        """Give the port back; whoever waits in `wait_readable` is woken. Twice does nothing."""
        if self._socket.fileno() >= 0 and trio.lowlevel.in_trio_run():
            trio.lowlevel.notify_closing(self._socket)
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
