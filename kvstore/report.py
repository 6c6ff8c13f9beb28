"""What the server and its node tell of themselves: INFO's sections, CONFIG's parameters."""

from __future__ import annotations

import os
import resource
import secrets
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvstore.commands.client import Section
from kvstore.commands.connection import SERVER_VERSION
from kvstore.keyspace import MAX_VALUE_BYTES
from kvstore.limits import KEEPALIVE_S
from kvstore.packing import DATABASES
from kvstore.settings import Setting, Settings, fixed
from p4xos.compiled import compiled_modules

if TYPE_CHECKING:
    from kvstore.server import KvServer

_INT_MAX = (1 << 31) - 1
_STARTED = time.monotonic()
_RUN_ID = secrets.token_hex(20)
"""Of this process, as Redis has one of each start."""


def settings(server: KvServer) -> Settings:
    """What CONFIG knows: what holds here, under the names that Redis has for it."""
    slowlog, admission = server.meter.slowlog, server.admission

    def set_max_clients(count: int) -> None:
        admission.max_clients = count

    def set_timeout(seconds: int) -> None:
        admission.idle_timeout_s = float(seconds)

    def set_slower_than(limit_us: int) -> None:
        slowlog.slower_than_us = limit_us

    def set_max_length(count: int) -> None:
        slowlog.max_length = count

    changeable = [
        Setting("maxclients", lambda: admission.max_clients, set_max_clients, 1, (1 << 32) - 1),
        Setting("timeout", lambda: int(admission.idle_timeout_s), set_timeout, 0, _INT_MAX),
        Setting("slowlog-log-slower-than", lambda: slowlog.slower_than_us, set_slower_than, -1),
        Setting("slowlog-max-len", lambda: slowlog.max_length, set_max_length),
    ]
    facts = {
        "appendfsync": "always",
        "appendonly": "yes",
        "bind": server.host,
        "cluster-enabled": "no",
        "daemonize": "no",
        "databases": DATABASES,
        "latency-monitor-threshold": 0,
        "maxmemory": 0,
        "maxmemory-policy": "noeviction",
        "notify-keyspace-events": "",
        "port": server.port,
        "proto-max-bulk-len": MAX_VALUE_BYTES,
        "protected-mode": "no",
        "requirepass": "",
        "save": "",
        "tcp-keepalive": KEEPALIVE_S,
        "tls-port": server.tls_port,
    }
    return Settings([*changeable, *(fixed(name, value) for name, value in facts.items())])


def sections(server: KvServer, node: Mapping[str, Section]) -> Mapping[str, Section]:
    """INFO: Redis' titles and fields for what both have, then the node's own."""
    counters = server.counters
    return {
        "Server": _about_server(server),
        "Clients": {
            "connected_clients": server.connected,
            "cluster_connections": 0,
            "maxclients": server.admission.max_clients,
            "blocked_clients": 0,
            "tracking_clients": 0,
            "unauthenticated_clients": len(server.admission.newcomers),
        },
        "Memory": _about_memory(),
        "Persistence": {
            "loading": 0,
            "async_loading": 0,
            "rdb_bgsave_in_progress": 0,
            "rdb_last_bgsave_status": "ok",
            "aof_enabled": 1,
            "aof_rewrite_in_progress": 0,
            "aof_rewrite_scheduled": 0,
            "aof_last_write_status": "ok",
        },
        "Stats": {
            "total_connections_received": counters["connections_accepted"],
            "total_commands_processed": counters["commands_received"],
            "rejected_connections": counters["connections_refused"],
            "expired_keys": server.machine.counters["keys_expired"],
            "evicted_keys": 0,
            "total_forks": 0,
            **server.counted,
        },
        "Replication": {
            "role": "master",
            "connected_slaves": 0,
            "master_failover_state": "no-failover",
            "master_repl_offset": server.store.applied,
        },
        "CPU": _about_processor(),
        "Cluster": {"cluster_enabled": 0},
        "Log": {"applied": server.log.applied, "stored": server.store.applied},
        **node,
        "Keyspace": {
            f"db{space.database}": f"keys={count},expires={space.expiring()},avg_ttl=0"
            for space in server.store.keyspaces
            if (count := space.count())
        },
    }


def _about_server(server: KvServer) -> Section:
    up_s = int(time.monotonic() - _STARTED)
    return {
        "redis_version": SERVER_VERSION.decode(),
        "redis_mode": "standalone",
        "os": " ".join(os.uname()[i] for i in (0, 2, 4)),
        "arch_bits": 64 if sys.maxsize > 1 << 32 else 32,
        "process_id": os.getpid(),
        "compiled_modules": len(compiled_modules()),
        "run_id": _RUN_ID,
        "tcp_port": server.port,
        "server_time_usec": time.time_ns() // 1000,
        "uptime_in_seconds": up_s,
        "uptime_in_days": up_s // 86400,
    }


def _about_memory() -> Section:
    """Of the whole process; what Redis counts by itself is what the system counts."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "used_memory": resident,
        "used_memory_human": f"{resident / (1 << 20):.2f}M",
        "used_memory_rss": resident,
        "used_memory_peak": max(peak, resident),
        "maxmemory": 0,
        "maxmemory_human": "0B",
        "maxmemory_policy": "noeviction",
        "mem_allocator": "libc",
    }


def _about_processor() -> Section:
    own, children = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {
        "used_cpu_sys": f"{own.ru_stime:.6f}",
        "used_cpu_user": f"{own.ru_utime:.6f}",
        "used_cpu_sys_children": f"{children.ru_stime:.6f}",
        "used_cpu_user_children": f"{children.ru_utime:.6f}",
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
