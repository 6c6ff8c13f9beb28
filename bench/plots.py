"""A PNG for each figure: the median of the runs as a line, lowest to highest as a band."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from statistics import median
from typing import TYPE_CHECKING

from bench.results import Curve, Figure, in_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

INCHES, DOTS_PER_INCH = (7.5, 4.5), 110
TICKS_MOST = 12
"""With more places than these on a logarithmic axis, matplotlib chooses which are named."""
LABEL_SHARE = 0.08
"""Of the axis' length, what the name of a place takes."""
STYLES = {"p5": ":", "p95": "--", "p99": "--", "p99.9": ":"}
"""Of percentiles; any other is a solid line."""
MISSING = "no plots: matplotlib is missing; install it: pip install 'matplotlib>=3.8'"


def can_draw() -> bool:
    """Whether matplotlib is there; the results are complete without it."""
    return find_spec("matplotlib") is not None


def by_figure(curves: Iterable[Curve]) -> dict[Figure, list[Curve]]:
    """The curves of each figure, in the order in which they were taken."""
    found: dict[Figure, list[Curve]] = {}
    for curve in curves:
        found.setdefault(curve.figure, []).append(curve)
    return found


def file_name(figure: Figure) -> str:
    """A name that any file system takes."""
    words = re.findall("[a-z0-9]+", f"{figure.scenario} {figure.name}".lower())
    return "-".join(words) + ".png"


def draw(figure: Figure, curves: Sequence[Curve]) -> bytes:
    """A figure as PNG.

    Args:
      figure: axes and title.
      curves: its series, each with at least one point.
    """
    # Drawn without pyplot, which keeps figures and asks for a display.
    from matplotlib.figure import Figure as Canvas

    canvas = Canvas(figsize=INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    axes = canvas.subplots()
    colours: dict[str, ColorType] = {}
    for curve in curves:
        points = sorted(curve.points)
        places = [x for x, _ in points]
        what, share = _shares(curve.series)
        (line,) = axes.plot(
            places, [median(runs) for _, runs in points], marker="o", markersize=4,
            label=curve.series, color=colours.get(what), linestyle=STYLES.get(share, "-"),
        )  # fmt: skip
        colours[what] = line.get_color()
        lowest, highest = ([least(runs) for _, runs in points] for least in (min, max))
        axes.fill_between(places, lowest, highest, color=line.get_color(), alpha=0.2, linewidth=0)
    _scales(axes, figure, sorted({x for curve in curves for x, _ in curve.points}))
    axes.set(title=f"{figure.scenario}: {figure.name}", xlabel=figure.x, ylabel=figure.y)
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = io.BytesIO()
    canvas.savefig(drawn, format="png")
    return drawn.getvalue()


def _shares(series: str) -> tuple[str, str]:
    """What a series is of, and which percentile of it; those of one thing have one colour."""
    what, comma, share = series.rpartition(", ")
    return (what, share) if comma and re.fullmatch(r"p[0-9.]+", share) else (series, "")


def _scales(axes: Axes, figure: Figure, places: Sequence[float]) -> None:
    if figure.x_log:
        axes.set_xscale("log")
        if len(places) <= TICKS_MOST:
            axes.set_xticks(places, _labels(places))
            axes.minorticks_off()
    if figure.y_log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)


def _labels(places: Sequence[float]) -> list[str]:
    """What stands below these places of a logarithmic axis; nothing where it would not be read."""
    least = (max(places) / min(places)) ** LABEL_SHARE
    labels: list[str] = []
    last = 0.0
    for place in places:
        far = place >= last * least
        labels.append(in_words(place) if far else "")
        last = place if far else last
    return labels
