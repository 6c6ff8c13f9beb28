"""The acceptor, one message at a time: docs/PROTOCOL.md section 3 in dicts and ints.

Slow and obvious on purpose. The fast roles, the vectors and every other data plane are compared
with it, so it shares nothing with them but the wire format.

    every coordinator's message          low moves up, and highest with it; then
    PHASE1A to the end, round >= floor   floor = round; SUMMARY and the slots in the range
    PHASE1A bounded, round >= promised   slot.round = round, for each i; SUMMARY and the slots
    PHASE2A, round >= promised(i)        slot = (i, round, round, value); PHASE2B to all learners
    PHASE2A, round == vround(i)          PHASE2B repeated from the slot
    LEARN                                PHASE2B of the votes in the range, to that learner
    READ_INDEX                           READ_INDEX_REPLY
    RECORD of another acceptor           its incarnation is seen; RECORDED
    anything else, any stale round       silence and a counter
"""

from collections import Counter
from dataclasses import dataclass

from p4xos.effects import LEARNERS, Role, To
from p4xos.quorum import NO_ROUND
from p4xos.testing.model.messages import Answers, end_of_range, reply
from p4xos.wire import END_OF_LOG, Message, Summary, Type, pack_summary, stride_for

ANSWER_BYTES = 65_536
"""Most bytes of rows that follow one question; the coordinator asks again for the rest."""

ANSWER_ROWS = 128
"""Most rows that follow one question: what one system call sends."""

LOW_JUMP = 2**40
"""A `low` further than this above the present one is damage, not progress (section 2)."""

READ_INDEX_OF_PROPOSER = 0
READ_INDEX_OF_COORDINATOR = 1
"""The instance of a READ_INDEX says who asks: ids of proposers and coordinators overlap."""


@dataclass
class Slot:
    """What is remembered of one instance: its promise, and its vote unless vround is NO_ROUND."""

    instance: int
    round: int = NO_ROUND
    vround: int = NO_ROUND
    value: bytes = b""


