"""A node's counters as Prometheus metrics, made from its status when they are asked for.

Nothing is counted twice: the roles and endpoints count in plain dicts as they work, and a scrape
reads those. Names follow Prometheus' rules (unit last, `_total` for what only grows); a counter
that is added to a role appears here by itself, as `p4xos_<role>_<counter>_total`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from p4xos.health import drop_reason
from p4xos.histogram import BOUNDS_S
from p4xos.http import Page

Status = Mapping[str, Any]
"""As `Node.status` builds it."""

_PHASES = ("following", "asking", "preparing", "proposing", "serving")
_PROPOSER = frozenset(("submitted", "resent", "gave_up", "sessions_lost"))
"""A learner's counters that are those of the proposer beside it."""
_HELP = {
    "p4xos_acceptor_votes": "Instances that the acceptor voted for.",
    "p4xos_acceptor_repeated_votes": "Votes repeated for a message that came again.",
    "p4xos_acceptor_promises": "Rounds promised in phase 1.",
    "p4xos_coordinator_proposed": "Instances proposed in phase 2.",
    "p4xos_coordinator_takeovers": "Rounds begun by this coordinator.",
    "p4xos_coordinator_stepped_down": "Times it stopped serving for a higher round.",
    "p4xos_coordinator_stalls": "Times its proposals were not chosen, so that it asked anew.",
    "p4xos_coordinator_resent": "Proposals sent again.",
    "p4xos_learner_delivered": "Instances delivered in order.",
    "p4xos_learner_late_votes": "Votes for what was chosen already; the third of three is one.",
    "p4xos_learner_duplicates": "Commands that came again and were not delivered twice.",
    "p4xos_learner_recovers_sent": "Requests to choose what is missing.",
    "p4xos_proposer_submitted": "Messages submitted.",
    "p4xos_proposer_resent": "Messages submitted again after a timeout.",
    "p4xos_proposer_gave_up": "Submissions whose outcome is unknown: no majority in time.",
    "p4xos_storage_appends": "Writes to the acceptor's log, each with one fdatasync.",
    "p4xos_storage_bytes": "Bytes written to the acceptor's log.",
    "p4xos_moves_moved": "Roles of the node that went to another data plane.",
    "p4xos_moves_failed": "Moves that failed; the role went on where it was.",
    "p4xos_network_sent": "Datagrams that the kernel took.",
    "p4xos_network_received": "Datagrams received.",
    "p4xos_network_send_full": "Datagrams that no buffer had room for.",
}


class Families:
    """Metric families by name, made when their first sample comes."""

    def __init__(self) -> None:
        self._found: dict[str, Metric] = {}

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._found.values())

    def counter(self, name: str, value: float, text: str = "", **labels: str) -> None:
        """A sample of what only grows; `_total` is added to its name."""
        family = self._found.get(name)
        if family is None:
            family = CounterMetricFamily(name, text or explained(name), labels=list(labels))
            self._found[name] = family
        assert isinstance(family, CounterMetricFamily)
        family.add_metric(list(labels.values()), value)

    def gauge(self, name: str, value: float, text: str, **labels: str) -> None:
        """A sample of what goes up and down."""
        family = self._found.get(name)
        if family is None:
            family = self._found[name] = GaugeMetricFamily(name, text, labels=list(labels))
        assert isinstance(family, GaugeMetricFamily)
        family.add_metric(list(labels.values()), value)

    def histogram(self, name: str, state: Status, text: str, **labels: str) -> None:
        """The state of a `p4xos.histogram.Histogram`."""
        family = self._found.get(name)
        if family is None:
            family = self._found[name] = HistogramMetricFamily(name, text, labels=list(labels))
        assert isinstance(family, HistogramMetricFamily)
        total = 0
        buckets = []
        for bound, count in zip((*BOUNDS_S, None), state["counts"], strict=True):
            total += count
            buckets.append(("+Inf" if bound is None else repr(bound), total))
        family.add_metric(list(labels.values()), buckets, state["sum"])

    def info(self, name: str, text: str, labels: Mapping[str, str]) -> None:
        """Facts as labels of a sample that is always 1."""
        family = self._found[name] = InfoMetricFamily(name, text)
        family.add_metric([], dict(labels))


def explained(name: str) -> str:
    """HELP for a counter: its own words, or its name's."""
    return _HELP.get(name) or name.partition("_")[2].replace("_", " ").capitalize() + "."


