"""Which ports are free, and who holds one that is not."""

from __future__ import annotations

import errno
import os
import re
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from p4xos.tables import Address

Protocol = Literal["TCP", "UDP"]
_KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
_LISTEN = "0A"  # state column of /proc/net/tcp


def free_addresses(count: int) -> list[Address]:
    """Loopback addresses whose ports are free for TCP and UDP now; all of them differ."""
    with ExitStack() as stack:
        found: list[Address] = []
        while len(found) < count:
            stream = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            stream.bind(("127.0.0.1", 0))
            address = Address(*stream.getsockname())
            datagram = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            try:
                datagram.bind(address)
            except OSError:
                continue  # some other program's UDP port
            found.append(address)
        return found


def obstacles(addresses: Iterable[tuple[Protocol, Address, str]]) -> list[str]:
    """Why addresses cannot be bound, a message for each that cannot.

    Args:
      addresses: protocol, address, and what will use it.
    """
    messages = []
    for protocol, address, user in addresses:
        with socket.socket(socket.AF_INET, _KINDS[protocol]) as probe:
            if protocol == "TCP":  # as servers do: old connections in TIME_WAIT do not count
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(address)
            except OSError as error:
                messages.append(f"{user} cannot have {protocol} {address}: {_why(error, address)}")
    return messages


def _why(error: OSError, address: Address) -> str:
    """The reason in words that name the process where /proc tells it."""
    if error.errno == errno.EADDRINUSE:
        process = holder(address.port)
        return "it is in use" + (f" by {process}" if process else "")
    if error.errno == errno.EADDRNOTAVAIL:
        return f"no interface of this machine has {address.host}"
    if error.errno == errno.EACCES:
        return "ports below 1024 are for root"
    return (error.strerror or str(error)).lower()


def holder(port: int) -> str | None:
    """The process that holds a local port, as "redis-server, pid 812"; None when not to be seen."""
    inodes = set()
    for table in ("tcp", "udp", "tcp6", "udp6"):
        try:
            lines = Path("/proc/net", table).read_text().splitlines()[1:]
        except OSError:
            continue  # not Linux, or no IPv6
        for line in lines:
            columns = line.split()
            held = columns[3] == _LISTEN or table.startswith("udp")
            if held and int(columns[1].rsplit(":", 1)[1], 16) == port:
                inodes.add(f"socket:[{columns[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            links = {os.readlink(link) for link in (process / "fd").iterdir()}
            if links & inodes:
                name = re.sub(r"[^\x21-\x7e]+", " ", (process / "comm").read_text()).strip()
                return f"{name}, pid {process.name}"
        except OSError:
            continue  # ended meanwhile, or belongs to another user
    return None
