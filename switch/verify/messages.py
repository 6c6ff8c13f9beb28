"""Packets as the protocol sees them: the message in a UDP datagram, by the offsets of the wire.

Neither what comes in nor what leaves is read from the program's headers: a program that parses or
writes a field at the wrong place would be believed. Offsets are those of p4xos/wire.py, behind
Ethernet, IPv4 without options, and UDP.
"""

from __future__ import annotations

from dataclasses import dataclass

import z3

from p4xos import wire
from switch.verify.pipeline import Passage
from switch.verify.solving import is_impossible
from switch.verify.terms import Term

ETHERNET_BYTES, IPV4_BYTES, UDP_BYTES = 14, 20, 8
MESSAGE_OFFSET = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES
VALUE_OFFSET = MESSAGE_OFFSET + wire.HEADER_BYTES

_FRAME = {
    "ethernet_destination": (0, 6), "ethernet_source": (6, 6), "ether_type": (12, 2),
    "version_ihl": (14, 1), "total_length": (16, 2), "protocol": (23, 1),
    "ip_source": (26, 4), "ip_destination": (30, 4),
    "port_source": (34, 2), "port_destination": (36, 2), "udp_length": (38, 2),
}  # fmt: skip
"""Offset and size in bytes of what is not ours."""


@dataclass(frozen=True, slots=True)
class Message:
    """The first bits of a packet, left in front, and fields of it."""

    bits: Term

    def octets(self, offset: int, count: int) -> Term:
        """Bytes of the packet; what lies beyond the bits is 0."""
        size = self.bits.size()
        high, low = size - 8 * offset - 1, size - 8 * (offset + count)
        if low >= 0:
            return z3.Extract(high, low, self.bits)
        if high < 0:
            return z3.BitVecVal(0, 8 * count)
        return z3.Concat(z3.Extract(high, 0, self.bits), z3.BitVecVal(0, -low))

    def __getattr__(self, name: str) -> Term:
        """A field: those of the wire's header by its names, and `_FRAME`."""
        if name in _FRAME:
            return self.octets(*_FRAME[name])
        fields = wire.HEADER.fields
        assert fields is not None
        if name not in fields:
            raise AttributeError(name)
        type_, offset = fields[name][:2]
        return self.octets(MESSAGE_OFFSET + offset, type_.itemsize)

    def value(self, count: int, offset: int = 0) -> Term:
        """Bytes of the value."""
        return self.octets(VALUE_OFFSET + offset, count)


def received(passage: Passage) -> Message:
    """What comes in."""
    return Message(passage.packet)


def sent(passage: Passage) -> Message:
    """What leaves: the headers that the deparser emits, one behind the other.

    A header that is not valid leaves no gap, so what stands behind it depends on that. Most are
    there whenever anything leaves, which the solver finds out once, for the formulas' sake.
    """
    machine, values = passage.machine, passage.left.values
    emitted = machine.emitted
    headers = [machine.program.headers[name] for name, _ in emitted]
    size = sum(header.bits for header in headers)
    bits = z3.BitVecVal(0, size)
    for header, (name, condition) in reversed(list(zip(headers, emitted, strict=True))):
        fields = [values[f"{name}.{field}"] for field, _ in header.fields]
        if header.bits < size:
            fields.append(z3.Extract(size - 1, header.bits, bits))
        whole = z3.Concat(*fields) if len(fields) > 1 else fields[0]
        always = is_impossible([*machine.assumptions, passage.sent, z3.Not(condition)])
        bits = whole if always else z3.If(condition, whole, bits)
    return Message(bits)
