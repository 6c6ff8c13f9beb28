"""A learner whose store may once have held more than it does now (docs/PROTOCOL.md, section 7).

What it checkpointed before may be what holds `low` up, and then only the others have it. So it
reports no checkpoint before its store is at least as new as the highest checkpoint of g + 1 others:
the learners that hold `low` up are g + 1 of all, so one of those is among any g + 1 others. Others
that lost theirs count only when all have answered: learners that start for the first time cannot
tell that from a loss, and nobody has anything then.
"""

from __future__ import annotations

from collections.abc import Callable

from p4xos import wire
from p4xos.effects import LEARNERS, Effects
from p4xos.quorum import majority
from p4xos.wire import LEARNER_ASKS, STORE_LOST, Frame, Message, Type

ASK_EVERY_S = 0.2


class LostStore:
    """Asks the other learners until it knows what the store must hold."""

    def __init__(
        self, *, frame: Frame, learners: int, random: Callable[[], float], now: float
    ) -> None:
        """Knows nothing yet.

        Args:
          frame: cluster, group and this learner's id.
          learners: how many there are.
          random: uniform in [0, 1), for the nonce.
          now: seconds, monotonic.
        """
        self._frame = frame
        # Of an even number one less would do as well; a lone learner has nobody to ask.
        self._others = learners - 1
        self._needed = min(learners - majority(learners) + 1, self._others)
        self._nonce = int(random() * 2**32)
        self._told: dict[int, int] = {}  # checkpoints by learner, told since this one started
        self._lost: set[int] = set()  # learners that said that theirs is lost too
        self._ask_at: float | None = now if self._needed else None

    def answer(self, m: Message) -> None:
        """Takes the CHECKPOINT of another learner."""
        if m.vround != self._nonce or m.sender == self._frame.sender:
            return
        if m.round == STORE_LOST:
            self._lost.add(m.sender)
        else:
            self._lost.discard(m.sender)
            self._told[m.sender] = max(self._told.get(m.sender, 0), m.instance)

    @property
    def answered(self) -> bool:
        """Whether it knows what the store must hold."""
        return (
            len(self._told) >= self._needed or len(self._told) + len(self._lost) >= self._others
        )

    def has_regained(self, durable_through: int) -> bool:
        """Whether a store that is durable through an instance holds all that it may have held."""
        if not self.answered:
            return False
        return durable_through >= max(self._told.values(), default=0)

    def tick(self, now: float, effects: Effects) -> None:
        """Asks again, when it is time, until enough have answered."""
        if self._ask_at is None or now < self._ask_at:
            return
        if self.answered:
            self._ask_at = None
            return
        self._ask_at = now + ASK_EVERY_S
        question = wire.encode(
            self._frame.cluster, self._frame.group, Type.ASK_CHECKPOINT, instance=LEARNER_ASKS,
            vround=self._nonce, sender=self._frame.sender,
        )  # fmt: skip
        effects.send.append((LEARNERS, question))

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        return self._ask_at
