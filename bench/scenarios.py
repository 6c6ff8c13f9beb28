"""The table of scenarios: to add one, write its module and a line here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.results import Point, Sample

RUNS = 3
"""How often a scenario is run, unless its line or `--runs` says otherwise."""


class Run(Protocol):
    """A scenario: yields samples, and points of curves, as it takes them."""

    def __call__(self, scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
        """Runs it.

        Args:
          scratch: an empty directory of its own; the caller removes it.
          runs: how often each metric is measured.
          scale: factor on the amount of work; 1 is what the published figures use.
        """
        ...


class Scenario(NamedTuple):
    """One line of the table."""

    name: str
    module: str
    """Has `run`, and may have `needs`, which raises BenchError when something is missing."""
    about: str
    runs: int = RUNS


SCENARIOS = (
    Scenario("floor", "bench.floor", "what no figure can be below: clock, loopback, UDP, disk"),
    Scenario("micro", "bench.micro", "a role's step by the size of its batch, in process"),
    Scenario("roles", "bench.roles", "each role alone; CPU of each by the number of learners"),
    Scenario("consensus", "bench.consensus", "values/s through 3 acceptors and one learner"),
    Scenario("xdp", "bench.xdp", "software and the kernel over veths; an acceptor alone"),
    Scenario("catchup", "bench.catchup", "a new learner takes the acceptors' log"),
    Scenario("hops", "bench.hops", "round trips: channel, Unix sockets, UDP, a veth pair"),
    Scenario("kv", "bench.kv", "redis-benchmark on three durable replicas"),
    Scenario("ycsb", "bench.ycsb", "YCSB's workloads, curves, open loop past the knee"),
    Scenario("checkpoint", "bench.checkpoint", "the store's rate by checkpoint interval"),
    Scenario("scale", "bench.scale", "rates by acceptors, learners, window, keys; memory"),
    Scenario("idle", "bench.idle", "CPU of a cluster that nobody uses"),
    Scenario("failover", "bench.failover", "kill -9 of the coordinator under load"),
    Scenario("overload", "bench.overload", "more than the cluster can do: memory, others' rates"),
    Scenario("takeover", "bench.takeover", "the same, again and again; a run is a kill", 50),
    Scenario("kills", "bench.kills", "kill -9 of random nodes under load; a run is a kill", 20),
    Scenario("peers", "bench.peers.scenario", "this store beside etcd, Redis, pysyncobj, libpaxos"),
    Scenario("libpaxos", "bench.libpaxos", "libpaxos' client on libpaxos, and on this log"),
    Scenario("chunnels", "bench.chunnels.scenario", "what layers cost; the paper's figures 3 to 5"),
    Scenario("copies", "bench.copies", "backup and catch-up with 1 M keys under load; memory"),
)
