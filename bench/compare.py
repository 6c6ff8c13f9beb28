"""`python -m bench compare A B`: two sets of results beside each other."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bench.results import Results, Summary, aligned, in_figures, load
from p4xos import arguments

HEADINGS = ("scenario", "measured", "unit", "A", "B", "B/A", "")
APART = "apart"
MACHINE = ("cpu", "cores", "kernel", "python", "numpy", "file_system")
"""Of an environment: where these differ, figures tell of more than of the code."""


class Pair(NamedTuple):
    """One metric, or one point of a curve, in both."""

    a: Summary
    b: Summary

    @property
    def ratio(self) -> float | None:
        """Of the medians, B's to A's; None when A's is 0."""
        return self.b.median / self.a.median if self.a.median else None

    @property
    def apart(self) -> bool:
        """Whether every run of one is above every run of the other.

        A single run has no spread, and is apart from nothing.
        """
        if min(len(self.a.runs), len(self.b.runs)) < 2:
            return False
        return min(self.a.runs) > max(self.b.runs) or min(self.b.runs) > max(self.a.runs)


def parser() -> arguments.Parser:
    """Its flags."""
    made = arguments.Parser(
        prog="bench compare",
        description="Ratios of medians, metric by metric; "
        f'"{APART}" marks those whose runs do not overlap.',
    )
    for name in "AB":
        made.add_argument(
            name.lower(), metavar=name, type=Path, help="a results directory, or JSON lines"
        )
    made.set_defaults(call=_compare)
    return made


def _compare(flags: argparse.Namespace) -> None:
    a, b = load(flags.a), load(flags.b)
    found = pairs(a, b)
    if not found:
        raise ValueError(f"{flags.a} and {flags.b} have no metric in common")
    for name, (there, here) in differences(a.environment, b.environment).items():
        print(f"WARNING: {name} of A is {there}, of B {here}")
    print(table(found))
    for name, results, other in (("A", a, b), ("B", b, a)):
        alone = _everything(results).keys() - _everything(other).keys()
        if alone:
            print(f"only in {name}: {', '.join(sorted(f'{s}: {n}' for s, n, _ in alone))}")


def pairs(a: Results, b: Results) -> list[Pair]:
    """What both have, in A's order."""
    others = _everything(b)
    return [Pair(one, others[key]) for key, one in _everything(a).items() if key in others]


def differences(
    a: Mapping[str, object], b: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    """How the machines differ."""
    return {name: (a.get(name), b.get(name)) for name in MACHINE if a.get(name) != b.get(name)}


def table(found: list[Pair]) -> str:
    """Lines with columns: medians with their spread, and the ratio."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    for pair in found:
        metric, ratio = pair.a.metric, pair.ratio
        rows.append(
            (
                metric.scenario,
                metric.name,
                metric.unit,
                _spread(pair.a),
                _spread(pair.b),
                "-" if ratio is None else f"{ratio:.3g}",
                APART if pair.apart else "",
            )
        )
    return aligned(rows, range(3, 6))


def _spread(summary: Summary) -> str:
    if len(summary.runs) == 1:
        return in_figures(summary.median)
    lowest, highest = in_figures(min(summary.runs)), in_figures(max(summary.runs))
    return f"{in_figures(summary.median)} ({lowest} to {highest})"


def _everything(results: Results) -> dict[tuple[str, str, str], Summary]:
    """Metrics and points of curves, by what they measure: what is asked may have changed."""
    everything = [*results.summaries, *(s for curve in results.curves for s in curve.summaries())]
    return {(s.metric.scenario, s.metric.name, s.metric.unit): s for s in everything}
