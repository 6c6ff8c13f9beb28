"""The measurement floor, with as few measurements as have a median."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from bench import floor
from bench.errors import BenchError


def test_all_four_are_measured(tmp_path: Path) -> None:
    samples = list(floor.run(tmp_path, runs=2, scale=0.001))
    assert [sample.metric for sample in samples] == [
        floor.CLOCK, floor.TCP, floor.UDP, floor.SYNC,
    ] * 2  # fmt: skip
    assert all(sample.value > 0 for sample in samples)


def test_the_clock_is_told_by_readings_between_which_it_went_on() -> None:
    steps = count()
    assert floor.clock_ns(1000, lambda: next(steps) // 10 * 40) == 40


def test_a_clock_that_stands_still_is_no_clock() -> None:
    with pytest.raises(BenchError, match="no median"):
        floor.clock_ns(1000, lambda: 5)
