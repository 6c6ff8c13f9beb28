"""Acceptors that forget, by schedules written out: what the wrong ways lose, and the right one not.

docs/PROTOCOL.md, section 8. The roles are the real ones; a schedule says who hears what and when.
Two different values chosen in one instance are what must not be.
"""

from __future__ import annotations

import pytest

from p4xos import wire
from p4xos.effects import Role
from p4xos.quorum import majority, make_round
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.promises import Promises
from p4xos.roles.rejoining import ForgetfulAcceptor, Stage
from p4xos.wire import END_OF_LOG, Frame, Message, Rows, Type
from tests.simulator.sabotage import (
    AsksTheEpoch,
    ForgetsNoPromise,
    JoinsAtOnce,
    SharesOneEpoch,
    VotesAtOnce,
)

WINDOW = 16
VALUE_BYTES = 32
LEARNERS = 3
OLD, NEW = make_round(1, 0), make_round(2, 1)


class Group:
    """Acceptors, and what is chosen by their votes."""

    def __init__(
        self,
        acceptors: int,
        acceptor: type[Acceptor] = Acceptor,
        forgetful: type[ForgetfulAcceptor] = ForgetfulAcceptor,
    ) -> None:
        self.size = acceptors
        self._acceptor = acceptor
        self._forgetful = forgetful
        self.members: list[Acceptor | ForgetfulAcceptor] = [
            self._empty(id) for id in range(acceptors)
        ]
        self.voters: dict[tuple[int, int, bytes], set[int]] = {}

    def _empty(self, id: int) -> Acceptor:
        return self._acceptor(
            frame=Frame(1, 0, id), acceptors=self.size, window=WINDOW, value_bytes=VALUE_BYTES
        )

    def send(self, to: int, *messages: Rows) -> list[tuple[Role, Message]]:
        """What an acceptor answers, with the role that it answers; votes are counted."""
        answers = []
        for rows in messages:
            for address, sent in self.members[to].step(rows.copy(), 0.0).send:
                for m in wire.messages(sent):
                    answers.append((address.role, m))
                    if m.type == Type.PHASE2B:
                        self.voters.setdefault((m.instance, m.round, m.value), set()).add(to)
        return answers

    def chosen(self, instance: int) -> set[bytes]:
        quorum = majority(self.size)
        return {v for (i, _, v), who in self.voters.items() if i == instance and len(who) >= quorum}

    # Forgetting ----------------------------------------------------------------------------------

    def forget(self, id: int) -> ForgetfulAcceptor:
        """It comes back with nothing, and has asked its first question."""
        role = self._forgetful(
            self._empty(id), learners=LEARNERS, random=lambda: (id + 1) / 100, now=0.0
        )
        self.members[id] = role
        role.tick(0.0)
        return role

    def exchange(self, id: int, *others: int) -> None:
        """Its question of this stage reaches some others, and their answers reach it."""
        role = self.members[id]
        assert isinstance(role, ForgetfulAcceptor)
        nonce = role._nonce
        incarnation = wire.pack_incarnation(role.incarnation)
        question = message(Type.RECORD, instance=id, sender=id, vround=nonce, value=incarnation)
        for other in others:
            for to, answer in self.send(other, question):
                assert to is Role.ACCEPTOR
                role.step(wire.from_messages([answer]), 0.0)

    def checkpoints(self, id: int, through: int) -> None:
        """A quorum of learners tells it how far they are."""
        role = self.members[id]
        assert isinstance(role, ForgetfulAcceptor)
        for learner in range(majority(LEARNERS)):
            told = message(Type.CHECKPOINT, instance=through, sender=learner, vround=role._nonce)
            role.step(told, 0.0)

    def trim(self, low: int) -> None:
        for id in range(self.size):
            self.send(id, message(Type.HEARTBEAT, round=OLD, low=low))


class Attempt:
    """A coordinator's phase 1 in one round, and what follows from it."""

    def __init__(self, group: Group, round: int, low: int = 1) -> None:
        self.group = group
        self.round = round
        self.promises = Promises(
            acceptors=group.size, round=round, nonce=7, first=low, window=WINDOW,
            value_bytes=VALUE_BYTES,
        )  # fmt: skip

    def ask(self, *acceptors: int) -> Attempt:
        question = message(
            Type.PHASE1A, instance=self.promises.first, round=self.round, vround=7,
            sender=self.round & 0xFF, value=wire.pack_end(END_OF_LOG),
        )  # fmt: skip
        for id in acceptors:
            for to, answer in self.group.send(id, question):
                assert to is Role.COORDINATOR
                self.promises.add(wire.from_messages([answer]))
        return self

    @property
    def won(self) -> bool:
        return self.promises.quorum() is not None

    def propose(self, instance: int, value: bytes, *acceptors: int) -> None:
        """What phase 1 found there, else this value."""
        assert self.won
        assert instance >= self.promises.low
        found = self.promises.found(instance) or value
        proposal = message(Type.PHASE2A, instance=instance, round=self.round, value=found)
        for id in acceptors:
            self.group.send(id, proposal)


def message(type: Type, **fields: int | bytes) -> Rows:
    return wire.encode(1, 0, type, **fields)  # type: ignore[arg-type]


A, B, C, D, E = range(5)


