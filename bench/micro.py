"""A role's step by the size of its batch, in process, without sockets: the scalar and numpy path.

Each role gets what it gets under load: consecutive instances of one sender in one round. What is
timed is the step alone; the batch is written anew before each. A figure is the median of the steps.

    acceptor      PHASE2A to PHASE2B
    coordinator   REQUEST to PHASE2A: its sequencer, the part that acts on each value
    learner       PHASE2B of three acceptors, a step each, to deliveries
    proposer      values submitted, and what its learner delivered of them; it has one path
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np

from bench.results import Figure, Metric, Point, Sample
from p4xos import wire
from p4xos.batching import SCALAR_BELOW
from p4xos.effects import Delivery, Effects, Opened
from p4xos.envelope import ENVELOPE, ENVELOPE_BYTES, open_envelope, open_value, request_rows
from p4xos.quorum import make_round
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.learner import Learner
from p4xos.roles.proposer import Proposer
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import HEADER_BYTES, Frame, Rows, Type

SIZES = tuple(1 << k for k in range(11))
"""Messages of a batch."""
TIME_S, STEPS_LEAST = 0.1, 10
"""How long a step is repeated, at scale 1, and how often at least."""
WINDOW = 65_536
PAYLOAD_BYTES = 64
VALUE_BYTES = ENVELOPE_BYTES + PAYLOAD_BYTES
ACCEPTORS = 3
ROUND = make_round(1, 0)
FRAME = Frame(cluster=1, group=0, sender=0)
ALWAYS, NEVER = 1 << 30, 0
"""As a role's `scalar_below`."""
ROLES = ("acceptor", "coordinator", "learner")

COST = Figure(
    "micro", "cost of a step by the size of its batch", "messages in a batch", "ns/message",
    x_log=True, y_log=True,
)  # fmt: skip

