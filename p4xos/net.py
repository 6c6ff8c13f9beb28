"""The UDP endpoint: rows in, rows out, many datagrams in one system call (docs/PROTOCOL.md, 2).

Strategy: a call costs microseconds whether it carries one datagram or a hundred, so batches go to
the kernel as they are, by `sending` and `receiving`, and come from it as views into an arena.

Consensus handles loss, so a datagram that cannot leave, or that is no message, is counted by reason
and never raised. What raises is a port that cannot be had, and a caller's mistake.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Protocol, Self

import trio

from p4xos.receiving import RECEIVE_BYTES, ROW_ALIGNMENT, Received, Receiver
from p4xos.sending import Sender
from p4xos.udp_socket import (
    SO_RCVBUFFORCE,
    SO_SNDBUFFORCE,
    SOL_UDP,
    UDP_GRO,
    bound_socket,
    dropped_when_full,
    grant,
    probe_segments,
)
from p4xos.udp_socket import Address as Address
from p4xos.udp_socket import BindFailed as BindFailed
from p4xos.wire import Rows

Fault = Callable[[Rows, Address], list[Rows]]
"""What a test does to a send: the rows that leave instead, none, changed, or several times."""
ARENA_BYTES = 4 << 20
BUFFER_BYTES = 4 << 20

assert RECEIVE_BYTES <= ARENA_BYTES
assert ARENA_BYTES % ROW_ALIGNMENT == 0

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


class Network(Protocol):
    """What a driver needs of a network; UdpEndpoint is the real one."""

    counters: dict[str, int]
    receive_buffer_bytes: int

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
        self._receiver = Receiver(bound, arena_bytes, self.counters, together=segments_max > 1)
        self._sender = Sender(bound, segments_max, self.counters)

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
        return self._sender.offload

    # Receiving

    def receive_nowait(self) -> list[Received]:
        """Take what has arrived, until nothing is left or the arena or call bound is reached.

        Returns:
          Batches in the order of arrival; neighbours of one source and stride are one batch. The
          rows are views into the arena, writable, and **valid until the next call**. A datagram
          whose length is not a multiple of 8 is zero-padded to one. An empty list: nothing there.
        """
        return self._receiver.drain()

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
                    self._sender.send(left, (address,))
        else:
            self._sender.send(rows, addresses)

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
