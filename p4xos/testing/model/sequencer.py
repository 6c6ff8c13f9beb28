"""The coordinator's data plane, one message at a time: docs/PROTOCOL.md section 4 in plain ints.

    REQUEST, round is 0                  dropped: inactive, the controller has not served yet
    REQUEST, next >= low + window        dropped: window full, the proposer tries again
    REQUEST                              PHASE2A of `next` to all acceptors; next = next + 1
    anything else                        silence and a counter

Only the controller writes the registers: round 0 first, then low and next, then the round. So no
request meets a round with another round's `next`, and a data plane that restarts is inactive.
"""

from collections import Counter

from p4xos.effects import ACCEPTORS
from p4xos.quorum import NO_ROUND
from p4xos.testing.model.messages import Answers, reply
from p4xos.wire import Message, Type


class ModelSequencer:
    """Numbers the requests of one round: each instance is given away at most once."""

    def __init__(
        self, id: int, *, window: int, value_bytes: int, cluster: int = 0, group: int = 0
    ) -> None:
        self.id = id
        self.cluster, self.group = cluster, group
        self.window, self.value_bytes = window, value_bytes
        self.round = NO_ROUND
        self.next = 1
        self.low = 1
        self.dropped: Counter[str] = Counter()

    def serve(self, round: int, next: int, low: int) -> None:
        """What the controller writes after a phase 1 in a fresh round."""
        assert round == NO_ROUND or next >= low, "below low nothing is proposed"
        self.round = NO_ROUND
        self.low, self.next = low, next
        self.round = round

    def raise_low(self, low: int) -> None:
        """Checkpoints came in: the window moves up; never `next`, never down."""
        self.low = max(self.low, low)

    def receive(self, message: Message) -> Answers:
        """One message in, its answer out; no answer is silence, and then a reason is counted."""
        if message.type != Type.REQUEST:
            return self.drop("ignored")
        if self.round == NO_ROUND:
            return self.drop("inactive")
        if len(message.value) > self.value_bytes:
            return self.drop("value_too_long")
        if self.next >= self.low + self.window:
            return self.drop("window_full")
        phase2a = reply(
            self.cluster,
            self.group,
            Type.PHASE2A,
            instance=self.next,
            round=self.round,
            sender=self.id,
            low=self.low,
            value=message.value,
        )
        self.next += 1
        return [(ACCEPTORS, phase2a)]

    def drop(self, reason: str) -> Answers:
        """Silence and a counter."""
        self.dropped[reason] += 1
        return []

    def check_invariants(self) -> None:
        """Nothing was proposed outside of the window."""
        assert self.round == NO_ROUND or self.low <= self.next <= self.low + self.window
