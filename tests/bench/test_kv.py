"""The store under redis-benchmark, in small: each case gives its figures."""

from __future__ import annotations

from pathlib import Path

from bench import kv
from bench.results import summarize


def test_each_case_is_measured(tmp_path: Path) -> None:
    cases = [case for of_storage in kv.CASES.values() for case in of_storage]
    wanted = [metric for case in cases for metric in (case.rate, case.p50) if metric is not None]
    found = summarize(kv.run(tmp_path, 1, 0.001))
    assert [summary.metric for summary in found] == wanted
    assert all(summary.median > 0 for summary in found)
