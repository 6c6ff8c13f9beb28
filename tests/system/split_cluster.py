"""A cluster whose stores and acceptors are processes of their own, to be stopped one by one."""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from bench.processes import python_module
from bench.store_cluster import StoreCluster
from p4xos.config import Cluster, Member, Node, Timing
from p4xos.creation import CLUSTER_NAME
from p4xos.tables import Address

WINDOW = 1024
PORTS_APART = 5


@contextmanager
def running_split(directory: Path) -> Iterator[StoreCluster]:
    """Stores and learners on n1 to n3, acceptors and coordinators on a1 to a3; a small window."""
    with StoreCluster(directory) as store:
        old = store.cluster
        _write(store, _split(old))
        for acceptor in old.acceptors:
            place = store.cluster.member_directory("acceptor", acceptor.id)
            place.parent.mkdir(parents=True, exist_ok=True)
            old.member_directory("acceptor", acceptor.id).rename(place)
        file = directory / CLUSTER_NAME
        command = store.application.command

        def either(cluster_file: Path, name: str) -> Sequence[str]:
            if name.startswith("n"):
                return command(cluster_file, name)
            return python_module("p4xos", "node", "--cluster", str(file), "--name", name)

        store.application.command = either  # type: ignore[method-assign,assignment]
        for name in ("a1", "a2", "a3"):
            store.launch(name)
        store.start()
        store.wait_until_writable()
        yield store


def _split(cluster: Cluster) -> Cluster:
    extra = tuple(
        Node(node.name.replace("n", "a"), _other(node.peer), node.name.replace("n", "a"))
        for node in cluster.nodes
    )

    def moved(members: tuple[Member, ...]) -> tuple[Member, ...]:
        return tuple(replace(member, node=member.node.replace("n", "a")) for member in members)

    return replace(
        cluster, nodes=cluster.nodes + extra, window=WINDOW, timing=Timing(deadline_s=3.0),
        acceptors=moved(cluster.acceptors), coordinators=moved(cluster.coordinators),
    )  # fmt: skip


def _other(address: Address) -> Address:
    return Address(address.host, address.port + PORTS_APART)


def _write(store: StoreCluster, cluster: Cluster) -> None:
    path = store.cluster.directory / CLUSTER_NAME
    path.write_text(cluster.to_toml())
    store.cluster = Cluster.load(path)


@contextmanager
def stopped(store: StoreCluster, *names: str) -> Iterator[None]:
    """These processes do nothing within the block, and go on behind it."""
    for name in names:
        store.children[name].process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            store.children[name].process.send_signal(signal.SIGCONT)
