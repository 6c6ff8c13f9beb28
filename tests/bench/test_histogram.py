"""The histogram, against sorted values."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.histogram import BEYOND_LEAST, MOST_NS, Histogram, bucket, highest_in, merged

few = settings(max_examples=30)
VALUES = st.lists(st.integers(0, MOST_NS) | st.integers(0, 10_000), min_size=1, max_size=200)


def filled(values: list[int]) -> Histogram:
    histogram = Histogram()
    histogram.record(values)
    return histogram


@few
@given(VALUES)
def test_a_bucket_is_a_thousandth_wide_and_keeps_the_order(values: list[int]) -> None:
    indexes = bucket(np.array(sorted(values))).tolist()
    assert indexes == sorted(indexes)
    for value, index in zip(sorted(values), indexes, strict=True):
        assert value <= highest_in(index) <= value * (1 + 1 / 1024)


def test_buckets_have_no_gap() -> None:
    edges = [highest_in(index) for index in range(10_000)]
    assert bucket(np.array(edges)).tolist() == list(range(10_000))
    assert bucket(np.array(edges) + 1).tolist() == list(range(1, 10_001))


@few
@given(VALUES, st.floats(0.1, 99.9))
def test_percentiles_are_those_of_the_sorted_values(values: list[int], percent: float) -> None:
    rank = max(1, math.ceil(round(len(values) * percent / 100, 6)))
    found = filled(values).percentile(percent)
    if len(values) - rank < BEYOND_LEAST:
        assert found is None
    else:
        assert found is not None
        exact = sorted(values)[rank - 1]
        assert exact <= found <= exact * (1 + 1 / 1024)


def test_a_percentile_needs_ten_values_beyond_it() -> None:
    assert filled(list(range(19))).percentile(50) is None
    assert filled(list(range(20))).percentile(50) == 9
    assert filled(list(range(999))).percentile(99) is None
    assert filled(list(range(1000))).percentile(99) == 989
    assert Histogram().percentile(50) is None


@pytest.mark.parametrize("percent", [0, 100, -1])
def test_no_such_percentile(percent: float) -> None:
    with pytest.raises(ValueError, match="percentile"):
        Histogram().percentile(percent)


@few
@given(VALUES, VALUES)
def test_merging_is_recording_everything_in_one(one: list[int], other: list[int]) -> None:
    both = merged([filled(one), filled(other)])
    assert both == filled([*one, *other])
    assert both.total == len(one) + len(other)
    assert both.mean_ns == sum([*one, *other]) / both.total


@few
@given(VALUES)
def test_json_keeps_everything(values: list[int]) -> None:
    histogram = filled(values)
    again = Histogram.from_object(json.loads(json.dumps(histogram.as_object())))
    assert again == histogram
    assert again.total == len(values)
    assert (again.least_ns, again.most_ns) == (min(values), max(values))


def test_an_empty_one_is_kept_too() -> None:
    again = Histogram.from_object(json.loads(json.dumps(Histogram().as_object())))
    assert again == Histogram()
    assert again.mean_ns is None


def test_buckets_cut_otherwise_are_refused() -> None:
    with pytest.raises(ValueError, match="bits"):
        Histogram.from_object({**Histogram().as_object(), "half_bits": 7})


@pytest.mark.parametrize("value", [-1, MOST_NS + 1])
def test_a_value_out_of_range_is_refused_and_nothing_counted(value: int) -> None:
    histogram = Histogram()
    with pytest.raises(ValueError, match="allowed"):
        histogram.record([5, value])
    assert histogram == Histogram()
