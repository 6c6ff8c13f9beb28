"""The controllers of roles that the kernel runs; what is theirs alone, beside `switch.control`.

The kernel answers while they sleep. So what they do not see, they do not count, and what they read
may have moved when they act on it: the instance that a proposal got is in the proposal.
"""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from p4xos import wire
from p4xos.effects import ACCEPTORS, Effects, Role, To
from p4xos.errors import BadPacket
from p4xos.roles.acceptor import ANSWER_ROWS_MAX
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Message, Rows, Type
from switch.control.acceptor import SwitchAcceptor
from switch.control.backend import DataPlane
from switch.control.plan import Plan
from switch.control.sequencer import SwitchSequencer
from switch.xdp.wired import LOOK_S


class Wired(DataPlane, Protocol):
    """A data plane that is to be looked after."""

    def keep_up(self) -> float:
        """Looks whether anything has changed; the seconds until it is worth it again."""


class XdpAcceptor(SwitchAcceptor):
    """An acceptor in the kernel, and what looks after it."""

    _ranged = (Type.LEARN, Type.PHASE1A)

    def __init__(self, plane: Wired, plan: Plan) -> None:
        """As SwitchAcceptor."""
        super().__init__(plane, plan)
        self._wired = plane
        self._look_at = float("-inf")

    def tick(self, now: float) -> Effects:
        """Looks after the plane."""
        if now >= self._look_at:
            self._look_at = now + self._wired.keep_up()
        return Effects.none()

    def deadline(self) -> float | None:
        """When it looks again."""
        return self._look_at

    def step(self, rows: Rows, now: float) -> Effects:
        """What the kernel has handed up, or another process of this machine sent."""
        return super().step(rows, now) if self._open else Effects.none()

    def _answers(self, m: Message) -> list[tuple[To, Rows]]:
        """As SwitchAcceptor; phase 1 of a range is answered at once, as software does."""
        if m.type != Type.PHASE1A:
            return super()._answers(m)
        try:
            end = wire.unpack_end(m.value)
        except BadPacket:
            end = 0
        if end <= m.instance + 1:
            return super()._answers(m)
        if end == wire.END_OF_LOG:
            return self._promise_log(m)
        first = max(m.instance, self.low)
        reports = self._promise_each(m, first, min(end, self.low + self.window))
        if reports:
            return [self._summary(m, first, len(reports)), *reports]
        return [] if first < end else super()._answers(m)

    def _promise_log(self, m: Message) -> list[tuple[To, Rows]]:
        """The kernel promises; the summary counts more than there may be, never less."""
        if not self._plane.inject(wire.from_messages([m])):
            return []
        first = max(m.instance, self.low)
        end = self.highest + 1
        reports = self._promise_each(m, first, end)
        return [self._summary(m, first, max(end - first, 0)), *reports]

    def _promise_each(self, m: Message, first: int, end: int) -> list[tuple[To, Rows]]:
        """One promise and report an instance, as many as one answer has; none where refused."""
        reports: list[tuple[To, Rows]] = []
        for i in range(first, min(end, first + ANSWER_ROWS_MAX)):
            question = m._replace(instance=i, value=wire.pack_end(i + 1))
            reports += self._plane.inject(wire.from_messages([question]))
        return reports

    def _summary(self, m: Message, first: int, count: int) -> tuple[To, Rows]:
        summary = wire.Summary(self.highest, count, m.vround, self.seen)
        rows = wire.encode(
            self.frame.cluster, self.frame.group, Type.PHASE1B, instance=first, round=m.round,
            sender=self.frame.sender, incarnation=self.incarnation, low=self.low,
            value=wire.pack_summary(summary),
        )  # fmt: skip
        return To(Role.COORDINATOR, m.sender), rows


class XdpSequencer(SwitchSequencer):
    """Requests are numbered in the kernel; this is how the coordinator sees it."""

    fill_chunk = 64
    fill_every_s = 0.004
    """A no-op takes some tens of microseconds to be injected."""

    def __init__(self, plane: Wired, plan: Plan) -> None:
        """As SwitchSequencer."""
        self._wired = plane
        self._look_at = float("-inf")
        self._proposed_there = 0  # as last counted
        super().__init__(plane, plan)

    @property
    def next(self) -> int:
        """Never proposed in this round, when it was read."""
        if not self._active:
            return self._next
        self._look_after()
        return max(self._plane.read("next"), self._low)

    @next.setter
    def next(self, next: int) -> None:
        # The kernel raises its own to low, and gives instances away between a look and the next.
        assert not self._active or next <= self.next, "the data plane gives instances away"
        self._next = next

    def hand_over(self) -> None:
        """As SwitchSequencer."""
        super().hand_over()
        self._look_after()

    def propose(self, rows: Rows) -> Rows:
        """As Sequencer.propose; those that the window has no room for any more are left out."""
        if not self._active:
            return Sequencer.propose(self, rows)
        header = wire.headers(rows)
        own = header["type"] != Type.REQUEST  # no-ops of the coordinator's own
        header["type"][own], header["sender"][own] = Type.REQUEST, self._proposer
        proposals = [sent for to, sent in self._plane.inject(rows) if to == ACCEPTORS]
        self.counters["window_full"] += len(rows) - len(proposals)
        return np.concatenate(proposals) if proposals else rows[:0]

    def _look_after(self) -> None:
        now = time.monotonic()
        if now >= self._look_at:
            self._look_at = now + min(self._wired.keep_up(), LOOK_S)
            self._count()

    def _count(self) -> None:
        """What the kernel did by itself; the process counts the rest where it arrives."""
        counted = self._plane.statistics()["proposed"]
        self.counters["proposed"] += counted - self._proposed_there
        self._proposed_there = counted