def families(status: Status) -> Iterable[Metric]:
    """All metrics of a node's roles."""
    out = Families()
    out.info(
        "p4xos_node",
        "Which node this is.",
        {"node": status["node"], "cluster": status["cluster"], "roles": ", ".join(status["roles"])},
    )
    out.gauge("p4xos_ready", not status["problems"], "1: clients are well served here (/readyz).")
    out.gauge("p4xos_silent_acceptors", len(status["silent"]),
              "Acceptors here that have forgotten and have not joined again yet.")
    for owner, counters in status["counters"].items():
        role, _, member = owner.partition(" ")
        _count(out, role, member, counters)
    if "coordinator" in status:
        _coordinator(out, status["coordinator"])
    if "learner" in status:
        _learner(out, status["learner"])
    for member, acceptor in status["acceptors"].items():
        _acceptor(out, member, acceptor)
    for owner, name in status["data_planes"].items():
        role, _, member = owner.partition(" ")
        out.gauge("p4xos_data_plane", 1, "1 for the data plane that a role is on.",
                  role=role, id=member, plane=name)
    return out


def _count(out: Families, role: str, member: str, counters: Mapping[str, int]) -> None:
    """The counters of one role, its endpoint, or a part of the node."""
    for name, value in counters.items():
        if not member:
            out.counter(f"p4xos_{role}_{name}", value)
        elif name.startswith("network_"):
            out.counter(f"p4xos_{name}", value, role=role, id=member)
        elif reason := drop_reason(name):
            out.counter(
                "p4xos_drops", value, "Messages not acted on, by reason.",
                role=role, id=member, reason=reason,
            )  # fmt: skip
        else:
            owner = "proposer" if role == "learner" and name in _PROPOSER else role
            out.counter(f"p4xos_{owner}_{name}", value, id=member)


def _coordinator(out: Families, told: Status) -> None:
    for phase in _PHASES:
        out.gauge("p4xos_coordinator_phase", told["phase"] == phase,
                  "1 for the phase that the coordinator is in.", phase=phase)
    leader = -1 if told["leader"] is None else told["leader"]
    out.gauge("p4xos_coordinator_leader", leader, "The id of who coordinates; -1: none is known.")
    out.gauge("p4xos_coordinator_round", told["round"], "The round it serves in, or heard of.")
    out.gauge("p4xos_coordinator_next_instance", told["next"], "The next to be proposed.")
    out.gauge("p4xos_coordinator_low_instance", told["low"], "All below it may be forgotten.")
    out.gauge("p4xos_coordinator_waiting", told["queued"], "Requests that wait for the window.")
    out.gauge("p4xos_coordinator_blocked", bool(told["blocked"]), "1: the window is full.")


def _learner(out: Families, told: Status) -> None:
    out.gauge("p4xos_learner_delivered_instance", told["delivered"], "Delivered through it.")
    out.gauge("p4xos_learner_heard_instance", told["heard"], "The highest heard of.")
    out.gauge("p4xos_learner_lag_instances", max(0, told["heard"] - told["delivered"]),
              "Instances heard of and not delivered.")
    out.gauge("p4xos_learner_low_instance", told["low"],
              "Acceptors have forgotten what is below it.")
    out.gauge("p4xos_learner_durable_instance", told["durable_through"], "Durable through it.")
    out.gauge("p4xos_learner_behind", told["behind"],
              "1: needs what the acceptors have forgotten, and asks its peers for it.")
    out.gauge("p4xos_learner_sessions", told["sessions"], "Sessions of proposers remembered.")
    out.gauge("p4xos_proposer_in_flight", told["in_flight"], "Submissions not answered yet.")


def _acceptor(out: Families, member: str, told: Status) -> None:
    out.gauge("p4xos_acceptor_low_instance", told["low"], "Forgotten below it.", id=member)
    out.gauge("p4xos_acceptor_highest_instance", told["highest"], "Highest voted.", id=member)
    out.gauge("p4xos_acceptor_round", told["round"], "The highest promised.", id=member)
    for name, value in told.get("storage", {}).items():
        out.counter(f"p4xos_storage_{name}", value, id=member)
    if "disk_bytes" in told:
        out.gauge("p4xos_storage_disk_bytes", told["disk_bytes"],
                  "What the acceptor's log takes.", id=member)
    if "sync_seconds" in told:
        out.histogram("p4xos_storage_sync_seconds", told["sync_seconds"],
                      "How long a write and its fdatasync took.", id=member)


class StatusCollector(Collector):
    """Gives a registry what a function makes at every scrape."""

    def __init__(self, collect: Callable[[], Iterable[Metric]]) -> None:
        self._collect = collect

    def collect(self) -> Iterable[Metric]:
        """The metrics as they are now."""
        return self._collect()

    def describe(self) -> Iterable[Metric]:
        """Nothing beforehand: no scrape when it is registered."""
        return ()


def metrics_page(collectors: Iterable[Callable[[], Iterable[Metric]]]) -> Callable[[], Page]:
    """A page that asks all collectors, and the operating system about this process.

    A registry of its own, for two nodes in one process are two pages.
    """
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    for collect in collectors:
        registry.register(StatusCollector(collect))
    return lambda: Page(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)
