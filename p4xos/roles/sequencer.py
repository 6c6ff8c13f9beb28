"""The coordinator's data plane, the part that a switch can take over (docs/PROTOCOL.md, section 4).

Registers: round, next, low. Inactive while round is NO_ROUND.

    REQUEST, round != NO_ROUND, next < low + window:  PHASE2A (next, round, value) to all acceptors;
                                                      next = next + 1
    anything else:                                    silence and a counter
"""

from __future__ import annotations

import numpy as np

from p4xos import wire
from p4xos.batching import SCALAR_BELOW, split_runs
from p4xos.effects import ACCEPTORS, Effects
from p4xos.quorum import NO_ROUND
from p4xos.wire import Frame, Rows, Type


class Sequencer:
    """Gives each request the next instance; its registers are written by whoever runs phase 1."""

    fill_chunk = 256
    fill_every_s = 0.004
    """An acceptor that joins again waits until a window of instances is chosen and checkpointed:
    of no load come so many no-ops, so often, which takes a second and leaves the cores to
    clients."""

    def __init__(
        self, *, frame: Frame, window: int, value_bytes: int, scalar_below: int = SCALAR_BELOW
    ) -> None:
        """Inactive.

        Args:
          frame: cluster, group and this coordinator's id.
          window: instances from `low` that may be proposed, a power of two.
          value_bytes: largest value.
          scalar_below: batches of fewer messages take the scalar path.
        """
        self.frame = frame
        self.window = window
        self.value_bytes = value_bytes
        self.round = NO_ROUND  # won by phase 1 to the end of the log; NO_ROUND: inactive
        self.next = 1  # never proposed in this round
        self.low = 1  # nothing below is proposed
        self.counters = dict.fromkeys(
            ("proposed", "inactive", "window_full", "value_too_long", "ignored"), 0
        )
        self._scalar_below = scalar_below

    def hand_over(self) -> None:
        """The coordinator serves from here on: where there is a data plane, it numbers requests."""

    def close(self) -> None:
        """Numbers nothing any more, and gives back what a data plane took; nothing follows."""

    @property
    def room(self) -> int:
        """How many more instances the window takes."""
        return max(self.low + self.window - self.next, 0)

    def step(self, rows: Rows, now: float) -> Effects:
        """Acts on a batch; requests become PHASE2A in place, as in a switch."""
        effects = Effects.none()
        for run in split_runs(rows, self.window):
            if run.type != Type.REQUEST:
                self.counters["ignored"] += run.size
                continue
            if self.round == NO_ROUND:
                self.counters["inactive"] += run.size
                continue
            requests = self.fitting(rows[run.start : run.stop])
            taken = requests[: self.room]
            self.counters["window_full"] += len(requests) - len(taken)
            if len(taken):
                effects.send.append((ACCEPTORS, self.propose(taken)))
        return effects

    def fitting(self, rows: Rows) -> Rows:
        """The requests whose value the acceptors can hold; the others are counted."""
        if rows.shape[1] - wire.HEADER_BYTES <= self.value_bytes:
            return rows
        fits = wire.headers(rows)["length"] <= self.value_bytes
        if fits.all():
            return rows
        self.counters["value_too_long"] += int((~fits).sum())
        return rows[fits]

    def propose(self, rows: Rows) -> Rows:
        """Turns values into PHASE2A of the next instances, in place; returns the same rows.

        Args:
          rows: (n, stride) uint8, at most `room`, all of `fitting` length.
        """
        count = len(rows)
        assert 0 < count <= self.room
        assert self.round != NO_ROUND
        if count < self._scalar_below:
            self._stamp_one_by_one(rows)
        else:
            header = wire.headers(rows)
            header["type"] = Type.PHASE2A
            header["instance"] = np.arange(self.next, self.next + count, dtype=np.uint64)
            header["round"] = self.round
            header["vround"] = 0
            header["sender"] = self.frame.sender
            header["incarnation"] = 0
            header["low"] = self.low
        self.next += count
        self.counters["proposed"] += count
        return rows

    def _stamp_one_by_one(self, rows: Rows) -> None:
        for row in range(len(rows)):
            data = rows[row].data
            length = wire.HEADER_STRUCT.unpack_from(data)[8]
            wire.HEADER_STRUCT.pack_into(
                data, 0, wire.VERSION, Type.PHASE2A, self.frame.group, self.frame.cluster,
                self.next + row, self.round, 0, self.frame.sender, length, 0, self.low,
            )  # fmt: skip

    def check_invariants(self) -> None:
        """Asserts that nothing below low is ever next."""
        assert self.next >= 1
        assert self.low >= 1
