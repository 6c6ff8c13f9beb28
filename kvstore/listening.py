"""Where clients connect: a bound socket, or an error that says what is in the way."""

from __future__ import annotations

import errno
import socket

from kvstore.limits import keep_alive
from p4xos.errors import P4xosError
from p4xos.ports import holder

BACKLOG = 511
"""Clients whose connection is made and not yet taken; as in Redis."""


class BindFailed(P4xosError):
    """Clients cannot be served at this address."""

    def __init__(self, address: tuple[str, int], reason: str, mend: str) -> None:
        super().__init__(f"cannot serve RESP on {address[0]} port {address[1]}: {reason}; {mend}")
        self.address = address


def bound_socket(address: tuple[str, int]) -> socket.socket:
    """A TCP socket that has the address and does not listen yet; port 0 takes a free one.

    Raises:
      BindFailed: with what to do.
    """
    try:
        found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        reason = f"{address[0]!r} does not resolve ({error.strerror})"
        raise BindFailed(address, reason, "give an IP address of this machine") from None
    family, kind, protocol, _, resolved = found[0]
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        keep_alive(bound)
        bound.setblocking(False)
        bound.bind(resolved)
    except OSError as error:
        bound.close()
        raise _explained(address, error) from None
    return bound


def listen(bound: socket.socket) -> None:
    """Takes clients from now on.

    Raises:
      BindFailed: another process listens there; SO_REUSEADDR lets two bind, but one listen.
    """
    try:
        bound.listen(BACKLOG)
    except OSError as error:
        raise _explained(bound.getsockname()[:2], error) from None


def _explained(address: tuple[str, int], error: OSError) -> BindFailed:
    if error.errno == errno.EADDRINUSE:
        process = holder(address[1])
        reason = "the port is in use" + (f" by {process}" if process else "")
        return BindFailed(address, reason, "stop what uses it, or choose another port")
    if error.errno == errno.EADDRNOTAVAIL:
        mend = "choose one that `ip address` lists, or 0.0.0.0 for all"
        return BindFailed(address, "no interface here has this address", mend)
    if error.errno == errno.EACCES:
        return BindFailed(address, "the port needs privileges", "choose a port from 1024 up")
    return BindFailed(address, error.strerror or str(error), "choose another address")
