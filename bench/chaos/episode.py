"""One seed's worth of chaos: a new cluster, rounds of faults under load, and a verdict on each.

A round: clients work while faults come and go in bouts; all is mended; the nodes must be ready and
take writes again, with the clients still at it; the clients stop, and read everything once more at
every node; all replicas must have the same state; what the clients saw must be linearizable.

Everything that is drawn comes from the seed. When things happen is up to the machine, so the same
seed plays the same faults, and need not show the same race again.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

from bench.chaos.cluster import ChaosCluster, Violation
from bench.chaos.faults import Fault, FullDisk
from bench.chaos.schedule import AT_ONCE, Schedule
from bench.errors import BenchError
from bench.processes import Child, Unmet, python_module, wait_until
from kvstore.checking import Attempt, Judged, judge, read_history
from p4xos.creation import CLUSTER_NAME

ROUNDS = 3
BOUTS = 6
"""Of a round, at least; the first goes on until each kind of fault has come."""
CALM_ANSWERS = 1000
"""That clients get between two bouts of faults, so that there is something to be lost."""
CLIENTS = 48
KEYS = 48
WINDOWS = (256, 1024, 65536)
"""Instances that acceptors hold. A small one makes a node that was away for a second fetch a
snapshot; the largest is what users have."""
_FINISH_LIMIT_S = 600.0
"""Until the clients have read everything once more; far longer than it takes."""

_NOTICE_S = 0.5
"""Between two signals, which else count as one."""


@dataclass
class Plan:
    """What an episode is made of; the seed draws the rest."""

    seed: int
    kinds: Sequence[type[Fault]]
    nodes: int = 3
    separate: bool = False
    rounds: int = ROUNDS
    bouts: int = BOUTS
    at_once: int = AT_ONCE
    calm_answers: int = CALM_ANSWERS
    environment: dict[str, str] = field(default_factory=dict)


@dataclass
class Round:
    """What one round saw; a line of the results."""

    seed: int
    round: int
    nodes: int
    separate: bool
    window: int
    singly: bool
    verdict: str = "unfinished"
    problem: str = ""
    operations: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)
    commands: dict[str, int] = field(default_factory=dict)
    faults: dict[str, int] = field(default_factory=dict)
    bites: dict[str, int] = field(default_factory=dict)
    kills: int = 0
    longest_gap_s: float = 0.0
    """The longest time without an acknowledged write."""

    @property
    def good(self) -> bool:
        """Whether every promise was kept."""
        return self.verdict == "linearizable"

    def data(self) -> dict[str, object]:
        """For scripts."""
        return {"scenario": "chaos", **asdict(self)}


class Episode:
    """Plays one plan."""

    def __init__(self, plan: Plan, directory: Path, say: Callable[[str], None]) -> None:
        """Nothing runs yet.

        Args:
          plan: what to play.
          directory: empty, or not there; the caller removes it.
          say: is told what happens.
        """
        self.rounds: list[Round] = []
        """Those begun, the last of them unfinished when `play` was interrupted."""
        self._plan = plan
        self._directory = directory
        self._say = say
        self._chance = random.Random(plan.seed)

    def play(self) -> bool:
        """Plays all rounds, or until one shows a broken promise; whether all were kept.

        Raises:
          BenchError: the run could not do its part; it says nothing about the cluster.
        """
        plan, chance = self._plan, self._chance
        window, singly = chance.choice(WINDOWS), chance.random() < 0.5

        def new_round() -> Round:
            number = len(self.rounds)
            return Round(plan.seed, number, plan.nodes, plan.separate, window, singly)

        with ChaosCluster(
            self._directory, nodes=plan.nodes, separate=plan.separate, window=window,
            small_disk=FullDisk in plan.kinds, environment=plan.environment,
        ) as cluster:  # fmt: skip
            if singly:
                cluster.network.send_singly()
            schedule = Schedule(cluster, plan.kinds, chance, self._say, plan.at_once)
            try:
                cluster.start()
                for _ in range(plan.rounds):
                    record = new_round()
                    self.rounds.append(record)
                    self._play_round(cluster, schedule, record)
                    self._say(_summary(record))
                    if not record.good:
                        break
            except Violation as violation:
                if not self.rounds:
                    self.rounds.append(new_round())
                record = self.rounds[-1]
                record.verdict = "violation"
                record.problem = f"{violation}\n{record.problem}".strip()
                self._say(_summary(record))
            finally:
                if not all(record.good for record in self.rounds):
                    cluster.keep_small_disk()
        return all(record.good for record in self.rounds)

    def _play_round(self, cluster: ChaosCluster, schedule: Schedule, record: Round) -> None:
        """One round; what it saw goes into the record also when it raises."""
        history = self._directory / f"history-{record.round}.jsonl"
        seed = self._chance.getrandbits(32)
        flags = {
            "cluster": cluster.cluster.directory / CLUSTER_NAME, "history": history, "seed": seed,
            "clients": CLIENTS, "keys": KEYS,
        }  # fmt: skip
        words = [word for flag, value in flags.items() for word in (f"--{flag}", str(value))]
        command = cluster.network.clients.command(python_module("bench.chaos.clients", *words))
        clients = Child("clients", command, self._directory / f"clients-{record.round}.txt")
        cluster.helpers.append(clients)
        before = (Counter(schedule.counts), Counter(schedule.bites), cluster.kills)
        try:
            progress = Progress(history)
            bouts = 0
            while bouts < self._plan.bouts or schedule.unplayed:
                self._wait_for_answers(cluster, clients, progress)
                schedule.play_bout()
                bouts += 1
            self._say("all is mended")
            cluster.wait_until_serving()
            clients.process.terminate()
            if clients.wait(_FINISH_LIMIT_S):
                raise Violation(f"the clients could not end as they should: {clients.last_lines()}")
            cluster.wait_until_alike()
            cluster.compare()
        finally:
            complete = _ended(clients)
            record.faults = dict(schedule.counts - before[0])
            record.bites = dict(schedule.bites - before[1])
            record.kills = cluster.kills - before[2]
            if complete:
                # Judged also when another promise was found broken: it may say why.
                attempts = read_history(history)
                self._note(record, attempts, judge(attempts))

    def _wait_for_answers(self, cluster: ChaosCluster, clients: Child, progress: Progress) -> None:
        """Returns when the clients have got so many more answers: the cluster serves.

        Raises:
          Violation: it does not, though nothing hinders it.
        """
        answered = progress.answered()
        target = answered + self._plan.calm_answers

        def served() -> bool:
            cluster.check_running()
            if not clients.running:
                raise BenchError(f"the clients ended by themselves: {clients.last_lines()}")
            return progress.answered() > answered

        # Any answer will do before the limit: how many come in it is up to the machine.
        while answered < target:
            try:
                wait_until(served, cluster.heal_limit_s, "serving")
            except Unmet:
                waited = f"{cluster.heal_limit_s:g} s though nothing hindered the cluster"
                raise Violation(f"no client got an answer in {waited}") from None
            answered = progress.answered()

    def _note(self, record: Round, attempts: Sequence[Attempt], judged: Judged) -> None:
        record.verdict = judged.verdict.judgement
        record.operations = judged.attempts
        record.outcomes = judged.outcomes
        record.commands = judged.commands
        record.longest_gap_s = longest_gap_s(attempts)
        if not record.good:
            record.problem = "\n".join(judged.lines())
            verdict = self._directory / f"verdict-{record.round}.txt"
            verdict.write_text(record.problem + "\n")


class Progress:
    """How many answers the clients have got, by their history as it grows."""

    def __init__(self, history: Path) -> None:
        """With none."""
        self._history = history
        self._read = 0
        self._answered = 0

    def answered(self) -> int:
        """All answers so far, but for the last few, which are not written yet."""
        if self._history.exists():
            with self._history.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            whole = new[: new.rfind(b"\n") + 1]
            self._read += len(whole)
            self._answered += whole.count(b'"outcome": "answered"')
        return self._answered


def _ended(clients: Child) -> bool:
    """Ends the clients if they have not; whether their history is complete.

    Of a history that lacks what was done last nothing can be said: a read may be of a write that
    was not written down.
    """
    for _ in range(2):
        if clients.running:
            clients.process.terminate()
            time.sleep(_NOTICE_S)
    try:
        return clients.wait() >= 0
    except BenchError:
        return False


def longest_gap_s(attempts: Sequence[Attempt]) -> float:
    """The longest time in which no write was acknowledged, from the first attempt on."""
    if not attempts:
        return 0.0
    ends = sorted(a.ended for a in attempts if a.outcome == "answered" and a.command[0] != b"GET")
    moments = [min(a.called for a in attempts), *ends]
    return max((b - a for a, b in pairwise(moments)), default=0) / 1e9


def _summary(record: Round) -> str:
    """A round in a line."""
    outcomes = ", ".join(f"{count} {name}" for name, count in record.outcomes.items())
    told = (
        f"seed {record.seed}, round {record.round}: {record.verdict}; {record.operations} "
        f"operations ({outcomes}); {sum(record.faults.values())} faults, {record.kills} kills; "
        f"longest time without an acknowledged write {record.longest_gap_s:.1f} s"
    )
    return told + (f"\n{record.problem}" if record.problem else "")
