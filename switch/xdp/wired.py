"""A plane on interfaces: attached, told where its receivers are, watched.

    attach       to the interface that has the role's address, or to all ports of a switch: native,
                 in the driver; generic where a driver cannot: then replies leave in the kernel, and
                 what is for an audience is told by the process
    keep_up      now and then: interfaces are there, come and go; whom the program tells is where it
                 was
    teardown     the link is closed: the program is gone from the interfaces

The link is a descriptor and nothing is pinned, so all of it ends with the process.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

from p4xos.tables import Address
from switch.control.plan import Plan
from switch.xdp import layouts, neighbours
from switch.xdp.attaching import Place
from switch.xdp.errors import InterfaceGone
from switch.xdp.namespaces import Namespace
from switch.xdp.plane import XdpPlane
from switch.xdp.ports import Plugged

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often a plane looks after itself; what has changed meanwhile is lost like any datagram."""
LOOK_SOON_S = 0.02
"""The same while receivers are still to be found."""
PATIENCE_S = 1.0
"""A receiver that is not found within this time may be switched off: the others are told."""


class _Receiver(NamedTuple):
    """Whom a copy goes to, and the way there."""

    interface: int
    address: Address
    mac: bytes
    own: bytes


class WiredPlane(XdpPlane):
    """An XDP program on the interface that has its address, or on all ports of a switch."""

    def __init__(
        self,
        namespace: Namespace | None = None,
        *,
        ports: Sequence[str] = (),
        native: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is loaded.

        Args:
          namespace: where the interfaces are; None: where the process is.
          ports: names of the interfaces; none: that which has the address, of a bridge all.
          native: in the driver; None: where it can, else generic.
          clock: seconds, monotonic.
        """
        super().__init__()
        self._namespace = namespace
        self._ports = ports
        self._wanted = native
        self._clock = clock
        self._plugged: Plugged | None = None
        self._told: list[_Receiver] = []
        self._local = False  # a receiver is on this machine: no copy of an interface's reaches it
        self._asked_at: float | None = None  # since when some receiver has been looked for

    def load(self, plan: Plan) -> None:
        """As Backend, and attaches it.

        Raises:
          XdpUnavailable: also where the address is of no interface, or one takes no program.
        """
        super().load(plan)
        try:
            with self._there():
                self._attach(plan)
                self._local = any(neighbours.is_local(a.host) for a in self._receivers(plan))
            self.keep_up()
        except BaseException:
            self.teardown()
            raise

    def teardown(self) -> None:
        """As Backend."""
        if self._plugged is not None:
            self._plugged.close()
            self._plugged = None
        super().teardown()

    @property
    def native(self) -> bool:
        """Whether the program is in the driver, of all interfaces."""
        return self._plugged is not None and self._plugged.native

    @property
    def interfaces(self) -> dict[str, int]:
        """Where it is attached, numbers by name."""
        return {} if self._plugged is None else self._plugged.interfaces

    def keep_up(self) -> float:
        """Looks whether anything has changed; the seconds until it is worth it again.

        Raises:
          InterfaceGone: nothing reaches the program any more.
        """
        plan = self._known(None)
        with self._there():
            self._follow()
            if self._local or not self.native:
                return self._leave_telling()
            addresses = self._receivers(plan)
            hops = neighbours.hops([address.host for address in addresses])
            unknown = [host for host, hop in hops.items() if hop.mac is None]
            neighbours.ask(unknown)
            ways = {a: hops[a.host] for a in addresses if hops[a.host].mac is not None}
            interfaces = self.interfaces
            if any(hop.interface not in interfaces for hop in ways.values()):
                return self._leave_telling()  # some are behind an interface that is not ours
            self._tell(sorted(
                _Receiver(interfaces[hop.interface], address, hop.mac, hop.own)
                for address, hop in ways.items() if hop.mac is not None
            ))  # fmt: skip
        now = self._clock()
        if not unknown:
            self._asked_at = None
        elif self._asked_at is None:
            self._asked_at = now
        waited = self._asked_at is not None and now - self._asked_at >= PATIENCE_S
        ready = bool(self._told) and (not unknown or waited or self.endpoint.ready)
        self.set_endpoint(self.endpoint._replace(ready=ready))
        return LOOK_SOON_S if unknown and not waited else LOOK_S

    # ---------------------------------------------------------------------------------------------

    @contextmanager
    def _there(self) -> Iterator[None]:
        if self._namespace is None:
            yield
        else:
            with self._namespace.entered():
                yield

    @staticmethod
    def _receivers(plan: Plan) -> list[Address]:
        return [plan.addresses[to] for to in plan.told]

    def _attach(self, plan: Plan) -> None:
        self._place = Place.of(plan.own.host, self._ports)
        self._plugged = Plugged(
            self._place.interfaces(), plan.own, self._program, native=self._wanted,
            else_="slower, and this process tells what is for several",
        )  # fmt: skip

    def _follow(self) -> None:
        """Is on the interfaces that are there now."""
        assert self._plugged is not None
        now, before = self._place.interfaces(), self._plugged.interfaces
        if not now or (now != before and len(before) == 1 and not self._place.bridge):
            raise InterfaceGone(str(self._place))
        if now != before:
            self._plugged.change(now)
            log.warning("%s is on %s from now on, it was on %s", self._known(None).role,
                        ", ".join(now), ", ".join(before))  # fmt: skip

    def _leave_telling(self) -> float:
        """What is for several is the process's to tell."""
        self.set_endpoint(self.endpoint._replace(ready=False))
        return LOOK_S

    def _tell(self, receivers: list[_Receiver]) -> None:
        """From here on copies go to these. While they change, the process tells.

        In the namespace of the interfaces: the kernel looks for their numbers in the caller's.
        """
        if receivers == self._told:
            return
        self.set_endpoint(self.endpoint._replace(ready=False))
        behind = Counter(receiver.interface for receiver in receivers)
        for interface in {receiver.interface for receiver in self._told} - behind.keys():
            self.interfaces_told.remove(interface)
        for k, (interface, address, mac, own) in enumerate(receivers):
            if interface in behind:  # its first: they are sorted
                packed = layouts.BEHIND.pack(k, behind.pop(interface))
                self.interfaces_told.write(packed, interface)
            self.receivers.write(layouts.pack_receiver(address, mac, own), k)
            self.audience.write(layouts.DEVICE.pack(interface, self.copies.descriptor), k)
        for k in range(len(receivers), len(self._told)):
            self.audience.remove(k)
        self._told = receivers
