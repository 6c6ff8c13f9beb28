"""The failover scenario: kills of both kinds, and the curve around each."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import failover
from bench.results import Point, Sample


def test_both_kinds_of_node_are_killed_and_nothing_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(failover, "AFTER_S", 1.0)
    taken = list(failover.run(tmp_path, 1, 0.2))
    samples = {one.metric.name: one for one in taken if isinstance(one, Sample)}
    for name in ("acknowledged writes lost", "another node killed: acknowledged writes lost"):
        assert samples[name].value == 0
        assert samples[name].metric.at_most == 0
    points = [one for one in taken if isinstance(one, Point)]
    for series in ("the coordinator's node", "another node"):
        since = [point.x for point in points if point.series == series]
        assert since == sorted(since)
        assert 0 in since
        assert min(since) < 0


def test_buckets_count_each_acknowledgement_once() -> None:
    times = [9.87, 9.89, 10.0, 10.05, 10.1501, 10.31, 99]
    found = failover.buckets(times, killed=10.0, started=9.78, ended=10.39)
    assert [since for since, _ in found] == [-0.2, -0.1, 0, 0.1, 0.2]
    assert [rate for _, rate in found] == pytest.approx([20, 0, 20, 10, 0])
