"""What the simulator has found, as runs that lead straight there."""

from __future__ import annotations

from dataclasses import replace

from p4xos import wire
from p4xos.effects import ACCEPTORS, COORDINATORS, Role
from p4xos.quorum import make_round
from p4xos.roles.recovery import RESEND_S
from p4xos.testing.simulator.processes import CLUSTER, GROUP, CoordinatorProcess
from p4xos.testing.simulator.scenario import Scenario, draw
from p4xos.testing.simulator.world import Simulation
from p4xos.wire import Type


def calm(**held: int) -> Scenario:
    """Load and no faults; coordinator 0 serves."""
    scenario = replace(
        draw(0), acceptors=3, coordinators=2, learners=1, loss=0.0, duplicate=0.0, straggle=0.0,
        split=0.0, crash_gap_s=1e9, crash_in_step=0.0, partition_gap_s=1e9, nag_gap_s=1e9,
        move_gap_s=1e9, hard_of_hearing=False, real_log=False, takeover_s=0.1, delay_s=0.0002,
        faults_s=4.0, bursts=800, burst_commands=1, window=256, checkpoint_instances=256,
        checkpoint_s=3.0,
    )  # fmt: skip
    return replace(scenario, **held)  # type: ignore[arg-type]


def test_a_round_refused_below_recovery_rounds_is_given_up() -> None:
    """Section 4: requests outstanding and none made means phase 1 again.

    The floor is another's, above the main round and below the coordinator's own recovery rounds: no
    READ_INDEX_REPLY ever names it. Once every request was turned into a no-op, for ever.
    """
    simulation = Simulation(calm())
    foreign = make_round(2, 1)
    silent = simulation.processes[Role.COORDINATOR, 1]
    silent.gone = True
    process = simulation.processes[Role.COORDINATOR, 0]
    learner = (Role.LEARNER, 0)
    question = wire.encode(
        CLUSTER, GROUP, Type.RECOVER, instance=5, value=wire.pack_end(6), sender=0
    )
    for attempt in range(6):
        at = 0.4 + 2 * attempt * RESEND_S
        simulation.at(at, lambda: simulation._send(learner, COORDINATORS, question))

    def depose() -> None:
        assert isinstance(process, CoordinatorProcess)
        assert process.role.sequencer.round < foreign < process.role.round, process.role.status()
        simulation._send(
            silent.address, ACCEPTORS,
            wire.encode(
                CLUSTER, GROUP, Type.PHASE1A, instance=1,
                round=foreign, sender=1, value=wire.pack_end(wire.END_OF_LOG),
            ),
        )  # fmt: skip

    rounds = []

    def look() -> None:
        assert isinstance(process, CoordinatorProcess)
        rounds.append(process.role.sequencer.round)

    simulation.at(1.0, depose)
    simulation.at(1.4, look)
    simulation.run()
    assert rounds[0] > foreign, rounds
