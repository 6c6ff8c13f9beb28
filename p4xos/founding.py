"""The beginning of a cluster whose state is that of another one, through some instance.

A new cluster's log begins at instance 1, and a replica with nothing in it is a replica at its
beginning. Where a state is put in first, that must not be so: a learner that lost its store would
take an empty one for the beginning, and apply the log to it. So the state keeps its instance, and
the acceptors begin behind it, with `low` above it: an empty learner is then behind, and fetches a
copy (docs/PROTOCOL.md, section 7). Instances, and what is compared with them, go on growing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import trio

from p4xos import secret
from p4xos.config import Cluster
from p4xos.dialing import dial
from p4xos.errors import P4xosError
from p4xos.launcher import LOG_NAME
from p4xos.processes import NODE_LOCK
from p4xos.remote_errors import Refused
from p4xos.roles.acceptor import Acceptor
from p4xos.storage import AcceptorLog, Forgetful
from p4xos.storage.directory import LOCK_NAME, MARK_NAME
from p4xos.storage.disk import TEMPORARY
from p4xos.wire import Frame

_WITHOUT_MEANING = (NODE_LOCK, LOG_NAME, LOCK_NAME, MARK_NAME)
"""Files that are there before a node has ever run, or that say nothing about its past."""


class FoundingRefused(P4xosError):
    """The cluster is not a new one, or cannot begin with a state; nothing was changed."""


def refuse_running(cluster: Cluster) -> None:
    """Asks every node whether it runs.

    Raises:
      FoundingRefused: one does.
    """
    for name in trio.run(_running, cluster, secret.of(cluster)):
        raise FoundingRefused(
            f"node {name} of this cluster runs: a state is put in before the first start; stop all "
            "nodes and make a new cluster, with an id and directories of its own"
        )


async def _running(cluster: Cluster, shared: secret.Secret | None) -> list[str]:
    running: list[str] = []

    async def knock(name: str) -> None:
        try:
            dialed = await dial(cluster.node(name).peer, cluster.id, shared)
        except Refused:
            running.append(name)
        except P4xosError:
            return  # nobody there, or somebody else: binding will tell
        else:
            running.append(name)
            await dialed.frames.aclose()

    async with trio.open_nursery() as nursery:
        for node in cluster.nodes:
            nursery.start_soon(knock, node.name)
    return running


def refuse_used(cluster: Cluster, nodes: Sequence[str], spared: Sequence[str] = ()) -> None:
    """Looks whether a node has ever run, by what its directory holds.

    Args:
      cluster: the cluster file.
      nodes: those whose directories are on this machine.
      spared: paths inside a node's directory, of which nothing is looked at.

    Raises:
      FoundingRefused: a directory holds what only a node that ran has left there.
      OSError: it cannot be read.
    """
    for name in nodes:
        directory = cluster.data_directory(name)
        for place, _, files in os.walk(directory):
            inside = Path(place).relative_to(directory)
            if any(inside.is_relative_to(path) for path in spared):
                continue
            for file in sorted(files):
                if file not in _WITHOUT_MEANING and not file.endswith(TEMPORARY):
                    raise FoundingRefused(
                        f"node {name} is not new: {Path(place) / file} is there; a state is put "
                        "into a cluster that has never run: name another one, or remove "
                        f"{directory} if nothing in it is needed any more"
                    )


def refuse_unfit(cluster: Cluster) -> None:
    """Raises FoundingRefused where the cluster cannot begin behind an instance."""
    if cluster.storage == "memory":
        raise FoundingRefused(
            f"{cluster.source}: with storage = \"memory\" the acceptors cannot begin behind an "
            'instance; say storage = "disk"'
        )


def begin_acceptors(cluster: Cluster, node: str, through: int) -> None:
    """Makes the logs of a node's acceptors, which then begin behind an instance.

    Raises:
      StorageError: a directory holds something, or could not be written.
    """
    for member in cluster.acceptors:
        if member.node != node:
            continue
        acceptor = Acceptor(
            frame=Frame(cluster.id, cluster.group, member.id), acceptors=len(cluster.acceptors),
            window=cluster.window, value_bytes=cluster.value_bytes,
        )  # fmt: skip
        acceptor.low, acceptor.highest = through + 1, through
        directory = cluster.member_directory("acceptor", member.id)
        if (directory / MARK_NAME).exists():  # its one use: this is the acceptor's first start
            opened = AcceptorLog.open(
                directory, cluster=cluster.id, group=cluster.group, acceptor=member.id,
                window=cluster.window, carry_over=acceptor.carry_over,
            )  # fmt: skip
            if isinstance(opened, Forgetful):
                raise FoundingRefused(f"{opened}: make a new cluster")
            opened.log.append(acceptor.carry_over())
            opened.log.close()
        else:
            AcceptorLog.begin(
                directory, cluster=cluster.id, group=cluster.group, acceptor=member.id,
                window=cluster.window, carry_over=acceptor.carry_over,
            ).close()  # fmt: skip
