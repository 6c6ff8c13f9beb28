"""Roles and drivers that break one rule each: what the checkers are there to find."""

from __future__ import annotations

from collections import deque

import numpy as np

from p4xos import wire
from p4xos.effects import ACCEPTORS, Delivery, Effects
from p4xos.envelope import ENVELOPE_BYTES
from p4xos.quorum import NO_ROUND, make_round
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator
from p4xos.roles.learner import Learner
from p4xos.roles.memory import Memory
from p4xos.roles.proposer import Proposer
from p4xos.roles.reads import Answer, ReadIndex
from p4xos.roles.rejoining import ForgetfulAcceptor, Stage
from p4xos.roles.sequencer import Sequencer
from p4xos.roles.sessions import SequenceSet
from p4xos.testing.checkers import unpack
from p4xos.testing.fakes import RecordLog
from p4xos.testing.simulator.processes import AcceptorProcess
from p4xos.wire import HEADER_BYTES, Message, Rows, Type, headers

# Acceptors ---------------------------------------------------------------------------------------


class AnswersStaleRounds(Acceptor):
    """Takes every round for a current one (trap 1)."""

    def step(self, rows: Rows, now: float) -> Effects:
        self.floor = NO_ROUND
        self.slot_round[:] = self.slot_vround
        return super().step(rows, now)


class MovesLowByItself(Acceptor):
    """Believes that the window follows its votes: slots are taken over too early (trap 2)."""

    def step(self, rows: Rows, now: float) -> Effects:
        instances = headers(rows)["instance"][headers(rows)["type"] == Type.PHASE2A]
        if len(instances):
            self._raise_low(max(int(instances.max()) - 4, 1), 0)
        return super().step(rows, now)


class DoesNotPersistVotes(Acceptor):
    """Votes leave and are nowhere on its disk."""

    def step(self, rows: Rows, now: float) -> Effects:
        effects = super().step(rows, now)
        kept = [r for r in effects.persist if headers(r)["type"][0] != Type.PHASE2B]
        return effects._replace(persist=kept)


class LeavesItsFloor(Acceptor):
    """Takes its votes along when it moves, and not the promise for all the others."""

    def leave(self) -> Memory:
        return super().leave()._replace(floor=NO_ROUND)


class LeavesItsVotes(Acceptor):
    """Takes its promises along when it moves, and no slot."""

    def leave(self) -> Memory:
        memory = super().leave()
        return memory._replace(
            instance=memory.instance[:0], round=memory.round[:0], vround=memory.vround[:0],
            length=memory.length[:0], value=memory.value[:0],
        )  # fmt: skip


class ReadTooEarly(Acceptor):
    """Its registers are read before its port is closed: the last step comes between."""

    _early: Memory | None = None

    def step(self, rows: Rows, now: float) -> Effects:
        self._early = super().leave()
        return super().step(rows, now)

    def leave(self) -> Memory:
        return self._early or super().leave()


class DoesNotPersistFloor(Acceptor):
    """A promise for the whole log is kept in memory only."""

    def step(self, rows: Rows, now: float) -> Effects:
        effects = super().step(rows, now)
        kept = [r for r in effects.persist if headers(r)["type"][0] != Type.RECORDED]
        return effects._replace(persist=kept)


class OverwritesVotes(Acceptor):
    """A second value in the round of its vote takes the vote's place."""

    def step(self, rows: Rows, now: float) -> Effects:
        proposed = headers(rows)[headers(rows)["type"] == Type.PHASE2A]
        slots = proposed["instance"].astype(np.int64) & (self.window - 1)
        self.slot_vround[slots] = np.where(
            self.slot_instance[slots] == proposed["instance"], NO_ROUND, self.slot_vround[slots]
        )
        return super().step(rows, now)


class PersistsAfterSending(AcceptorProcess):
    """What a step persists reaches the disk with the next one (trap 14)."""

    waiting: list[Rows]

    def start(self, now: float) -> None:
        self.waiting = []
        super().start(now)

    def persist(self, records: list[Rows]) -> None:
        super().persist(self.waiting)
        self.waiting = [rows.copy() for rows in records]


class ComesBackEmpty(AcceptorProcess):
    """A restart finds nothing and votes at once (trap 9)."""

    def start(self, now: float) -> None:
        self.record_log = self._log = RecordLog()
        super().start(now)


# Coordinators ------------------------------------------------------------------------------------


class ReusesItsRound(Coordinator):
    """Draws the same round in every life (trap 8)."""

    def _fresh_round(self, effects: Effects) -> None:
        self.round = make_round(1, self.frame.sender)
        effects.persist.append(self._encode(Type.HEARTBEAT, round=self.round))


