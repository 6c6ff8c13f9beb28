"""A node that lost its data: what is missing, and whether it may start.

An empty directory is that of a lost disk, or the wrong one: a disk that is not mounted, a mistyped
path. So a node that should have data and has none starts only when it is told to join. Then its
store is fetched from the others (docs/PROTOCOL.md, section 7), and its acceptor, which may have
forgotten votes, stays silent until it can take part again (section 8).
"""

from __future__ import annotations

import logging
from pathlib import Path

import trio

from p4xos import generations
from p4xos.config import Cluster
from p4xos.dialing import Unreachable, dial
from p4xos.errors import P4xosError
from p4xos.storage.directory import read_contents
from p4xos.storage.disk import RealDisk

log = logging.getLogger(__name__)

PATIENCE_S = 30.0
"""How long another node is waited for: all of them may be starting."""
TRY_AGAIN_S = 0.2


class NodeLost(P4xosError):
    """A node's data are not there."""


def store_directory(cluster: Cluster, name: str) -> Path:
    """Where a node keeps its store."""
    return cluster.data_directory(name) / "store"


def is_lost(cluster: Cluster, name: str) -> bool:
    """Whether a node has nothing of what it must have since the cluster was created.

    One without an acceptor has nothing at first, and may start with nothing at any time.
    """
    directories = [
        cluster.member_directory("acceptor", acceptor.id)
        for acceptor in cluster.acceptors
        if acceptor.node == name
    ]
    if not directories or generations.is_marked(store_directory(cluster, name)):
        return False
    found = [read_contents(RealDisk(), path) for path in directories if path.is_dir()]
    return not any(contents.mark or contents.segments for contents in found)


async def check(cluster: Cluster, name: str, *, join: bool) -> None:
    """Returns when a node may start.

    Args:
      cluster: the cluster file.
      name: of the node.
      join: whether it may begin with nothing.

    Raises:
      NodeLost: it has lost its data, and was not told to join, or nobody is there to join.
    """
    if not is_lost(cluster, name):
        if join:
            log.info("node %s has its data: nothing is missing that --join would fetch", name)
        return
    directory = cluster.data_directory(name)
    if not join:
        raise NodeLost(
            f"node {name} has no data in {directory}, though its cluster has been created: mount "
            "the disk or mend the path; if the data are lost, start the node with --join, and it "
            "fetches them from the others"
        )
    others = [learner.node for learner in cluster.learners if learner.node != name]
    if not others:
        raise NodeLost(
            f"node {name} is the only one with a store, so nobody has its data: restore a backup "
            "into a new cluster (kvstore restore)"
        )
    source = await _find(cluster, others)
    silent = ", ".join(str(a.id) for a in cluster.acceptors if a.node == name)
    log.warning(
        "node %s joins with an empty directory: it fetches its store from the others (%s answers), "
        "then serves; acceptor %s has forgotten its votes and stays silent until all that it may "
        "have voted for is checkpointed, so for some seconds the cluster bears one failure less",
        name, source, silent,
    )  # fmt: skip


async def _find(cluster: Cluster, others: list[str]) -> str:
    """The first node that answers."""
    problems: dict[str, str] = {}
    with trio.move_on_after(PATIENCE_S):
        while True:
            for other in others:
                try:
                    dialed = await dial(cluster.node(other).peer, cluster.id, peer=True)
                except Unreachable as error:
                    problems |= error.problems
                except P4xosError as error:
                    problems[other] = str(error)
                else:
                    await dialed.frames.aclose()
                    return other
            await trio.sleep(TRY_AGAIN_S)
    told = "; ".join(f"{where}: {why}" for where, why in problems.items())
    raise NodeLost(
        f"no other node answers ({told}), so there is nobody to join: start them first, then "
        "this one again"
    )
