"""Datagrams as the packets that a switch sees: Ethernet, IPv4, UDP, right checksums."""

from __future__ import annotations

import struct
from functools import lru_cache
from ipaddress import IPv4Address
from typing import NamedTuple

from p4xos.errors import BadPacket
from p4xos.tables import Address

_ETHERNET = struct.Struct(">6s6sH")
_IPV4 = struct.Struct(">BBHHHBBHII")
_UDP = struct.Struct(">HHHH")
_PSEUDO = struct.Struct(">IIHHHHH")
_HEADERS = _ETHERNET.size + _IPV4.size + _UDP.size
_ETHERTYPE_IPV4, _PROTOCOL_UDP, _TTL = 0x0800, 17, 64


class Datagram(NamedTuple):
    """What UDP carries, and between whom."""

    source: Address
    destination: Address
    payload: bytes


@lru_cache(maxsize=4096)
def host_number(host: str) -> int:
    """An IPv4 address as 32 bits."""
    return int(IPv4Address(host))


@lru_cache(maxsize=4096)
def host_text(number: int) -> str:
    """The inverse of `host_number`."""
    return str(IPv4Address(number))


def mac_of(address: Address) -> int:
    """A locally administered MAC for a host, made of its IPv4 address."""
    return 0x0200 << 32 | host_number(address.host)


def checksum(data: bytes) -> int:
    """The internet checksum, RFC 1071: of data of an even number of bytes."""
    number = int.from_bytes(data, "big")
    # 2**16 is 1 modulo 2**16 - 1: the remainder is the folded sum, and 0 has two forms.
    folded = number % 0xFFFF or (0xFFFF if number else 0)
    return folded ^ 0xFFFF


def frame(datagram: Datagram) -> bytes:
    """The packet that carries a datagram."""
    source, destination, payload = datagram
    from_host, to_host = host_number(source.host), host_number(destination.host)
    length = _UDP.size + len(payload)
    ipv4 = [0x45, 0, _IPV4.size + length, 0, 0x4000, _TTL, _PROTOCOL_UDP, 0, from_host, to_host]
    ipv4[7] = checksum(_IPV4.pack(*ipv4))
    pseudo = _PSEUDO.pack(
        from_host, to_host, _PROTOCOL_UDP, length, source.port, destination.port, length
    )
    udp = checksum(pseudo + payload + bytes(len(payload) % 2)) or 0xFFFF  # 0 would mean: none
    macs = (mac_of(destination).to_bytes(6, "big"), mac_of(source).to_bytes(6, "big"))
    return b"".join(
        (
            _ETHERNET.pack(*macs, _ETHERTYPE_IPV4),
            _IPV4.pack(*ipv4),
            _UDP.pack(source.port, destination.port, length, udp),
            payload,
        )
    )


def unframe(packet: bytes) -> Datagram:
    """The datagram of a packet.

    Raises:
      BadPacket: no UDP over IPv4, cut off, or a checksum that is wrong.
    """
    if len(packet) < _HEADERS:
        raise BadPacket(f"a packet of {len(packet)} bytes has no UDP header")
    kind = _ETHERNET.unpack_from(packet)[2]
    ipv4 = _IPV4.unpack_from(packet, _ETHERNET.size)
    if kind != _ETHERTYPE_IPV4 or ipv4[0] != 0x45 or ipv4[6] != _PROTOCOL_UDP:
        raise BadPacket("no UDP over plain IPv4")
    start = _ETHERNET.size + _IPV4.size
    if checksum(packet[_ETHERNET.size : start]):
        raise BadPacket("the checksum of the IPv4 header is wrong")
    from_port, to_port, length, udp = _UDP.unpack_from(packet, start)
    if ipv4[2] != _IPV4.size + length or len(packet) < start + length or length < _UDP.size:
        raise BadPacket(f"UDP says {length} bytes, IPv4 {ipv4[2]}, the packet has {len(packet)}")
    payload = packet[start + _UDP.size : start + length]
    pseudo = _PSEUDO.pack(ipv4[8], ipv4[9], _PROTOCOL_UDP, length, from_port, to_port, length)
    summed = pseudo + udp.to_bytes(2, "big") + payload + bytes(len(payload) % 2)
    if udp and checksum(summed):
        raise BadPacket("the UDP checksum is wrong")
    return Datagram(
        Address(host_text(ipv4[8]), from_port), Address(host_text(ipv4[9]), to_port), payload
    )