class SkipsPhase1(Coordinator):
    """Serves in a fresh round without asking what was voted for (trap 5)."""

    def _prepare(self, now: float, effects: Effects) -> None:
        super()._prepare(now, effects)
        assert self._promises is not None
        self._promises.highest = lambda members: 0  # type: ignore[method-assign]
        self._win((), now, effects)


class IgnoresVotes(Coordinator):
    """Proposes no-ops where phase 1 found votes."""

    def _win(self, members: tuple[int, ...], now: float, effects: Effects) -> None:
        assert self._promises is not None
        self._promises.found = lambda instance: b""  # type: ignore[method-assign]
        super()._win(members, now, effects)


class NumbersOn(Coordinator):
    """Moves without a takeover: goes on in its round from where it read `next`, a little late."""

    def move(self, sequencer: Sequencer, now: float) -> Effects:
        before, self.sequencer = self.sequencer, sequencer
        sequencer.low, sequencer.round = before.low, before.round
        sequencer.next = max(before.next - 1, before.low)
        sequencer.counters.update(self.counters)
        self.counters = sequencer.counters
        before.round = NO_ROUND
        return Effects.none()


class TakesAnyVote(Coordinator):
    """Takes the last vote told, not that of the highest vround (trap 3)."""

    def _phase1b(self, rows: Rows, now: float, effects: Effects) -> None:
        if self._promises is not None:
            self._promises.found_vround[:] = 0
        super()._phase1b(rows, now, effects)


class ProposesRefused(Coordinator):
    """Counts a promise of a higher round as one of its own, without the vote that it tells."""

    def _propose_found(self, now: float, effects: Effects) -> None:
        if self._promises is not None:
            self._promises.refused.clear()
        super()._propose_found(now, effects)


class OnePromiseIsEnough(Coordinator):
    """Takes one acceptor for a quorum."""

    def _phase1b(self, rows: Rows, now: float, effects: Effects) -> None:
        promises = self._promises
        if promises is not None:

            def first_complete() -> tuple[int, ...] | None:
                return next(((a,) for a in promises._reports if promises._complete(a)), None)

            promises.quorum = first_complete  # type: ignore[method-assign]
        super()._phase1b(rows, now, effects)


class RecoversInItsRound(Coordinator):
    """Fills holes with no-ops in its own round, without phase 1 (trap 5)."""

    def _recover_instance(self, instance: int, now: float, effects: Effects) -> None:
        proposal = self._encode_proposal(instance, self.sequencer.round, b"")
        effects.send.append((ACCEPTORS, proposal))


class TrimsOnFirstCheckpoint(Coordinator):
    """`low` follows the fastest learner (trap 7)."""

    def _checkpoint_reports(self, rows: Rows, now: float, effects: Effects) -> None:
        self._raise_low(int(headers(rows)["instance"].max()) + 1)
        super()._checkpoint_reports(rows, now, effects)


class MakesValuesUp(Coordinator):
    """Changes a byte of what it was asked to propose."""

    def _propose(self, rows: Rows, effects: Effects) -> None:
        commands = rows[:, HEADER_BYTES + 7 : HEADER_BYTES + 8].any(axis=1)  # of a session
        rows[commands, HEADER_BYTES + ENVELOPE_BYTES] |= 0x80
        super()._propose(rows, effects)


class NeverTakesOver(Coordinator):
    """Waits for ever."""

    def deadline(self) -> float | None:
        return None


# Learners and proposers --------------------------------------------------------------------------


class KeepsOldVoters(Learner):
    """A new round's count begins with the voters of the old one (trap 4)."""

    def _set(self, slot: int, round: int, voters: int, value: bytes) -> None:
        super()._set(slot, round, voters | int(self.slot_voters[slot]), value)


class OneVoteIsEnough(Learner):
    """Delivers what a single acceptor has voted for."""

    def _set(self, slot: int, round: int, voters: int, value: bytes) -> None:
        super()._set(slot, round, voters, value)
        self.slot_chosen[slot] = True


class SkipsGaps(Learner):
    """Goes on behind an instance that is missing."""

    def _ask(self, now: float, effects: Effects) -> None:
        self._empty_slots(1)
        self.delivered += 1
        self._deliver(effects)
        self._watch_gap(now, effects)


class AppliesTwice(Learner):
    """Forgets what each session has delivered (trap 15)."""

    def step(self, rows: Rows, now: float) -> Effects:
        for session in self.sessions._sessions.values():
            session.delivered = SequenceSet()
        return super().step(rows, now)


class DeliversBackwards(Learner):
    """Gives the deliveries of one step in the wrong order."""

    def step(self, rows: Rows, now: float) -> Effects:
        effects = super().step(rows, now)
        effects.deliver.reverse()
        return effects


