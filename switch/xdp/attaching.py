"""Putting a program on an interface: native, in the driver, else in the kernel's generic hook."""

from __future__ import annotations

import errno
import logging
import os
import socket
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from switch.xdp import bridges, features, neighbours
from switch.xdp.errors import XdpUnavailable

log = logging.getLogger(__name__)

_LOOPBACK = 1


class Attach(Protocol):
    """As `libbpf.Program.attach`."""

    def __call__(self, interface: int, *, native: bool) -> int:
        """The descriptor of a link; OSError."""
        ...


def interface_with(host: str) -> tuple[str, int]:
    """Name and number of the interface of this thread's namespace that has an address.

    Raises:
      XdpUnavailable: there is none on which programs run.
    """
    name = neighbours.interface_of(host)
    if name is None:
        raise XdpUnavailable(
            f"no interface here has the address {host}",
            "give the member an address of this machine",
        )
    number = socket.if_nametoindex(name)
    if number == _LOOPBACK:
        raise XdpUnavailable(
            f"{host} is on the loopback, where packets never pass a driver",
            "give the member the address of an interface",
        )
    return name, number


class Place(NamedTuple):
    """The interfaces on which packets for an address come in."""

    names: tuple[str, ...]
    bridge: str  # whose interfaces they are, whichever it has; empty: no bridge's

    @classmethod
    def of(cls, host: str, named: Sequence[str] = ()) -> Place:
        """That of an address.

        Args:
          host: the address.
          named: what people have named; else it is the interface that has the address, or, of a
            bridge that has it, all interfaces of that.

        Raises:
          XdpUnavailable: there are none on which programs run.
        """
        for name in named:
            if not number_of(name):
                raise XdpUnavailable(
                    f"there is no interface {name} here",
                    "name those of this machine in [[switch]] of the cluster file",
                )
        if named:
            return cls(tuple(named), "")
        name, _ = interface_with(host)
        if not bridges.is_bridge(name):
            return cls((name,), "")
        if not bridges.members(name):
            raise XdpUnavailable(
                f"the bridge {name}, which has the address {host}, has no interface",
                "give it one (ip link set dev NAME master BRIDGE)",
            )
        return cls((), name)

    def interfaces(self) -> dict[str, int]:
        """Those that are there now, numbers by name."""
        names: Iterable[str] = self.names
        if self.bridge:
            names = bridges.members(self.bridge).values() if number_of(self.bridge) else ()
        return {name: number for name in names if (number := number_of(name))}

    def __str__(self) -> str:
        """For people."""
        return self.bridge or ", ".join(self.names)


def number_of(interface: str) -> int:
    """The number of an interface of this thread's namespace; 0: it is gone."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return 0


def attached(
    attach: Attach, name: str, number: int, *, native: bool | None, sends: bool, else_: str
) -> tuple[int, bool]:
    """The descriptor of a link, and whether it is in the driver.

    Args:
      attach: makes the link.
      name, number: of the interface.
      native: whether it is to be in the driver; None: where it can.
      sends: whether the driver must send what the program redirects.
      else_: for people: what is slower where it cannot.

    Raises:
      XdpUnavailable: it takes no program.
    """
    refusal: OSError | None = None
    for driver in (True, False) if native is None else (native,):
        try:
            link = attach(number, native=driver)
        except OSError as error:
            refusal = error
            continue
        # Of a veth this may change with the program on it.
        if driver and sends and features.sends_redirected(number) is False:
            os.close(link)
            refusal = OSError(errno.EOPNOTSUPP, "its driver does not send what it redirects")
            continue
        if not driver:
            log.warning(
                "the driver of %s has no XDP (%s): the kernel's generic one runs the program, %s",
                name, "as was asked for" if refusal is None else refusal.strerror, else_,
            )  # fmt: skip
        return link, driver
    assert refusal is not None
    raise XdpUnavailable(
        f"{name} takes no program: {refusal.strerror}",
        "detach what is there (ip link set dev NAME xdp off), use another interface, or put all "
        "roles of this machine into one node",
    )
