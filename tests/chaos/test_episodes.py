"""The short form of `make chaos`: a seed a family of faults, and stores that it must refuse."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.chaos.episode import Episode, Plan, Progress, longest_gap_s
from bench.chaos.faults import FAULTS
from bench.processes import ROOT
from kvstore.checking import Attempt

SABOTAGE = Path(__file__).with_name("sabotage")
FAMILIES = {
    "network": (
        "loss", "partition", "one-way", "coordinator-acceptors", "coordinator-learners", "delay",
        "duplicate", "reorder",
    ),
    "machines": ("kill", "kill-all", "pause", "disk-full", "fsync-error", "empty-disk", "clock"),
}  # fmt: skip
CALM_ANSWERS = 6_000
"""Before each bout."""


@pytest.mark.parametrize(
    ("family", "seed", "separate"),
    [("network", 1, False), ("machines", 2, False), ("machines", 3, True)],
)
def test_what_clients_see_is_linearizable(
    tmp_path: Path, family: str, seed: int, separate: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    kinds = [FAULTS[kind] for kind in FAMILIES[family]]
    told: list[str] = []
    plan = Plan(seed, kinds, separate=separate, rounds=1, bouts=2, calm_answers=CALM_ANSWERS)
    episode = Episode(plan, tmp_path / "run", told.append)
    assert episode.play(), "\n".join(told)
    (record,) = episode.rounds
    assert record.outcomes["answered"] > 2 * CALM_ANSWERS
    assert record.faults.keys() == set(FAMILIES[family])
    with capsys.disabled():
        print(f"\n{told[-1]}; {record.faults}")


def test_every_kind_of_fault_is_of_a_family() -> None:
    kinds = {kind for family in FAMILIES.values() for kind in family}
    assert kinds == FAULTS.keys()


@pytest.mark.parametrize(
    ("sabotage", "kind"), [("reads-are-stale", "partition"), ("retries-are-applied", "loss")]
)
def test_a_store_that_breaks_a_promise_is_found_out(
    tmp_path: Path, sabotage: str, kind: str
) -> None:
    environment = {"CHAOS_SABOTAGE": sabotage, "PYTHONPATH": f"{SABOTAGE}:{ROOT}"}
    told: list[str] = []
    plan = Plan(1, [FAULTS[kind]], rounds=3, bouts=1, at_once=1, environment=environment)
    episode = Episode(plan, tmp_path / "run", told.append)
    assert not episode.play(), "\n".join(told)
    record = episode.rounds[-1]
    assert record.verdict == "violation"
    assert "no order explains these" in record.problem
    assert list((tmp_path / "run").glob("verdict-*.txt")), "what is kept for whoever looks into it"


def test_the_longest_time_without_an_acknowledged_write() -> None:
    def attempt(called: int, ended: int, word: bytes, outcome: str = "answered") -> Attempt:
        return Attempt(0, "n1", called, ended, (word, b"k"), outcome, None)  # type: ignore[arg-type]  # a literal

    assert longest_gap_s([]) == 0.0
    second = 1_000_000_000
    attempts = [
        attempt(0, second, b"INCR"),
        attempt(0, 3 * second, b"GET"),
        attempt(0, 4 * second, b"SET", "unknown"),
        attempt(0, 6 * second, b"SET"),
        attempt(0, 7 * second, b"MULTI"),
    ]
    assert longest_gap_s(attempts) == 5.0


def test_progress_counts_whole_lines_of_answers(tmp_path: Path) -> None:
    file = tmp_path / "history"
    progress = Progress(file)
    assert progress.answered() == 0
    file.write_text('{"outcome": "answered"}\n{"outcome": "unknown"}\n{"outcome": "ans')
    assert progress.answered() == progress.answered() == 1
    with file.open("a") as more:
        more.write('wered"}\n')
    assert progress.answered() == 2