class DeliversItsOwnValue(Learner):
    """Applies something else than what was chosen."""

    def step(self, rows: Rows, now: float) -> Effects:
        effects = super().step(rows, now)
        for k, event in enumerate(effects.deliver):
            if isinstance(event, Delivery) and self.frame.sender == 0:
                values = event.values.copy()
                values[:, :1] ^= 1
                effects.deliver[k] = event._replace(values=values)
        return effects


class AsksOneAcceptor(Proposer):
    """Takes a single acceptor's answer for a read index."""

    def step(self, rows: Rows, now: float) -> Effects:
        self._read_index.__class__ = TakesTheFirstReply
        return super().step(rows, now)


class TakesTheFirstReply(ReadIndex):
    """Whoever it comes from, and no matter what the others would tell."""

    def reply(self, m: Message) -> Answer | None:
        if not self.under_way or m.vround != self._nonce:
            return None
        self.stop()
        return Answer(max(m.instance, m.low - 1), m.round)


class JoinsReadsUnderWay(Proposer):
    """Lets an exchange answer reads that arrived after it was sent."""

    def step(self, rows: Rows, now: float) -> Effects:
        if self._read_index.under_way:
            self._reads_asked += self._reads_waiting
            self._reads_waiting = []
        return super().step(rows, now)


class NeverRetries(Proposer):
    """Sends each value once and gives none up."""

    def _look_at_submissions(self, now: float, effects: Effects) -> None:
        self._look_at = None


class ForgetsSubmissions(Proposer):
    """Loses what waits for a session."""

    def _opened(self, session: int, now: float, effects: Effects) -> None:
        self._unsent = deque()
        super()._opened(session, now, effects)


# Acceptors that forgot ----------------------------------------------------------------------------


class VotesAtOnce(ForgetfulAcceptor):
    """Comes back empty and takes part, as if it had never promised or voted."""

    def tick(self, now: float) -> Effects:
        effects = Effects.none()
        if self.stage is not Stage.JOINED:
            seen = self.acceptor.seen
            record = self.acceptor.join(incarnation=0, round=NO_ROUND, low=1, seen=seen)
            effects.persist.append(record)
            self.stage = Stage.JOINED
            self._ask_at = None
        return effects


class SharesOneEpoch(Acceptor):
    """Everyone's incarnation is the latest that anybody was told of: one epoch for the group.

    Promises then count together when their epochs are equal, which is what section 4's rule on
    `seen` says where all entries are.
    """

    def share(self) -> None:
        epoch = max(self.incarnation, *self.seen)
        self.incarnation = epoch
        self.seen = (epoch,) * len(self.seen)

    def join(self, *, incarnation: int, round: int, low: int, seen: tuple[int, ...]) -> Rows:
        super().join(incarnation=incarnation, round=round, low=low, seen=seen)
        self.share()
        return self._registers()

    def _record(self, m: Message, effects: Effects) -> None:
        own = list(self.seen)
        own[self.id] = self.incarnation
        self.seen = tuple(own)
        super()._record(m, effects)
        self.share()
        self._registers_changed = True


class AsksTheEpoch(ForgetfulAcceptor):
    """Takes the epoch after the one that it is told of."""

    def _recorded(self, m: Message) -> None:
        seen = wire.unpack_seen(m.value, self._acceptors)
        epoch = (max(seen),) * len(seen)
        super()._recorded(m._replace(value=wire.pack_seen(epoch)))


class JoinsAtOnce(ForgetfulAcceptor):
    """Is not silent until what it voted for is forgotten."""

    def _advance(self, now: float, effects: Effects) -> None:
        super()._advance(now, effects)
        if self.stage is Stage.SILENT:
            self.silent_until = self.low
            super()._advance(now, effects)


class ForgetsNoPromise(ForgetfulAcceptor):
    """Asks for no round: what it promised before it forgot is not kept."""

    def _advance(self, now: float, effects: Effects) -> None:
        self._told = dict.fromkeys(self._told, NO_ROUND)
        super()._advance(now, effects)


class CountsAnyIncarnation(Coordinator):
    """Takes a promise from before an acceptor forgot for one of today."""

    def _phase1b(self, rows: Rows, now: float, effects: Effects) -> None:
        summaries = [m for m in unpack([rows]) if wire.is_summary(m.vround, m.length)]
        acceptors = self._acceptors
        for row, m in enumerate(unpack([rows])):
            if m in summaries:
                told = wire.unpack_summary(m.value, acceptors)._replace(seen=(0,) * acceptors)
                value = np.frombuffer(wire.pack_summary(told), np.uint8)
                rows[row, HEADER_BYTES : HEADER_BYTES + len(value)] = value
        super()._phase1b(rows, now, effects)


class ReportsAtOnce(Learner):
    """Its store may be an older one than it once was, and it reports as if it were not."""

    def checkpoint(self, durable_through: int) -> Effects:
        self.former = 0
        return super().checkpoint(durable_through)
