"""The checkpoint scenario: as many checkpoints as said, of a store and of a cluster."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import checkpoint
from bench.redis_benchmark import PROGRAM
from bench.results import Point
from kvstore.machine import KvStateMachine


@pytest.mark.parametrize(("interval", "expected"), [(1, 20), (8, 3), (512, 1)])
def test_a_checkpoint_at_every_interval_and_at_the_end(
    interval: int, expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    sync = KvStateMachine.sync

    def count(machine: KvStateMachine) -> int:
        synced.append(sync(machine))
        return synced[-1]

    monkeypatch.setattr(KvStateMachine, "sync", count)
    assert checkpoint.alone(tmp_path / "store", interval, 20) > 0
    assert len(synced) == expected
    assert synced[-1] == 20


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed")
def test_a_run_yields_a_point_of_each_interval(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpoint, "INTERVALS", (1, 64))
    monkeypatch.setattr(checkpoint, "WINDOWS", (512,))
    taken = list(checkpoint.run(tmp_path, 1, 0.001))
    points = [one for one in taken if isinstance(one, Point)]
    assert [(point.figure, point.x) for point in points] == [
        (checkpoint.ALONE, 1), (checkpoint.ALONE, 64), (checkpoint.CLUSTER, 64),
    ]  # fmt: skip
    assert all(point.y > 0 for point in points)
