"""The command line of the chaos runs: what it refuses, and that nothing of a run is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.chaos import cli
from bench.chaos.episode import Plan, Round
from bench.chaos.faults import FAULTS
from bench.processes import environment, python_module, wait_until

LIMIT_S = 120.0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--faults", "kill,earthquake"], "no fault 'earthquake'; known are kill, kill-all,"),
        (["--minutes", "0"], "--minutes is 0, allowed is more than 0"),
        (["--seed", "-1"], "--seed is -1, allowed are whole numbers from 0"),
        (["--nodes", "4"], "invalid choice: 4 (choose from 3, 5)"),
    ],
)
def test_misuse(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(words) == 2
    assert message in capsys.readouterr().err


def test_the_command_that_repeats_a_seed_is_one_that_is_understood() -> None:
    plan = Plan(7, [FAULTS["kill"], FAULTS["loss"]], nodes=5, separate=True)
    told = cli.repeat_command(plan)
    assert told.startswith("make chaos ARGS='")
    flags = cli._parser().parse_args(told.partition("'")[2].rstrip("'").split())
    assert (flags.seed, flags.nodes, flags.separate_roles) == (7, 5, True)
    assert flags.faults == plan.kinds


def test_a_summary_names_what_broke() -> None:
    good = Round(1, 0, 3, False, 256, True, verdict="linearizable", operations=1000, kills=2)
    good.outcomes = {"answered": 990, "refused": 0, "unknown": 10}
    good.faults, good.bites = {"kill": 2, "loss": 1}, {"kill": 2, "loss": 77}
    bad = Round(2, 1, 3, False, 256, True, verdict="violation", operations=500, longest_gap_s=2.5)
    lines = cli.summary([good, bad])
    assert lines[0] == "2 rounds: BROKEN PROMISES in seed/round 2/1"
    assert "1,500" in lines[1]
    assert "loss 1 (77)" in lines[3]
    assert lines[4].endswith("2.5 s")
    assert cli.summary([good])[0] == "1 rounds: all linearizable"


def processes_of(directory: Path) -> list[int]:
    """Processes that name a directory in their command or have their output there."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                command = (entry / "cmdline").read_bytes()
                output = os.readlink(entry / "fd" / "1")
            except OSError:  # it has ended, or is a thread of the kernel
                continue
            if str(directory).encode() in command or output.startswith(f"{directory}/"):
                found.append(int(entry.name))
    return found


@contextmanager
def a_run(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose nodes have begun to start."""
    flags = ["--seed", "1", "--faults", "kill,disk-full", "--directory", str(directory)]
    command = python_module("bench.chaos", *flags)
    with subprocess.Popen(command, env=environment(), stdout=subprocess.DEVNULL) as run:
        try:
            wait_until(
                lambda: len(list(directory.glob("chaos-*/run/n3.txt"))) == 1, LIMIT_S, "starting"
            )
            yield run
        finally:
            run.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_nothing_is_left_of_a_run_that_was_told_to_end(
    tmp_path: Path, number: signal.Signals
) -> None:
    with a_run(tmp_path) as run:
        assert len(processes_of(tmp_path)) > 5
        run.send_signal(number)
        assert run.wait(LIMIT_S) == 1
    assert list(tmp_path.iterdir()) == []
    wait_until(lambda: processes_of(tmp_path) == [], LIMIT_S, "ending")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()


def test_nothing_is_left_of_a_run_that_was_killed_but_files_until_the_next(
    tmp_path: Path,
) -> None:
    with a_run(tmp_path) as run:
        run.kill()
        run.wait()
    wait_until(lambda: processes_of(tmp_path) == [], LIMIT_S, "ending")
    assert str(tmp_path) not in Path("/proc/mounts").read_text()
    (left,) = tmp_path.iterdir()
    cli.sweep(tmp_path)
    assert not left.exists()


def test_what_a_failure_kept_is_left_alone(tmp_path: Path) -> None:
    for name in ("chaos-kept", "chaos-left", "chaos-else"):
        (tmp_path / name).mkdir()
    (tmp_path / "chaos-kept" / "run.pid").touch()
    (tmp_path / "chaos-kept" / "kept").touch()
    (tmp_path / "chaos-left" / "run.pid").touch()
    cli.sweep(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"chaos-kept", "chaos-else"}
