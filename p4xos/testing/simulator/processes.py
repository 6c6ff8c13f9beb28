"""The processes of a simulated cluster: real roles, and what their drivers keep for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

from p4xos import checkpointed, wire
from p4xos.effects import (
    SENDS,
    Chosen,
    Delivery,
    Effects,
    ReadReady,
    Refused,
    Unknown,
)
from p4xos.quorum import NO_ROUND
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator, CoordinatorTiming
from p4xos.roles.learner import Learner
from p4xos.roles.pace import Budget
from p4xos.roles.proposer import Proposer, ProposerTiming
from p4xos.roles.rejoining import ForgetfulAcceptor
from p4xos.roles.sequencer import Sequencer
from p4xos.storage import AcceptorLog, Restored, create_mark
from p4xos.testing.disk import SimulatedCrash, SimulatedDisk
from p4xos.testing.fakes import AppliedLog, RecordLog
from p4xos.testing.simulator.network import Address
from p4xos.testing.simulator.scenario import Scenario
from p4xos.wire import Frame, Rows, Type

CLUSTER = 0x5EED
GROUP = 1
IN_FLIGHT_MAX = 256
SEGMENT_BYTES = 8_192
"""Of the real log: small, so that segments come and go within a short run."""


FORMER = object()
"""The token of the read that tells what a replica may have delivered before it was started."""


def own_sequencer(scenario: Scenario, frame: Frame) -> Sequencer:
    """A sequencer of the coordinator's own."""
    return Sequencer(
        frame=frame, window=scenario.window, value_bytes=scenario.value_bytes,
        scalar_below=scenario.scalar_below,
    )  # fmt: skip


@dataclass(frozen=True)
class Classes:
    """The role classes under test; a test of a checker passes a sabotaged one.

    Roles that move go to and fro between their first data plane and another one.
    """

    acceptor: type[Acceptor] = Acceptor
    coordinator: type[Coordinator] = Coordinator
    learner: type[Learner] = Learner
    proposer: type[Proposer] = Proposer
    forgetful: type[ForgetfulAcceptor] = ForgetfulAcceptor
    acceptor_elsewhere: type[Acceptor] | None = None
    """None: the same class, other registers."""
    sequencer_elsewhere: Callable[[Scenario, Frame], Sequencer] = own_sequencer


class Durable(Protocol):
    """Where an acceptor's records are: a RecordLog or an AcceptorLog."""

    def append(self, records: list[Rows]) -> None:
        """Durable when it returns."""


class Process:
    """One process of the cluster. Its clock is its own: only differences of times mean anything."""

    def __init__(
        self, address: Address, scenario: Scenario, classes: Classes, random: Random
    ) -> None:
        self.address = address
        self.id = address[1]
        self.scenario = scenario
        self.classes = classes
        self.random = random
        self.alive = False
        self.life = 0
        self.gone = False  # never to start again
        self.lost = False  # it lost its disk, and has not made up for it yet
        self.inbox: list[tuple[Address, Rows]] = []
        self.clock_ahead = random.uniform(0, 1000)
        self.wake_at: float | None = None  # the earliest tick that is scheduled
        self.frame = Frame(CLUSTER, GROUP, self.id)
        self.peer = wire.Peer(CLUSTER, GROUP, self.senders_of(address))

    @staticmethod
    def senders_of(address: Address) -> dict[int, int]:
        """The message types that a role sends."""
        return {int(type): address[1] for type in SENDS[address[0]]}

    def start(self, now: float) -> None:
        """Comes up with what its disk holds."""
        self.alive = True
        self.life += 1
        self.inbox.clear()
        self.wake_at = None

    def crash(self) -> None:
        """Everything in memory is lost."""
        self.alive = False
        self.inbox.clear()

    def lose_disk(self) -> None:
        """What it kept is gone; it is not alive."""
        self.lost = True

    @property
    def movable(self) -> bool:
        """Whether a role of it can go to another data plane now."""
        return False

    def move(self, now: float) -> Effects:
        """It goes there, between two steps."""
        raise NotImplementedError

    def step(self, rows: Rows, now: float) -> Effects:
        """A batch for its roles."""
        raise NotImplementedError

    def tick(self, now: float) -> Effects:
        """Time for its roles."""
        raise NotImplementedError

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        raise NotImplementedError

    def persist(self, records: list[Rows]) -> None:
        """Durable when it returns."""
        assert not records, "this process has no disk for records"

    def persist_in_part(self, records: list[Rows]) -> None:
        """The crash comes in the middle of it."""

    def check_invariants(self) -> None:
        """Each role's own."""
        raise NotImplementedError


