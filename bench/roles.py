"""What each role can do alone, and what each costs in a group by the number of its learners.

Alone, a role is a process that `bench.stand_in` keeps busy. In a group values are offered at a
fixed rate, as in the figure of the P4xos slides ("Paxos Bottlenecks": CPU utilization of proposer,
coordinator, acceptor and learner for 4 to 20 learners). The proposer there sits beside a learner of
its own, as every proposer here does; the learners counted come besides.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trio

from bench.errors import BenchError
from bench.processes import Child, children, process_cpu_s
from bench.results import Figure, Metric, Point, Sample
from bench.role_cluster import (
    Counter,
    create,
    run_learner,
    start_learners,
    start_role,
    start_voters,
)
from bench.stand_in import ForAcceptor, ForCoordinator, ForLearner, Rate, StandIn
from p4xos.config import Cluster, RoleName, Storage
from p4xos.effects import Effects
from p4xos.envelope import request_rows
from p4xos.node import Node

PAYLOAD_BYTES = 64
MESSAGES = 1_000_000
MESSAGES_LEAST = 20_000
LEARNER_WINDOW = 16_384
"""A learner reports at every eighth of it: often enough to be fed by what it reports."""
LEARNERS = (4, 8, 12, 16, 20)
OFFERED_PER_S = 10_000
"""Few enough that twenty learners keep up on two cores."""
EVERY_S = 0.01
WATCH_S, WATCH_LEAST_S = 5.0, 0.5
SETTLE_S = 1.0
WAIT_LIMIT_S = 60.0

CPU = Figure("roles", "CPU by learners", "learners", "% of a core, of each process")
CARRIED = Figure("roles", "values delivered by learners", "learners", "values/s")


class Case(NamedTuple):
    """A role alone."""

    name: str
    role: RoleName
    storage: Storage
    stand_in: Callable[[Cluster, int], StandIn]


CASES = (
    Case("acceptor in memory", "acceptor", "memory", ForAcceptor),
    Case("acceptor on disk", "acceptor", "disk", ForAcceptor),
    Case("coordinator", "coordinator", "memory", ForCoordinator),
    Case("learner", "learner", "memory", ForLearner),
)


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields each role's rate and cost alone, then the CPU of all by the number of learners."""
    messages = max(int(MESSAGES * scale), MESSAGES_LEAST)
    for number in range(runs):
        for case in CASES:
            place = case.name.replace(" ", "-")
            rate = alone(scratch / f"{place}-{number}", case, messages)
            # A learner hears each instance from three acceptors.
            heard = 3 if case.role == "learner" else 1
            name = f"{case.name} alone"
            yield Sample(Metric("roles", name, "messages/s"), heard * rate.messages_per_s)
            yield Sample(Metric("roles", f"{name}, CPU", "us/message"), rate.cpu_us / heard)
            yield Sample(Metric("roles", f"{name}, lost", "messages"), rate.lost)
        for learners in LEARNERS:
            directory = scratch / f"learners-{learners}-{number}"
            yield from together(directory, learners, max(WATCH_S * scale, WATCH_LEAST_S))


def alone(directory: Path, case: Case, messages: int) -> Rate:
    """One role as a process, until so many messages were answered.

    Raises:
      BenchError: it ended, or does not answer.
    """
    window = LEARNER_WINDOW if case.role == "learner" else Cluster.window
    cluster = create(directory, case.storage, PAYLOAD_BYTES, window=window)
    with children() as started, case.stand_in(cluster, PAYLOAD_BYTES) as others:
        if case.role == "learner":
            start_learners(cluster, [0], started)
        else:
            start_role(cluster, case.role, 0, started)
        return others.feed(started[0], messages)


def together(directory: Path, learners: int, seconds: float) -> Iterator[Point]:
    """Yields the CPU of each role while values come at the fixed rate."""
    # Learners are odd in number, so that a majority of them tolerates most: the proposer's own is.
    cluster = create(directory, "memory", PAYLOAD_BYTES, learners=learners + 1)
    counter = Counter()
    with children() as started:
        start_voters(cluster, started)
        start_learners(cluster, range(1, learners + 1), started)

        async def offer(node: Node) -> list[Point]:
            await _offer(node, counter, SETTLE_S)
            before, values, began = _cpu_s(started), counter.values, time.perf_counter()
            await _offer(node, counter, seconds)
            taken_s = time.perf_counter() - began
            points = [Point(CARRIED, "delivered", learners, (counter.values - values) / taken_s)]
            for role, cpu_s in _cpu_s(started).items():
                share = 100 * (cpu_s - before[role]) / taken_s
                points.append(Point(CPU, role, learners, share))
            return points

        yield from run_learner(cluster, cluster.learners[0].node, counter, offer)


async def _offer(node: Node, counter: Counter, seconds: float) -> None:
    """Submits at the fixed rate for so long, and waits until all is delivered.

    Raises:
      BenchError: the group does not keep up.
    """
    assert node.application is not None
    proposer, driver = node.application.replica.proposer, node.drivers[-1]
    lengths = np.full(round(OFFERED_PER_S * EVERY_S), PAYLOAD_BYTES, dtype=np.uint16)
    due = trio.current_time()
    end, wanted = due + seconds, counter.values
    while due < end:
        if proposer.room < len(lengths):
            raise BenchError(f"the group does not keep up with {OFFERED_PER_S} values/s")
        rows = request_rows(proposer.frame, 0, 0, lengths)
        effects, now = Effects.none(), trio.current_time()
        proposer.submit_rows(rows, now, effects)
        driver.perform(effects, now)
        wanted += len(rows)
        due += EVERY_S
        await trio.sleep_until(due)
    with trio.move_on_after(WAIT_LIMIT_S) as scope:
        while counter.values < wanted:
            await trio.sleep(EVERY_S)
    if scope.cancelled_caught:
        raise BenchError(f"{wanted - counter.values} values were not delivered")


def _cpu_s(started: Sequence[Child]) -> dict[str, float]:
    """CPU seconds by role so far; the mean where there are several."""
    by_role: dict[str, list[float]] = {"proposer": [process_cpu_s(os.getpid())]}
    for child in started:
        by_role.setdefault(child.name.rstrip(" 0123456789"), []).append(child.cpu_s())
    return {role: sum(each) / len(each) for role, each in by_role.items()}
