"""The way to a host: by which interface, to which Ethernet address, as the kernel here knows it.

Programs in the kernel may not ask for it where the machine does not forward, so the process looks
into the kernel's own tables and tells them; what is not there yet is asked for by a datagram to the
discard port. Read in the namespace that the calling thread is in.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from switch.xdp import bridges

_ROUTES, _NEIGHBOURS = Path("/proc/thread-self/net/route"), Path("/proc/thread-self/net/arp")
_COMPLETE = 0x2  # ATF_COM, linux/if_arp.h
_DISCARD_PORT = 9
_SIOCGIFCONF, _SIOCGIFHWADDR = 0x8912, 0x8927  # linux/sockios.h
_REQUEST = struct.Struct("16s4x4s16x")  # struct ifreq: a name, and an IPv4 address
_INTERFACES_MAX = 1024


class Route(NamedTuple):
    """A line of the routing table."""

    interface: str
    network: int
    mask: int
    gateway: int  # 0: on the link


class Hop(NamedTuple):
    """The next machine on the way to a host."""

    interface: str  # empty: there is no route
    mac: bytes | None  # None: it has not answered yet
    own: bytes  # the interface's Ethernet address


def is_local(host: str) -> bool:
    """Whether an address is this machine's: no packet to it ever leaves."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trying:
        try:
            trying.bind((host, 0))
        except OSError:
            return False
        return True


def interface_of(host: str) -> str | None:
    """The interface that has an address; None where none has it."""
    found = array("B", bytes(_INTERFACES_MAX * _REQUEST.size))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asked = struct.pack("iP", len(found), found.buffer_info()[0])
        length = struct.unpack_from("i", fcntl.ioctl(asking, _SIOCGIFCONF, asked))[0]
    for name, address in _REQUEST.iter_unpack(found.tobytes()[:length]):
        if socket.inet_ntoa(address) == host:
            label: str = name.rstrip(b"\0").decode()
            return label.partition(":")[0]  # a second address may have a label of its own
    return None


def known(hosts: Iterable[str], interface: str) -> dict[str, bytes | None]:
    """The Ethernet address of each host's next hop by an interface; None where none is known."""
    routes, neighbours = read_routes(), read_neighbours()
    return {host: neighbours.get((interface, way(host, routes)[1])) for host in hosts}


def hops(hosts: Iterable[str]) -> dict[str, Hop]:
    """The way to each host; of a bridge the interface that the next machine is behind."""
    routes, neighbours = read_routes(), read_neighbours()
    macs: dict[str, bytes] = {}
    tables: dict[str, dict[bytes, str] | None] = {}  # of interfaces, None: no bridge

    def hop(host: str) -> Hop:
        interface, next_host = way(host, routes)
        if not interface:
            return Hop("", None, b"")
        if interface not in macs:
            macs[interface] = mac_of(interface)
            tables[interface] = bridges.learnt(interface) if bridges.is_bridge(interface) else None
        own, mac, table = macs[interface], neighbours.get((interface, next_host)), tables[interface]
        if mac is None or table is None:
            return Hop(interface, mac, own)
        return Hop(table[mac], mac, own) if mac in table else Hop(interface, None, own)

    return {host: hop(host) for host in hosts}


def mac_of(interface: str) -> bytes:
    """The Ethernet address of an interface; OSError where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asked = struct.pack("16s24x", interface.encode())
        told: bytes = fcntl.ioctl(asking, _SIOCGIFHWADDR, asked)
    return told[18:24]


def ask(hosts: Iterable[str]) -> None:
    """Makes the kernel look for the next hops; whether it found them shows later."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        for host in hosts:
            try:
                asking.sendto(b"", (host, _DISCARD_PORT))
            except OSError:
                continue  # no route now: asked again later


def read_routes() -> list[Route]:
    """The main routing table, the most exact routes first."""
    routes = []
    for line in _ROUTES.read_text().splitlines()[1:]:
        interface, network, gateway, _, _, _, _, mask = line.split()[:8]
        routes.append(Route(interface, int(network, 16), int(mask, 16), int(gateway, 16)))
    return sorted(routes, key=lambda route: route.mask.bit_count(), reverse=True)


def way(host: str, routes: Iterable[Route]) -> tuple[str, str]:
    """The interface, and the host itself or the gateway on the way to it; without route no one."""
    number = _number(host)
    for route in routes:
        if number & route.mask == route.network:
            return route.interface, _text(route.gateway) if route.gateway else host
    return "", host


def read_neighbours() -> dict[tuple[str, str], bytes]:
    """Ethernet addresses by interface and host, of those that have answered there."""
    found = {}
    for line in _NEIGHBOURS.read_text().splitlines()[1:]:
        host, _, flags, mac, _, device = line.split()
        if int(flags, 16) & _COMPLETE:
            found[device, host] = bytes.fromhex(mac.replace(":", ""))
    return found


def _number(host: str) -> int:
    """As the routing table has it: the machine's order."""
    return int(struct.unpack("=I", socket.inet_aton(host))[0])


def _text(number: int) -> str:
    return socket.inet_ntoa(struct.pack("=I", number))