class AcceptorProcess(Process):
    """An acceptor with its log."""

    def __init__(
        self, address: Address, scenario: Scenario, classes: Classes, random: Random
    ) -> None:
        super().__init__(address, scenario, classes, random)
        self.record_log = RecordLog()
        self.disk: SimulatedDisk | None = None
        self.directory = Path(f"/acceptor{self.id}")
        if scenario.real_log:
            self.disk = SimulatedDisk()
            create_mark(
                self.directory, cluster=CLUSTER, group=GROUP, acceptor=self.id, disk=self.disk
            )
        self._log: Durable = self.record_log
        self._elsewhere = False  # it has moved, and comes up there
        self.forgetful: ForgetfulAcceptor | None = None

    def start(self, now: float) -> None:
        """Comes up with what its disk holds."""
        super().start(now)
        scenario = self.scenario
        self.role = self._empty()
        self.forgetful = None
        if self.lost:
            self.record_log = RecordLog()
            self._log = self.record_log
            self.forgetful = self.classes.forgetful(
                self.role, learners=scenario.learners, random=self.random.random, now=now,
                ask_every_s=scenario.takeover_s / 8,
            )  # fmt: skip
            if self.disk is not None:
                self.disk = SimulatedDisk()
            else:
                self.record_log.carry_over = self.role.carry_over
            return
        if self.disk is None:
            self.record_log.carry_over = self.role.carry_over
            self.role.restore(self.record_log.records())
            return
        opened = AcceptorLog.open(
            self.directory, cluster=CLUSTER, group=GROUP, acceptor=self.id,
            window=scenario.window, carry_over=self.role.carry_over,
            segment_bytes=SEGMENT_BYTES, disk=self.disk,
            draw_salt=lambda: self.random.getrandbits(32),
        )  # fmt: skip
        assert isinstance(opened, Restored), f"the log was damaged: {opened}"
        self.role.restore(opened.records)
        self._log = opened.log

    def _empty(self) -> Acceptor:
        scenario, classes = self.scenario, self.classes
        make = classes.acceptor_elsewhere if self._elsewhere else classes.acceptor
        return (make or classes.acceptor)(
            frame=self.frame, acceptors=scenario.acceptors, window=scenario.window,
            value_bytes=scenario.value_bytes, scalar_below=scenario.scalar_below,
        )  # fmt: skip

    @property
    def movable(self) -> bool:
        """One with a log of files stays where that is."""
        return self.alive and not self.lost and self.disk is None

    def move(self, now: float) -> Effects:
        """It takes all that it must remember along (docs/PROTOCOL.md, section 8)."""
        self._elsewhere = not self._elsewhere
        before, self.role = self.role, self._empty()
        self.role.take(before.leave())
        before.close()
        self.forgetful = None
        self.record_log.carry_over = self.role.carry_over
        return Effects.none()

    def crash(self) -> None:
        """The disk keeps what was synced, and any part of the rest."""
        super().crash()
        if self.disk is not None:
            self.disk.crash_randomly(self.random)

    def forgetful_status(self) -> str:
        """How far it has come with joining again."""
        return "" if self.forgetful is None else self.forgetful.status()

    @property
    def machine(self) -> Acceptor | ForgetfulAcceptor:
        """Its role, behind what brings it back after it forgot."""
        return self.forgetful or self.role

    def step(self, rows: Rows, now: float) -> Effects:
        """A batch for its role."""
        return self.machine.step(rows, now)

    def tick(self, now: float) -> Effects:
        """Time for its role."""
        return self.machine.tick(now)

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        return self.machine.deadline()

    def persist(self, records: list[Rows]) -> None:
        """Durable when it returns; what it joins with makes it one that remembers again."""
        if self.lost and records:
            if self.disk is not None:
                self._log = AcceptorLog.begin(
                    self.directory, cluster=CLUSTER, group=GROUP, acceptor=self.id,
                    window=self.scenario.window, carry_over=self.role.carry_over,
                    segment_bytes=SEGMENT_BYTES, disk=self.disk,
                    draw_salt=lambda: self.random.getrandbits(32),
                )  # fmt: skip
            self.lost = False
        self._log.append(records)

    def persist_in_part(self, records: list[Rows]) -> None:
        """The crash comes in the middle of it."""
        if not records or self.lost:
            return
        if self.disk is None:
            self._log.append(records[: self.random.randint(0, len(records))])
            return
        self.disk.crash_at = len(self.disk.calls) + self.random.randint(0, 4)
        with suppress(SimulatedCrash):
            self._log.append(records)

    def check_invariants(self) -> None:
        """Each role's own."""
        self.machine.check_invariants()


