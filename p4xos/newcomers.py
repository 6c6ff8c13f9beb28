"""The one-time mark of a learner that has never run, on a node without an acceptor.

An empty store is that of a learner that runs for the first time, or of one whose disk was lost, and
the second must not report checkpoints as the first may (docs/PROTOCOL.md, section 7). Where a node
has an acceptor, that one's own mark tells (section 3); elsewhere this file does. It is made with
the cluster and gone before the learner can have reported anything.
"""

from __future__ import annotations

from pathlib import Path

from p4xos.config import Cluster, Member
from p4xos.storage.disk import RealDisk, disk_errors, replace_file

NEW_NAME = "new.mark"


def mark(cluster: Cluster) -> None:
    """Marks the learners of all nodes without an acceptor; only while no node can have run.

    Raises StorageError when a mark cannot be written.
    """
    voting = {acceptor.node for acceptor in cluster.acceptors}
    disk = RealDisk()
    for learner in cluster.learners:
        if learner.node not in voting:
            path = _path(cluster, learner)
            with disk_errors(path, "mark the learner as new"):
                disk.make_directory(path.parent)
                replace_file(disk, path, b"")


def take_mark(cluster: Cluster, learner: Member) -> bool:
    """Whether the learner was marked; durably, it is no more.

    Raises StorageError when the mark cannot be removed.
    """
    path = _path(cluster, learner)
    if not path.exists():
        return False
    disk = RealDisk()
    with disk_errors(path, "use up the mark of a new learner"):
        disk.unlink(path)
        disk.sync_directory(path.parent)
    return True


def _path(cluster: Cluster, learner: Member) -> Path:
    return cluster.member_directory("learner", learner.id) / NEW_NAME
