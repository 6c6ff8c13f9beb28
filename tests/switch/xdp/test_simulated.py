"""Whole clusters of programs in the kernel under the simulator's faults, by BPF_PROG_TEST_RUN.

So many seeds as KERNEL_SEEDS says, both ways: `make sim-kernel SEEDS=300`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from p4xos.effects import Effects, To
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator
from p4xos.roles.sequencer import Sequencer
from p4xos.testing.simulator.processes import Classes
from p4xos.testing.simulator.scenario import Scenario
from p4xos.testing.simulator.world import Simulation
from p4xos.wire import Frame, Rows
from switch.control.acceptor import SwitchAcceptor
from switch.control.backend import DataPlane
from switch.control.plan import Plan
from switch.control.sequencer import SwitchSequencer
from switch.xdp.controllers import XdpAcceptor, XdpSequencer
from tests.switch.kernel import UnwiredXdpPlane, in_the_kernel
from tests.switch.switched import (
    SwitchedAcceptor,
    SwitchedCoordinator,
    scenario,
    sequencer_plan,
)

pytestmark = in_the_kernel
MORE = int(os.environ.get("KERNEL_SEEDS", "0"))
SEEDS = range(MORE) if MORE else (13, 24, 30, 34, 47)
"""Small ones: between them dozens of machines restart, and several join again."""
MOVING_SEEDS = SEEDS if MORE else (13, 24, 30)


class Noted(UnwiredXdpPlane):
    """Keeps what it was handed."""

    handed: list[Rows]

    def inject(self, rows: Rows) -> list[tuple[To, Rows]]:
        self.handed.append(rows.copy())
        return super().inject(rows)


class KernelAcceptor(SwitchedAcceptor):
    """Sends what the kernel and its process send; numpy's takes what the program was handed."""

    @staticmethod
    def controlled(loaded: Plan) -> tuple[DataPlane, SwitchAcceptor]:
        plane = Noted()
        controller = XdpAcceptor(plane, loaded)
        plane.handed = []
        return plane, controller

    def step(self, rows: Rows, now: float) -> Effects:
        assert isinstance(self.plane, Noted)
        self.plane.handed.clear()
        sent = self.switch.step(rows, now).send
        effects = Effects.none()
        for handed in self.plane.handed:
            for row in range(len(handed)):
                one = self._as_a_switch(handed[row : row + 1].copy())
                effects.extend(Acceptor.step(self, one, now))
        self.compare()
        return effects._replace(send=sent)


class KernelCoordinator(SwitchedCoordinator):
    """Its requests are numbered in the kernel."""

    @staticmethod
    def sequencing(loaded: Plan) -> SwitchSequencer:
        return XdpSequencer(UnwiredXdpPlane(), loaded)


def kernel_sequencer(scenario: Scenario, frame: Frame) -> Sequencer:
    return KernelCoordinator.sequencing(sequencer_plan(scenario, frame))


@dataclass(frozen=True)
class KernelClasses(Classes):
    """Those of `Classes` that the kernel replaces."""

    acceptor: type[Acceptor] = KernelAcceptor
    coordinator: type[Coordinator] = KernelCoordinator


@dataclass(frozen=True)
class MovingClasses(Classes):
    """Between numpy and the kernel."""

    acceptor_elsewhere: type[Acceptor] | None = KernelAcceptor
    sequencer_elsewhere: Callable[[Scenario, Frame], Sequencer] = kernel_sequencer


@pytest.mark.parametrize("seed", SEEDS)
def test_a_cluster_in_the_kernel_is_safe_and_recovers(seed: int) -> None:
    """docs/PROTOCOL.md, section 10: its invariants, after every step."""
    Simulation(scenario(seed), KernelClasses()).run()


@pytest.mark.parametrize("seed", MOVING_SEEDS)
def test_a_cluster_that_moves_to_the_kernel_and_back(seed: int) -> None:
    """docs/PROTOCOL.md, sections 4 and 8: at random times, and some die on the way."""
    drawn = scenario(seed)
    simulation = Simulation(
        replace(drawn, move_gap_s=drawn.takeover_s / 4, forgets=0.0), MovingClasses()
    )
    simulation.run()
    assert MORE or simulation.moves > 10  # of those that were not chosen, some end soon
