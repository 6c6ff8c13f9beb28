"""Whether a series grows: a line through its second half, and how sure its slope is.

Everything grows at first: caches fill, tables reach their size. So the first half is warm-up. A
slope counts as a leak when it is beyond a bound even after three standard errors are taken off,
and when the growth seen is more than the noise of one allocation. Neighbouring samples are alike
(memory moves in steps), which makes the usual standard error too small: it is that of the means of
`GROUPS` stretches, which are nearly independent.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

GROUPS = 8
SAMPLES_MIN = 4 * GROUPS
"""In the whole series; shorter ones have no verdict."""
SPAN_MIN_S = 240.0
"""Of the whole series: what happens once a minute must be in the second half twice."""
SURE = 3.0
HOUR_S = 3600.0


class Bound(NamedTuple):
    """What is too much."""

    per_hour: float
    growth_min: float
    """Less growth than this in the second half is no trend, however steep."""


class Trend(NamedTuple):
    """What a series does in its second half."""

    first: float
    """The mean of the first stretch of the second half."""
    last: float
    per_hour: float
    error_per_hour: float
    leaks: bool


def trend(times_s: Sequence[float], values: Sequence[float], bound: Bound) -> Trend | None:
    """Fits the second half; None when the series is too short to say anything.

    Args:
      times_s: seconds, rising.
      values: as many.
      bound: beyond it the series leaks.
    """
    if len(times_s) < SAMPLES_MIN or times_s[-1] - times_s[0] < SPAN_MIN_S:
        return None
    middle = (times_s[0] + times_s[-1]) / 2
    half = [(time, value) for time, value in zip(times_s, values, strict=True) if time >= middle]
    if len(half) < 2 * GROUPS:
        return None
    stretches = np.array_split(np.array(half, np.float64), GROUPS)
    means = np.array([stretch.mean(axis=0) for stretch in stretches])
    hours, levels = means[:, 0] / HOUR_S, means[:, 1]
    slope, start = np.polyfit(hours, levels, 1)
    residuals = levels - (slope * hours + start)
    spread = ((hours - hours.mean()) ** 2).sum()
    error = float(np.sqrt((residuals**2).sum() / (GROUPS - 2) / spread))
    growth = float(levels[-1] - levels[0])
    leaks = slope - SURE * error > bound.per_hour and growth > bound.growth_min
    return Trend(float(levels[0]), float(levels[-1]), float(slope), error, bool(leaks))
