"""What clients may take of a node, and what the kernel knows of a connection.

Bounds of one connection's input and output are constants beside the code that keeps them;
those here can be set in the cluster file, table [clients].
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass
from typing import NamedTuple, Protocol

MAX_CLIENTS = 10_000
"""Redis' maxclients; each costs a descriptor and some 2 KiB, and at worst its bounds' sum."""
KEEPALIVE_S = 300
"""Redis' tcp-keepalive: a client whose machine is gone is found out after this and three probes."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Keys of [clients]; seconds and counts."""

    max_clients: int = MAX_CLIENTS
    max_per_address: int = 0
    idle_timeout_s: float = 0.0
    greeting_timeout_s: float = 10.0
    stalled_timeout_s: float = 60.0


class HasOptions(Protocol):
    """A TCP socket, or what stands for one."""

    def getsockopt(self, level: int, option: int, size: int, /) -> bytes:
        """As `socket.socket` has it."""
        ...


class Ages(NamedTuple):
    """Seconds since the kernel last saw data on a connection."""

    sent_s: float
    received_s: float


_LAST_DATA = struct.Struct("=44xI4xI")
"""Linux' struct tcp_info: tcpi_last_data_sent and tcpi_last_data_recv, in milliseconds."""


def ages(sock: HasOptions) -> Ages:
    """How long a connection has been silent; asking the kernel costs the hot path nothing."""
    known = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _LAST_DATA.size)
    sent_ms, received_ms = _LAST_DATA.unpack(known)
    return Ages(sent_ms / 1000, received_ms / 1000)


def keep_alive(listener: socket.socket) -> None:
    """Makes the kernel ask silent clients whether they are there; connections inherit it."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 3)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