class CoordinatorProcess(Process):
    """A coordinator with its round file."""

    def __init__(
        self, address: Address, scenario: Scenario, classes: Classes, random: Random
    ) -> None:
        super().__init__(address, scenario, classes, random)
        self.round_file = NO_ROUND
        self._elsewhere = False  # its sequencer has moved, and comes up there
        self.hard_of_hearing = scenario.hard_of_hearing
        takeover_s = scenario.takeover_s
        self.timing = CoordinatorTiming(
            heartbeat_s=takeover_s / 5, takeover_s=takeover_s, retry_s=takeover_s / 8,
            stall_s=takeover_s, backoff_max_s=8 * takeover_s, idle_beats=scenario.idle_beats,
        )  # fmt: skip

    def start(self, now: float) -> None:
        """Comes up with what its disk holds."""
        super().start(now)
        scenario = self.scenario
        self.role = self.classes.coordinator(
            frame=self.frame, coordinators=tuple(range(scenario.coordinators)),
            acceptors=scenario.acceptors, learners=scenario.learners, window=scenario.window,
            value_bytes=scenario.value_bytes, random=self.random.random, now=now,
            last_round=self.round_file, timing=self.timing, queue_messages=64,
            scalar_below=scenario.scalar_below,
        )  # fmt: skip
        if self._elsewhere:
            self.role.move(self.classes.sequencer_elsewhere(scenario, self.frame), now)

    @property
    def movable(self) -> bool:
        """At any time."""
        return self.alive

    def move(self, now: float) -> Effects:
        """Its requests are numbered elsewhere (docs/PROTOCOL.md, section 4)."""
        self._elsewhere = not self._elsewhere
        make = self.classes.sequencer_elsewhere if self._elsewhere else own_sequencer
        before = self.role.sequencer
        effects = self.role.move(make(self.scenario, self.frame), now)
        before.close()
        return effects

    def lose_disk(self) -> None:
        """Its rounds are what a majority of acceptors tells: nothing has to be made up for."""
        self.round_file = NO_ROUND

    def step(self, rows: Rows, now: float) -> Effects:
        """A batch for its role."""
        if self.hard_of_hearing and self.random.random() < 0.5:
            # Of a round only its uniqueness matters for safety: what it is told of may be old.
            # So a promise to a higher round meets a phase 1 in a lower one far more often.
            header = wire.headers(rows)
            header["round"][header["type"] == Type.READ_INDEX_REPLY] = NO_ROUND
            self.role.highest_told = NO_ROUND
        return self.role.step(rows, now)

    def tick(self, now: float) -> Effects:
        """Time for its role."""
        return self.role.tick(now)

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        return self.role.deadline()

    def persist(self, records: list[Rows]) -> None:
        """Durable when it returns."""
        for rows in records:
            for m in wire.messages(rows):
                assert m.type == Type.HEARTBEAT
                self.round_file = m.round

    def persist_in_part(self, records: list[Rows]) -> None:
        """The crash comes in the middle of it."""
        self.persist(records[: self.random.randint(0, len(records))])

    def check_invariants(self) -> None:
        """Each role's own."""
        self.role.check_invariants()


@dataclass
class Submission:
    """A command on its way."""

    payload: bytes
    ticket: int
    since: float


@dataclass
class Read:
    """A linearizable read on its way: its number, and the index to wait for."""

    number: int
    index: int | None = None


