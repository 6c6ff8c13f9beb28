"""The scenario of single steps: every role does what it is timed for."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import micro
from bench.results import Point, Sample


@pytest.mark.parametrize("scalar_below", [micro.ALWAYS, micro.NEVER])
@pytest.mark.parametrize("role", [*micro.ROLES, "proposer"])
def test_a_step_is_done_again_and_again(role: str, scalar_below: int) -> None:
    step = micro.step_of(role, 512, scalar_below)  # it asserts what the role did
    assert all(step() > 0 for _ in range(2 * micro.WINDOW // 512))


def test_a_run_yields_every_curve_and_crossing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro, "SIZES", (1, 16))
    taken = list(micro.run(tmp_path, 1, 0.001))
    points = [one for one in taken if isinstance(one, Point)]
    assert {point.series for point in points} == {
        "acceptor, scalar", "acceptor, numpy", "coordinator, scalar", "coordinator, numpy",
        "learner, scalar", "learner, numpy", "proposer",
    }  # fmt: skip
    assert sorted({point.x for point in points}) == [1, 16]
    crossings = {s.metric.name: s.value for s in taken if isinstance(s, Sample)}
    assert crossings["acceptor: numpy is faster from"] in (1, 16, 32)


@pytest.mark.parametrize(
    ("scalar", "numpy", "expected"),
    [
        ([1, 2, 9, 9], [5, 5, 5, 5], 4),
        ([9, 9, 9, 9], [5, 5, 5, 5], 1),
        ([1, 9, 1, 9], [5, 5, 5, 5], 8),  # one lucky size is no crossing
        ([1, 1, 1, 1], [5, 5, 5, 5], 16),
    ],
)
def test_where_the_paths_cross(
    scalar: list[float], numpy: list[float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(micro, "SIZES", (1, 2, 4, 8))
    assert micro.crossing_of(scalar, numpy) == expected
