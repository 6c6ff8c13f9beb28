"""Going on after more than the cluster bears: most acceptors have forgotten, or are gone.

Then nobody knows any more what was chosen last, and no protocol can find out (docs/PROTOCOL.md,
section 8). What the replicas have applied is still there. A rebuild takes the newest of it as a
backup, from which a new cluster begins; it says what may be missing, and is done only when told to.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import trio

from kvstore import backup
from kvstore.archive import Manifest
from p4xos.config import Cluster
from p4xos.dialing import Unreachable
from p4xos.errors import P4xosError
from p4xos.framing import Frame
from p4xos.inquiries import ask_each
from p4xos.quorum import majority

log = logging.getLogger(__name__)


class RebuildRefused(P4xosError):
    """The cluster is not one that needs it, or nobody said yes."""


@dataclass(frozen=True)
class Remains:
    """What is left of a cluster, as its nodes tell."""

    needed: int  # acceptors that must remember for the cluster to go on by itself
    remembering: list[str]  # acceptors that do
    silent: list[str]  # acceptors that have forgotten, each with the reason
    gone: dict[str, str]  # nodes that do not answer, each with the reason
    applied: dict[str, int]  # by node that has a replica
    heard: int  # the last instance that any replica has heard of

    @property
    def newest(self) -> str:
        """The node whose replica has applied most."""
        return max(self.applied, key=lambda name: self.applied[name])

    def lines(self) -> list[str]:
        """What is there and what may be missing, a sentence a line."""
        through = self.applied[self.newest]
        told = [
            f"{len(self.remembering)} acceptors remember what they voted for, {self.needed} are "
            f"needed: the cluster cannot go on by itself",
            *self.silent,
            f"node {self.newest} has applied most, through instance {through}: a new cluster would "
            "begin with that",
        ]
        if self.heard > through:
            told.append(
                f"may be lost: instances {through + 1} to {self.heard}, which replicas have heard "
                "of and none of these has applied; writes among them may have been acknowledged"
            )
        told += [
            f"may be lost: what only node {name} has applied; it does not answer ({why})"
            for name, why in self.gone.items()
        ]
        told.append(
            "may be lost: if these machines lost power, or their systems crashed, what was applied "
            "in the last moments before; of killed processes it is all there"
        )
        return told


def look(cluster: Cluster) -> Remains:
    """Asks all nodes what is left.

    Raises:
      Unreachable: no node with a replica answers.
    """
    answers = trio.run(ask_each, cluster, {"ask": "status", "id": 1})
    statuses: dict[str, Mapping[str, object]] = {}
    gone: dict[str, str] = {}
    for name, answer in answers.items():
        status = answer.head.get("status") if isinstance(answer, Frame) else None
        if isinstance(status, dict):
            statuses[name] = status
        else:
            gone[name] = str(answer)
    learners = {
        name: learner
        for name, status in statuses.items()
        if isinstance(learner := status.get("learner"), dict)
    }
    if not learners:
        raise Unreachable(gone)
    return Remains(
        needed=majority(len(cluster.acceptors)),
        remembering=[id for status in statuses.values() for id in _list(status.get("acceptors"))],
        silent=[f"{one}" for status in statuses.values() for one in _list(status.get("silent"))],
        gone=gone,
        applied={name: int(learner["delivered"]) for name, learner in learners.items()},
        heard=max(int(learner["heard"]) for learner in learners.values()),
    )


def _list(value: object) -> list[str]:
    return [str(one) for one in value] if isinstance(value, (list, dict)) else []


def rebuild(cluster: Cluster, to: Path, *, accept_loss: bool) -> Manifest:
    """Takes the newest state that is left as a backup, for `kvstore restore`.

    Args:
      cluster: of which too many acceptors have forgotten or are gone; some of its nodes run.
      to: as for `kvstore backup`.
      accept_loss: whether what `look` tells is accepted.

    Raises:
      RebuildRefused: nothing was done.
      P4xosError, OSError: why there is no backup.
    """
    remains = look(cluster)
    if len(remains.remembering) >= remains.needed:
        raise RebuildRefused(
            f"{len(remains.remembering)} acceptors of {len(cluster.acceptors)} remember what they "
            "voted for, and that is enough: nothing is lost, and those that have forgotten join "
            "again by themselves; kvstore status tells what they wait for"
        )
    for line in remains.lines():
        log.warning("%s", line)
    if not accept_loss:
        raise RebuildRefused(
            "nothing was done: if a node that does not answer can still be started, start it and "
            "look again; to go on with what is left, give --accept-loss"
        )
    return backup.take(cluster, to, remains.newest)
