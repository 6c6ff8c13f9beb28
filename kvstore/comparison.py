"""Do all replicas have the same state? `kvstore status --hash` asks each for its hash.

Hashes can be compared where they are of one instance, so each node is asked for its state at the
same one: that of the node which is farthest, or, under load, one that the log will have reached
when the question is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

import trio

from p4xos.config import Cluster
from p4xos.dialing import Unreachable
from p4xos.errors import P4xosError
from p4xos.framing import Frame
from p4xos.inquiries import ask_each

LEADS_S = (0.1, 0.2, 0.4, 0.8, 0.8)
"""How far ahead, at the pace of the log, the instance of each attempt lies."""
LOOK_S = 0.05
"""How long it is looked how fast the log grows."""
PATIENCE_S = 600.0
"""Until the hash of a large state is complete."""
PAUSE_S = 0.1

Verdict = Literal["equal", "DIFFERENT", "not comparable"]


class Hashed(NamedTuple):
    """What one node says."""

    instance: int = 0
    hash: str = ""
    keys: int = 0
    problem: str = ""
    """Why it says nothing, or that it contradicts itself."""


class Comparison(NamedTuple):
    """What all nodes say."""

    nodes: dict[str, Hashed]
    verdict: Verdict

    @property
    def good(self) -> bool:
        """Whether every replica answered, and all have the same state."""
        return self.verdict == "equal" and not any(node.problem for node in self.nodes.values())

    def data(self) -> dict[str, object]:
        """For scripts."""
        nodes = {name: node._asdict() for name, node in self.nodes.items()}
        return {"states": self.verdict, **nodes}

    def lines(self) -> dict[str, str]:
        """For people, a line a node."""
        told = {
            name: f"instance {node.instance}, {node.keys} keys, state {node.hash}"
            + (f"; {node.problem}" if node.problem else "")
            if node.hash
            else node.problem
            for name, node in self.nodes.items()
        }
        return {"states": self.verdict, **told}


def compare(cluster: Cluster) -> Comparison:
    """Compares the replicas of a cluster.

    Raises:
      Unreachable: no node answers.
    """
    return trio.run(_compare, cluster)


async def _compare(cluster: Cluster) -> Comparison:
    answers: dict[str, Hashed] = {}
    for lead_s in LEADS_S:
        answers = await _attempt(cluster, lead_s)
        hashed = [answer for answer in answers.values() if answer.hash]
        if hashed and all(answer.hash or not answer.instance for answer in answers.values()):
            same = len({answer.hash for answer in hashed}) == 1
            return Comparison(answers, "equal" if same else "DIFFERENT")
        await trio.sleep(PAUSE_S)
    return Comparison(answers, "not comparable")


async def _attempt(cluster: Cluster, lead_s: float) -> dict[str, Hashed]:
    """Asks every learner for its state at one instance."""
    learners = {learner.node for learner in cluster.learners}
    earlier, began = await _farthest(cluster), trio.current_time()
    await trio.sleep(LOOK_S)
    later = await _farthest(cluster)
    pace = (later - earlier) / (trio.current_time() - began)
    instance = later + round(pace * lead_s)
    question = {"ask": "digest", "id": 1, "at": instance}
    answers = await ask_each(cluster, question, PATIENCE_S)
    return {
        name: _read(answer, instance) for name, answer in answers.items() if name in learners
    }


async def _farthest(cluster: Cluster) -> int:
    """The highest instance that a node has delivered."""
    answers = await ask_each(cluster, {"ask": "status", "id": 1})
    told = [_delivered(answer.head) for answer in answers.values() if isinstance(answer, Frame)]
    if not told:
        raise Unreachable({name: str(error) for name, error in answers.items()})
    return max(told)


def _delivered(head: Mapping[str, object]) -> int:
    status = head.get("status")
    learner = status.get("learner") if isinstance(status, dict) else None
    delivered = learner.get("delivered") if isinstance(learner, dict) else 0
    return delivered if isinstance(delivered, int) else 0


def _read(answer: Frame | P4xosError, instance: int) -> Hashed:
    """One node's answer."""
    if not isinstance(answer, Frame):
        return Hashed(problem=str(answer))
    head = answer.head
    passed, hash, counts = head.get("passed"), head.get("hash"), head.get("counts")
    if isinstance(passed, int):
        return Hashed(max(passed, 1), problem=f"it is at instance {passed}, not at {instance}")
    if not isinstance(hash, str) or not isinstance(counts, list):
        return Hashed(problem="its answer cannot be read; use the same release on all nodes")
    problem = ""
    if counts != head.get("kept_counts"):
        problem = "it does not have the keys that it counts: its store is damaged"
    return Hashed(instance, hash, sum(counts), problem)
