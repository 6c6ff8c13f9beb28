"""A new learner takes the whole log from the acceptors, which have forgotten nothing of it.

Of three learners one fills the log and is gone: its checkpoint alone is no majority's, so the
acceptors keep everything. Then another one begins with nothing. It hears by a heartbeat how far the
log is and asks for it (LEARN, docs/PROTOCOL.md, section 7) as fast as it is answered.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import trio

from bench import closed_loop
from bench.closed_loop import BURST, Load
from bench.errors import BenchError
from bench.processes import children
from bench.results import Figure, Metric, Point, Sample
from bench.role_cluster import Counter, Deliveries, create, run_learner, start_voters
from p4xos.node import Node

VALUES, VALUES_LEAST, VALUES_MAX = 500_000, 20_000, 1_000_000
WINDOW = 1 << 20
"""It holds all of them, and whatever else takes an instance."""
IN_FLIGHT = 6144
PAYLOAD_BYTES = 64
LIMIT_S = 300.0
EVERY_S = 0.1
"""Between two points of the curve."""

assert VALUES_MAX < WINDOW

RATE = Metric("catchup", "a new learner from the acceptors' log", "instances/s", at_least=500_000)
WHOLE = Metric("catchup", "until it has everything, with its start", "s")
ASKED = Metric("catchup", "values for each LEARN", "instances")
PROGRESS = Figure("catchup", "delivered by a new learner", "s", "instances")


class Run(NamedTuple):
    """One new learner."""

    delivered: list[tuple[float, int]]  # (seconds since its start, values so far), of each batch
    learns: int  # questions sent


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields the rate of catching up, and how far it was when."""
    values = min(max(int(VALUES * scale), VALUES_LEAST), VALUES_MAX)
    for number in range(runs):
        found = measure(scratch / f"catchup-{number}", values)
        first_s, first = found.delivered[0]
        last_s, last = found.delivered[-1]
        yield Sample(RATE, (last - first) / (last_s - first_s))
        yield Sample(WHOLE, last_s)
        yield Sample(ASKED, last / found.learns)
        yield from _curve(found.delivered)


def measure(directory: Path, values: int) -> Run:
    """Fills a log, then has a new learner take it.

    Raises:
      BenchError: a process ended, or it does not come to the end.
    """
    cluster = create(directory, "disk", PAYLOAD_BYTES, learners=3, window=WINDOW)
    with children() as started:
        start_voters(cluster, started)
        load = Load(max(values, 2 * BURST), IN_FLIGHT)
        closed_loop.submit(cluster, started, [load], PAYLOAD_BYTES)
        counter = Counter()
        delivered: list[tuple[float, int]] = []
        began = time.perf_counter()

        def note(deliveries: Deliveries) -> None:
            if deliveries:  # opening a session delivers nothing
                delivered.append((time.perf_counter() - began, counter.values))

        counter.on_deliveries = note

        async def learn(node: Node) -> int:
            with trio.move_on_after(LIMIT_S):
                while counter.values < load.values:
                    await trio.sleep(EVERY_S / 10)
                return node.drivers[-1].counters()["learns_sent"]
            raise BenchError(f"{counter.values} of {load.values} after {LIMIT_S:g} s")

        learns = run_learner(cluster, cluster.learners[1].node, counter, learn)
    return Run(delivered, learns)


def _curve(delivered: list[tuple[float, int]]) -> Iterator[Point]:
    """How far it was at each look."""
    for count in range(int(delivered[-1][0] / EVERY_S) + 1):
        at_s = count * EVERY_S
        so_far = max((values for when_s, values in delivered if when_s <= at_s), default=0)
        yield Point(PROGRESS, "delivered", round(at_s, 1), so_far)
