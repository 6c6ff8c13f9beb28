"""Redis' own test suite, run by `redis_suite.tcl` against a server that is there already."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bench.errors import BenchError
from bench.judges.outcomes import Outcome, Verdict
from bench.processes import Child, kill_all, wait_until
from p4xos.tables import Address

UNITS = (
    "unit/type/string",
    "unit/keyspace",
    "unit/expire",
    "unit/scan",
    "unit/type/incr",
    "unit/multi",
    "unit/bitops",
    "unit/protocol",
)
"""Those about strings, keys and the protocol."""

_SCRIPT = Path(__file__).with_name("redis_suite.tcl")
_RUNNER = Path("tests", "test_helper.tcl")
SILENCE_LIMIT_S = 300.0
"""The longest test sends 20,000 commands one by one; a busy machine takes minutes for them."""
STOPPED = f"it did not end within {SILENCE_LIMIT_S:g} s, or ended the runner"
_ESCAPES = {"\\": "\\", "n": "\n", "r": "\r", "t": "\t"}


class Report(NamedTuple):
    """What the script has told so far."""

    outcomes: list[Outcome]
    between: list[Outcome]  # errors between two tests; they are not counted
    under_way: str | None  # a test that has begun, and not ended
    finished: bool


def check(source: Path) -> None:
    """Whether a directory is a Redis source tree, and Tcl is there.

    Raises:
      BenchError: it is not; the message says what is wanted.
    """
    if not (source / _RUNNER).is_file():
        raise BenchError(
            f"{source} is no source tree of Redis ({_RUNNER} is missing); "
            "give the directory of release 7.0.15, unpacked"
        )
    if shutil.which("tclsh") is None:
        raise BenchError("tclsh is missing; install it: sudo apt-get install tcl")


def run(
    source: Path, address: Address, units: Sequence[str], flags: str, scratch: Path
) -> Iterator[Outcome]:
    """Runs unit by unit and yields what became of each test.

    A test that stops the run has failed; its unit is run again without it, so that it does not
    take the tests behind it along.

    Raises:
      BenchError: a unit could not be run.
    """
    for unit in units:
        stopped: dict[str, Outcome] = {}
        while True:
            skips = " ".join(f"--skiptest {_tcl_word(test)}" for test in stopped)
            report = _run_unit(source, address, unit, f"{flags} {skips}", scratch)
            if report.under_way is None:
                break
            stopped[report.under_way] = Outcome(unit, report.under_way, Verdict.FAILED, STOPPED)
        yield from (o for o in report.outcomes if o.test not in stopped)
        yield from stopped.values()


def _run_unit(source: Path, address: Address, unit: str, flags: str, scratch: Path) -> Report:
    """One run of one unit, to its end or to the test in which nothing happens any more."""
    log = scratch / f"{unit.replace('/', '-')}.txt"
    log.unlink(missing_ok=True)
    host, port = address
    child = Child(unit, ["tclsh", str(_SCRIPT), str(source), host, str(port), flags, unit], log)
    try:
        with suppress(BenchError):
            while child.running:
                size = log.stat().st_size
                _wait_for_more(child, size)
    finally:
        kill_all([child])
    report = parse(child.log_text())
    if not report.finished and report.under_way is None:
        raise BenchError(f"{unit} could not be run:\n{child.last_lines()}")
    return report


def _wait_for_more(child: Child, size: int) -> None:
    wait_until(
        lambda: not child.running or child.log.stat().st_size > size,
        SILENCE_LIMIT_S, "the end of a test",
    )  # fmt: skip


def parse(text: str) -> Report:
    """What lines of `outcome<TAB>unit<TAB>test<TAB>detail` say; other lines are passed over."""
    outcomes: list[Outcome] = []
    between: list[Outcome] = []
    under_way: str | None = None
    finished = False
    for line in text.splitlines():
        fields = [_unescaped(field) for field in line.split("\t")]
        if len(fields) != 4:
            continue
        kind, unit, test, detail = fields
        if kind == "begun":
            under_way = test
        elif kind == "finished":
            finished = True
        elif kind == "between":
            between.append(Outcome(unit, test, Verdict.FAILED, detail))
        elif kind in (Verdict.PASSED, Verdict.FAILED, Verdict.SKIPPED):
            outcomes.append(Outcome(unit, test, Verdict(kind), detail))
            under_way = None
    return Report(outcomes, between, under_way, finished)


def _unescaped(field: str) -> str:
    return re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[1]), field)


def _tcl_word(text: str) -> str:
    """One word of a Tcl list, whatever is in it."""
    return re.sub(r"(\W)", r"\\\1", text)
