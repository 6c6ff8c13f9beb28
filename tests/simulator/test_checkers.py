"""Each checker finds what it is there for: a role that breaks one rule fails within some seeds."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from p4xos.effects import Role
from p4xos.testing.checkers import Violation
from p4xos.testing.simulator.processes import Classes, Process
from p4xos.testing.simulator.scenario import Scenario, draw
from p4xos.testing.simulator.world import Simulation

SEEDS = 60


def _load_sabotage() -> ModuleType:
    """The module beside this one: folders of tests are no packages."""
    path = Path(__file__).with_name("sabotage.py")
    spec = importlib.util.spec_from_file_location("simulator_sabotage", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


sabotage = _load_sabotage()

ONE_VALUE = {"One value a round"}
BUSY_READS = {
    "acceptors": 3, "learners": 3, "takeover_s": 0.25, "delay_s": 0.005, "faults_s": 1.5,
    "reads": 400, "bursts": 60, "crash_gap_s": 1e9, "crash_in_step": 0.0,
}  # fmt: skip
MOVING = {"move_gap_s": 0.02, "loss": 0.0, "crash_gap_s": 1e9, "partition_gap_s": 1e9}
SLOW = {"takeover_s": 0.25, "loss": 0.25}
BROKEN: list[tuple[str, dict[str, str], set[str], dict[str, Any]]] = [
    # name, role: class, invariants that may show it first, what the scenario is held to
    ("trap 1: answers stale rounds", {"acceptor": "AnswersStaleRounds"}, {"Promise"}, {}),
    ("trap 2: slots taken over", {"acceptor": "MovesLowByItself"}, {"Trim"}, {}),
    ("votes not persisted", {"acceptor": "DoesNotPersistVotes"}, {"Durability"}, {}),
    ("floor not persisted", {"acceptor": "DoesNotPersistFloor"}, {"Durability"}, {}),
    ("trap 3: any vote taken", {"coordinator": "TakesAnyVote"}, {"Agreement"}, {"duel": True}),
    ("votes ignored", {"coordinator": "IgnoresVotes"}, {"Agreement"}, {}),
    ("one promise", {"coordinator": "OnePromiseIsEnough"}, {"Agreement"}, {"duel": True}),
    ("refused proposed", {"coordinator": "ProposesRefused"}, {"Agreement"},
     {"duel": True, "first": 10}),
    ("trap 4: bitmap kept", {"learner": "KeepsOldVoters"}, {"Agreement"}, {"duel": True}),
    ("one vote chooses", {"learner": "OneVoteIsEnough"}, {"Agreement"}, {"acceptors": 3}),
    ("trap 5: no phase 1", {"coordinator": "SkipsPhase1"}, {"Agreement"}, {}),
    ("trap 5: no-op in its round", {"coordinator": "RecoversInItsRound"}, ONE_VALUE, {}),
    ("trap 7: first checkpoint", {"coordinator": "TrimsOnFirstCheckpoint"}, {"Trim"}, {}),
    ("trap 8: round reused", {"coordinator": "ReusesItsRound"}, {"One value a round"}, {}),
    ("trap 15: applied twice", {"learner": "AppliesTwice"}, {"Once"}, {}),
    ("gap skipped", {"learner": "SkipsGaps"}, {"Order", "Agreement"}, {}),
    ("wrong order", {"learner": "DeliversBackwards"}, {"Order"}, {}),
    ("own value delivered", {"learner": "DeliversItsOwnValue"}, {"Validity", "Agreement"}, {}),
    ("value made up", {"coordinator": "MakesValuesUp"}, {"Validity"}, {}),
    ("read of one acceptor", {"proposer": "AsksOneAcceptor"}, {"Reads"}, BUSY_READS),
    ("read joined", {"proposer": "JoinsReadsUnderWay"}, {"Reads"}, BUSY_READS),
    ("forgot, votes at once", {"forgetful": "VotesAtOnce"}, {"Agreement", "Reads", "Durability"},
     {"duel": True, "crash_gap_s": 0.1, "forgets": 1.0}),
    ("moved without its floor", {"acceptor": "LeavesItsFloor"}, {"Durability"}, MOVING),
    ("moved without its votes", {"acceptor": "LeavesItsVotes"}, {"Durability"}, MOVING),
    ("read before it was closed", {"acceptor": "ReadTooEarly"}, {"Durability"}, MOVING),
    ("moved without a takeover", {"coordinator": "NumbersOn"}, ONE_VALUE, MOVING),
    ("no takeover", {"coordinator": "NeverTakesOver"}, {"Liveness"}, {}),
    ("no retry", {"proposer": "NeverRetries"}, {"Liveness"}, SLOW),
    ("submissions forgotten", {"proposer": "ForgetsSubmissions"}, {"Liveness"}, SLOW),
]
BROKEN_DRIVERS: list[tuple[str, str, set[str]]] = [
    ("trap 14: persisted after sending", "PersistsAfterSending", {"Durability"}),
    ("trap 9: acceptor comes back empty", "ComesBackEmpty", {"Durability"}),
]


def harsh(seed: int, **held: Any) -> Scenario:
    """A seed's scenario with faults in it, all of a kind that the sabotage needs."""
    duel = held.pop("duel", False)
    scenario = draw(seed)
    crash_gap_s = min(scenario.crash_gap_s, 2 * scenario.takeover_s)
    scenario = replace(
        scenario, loss=max(scenario.loss, 0.05), crash_gap_s=crash_gap_s,
        partition_gap_s=min(scenario.partition_gap_s, 2 * scenario.takeover_s), real_log=False,
        pace_values=0, long_commands=0.05, idle_beats=1, forgets=0.0, move_gap_s=1e9,
    )  # fmt: skip
    if duel:
        scenario = replace(
            scenario, acceptors=3, coordinators=3, learners=3, loss=0.1, hard_of_hearing=True,
            nag_gap_s=0.005, crash_gap_s=1e9, straggle=0.1, window=16,
            partition_gap_s=0.5 * scenario.takeover_s, partition_s=2 * scenario.takeover_s,
            checkpoint_instances=16, checkpoint_s=4 * scenario.takeover_s,
            faults_s=12 * scenario.takeover_s + 0.3,
        )  # fmt: skip
    return replace(scenario, **held)


def first_violation(
    classes: Classes, process_types: dict[Role, type[Process]] | None = None, **held: Any
) -> str:
    """The invariant that the first failing seed names."""
    first = held.pop("first", 0)  # rare ones begin shortly before a seed that shows them
    for seed in range(first, first + SEEDS):
        simulation = Simulation(harsh(seed, **held), classes, process_types=process_types)
        try:
            simulation.run()
        except Violation as violation:
            return violation.invariant
    return "none"


@pytest.mark.parametrize(
    ("classes", "invariants", "held"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN]
)
def test_a_sabotaged_role_is_found(
    classes: dict[str, str], invariants: set[str], held: dict[str, Any]
) -> None:
    named = {role: getattr(sabotage, name) for role, name in classes.items()}
    assert first_violation(Classes(**named), **held) in invariants


@pytest.mark.parametrize(
    ("name", "invariants"), [b[1:] for b in BROKEN_DRIVERS], ids=[b[0] for b in BROKEN_DRIVERS]
)
def test_a_sabotaged_driver_is_found(name: str, invariants: set[str]) -> None:
    types = {Role.ACCEPTOR: getattr(sabotage, name)}
    assert first_violation(Classes(), types) in invariants


def test_the_harsh_scenarios_hold_without_sabotage() -> None:
    for seed in range(4):
        Simulation(harsh(seed, duel=True)).run()
        Simulation(harsh(seed)).run()
