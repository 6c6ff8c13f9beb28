"""The catch-up scenario: a new learner really begins with nothing and gets everything."""

from __future__ import annotations

from pathlib import Path

from bench import catchup
from bench.results import Point, Sample
from p4xos.roles.acceptor import ANSWER_ROWS_MAX


def test_a_new_learner_gets_the_whole_log(tmp_path: Path) -> None:
    taken = list(catchup.run(tmp_path, 1, 0.001))
    samples = {one.metric: one.value for one in taken if isinstance(one, Sample)}
    assert samples[catchup.RATE] > 0
    asked = samples[catchup.ASKED]
    assert asked <= ANSWER_ROWS_MAX, "a LEARN is answered by no more: nothing came without asking"
    so_far = [one.y for one in taken if isinstance(one, Point)]
    assert so_far == sorted(so_far)
    assert so_far[0] == 0
