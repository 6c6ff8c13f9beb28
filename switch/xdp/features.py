"""What the driver of an interface can do for XDP, as the kernel tells over netlink.

A driver that runs programs may still not send what they redirect: a veth does so only where the
other end's GRO is on or runs a program too, and nothing would tell where the packets went.
"""

from __future__ import annotations

import socket
import struct

# linux/netlink.h, linux/genetlink.h, linux/netdev.h
_GENERIC = 16
_CONTROL, _GET_FAMILY, _FAMILY_ID, _FAMILY_NAME = 16, 3, 1, 2
_DEVICE_GET, _INTERFACE, _FEATURES = 1, 1, 3
_SENDS_REDIRECTED = 4  # NETDEV_XDP_ACT_NDO_XMIT
_REQUEST, _ERROR = 1, 2
_MESSAGE, _HEADER = struct.Struct("=IHHII"), struct.Struct("=BBxx")
_ATTRIBUTE = struct.Struct("=HH")


def sends_redirected(interface: int) -> bool | None:
    """Whether the driver of an interface of this namespace sends what a program redirects to it.

    Returns:
      None where the kernel does not tell: Linux before 6.3.
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _GENERIC) as kernel:
        kernel.bind((0, 0))
        name = b"netdev\0"
        family = _asked(kernel, _CONTROL, _GET_FAMILY, _FAMILY_NAME, name).get(_FAMILY_ID)
        if family is None:
            return None
        number = int(struct.unpack("=H", family)[0])
        told = _asked(kernel, number, _DEVICE_GET, _INTERFACE, struct.pack("=I", interface))
    features = told.get(_FEATURES)
    if features is None:
        return None
    return bool(struct.unpack("=Q", features)[0] & _SENDS_REDIRECTED)


def _asked(
    kernel: socket.socket, family: int, command: int, attribute: int, value: bytes
) -> dict[int, bytes]:
    """The attributes of the kernel's answer; none where it knows no such thing."""
    packed = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(value), attribute) + value
    body = _HEADER.pack(command, 1) + packed.ljust(len(packed) + 3 & ~3, b"\0")
    kernel.send(_MESSAGE.pack(_MESSAGE.size + len(body), family, _REQUEST, 1, 0) + body)
    answer = kernel.recv(1 << 16)
    length, kind = _MESSAGE.unpack_from(answer)[:2]
    found: dict[int, bytes] = {}
    at = _MESSAGE.size + _HEADER.size
    while kind != _ERROR and at < length:
        size, name = _ATTRIBUTE.unpack_from(answer, at)
        found[name] = answer[at + _ATTRIBUTE.size : at + size]
        at += size + 3 & ~3
    return found
