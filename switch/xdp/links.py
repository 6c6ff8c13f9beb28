"""Offloads of links that the networks here are made of."""

from __future__ import annotations

import fcntl
import struct
from array import array
from socket import AF_INET, SOCK_DGRAM, socket

_SIOCETHTOOL = 0x8946  # linux/sockios.h
_SET_GRO, _SET_TX_CHECKSUMS = 0x2C, 0x17  # linux/ethtool.h


def offload(interface: str, *, gro: bool | None = None, checksums: bool | None = None) -> None:
    """Switches offloads of an interface of this thread's namespace.

    A veth takes what XDP sends to it only where its GRO is on, or XDP runs on it too.
    """
    with socket(AF_INET, SOCK_DGRAM) as any_socket:
        for command, value in ((_SET_GRO, gro), (_SET_TX_CHECKSUMS, checksums)):
            if value is None:
                continue
            asked = array("I", (command, value))
            request = struct.pack("16sP8x", interface.encode(), asked.buffer_info()[0])
            fcntl.ioctl(any_socket, _SIOCETHTOOL, request)
