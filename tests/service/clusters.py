"""Whole clusters in one process: real sockets on loopback, real stores in a temporary directory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from kvstore.machine import KvStateMachine
from kvstore.store import Store
from p4xos import secret
from p4xos.application import BatchMachine, OneByOne
from p4xos.config import Cluster, Timing
from p4xos.local import LocalClient
from p4xos.logstore import LogStore, Retention
from p4xos.node import Node
from p4xos.retained import RetainedLog
from p4xos.storage import create_mark

PATIENCE_S = 60.0
"""Until a test gives up; never part of what is tested."""
POLL_S = 0.01


async def until(condition: Callable[[], bool]) -> None:
    """Waits for a condition that some task brings about."""
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.sleep(POLL_S)


class Nodes:
    """The nodes of a cluster, each started and stopped by name."""

    def __init__(
        self,
        cluster: Cluster,
        nursery: trio.Nursery,
        retention: Retention,
        retained_bytes: int | None = None,
    ) -> None:
        """With `retained_bytes` the nodes are those of the key-value store."""
        self.retained_bytes = retained_bytes
        self.cluster = cluster
        self.secret_file = secret.path_of(cluster) if cluster.secret == "file" else None
        self.retention = retention
        self.running: dict[str, Node] = {}
        self._nursery = nursery
        self._scopes: dict[str, tuple[trio.CancelScope, trio.Event]] = {}

    async def start(self, *names: str) -> None:
        for name in names or [node.name for node in self.cluster.nodes]:
            if name in self._scopes:  # it ends by itself, and its disk is its own until then
                await self._scopes.pop(name)[1].wait()
            await self._nursery.start(self._run, name)

    async def stop(self, *names: str) -> None:
        for name in names or list(self.running):
            scope, ended = self._scopes.pop(name)
            scope.cancel()
            await ended.wait()

    async def _run(
        self, name: str, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        cluster, ended = self.cluster, trio.Event()
        try:
            with ExitStack() as stack, trio.CancelScope() as scope:
                machine = self._open_machine(name, stack)
                node = stack.enter_context(Node(cluster, name).open(machine))
                if self.retained_bytes is not None and node.application is not None:
                    first = node.application.applied + 1
                    node.application.retained = RetainedLog(first, self.retained_bytes)
                self.running[name] = node
                self._scopes[name] = scope, ended
                task_status.started()
                await node.run()
        finally:
            self.running.pop(name, None)
            ended.set()

    def _open_machine(self, name: str, stack: ExitStack) -> BatchMachine:
        directory = self.store_directory(name)
        if self.retained_bytes is None:
            log = LogStore(directory, self.cluster.id, self.retention)
            stack.callback(log.close)
            return log
        store = Store(directory, self.cluster.id)
        stack.callback(store.close)
        return OneByOne(KvStateMachine(store))

    def store_directory(self, name: str) -> Path:
        return self.cluster.data_directory(name) / "log"

    def delivered(self, name: str) -> int:
        application = self.running[name].application
        assert application is not None
        return application.applied

    def local(self, name: str) -> LocalClient:
        application = self.running[name].application
        assert application is not None
        return LocalClient(application)


def new_cluster(
    directory: Path, nodes: int = 3, window: int = 1024, *, sealed: bool = True
) -> Cluster:
    cluster = replace(
        Cluster.template(nodes=nodes, directory=directory),
        secret="file" if sealed else "none",
        window=window,
        timing=Timing(heartbeat_s=0.05, takeover_timeout_s=0.15, deadline_s=5.0),
    )
    if sealed:
        secret.create(secret.path_of(cluster))
    for acceptor in cluster.acceptors:
        create_mark(
            cluster.member_directory("acceptor", acceptor.id),
            cluster=cluster.id, group=cluster.group, acceptor=acceptor.id,
        )  # fmt: skip
    return cluster


@asynccontextmanager
async def running(
    directory: Path,
    nodes: int = 3,
    window: int = 1024,
    retention: Retention | None = None,
    retained_bytes: int | None = None,
    *,
    sealed: bool = True,
) -> AsyncIterator[Nodes]:
    """A cluster with all of its nodes running; they are stopped at the end."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            started = Nodes(
                new_cluster(directory, nodes, window, sealed=sealed),
                nursery,
                retention or Retention(),
                retained_bytes,
            )
            await started.start()
            yield started
            await started.stop()
