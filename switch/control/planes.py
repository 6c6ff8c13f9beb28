"""The data planes of this package, as p4xos finds them (`p4xos.planes`)."""

from __future__ import annotations

from dataclasses import replace

from p4xos.config import Cluster
from p4xos.wire import Frame
from switch.control.acceptor import SwitchAcceptor
from switch.control.p4_plane import VALUE_SIZES, P4Plane
from switch.control.plan import Plan
from switch.control.sequencer import SwitchSequencer

WINDOW = 1024
"""Of a new cluster: in a takeover a switch is asked for one instance at a time, so that a larger
window of votes takes seconds."""


class P4Planes:
    """The P4 programs, each acceptor and each sequencer on a switch of its own."""

    def fit(self, cluster: Cluster) -> Cluster:
        """As p4xos.planes.DataPlanes."""
        return replace(cluster, window=WINDOW, value_bytes=max(VALUE_SIZES))

    def acceptor(self, cluster: Cluster, frame: Frame) -> SwitchAcceptor:
        """As p4xos.planes.DataPlanes."""
        return SwitchAcceptor(P4Plane(), Plan.of(cluster, "acceptor", frame))

    def sequencer(self, cluster: Cluster, frame: Frame) -> SwitchSequencer:
        """As p4xos.planes.DataPlanes."""
        return SwitchSequencer(P4Plane(), Plan.of(cluster, "coordinator", frame))
