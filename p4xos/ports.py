"""Which ports are free, and who holds one that is not."""

from __future__ import annotations

import errno
import os
import random
import re
import socket
from collections.abc import Iterable
from contextlib import ExitStack
from itertools import chain, cycle, islice, repeat
from pathlib import Path
from typing import Literal

from p4xos.tables import Address

Protocol = Literal["TCP", "UDP"]
_KINDS = {"TCP": socket.SOCK_STREAM, "UDP": socket.SOCK_DGRAM}
_LISTEN = "0A"  # state column of /proc/net/tcp
_KERNELS_OWN = Path("/proc/sys/net/ipv4/ip_local_port_range")
_LOWEST = 10_240
"""Below are too many ports that programs are known by."""
_BLOCK = 512
_ANY = 0
"""What the kernel takes for "whatever is free"."""


class _Block:
    """Ports that no other process of this kind gives away as long as this one lives.

    A port that is free now is not yet bound, and two processes that look at the same time must not
    find the same. A block is held by a name in the abstract namespace of Unix sockets, which is one
    for each network namespace, as ports are, and ends with its process.
    """

    def __init__(self) -> None:
        """Takes the first block that nobody holds, from one of them on by chance."""
        self.owner = os.getpid()  # a child of a fork has a copy, and needs its own
        self._hold = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        blocks = _blocks()
        start = random.randrange(len(blocks))
        for block in blocks[start:] + blocks[:start]:
            try:
                self._hold.bind(f"\0p4xos-ports-{block.start}")
            except OSError:
                continue  # another process has it
            self.ports = cycle(block)
            return
        self.ports = cycle([_ANY])  # all are held


def _blocks() -> list[range]:
    """Ports that the kernel does not give to sockets without one, which may be bound any moment."""
    try:
        low, high = map(int, _KERNELS_OWN.read_text().split())
    except (OSError, ValueError):
        low, high = 32768, 60999  # what Linux starts with
    return [
        range(first, first + _BLOCK)
        for outside in (range(_LOWEST, low), range(high + 1, 65536))
        for first in range(outside.start, outside.stop - _BLOCK + 1, _BLOCK)
    ] or [range(low, low + _BLOCK)]


_block: _Block | None = None


def free_addresses(count: int) -> list[Address]:
    """Loopback addresses whose ports are free for TCP and UDP now; all of them differ.

    They are none of those that the kernel gives to outgoing connections, and stay free of other
    processes that call this, until hundreds more were given away here.
    """
    global _block
    if _block is None or _block.owner != os.getpid():
        _block = _Block()
    with ExitStack() as stack:
        found: list[Address] = []
        candidates = chain(islice(_block.ports, _BLOCK), repeat(_ANY))
        while len(found) < count:
            with ExitStack() as both:
                stream = both.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
                datagram = both.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                try:
                    stream.bind(("127.0.0.1", next(candidates)))
                    address = Address(*stream.getsockname())
                    datagram.bind(address)
                except OSError:
                    continue  # some other program has it, for TCP or for UDP
                stack.enter_context(both.pop_all())
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