class ModelAcceptor:
    """Lamport's acceptor over a window of instances: `receive` one message, get its answers.

    Registers are plain attributes. `slots` is keyed by slot number, `instance % window`, so that
    instances which share a slot number push each other out as they do in an array.
    """

    def __init__(
        self,
        id: int,
        acceptors: int,
        *,
        window: int,
        value_bytes: int,
        incarnation: int = 0,
        cluster: int = 0,
        group: int = 0,
    ) -> None:
        self.id, self.incarnation = id, incarnation
        self.cluster, self.group = cluster, group
        self.window, self.value_bytes = window, value_bytes
        self.floor = NO_ROUND
        self.highest_round = NO_ROUND
        self.low = 1
        self.highest = 0
        self.seen = [0] * acceptors
        self.slots: dict[int, Slot] = {}
        self.dropped: Counter[str] = Counter()

    # What is held --------------------------------------------------------------------------------

    def slot(self, instance: int) -> Slot | None:
        """The slot of an instance, or None when no slot is held for exactly this instance."""
        held = self.slots.get(instance % self.window)
        return held if held is not None and held.instance == instance else None

    def promised(self, instance: int) -> int:
        """`max(floor, slot.round if slot.instance == i)`."""
        held = self.slot(instance)
        return max(self.floor, held.round) if held else self.floor

    def take_over(self, instance: int) -> Slot:
        """The slot of an instance; one of another instance is first emptied."""
        held = self.slot(instance)
        if held is None:
            held = self.slots[instance % self.window] = Slot(instance)
        return held

    def in_window(self, instance: int) -> bool:
        """Outside of `[low, low + window)` nothing is ever stored or looked up (trap 2)."""
        return self.low <= instance < self.low + self.window

    def clip(self, first: int, end: int) -> range:
        """The part of `[first, end)` that lies in the window."""
        return range(max(first, self.low), min(end, self.low + self.window))

    def check_invariants(self) -> None:
        """What section 3 says of the registers, between any two messages."""
        assert self.highest >= self.low - 1
        assert self.highest_round >= self.floor
        for number, held in self.slots.items():
            assert held.instance % self.window == number
            assert held.round >= held.vround
            assert self.highest_round >= held.round
            assert held.vround != NO_ROUND or held.value == b""

    # Messages ------------------------------------------------------------------------------------

    def receive(self, message: Message) -> Answers:
        """One message in, its answers out; no answer is silence, and then a reason is counted."""
        if message.type in (Type.PHASE1A, Type.PHASE2A, Type.HEARTBEAT):
            if message.low > self.low + LOW_JUMP:
                return self.drop("low_jump")
            self.raise_low(message.low)
        match message.type:
            case Type.PHASE1A:
                return self.phase1a(message)
            case Type.PHASE2A:
                return self.phase2a(message)
            case Type.HEARTBEAT:
                return []
            case Type.LEARN:
                return self.learn(message)
            case Type.READ_INDEX:
                return self.read_index(message)
            case Type.RECORD:
                return self.record(message)
            case _:
                return self.drop("ignored")

    def drop(self, reason: str) -> Answers:
        """Silence and a counter."""
        self.dropped[reason] += 1
        return []

    def raise_low(self, low: int) -> None:
        """Low only moves up, even with a stale round; 0 is no low at all."""
        self.low = max(self.low, low)
        self.highest = max(self.highest, self.low - 1)

    def phase1a(self, message: Message) -> Answers:
        """Phase 1: a promise for the whole log, or for a bounded range of it."""
        if message.round == NO_ROUND:
            return self.drop("round_zero")
        end = end_of_range(message)
        if end is None:
            return self.drop("malformed")
        if end == END_OF_LOG:
            return self.promise_log(message)
        return self.promise_range(message, end)

    def promise_log(self, message: Message) -> Answers:
        """PHASE1A to the end of the log: one promise, the floor, for every instance."""
        if message.round < self.floor:
            return self.drop("stale_round")
        self.floor = message.round
        self.highest_round = max(self.highest_round, message.round)
        return self.promise(message, END_OF_LOG)

    def promise_range(self, message: Message, end: int) -> Answers:
        """PHASE1A of `[first, end)`: a promise for each instance where the round is not stale.

        An instance that has promised a higher round is reported with that round, and so does not
        count as a promise of this one; where all have, there is nothing to answer (trap 6).
        """
        if message.round < self.floor:
            return self.drop("stale_round")
        asked = self.clip(message.instance, end)
        granted = [i for i in asked if message.round >= self.promised(i)]
        if asked and not granted:
            return self.drop("stale_round")
        for instance in granted:
            self.take_over(instance).round = message.round
            self.highest_round = max(self.highest_round, message.round)
        return self.promise(message, end)

    def promise(self, message: Message, end: int) -> Answers:
        """The SUMMARY and the slots of the clipped range, as many as one answer holds.

        The count is of all slots in the range: the coordinator asks again for those that do not
        follow. A slot without a vote is reported too, with vround 0: a promise without a vote.
        """
        asked = self.clip(message.instance, end)
        held = [slot for i in asked if (slot := self.slot(i))]
        to = To(Role.COORDINATOR, message.sender)
        summary = Summary(self.highest, len(held), message.vround, tuple(self.seen))
        answers = [
            self.answer(
                to,
                Type.PHASE1B,
                instance=max(message.instance, self.low),
                round=message.round,
                low=self.low,
                value=pack_summary(summary),
            )
        ]
        for slot in self.bounded(held):
            answers.append(
                self.answer(
                    to,
                    Type.PHASE1B,
                    instance=slot.instance,
                    round=self.promised(slot.instance),
                    vround=slot.vround,
                    value=slot.value,
                )
            )
        return answers

    def phase2a(self, message: Message) -> Answers:
        """Phase 2: the vote. A vote in a round is never overwritten in that round (trap 5)."""
        if message.round == NO_ROUND:
            return self.drop("round_zero")
        if not self.in_window(message.instance):
            return self.drop("out_of_window")
        if len(message.value) > self.value_bytes:
            return self.drop("value_too_long")
        if message.round < self.promised(message.instance):
            return self.drop("stale_round")
        slot = self.take_over(message.instance)
        if slot.vround != message.round:
            slot.round = slot.vround = message.round
            slot.value = message.value
            self.highest = max(self.highest, message.instance)
            self.highest_round = max(self.highest_round, message.round)
        return [self.vote(LEARNERS, slot)]

    def learn(self, message: Message) -> Answers:
        """LEARN: the votes in the range once more, to the learner that missed them."""
        end = end_of_range(message)
        if end is None:
            return self.drop("malformed")
        asked = self.clip(message.instance, end)
        votes = [slot for i in asked if (slot := self.slot(i)) and slot.vround != NO_ROUND]
        to = To(Role.LEARNER, message.sender)
        return [self.vote(to, slot) for slot in self.bounded(votes)]

    def read_index(self, message: Message) -> Answers:
        """READ_INDEX: how far votes and rounds have come, back to who asked (section 9)."""
        match message.instance:
            case 0:
                to = To(Role.PROPOSER, message.sender)
            case 1:
                to = To(Role.COORDINATOR, message.sender)
            case _:
                return self.drop("malformed")
        return [
            self.answer(
                to,
                Type.READ_INDEX_REPLY,
                instance=self.highest,
                round=self.highest_round,
                vround=message.vround,
                low=self.low,
            )
        ]

    def record(self, message: Message) -> Answers:
        """RECORD: another acceptor has forgotten, and will be told apart by its incarnation."""
        if len(message.value) != 4 or message.instance != message.sender:
            return self.drop("malformed")
        if message.sender >= len(self.seen):
            return self.drop("malformed")
        if message.sender == self.id:
            return self.drop("ignored")
        told = int.from_bytes(message.value, "big")
        self.seen[message.sender] = max(self.seen[message.sender], told)
        return [
            self.answer(
                To(Role.ACCEPTOR, message.sender),
                Type.RECORDED,
                instance=message.sender,
                round=self.highest_round,
                vround=message.vround,
                low=self.low,
                value=b"".join(incarnation.to_bytes(4, "big") for incarnation in self.seen),
            )
        ]

    # Answers -------------------------------------------------------------------------------------

    def bounded(self, held: list[Slot]) -> list[Slot]:
        """The first slots, as many as fit one answer, where all have the longest one's stride."""
        held = held[:ANSWER_ROWS]
        stride = stride_for(max((len(slot.value) for slot in held), default=0))
        return held[: ANSWER_BYTES // stride]

    def vote(self, to: To, slot: Slot) -> tuple[To, Message]:
        """PHASE2B; its round is the vote's, whatever has been promised since."""
        return self.answer(
            to,
            Type.PHASE2B,
            instance=slot.instance,
            round=slot.vround,
            vround=slot.vround,
            value=slot.value,
        )

    def answer(
        self,
        to: To,
        type: Type,
        *,
        instance: int,
        round: int,
        vround: int = 0,
        low: int = 0,
        value: bytes = b"",
    ) -> tuple[To, Message]:
        """A message of this acceptor."""
        return to, reply(
            self.cluster,
            self.group,
            type,
            instance=instance,
            round=round,
            vround=vround,
            sender=self.id,
            incarnation=self.incarnation,
            low=low,
            value=value,
        )
