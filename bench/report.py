"""Plots and a report in one HTML file that needs nothing else, from results."""

from __future__ import annotations

import argparse
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from statistics import median

from bench import plots
from bench.results import (
    Curve,
    Figure,
    Results,
    Summary,
    asked,
    in_figures,
    in_words,
    load,
)
from p4xos import arguments

REPORT_NAME = "report.html"
_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 0.8em 0 1.6em; }
th, td { padding: 0.2em 0.7em; border-bottom: 1px solid #ddd; text-align: left; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
.met { color: #17752a; } .MISSED { color: #b3261e; font-weight: bold; }
img { max-width: 100%; } figure { margin: 1em 0; }
"""


def parser() -> arguments.Parser:
    """`python -m bench report`: draws again, as for results that a run left without plots."""
    made = arguments.Parser(
        prog="bench report", description="Draws the results of a run, and writes its report."
    )
    made.add_argument("directory", type=Path, help="of the results; plots and report go there")
    made.set_defaults(call=_report)
    return made


def _report(flags: argparse.Namespace) -> None:
    if not flags.directory.is_dir():
        raise ValueError(f"{flags.directory} is no directory: name one that `bench` has written")
    print(write(load(flags.directory), flags.directory))
    if not plots.can_draw():
        print(plots.MISSING)


def write(results: Results, directory: Path) -> Path:
    """A PNG for each figure where matplotlib is there, and the report; the report's path."""
    drawn: dict[Figure, bytes] = {}
    if plots.can_draw():
        for figure, curves in plots.by_figure(results.curves).items():
            drawn[figure] = plots.draw(figure, curves)
            (directory / plots.file_name(figure)).write_bytes(drawn[figure])
    report = directory / REPORT_NAME
    report.write_text(html(results, drawn), encoding="utf-8")
    return report


def html(results: Results, drawn: Mapping[Figure, bytes]) -> str:
    """The report; `drawn` are figures as PNG, those that are not there are told in numbers."""
    by_scenario: dict[str, tuple[list[Summary], list[Curve]]] = {}
    for summary in results.summaries:
        by_scenario.setdefault(summary.metric.scenario, ([], []))[0].append(summary)
    for curve in results.curves:
        by_scenario.setdefault(curve.figure.scenario, ([], []))[1].append(curve)
    parts = [_environment(results.environment)]
    for name, (summaries, curves) in by_scenario.items():
        parts.append(f"<h2>{escape(name)}</h2>")
        if summaries:
            parts.append(_summaries(summaries))
        for figure, series in plots.by_figure(curves).items():
            parts.append(_figure(figure, series, drawn.get(figure)))
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>Bench</title>'
        f"<style>{_STYLE}</style></head><body>\n<h1>Asked and measured</h1>\n"
        + "\n".join(parts)
        + "\n</body></html>\n"
    )


def _environment(environment: Mapping[str, object]) -> str:
    rows = [(name.replace("_", " "), str(value)) for name, value in environment.items()]
    return _table(("environment", ""), rows, numbers=())


def _summaries(summaries: Sequence[Summary]) -> str:
    rows = [
        (
            s.metric.name, s.metric.unit, in_figures(s.median), in_figures(min(s.runs)),
            in_figures(max(s.runs)), str(len(s.runs)), asked(s.metric), s.verdict,
        )
        for s in summaries
    ]  # fmt: skip
    headings = ("measured", "unit", "median", "lowest", "highest", "runs", "asked", "")
    return _table(headings, rows, numbers=range(2, 6))


def _figure(figure: Figure, curves: Sequence[Curve], png: bytes | None) -> str:
    """The plot, and its numbers folded away below it."""
    rows = []
    for curve in curves:
        for x, runs in sorted(curve.points):
            figures = (median(runs), min(runs), max(runs))
            rows.append((curve.series, in_words(x), *map(in_figures, figures)))
    numbers = _table(
        ("series", figure.x, f"{figure.y}: median", "lowest", "highest"), rows, range(1, 5)
    )
    title = escape(f"{figure.scenario}: {figure.name}")
    if png is None:
        return f"<h3>{title}</h3>{numbers}"
    image = f'<img alt="{title}" src="data:image/png;base64,{b64encode(png).decode()}">'
    return f"<figure>{image}<details><summary>numbers</summary>{numbers}</details></figure>"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]], numbers: Sequence[int]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        made = []
        for column, cell in enumerate(cells):
            kind = "number" if column in numbers else cell if cell in ("met", "MISSED") else ""
            attribute = f' class="{kind}"' if kind else ""
            made.append(f"<{tag}{attribute}>{escape(cell)}</{tag}>")
        return f"<tr>{''.join(made)}</tr>"

    lines = [line(headings, "th"), *(line(row, "td") for row in rows)]
    return "<table>\n" + "\n".join(lines) + "\n</table>"
