"""A plane on an interface: attached, told where its receivers are, watched.

    attach       native, in the driver; generic where the driver cannot: then replies leave in the
                 kernel, and what is for an audience is told by the process
    keep_up      now and then: the interface is there; whom the program tells is where it was
    teardown     the link is closed: the program is gone from the interface

The link is a descriptor and nothing is pinned, so all of it ends with the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from p4xos.tables import Address
from switch.control.plan import Plan
from switch.xdp import attaching, layouts, neighbours
from switch.xdp.errors import InterfaceGone
from switch.xdp.namespaces import Namespace
from switch.xdp.plane import XdpPlane

LOOK_S = 1.0
"""How often a plane looks after itself; what has changed meanwhile is lost like any datagram."""
LOOK_SOON_S = 0.02
"""The same while receivers are still to be found."""
PATIENCE_S = 1.0
"""A receiver that is not found within this time may be switched off: the others are told."""


class WiredPlane(XdpPlane):
    """An XDP program on the interface that has its address."""

    def __init__(
        self,
        namespace: Namespace | None = None,
        *,
        native: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Nothing is loaded.

        Args:
          namespace: where the interface is; None: where the process is.
          native: in the driver; None: where it can, else generic.
          clock: seconds, monotonic.
        """
        super().__init__()
        self.interface = ""
        self.native = False
        self._namespace = namespace
        self._wanted = native
        self._clock = clock
        self._link: int | None = None
        self._told: list[tuple[Address, bytes]] = []
        self._local = False  # a receiver is on this machine: no copy of an interface's reaches it
        self._asked_at: float | None = None  # since when some receiver has been looked for

    def load(self, plan: Plan) -> None:
        """As Backend, and attaches it.

        Raises:
          XdpUnavailable: also where the address is of no interface, or that takes no program.
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
        if self._link is not None:
            os.close(self._link)
            self._link = None
        super().teardown()

    def keep_up(self) -> float:
        """Looks whether anything has changed; the seconds until it is worth it again.

        Raises:
          InterfaceGone: nothing reaches the program any more.
        """
        plan = self._known(None)
        with self._there():
            if attaching.number_of(self.interface) != self.endpoint.interface:
                raise InterfaceGone(self.interface)
            if self._local or not self.native:
                return LOOK_S
            hosts = [address.host for address in self._receivers(plan)]
            known = neighbours.known(hosts, self.interface)
            unknown = [host for host, mac in known.items() if mac is None]
            neighbours.ask(unknown)
            self._tell(
                [(a, mac) for a in self._receivers(plan) if (mac := known[a.host]) is not None]
            )
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
        self.interface, number = attaching.interface_with(plan.own.host)
        self.set_endpoint(self.endpoint._replace(interface=number))
        self._link, self.native = attaching.attached(
            self.attach, self.interface, number, native=self._wanted, sends=True,
            else_="slower, and this process tells what is for several",
        )  # fmt: skip

    def _tell(self, receivers: list[tuple[Address, bytes]]) -> None:
        """From here on copies go to these. While they change, the process tells."""
        if receivers == self._told:
            return
        self.set_endpoint(self.endpoint._replace(ready=False))
        device = layouts.DEVICE.pack(self.endpoint.interface, self.copies.descriptor)
        for k, (address, mac) in enumerate(receivers):
            self.receivers.write(layouts.pack_receiver(address, mac), k)
            self.audience.write(device, k)
        for k in range(len(receivers), len(self._told)):
            self.audience.remove(k)
        self._told = receivers
