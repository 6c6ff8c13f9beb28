"""`p4xos switch verify`: what it prints, writes and returns."""

from __future__ import annotations

import json
import shutil
from functools import partialmethod
from pathlib import Path

import pytest

import switch.p4
from p4xos import arguments, cli
from p4xos.testing import vectors
from switch.cli import add_verbs
from switch.verify.deciding import Claimed
from tests.vectors.targets import RoleTarget

PROGRAMS = Path(switch.p4.__file__).parent
SIZES = ("--define", "VALUE_BYTES=8", "--define", "SLOT_BITS=4")


def verify(file: Path, *words: str) -> int:
    parser = cli.build_parser([add_verbs])
    return arguments.run(parser, ["switch", "verify", str(file), *SIZES, *words])


def wrong_coordinator(directory: Path) -> Path:
    """It proposes one instance too many."""
    shutil.copytree(PROGRAMS, directory / "p4")
    file = directory / "p4" / "coordinator.p4"
    text = file.read_text(encoding="utf-8")
    right = "next_now - low_now >= WINDOW"
    assert right in text
    file.write_text(text.replace(right, "next_now - low_now > WINDOW"), encoding="utf-8")
    return file


def test_what_holds_is_told_with_what_is_assumed(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(PROGRAMS / "coordinator.p4", "--property", "inactive") == arguments.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split(":")[0].split() == ["holds", "inactive"]
    assert lines[1].startswith("assumed    All other properties of the program")
    assert "1 hold, 0 broken, 0 undecided" in lines[-1]


def test_a_counter_example_is_shown_and_saved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = wrong_coordinator(tmp_path)
    assert verify(file, "--property", "window", "--save", str(tmp_path / "found")) == (
        arguments.FAILED
    )
    told = capsys.readouterr()
    assert "BROKEN     window:" in told.out
    assert "packet on port" in told.out
    assert "REQUEST instance=" in told.out
    assert "the interpreter does the same" in told.out
    (saved,) = (tmp_path / "found").iterdir()
    assert told.err.split() == [str(saved)]
    (vector,) = vectors.parse(saved)
    vectors.run(vector, RoleTarget(scalar_below=1 << 30))


def test_json_is_for_scripts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(wrong_coordinator(tmp_path), "--property", "window", "--json") == (
        arguments.FAILED
    )
    read = json.loads(capsys.readouterr().out)
    assert (read["program"], read["broken"], read["undecided"]) == ("coordinator", 1, 0)
    (finding,) = read["findings"]
    assert (finding["property"], finding["result"]) == ("window", "broken")
    assert finding["interpreter_agrees"]
    assert bytes.fromhex(finding["counterexample"]["packet"])


def test_what_the_solver_gives_up_on_is_no_proof(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Claimed, "decide", partialmethod(Claimed.decide, effort=1))
    assert verify(PROGRAMS / "coordinator.p4", "--property", "value") == arguments.FAILED
    told = capsys.readouterr().out
    assert "UNDECIDED  value:" in told
    assert "0 hold, 0 broken, 1 undecided" in told


def test_an_unknown_property_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(PROGRAMS / "coordinator.p4", "--property", "windw") == arguments.MISUSED
    assert "did you mean window?" in capsys.readouterr().err
