"""When the operations of an open loop are meant to be sent: whatever the answers do."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from bench.load.plan import Plan

_CHUNK = 4096
_OWN_STREAM = 1
"""So that times and keys are drawn independently of each other."""


def intended(plan: Plan) -> Iterator[int]:
    """Times since the start, ns, not decreasing, without end.

    Raises:
      ValueError: the plan is a closed loop.
    """
    if plan.rate is None:
        raise ValueError("a closed loop has no schedule: give a rate")
    distance = 1e9 / plan.rate
    if plan.arrivals == "constant":
        first = 0
        while True:
            # Several generators of one load send in turn.
            numbers = np.arange(first, first + _CHUNK) + plan.part / plan.parts
            yield from (numbers * distance).astype(np.int64).tolist()
            first += _CHUNK
    random = np.random.default_rng((plan.seed, plan.part, _OWN_STREAM))
    last = 0.0
    while True:
        times = last + np.cumsum(random.exponential(distance, _CHUNK))
        last = float(times[-1])
        yield from times.astype(np.int64).tolist()
