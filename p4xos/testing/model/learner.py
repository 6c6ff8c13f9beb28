"""The learner, one vote at a time: docs/PROTOCOL.md section 5 in dicts and sets.

    PHASE2B, instance chosen             late: what is chosen is final, and no more is compared
    PHASE2B, older than two rounds       late
    PHASE2B, another value in the round  the learner stops: ConflictingVotes
    PHASE2B                              the acceptor is added to the voters of (instance, round)
    f + 1 voters of one round            the value is chosen, once and for all
    the next instance is chosen          its value goes through the sessions; and so on

A new round starts a new set of voters (trap 4); nothing of an older round's set is used for it.
A vote for another value in a round that has already chosen is late, not a conflict: when it comes
after delivery nothing is left to compare it with, and what a learner does must not depend on that.
"""

from collections import Counter
from dataclasses import dataclass, field

from p4xos.errors import ConflictingVotes
from p4xos.quorum import NO_ROUND, majority
from p4xos.testing.model.sessions import Event, ModelSessions
from p4xos.wire import Message, Type

ROUNDS_COUNTED = 2
"""Rounds of one instance that are counted at a time, the latest ones."""


@dataclass
class Ballot:
    """The votes of one round of one instance."""

    value: bytes
    voters: set[int] = field(default_factory=set)


class ModelLearner:
    """Counts votes by (instance, round) and delivers the chosen values in instance order."""

    def __init__(
        self, acceptors: int, *, window: int, value_bytes: int, delivered: int = 0
    ) -> None:
        self.acceptors = acceptors
        self.window = window
        self.value_bytes = value_bytes
        self.delivered = delivered
        """The last instance that went through the sessions; everything up to it has."""
        self.ballots: dict[int, dict[int, Ballot]] = {}
        """By instance, then by round."""
        self.chosen: dict[int, bytes] = {}
        """Chosen and not yet delivered: something before it is missing."""
        self.sessions = ModelSessions(window=window)
        self.dropped: Counter[str] = Counter()

    def receive(self, message: Message) -> list[Event]:
        """One message in; what can be delivered because of it out."""
        if message.type != Type.PHASE2B:
            return self.drop("ignored")
        if message.sender >= self.acceptors or not message.round == message.vround != NO_ROUND:
            return self.drop("malformed")
        if message.instance <= self.delivered:
            return self.drop("late_votes")
        if message.instance > self.delivered + self.window:
            return self.drop("beyond_window")
        if len(message.value) > self.value_bytes:
            return self.drop("value_too_long")
        if message.instance in self.chosen:
            return self.drop("late_votes")
        ballots = self.ballots.setdefault(message.instance, {})
        if message.round not in ballots:
            if len(ballots) == ROUNDS_COUNTED and message.round < min(ballots):
                return self.drop("late_votes")
            if len(ballots) == ROUNDS_COUNTED:
                del ballots[min(ballots)]
            ballots[message.round] = Ballot(message.value)
        ballot = ballots[message.round]
        if ballot.value != message.value:
            raise ConflictingVotes(message.instance, message.round)
        ballot.voters.add(message.sender)
        if len(ballot.voters) >= majority(self.acceptors):
            self.chosen[message.instance] = ballot.value
        return self.deliver()

    def deliver(self) -> list[Event]:
        """Every chosen value that nothing before is missing for, through the sessions."""
        events: list[Event] = []
        while self.delivered + 1 in self.chosen:
            self.delivered += 1
            self.ballots.pop(self.delivered, None)
            events += self.sessions.apply(self.delivered, self.chosen.pop(self.delivered))
        return events

    def drop(self, reason: str) -> list[Event]:
        """Nothing happens, and a reason is counted."""
        self.dropped[reason] += 1
        return []

    def check_invariants(self) -> None:
        """Counts only of what is not delivered, of at most two rounds, by known acceptors."""
        assert all(instance > self.delivered for instance in [*self.ballots, *self.chosen])
        for ballots in self.ballots.values():
            assert len(ballots) <= ROUNDS_COUNTED
            for ballot in ballots.values():
                assert ballot.voters <= set(range(self.acceptors))
