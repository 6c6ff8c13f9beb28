"""The whole cluster under faults, seed by seed; a failing seed is printed with its command."""

from __future__ import annotations

from pathlib import Path

import pytest

from p4xos.testing.simulate import kept_seeds, main
from p4xos.testing.simulator.scenario import draw
from p4xos.testing.simulator.world import Simulation

KEPT = Path(__file__).with_name("failing_seeds.txt")
SEEDS = 200
CHUNK = 20


def run(seed: int) -> Simulation:
    print(f"seed {seed}: python -m p4xos.testing.simulate --seed {seed} --trace")
    simulation = Simulation(draw(seed))
    simulation.run()
    return simulation


def test_seeds_that_failed_once() -> None:
    for seed in kept_seeds(KEPT):
        run(seed)


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_invariants_hold_and_the_cluster_recovers(first: int) -> None:
    for seed in range(first, first + CHUNK):
        run(seed)


def test_the_same_seed_gives_the_same_run() -> None:
    lines: list[list[str]] = [[], []]
    for trace in lines:
        Simulation(draw(11), trace=trace.append).run()
    assert lines[0] == lines[1]


def test_the_seed_and_the_command_that_repeats_it_are_printed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["--seed", "3"]) == 0
    assert capsys.readouterr().out.startswith("seed 3: ")
