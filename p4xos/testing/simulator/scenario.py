"""What one seed stands for: the cluster, its network, its faults and its load."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random


@dataclass(frozen=True)
class Scenario:
    """Drawn from a seed alone; times in virtual seconds, rates as probabilities."""

    seed: int
    acceptors: int
    coordinators: int
    learners: int
    window: int
    value_bytes: int
    scalar_below: int
    """Runs of fewer messages take the roles' scalar path."""
    takeover_s: float
    """A coordinator's patience; the others of its times follow from it."""
    faults_s: float
    """The fault phase; then the network heals and a majority of each role runs."""
    loss: float
    duplicate: float
    delay_s: float
    """Typical one-way delay."""
    straggle: float
    """How many messages take `straggle_s` at most instead: reordering across rounds."""
    straggle_s: float
    split: float
    """How many sends arrive in pieces."""
    crash_gap_s: float
    """Mean time between crashes of some process."""
    crash_in_step: float
    """How often a process crashes between a step and the last of its effects."""
    down_s: float
    """Mean time that a crashed process stays down."""
    partition_gap_s: float
    partition_s: float
    bursts: int
    """Submissions by all proposers together."""
    burst_commands: int
    """Commands of one at most."""
    reads: int
    checkpoint_instances: int
    """A replica checkpoints after so many instances, and now and then when idle."""
    checkpoint_s: float
    nag_gap_s: float
    """Mean time between RECOVERs that no learner needs: they drive bounded phase 1."""
    hard_of_hearing: bool
    """Whether coordinators now and then draw a round below others' until the network heals."""
    real_log: bool
    """Whether acceptors keep their records in p4xos.storage on a simulated disk."""
    pace_values: int
    """Values that a proposer may always have on the way; 0: as many as outside a simulation."""
    idle_beats: int
    """One heartbeat of so many reaches acceptors and learners when nothing is new."""
    long_commands: float
    """How many commands travel in fragments."""
    forgets: float
    """How many crashes take the disk with them, as far as the protocol bears it."""
    move_gap_s: float
    """Mean time between moves of some acceptor or sequencer to another data plane."""


def draw(seed: int) -> Scenario:
    """The scenario of a seed."""
    random = Random(seed)
    calm = random.random() < 0.1  # now and then nothing but load
    delay_s = random.choice((0.0002, 0.001, 0.005))
    # Impatient candidates duel all the time; yet once healed a round trip must fit well within.
    hurry = random.choice((0.05, 0.2, 1.0))
    takeover_s = max(0.25 * hurry, 10 * delay_s)
    window = random.choice((16, 16, 32, 64, 256))
    lazy = random.random() < 0.4  # late checkpoints: full windows, and much for phase 1 to find
    return Scenario(
        seed=seed,
        acceptors=random.choice((1, 3, 3, 3, 5)),
        coordinators=random.choice((1, 2, 2, 3, 3)),
        learners=random.choice((1, 2, 3, 3)),
        window=window,
        value_bytes=random.choice((40, 64, 96)),
        scalar_below=random.choice((1, 4, 8, 1000)),
        takeover_s=takeover_s,
        faults_s=random.uniform(2, 12) * takeover_s + 0.2,
        loss=0.0 if calm else random.choice((0.0, 0.02, 0.1, 0.25)),
        duplicate=0.0 if calm else random.choice((0.0, 0.05, 0.2)),
        delay_s=delay_s,
        straggle=0.0 if calm else random.choice((0.0, 0.02, 0.1)),
        straggle_s=random.choice((0.1, 1.0, 4.0)) * takeover_s,
        split=random.choice((0.0, 0.2, 0.8)),
        crash_gap_s=1e9 if calm else random.choice((0.4, 1.0, 3.0, 1e9)) * takeover_s,
        crash_in_step=0.0 if calm else random.choice((0.0, 0.001, 0.01)),
        down_s=random.choice((0.2, 1.0, 3.0)) * takeover_s,
        partition_gap_s=1e9 if calm else random.choice((0.4, 1.0, 2.0, 1e9)) * takeover_s,
        partition_s=random.choice((0.5, 2.0, 8.0)) * takeover_s,
        bursts=random.choice((10, 30, 60)),
        burst_commands=random.choice((1, 4, 12)),
        reads=random.choice((5, 20)),
        checkpoint_instances=window if lazy else window // 8,
        checkpoint_s=4 * takeover_s if lazy else 0.05,
        nag_gap_s=1e9 if calm else random.choice((0.005, 0.05, 1e9)),
        hard_of_hearing=not calm and random.random() < 0.3,
        real_log=random.random() < 0.25,
        pace_values=random.choice((0, 1, 2, 6)),
        long_commands=random.choice((0.05, 0.05, 0.5)),
        idle_beats=random.choice((1, 8)),
        forgets=0.0 if calm else random.choice((0.0, 0.0, 0.1, 0.5, 1.0)),
        move_gap_s=random.choice((1e9, 0.1, 1.0)) * takeover_s,
    )
