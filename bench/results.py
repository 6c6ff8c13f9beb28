"""Metrics with what is asked of them, the figures of several runs, and how they are shown.

A scenario yields samples and points of curves one by one, in the order in which it takes them; what
belongs to one metric, or one curve, is brought together here. A figure is never shown without the
spread of its runs.
"""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

RESULTS_NAME = "results.jsonl"
_HEADINGS = ("scenario", "measured", "unit", "median", "min", "max", "asked", "")
_NUMBERS = range(3, 6)


class Metric(NamedTuple):
    """What is measured, and what is asked of it; at most one of the two bounds is given."""

    scenario: str
    name: str
    unit: str
    at_least: float | None = None
    at_most: float | None = None


class Sample(NamedTuple):
    """One run's figure."""

    metric: Metric
    value: float


class Figure(NamedTuple):
    """A plot, and what its axes show; units belong to the labels."""

    scenario: str
    name: str
    x: str
    y: str
    x_log: bool = False
    y_log: bool = False


class Point(NamedTuple):
    """One run's point of a curve."""

    figure: Figure
    series: str
    x: float
    y: float


class Curve(NamedTuple):
    """All runs of one series of a figure."""

    figure: Figure
    series: str
    points: list[tuple[float, list[float]]]  # x, and y of each run, as they came

    def as_json(self, environment: Mapping[str, object]) -> str:
        """One line for scripts; each carries the machine it was measured on."""
        return json.dumps(
            {
                **self.figure._asdict(),
                "series": self.series,
                "points": self.points,
                "environment": dict(environment),
            }
        )

    def summaries(self) -> list[Summary]:
        """Each x as a metric of its own, for tables."""
        scenario, name, x_label, y_label, *_ = self.figure
        return [
            Summary(
                Metric(scenario, f"{name}: {self.series} at {in_words(x)} {x_label}", y_label), runs
            )
            for x, runs in self.points
        ]


class Summary(NamedTuple):
    """All runs of one metric."""

    metric: Metric
    runs: list[float]  # at least one, in the order in which they were taken

    @property
    def median(self) -> float:
        """The middle run; the mean of the two middle ones for an even number."""
        return median(self.runs)

    @property
    def verdict(self) -> str:
        """Whether the median is as good as asked; nothing when nothing is asked."""
        metric = self.metric
        if metric.at_least is not None:
            return "met" if self.median >= metric.at_least else "MISSED"
        if metric.at_most is not None:
            return "met" if self.median <= metric.at_most else "MISSED"
        return ""

    def as_json(self, environment: Mapping[str, object]) -> str:
        """One line for scripts; each carries the machine it was measured on."""
        return json.dumps(
            {
                **self.metric._asdict(),
                "median": self.median,
                "min": min(self.runs),
                "max": max(self.runs),
                "runs": self.runs,
                "environment": dict(environment),
            }
        )


def summarize(samples: Iterable[Sample]) -> list[Summary]:
    """Samples by metric, in the order in which the metrics were first seen."""
    runs: dict[Metric, list[float]] = {}
    for sample in samples:
        runs.setdefault(sample.metric, []).append(sample.value)
    return [Summary(metric, values) for metric, values in runs.items()]


def curves(points: Iterable[Point]) -> list[Curve]:
    """Points by figure and series, in the order in which these were first seen."""
    found: dict[tuple[Figure, str], dict[float, list[float]]] = {}
    for point in points:
        runs = found.setdefault((point.figure, point.series), {})
        runs.setdefault(point.x, []).append(point.y)
    return [Curve(figure, series, [*runs.items()]) for (figure, series), runs in found.items()]


class Results(NamedTuple):
    """What `as_json` wrote of metrics and curves."""

    summaries: list[Summary]
    curves: list[Curve]
    environment: dict[str, object]
    """That of the last line; empty without any."""


def load(path: Path) -> Results:
    """The results in a file of JSON lines, or in the RESULTS_NAME of a directory.

    What stands in several lines, as after several runs with one `--json`, is brought together.

    Raises:
      OSError: it cannot be read.
      ValueError: it holds something else.
    """
    file = path / RESULTS_NAME if path.is_dir() else path
    samples: list[Sample] = []
    points: list[Point] = []
    environment: dict[str, object] = {}
    for number, line in enumerate(file.read_text().splitlines(), 1):
        try:
            stored = json.loads(line)
            environment = stored["environment"]
            if "points" in stored:
                figure = Figure(*(stored[name] for name in Figure._fields))
                series = stored["series"]
                points += [Point(figure, series, x, y) for x, ys in stored["points"] for y in ys]
            else:
                metric = Metric(*(stored[name] for name in Metric._fields))
                samples += [Sample(metric, value) for value in stored["runs"]]
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{file}, line {number} is no result of the bench: {error}") from None
    return Results(summarize(samples), curves(points), environment)


def table(summaries: Sequence[Summary]) -> str:
    """Lines with columns, numbers to the right."""
    rows: list[tuple[str, ...]] = [_HEADINGS]
    for summary in summaries:
        metric = summary.metric
        figures = (summary.median, min(summary.runs), max(summary.runs))
        rows.append(
            (
                metric.scenario,
                metric.name,
                metric.unit,
                *map(in_figures, figures),
                asked(metric),
                summary.verdict,
            )
        )
    return aligned(rows, _NUMBERS)


def aligned(rows: Sequence[Sequence[str]], numbers: Container[int]) -> str:
    """Lines with columns; `numbers` are those columns that stand to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if column in numbers else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def in_words(x: float) -> str:
    """A place on an axis: what was set, not measured, so in full."""
    return f"{x:,.0f}" if x == int(x) else f"{x:g}"


def in_figures(value: float) -> str:
    """A number with as many digits as a measurement deserves: 1,234,567 or 45.6 or 0.123."""
    if abs(value) >= 100 or value == 0:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def asked(metric: Metric) -> str:
    """The bound in words."""
    if metric.at_least is not None:
        return f"at least {in_figures(metric.at_least)}"
    if metric.at_most is not None:
        return f"at most {in_figures(metric.at_most)}"
    return "-"
