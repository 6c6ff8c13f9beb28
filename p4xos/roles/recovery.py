"""The recoveries that a serving coordinator has under way (docs/PROTOCOL.md, section 4).

One recovery round a term; a new one only when it was refused or already used for the instance.
"""

from __future__ import annotations

from dataclasses import dataclass

from p4xos import wire
from p4xos.quorum import NO_ROUND
from p4xos.roles.promises import InstancePromises

RESEND_S = 0.02
"""A RECOVER so soon after the PHASE2A went out again is answered by patience."""
RETRY_S = 0.05
RESENT_MAX = 65_536
"""Instances whose last resend is remembered."""
TRIES_MAX = 20
"""A recovery is given up after so many questions; a learner that still needs it asks again."""


@dataclass
class _Recovery:
    promises: InstancePromises
    retry_at: float
    tries: int = 0


class Recoveries:
    """By instance: when its PHASE2A was sent again, and its bounded phase 1."""

    RANGE_MAX = 256
    """Instances of one RECOVER that are acted on; the learner asks for the rest again."""

    def __init__(self, acceptors: int) -> None:
        self._acceptors = acceptors
        self._resent: dict[int, float] = {}
        self._under_way: dict[int, _Recovery] = {}
        self.round = NO_ROUND
        self.highest_refusal = NO_ROUND

    def begin_term(self, highest_refusal: int) -> None:
        """A new term has a recovery round of its own, drawn when it is first needed."""
        self.stop()
        self.highest_refusal = highest_refusal

    def stop(self) -> None:
        """The term is over."""
        self._resent.clear()
        self._under_way.clear()
        self.round = NO_ROUND

    def begin_resend(self, instance: int, now: float) -> bool:
        """Whether the PHASE2A of an instance is to be sent again; False: it takes phase 1."""
        if instance in self._under_way:
            return False
        if instance in self._resent and now >= self._resent[instance] + RESEND_S:
            return False
        if len(self._resent) >= RESENT_MAX:
            self._resent.clear()  # those asked for once more are sent once more before phase 1
        self._resent.setdefault(instance, now)
        return True

    def needs_fresh_round(self, sent_round: int) -> bool:
        """Whether the recovery round is none, was refused, or was used for the instance already."""
        return self.round == NO_ROUND or self.round <= max(self.highest_refusal, sent_round)

    def use_round(self, round: int) -> None:
        """The recovery round from here on."""
        self.round = round

    def round_of(self, instance: int) -> int:
        """In which round the instance is being recovered."""
        return self._under_way[instance].promises.round

    def begin(self, instance: int, now: float) -> bool:
        """Begins, or goes on in a higher round; True when it is new."""
        held = self._under_way.get(instance)
        if held is not None and held.promises.round == self.round:
            held.retry_at = now + RETRY_S
            return False
        self._under_way[instance] = _Recovery(
            InstancePromises(self.round, self._acceptors), now + RETRY_S
        )
        return held is None

    def promise(self, m: wire.Message, now: float) -> tuple[int, bytes] | None:
        """Takes a vote report; (round, value) when the recovery may propose."""
        held = self._under_way.get(m.instance)
        if held is None:
            return None
        if held.promises.add(m):
            self.highest_refusal = max(self.highest_refusal, m.round)
        value = held.promises.decided()
        if value is None:
            return None
        del self._under_way[m.instance]
        self._resent[m.instance] = now
        return held.promises.round, value

    def due(self, now: float, low: int) -> list[int]:
        """The instances to ask for again; those given up, or below `low`, are dropped."""
        for instance in [i for i in self._under_way if i < low]:
            del self._under_way[instance]
        instances = [i for i, held in self._under_way.items() if now >= held.retry_at]
        for instance in instances:
            held = self._under_way[instance]
            held.tries += 1
            if held.tries > TRIES_MAX:
                del self._under_way[instance]
        return [i for i in instances if i in self._under_way]

    def deadline(self) -> float | None:
        """When something is due."""
        if not self._under_way:
            return None
        return min(held.retry_at for held in self._under_way.values())
