"""What is said of writes that were lost, done twice, denied, or put in another order."""

from __future__ import annotations

import pytest

from bench.appenders import Appender, Verdict, compare, parse
from bench.errors import BenchError
from p4xos.tables import Address


def told(acknowledged: list[int], unknown: set[int], denied: set[int]) -> Appender:
    appender = Appender("a0", Address("127.0.0.1", 1))
    appender.acknowledged, appender.unknown = acknowledged, unknown
    appender.denied = dict.fromkeys(denied, "ERR no")
    return appender


@pytest.mark.parametrize(
    ("numbers", "wrong"),
    [
        ([0, 1, 3], {}),
        ([0, 1, 2, 3], {}),  # 2 is unknown: it may be there,
        ([0, 1, 3, 2], {}),  # and later than what came behind it
        ([0, 3], {"lost": ["a0: 1"]}),
        ([0, 1, 1, 3], {"twice": ["a0: 1"]}),
        ([0, 1, 2, 3, 2], {"twice": ["a0: 2"]}),
        ([0, 1, 3, 4], {"denied": ["a0: 4"]}),
        ([1, 0, 3], {"misplaced": ["a0: acknowledged numbers stand in another order"]}),
        ([0, 1, 3, 9], {"misplaced": ["a0: 9 was never sent"]}),
    ],
)
def test_what_is_wrong_is_found(numbers: list[int], wrong: dict[str, list[str]]) -> None:
    found = Verdict([], [], [], [])
    compare(told([0, 1, 3], {2}, {4}), numbers, found)
    assert found == Verdict([], [], [], [])._replace(**wrong)
    assert found.good == (not wrong)


def test_gaps() -> None:
    appender = told([0, 1, 2, 3], set(), set())
    appender.acknowledged_at = [1.0, 1.1, 1.6, 1.7]
    assert appender.longest_gap_s(1.15, 1.75) == pytest.approx(0.5), "it began before"
    assert appender.longest_gap_s(1.65, 1.75) == pytest.approx(0.1)
    assert appender.longest_gap_s(1.65, 3.0) == pytest.approx(1.3), "it has not ended"


def test_values() -> None:
    assert parse(b"") == []
    assert parse(b"7,12,") == [7, 12]
    for torn in (b"7,12", b"7,x,", b",", b"7,,"):
        with pytest.raises(BenchError):
            parse(torn)