def chosen_value_is_lost(forgetful: type[ForgetfulAcceptor]) -> bool:
    """Chosen by A and B; A forgets, and a takeover hears A and C. Whether C's value is chosen."""
    group = Group(3, forgetful=forgetful)
    Attempt(group, OLD).ask(A, B).propose(1, b"old", A, B)
    assert group.chosen(1) == {b"old"}
    group.forget(A)
    for _ in range(2):
        group.exchange(A, B, C)
    group.checkpoints(A, 0)
    takeover = Attempt(group, NEW).ask(A, C)
    if takeover.won:
        takeover.propose(1, b"new", A, C)
    return group.chosen(1) == {b"old", b"new"}


def test_one_that_votes_at_once_loses_a_chosen_value() -> None:
    assert chosen_value_is_lost(VotesAtOnce)


def test_one_that_is_not_silent_long_enough_loses_a_chosen_value() -> None:
    assert chosen_value_is_lost(JoinsAtOnce)


def test_one_that_is_silent_loses_nothing() -> None:
    assert not chosen_value_is_lost(ForgetfulAcceptor)


def promise_is_counted_twice(
    forgetful: type[ForgetfulAcceptor], *, look_at_seen: bool = True, heard: str = "late"
) -> bool:
    """A promises NEW, forgets it, joins again, and votes in OLD; NEW counts the promise.

    C's promise, the other half of NEW's quorum, comes before or after C recorded that A forgot.
    """
    group = Group(3, forgetful=forgetful)
    old = Attempt(group, OLD).ask(A, B, C)
    new = Attempt(group, NEW).ask(A)
    if heard == "early":
        new.ask(C)
    group.forget(A)
    for _ in range(2):
        group.exchange(A, B, C)
    group.checkpoints(A, 0)
    low = 1 + WINDOW
    group.trim(low)
    assert group.members[A].stage is Stage.JOINED  # type: ignore[union-attr]
    old.propose(low, b"old", A, B)
    if heard == "late":
        new.ask(C)
    if not look_at_seen:
        for report in new.promises._reports.values():
            report.summary = report.summary._replace(seen=(0,) * 3)
    if new.won:
        new.propose(max(low, new.promises.low), b"new", C, B)
    return group.chosen(low) == {b"old", b"new"}


def test_a_promise_from_before_is_not_combined_with_one_from_after() -> None:
    """Section 4's rule on `seen`."""
    assert promise_is_counted_twice(ForgetfulAcceptor, look_at_seen=False)
    assert not promise_is_counted_twice(ForgetfulAcceptor)


def test_a_promise_combined_before_is_kept_by_the_round_told() -> None:
    """The other promised before it recorded: the round that it tells becomes the floor."""
    assert promise_is_counted_twice(ForgetsNoPromise, heard="early")
    assert not promise_is_counted_twice(ForgetfulAcceptor, heard="early")


def epochs(acceptor: type[Acceptor], forgetful: type[ForgetfulAcceptor]) -> set[bytes]:
    """Two recoveries and a takeover at once, of five; what is chosen in one instance."""
    group = Group(5, acceptor, forgetful)
    old = Attempt(group, OLD).ask(A, B, C, D, E)
    group.forget(A)
    group.exchange(A, C, D, E)
    group.exchange(A, B)  # what A records reaches B alone for now
    new = Attempt(group, NEW).ask(B)
    group.forget(B)
    for _ in range(2):
        group.exchange(B, C, D, E)
    group.exchange(A, C, D, E)  # and now the others
    for id in (A, B):
        group.checkpoints(id, 0)
    low = 1 + WINDOW
    group.trim(low)
    assert all(group.members[id].stage is Stage.JOINED for id in (A, B))  # type: ignore[union-attr]
    old.propose(low, b"old", A, B, E)
    new.ask(C, D)
    if new.won:
        new.propose(low, b"new", C, D, E)
    return group.chosen(low)


def test_one_epoch_for_all_loses_a_chosen_value_of_five() -> None:
    """B promised in the epoch that A drew and, having forgotten it, draws the same one."""
    assert epochs(SharesOneEpoch, AsksTheEpoch) == {b"old", b"new"}


def test_an_incarnation_for_each_loses_nothing_of_five() -> None:
    assert epochs(Acceptor, ForgetfulAcceptor) == {b"old"}


@pytest.mark.parametrize("acceptors", [3, 5])
def test_nothing_is_said_before_it_has_joined(acceptors: int) -> None:
    group = Group(acceptors)
    role = group.forget(A)
    questions = [
        message(Type.PHASE1A, instance=1, round=OLD, value=wire.pack_end(END_OF_LOG)),
        message(Type.PHASE2A, instance=1, round=OLD, value=b"v"),
        message(Type.LEARN, instance=1, value=wire.pack_end(5)),
        message(Type.READ_INDEX, instance=1, vround=3),
        message(Type.RECORD, instance=B, sender=B, vround=3, value=wire.pack_incarnation(1)),
    ]
    others = range(1, majority(acceptors) + 1)
    for _ in range(2):
        assert group.send(A, *questions) == []
        group.exchange(A, *others)
    assert group.send(A, *questions) == []
    assert role.stage is Stage.RECORDING  # type: ignore[comparison-overlap]
    group.checkpoints(A, 3)
    assert role.stage is Stage.SILENT
    assert group.send(A, *questions) == []
    group.trim(3 + WINDOW)
    assert group.send(A, *questions) == []
    group.trim(4 + WINDOW)
    assert role.joined
    assert [m.type for _, m in group.send(A, questions[3])] == [Type.READ_INDEX_REPLY]
