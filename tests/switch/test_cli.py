"""The verbs of `p4xos switch`, and how p4xos finds verbs of other packages."""

from __future__ import annotations

import tomllib
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from p4xos import arguments, cli
from switch.cli import add_verbs

ROOT = Path(__file__).parents[2]
COORDINATOR = str(ROOT / "switch" / "p4" / "coordinator.p4")


def run(*words: str) -> int:
    return arguments.run(cli.build_parser([add_verbs]), words)


def test_the_verbs_are_found_by_their_entry_point(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = project["entry-points"][cli.COMMANDS]
    entries = EntryPoints(
        EntryPoint(name=name, value=value, group=cli.COMMANDS) for name, value in declared.items()
    )
    monkeypatch.setattr(cli, "entry_points", lambda group: entries.select(group=group))
    assert cli.main(["--help"]) == 0
    assert "switch" in capsys.readouterr().out


def test_without_other_packages_there_are_only_the_log_s_verbs(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert arguments.run(cli.build_parser(), ["switch", "check", "x.p4"]) == 2
    assert "invalid choice: 'switch'" in capsys.readouterr().err


def test_check_tells_what_a_program_has(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("switch", "check", COORDINATOR) == 0
    assert "program: coordinator" in capsys.readouterr().out


def test_check_prints_a_program_that_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("switch", "check", COORDINATOR, "--print", "--define", "VALUE_BYTES=8") == 0
    printed = capsys.readouterr().out
    file = tmp_path / "printed.p4"
    file.write_text(printed)
    assert run("switch", "check", str(file), "--print") == 0
    assert capsys.readouterr().out == printed


def test_an_error_is_one_line_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "wrong.p4"
    file.write_text("#include <v1model.p4>\nconst bit<8> A = 256;\n")
    assert run("switch", "check", str(file)) == 2
    expected = f"p4xos: {file}:2:18: 256 does not fit bit<8>: expected 0 to 255\n"
    assert capsys.readouterr().err == expected


def test_a_missing_file_and_a_wrong_macro_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("switch", "check", str(tmp_path / "none.p4")) == 1
    assert "none.p4: No such file or directory; check the name" in capsys.readouterr().err
    assert run("switch", "check", COORDINATOR, "--define", "8=9") == 2
    assert "'8=9' is no macro: expected NAME or NAME=VALUE" in capsys.readouterr().err
