"""Putting a backup into a new cluster, of any size, before its first start.

    <node>/store/unfinished-restore/     1. a copy of the state for each node, given to the cluster
    <node>/acceptor-<k>/                 2. each acceptor begins behind the state's instance
    <node>/store/generation-000001/      3. renamed; the node may start

A node that starts before step 3 refuses: its store's directory holds something strange. All
replicas begin with the same state, at the backup's instance; why not at none, see
`p4xos.founding`. Sessions are left out: no proposer of this cluster has any yet.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from kvstore.archive import STATE, Manifest, check, named, unpacked
from kvstore.cluster import StoreApplication
from kvstore.config import endpoints
from kvstore.store import Store
from p4xos import generations
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME, LAUNCHER_LOCK, Wanted, find_or_create
from p4xos.founding import (
    FoundingRefused,
    begin_acceptors,
    refuse_running,
    refuse_unfit,
    refuse_used,
)
from p4xos.processes import NODE_LOCK, claimed

log = logging.getLogger(__name__)

UNFINISHED = "unfinished-restore"


def restore(backup: Path, cluster: Cluster, nodes: Sequence[str] = ()) -> Manifest:
    """Makes a backup the beginning of a cluster.

    Args:
      backup: a directory or a file of `kvstore backup`.
      cluster: has never run; its id is not that of the cluster that was backed up.
      nodes: those with directories on this machine; all by default. The others need the same
        call where theirs are, with the same backup, before any node starts.

    Raises:
      BackupError, FoundingRefused, StoreError: nothing was changed.
      P4xosError, OSError: it broke off; no node starts until its directory is removed.
    """
    names = list(nodes) or [node.name for node in cluster.nodes]
    for name in names:
        cluster.node(name)
    endpoints(cluster)  # a cluster of the store, or an error that says what is missing
    with unpacked(backup) as directory, ExitStack() as locks:
        refuse_running(cluster)
        for name in names:
            locks.enter_context(
                claimed(cluster.data_directory(name) / NODE_LOCK, f"node {name}")
            )
        refuse_used(cluster, names, spared=[f"store/{UNFINISHED}"])
        log.info("checking the backup")
        manifest = check(directory)
        refuse_unfit(cluster)
        _refuse_same(cluster, manifest)
        stores = [
            cluster.data_directory(learner.node) / "store"
            for learner in cluster.learners
            if learner.node in names
        ]
        try:
            for store in stores:
                log.info("copying the state to %s", store)
                _copy(directory / STATE, store / UNFINISHED, cluster.id)
        except BaseException:
            for store in stores:
                shutil.rmtree(store / UNFINISHED, ignore_errors=True)
            raise
        for name in names:
            begin_acceptors(cluster, name, manifest.applied)
        for store in stores:
            _put_in_use(store)
    return manifest


def create(directory: Path, wanted: Wanted) -> Cluster:
    """A new cluster on this machine, which does not run yet.

    Raises:
      FoundingRefused: there is one already.
      P4xosError, OSError, ValueError: it could not be created.
    """
    directory = directory.absolute()
    if (directory / CLUSTER_NAME).exists():
        raise FoundingRefused(
            f"{directory} holds a cluster already; name another directory, or restore into that "
            f"one with --cluster {directory / CLUSTER_NAME} if it has never run"
        )
    with claimed(directory / LAUNCHER_LOCK, f"a launcher of the cluster in {directory}"):
        return find_or_create(directory, wanted, StoreApplication().complete)


def _refuse_same(cluster: Cluster, manifest: Manifest) -> None:
    if f"{cluster.id:08x}" == manifest.cluster:
        raise FoundingRefused(
            f"{cluster.source} has the id of the cluster that was backed up, {manifest.cluster}: "
            "a node of that one which still runs would be taken for one of this; create a new "
            "cluster, which has an id of its own"
        )


def _copy(state: Path, target: Path, cluster: int) -> None:
    """A copy of the state as the store of a cluster, durably."""
    shutil.rmtree(target, ignore_errors=True)  # of a run that was killed
    target.mkdir(parents=True)
    with named(target):
        for source in sorted(state.iterdir()):
            shutil.copyfile(source, target / source.name)
        Store.give_away(target, cluster)
        for path in target.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())


def _put_in_use(store: Path) -> None:
    live = generations.first(store)
    (store / UNFINISHED).rename(live)
    generations.mark(store, live)
