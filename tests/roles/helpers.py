"""Roles of a small group and the messages between them, for tests of single rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from p4xos import envelope, wire
from p4xos.effects import Chosen, Delivery, Effects, Role, To
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator, CoordinatorTiming, Phase
from p4xos.roles.learner import Learner
from p4xos.roles.proposer import Proposer, ProposerTiming
from p4xos.wire import END_OF_LOG, Frame, Message, Rows, Type

CLUSTER = 0xC1051234
GROUP = 3
WINDOW = 16
VALUE_BYTES = 64


def round_of(counter: int, coordinator: int = 0) -> int:
    """The round with this counter and owner."""
    return counter << 8 | coordinator


def make(type: Type, **fields: Any) -> Rows:
    """One message of the group."""
    return wire.encode(CLUSTER, GROUP, type, **fields)


def together(*parts: Rows) -> Rows:
    """Messages as one batch, of one stride."""
    return wire.from_messages([m for rows in parts for m in wire.messages(rows)])


def phase1a(round: int, first: int = 1, end: int = END_OF_LOG, **fields: Any) -> Rows:
    return make(Type.PHASE1A, instance=first, round=round, value=wire.pack_end(end), **fields)


def phase2a(first: int, round: int, *values: bytes, low: int = 0, sender: int = 0) -> Rows:
    """Proposals of consecutive instances, as one batch."""
    return together(
        *(
            make(Type.PHASE2A, instance=first + k, round=round, value=value, low=low, sender=sender)
            for k, value in enumerate(values)
        )
    )


def phase2b(acceptor: int, first: int, round: int, *values: bytes) -> Rows:
    """Votes of one acceptor for consecutive instances, as one batch."""
    return together(
        *(
            make(Type.PHASE2B, instance=first + k, round=round, vround=round, sender=acceptor,
                 value=value)
            for k, value in enumerate(values)
        )
    )  # fmt: skip


def learn(first: int, end: int, learner: int = 0) -> Rows:
    return make(Type.LEARN, instance=first, sender=learner, value=wire.pack_end(end))


def recover(first: int, end: int, learner: int = 0) -> Rows:
    return make(Type.RECOVER, instance=first, sender=learner, value=wire.pack_end(end))


def heartbeat(coordinator: int, round: int, next: int = 1, low: int = 1) -> Rows:
    return make(Type.HEARTBEAT, instance=next, round=round, low=low, sender=coordinator)


def checkpoint(learner: int, through: int) -> Rows:
    return make(Type.CHECKPOINT, instance=through, sender=learner)


def request(*values: bytes) -> Rows:
    return together(*(make(Type.REQUEST, value=value) for value in values))


def reply(acceptor: int, nonce: int, highest: int = 0, round: int = 0, low: int = 1) -> Rows:
    """A READ_INDEX_REPLY."""
    return make(
        Type.READ_INDEX_REPLY, instance=highest, round=round, vround=nonce, low=low, sender=acceptor
    )


def summary(
    acceptor: int,
    round: int,
    nonce: int,
    *,
    highest: int = 0,
    votes: int = 0,
    low: int = 1,
    first: int | None = None,
    incarnation: int = 0,
    seen: tuple[int, ...] = (0, 0, 0),
) -> Rows:
    value = wire.pack_summary(wire.Summary(highest, votes, nonce, seen))
    return make(
        Type.PHASE1B, instance=low if first is None else first, round=round, sender=acceptor,
        incarnation=incarnation, low=low, value=value,
    )  # fmt: skip


def vote_report(acceptor: int, instance: int, round: int, vround: int, value: bytes = b"") -> Rows:
    return make(
        Type.PHASE1B, instance=instance, round=round, vround=vround, sender=acceptor, value=value
    )


# Roles ---------------------------------------------------------------------------------------


def acceptor(id: int = 0, acceptors: int = 3, **options: Any) -> Acceptor:
    options = {"window": WINDOW, "value_bytes": VALUE_BYTES, **options}
    return Acceptor(frame=Frame(CLUSTER, GROUP, id), acceptors=acceptors, **options)


def learner(
    id: int = 0, acceptors: int = 3, *, former: int | None = 0, **options: Any
) -> Learner:
    """One that knows that no life before it delivered more than `former`."""
    options = {"window": WINDOW, "value_bytes": VALUE_BYTES, **options}
    role = Learner(frame=Frame(CLUSTER, GROUP, id), acceptors=acceptors, **options)
    role.former = former
    return role


TIMING = CoordinatorTiming(
    heartbeat_s=1.0, takeover_s=10.0, retry_s=0.5, stall_s=5.0, backoff_max_s=80.0
)


def coordinator(id: int = 0, **options: Any) -> Coordinator:
    """Candidate `id` of three; no jitter."""
    options = {
        "coordinators": (0, 1, 2), "acceptors": 3, "learners": 3, "window": WINDOW,
        "value_bytes": VALUE_BYTES, "random": lambda: 0.0, "now": 0.0, "timing": TIMING, **options,
    }  # fmt: skip
    return Coordinator(frame=Frame(CLUSTER, GROUP, id), **options)


def proposer(id: int = 0, **options: Any) -> Proposer:
    options = {
        "acceptors": 3, "window": WINDOW, "value_bytes": VALUE_BYTES, "random": lambda: 0.5,
        "timing": ProposerTiming(), "in_flight_max": 64, **options,
    }  # fmt: skip
    return Proposer(frame=Frame(CLUSTER, GROUP, id), **options)


# What a role owes ----------------------------------------------------------------------------


def sent(effects: Effects, type: Type, role: Role | None = None) -> list[Message]:
    """The messages of one type that leave, to one role if it is given."""
    return [
        m
        for to, rows in effects.send
        if role is None or to.role == role
        for m in wire.messages(rows)
        if m.type == type
    ]


def persisted(effects: Effects) -> list[Message]:
    return [m for rows in effects.persist for m in wire.messages(rows)]


def persisted_rounds(effects: Effects) -> list[int]:
    """Rounds that a coordinator writes to its disk."""
    return [m.round for m in persisted(effects) if m.type == Type.HEARTBEAT]


def payloads(effects: Effects) -> list[bytes]:
    """What is delivered, without envelopes."""
    return [p for event in effects.deliver if isinstance(event, Delivery) for p in event.payloads()]


def raw(effects: Effects) -> list[bytes]:
    """What is chosen, as it stands in the log."""
    return [
        row[:length].tobytes()
        for part in effects.chosen
        for row, length in zip(part.values, part.lengths.tolist(), strict=True)
    ]


def chosen(first: int, *values: bytes) -> Chosen:
    """A stretch of chosen values, as a learner hands it on."""
    width = max(map(len, values))
    rows = np.zeros((len(values), width), dtype=np.uint8)
    for row, value in enumerate(values):
        rows[row, : len(value)] = np.frombuffer(value, np.uint8)
    return Chosen(first, rows, np.array([len(value) for value in values], dtype=np.int64))


def value(sequence: int, payload: bytes, session: int = 1) -> bytes:
    return envelope.seal(session, sequence, payload)


# A coordinator against acceptors ----------------------------------------------------------------

Lost = Callable[[To, Message], bool]


class Group:
    """One coordinator and real acceptors; every message is copied, and may be lost on its way."""

    def __init__(
        self, coordinator: Coordinator, acceptors: Iterable[Acceptor], lost: Lost | None = None
    ) -> None:
        self.coordinator = coordinator
        self.acceptors = {role.id: role for role in acceptors}
        self.lost = lost or (lambda to, m: False)
        self.now = 0.0
        self.votes: list[Message] = []
        self.proposed: list[Message] = []
        self.asked: list[Message] = []

    def settle(self, effects: Effects) -> None:
        """Carries messages until nothing is under way."""
        todo = [effects]
        while todo:
            for to, rows in todo.pop(0).send:
                arrived = [m for m in wire.messages(rows) if not self.lost(to, m)]
                for m in arrived:
                    self._note(m)
                if not arrived:
                    continue
                batch = wire.from_messages(arrived)
                if to.role is Role.ACCEPTOR:
                    members = [to.id] if to.id is not None else list(self.acceptors)
                    for id in members:
                        if id in self.acceptors:
                            todo.append(self.acceptors[id].step(batch.copy(), self.now))
                            self.acceptors[id].check_invariants()
                elif to.role is Role.COORDINATOR and to.id in (None, self.coordinator.frame.sender):
                    todo.append(self.coordinator.step(batch, self.now))
                    self.coordinator.check_invariants()

    def _note(self, m: Message) -> None:
        if m.type == Type.PHASE2B:
            self.votes.append(m)
        elif m.type == Type.PHASE2A:
            self.proposed.append(m)
        elif m.type == Type.PHASE1A:
            self.asked.append(m)

    def give(self, rows: Rows) -> None:
        """A message from outside to the coordinator."""
        self.settle(self.coordinator.step(rows, self.now))

    def run_until(self, now: float) -> None:
        """Ticks whenever the coordinator wants it, to a point in time."""
        while (at := self.coordinator.deadline()) is not None and at <= now:
            self.now = max(self.now, at)
            self.settle(self.coordinator.tick(self.now))
        self.now = now

    def take_over(self) -> None:
        """Time passes until the coordinator serves."""
        for _ in range(200):
            at = self.coordinator.deadline()
            assert at is not None
            self.run_until(at)
            if self.coordinator.phase is Phase.SERVING:
                return
        raise AssertionError(f"still {self.coordinator.phase}")

    def chosen(self, instance: int) -> set[bytes]:
        """The values that a majority has voted for in some one round."""
        ballots: dict[tuple[int, bytes], set[int]] = {}
        for m in self.votes:
            if m.instance == instance:
                ballots.setdefault((m.round, m.value), set()).add(m.sender)
        wanted = len(self.acceptors) // 2 + 1
        return {v for (_, v), voters in ballots.items() if len(voters) >= wanted}
