"""How long things took, in buckets that double: two additions and a search for an observation."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

BOUNDS_S: tuple[float, ...] = tuple(2.0**exponent for exponent in range(-15, 5))
"""Upper bounds of the buckets in seconds, 31 us to 16 s; one more bucket takes what is longer.

Powers of two, not Prometheus' defaults: those begin at 5 ms, where most answers here end."""
_EMPTY: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)


class Histogram:
    """Counts durations; never reset, so that two looks at it tell what was between them."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = list(_EMPTY)
        """By bucket, not cumulated; the last is that of durations above all bounds."""
        self.sum = 0.0
        """Of all durations, in seconds."""

    def observe(self, seconds: float, count: int = 1) -> None:
        """Counts a duration, of so many that took it alike."""
        self.counts[bisect_left(BOUNDS_S, seconds)] += count
        self.sum += seconds * count

    @property
    def count(self) -> int:
        """How many durations were counted."""
        return sum(self.counts)

    def state(self) -> dict[str, object]:
        """As data for a status; `quantile` takes its counts."""
        return {"counts": list(self.counts), "sum": self.sum}


def since(later: Sequence[int], earlier: Sequence[int] | None) -> list[int]:
    """The counts between two looks; all of the later one's where a restart took the earlier away.

    Args:
      later: (buckets,) counts.
      earlier: (buckets,) counts, or None: there was no earlier look.
    """
    if earlier is None or len(earlier) != len(later):
        return list(later)
    difference = [a - b for a, b in zip(later, earlier, strict=True)]
    return list(later) if any(count < 0 for count in difference) else difference


def quantile(counts: Sequence[int], share: float) -> float | None:
    """The duration that this share of the counted ones does not exceed, in seconds.

    Linear inside a bucket, as Prometheus' histogram_quantile computes it.

    Args:
      counts: (buckets,) as in `Histogram.counts`.
      share: 0 to 1.

    Returns:
      Seconds, the highest bound where it lies above all of them; None when nothing was counted.
    """
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for bucket, count in enumerate(counts):
        if count and below + count >= wanted:
            if bucket >= len(BOUNDS_S):
                break
            low = BOUNDS_S[bucket - 1] if bucket else 0.0
            return low + (BOUNDS_S[bucket] - low) * (wanted - below) / count
        below += count
    return BOUNDS_S[-1]
