"""What generators measured."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Self

from bench.errors import BenchError
from bench.histogram import Histogram, merged

STOOD_STILL_MS = 1000.0
"""A generator that sleeps so much longer than it meant to did not wait for a core: the whole
machine stood still, as a virtual one does when its host stops it, and nodes and disk with it."""


@dataclass
class Outcome:
    """Of one generator, or of several merged. Warm-up and what was sent after the end are cut."""

    seconds: float
    """From the end of the warm-up to the end of sending."""
    latencies: dict[str, Histogram] = field(default_factory=dict)
    """By kind of operation; of an open loop from the intended send time on."""
    lag: Histogram = field(default_factory=Histogram)
    """Actual less intended send time, of an open loop; of a closed one empty."""
    overslept_ns: int = 0
    """How much later than meant the generator woke up, at most; warm-up and end are not cut."""
    answered: int = 0
    """Operations whose last answer came within `seconds`, whenever they were sent."""
    unanswered: int = 0
    """Operations without an answer until the generator ended; their latency counts up to then."""
    missing: int = 0
    """Reads of records that were not there."""
    errors: Counter[str] = field(default_factory=Counter)
    """Error replies by their text, of the warm-up too."""

    @property
    def rate(self) -> float:
        """Answers a second."""
        return self.answered / self.seconds

    @property
    def latency(self) -> Histogram:
        """Of all operations."""
        return merged(self.latencies.values())

    def percentile_ms(self, percent: float, kind: str | None = None) -> float | None:
        """Of all operations, or of one kind; None when there are too few."""
        histogram = self.latency if kind is None else self.latencies.get(kind, Histogram())
        found = histogram.percentile(percent)
        return None if found is None else found / 1e6

    @property
    def lag_ms(self) -> float:
        """The p99 of the lag; its most when there are too few to tell."""
        found = self.lag.percentile(99)
        return (self.lag.most_ns if found is None else found) / 1e6

    def check(self, lag_limit_ms: float) -> None:
        """Nothing when it counts.

        Raises:
          StoodStill: the machine did, for a second or more.
          Late: it did not send when it was meant to.
          BenchError: the store answered with errors.
        """
        if self.overslept_ns / 1e6 > STOOD_STILL_MS:  # first: it explains errors and lateness
            raise StoodStill(self.overslept_ns / 1e9)
        if self.errors:
            text, count = self.errors.most_common(1)[0]
            raise BenchError(
                f"{self.errors.total()} operations were answered by errors, {count} by: {text}"
            )
        if self.lag_ms > lag_limit_ms:
            raise Late(self.lag_ms, lag_limit_ms)

    def as_json(self) -> str:
        """One line."""
        known = dict(vars(self))
        known["lag"] = self.lag.as_object()
        known["latencies"] = {kind: h.as_object() for kind, h in self.latencies.items()}
        return json.dumps(known)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `as_json` gave."""
        known = json.loads(text)
        known["lag"] = Histogram.from_object(known["lag"])
        stored = known["latencies"]
        known["latencies"] = {kind: Histogram.from_object(h) for kind, h in stored.items()}
        known["errors"] = Counter(known["errors"])
        return cls(**known)


class StoodStill(BenchError):
    """The machine stood still during the run."""

    def __init__(self, seconds: float) -> None:
        """With how long."""
        super().__init__(
            f"the load generator woke up {seconds:.3g} s late: the machine stood still, and the "
            "run is void; run again when its host is less busy"
        )


class Late(BenchError):
    """The generator lagged: the load was not the one that was asked for."""

    def __init__(self, lag_ms: float, limit_ms: float) -> None:
        """With the p99 of the lag and its limit."""
        super().__init__(
            f"the load generator sent late, p99 by {lag_ms:.3g} ms, allowed are {limit_ms:g} ms: "
            "the run is void; lower the rate, or give the generator a core of its own"
        )
        self.lag_ms = lag_ms


def merge(outcomes: Iterable[Outcome]) -> Outcome:
    """Those of generators that ran at one time, as if one had sent everything."""
    found = list(outcomes)
    if not found:
        raise ValueError("nothing to merge")
    everything = Outcome(max(outcome.seconds for outcome in found))
    for outcome in found:
        for kind, histogram in outcome.latencies.items():
            everything.latencies.setdefault(kind, Histogram()).merge(histogram)
        everything.lag.merge(outcome.lag)
        everything.overslept_ns = max(everything.overslept_ns, outcome.overslept_ns)
        everything.answered += outcome.answered
        everything.unanswered += outcome.unanswered
        everything.missing += outcome.missing
        everything.errors += outcome.errors
    return everything
