"""Whole clusters of switches under faults: loss, partitions, switches that reboot, takeovers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from p4xos.testing.simulator.world import Simulation
from tests.switch.switched import MovingClasses, SwitchedClasses, scenario

SEEDS = (13, 24, 30, 34)
"""Small ones: between them dozens of switches reboot, and several join again."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_of_switches_is_safe_and_recovers(seed: int) -> None:
    """docs/PROTOCOL.md, section 10: its invariants, after every step."""
    Simulation(scenario(seed), SwitchedClasses()).run()


MOVING_SEEDS = (13, 24, 30)


@pytest.mark.parametrize("seed", MOVING_SEEDS)
def test_a_cluster_that_moves_to_switches_and_back(seed: int) -> None:
    """docs/PROTOCOL.md, sections 4 and 8: at random times, and some die on the way."""
    drawn = scenario(seed)
    simulation = Simulation(
        replace(drawn, move_gap_s=drawn.takeover_s / 4, forgets=0.0), MovingClasses()
    )
    simulation.run()
    assert simulation.moves > 10
