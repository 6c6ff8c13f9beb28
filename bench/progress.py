"""What a run tells on stderr: each figure as it comes, and on a terminal how far it is."""

from __future__ import annotations

from collections import Counter
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from bench.results import Figure, Metric, Point, Sample, in_figures, in_words


class Told:
    """Of several scenarios, one after the other; on a terminal with a bar below the lines."""

    def __init__(self, scenarios: int, console: Console | None = None) -> None:
        """With the number of scenarios; the console is stderr's."""
        self._console = console or Console(stderr=True)
        self._scenarios = scenarios
        self._number = 0
        self._name, self._runs = "", 1
        self._seen: Counter[Metric | tuple[Figure, str, float]] = Counter()
        # No thread of its own that draws: nodes are forked, and a fork does not go with threads.
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(),
            console=self._console, auto_refresh=False, transient=True,
            disable=not self._console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("", total=scenarios)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def begin(self, name: str, runs: int) -> None:
        """The next scenario, and how often it will be run."""
        self._number += 1
        self._name, self._runs = name, runs
        self._seen.clear()
        self._show()

    def tell(self, one: Sample | Point) -> None:
        """A figure; one that has been there before means another run."""
        if isinstance(one, Sample):
            self._seen[one.metric] += 1
        else:
            self._seen[one.figure, one.series, one.x] += 1
        self._console.print(words(one), markup=False, highlight=False, soft_wrap=True)
        self._show()

    def _show(self) -> None:
        run = max(self._seen.values(), default=1)
        self._bar.update(
            self._task,
            # A run counts when it is over: how long the rest of it takes is not known.
            completed=self._number - 1 + min(run - 1, self._runs) / self._runs,
            description=f"{self._name}, {self._number} of {self._scenarios}, "
            f"run {run} of {max(run, self._runs)}",
        )
        self._bar.refresh()


def words(one: Sample | Point) -> str:
    """A figure in a line."""
    if isinstance(one, Sample):
        metric = one.metric
        return f"{metric.scenario}: {metric.name}: {in_figures(one.value)} {metric.unit}"
    figure = one.figure
    return (
        f"{figure.scenario}: {figure.name}: {one.series}: {in_figures(one.y)} {figure.y} "
        f"at {in_words(one.x)} {figure.x}"
    )