class ReplicaProcess(Process):
    """A learner and a proposer that share an address, and the application's state."""

    def __init__(
        self, address: Address, scenario: Scenario, classes: Classes, random: Random
    ) -> None:
        super().__init__(address, scenario, classes, random)
        self.durable = AppliedLog()
        self.state = AppliedLog()
        takeover_s = scenario.takeover_s
        self.timing = ProposerTiming(
            retry_s=0.6 * takeover_s, retry_max_s=4 * takeover_s, read_retry_s=takeover_s / 8,
            deadline_s=20 * takeover_s,
        )  # fmt: skip
        least = scenario.pace_values * wire.stride_for(scenario.value_bytes)
        self.budget = Budget(2 * least, least, 16 * least, least) if least else None
        self.in_flight: dict[int, Submission] = {}
        self.reads: dict[int, Read] = {}
        self.tail: deque[Chosen] = deque(maxlen=64)
        self._tickets: dict[tuple[int, int], int] = {}  # of deliveries not applied yet
        self.fetching = False
        self.asks_former = False
        self.on_read: Callable[[ReplicaProcess, int], None] = lambda replica, number: None
        self.on_done: Callable[[ReplicaProcess, Submission, Delivery | None, bytes], None]
        self.outcomes = {"delivered": 0, "unknown": 0, "reads": 0, "reads_failed": 0}

    def start(self, now: float) -> None:
        """Comes up with what its disk holds."""
        super().start(now)
        scenario = self.scenario
        self.state = self.durable.copy()
        self.in_flight.clear()
        self.reads.clear()
        self.tail.clear()
        self._tickets.clear()
        self.fetching = False
        self.asks_former = False
        self.learner = self.classes.learner(
            frame=self.frame, acceptors=scenario.acceptors, window=scenario.window,
            value_bytes=scenario.value_bytes, delivered=self.state.applied,
            sessions=checkpointed.unpack(self.state.learner_state),
            scalar_below=scenario.scalar_below,
        )  # fmt: skip
        self.proposer = self.classes.proposer(
            frame=self.frame, acceptors=scenario.acceptors, window=scenario.window,
            value_bytes=scenario.value_bytes, random=self.random.random, timing=self.timing,
            in_flight_max=IN_FLIGHT_MAX, budget=self.budget,
        )  # fmt: skip

    def step(self, rows: Rows, now: float) -> Effects:
        """A batch for its role."""
        if self.learner.takes_late_votes(rows):
            return Effects.none()
        effects = self.learned(self.learner.step(rows, now), now)
        effects.extend(self.proposer.step(rows, now))
        return effects

    def tick(self, now: float) -> Effects:
        """Time for its role."""
        effects = self.learner.tick(now)
        if effects.send:
            self.proposer.slow_down(now)
        effects.extend(self.proposer.tick(now))
        return effects

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        times = [self.learner.deadline(), self.proposer.deadline()]
        return min((time for time in times if time is not None), default=None)

    def learned(self, effects: Effects, now: float) -> Effects:
        """What the learner did, and then what its proposer makes of it."""
        more = Effects.none()
        tickets = self.proposer.delivered(effects.deliver, now, more)
        for event, first in zip(effects.deliver, tickets, strict=True):
            if isinstance(event, Delivery) and first is not None:
                for offset in range(len(event.lengths)):
                    self._tickets[event.session, event.sequence + offset] = first + offset
        effects.extend(more)
        return effects

    def deliver(self, effects: Effects) -> None:
        """Applies what was delivered, in order, and tells callers."""
        for event in effects.deliver:
            if isinstance(event, Delivery):
                self._apply(event)
            elif isinstance(event, Unknown):
                for ticket in event.tickets:
                    self._finish(ticket, None, b"")
            elif isinstance(event, ReadReady):
                for token in event.tokens:
                    if token is FORMER:
                        self.asks_former = False
                        self.learner.former = event.read_index
                        continue
                    assert isinstance(token, int)
                    self._read_ready(token, event.read_index)
            elif isinstance(event, Refused):
                pass  # never applied
        self.tail.extend(effects.chosen)
        self.state.applied = self.learner.delivered
        for read in list(self.reads.values()):
            if read.index is not None and read.index <= self.state.applied:
                del self.reads[read.number]
                self.outcomes["reads"] += 1
                self.on_read(self, read.number)

    def _apply(self, event: Delivery) -> None:
        for offset, payload in enumerate(event.payloads()):
            self.state.commands.append(payload)
            ticket = self._tickets.pop((event.session, event.sequence + offset), None)
            if ticket is not None:
                self._finish(ticket, event, payload)

    def _finish(self, ticket: int, event: Delivery | None, payload: bytes) -> None:
        submission = self.in_flight.pop(ticket, None)
        if submission is None:
            return  # a fragment's ticket, or one reported before
        self.outcomes["unknown" if event is None else "delivered"] += 1
        self.on_done(self, submission, event, payload)

    def _read_ready(self, number: int, index: int | None) -> None:
        if index is None:
            del self.reads[number]
            self.outcomes["reads_failed"] += 1
        else:
            self.reads[number].index = index

    def checkpoint(self, now: float) -> Effects:
        """State, applied instance and session table become durable together."""
        if self.state.applied > self.durable.applied:
            self.keep_sessions()
            self.durable = self.state.copy()
        effects = self.learner.checkpoint(self.durable.applied)
        self.lost = self.lost and not effects.send
        if self.learner.former is None and not self.asks_former:
            self.asks_former = True
            self.proposer.read(FORMER, now, effects)
        return effects

    def lose_disk(self) -> None:
        """The whole of the state."""
        super().lose_disk()
        self.durable = AppliedLog()

    def keep_sessions(self) -> None:
        """Brings the learner's part of the state up to its commands."""
        checkpointed.merge(
            self.state.learner_state, checkpointed.changes_of(self.learner.sessions)
        )

    def install(self, snapshot: AppliedLog, now: float) -> Effects:
        """Takes another replica's state; durable before it is used."""
        self.durable = snapshot.copy()
        self.state = snapshot.copy()
        self.tail.clear()
        self.learner.install(snapshot.applied, checkpointed.unpack(snapshot.learner_state))
        effects = Effects.none()
        self.proposer.installed(now, effects)
        return effects

    def check_invariants(self) -> None:
        """Each role's own."""
        self.learner.check_invariants()
        self.proposer.check_invariants()
