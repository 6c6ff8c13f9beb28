"""The scenario: costs first, then the paper's figures."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.chunnels import costs, figures
from bench.results import Point, Sample


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields each cost and each figure once a run."""
    for number in range(runs):
        directory = scratch / str(number)
        directory.mkdir()
        yield from costs.layers(scale)
        yield from costs.connecting(scale)
        yield from costs.round_trips(directory)
        yield from costs.ordered(directory / "ordered", scale)
        yield from figures.fast_path(directory, scale)
        yield from figures.nearer_server(directory, scale)
        yield from figures.sharding(directory, scale)
