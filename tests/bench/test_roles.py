"""The scenario of single roles: each does what it is fed with, and none of a group is left out."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.results import Point
from bench.roles import CASES, CPU, Case, alone, together


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_role_alone_answers_what_it_is_fed_with(case: Case, tmp_path: Path) -> None:
    rate = alone(tmp_path / "run", case, 30_000)
    assert rate.messages_per_s > 0
    assert rate.cpu_us >= 0


def test_a_group_with_two_learners_besides_the_proposers(tmp_path: Path) -> None:
    points = list(together(tmp_path / "run", 2, 0.1))
    assert {point.x for point in points} == {2}
    shares: dict[str, Point] = {p.series: p for p in points if p.figure == CPU}
    assert set(shares) == {"proposer", "coordinator", "acceptor", "learner"}
    assert all(point.y >= 0 for point in shares.values())
