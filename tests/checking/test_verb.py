"""`kvstore check` without a cluster: recorded histories, and what cannot be run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kvstore.checking.history import Attempt, to_line
from kvstore.cli import main
from p4xos.ports import free_addresses

SET = Attempt(0, "n1", 0, 10, (b"SET", b"k", b"new"), "answered", b"OK")
RIGHT = Attempt(1, "n2", 20, 30, (b"GET", b"k"), "answered", b"new")
STALE = RIGHT._replace(output=None)


def recorded(path: Path, *attempts: Attempt) -> str:
    path.write_text("".join(map(to_line, attempts)))
    return str(path)


def test_a_recorded_history_is_judged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = recorded(tmp_path / "good", SET, RIGHT)
    assert main(["check", "--replay", good]) == 0
    assert capsys.readouterr().out.startswith("verdict: linearizable\n")
    bad = recorded(tmp_path / "bad", SET, STALE)
    assert main(["check", "--replay", bad]) == 1
    told = capsys.readouterr().out.splitlines()
    assert told[0] == "verdict: VIOLATION: this is not linearizable"
    assert [line.split()[0] for line in told[-2:]] == ["(before)", "1@n2"]
    assert told[-2].endswith("SET k new -> OK")
    assert told[-1].endswith("GET k -> (nil)")


def test_histories_of_several_processes_are_judged_as_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer, reader = recorded(tmp_path / "w", SET), recorded(tmp_path / "r", STALE)
    assert main(["check", "--json", "--replay", writer]) == 0
    assert main(["check", "--json", "--replay", reader]) == 0
    assert main(["check", "--json", "--replay", writer, "--replay", reader]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["verdict"], told["attempts"]) == ("violation", 2)
    assert told["offending_keys"] == [["k"]]


def test_nothing_recorded_proves_nothing(tmp_path: Path) -> None:
    assert main(["check", "--replay", recorded(tmp_path / "empty")]) == 1


def test_no_node_answers(capsys: pytest.CaptureFixture[str]) -> None:
    (address,) = free_addresses(1)
    assert main(["check", "--address", str(address)]) == 1
    assert f"no node answers ({address}: connection refused)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ([], "required"),
        (["--address", "nonsense"], "HOST:PORT"),
        (["--address", "127.0.0.1:0"], "HOST:PORT"),
        (["--address", "127.0.0.1:1", "--cluster", "f"], "not allowed"),
        (["--address", "127.0.0.1:1", "--operations", "0"], "1 at least"),
        (["--address", "127.0.0.1:1", "--clients", "0"], "1 to 1000"),
        (["--address", "127.0.0.1:1", "--keys", "0"], "1 to 100000"),
        (["--address", "127.0.0.1:1", "--first-client", "-1"], "0 or more"),
        (["--address", "127.0.0.1:1", "--prefix", "a b"], "without spaces"),
        (["--address", "127.0.0.1:1", "--seconds", "none"], "seconds"),
        (["--replay", "BAD"], "line 1"),
        (["--replay", "BAD", "--clients", "3"], "no other flag"),
        (["--replay", "BAD", "--tls"], "no other flag"),
        (["--replay", "BAD", "--user", "ada"], "no other flag"),
        (["--replay", "BAD", "--tls-ca", "BAD"], "no other flag"),
    ],
)
def test_misuse(
    flags: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad"
    bad.write_text("no history\n")
    assert main(["check", *(str(bad) if flag == "BAD" else flag for flag in flags)]) == 2
    assert complaint in capsys.readouterr().err


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--replay", str(tmp_path / "none")]) == 1
    assert "none" in capsys.readouterr().err
