"""Bridges of this namespace: their interfaces, and behind which one an Ethernet address is.

The kernel is asked as `brctl` asks it; /sys tells of the namespace that it was mounted in.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array

_SIOCETHTOOL, _SIOCDEVPRIVATE = 0x8946, 0x89F0  # linux/sockios.h
_DRIVER_INFO = struct.Struct("=I32s32s128x")  # struct ethtool_drvinfo
_GET_DRIVER = 0x3  # ETHTOOL_GDRVINFO
_GET_PORTS, _GET_LEARNT = 7, 18  # BRCTL_GET_PORT_LIST, BRCTL_GET_FDB_ENTRIES; linux/if_bridge.h
_LEARNT = struct.Struct("=6sBBIBB2x")  # struct __fdb_entry
_PORTS_MAX = 1024
_AT_ONCE = 1024


def is_bridge(interface: str) -> bool:
    """Whether an interface is a bridge; not where there is none of that name."""
    told = array("B", _DRIVER_INFO.pack(_GET_DRIVER, b"", b""))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        request = struct.pack("16sP8x", interface.encode(), told.buffer_info()[0])
        try:
            fcntl.ioctl(asking, _SIOCETHTOOL, request)
        except OSError:
            return False
    return bool(_DRIVER_INFO.unpack(told.tobytes())[1].startswith(b"bridge\0"))


def members(bridge: str) -> dict[int, str]:
    """Names of a bridge's interfaces, by the number of the port that each is."""
    numbers = array("i", [0] * _PORTS_MAX)
    _ask(bridge, _GET_PORTS, numbers.buffer_info()[0], _PORTS_MAX)
    return {port: socket.if_indextoname(number) for port, number in enumerate(numbers) if number}


def learnt(bridge: str) -> dict[bytes, str]:
    """Behind which interface each Ethernet address is, as far as packets have shown."""
    names = members(bridge)
    found: dict[bytes, str] = {}
    offset = 0
    while True:
        entries = array("B", bytes(_LEARNT.size * _AT_ONCE))
        count = _ask(bridge, _GET_LEARNT, entries.buffer_info()[0], _AT_ONCE, offset)
        for at in range(count):
            mac, low, own, _, high, _ = _LEARNT.unpack_from(entries, at * _LEARNT.size)
            name = names.get(high << 8 | low)
            if not own and name is not None:
                found[mac] = name
        offset += count
        if count < _AT_ONCE:
            return found


def _ask(bridge: str, *arguments: int) -> int:
    packed = array("L", [*arguments, *[0] * (4 - len(arguments))])
    request = struct.pack("16sP8x", bridge.encode(), packed.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        return int(fcntl.ioctl(asking, _SIOCDEVPRIVATE, bytearray(request)))
