"""The data planes of this package, as p4xos finds them (`p4xos.planes`)."""

from __future__ import annotations

from dataclasses import replace

from p4xos.config import Cluster, Timing
from p4xos.planes import OnThisNetwork
from p4xos.wire import Frame
from switch.control.acceptor import SwitchAcceptor
from switch.control.entries import VALUE_SIZES
from switch.control.p4_plane import P4Plane, program
from switch.control.plan import Plan, PlaneRole
from switch.control.sequencer import SwitchSequencer

PROGRAMS: tuple[PlaneRole, ...] = ("acceptor", "coordinator")
WINDOW = 256
"""Of a new cluster: in a takeover a switch is asked for one instance at a time, and one that joins
again waits for a window of instances. At some thousand packets a second a larger one takes seconds.
"""
TIMING = Timing(
    heartbeat_s=0.2, takeover_timeout_s=1.0, gap_timeout_s=0.1, retry_s=0.3, deadline_s=20.0
)  # fmt: skip
"""Of a new cluster: what is slow is not to be taken for dead."""


class P4Planes(OnThisNetwork):
    """The P4 programs, each acceptor and each sequencer on a switch of its own."""

    def fit(self, cluster: Cluster) -> Cluster:
        """As p4xos.planes.DataPlanes."""
        return replace(
            cluster, window=WINDOW, value_bytes=max(VALUE_SIZES), timing=TIMING
        )

    def prepare(self, cluster: Cluster) -> None:
        """As p4xos.planes.DataPlanes: translates the programs."""
        for role in PROGRAMS:
            program(
                role, value_bytes=cluster.value_bytes, window=cluster.window,
                acceptors=len(cluster.acceptors),
            )  # fmt: skip

    def acceptor(self, cluster: Cluster, frame: Frame) -> SwitchAcceptor:
        """As p4xos.planes.DataPlanes."""
        return SwitchAcceptor(P4Plane(), Plan.of(cluster, "acceptor", frame))

    def sequencer(self, cluster: Cluster, frame: Frame) -> SwitchSequencer:
        """As p4xos.planes.DataPlanes."""
        return SwitchSequencer(P4Plane(), Plan.of(cluster, "coordinator", frame))
