"""The maps' values as Python sees them: `registers.h`, `coordinator.bpf.c`, `admission.h`.

A number each, in the machine's order unless the C says `__be`. The conformance suite reads and
writes every field of them through the programs.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from p4xos.tables import Address
from switch.control.packets import host_number

SEEN_MAX = 16
REGISTERS = struct.Struct(f"=IIIIQQ{SEEN_MAX}I")
SLOT = struct.Struct("=QIIQ")
"""Without the value, which follows."""
SETTINGS = struct.Struct("=QQ")
SEQUENCE = struct.Struct("=IIQ")
ENDPOINT = struct.Struct(">IHHIIH")
"""The part in network order; the rest follows in the machine's."""
ENDPOINT_REST = struct.Struct("=HI")
ENDPOINT_BYTES = ENDPOINT.size + ENDPOINT_REST.size
SENDER = struct.Struct(">IHH")
SENDER_TYPE = struct.Struct("=I")
RECEIVER = struct.Struct(">IH6s6s2x")
BEHIND = struct.Struct("=II")
DEVICE = struct.Struct("=Ii")


class Endpoint(NamedTuple):
    """Where a program is, who it is, and whether its port is open."""

    address: Address
    group: int
    cluster: int
    incarnation: int
    id: int
    open: bool
    ready: bool
    """Whether all receivers are known, so that the kernel tells them."""

    def pack(self) -> bytes:
        """As the map has it."""
        host, port = host_number(self.address.host), self.address.port
        return ENDPOINT.pack(
            host, port, self.group, self.cluster, self.incarnation, self.id
        ) + ENDPOINT_REST.pack(self.open, self.ready)


def pack_sender(address: Address, type: int, id: int) -> bytes:
    """A key of the map of those who may send."""
    packed = SENDER.pack(host_number(address.host), address.port, id)
    return packed + SENDER_TYPE.pack(type)


def pack_receiver(address: Address, mac: bytes, own: bytes) -> bytes:
    """Whom a copy goes to, by way of which Ethernet address, and from which."""
    return RECEIVER.pack(host_number(address.host), address.port, mac, own)