Step = Callable[[], float]
"""Makes a batch, and tells how many seconds the role took for it, for each message of it."""


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields the cost of each role, path and size, and where the paths cross."""
    for _ in range(runs):
        for role in ROLES:
            costs: dict[str, list[float]] = {}
            for path, scalar_below in (("scalar", ALWAYS), ("numpy", NEVER)):
                costs[path] = [
                    _cost_ns(step_of(role, size, scalar_below), scale) for size in SIZES
                ]
                for size, cost_ns in zip(SIZES, costs[path], strict=True):
                    yield Point(COST, f"{role}, {path}", size, cost_ns)
            yield Sample(_metric(role, "one message", "ns"), min(c[0] for c in costs.values()))
            yield Sample(_metric(role, f"of {SIZES[-1]:,}, each", "ns"), costs["numpy"][-1])
            crossing = Metric("micro", f"{role}: numpy is faster from", "messages")
            yield Sample(crossing, crossing_of(costs["scalar"], costs["numpy"]))
        for size in SIZES:
            yield Point(COST, "proposer", size, _cost_ns(step_of("proposer", size), scale))


def _metric(role: str, what: str, unit: str) -> Metric:
    return Metric("micro", f"{role}: {what}", unit)


def crossing_of(scalar: list[float], numpy: list[float]) -> int:
    """The smallest size from which on the numpy path is faster; twice the largest if nowhere."""
    crossing = 2 * SIZES[-1]
    for size, one, other in reversed(list(zip(SIZES, scalar, numpy, strict=True))):
        if one <= other:
            break
        crossing = size
    return crossing


def _cost_ns(step: Step, scale: float) -> float:
    until = time.perf_counter() + TIME_S * scale
    costs = [step() for _ in range(STEPS_LEAST)]
    while time.perf_counter() < until:
        costs.append(step())
    return median(costs) * 1e9


def step_of(role: str, size: int, scalar_below: int = SCALAR_BELOW) -> Step:
    """A role that has begun, and how to give it one more batch of so many messages."""
    steps: dict[str, Callable[[int, int], Step]] = {
        "acceptor": _acceptor,
        "coordinator": _coordinator,
        "learner": _learner,
        "proposer": lambda size, _: _proposer(size),
    }
    return steps[role](size, scalar_below)


def _values(size: int) -> Rows:
    """Values of a session that instance 1 opened, as REQUEST."""
    return request_rows(FRAME, 1, 0, [PAYLOAD_BYTES] * size)


def _low(first: int) -> int:
    """What the coordinator tells: it moves at every eighth of a window."""
    eighth = WINDOW // 8
    return max(first // eighth - 1, 0) * eighth + 1


def _acceptor(size: int, scalar_below: int) -> Step:
    acceptor = Acceptor(
        frame=FRAME, acceptors=ACCEPTORS, window=WINDOW, value_bytes=VALUE_BYTES,
        scalar_below=scalar_below,
    )  # fmt: skip
    rows = _values(size)
    header = wire.headers(rows)
    first = size

    def step() -> float:
        nonlocal first
        header["type"] = Type.PHASE2A
        header["instance"] = np.arange(first, first + size)
        header["round"], header["vround"], header["low"] = ROUND, 0, _low(first)
        began = time.perf_counter()
        acceptor.step(rows, 0.0)
        taken_s = time.perf_counter() - began
        assert acceptor.highest == first + size - 1
        first += size
        return taken_s / size

    return step


def _coordinator(size: int, scalar_below: int) -> Step:
    sequencer = Sequencer(
        frame=FRAME, window=WINDOW, value_bytes=VALUE_BYTES, scalar_below=scalar_below
    )
    sequencer.round = ROUND
    rows = _values(size)
    header = wire.headers(rows)

    def step() -> float:
        header["type"] = Type.REQUEST
        header["instance"] = header["round"] = header["low"] = 0
        sequencer.low = _low(sequencer.next)
        before = sequencer.next
        began = time.perf_counter()
        sequencer.step(rows, 0.0)
        taken_s = time.perf_counter() - began
        assert sequencer.next == before + size
        return taken_s / size

    return step


def _learner(size: int, scalar_below: int) -> Step:
    learner = Learner(
        frame=FRAME, acceptors=ACCEPTORS, window=WINDOW, value_bytes=VALUE_BYTES,
        scalar_below=scalar_below,
    )  # fmt: skip
    opening = open_value(FRAME.sender, 1)
    for acceptor in range(ACCEPTORS):
        vote = wire.encode(
            FRAME.cluster, FRAME.group, Type.PHASE2B, instance=1, round=ROUND, vround=ROUND,
            sender=acceptor, value=opening,
        )  # fmt: skip
        learner.step(vote, 0.0)
    rows = _values(size)
    header = wire.headers(rows)
    header["type"], header["round"], header["vround"] = Type.PHASE2B, ROUND, ROUND
    sequences = rows[:, HEADER_BYTES : HEADER_BYTES + ENVELOPE_BYTES].view(ENVELOPE)[:, 0]

    def step() -> float:
        first = learner.delivered + 1
        header["instance"] = np.arange(first, first + size)
        sequences["sequence"] = np.arange(first - 1, first - 1 + size)
        taken_s, delivered = 0.0, 0
        for acceptor in range(ACCEPTORS):
            header["sender"] = acceptor
            began = time.perf_counter()
            effects = learner.step(rows, 0.0)
            taken_s += time.perf_counter() - began
            delivered += sum(len(d.lengths) for d in effects.deliver if isinstance(d, Delivery))
        assert delivered == size
        return taken_s / (ACCEPTORS * size)

    return step


def _proposer(size: int) -> Step:
    proposer = Proposer(
        frame=FRAME, acceptors=ACCEPTORS, window=WINDOW, value_bytes=VALUE_BYTES,
        random=lambda: 0.5,
    )  # fmt: skip
    effects = Effects.none()
    payloads = np.zeros((size, PAYLOAD_BYTES), dtype=np.uint8)
    lengths = np.full(size, PAYLOAD_BYTES, dtype=np.int64)
    tickets = proposer.submit_rows(_values(size), 0.0, effects)
    opening = open_envelope(wire.message(effects.send[0][1], 0).value)
    assert opening is not None
    nonce = opening.sequence
    proposer.delivered([Opened(1, FRAME.sender, nonce)], 0.0, effects)
    proposer.delivered([Delivery(2, 1, tickets, payloads, lengths)], 0.0, effects)

    def step() -> float:
        rows = _values(size)
        effects = Effects.none()
        began = time.perf_counter()
        ticket = proposer.submit_rows(rows, 0.0, effects)
        proposer.delivered([Delivery(ticket + 1, 1, ticket, payloads, lengths)], 0.0, effects)
        taken_s = time.perf_counter() - began
        assert proposer.in_flight == 0
        return taken_s / size

    return step

