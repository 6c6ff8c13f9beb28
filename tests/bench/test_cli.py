"""The command line of the bench."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import cli, environment
from bench.errors import BenchError
from bench.results import Metric, Sample, load
from bench.scenarios import SCENARIOS

METRIC = Metric("idle", "cost", "%", at_most=5.0)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results go that no flag sends to another place."""
    directory = tmp_path_factory.mktemp("working")
    monkeypatch.chdir(directory)
    return directory


@pytest.fixture(autouse=True)
def no_look_at_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment.look, "__defaults__", (0.0,))


def stand_in(monkeypatch: pytest.MonkeyPatch, **runs: object) -> None:
    """Scenarios that measure nothing, instead of the real ones."""
    monkeypatch.setattr(
        cli, "import_module", lambda name: SimpleNamespace(run=runs[name.rpartition(".")[2]])
    )


def three_runs(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    (scratch / "data").write_text("x")
    for number in range(runs):
        yield Sample(METRIC, number * scale)


def failing(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    yield Sample(METRIC, 1)
    raise BenchError("the node ended; look at its log")


def test_the_scenarios_of_the_table() -> None:
    assert cli.choose([]) == cli.choose(["all"]) == list(SCENARIOS)
    assert [found.name for found in cli.choose(["kv", "consensus"])] == ["consensus", "kv"]


def test_samples_become_a_table_and_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, idle=three_runs)
    lines = tmp_path / "lines.json"
    flags = ["--runs", "3", "--scale", "2", "--json", str(lines), "--directory", str(tmp_path)]
    assert cli.main(["idle", *flags]) == 0
    captured = capsys.readouterr()
    assert "\nidle      cost      %          2    0    4  at most 5  met\n" in captured.out
    assert "idle: cost: 4 %" in captured.err
    assert '"runs": [0.0, 2.0, 4.0]' in lines.read_text()
    assert list(tmp_path.iterdir()) == [lines], "the data of the run are removed"


def test_results_go_to_a_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    stand_in(monkeypatch, idle=three_runs, kv=failing)
    assert cli.main(["idle", "kv", "--directory", str(tmp_path)]) == 1
    (directory,) = (elsewhere / "bench-results").iterdir()
    assert f"bench-results/{directory.name}/report.html" in capsys.readouterr().out
    assert sorted(path.name for path in directory.iterdir()) == ["report.html", "results.jsonl"]
    stored = load(directory)
    assert [summary.runs for summary in stored.summaries] == [[1, 0, 1, 2]], "kv, then idle"
    assert stored.environment["cores"]


def test_results_are_not_mixed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch, idle=three_runs)
    flags = ["idle", "--directory", str(tmp_path), "--results", str(tmp_path / "results")]
    assert cli.main(flags) == 0
    written = (tmp_path / "results" / "results.jsonl").read_bytes()
    assert cli.main(flags) == 2
    assert (tmp_path / "results" / "results.jsonl").read_bytes() == written


def test_a_scenario_that_fails_keeps_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    stand_in(monkeypatch, idle=three_runs, kv=failing)
    assert cli.main(["idle", "kv", "--runs", "2", "--directory", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert "at most 5" in captured.out
    assert captured.err.endswith("bench: kv: the node ended; look at its log\n")
    assert not list(tmp_path.iterdir())


def test_what_is_missing_is_told_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert cli.main(["idle", "kv", "--directory", str(tmp_path)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "bench: redis-benchmark is missing; install it: sudo apt-get install redis-tools\n"
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_removes_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    def interrupted(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
        (scratch / "data").write_text("x")
        yield Sample(METRIC, 1)
        signal.raise_signal(number)

    stand_in(monkeypatch, idle=interrupted)
    assert cli.main(["idle", "--directory", str(tmp_path)]) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["speed"], 'no scenario "speed"'),
        (["idle", "--runs", "0"], "--runs is 0"),
        (["idle", "--scale", "0"], "--scale is 0"),
    ],
)
def test_misuse(flags: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(flags) == 2
    assert words in capsys.readouterr().err


def test_a_directory_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["idle", "--directory", str(tmp_path / "nowhere")]) == 1
    assert "nowhere" in capsys.readouterr().err
