"""Groups that can move: clusters in memory mode, with sizes that every data plane can have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest
import trio

from p4xos import planes, secret
from p4xos.config import Cluster, Storage, Timing
from p4xos.logstore import Retention
from p4xos.planes import ENTRY_POINTS
from p4xos.storage import create_mark
from p4xos.wire import Frame
from switch.control.acceptor import SwitchAcceptor
from switch.control.numpy_plane import NumpyPlane
from switch.control.plan import Plan
from switch.control.sequencer import SwitchSequencer
from tests.service.clusters import PATIENCE_S, Nodes

VALUE_BYTES, WINDOW = 128, 256
PATIENT = Timing(
    heartbeat_s=0.1, takeover_timeout_s=0.5, gap_timeout_s=0.1, retry_s=0.3, deadline_s=20.0
)
"""An interpreter that shares a core with the others is slow, and not dead."""


class RegisterPlanes:
    """Numpy's registers behind the interface of a switch: a data plane that is fast."""

    def fit(self, cluster: Cluster) -> Cluster:
        return cluster

    def prepare(self, cluster: Cluster) -> None:
        if cluster.value_bytes > VALUE_BYTES:
            raise ValueError(f"value_bytes is {cluster.value_bytes}: the limit is {VALUE_BYTES}")

    def acceptor(self, cluster: Cluster, frame: Frame) -> SwitchAcceptor:
        return SwitchAcceptor(NumpyPlane(), Plan.of(cluster, "acceptor", frame))

    def sequencer(self, cluster: Cluster, frame: Frame) -> SwitchSequencer:
        return SwitchSequencer(NumpyPlane(), Plan.of(cluster, "coordinator", frame))


def install(monkeypatch: pytest.MonkeyPatch, **points: str) -> None:
    """Entry points of data planes, by name, whether a package is installed or not."""
    found = EntryPoints([EntryPoint(k, value, ENTRY_POINTS) for k, value in points.items()])
    monkeypatch.setattr(planes, "entry_points", lambda group: found.select(group=group))


def new_cluster(
    directory: Path, *, storage: Storage = "memory", apart: bool = False,
    value_bytes: int = VALUE_BYTES,
) -> Cluster:
    cluster = replace(
        Cluster.template(3, storage=storage, directory=directory, apart=apart),
        timing=PATIENT, secret="file", window=WINDOW, value_bytes=value_bytes,
    )  # fmt: skip
    secret.create(secret.path_of(cluster))
    for acceptor in cluster.acceptors:
        create_mark(
            cluster.member_directory("acceptor", acceptor.id),
            cluster=cluster.id, group=cluster.group, acceptor=acceptor.id,
        )  # fmt: skip
    return cluster


class Killed(BaseException):
    """Raised in a node, it ends it at once: it keeps what its disk has."""


class MovableNodes(Nodes):
    """Nodes that tell where their roles are."""

    async def _run(
        self, name: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """One that is killed ends alone, as a process does."""
        try:
            await super()._run(name, task_status)
        except BaseExceptionGroup as group:
            _, others = group.split(Killed)
            if others is not None:
                raise others from None

    @property
    def planes(self) -> dict[str, str]:
        """Which data plane each role is on, all nodes together."""
        return {
            f"{role} {id}": name
            for node in self.running.values()
            for (role, id), name in sorted(node.moves.planes.items())
        }


@asynccontextmanager
async def running(cluster: Cluster) -> AsyncIterator[MovableNodes]:
    """All nodes of a cluster; they are stopped at the end."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nodes = MovableNodes(cluster, nursery, Retention())
            await nodes.start()
            yield nodes
            await nodes.stop()
