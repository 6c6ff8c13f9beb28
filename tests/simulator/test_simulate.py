"""The command line of the simulator with several processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from p4xos.testing.simulate import main
from p4xos.testing.simulator.world import Simulation

ROOT = Path(__file__).resolve().parents[2]


def lines_of(capsys: pytest.CaptureFixture[str], *flags: str) -> list[str]:
    assert main(["--first", "100", "--seeds", "4", *flags]) == 0
    return sorted(line for line in capsys.readouterr().out.splitlines() if line.startswith("seed"))


def test_several_processes_find_what_one_finds(capsys: pytest.CaptureFixture[str]) -> None:
    assert lines_of(capsys, "--jobs", "2") == lines_of(capsys)


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_failure_is_told_with_the_command_that_repeats_it(
    jobs: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(simulation: Simulation) -> None:
        raise AssertionError("two values were chosen")

    monkeypatch.setattr(Simulation, "run", run)
    flags = ["--first", "7", "--seeds", "2", "--jobs", jobs, "--keep-going"]
    assert main(flags) == 1
    said = capsys.readouterr().out
    assert "seed 8: FAILED: AssertionError: two values were chosen\n" in said
    assert "again: python -m p4xos.testing.simulate --seed 8 --trace" in said
    assert " 0 messages" in said


def test_ctrl_c_ends_all_jobs() -> None:
    command = [sys.executable, "-m", "p4xos.testing.simulate", "--seeds", "100000", "--jobs", "2"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            assert process.stdout.readline().startswith("seed ")
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of them
            # It ends when the last process has closed its output: none is left behind.
            said = process.stdout.read()
            assert process.wait(60) == 1
        finally:
            process.kill()
    assert "Traceback" not in said
    assert said.rstrip().endswith(", interrupted")


@pytest.mark.parametrize("flags", [["--jobs", "0"], ["--trace"]])
def test_misuse(flags: list[str]) -> None:
    with pytest.raises(SystemExit) as raised:
        main(flags)
    assert raised.value.code == 2
