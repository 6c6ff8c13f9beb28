"""READ_INDEX: how far the log may be chosen, from a majority (docs/PROTOCOL.md, section 9).

An exchange asks acceptors under a fresh nonce; f + 1 distinct replies answer it. Any write
acknowledged before the exchange was sent has a vote at one of those, so it lies at or below the
largest `highest` told. An exchange serves only who asked before it was sent.

Which majority answers does not matter, so one that asks often asks the f + 1 that were the first
to answer the last time, its own node's acceptor among them; all, when those keep it waiting.

Source: Charapko et al., Linearizable Quorum Reads in Paxos, HotStorage 2019.
"""

from __future__ import annotations

from typing import NamedTuple

from p4xos import wire
from p4xos.effects import ACCEPTORS, Effects, Role, To
from p4xos.quorum import majority
from p4xos.wire import Frame, Type


class Answer(NamedTuple):
    """What f + 1 acceptors told."""

    highest: int
    """The largest of their `highest` and `low - 1`."""
    highest_round: int


class ReadIndex:
    """One exchange at a time, asked again until it is answered."""

    def __init__(
        self,
        *,
        frame: Frame,
        acceptors: int,
        asks_as: int,
        retry_s: float,
        first_nonce: int,
        favours: bool = False,
    ) -> None:
        """Idle.

        Args:
          frame: cluster, group, id of who asks.
          asks_as: COORDINATOR_ASKS or PROPOSER_ASKS of the acceptor's module.
          retry_s: seconds until an unanswered exchange is asked again.
          first_nonce: random, so that replies to a former life are not taken for this one's.
          favours: whether those are asked first that answered first the last time.
        """
        self._frame = frame
        self._acceptors = acceptors
        self._asks_as = asks_as
        self._retry_s = retry_s
        self._nonce = first_nonce & 0xFFFF_FFFF
        self._replies: dict[int, Answer] = {}
        self._retry_at: float | None = None
        self._favours = favours
        self._favoured: list[To] = []  # f + 1 acceptors; none: all are asked

    @property
    def under_way(self) -> bool:
        """Whether an exchange waits for its answer."""
        return self._retry_at is not None

    def ask(self, now: float, effects: Effects) -> None:
        """Begins an exchange under a fresh nonce; replies to an earlier one no longer count."""
        self._nonce = (self._nonce + 1) & 0xFFFF_FFFF
        self._replies.clear()
        self._send(self._favoured or [ACCEPTORS], now, effects)

    def _send(self, asked: list[To], now: float, effects: Effects) -> None:
        self._retry_at = now + self._retry_s
        question = wire.encode(
            self._frame.cluster, self._frame.group, Type.READ_INDEX, instance=self._asks_as,
            vround=self._nonce, sender=self._frame.sender,
        )  # fmt: skip
        effects.send.extend((to, question) for to in asked)

    def reply(self, m: wire.Message) -> Answer | None:
        """Takes a READ_INDEX_REPLY; the answer when this one completes a majority."""
        if not self.under_way or m.vround != self._nonce or m.sender >= self._acceptors:
            return None
        self._replies[m.sender] = Answer(max(m.instance, m.low - 1), m.round)
        if len(self._replies) < majority(self._acceptors):
            return None
        self._retry_at = None
        if self._favours:
            self._favoured = [To(Role.ACCEPTOR, acceptor) for acceptor in self._replies]
        return Answer(
            max(reply.highest for reply in self._replies.values()),
            max(reply.highest_round for reply in self._replies.values()),
        )

    def voted_by_quorum(self) -> int:
        """Through which instance each of a majority's highest votes reach, of the last exchange."""
        reached = sorted((reply.highest for reply in self._replies.values()), reverse=True)
        wanted = majority(self._acceptors)
        return reached[wanted - 1] if len(reached) >= wanted else 0

    def stop(self) -> None:
        """Gives the exchange up."""
        self._retry_at = None

    def tick(self, now: float, effects: Effects) -> None:
        """Asks again, all of them under the same nonce, when it is time."""
        if self._retry_at is not None and now >= self._retry_at:
            self._send([ACCEPTORS], now, effects)

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        return self._retry_at
