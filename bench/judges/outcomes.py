"""What became of each test, counted by part and shown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import NamedTuple

_HEADINGS = ("part", "passed", "failed", "skipped", "of those run")


class Verdict(StrEnum):
    """Of one test."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"  # by the judge itself


class Outcome(NamedTuple):
    """One test."""

    part: str  # a unit of Redis' suite, or a file of redis-py's
    test: str
    verdict: Verdict
    detail: str = ""  # why it failed or was skipped

    def as_line(self) -> str:
        """For the list of those that failed."""
        reason = " ".join(self.detail.split())
        return f"{self.part}: {self.test}: {reason[:300] or 'no reason given'}"


class Tally(NamedTuple):
    """Numbers of one part."""

    passed: int
    failed: int
    skipped: int

    @property
    def share(self) -> str:
        """Of the tests that ran."""
        ran = self.passed + self.failed
        return f"{100 * self.passed / ran:.0f} %" if ran else "-"


def tally(outcomes: Iterable[Outcome]) -> dict[str, Tally]:
    """Numbers by part, in the order in which the parts first appear."""
    counts: dict[str, dict[Verdict, int]] = {}
    for outcome in outcomes:
        part = counts.setdefault(outcome.part, dict.fromkeys(Verdict, 0))
        part[outcome.verdict] += 1
    return {
        name: Tally(part[Verdict.PASSED], part[Verdict.FAILED], part[Verdict.SKIPPED])
        for name, part in counts.items()
    }


def table(outcomes: Sequence[Outcome]) -> str:
    """Numbers by part and their sum, as a Markdown table that a document can take over."""
    parts = tally(outcomes)
    total = Tally(*(sum(column) for column in zip(*parts.values(), strict=True)))
    rows = [
        (name, str(row.passed), str(row.failed), str(row.skipped), row.share)
        for name, row in [*parts.items(), ("all", total)]
    ]
    widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
    lines = [
        "| " + " | ".join(
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ) + " |"
        for row in (_HEADINGS, *rows)
    ]  # fmt: skip
    rule = "|" + "|".join(
        "-" * (width + 1) + (":" if column else "-") for column, width in enumerate(widths)
    )
    return "\n".join([lines[0], rule + "|", *lines[1:]])
