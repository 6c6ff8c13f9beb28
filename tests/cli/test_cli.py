"""Both command lines: exit codes, and errors as one message that names the thing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import kvstore.cli
import p4xos.cli
from p4xos import arguments
from p4xos.config import Cluster
from p4xos.errors import NoQuorum

MAINS = {"p4xos": p4xos.cli.main, "kvstore": kvstore.cli.main}


@pytest.mark.parametrize("program", MAINS)
def test_help_lists_the_verbs(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert MAINS[program](["--help"]) == 0
    assert "cluster" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "flags", "message"),
    [
        ("p4xos", [], "required: VERB"),
        ("kvstore", ["clutser"], "invalid choice: 'clutser'"),
        ("kvstore", ["cluster", "--node", "3"], "did you mean --nodes?"),
        ("kvstore", ["cluster", "--nodes", "many"], "invalid int value: 'many'"),
        ("kvstore", ["cluster", "--storage", "tape"], "invalid choice: 'tape'"),
        ("p4xos", ["node", "--name", "n1"], "required: --cluster"),
        ("p4xos", ["role", "proposer", "0", "--cluster", "f"], "invalid choice: 'proposer'"),
    ],
)
def test_wrong_flags_are_one_line(
    program: str, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MAINS[program](flags) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_bad_cluster_file_is_misuse(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "cluster.toml"
    file.write_text("[cluster]\nidd = 1\n")
    assert p4xos.cli.main(["cluster", "--directory", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f'{file}: [cluster], "idd": this key is unknown; did you mean "id"?' in error


@pytest.mark.parametrize("nodes", ["0", "2", "17", "-3"])
def test_bad_number_of_nodes_creates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], nodes: str
) -> None:
    flags = ["cluster", "--directory", str(tmp_path), "--nodes", nodes]
    assert kvstore.cli.main(flags) == 2
    assert f"nodes is {nodes}, allowed is an odd number" in capsys.readouterr().err
    assert not (tmp_path / "cluster.toml").exists()


def test_bad_base_port(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["cluster", "--directory", str(tmp_path), "--base-port", "70000"]
    assert kvstore.cli.main(flags) == 2
    assert "base port is 70000" in capsys.readouterr().err


def test_directory_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("")
    assert kvstore.cli.main(["cluster", "--directory", str(file)]) == 1
    error = capsys.readouterr().err
    assert str(file) in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (FileNotFoundError(2, "No such file or directory", "x.toml"), 1, "x.toml: No such file"),
        (OSError(28, "No space left on device", "x"), 1, "the disk is full: free some space"),
        (NoQuorum(7, 2.0), 1, "no majority answered for instance 7"),
        (ValueError("7 is odd; take 8"), 2, "7 is odd; take 8"),
        (KeyboardInterrupt(), 1, ""),
    ],
)
def test_errors_are_one_message(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(_: object) -> None:
        raise error

    parser = arguments.Parser(prog="program")
    parser.set_defaults(call=fail)
    assert arguments.run(parser, []) == code
    captured = capsys.readouterr().err
    assert message in captured
    assert captured.count("\n") == bool(message)


def test_data_for_people_and_scripts(capsys: pytest.CaptureFixture[str]) -> None:
    arguments.print_data({"low": 3, "state": "serving"}, as_json=False)
    arguments.print_data({"low": 3, "state": "serving"}, as_json=True)
    assert capsys.readouterr().out == 'low: 3\nstate: serving\n{"low": 3, "state": "serving"}\n'


@pytest.mark.parametrize("program", MAINS)
def test_runs_as_a_module(program: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", program, "--help"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_node_names_the_known(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r'no node "n4"; known are n1, n2'):
        Cluster.template(base_port=7101).node("n4")
