"""What the server and its node tell of themselves: INFO's sections, CONFIG GET's parameters."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from kvstore.commands.client import Section
from kvstore.commands.connection import SERVER_VERSION
from kvstore.packing import DATABASES
from kvstore.resp import MAX_BULK_BYTES

if TYPE_CHECKING:
    from kvstore.server import KvServer


def settings(server: KvServer) -> Mapping[str, str]:
    """What CONFIG GET tells: what holds here, under the names that Redis has for it."""
    return {
        "appendonly": "yes",
        "bind": server.host,
        "databases": str(DATABASES),
        "maxclients": str(server.max_clients),
        "maxmemory": "0",
        "maxmemory-policy": "noeviction",
        "port": str(server.port),
        "proto-max-bulk-len": str(MAX_BULK_BYTES),
        "save": "",
        "timeout": "0",
    }


def sections(server: KvServer, node: Mapping[str, Section]) -> Mapping[str, Section]:
    """INFO: Redis' titles and fields for what both have, then the node's own."""
    counters = server.counters
    return {
        "Server": {
            "redis_version": SERVER_VERSION.decode(),
            "redis_mode": "standalone",
            "process_id": os.getpid(),
            "tcp_port": server.port,
        },
        "Clients": {
            "connected_clients": server.connected,
            "maxclients": server.max_clients,
        },
        "Replication": {"role": "master", "connected_slaves": 0},
        "Stats": {
            "total_connections_received": counters["connections_accepted"],
            "total_commands_processed": counters["commands_received"],
            "rejected_connections": counters["connections_refused"],
            **counters,
            **server.machine.counters,
        },
        "Log": {"applied": server.log.applied, "stored": server.store.applied},
        **node,
        "Keyspace": {
            f"db{space.database}": f"keys={space.count()},expires=0,avg_ttl=0"
            for space in server.store.keyspaces
            if space.count()
        },
    }


def node_sections(status: Mapping[str, Any]) -> Mapping[str, Section]:
    """INFO's sections about consensus.

    Args:
      status: as `p4xos.node.Node.status` gives it.
    """
    counters: Mapping[str, Mapping[str, int]] = status["counters"]
    found: dict[str, Section] = {}
    consensus: dict[str, object] = {"node": status["node"], "roles": "; ".join(status["roles"])}
    if "coordinator" in status:
        coordinator = status["coordinator"]
        leader = coordinator["leader"]
        consensus |= {
            "coordinator": coordinator["phase"],
            "leader": "none" if leader is None else leader,
            "round": coordinator["round"],
            "next": coordinator["next"],
            "low": coordinator["low"],
            "queued": coordinator["queued"],
            "blocked": _plain(coordinator["blocked"]) or "no",
        }
    silent = status["silent"]
    consensus["silent_acceptors"] = len(silent)
    consensus |= {f"silent_{number}": _plain(why) for number, why in enumerate(silent)}
    found["Consensus"] = consensus
    if "learner" in status:
        learner = status["learner"]
        found["Replica"] = {
            "delivered": learner["delivered"],
            "heard": learner["heard"],
            "lag": max(0, learner["heard"] - learner["delivered"]),
            "low": learner["low"],
            "behind": int(learner["behind"]),
            "durable_through": learner["durable_through"],
            "in_flight": learner["in_flight"],
        }
    drops: Counter[str] = Counter()
    for of_role in counters.values():
        drops.update({name: n for name, n in of_role.items() if name.startswith("dropped_")})
    found["Drops"] = dict(drops)
    return found


def _plain(text: str) -> str:
    """On one line, without what clients take for fields of a value."""
    return " ".join(text.replace("=", " ").split())
