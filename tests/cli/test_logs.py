"""Log lines: for people, and as JSON for what collects them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys

import pytest

from p4xos.logs import FORMAT_VARIABLE, JsonFormatter, format_of_environment


def line(message: str, *args: object, error: BaseException | None = None, **extra: object) -> str:
    """What is written about one call of a logger."""
    details = None if error is None else (type(error), error, error.__traceback__)
    record = logging.getLogger("p4xos.test").makeRecord(
        "p4xos.test", logging.WARNING, "file.py", 1, message, args, details, extra=extra
    )
    return JsonFormatter({"node": "n1"}).format(record)


def test_a_line_is_one_object() -> None:
    written = line("node %s has %d\nkeys", "n2", 5, instance=7)
    assert "\n" not in written
    told = json.loads(written)
    time = told.pop("time")
    assert told == {
        "level": "warning",
        "logger": "p4xos.test",
        "message": "node n2 has 5\nkeys",
        "fields": {"node": "n1", "instance": 7},
    }
    assert time.endswith("Z")
    assert len(time) == len("2026-01-01T00:00:00.000Z")


def test_an_exception_has_its_traceback() -> None:
    try:
        raise ValueError("no good")
    except ValueError as error:
        told = json.loads(line("failed", error=error))
    assert told["exception"].splitlines()[-1] == "ValueError: no good"


def test_what_is_no_json_is_written_as_text() -> None:
    assert json.loads(line("x", raw=b"\xff"))["fields"]["raw"] == "b'\\xff'"


def test_the_environment_chooses(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, wanted in (("json", "json"), ("text", "text"), ("xml", "text"), ("", "text")):
        monkeypatch.setenv(FORMAT_VARIABLE, value)
        assert format_of_environment() == wanted
    monkeypatch.delenv(FORMAT_VARIABLE)
    assert format_of_environment() == "text"


@pytest.mark.parametrize("program", ["p4xos", "kvstore"])
def test_another_format_is_refused(program: str) -> None:
    command = [sys.executable, "-m", program, "node", "--cluster", "x", "--name", "n1"]
    done = subprocess.run(
        [*command, "--log-format", "xml"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "--log-format" in done.stderr
