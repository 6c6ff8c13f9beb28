"""The store's counters as Prometheus metrics, and as data for `kvstore status` and `kvstore top`.

As in `p4xos.metrics`: made when they are asked for, from what is counted anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import Metric

from p4xos import generations
from p4xos.histogram import Histogram
from p4xos.metrics import Families

if TYPE_CHECKING:
    from kvstore.server import KvServer

__all__ = ["Histogram", "server_status", "store_families"]

_TEXTS = {
    "kvstore_commands_received": "Commands taken from clients.",
    "kvstore_connections_accepted": "Connections made.",
    "kvstore_connections_refused": "Connections refused, for there were too many.",
    "kvstore_connections_lost": "Connections that broke.",
    "kvstore_overloaded": "Times the log had no room, so that clients had to wait.",
    "kvstore_inputs_parked": "Times a client was not read on, for all together had sent too much.",
    "kvstore_inputs_cut_off": "Clients that kept others from sending, and sent next to nothing.",
    "kvstore_outputs_cut_off": "Clients cut off, for too much was held for those who do not read.",
    "kvstore_unknown_outcomes": "Writes answered with: the outcome is unknown.",
    "kvstore_failed_reads": "Reads refused for want of a majority.",
    "kvstore_keys_expired": "Keys removed because their time was over.",
    "kvstore_leaps_refused": "Stamps too far ahead to be believed from one node alone.",
    "kvstore_commands_applied": "Commands of the log applied, those of other nodes among them.",
}


def server_status(server: KvServer) -> dict[str, object]:
    """What the server tells beside its node's status: clients, commands, latency, sizes."""
    return {
        "clients": server.connected,
        "applied": server.store.applied,
        "keys": {
            str(space.database): count
            for space in server.store.keyspaces
            if (count := space.count())
        },
        "bytes": server.store.sizes(),
        "counters": server.counted,
        **server.meter.status(),
    }


def store_families(server: KvServer) -> Iterable[Metric]:
    """All metrics of the store's server."""
    out = Families()
    out.gauge("kvstore_clients", server.connected, "Clients connected now.")
    most = server.admission.max_clients
    out.gauge("kvstore_clients_max", most, "More clients than this are refused.")
    newcomers = len(server.admission.newcomers)
    out.gauge("kvstore_newcomers", newcomers, "Clients that have not authenticated yet.")
    if server.tls is not None:
        out.gauge(
            "kvstore_tls_certificate_expires_seconds", server.tls.expires_at,
            "When the certificate ends, in seconds since the epoch.",
        )  # fmt: skip
    _count(out, server.counted)
    meter = server.meter
    for entry, count in list(meter.commands.items()):
        name = entry.full_name.decode()
        out.counter("kvstore_commands", count, "Commands run, by name.", command=name)
    for kind, histogram in (("read", meter.reads), ("write", meter.writes)):
        out.histogram(
            "kvstore_command_seconds", histogram.state(),
            "From a client's run of commands taken to its answer.", kind=kind,
        )  # fmt: skip
    out.counter("kvstore_slow_commands", meter.slowlog.count, "Entries made in the slow log.")
    out.gauge("kvstore_slow_log_entries", len(meter.slowlog), "Entries in the slow log now.")
    out.gauge("kvstore_applied_instance", server.store.applied, "The store holds all through it.")
    out.gauge(
        "kvstore_stores_set_aside", len(generations.kept_aside(server.store.directory)),
        "Damaged stores kept beside the one in use: look at the disk, then remove them.",
    )  # fmt: skip
    for space in server.store.keyspaces:
        count = space.count()
        if count or not space.database:
            out.gauge("kvstore_keys", count, "Keys, by database.", database=str(space.database))
    for part, size in server.store.sizes().items():
        out.gauge("kvstore_store_bytes", size, "RocksDB, by part.", part=part)
    return out


def _count(out: Families, counters: Mapping[str, int]) -> None:
    for name, value in counters.items():
        full = f"kvstore_{name}"
        out.counter(full, value, _TEXTS.get(full, ""))
