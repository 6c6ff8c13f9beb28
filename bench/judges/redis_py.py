"""redis-py's own tests of strings, keys, pipelines and locks, run by pytest against a server."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree

from bench.errors import BenchError
from bench.judges.outcomes import Outcome, Verdict
from p4xos.tables import Address

WHOLE_FILES = ("tests/test_lock.py", "tests/test_pipeline.py")
COMMANDS_FILE = "tests/test_commands.py"
_COMMANDS_CLASS = "TestRedisCommands"
SECTIONS = ("BASIC KEY", "SCAN")
"""Of `COMMANDS_FILE`, by the comments that begin them: what is about strings and keys."""
OTHER_KINDS = {
    "lpush", "rpush", "llen", "lmove", "blmove", "lmovem", "blmovem",
    "sadd", "sscan", "sscan_iter", "zadd", "zrem", "zscan", "zscan_iter",
    "hset", "hscan", "hscan_iter", "hrandfield", "xadd",
}  # fmt: skip
"""Methods that the selected tests use for lists, sets, sorted sets, hashes and streams."""
RUN_LIMIT_S = 900.0
_CLUSTER = "onlycluster"
"""redis-py's mark of tests for Redis Cluster, which is another protocol."""


def check(source: Path) -> None:
    """Whether a directory is redis-py's source.

    Raises:
      BenchError: it is not.
    """
    if not (source / COMMANDS_FILE).is_file():
        raise BenchError(
            f"{source} is no source tree of redis-py ({COMMANDS_FILE} is missing); its archive "
            "is what `pip download --no-binary :all: --no-deps redis` brings"
        )


def run(source: Path, address: Address, scratch: Path) -> Iterator[Outcome]:
    """Runs the selected tests; those of other kinds of values are run and told as well.

    Raises:
      BenchError: pytest could not run them.
    """
    needing_others = {
        file: tests_of_other_kinds((source / file).read_text())
        for file in (*WHOLE_FILES, COMMANDS_FILE)
    }
    names = in_sections((source / COMMANDS_FILE).read_text(), SECTIONS)
    wanted = [f"{COMMANDS_FILE}::{_COMMANDS_CLASS}::{name}" for name in sorted(names)]
    for outcome in parse(_pytest(source, address, scratch, [*WHOLE_FILES, *wanted])):
        if outcome.test.split("[")[0] in needing_others[outcome.part]:
            yield outcome._replace(part=f"{outcome.part}, other kinds of values")
        else:
            yield outcome


def _pytest(source: Path, address: Address, scratch: Path, tests: Sequence[str]) -> str:
    """Runs tests, by pytest's names for them; its report as XML."""
    report = scratch / "redis-py.xml"
    command = [
        sys.executable, "-m", "pytest", "-q", "--tb=line",
        # redis-py's own settings ask for plug-ins that nothing here needs.
        "-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider", "-W", "ignore",
        "-m", f"not {_CLUSTER}", "-o", "junit_family=xunit1", f"--junitxml={report}",
        "--redis-url", f"redis://{address.host}:{address.port}/0",
        *tests,
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, cwd=source, capture_output=True, text=True, timeout=RUN_LIMIT_S,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise BenchError(f"redis-py's tests took over {RUN_LIMIT_S:g} s") from None
    # 1: some failed, which is a result.
    if done.returncode > 1:
        said = (done.stdout + done.stderr).strip()[-2000:]
        raise BenchError(f"pytest could not run redis-py's tests ({done.returncode}):\n{said}")
    return report.read_text()


def parse(xml: str) -> Iterator[Outcome]:
    """What pytest's report says of each test."""
    for case in ElementTree.fromstring(xml).iter("testcase"):
        file = case.get("classname", "").split(".")
        part = "/".join(file[:2]) + ".py"
        name = case.get("name", "")
        bad = case.find("failure")
        bad = case.find("error") if bad is None else bad
        skipped = case.find("skipped")
        if bad is not None:
            yield Outcome(part, name, Verdict.FAILED, bad.get("message", ""))
        elif skipped is not None:
            yield Outcome(part, name, Verdict.SKIPPED, skipped.get("message", ""))
        else:
            yield Outcome(part, name, Verdict.PASSED)


def in_sections(text: str, sections: tuple[str, ...]) -> set[str]:
    """Names of the tests behind a comment `# <section> COMMANDS`, up to the next such comment."""
    found: set[str] = set()
    section = ""
    for line in text.splitlines():
        if heading := re.fullmatch(r"    # ([A-Z ]+) COMMANDS", line):
            section = heading[1]
        elif test := re.match(r"    def (test_\w+)", line):
            if section in sections:
                found.add(test[1])
    return found


def tests_of_other_kinds(text: str) -> set[str]:
    """Names of the tests that call a method for lists, sets, sorted sets, hashes or streams."""
    return {
        function.name
        for function in ast.walk(ast.parse(text))
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test_")
        if any(
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in OTHER_KINDS
            for node in ast.walk(function)
        )
    }
