"""What the judges say is counted right; the judges themselves are not here."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.judges import redis_py, redis_suite
from bench.judges.cli import main
from bench.judges.outcomes import Outcome, Tally, Verdict, table, tally

LINES = """\
begun\tunit/a\tSET and GET\t
passed\tunit/a\tSET and GET\t
begun\tunit/a\tSET\\twith a tab\t
failed\tunit/a\tSET\\twith a tab\tExpected 'a\\\\b'\\nat line 3
skipped\tunit/a\tMULTI with BGREWRITEAOF: Not supported on external server\t
between\tunit/a\tr lpush list x\tERR unknown command 'lpush'
a word of the runner itself
"""


def test_lines_of_the_suite() -> None:
    report = redis_suite.parse(LINES + "finished\tunit/a\t\t\n")
    assert report.outcomes == [
        Outcome("unit/a", "SET and GET", Verdict.PASSED),
        Outcome("unit/a", "SET\twith a tab", Verdict.FAILED, "Expected 'a\\b'\nat line 3"),
        Outcome(
            "unit/a", "MULTI with BGREWRITEAOF: Not supported on external server", Verdict.SKIPPED
        ),
    ]
    assert [outcome.detail for outcome in report.between] == ["ERR unknown command 'lpush'"]
    assert report.under_way is None
    assert report.finished


def test_a_run_that_stops_inside_a_test() -> None:
    report = redis_suite.parse(LINES + "begun\tunit/a\tBLPOP\t\n")
    assert report.under_way == "BLPOP"
    assert not report.finished


def test_a_line_that_was_cut_off_is_passed_over() -> None:
    assert redis_suite.parse("passed\tunit/a\tSET").outcomes == []


XML = """\
<testsuites><testsuite>
<testcase classname="tests.test_lock.TestLock" name="test_lock" />
<testcase classname="tests.test_lock.TestLock" name="test_token">
  <failure message="assert 1 == 2">the stack</failure></testcase>
<testcase classname="tests.test_pipeline.TestPipeline" name="test_watch">
  <error message="refused">the stack</error></testcase>
<testcase classname="tests.test_commands.TestRedisCommands" name="test_new[a]">
  <skipped message="Redis version required &gt;= 8.4" /></testcase>
</testsuite></testsuites>
"""


def test_report_of_pytest() -> None:
    assert list(redis_py.parse(XML)) == [
        Outcome("tests/test_lock.py", "test_lock", Verdict.PASSED),
        Outcome("tests/test_lock.py", "test_token", Verdict.FAILED, "assert 1 == 2"),
        Outcome("tests/test_pipeline.py", "test_watch", Verdict.FAILED, "refused"),
        Outcome(
            "tests/test_commands.py", "test_new[a]", Verdict.SKIPPED,
            "Redis version required >= 8.4",
        ),
    ]  # fmt: skip


SOURCE = '''
class TestRedisCommands:
    def test_before(self, r):
        assert r.ping()

    # BASIC KEY COMMANDS
    def test_append(self, r):
        assert r.append("a", "b")

    # BINARY HERE is no heading
    def test_type(self, r):
        r.lpush("a", 1)

    # LIST COMMANDS
    def test_list(self, r):
        r.rpush("a", 1)
'''


def test_selection_by_section_and_kind() -> None:
    assert redis_py.in_sections(SOURCE, ("BASIC KEY",)) == {"test_append", "test_type"}
    assert redis_py.tests_of_other_kinds(SOURCE) == {"test_type", "test_list"}


def test_table_counts_by_part() -> None:
    outcomes = [
        Outcome("a", "1", Verdict.PASSED),
        Outcome("b", "2", Verdict.SKIPPED),
        Outcome("a", "3", Verdict.FAILED, "why"),
        Outcome("a", "4", Verdict.PASSED),
    ]
    assert tally(outcomes) == {"a": Tally(2, 1, 0), "b": Tally(0, 0, 1)}
    assert table(outcomes).splitlines() == [
        "| part | passed | failed | skipped | of those run |",
        "|------|-------:|-------:|--------:|-------------:|",
        "| a    |      2 |      1 |       0 |         67 % |",
        "| b    |      0 |      0 |       1 |            - |",
        "| all  |      2 |      1 |       1 |         67 % |",
    ]


def test_what_is_missing_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BenchError, match=r"test_helper\.tcl is missing"):
        redis_suite.check(tmp_path)
    with pytest.raises(BenchError, match="no source tree of redis-py"):
        redis_py.check(tmp_path)
    assert main([]) == 2
    assert "give --redis" in capsys.readouterr().err
