"""The short form of `make chaos`: seeds of each family of faults, and stores that it must refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.chaos import cli
from bench.chaos.episode import Episode, Plan, longest_gap_s
from bench.chaos.faults import FAULTS
from bench.processes import ROOT
from kvstore.checking import Attempt

SABOTAGE = Path(__file__).with_name("sabotage")
FAMILIES = {
    "network": (
        "loss", "partition", "one-way", "coordinator-acceptors", "coordinator-learners", "delay",
        "duplicate", "reorder",
    ),
    "machines": ("kill", "kill-all", "pause", "disk-full", "fsync-error", "clock"),
}  # fmt: skip
ROUND_S = 12.0


def played(plan: Plan, directory: Path, capsys: pytest.CaptureFixture[str]) -> Episode:
    with capsys.disabled():
        episode = Episode(plan, directory, lambda text: None)
        episode.play()
    return episode


@pytest.mark.parametrize(
    ("family", "seed", "separate"),
    [("network", 1, False), ("machines", 2, False), ("network", 3, True)],
)
def test_what_clients_see_is_linearizable(
    tmp_path: Path, family: str, seed: int, separate: bool
) -> None:
    kinds = [FAULTS[kind] for kind in FAMILIES[family]]
    plan = Plan(seed, kinds, separate=separate, rounds=1, round_s=ROUND_S)
    told: list[str] = []
    episode = Episode(plan, tmp_path / "run", told.append)
    assert episode.play(), "\n".join(told)
    (record,) = episode.rounds
    assert record.outcomes["answered"] > 0
    assert sum(record.faults.values()) > 0
    print(json.dumps(record.data()))


def test_every_kind_of_fault_is_played() -> None:
    played_kinds = {kind for kinds in FAMILIES.values() for kind in kinds}
    assert played_kinds | {"empty-disk"} == FAULTS.keys()


@pytest.mark.parametrize(
    ("sabotage", "kinds"),
    [("reads-are-stale", ["pause"]), ("votes-are-not-kept", ["kill-all"])],
)
def test_a_store_that_breaks_a_promise_is_found_out(
    tmp_path: Path, sabotage: str, kinds: list[str]
) -> None:
    environment = {"CHAOS_SABOTAGE": sabotage, "PYTHONPATH": f"{SABOTAGE}:{ROOT}"}
    plan = Plan(1, [FAULTS[kind] for kind in kinds], rounds=3, round_s=5.0, environment=environment)
    told: list[str] = []
    episode = Episode(plan, tmp_path / "run", told.append)
    assert not episode.play(), "\n".join(told)
    print(told[-1])
    assert episode.rounds[-1].verdict == "violation"
    assert episode.rounds[-1].problem
