"""A cluster's directory: created once, found again, never created twice.

    <directory>/cluster.toml.unfinished   1. the cluster file with its id, complete and synced
    <directory>/n1/acceptor-0/fresh.mark  2. the one-time mark of each acceptor
    <directory>/cluster.secret               and the secret that its nodes share
    <directory>/cluster.toml              3. the file of step 1, renamed: creation is done

Nodes start from cluster.toml alone, so until step 3 no acceptor has run, and an interrupted
creation goes on with the same id: a mark that is there is kept, a missing one is made. After step 3
no mark is ever made: a second mark would let an acceptor that has voted and lost its disk take
itself for new (docs/PROTOCOL.md, section 3 and section 8).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from p4xos import planes, secret
from p4xos.config import NUMPY, PEER_OFFSET, UNFINISHED_SUFFIX, Cluster, Storage
from p4xos.errors import P4xosError
from p4xos.storage.directory import MARK_NAME, Owner, create_mark, read_mark
from p4xos.storage.disk import TEMPORARY, RealDisk, StorageError, replace_file

CLUSTER_NAME = "cluster.toml"
LAUNCHER_LOCK = "launcher.lock"


class DirectoryRefused(P4xosError):
    """The directory holds something that this start contradicts; nothing was changed."""

    def __init__(self, directory: Path, complaint: str) -> None:
        super().__init__(f"{directory}: {complaint}")
        self.directory = directory


class Wanted(NamedTuple):
    """What the caller asked for; None where it said nothing."""

    nodes: int | None = None
    base_port: int | None = None  # 0: ports that are free
    storage: Storage | None = None
    data_plane: str | None = None
    network: str | None = None  # of the data planes, where they can have several on one machine


DEFAULT_NODES = 3
DEFAULT_BASE_PORT = 7101


def find_or_create(
    directory: Path, wanted: Wanted, complete: Callable[[Cluster, Wanted], Cluster]
) -> Cluster:
    """The cluster of this directory; a new one when there is none.

    Args:
      directory: locked by the caller.
      wanted: for an existing cluster only compared.
      complete: adds the tables of the application to a new cluster.

    Raises:
      DirectoryRefused: it contradicts `wanted`, or is neither empty nor a cluster's.
      ConfigError, StorageError, OSError, ValueError: as their messages say.
    """
    path = directory / CLUSTER_NAME
    unfinished = directory / (CLUSTER_NAME + UNFINISHED_SUFFIX)
    if path.exists():
        cluster = Cluster.load(path)
        _compare(cluster, wanted, directory)
        return cluster
    if unfinished.exists():
        cluster = Cluster.parse(unfinished.read_text(), str(unfinished), directory.absolute())
        _compare(cluster, wanted, directory)
    else:
        _refuse_foreign(directory)
        cluster = complete(_new(wanted, directory), wanted)
        replace_file(RealDisk(), unfinished, cluster.to_toml().encode())
    for acceptor in cluster.acceptors:
        _mark_once(cluster, acceptor.id)
    if not secret.path_of(cluster).exists():
        secret.create(secret.path_of(cluster))
    unfinished.rename(path)
    RealDisk().sync_directory(directory)
    return Cluster.load(path)


def _new(wanted: Wanted, directory: Path) -> Cluster:
    """A new cluster, defaults where nothing was asked for."""
    data_plane = wanted.data_plane or NUMPY
    apart = data_plane != NUMPY
    if apart and wanted.storage == "disk":
        raise ValueError(f"--data-plane {data_plane} has no disk; leave --storage disk out")
    new = Cluster.template(
        DEFAULT_NODES if wanted.nodes is None else wanted.nodes,
        (DEFAULT_BASE_PORT if wanted.base_port is None else wanted.base_port) or None,
        "memory" if apart else wanted.storage or "disk",
        directory=directory.absolute(),
        apart=apart,
    )
    fitted = _fitted(new, data_plane, wanted.network)
    return replace(fitted, secret="file", data_plane=data_plane)


def _fitted(new: Cluster, data_plane: str, network: str | None) -> Cluster:
    if network is None:
        return planes.find(data_plane).fit(new)
    networked = planes.networked(data_plane)
    known = () if networked is None else networked.networks
    if networked is None or network not in known:
        there = "has none to choose from; leave it out"
        if known:
            there = f"has {' and '.join(known)}; choose one of them"
        raise ValueError(f"--network {network}: the data plane {data_plane} {there}")
    return networked.fit(new, network)


def _mark_once(cluster: Cluster, acceptor: int) -> None:
    """Marks an acceptor as new unless it is marked; only while no node can have run."""
    directory = cluster.member_directory("acceptor", acceptor)
    if (directory / MARK_NAME).exists():
        owner = Owner(cluster.id, cluster.group, acceptor)
        damage = read_mark(RealDisk(), directory, owner)
        if damage is not None:
            remedy = f"remove {cluster.directory}, it was never in use, and start again"
            raise StorageError(directory / MARK_NAME, damage.reason, remedy)
    else:
        create_mark(directory, cluster=cluster.id, group=cluster.group, acceptor=acceptor)


def _refuse_foreign(directory: Path) -> None:
    """A new cluster is made in an empty directory only."""
    names = [
        name
        for name in sorted(os.listdir(directory))
        if name != LAUNCHER_LOCK and not name.endswith(TEMPORARY)
    ]
    if names:
        found = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        complaint = f"holds {found} but no {CLUSTER_NAME}"
        mend = f"put {CLUSTER_NAME} back, name another with --directory, or remove this one"
        raise DirectoryRefused(directory, f"{complaint}; {mend}")


def _compare(cluster: Cluster, wanted: Wanted, directory: Path) -> None:
    """A flag that contradicts the cluster that is there is refused, not ignored."""
    base_port = cluster.nodes[0].peer.port - PEER_OFFSET
    # Nodes that are switches are not counted: they come with the data plane.
    nodes = len(cluster.nodes if cluster.data_plane == NUMPY else cluster.learners)
    networked = None if wanted.network is None else planes.networked(cluster.data_plane)
    network = None if networked is None else networked.network_of(cluster)
    found = Wanted(nodes, base_port, cluster.storage, cluster.data_plane, network)
    for name, asked, existing in zip(Wanted._fields, wanted, found, strict=True):
        if asked not in (None, 0, existing):
            flag = "--" + name.replace("_", "-")
            created = f"without {flag}" if existing is None else f"with {flag} {existing}"
            complaint = f"this cluster was created {created}, not {asked}"
            mend = f"leave {flag} out, or make another cluster with --directory"
            raise DirectoryRefused(directory, f"{complaint}; {mend}")
