"""Latencies in log-linear buckets, as HdrHistogram counts them, on numpy.

A bucket is at most 1/1024 of its values wide, so three digits of every percentile are right,
from a nanosecond to an hour, in 264 KiB. Merging adds up counts and loses nothing: percentiles of
merged histograms are those of all values together, which means of percentiles are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

HALF_BITS = 10
"""A power of two is cut into 2**10 buckets; twice that many of one nanosecond come first."""
MOST_NS = (1 << 42) - 1
"""73 minutes: longer than any run."""
BEYOND_LEAST = 10
"""So many values beyond a percentile make it one: with fewer it is the luck of single values."""
_HALF = 1 << HALF_BITS
_BUCKETS = (MOST_NS.bit_length() - HALF_BITS - 1) * _HALF + 2 * _HALF


def bucket(values_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """The bucket of each value.

    Args:
      values_ns: (n,) int64, 0 to MOST_NS.

    Returns:
      (n,) int64, 0 to the number of buckets less one, a fresh array.
    """
    # A float64 holds every value exactly, and its exponent is the number of bits.
    bits = np.frexp(values_ns.astype(np.float64))[1].astype(np.int64)
    shift = np.maximum(bits - HALF_BITS - 1, 0)
    found: NDArray[np.int64] = shift * _HALF + (values_ns >> shift)
    return found


def highest_in(index: int) -> int:
    """The highest value of a bucket, ns."""
    if index < 2 * _HALF:
        return index
    shift = index // _HALF - 1
    return ((index - shift * _HALF + 1) << shift) - 1


class Histogram:
    """How many values fell into each bucket; least, most and sum are exact."""

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(_BUCKETS, np.int64)
        self.total = 0
        self.sum_ns = 0
        self.least_ns = MOST_NS
        """Meaningless without values, as is `most_ns`."""
        self.most_ns = 0

    def record(self, values_ns: ArrayLike) -> None:
        """Counts values; thousands at once cost some 20 ns each.

        Args:
          values_ns: whole numbers, ns, 0 to MOST_NS.

        Raises:
          ValueError: one is out of range; none of them is counted then.
        """
        values = np.asarray(values_ns, np.int64).ravel()
        if not values.size:
            return
        least, most = int(values.min()), int(values.max())
        if least < 0 or most > MOST_NS:
            raise ValueError(f"values of {least} to {most} ns, allowed are 0 to {MOST_NS}")
        self.counts += np.bincount(bucket(values), minlength=_BUCKETS)
        self.total += values.size
        self.sum_ns += int(values.sum())
        self.least_ns = min(self.least_ns, least)
        self.most_ns = max(self.most_ns, most)

    def merge(self, other: Histogram) -> None:
        """Counts another's values, as if each had been recorded here."""
        self.counts += other.counts
        self.total += other.total
        self.sum_ns += other.sum_ns
        self.least_ns = min(self.least_ns, other.least_ns)
        self.most_ns = max(self.most_ns, other.most_ns)

    def percentile(self, percent: float) -> int | None:
        """The least value, ns, that so many percent of all values do not exceed.

        It is its bucket's highest, so never told too low, and at most a thousandth too high.

        Args:
          percent: above 0, below 100; for the largest value there is `most_ns`.

        Returns:
          None when fewer than BEYOND_LEAST values lie beyond it.

        Raises:
          ValueError: there is no such percentile.
        """
        if not 0 < percent < 100:
            raise ValueError(f"a percentile of {percent:g}, allowed is above 0 and below 100")
        # Rounded first: 99.9 percent of 10,000 must not become 9,991 values.
        rank = max(1, math.ceil(round(self.total * percent / 100, 6)))
        if self.total - rank < BEYOND_LEAST:
            return None
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        return min(highest_in(index), self.most_ns)

    @property
    def mean_ns(self) -> float | None:
        """Exact; None without values."""
        return self.sum_ns / self.total if self.total else None

    def as_object(self) -> dict[str, object]:
        """All that is known, for JSON: the buckets that hold something, and how much."""
        index = np.flatnonzero(self.counts)
        return {
            "half_bits": HALF_BITS,
            "sum_ns": self.sum_ns,
            "least_ns": self.least_ns,
            "most_ns": self.most_ns,
            "buckets": index.tolist(),
            "counts": self.counts[index].tolist(),
        }

    @classmethod
    def from_object(cls, stored: Mapping[str, Any]) -> Self:
        """What `as_object` gave.

        Raises:
          ValueError: its buckets are cut otherwise.
        """
        if stored["half_bits"] != HALF_BITS:
            raise ValueError(f"a histogram of {stored['half_bits']} bits, known is {HALF_BITS}")
        found = cls()
        found.counts[np.asarray(stored["buckets"], np.int64)] = stored["counts"]
        found.total = int(found.counts.sum())
        found.sum_ns = stored["sum_ns"]
        found.least_ns, found.most_ns = stored["least_ns"], stored["most_ns"]
        return found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.as_object() == other.as_object()

    __hash__ = None  # type: ignore[assignment]  # it changes


def merged(histograms: Iterable[Histogram]) -> Histogram:
    """All values of all of them, in a new one."""
    everything = Histogram()
    for histogram in histograms:
        everything.merge(histogram)
    return everything
