"""The kernel as data plane, as p4xos finds it (`p4xos.planes`).

`xdp` runs there or not at all; `auto` where it can, else in software, and says which.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

from p4xos.config import NUMPY, Cluster, Member, RoleName
from p4xos.planes import NumpyPlanes
from p4xos.roles.rejoining import Voter
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Frame
from switch.control.plan import Plan, PlaneRole
from switch.xdp import namespaces, places, switches
from switch.xdp.build import build
from switch.xdp.controllers import XdpAcceptor, XdpSequencer
from switch.xdp.errors import XdpUnavailable
from switch.xdp.networks import NETWORKS, STAR, name_of, network_of
from switch.xdp.plane import XdpPlane
from switch.xdp.wired import WiredPlane

log = logging.getLogger(__name__)

WINDOW = 16_384
"""Of a new cluster: times the largest value it is kernel memory, 24 MB an acceptor; and in a
takeover an acceptor is asked for one instance at a time."""


class XdpPlanes:
    """Each acceptor and each sequencer on the interface with its address, or its switch's ports."""

    networks = tuple(NETWORKS)

    def network_of(self, cluster: Cluster) -> str | None:
        """As p4xos.planes.Networked."""
        return name_of(cluster)

    def fit(self, cluster: Cluster, network: str = STAR) -> Cluster:
        """As p4xos.planes.Networked: in a network of its own, so that no packet skips a driver.

        Raises:
          XdpUnavailable: this machine cannot; nothing has been made.
        """
        fitted = NETWORKS[network].fitted(replace(cluster, window=WINDOW))
        check(fitted)
        namespaces.check()
        return fitted

    def prepare(self, cluster: Cluster) -> None:
        """As p4xos.planes.DataPlanes: compiles; XdpUnavailable where this machine cannot."""
        _need_root()
        build("port", {})
        for plan in _plans(cluster):
            XdpPlane.build(plan)

    @contextmanager
    def laid(self, cluster: Cluster) -> Iterator[bool]:
        """As p4xos.planes.DataPlanes."""
        network = network_of(cluster)
        if network is None:
            yield False
            return
        _need_root()
        with network.laid(cluster):
            yield True

    def place(
        self, cluster: Cluster, role: RoleName, member: Member
    ) -> AbstractContextManager[None]:
        """As p4xos.planes.DataPlanes."""
        network = network_of(cluster)
        if network is None:
            return nullcontext()
        _need_root()
        return network.place(cluster, role, member)

    def acceptor(self, cluster: Cluster, frame: Frame) -> Voter:
        """As p4xos.planes.DataPlanes; XdpUnavailable where this machine cannot."""
        return XdpAcceptor(_plane(cluster, "acceptor", frame), Plan.of(cluster, "acceptor", frame))

    def sequencer(self, cluster: Cluster, frame: Frame) -> Sequencer:
        """As p4xos.planes.DataPlanes; XdpUnavailable where this machine cannot."""
        plane = _plane(cluster, "coordinator", frame)
        return XdpSequencer(plane, Plan.of(cluster, "coordinator", frame))


class AutoPlanes(XdpPlanes):
    """In the kernel where it can be, else in software: a line of the log says why."""

    among = ("xdp", NUMPY)
    """For whoever chooses when a role is opened (`p4xos.planes`)."""

    def fit(self, cluster: Cluster, network: str = STAR) -> Cluster:
        """As XdpPlanes; on the loopback where this machine cannot."""
        try:
            return super().fit(cluster, network)
        except XdpUnavailable as refusal:
            _tell("the cluster", refusal)
            return cluster

    def prepare(self, cluster: Cluster) -> None:
        """As p4xos.planes.DataPlanes: what cannot be is found out by each role."""

    def acceptor(self, cluster: Cluster, frame: Frame) -> Voter:
        """As XdpPlanes, or numpy's."""
        try:
            return super().acceptor(cluster, frame)
        except XdpUnavailable as refusal:
            _tell(f"acceptor {frame.sender}", refusal)
            return NumpyPlanes().acceptor(cluster, frame)

    def sequencer(self, cluster: Cluster, frame: Frame) -> Sequencer:
        """As XdpPlanes, or numpy's."""
        try:
            return super().sequencer(cluster, frame)
        except XdpUnavailable as refusal:
            _tell(f"coordinator {frame.sender}", refusal)
            return NumpyPlanes().sequencer(cluster, frame)


def check(cluster: Cluster) -> None:
    """Loads both programs once, and compiles them for the nodes.

    Raises:
      XdpUnavailable: this machine cannot run them.
    """
    _need_root()
    for plan in _plans(cluster):
        plane = XdpPlane()
        plane.load(plan)
        plane.teardown()


def _plans(cluster: Cluster) -> Iterator[Plan]:
    """One of each role."""
    roles: tuple[PlaneRole, ...] = ("acceptor", "coordinator")
    for role in roles:
        frame = Frame(cluster.id, cluster.group, cluster.members(role)[0].id)
        yield Plan.of(cluster, role, frame)


def _plane(cluster: Cluster, role: PlaneRole, frame: Frame) -> WiredPlane:
    """One where a member is, nothing loaded."""
    node = cluster.member(role, frame.sender).node
    where = places.kept(cluster, role, frame.sender)
    return WiredPlane(where, ports=switches.ports_of(cluster, node))


def _need_root() -> None:
    if os.geteuid() != 0:
        raise XdpUnavailable("it needs root", "run it as root")


def _tell(what: str, refusal: XdpUnavailable) -> None:
    log.warning("%s runs in software: XDP cannot run here: %s (%s)", what, refusal.reason,
                refusal.mend)  # fmt: skip
