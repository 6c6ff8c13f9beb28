"""How a node is watched: its status as data, and its pages /metrics, /healthz and /readyz."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

import trio

from p4xos.compiled import compiled_modules
from p4xos.envelope import ENVELOPE_BYTES
from p4xos.http import HttpServer, Page
from p4xos.metrics import families, metrics_page
from p4xos.storage import AcceptorLog, StorageOfJoined

if TYPE_CHECKING:
    from p4xos.config import Cluster
    from p4xos.node import Node

WORDS_MAX = 500
"""Of a reason why a data plane was left out."""


def status(node: Node) -> dict[str, object]:
    """For people, scripts and metrics: where each role stands, and everything counted."""
    told: dict[str, object] = {
        "node": node.name,
        "cluster": f"{node.cluster.id:08x}",
        "started_at": node.started_at,
        "compiled_modules": len(compiled_modules()),
        "roles": [f"{role} {member.id}" for role, member in node.roles],
        "silent": node.silent,
        "group": group(node),
    }
    if node.coordinator is not None:
        told["coordinator"] = node.coordinator.status()
    if node.application is not None:
        told["learner"] = _learner(node)
    told["acceptors"] = _acceptors(node)
    told["data_planes"] = {
        f"{role} {id}": name for (role, id), name in sorted(node.moves.planes.items())
    }
    counters = {driver.name: dict(driver.counters()) for driver in node.drivers}
    counters["moves"] = dict(node.moves.counters)
    if node.service is not None:
        counters["service"] = dict(node.service.counters)
    if node.pages is not None:
        counters["watching"] = dict(node.pages.counters)
    if node.catch_up is not None:
        counters["catch_up"] = dict(node.catch_up.counters)
        catching_up = node.catch_up.status()
        if catching_up is not None:
            told["catching_up"] = catching_up
    told["counters"] = counters
    told["problems"] = node.health.problems(told, trio.current_time())
    for key, tell in node.told.items():
        told[key] = tell()
    return told


def group(node: Node) -> dict[str, object]:
    """What the group provides, for whoever must know before it submits."""
    return {
        "data_planes": sorted(set(node.moves.planes.values())),  # of the roles that are here
        "created_on": node.cluster.data_plane,
        "declined": {name: why[:WORDS_MAX] for name, why in node.moves.declined.items()},
        "movable_to": node.moves.movable_to,
        **provided(node.cluster),
    }


def provided(cluster: Cluster) -> dict[str, str | int]:
    """What a group provides by its cluster file, whatever it runs on."""
    durability = "majority-disk" if cluster.storage == "disk" else "majority"
    if len(cluster.acceptors) == 1 and cluster.storage != "disk":
        durability = "one"
    return {"durability": durability, "value_bytes": cluster.value_bytes - ENVELOPE_BYTES}


def _learner(node: Node) -> dict[str, object]:
    assert node.application is not None
    replica = node.application.replica
    learner = replica.learner
    return {
        "delivered": learner.delivered,
        "heard": learner.heard,
        "low": learner.low,
        "behind": learner.behind,
        "durable_through": node.application.durable_through,
        "in_flight": replica.proposer.in_flight,
        "sessions": len(learner.sessions),
    }


def _acceptors(node: Node) -> dict[str, object]:
    """Those that vote, by id as text: JSON has no other keys."""
    found: dict[str, object] = {}
    for member, (acceptor, opened) in node.acceptors.items():
        if member in node.forgetful and not node.forgetful[member][0].joined:
            continue
        storage = opened.begun if isinstance(opened, StorageOfJoined) else opened
        told: dict[str, object] = {
            "low": acceptor.low,
            "highest": acceptor.highest,
            "round": acceptor.highest_round,
            "incarnation": acceptor.incarnation,
        }
        if isinstance(storage, AcceptorLog):
            told["storage"] = dict(storage.counters)
            told["disk_bytes"] = storage.disk_bytes
            told["sync_seconds"] = storage.sync_seconds.state()
        found[str(member)] = told
    return found


def server(node: Node) -> HttpServer:
    """What serves the pages of a node. That it answers at all says that its one loop turns."""
    return HttpServer(pages(node))


def pages(node: Node) -> dict[str, Callable[[], Page]]:
    """The pages, made when they are asked for."""

    def ready() -> Page:
        problems = node.status()["problems"]
        assert isinstance(problems, list)
        if problems:
            text = "".join(f"{problem}\n" for problem in problems)
            return Page(text.encode(), HTTPStatus.SERVICE_UNAVAILABLE)
        return Page(b"ready\n")

    return {
        "/metrics": metrics_page([lambda: families(node.status()), *node.collectors]),
        "/healthz": lambda: Page(b"alive\n"),
        "/readyz": ready,
    }
