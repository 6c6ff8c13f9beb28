"""`kvstore status`, and what `kvstore top` computes from two looks at all nodes.

A node tells what it has counted since it started (`Node.status`, its store among it); rates and
latencies of a moment are the differences of two looks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import monotonic
from typing import Any, NamedTuple

from p4xos import inquiries
from p4xos.config import Cluster
from p4xos.health import drop_reason
from p4xos.histogram import quantile, since

Told = Mapping[str, Any]
"""What one node told of itself."""


class Look(NamedTuple):
    """All nodes at one moment."""

    at: float
    """Seconds, monotonic."""
    cluster: str
    leader: str
    nodes: dict[str, Told]


def look(cluster: Cluster) -> Look:
    """Asks all nodes at once; one that does not answer says so in its place."""
    found = inquiries.status(cluster)
    nodes: dict[str, Told] = {name: told for name, told in found.items() if isinstance(told, dict)}
    return Look(monotonic(), str(found["cluster"]), str(found["leader"]), nodes)


def status(cluster: Cluster) -> dict[str, object]:
    """How every node is, as data."""
    return inquiries.status(cluster)


def described(found: Mapping[str, object]) -> dict[str, str]:
    """A status for people: a line a node, with its store, and what is wrong."""
    lines = inquiries.described(found)
    for name, told in found.items():
        if not isinstance(told, dict):
            continue
        store = told.get("store")
        if isinstance(store, dict):
            keys = sum(store["keys"].values())
            lines[name] += f", {store['clients']} clients, {keys} keys"
        log = told.get("log")
        if isinstance(log, dict) and "learner" in told:  # others tell of each of their roles
            lines[name] += f", log on {log['layers'][-1]['implementation']}"
        problems = [str(problem) for problem in told.get("problems", ())]
        if problems:
            lines[name] += f"; NOT READY: {'; '.join(problems)}"
    return lines


def table(later: Look, earlier: Look | None) -> dict[str, dict[str, object]]:
    """A line of `kvstore top` for each node.

    Args:
      later: the newest look.
      earlier: the one before; None: rates are not known yet, and latencies are since the start.

    Returns:
      By node and by name of the column; None where a node tells nothing of it.
    """
    lines: dict[str, dict[str, object]] = {}
    for name, told in later.nodes.items():
        if "unreachable" in told:
            lines[name] = {"state": "unreachable", "problems": [str(told["unreachable"])]}
            continue
        before = None if earlier is None else _same_process(told, earlier.nodes.get(name))
        seconds = 0.0 if earlier is None else later.at - earlier.at
        lines[name] = {
            **_consensus(told),
            **_store(told.get("store"), None if before is None else before.get("store"), seconds),
            **_syncs(told, before),
            "drops": dict(drops(told) - drops(before or {})) if before else dict(drops(told)),
        }
    return lines


def _same_process(told: Told, before: Told | None) -> Told | None:
    """What it told before, unless it was started anew since: then its counters began at zero."""
    return before if before and before.get("started_at") == told["started_at"] else None


def _consensus(told: Told) -> dict[str, object]:
    coordinator, learner = told.get("coordinator") or {}, told.get("learner") or {}
    return {
        "state": "not ready" if told["problems"] else "ready",
        "problems": list(told["problems"]),
        "roles": list(told["roles"]),
        "coordinator": coordinator.get("phase"),
        "round": coordinator.get("round"),
        "next": coordinator.get("next"),
        "delivered": learner.get("delivered"),
        "lag": learner.get("lag"),
        "low": learner.get("low", coordinator.get("low")),
        "in_flight": learner.get("in_flight"),
    }


def _store(store: Told | None, before: Told | None, seconds: float) -> dict[str, object]:
    if store is None:
        return {}
    found: dict[str, object] = {
        "clients": store["clients"],
        "keys": sum(store["keys"].values()),
        "disk_bytes": store["bytes"].get("tables"),
        "memory_bytes": store["bytes"].get("memory"),
        "ops_per_s": None,
    }
    if before is not None and seconds > 0:
        now, then = (sum(told["commands"].values()) for told in (store, before))
        found["ops_per_s"] = round(max(now - then, 0) / seconds, 1)
    for kind in ("reads", "writes"):
        counts = since(store[kind]["counts"], None if before is None else before[kind]["counts"])
        for percent in (50, 99):
            found[f"{kind}_p{percent}_ms"] = _milliseconds(quantile(counts, percent / 100))
    return found


def _syncs(told: Told, before: Told | None) -> dict[str, object]:
    """The slowest acceptor's fdatasync."""
    slowest: float | None = None
    for member, acceptor in told["acceptors"].items():
        if "sync_seconds" in acceptor:
            old = ((before or {}).get("acceptors") or {}).get(member)
            counts = since(
                acceptor["sync_seconds"]["counts"], old and old["sync_seconds"]["counts"]
            )
            found = quantile(counts, 0.99)
            slowest = max(slowest or 0.0, found) if found is not None else slowest
    return {"sync_p99_ms": _milliseconds(slowest)}


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds * 1e3, 3)


def drops(told: Told) -> Counter[str]:
    """Messages that were not acted on, by reason, of all roles of a node."""
    found: Counter[str] = Counter()
    for owner, counters in (told.get("counters") or {}).items():
        if " " in owner:
            for name, count in counters.items():
                reason = drop_reason(name)
                if reason and count:
                    found[reason] += count
    return found
