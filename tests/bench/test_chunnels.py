"""The scenario of Chunnels: each cost and each figure is really taken, on a small scale."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bench.chunnels import costs, figures
from bench.results import Point, Sample
from tests.switch.kernel import in_the_kernel


def test_costs_are_taken(tmp_path: Path) -> None:
    taken = [*costs.layers(0.01), *costs.connecting(0.001), *costs.round_trips(tmp_path),
             *costs.ordered(tmp_path / "o", 0.001)]  # fmt: skip
    assert all(one.value >= 0 for one in taken)
    asked = {one.metric.name: one.metric for one in taken}
    for kind in ("that hands on", "of two functions"):
        assert asked[f"a no-op layer {kind}, one by one"].at_most == 0.3
    assert asked["ordered_mcast beside the client"].at_least == 0.95
    assert len(taken) == 14


def series(taken: list[Sample | Point]) -> dict[str, list[Point]]:
    found: dict[str, list[Point]] = {}
    for one in taken:
        assert isinstance(one, Point)
        assert one.y > 0
        found.setdefault(one.series, []).append(one)
    return found


def test_figure_3_has_three_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "SIZES", (64, 8192))
    found = series(list(figures.fast_path(tmp_path, 0.001)))
    ways = ("local_or_remote", "Unix socket by hand", "UDP by hand")
    assert set(found) == {*ways, *(f"{way}, p{share}" for way in ways for share in (5, 50, 95))}
    assert all([point.x for point in points] == [64, 8192] for points in found.values())


def test_figure_4_changes_over_to_the_nearer_server(tmp_path: Path) -> None:
    found = series(list(figures.nearer_server(tmp_path, 0.05)))
    assert max(point.x for point in found["the remote server"]) <= max(
        point.x for point in found["the local server"]
    )


@in_the_kernel
def test_figure_5_has_four_scenarios(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "IN_FLIGHT", (1, 16))
    found = series(list(figures.sharding(tmp_path, 0.001)))
    assert {name: len(points) for name, points in found.items()} == {
        "client push": 2, "server fallback": 2, "server accelerated": 2, "mixed": 2,
    }  # fmt: skip


def test_figure_5_without_a_kernel_that_runs_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(figures, "IN_FLIGHT", (4,))
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = series(list(figures.sharding(tmp_path, 0.001)))
    assert list(found) == ["client push", "server fallback", "mixed"]
    assert "no server is accelerated: it needs root" in capsys.readouterr().err
