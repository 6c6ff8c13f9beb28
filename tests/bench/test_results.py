"""Statistics, the table and the JSON lines, on fixed figures."""

from __future__ import annotations

import json

import pytest

from bench.results import (
    Curve,
    Figure,
    Metric,
    Point,
    Sample,
    Summary,
    curves,
    in_figures,
    summarize,
    table,
)

RATE = Metric("kv", "SET", "requests/s", at_least=15_000)
GAP = Metric("failover", "gap", "s", at_most=1.0)
PLAIN = Metric("kv", "GET", "requests/s")


def test_samples_are_grouped_in_the_order_of_their_metrics() -> None:
    samples = [Sample(RATE, 2), Sample(PLAIN, 9), Sample(RATE, 1), Sample(RATE, 3)]
    assert summarize(samples) == [Summary(RATE, [2, 1, 3]), Summary(PLAIN, [9])]


@pytest.mark.parametrize(
    ("runs", "median"), [([5.0], 5.0), ([9.0, 1.0, 4.0], 4.0), ([1.0, 9.0, 4.0, 2.0], 3.0)]
)
def test_median(runs: list[float], median: float) -> None:
    assert Summary(PLAIN, runs).median == median


@pytest.mark.parametrize(
    ("metric", "runs", "verdict"),
    [
        (RATE, [15_000.0], "met"),
        (RATE, [20_000.0, 14_999.0, 1.0], "MISSED"),
        (GAP, [1.0], "met"),
        (GAP, [0.2, 1.1, 3.0], "MISSED"),
        (PLAIN, [0.0], ""),
    ],
)
def test_verdict_is_of_the_median(metric: Metric, runs: list[float], verdict: str) -> None:
    assert Summary(metric, runs).verdict == verdict


def test_table() -> None:
    text = table([Summary(RATE, [14_000.4, 16_000.0, 20_500.0]), Summary(GAP, [0.25, 0.5])])
    assert text.splitlines() == [
        "scenario  measured  unit        median     min     max  asked",
        "kv        SET       requests/s  16,000  14,000  20,500  at least 15,000  met",
        "failover  gap       s            0.375    0.25     0.5  at most 1        met",
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1_234_567.8, "1,234,568"),
        (100.4, "100"),
        (45.67, "45.7"),
        (1.0, "1"),
        (0.12345, "0.123"),
        (0, "0"),
    ],
)
def test_figures_have_no_more_digits_than_they_deserve(value: float, text: str) -> None:
    assert in_figures(value) == text


def test_a_json_line_carries_everything() -> None:
    line = Summary(RATE, [1.0, 3.0]).as_json({"cores": 2})
    assert "\n" not in line
    assert json.loads(line) == {
        "scenario": "kv",
        "name": "SET",
        "unit": "requests/s",
        "at_least": 15_000,
        "at_most": None,
        "median": 2.0,
        "min": 1.0,
        "max": 3.0,
        "runs": [1.0, 3.0],
        "environment": {"cores": 2},
    }


def test_points_are_grouped_by_series_and_x() -> None:
    figure = Figure("kv", "latency", "requests/s", "ms")
    points = [Point(figure, s, x, y) for s, x, y in [("a", 1, 5), ("b", 1, 7), ("a", 2, 6)]]
    assert curves([*points, Point(figure, "a", 1, 4)]) == [
        Curve(figure, "a", [(1, [5, 4]), (2, [6])]),
        Curve(figure, "b", [(1, [7])]),
    ]
