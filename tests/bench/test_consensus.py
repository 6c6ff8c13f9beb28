"""The consensus scenario as a whole, with few values."""

from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest

from bench import consensus
from bench.closed_loop import Times
from bench.consensus import CASES, measure, sweep
from bench.results import Point, Sample


def test_a_few_thousand_values_go_through_five_processes(tmp_path: Path) -> None:
    before = os.sched_getscheduler(0), gc.get_threshold()
    figures = measure(tmp_path / "run", "memory", values=4096, in_flight=2048)
    assert (os.sched_getscheduler(0), gc.get_threshold()) == before, "it is other scenarios' too"
    assert figures.values_per_s > 0
    assert set(figures.cpu_us) == {"acceptor", "coordinator", "learner and proposer"}
    assert (figures.latency_us > 0).all()


def test_a_sweep_yields_a_point_of_each_load(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consensus, "SWEEP", (1, 64))
    taken = list(sweep(tmp_path / "run", CASES[0], scale=0.001))
    points = [one for one in taken if isinstance(one, Point)]
    assert [point.x for point in points if point.figure == consensus.RATE] == [1, 64]
    latencies = [point for point in points if point.figure == consensus.LATENCY]
    assert [point.series for point in latencies] == ["memory, p50", "memory, p99"] * 2
    assert all(point.y > 0 for point in points)
    alone = [one.metric for one in taken if isinstance(one, Sample)]
    assert [(metric.name, metric.at_most) for metric in alone] == [
        ("memory: one value outstanding, p50", 130),
        ("memory: one value outstanding, p99", None),
    ]


def test_latency_is_of_each_value_whatever_the_batches() -> None:
    times = Times()
    times.submitted += [(7, 2, 1.0), (9, 3, 2.0)]
    times.delivered += [(9, 2, 2.5), (7, 2, 1.25), (11, 1, 4.0)]
    assert times.latency_us().tolist() == [250_000, 250_000, 500_000, 500_000, 2_000_000]
