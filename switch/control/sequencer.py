"""The controller's hold on a sequencer that a data plane runs (docs/PROTOCOL.md, section 4).

    hand_over            phase 1 is won and what it found is proposed:
                                      round = 0, then low and next, then the round
    round = NO_ROUND     it steps down, or asks for promises again:  round = 0, at once
    low moves            low; the data plane itself raises next to it
    propose              requests through the data plane: its PHASE2A come back

Everything else is `p4xos.roles.coordinator`, which does not know where its sequencer runs: it asks
for promises, proposes what it finds, recovers, beats, and follows others. While the data plane is
active, nobody but it gives instances away: its `next` is read here, never written.
"""

from __future__ import annotations

import numpy as np

from p4xos import wire
from p4xos.effects import ACCEPTORS, Role
from p4xos.quorum import NO_ROUND
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Rows, Type
from switch.control.backend import DataPlane
from switch.control.plan import Plan


class SwitchSequencer(Sequencer):
    """Numbers requests on a data plane while the coordinator serves, by itself before that."""

    fill_chunk = 16
    fill_every_s = 0.02
    """An interpreter takes some thousand packets a second, and bmv2 loses what comes at once beyond
    32: no-ops of nobody's are not to keep it from its heartbeats."""

    def __init__(self, plane: DataPlane, plan: Plan) -> None:
        """Inactive, here and there.

        Args:
          plane: its own; nothing is loaded.
          plan: what the cluster file says.
        """
        self._plane = plane
        self._active = False  # the data plane's round is this one's, not 0
        plane.load(plan)
        plane.open()
        super().__init__(frame=plan.frame, window=plan.window, value_bytes=plan.value_bytes)
        learners = [to.id for to in plan.addresses if to.role is Role.LEARNER]
        self._proposer = min(id for id in learners if id is not None)

    # Its registers are the data plane's while that is active. ------------------------------------

    @property
    def round(self) -> int:
        """Won by phase 1 to the end of the log; NO_ROUND: inactive."""
        return self._round

    @round.setter
    def round(self, round: int) -> None:
        if self._active:
            assert round == NO_ROUND, "another round comes by way of round 0"
            self._plane.write("round", NO_ROUND)
            self._active = False
        self._round = round

    @property
    def next(self) -> int:
        """Never proposed in this round."""
        return max(self._plane.read("next"), self._low) if self._active else self._next

    @next.setter
    def next(self, next: int) -> None:
        assert not self._active or next == self.next, "the data plane gives instances away"
        self._next = next

    @property
    def low(self) -> int:
        """Nothing below is proposed."""
        return self._low

    @low.setter
    def low(self, low: int) -> None:
        if self._active:
            self._plane.write("low", low)
        self._low = low

    def hand_over(self) -> None:
        """From here on the data plane gives instances away."""
        assert not self._active
        assert self._round != NO_ROUND
        self._plane.write("round", NO_ROUND)
        self._plane.write("low", self._low)
        self._plane.write("next", self._next)
        self._plane.write("round", self._round)
        self._active = True

    def close(self) -> None:
        """As Sequencer.close."""
        self.round = NO_ROUND
        self._plane.teardown()

    def propose(self, rows: Rows) -> Rows:
        """As Sequencer.propose; while the data plane is active, what it makes of the requests."""
        if not self._active:
            return super().propose(rows)
        count = len(rows)
        assert 0 < count <= self.room
        header = wire.headers(rows)
        own = header["type"] != Type.REQUEST  # no-ops of the coordinator's own
        header["type"][own], header["sender"][own] = Type.REQUEST, self._proposer
        proposals = [some for to, some in self._plane.inject(rows) if to == ACCEPTORS]
        sent = sum(map(len, proposals))
        assert sent == count, "the data plane has lost its registers"
        self.counters["proposed"] += count
        return np.concatenate(proposals)

