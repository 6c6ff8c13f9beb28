"""The scenario as a whole, with few operations and shorter curves; nothing about speed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from bench import ycsb
from bench.load import outcome
from bench.results import Point, Sample, curves


def test_workloads_and_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outcome, "STOOD_STILL_MS", math.inf)
    monkeypatch.setattr(ycsb, "DISTRIBUTIONS", ycsb.DISTRIBUTIONS[-3:])  # D, E, F; A comes below
    monkeypatch.setattr(ycsb, "VALUE_BYTES", (4096,))
    monkeypatch.setattr(ycsb, "CLIENT_COUNTS", (100,))
    monkeypatch.setattr(ycsb, "PIPELINES", (64,))
    monkeypatch.setattr(ycsb, "SHARES", (0.1,))
    taken = list(ycsb.run(tmp_path, runs=1, scale=0.01))
    samples = [one for one in taken if isinstance(one, Sample)]
    rates = {s.metric.name: s.value for s in samples if s.metric.unit == ycsb.RATE}
    assert rates.keys() == {f"{w}, {d}" for w, d in ycsb.DISTRIBUTIONS} | {ycsb.MOST.name}
    found = {s.metric: s.value for s in samples}
    assert found[ycsb.LAG] >= 0
    drawn = curves(one for one in taken if isinstance(one, Point))
    places = {(c.figure, c.series): [x for x, _ in c.points] for c in drawn}
    for series in ("SET", "GET"):
        assert places[ycsb.BY_VALUE, series] == [4096]
    assert places[ycsb.BY_CLIENTS, "rate"] == [100]
    assert places[ycsb.BY_PIPELINE, "rate"] == [64]
    answered = places.get((ycsb.ANSWERED, "answered"), [])
    assert len(answered) + found[ycsb.VOID] == 1
