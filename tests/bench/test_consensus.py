"""The consensus scenario as a whole, with few values."""

from __future__ import annotations

from pathlib import Path

from bench.consensus import measure


def test_a_few_thousand_values_go_through_five_processes(tmp_path: Path) -> None:
    figures = measure(tmp_path / "run", "memory", values=4096, in_flight=2048)
    assert figures.values_per_s > 0
    assert set(figures.cpu_us) == {"acceptor", "coordinator", "learner and proposer"}
