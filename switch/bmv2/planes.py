"""bmv2's data planes, as p4xos finds them (`p4xos.planes`)."""

from __future__ import annotations

from p4xos.config import Cluster
from p4xos.wire import Frame
from switch.bmv2 import programs
from switch.bmv2.plane import Bmv2Plane
from switch.control.acceptor import SwitchAcceptor
from switch.control.entries import sizes
from switch.control.plan import Plan
from switch.control.planes import PROGRAMS, P4Planes
from switch.control.sequencer import SwitchSequencer


class Bmv2Planes(P4Planes):
    """The P4 programs, each acceptor and each sequencer on a `simple_switch` of its own."""

    def __init__(self) -> None:
        """Raises NoDataPlane where p4c or bmv2 is missing."""
        programs.require()

    def prepare(self, cluster: Cluster) -> None:
        """As p4xos.planes.DataPlanes: compiles the programs."""
        super().prepare(cluster)
        for role in PROGRAMS:
            programs.compiled(
                role,
                sizes(value_bytes=cluster.value_bytes, window=cluster.window,
                      acceptors=len(cluster.acceptors)),
            )  # fmt: skip

    def acceptor(self, cluster: Cluster, frame: Frame) -> SwitchAcceptor:
        """As p4xos.planes.DataPlanes."""
        return SwitchAcceptor(Bmv2Plane(), Plan.of(cluster, "acceptor", frame))

    def sequencer(self, cluster: Cluster, frame: Frame) -> SwitchSequencer:
        """As p4xos.planes.DataPlanes."""
        return SwitchSequencer(Bmv2Plane(), Plan.of(cluster, "coordinator", frame))
