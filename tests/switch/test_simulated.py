"""Whole clusters of switches under faults: loss, partitions, switches that reboot, takeovers."""

from __future__ import annotations

import pytest

from p4xos.testing.simulator.world import Simulation
from tests.switch.switched import SwitchedClasses, scenario

SEEDS = (13, 24, 30, 34)
"""Small ones: between them dozens of switches reboot, and several join again."""


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_of_switches_is_safe_and_recovers(seed: int) -> None:
    """docs/PROTOCOL.md, section 10: its invariants, after every step."""
    Simulation(scenario(seed), SwitchedClasses()).run()
