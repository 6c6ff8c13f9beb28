"""A network of a switch's own: a namespace with nothing but a wire in it.

The wire is a veth pair. Both of its ends are in the namespace, and whoever made it keeps a socket
on one of them: a socket stays where it was made. Nothing of it is seen outside, and nothing can be
left behind: the kernel removes the namespace with all that is in it when the last process and the
last socket of it are gone, however they went.

No address stands on the wire and no packet of it passes a kernel's IP: checksums are whole when
they leave, so no offload has to be switched off, and nobody asks for an address by ARP.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from p4xos.planes import NoDataPlane
from switch.namespaces import Namespace

HOST, SWITCH = "host", "switch"
"""The wire's ends."""
_ETH_P_ALL = 0x0003


@contextmanager
def own_network() -> Iterator[None]:
    """What this thread starts and opens within is in a new network, with the wire.

    Raises:
      NoDataPlane: the kernel or the user's rights do not let it.
    """
    try:
        namespace = Namespace.new()
    except OSError as error:
        raise NoDataPlane(
            f"a switch needs a network namespace of its own, which is refused: {error.strerror}; "
            "run as root, or take --data-plane p4, which needs none"
        ) from None
    try:
        with namespace.entered():
            _lay_wire()
            yield
    finally:
        namespace.close()


def _lay_wire() -> None:
    _ip("link", "set", "lo", "up")  # bmv2's control plane listens here
    _ip("link", "add", HOST, "type", "veth", "peer", "name", SWITCH)
    for end in (HOST, SWITCH):
        # Without an IPv6 address of its own it sends nothing by itself.
        _ip("link", "set", "dev", end, "addrgenmode", "none")
        _ip("link", "set", "dev", end, "up")


def _ip(*words: str) -> None:
    try:
        subprocess.run(["ip", *words], check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise NoDataPlane(
            "ip is not on PATH: a switch's wire is laid by it; install the package iproute2"
        ) from None
    except subprocess.CalledProcessError as error:
        raise NoDataPlane(f"ip {' '.join(words)} fails: {error.stderr.strip()}") from None


def port() -> socket.socket:
    """The host's end of the wire: frames, whole. To be called within `own_network`."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    opened.bind((HOST, 0))
    return opened
