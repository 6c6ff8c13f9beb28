"""The gateway's metrics: `p4xos_libpaxos_*`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client.metrics_core import Metric

from p4xos.metrics import Families

_HELP = {
    "bad_messages": "Connections closed for bytes that are no message.",
    "behind_what_is_kept": "Learners closed because what they need next is not kept.",
    "foreign_proposals": "PREPAREs and ACCEPTs of libpaxos proposers, which nobody here acts on.",
    "packs_resubmitted": "Packs proposed again because their outcome was unknown.",
    "repeats_left_out": "REPEATs that came with too many others to be answered.",
    "repeats_trimmed": "REPEATs for what is not kept any more.",
    "stalled": "Connections closed because they took nothing of what waited for them.",
    "values_beyond_last": "Values not taken because libpaxos' instances are used up.",
    "values_received": "Values that libpaxos clients submitted.",
}


def families(status: Mapping[str, Any]) -> Iterable[Metric]:
    """All metrics of a gateway, from its status."""
    out = Families()
    for name, value in status["counters"].items():
        out.counter(f"p4xos_libpaxos_{name}", value, _HELP.get(name, ""))
    out.gauge("p4xos_libpaxos_connections", status["connections"], "Connections at its ports.")
    out.gauge("p4xos_libpaxos_connections_max", status["connections_max"],
              "So many are taken, as descriptors allow.")
    out.gauge("p4xos_libpaxos_learners", status["learners"], "Of them, told what is delivered.")
    out.gauge("p4xos_libpaxos_learners_behind", status["learners_behind"],
              "Of them, not at the end yet.")
    out.gauge("p4xos_libpaxos_packs_under_way", status["packs_under_way"],
              "Packs not yet in the log.")
    out.gauge("p4xos_libpaxos_delivered_iid", status["next_iid"] - 1, "The newest iid.")
    out.gauge("p4xos_libpaxos_low_iid", status["low_iid"], "The oldest iid kept.")
    out.gauge("p4xos_libpaxos_iids_left", max(0, status["last_iid"] + 1 - status["next_iid"]),
              "How many more values libpaxos' clients can be told of.")
    return out
