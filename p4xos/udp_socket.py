"""Opening a UDP socket: what this kernel can do, whether the address can be had, which buffers.

Everything here runs once, when an endpoint is made; p4xos.net has the part that runs for every
batch.
"""

from __future__ import annotations

import errno
import socket
import struct

from p4xos.errors import P4xosError
from p4xos.wire import HEADER_BYTES

Address = tuple[str, int]
"""(numeric IPv4 or IPv6 address, port)."""

# Linux numbers (linux/udp.h, asm-generic/socket.h) which Python's socket module does not name.
SOL_UDP = 17
UDP_SEGMENT = 103
UDP_GRO = 104
SO_SNDBUFFORCE = 32
SO_RCVBUFFORCE = 33
SO_MEMINFO = 55
MEMINFO = struct.Struct("=9I")
MEMINFO_DROPS = 8

OUR_BUGS = (errno.EBADF, errno.ENOTSOCK, errno.EFAULT)
"""Use after close and the like: raised, since no peer and no network can cause them."""
SEGMENTS_MAX = 128
SEGMENTS_MAX_OLDER = 64
"""Segments of one send: the kernel's UDP_MAX_SEGMENTS, found by probing."""


class BindFailed(P4xosError):
    """The endpoint cannot be had at this address."""

    def __init__(self, address: Address, reason: str, mend: str) -> None:
        super().__init__(f"cannot open UDP {address[0]} port {address[1]}: {reason}; {mend}")
        self.address = address
        self.reason = reason


def probe_segments() -> int:
    """How many datagrams one segmented send may carry on this kernel; 0: no offload.

    Asked of a socket of its own on loopback, since kernels are patched and versions mislead.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as scratch:
        try:
            scratch.setsockopt(SOL_UDP, UDP_SEGMENT, HEADER_BYTES)
            scratch.setsockopt(SOL_UDP, UDP_GRO, 1)
        except OSError:
            return 0
        try:
            scratch.bind(("127.0.0.1", 0))
            scratch.sendto(bytes(SEGMENTS_MAX * HEADER_BYTES), scratch.getsockname())
        except OSError:
            # Too many for this kernel, or no loopback to ask: every one of them takes the lower.
            return SEGMENTS_MAX_OLDER
        return SEGMENTS_MAX


def bound_socket(address: Address) -> socket.socket:
    """A bound socket of the address's family, or BindFailed with what to do."""
    host, port = address
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as unknown:
        mend = "give an IPv4 or IPv6 address of this machine"
        raise BindFailed(address, f"{host!r} does not resolve ({unknown.strerror})", mend) from None
    family, kind, protocol, _, resolved = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # No SO_REUSEADDR: with UDP it would let two processes share the port and split its packets.
        bound.bind(resolved)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            mend = f"stop its owner (ss -ulnp 'sport = {port}' names it) or choose another port"
            raise BindFailed(address, "the port is in use", mend) from None
        if error.errno == errno.EADDRNOTAVAIL:
            mend = "choose one that `ip address` lists, or 0.0.0.0 for all"
            raise BindFailed(address, "no interface here has this address", mend) from None
        if error.errno == errno.EACCES:
            mend = "choose a port from 1024 up"
            raise BindFailed(address, "the port needs privileges", mend) from None
        raise BindFailed(address, error.strerror or str(error), "choose another address") from None
    return bound


def grant(bound: socket.socket, force: int, ask: int, size: int) -> int:
    """Set a buffer size, past the system's limit if permitted; return what was granted."""
    try:
        bound.setsockopt(socket.SOL_SOCKET, force, size)
    except PermissionError:
        bound.setsockopt(socket.SOL_SOCKET, ask, size)
    # The kernel doubles what it is asked for, for its own bookkeeping, and reports the double.
    return bound.getsockopt(socket.SOL_SOCKET, ask) // 2


def dropped_when_full(bound: socket.socket) -> int:
    """Datagrams that the kernel dropped because the socket's receive buffer was full."""
    try:
        memory = bound.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO.size)
    except OSError:
        return 0  # Linux before 4.12
    return int(MEMINFO.unpack(memory)[MEMINFO_DROPS])
