"""How much a proposer has on the way at once (docs/PROTOCOL.md, section 5).

A value of megabytes sent in one call overruns the sockets on its way: what a kernel grants without
privileges is a few hundred kilobytes, and a learner hears every byte from each acceptor. So a
proposer sends no more than its budget before it sees what it sent come back, chosen. The budget
grows by what comes back, doubling with every round trip, until something had to be sent again or
repaired; from then on it grows by a segment a round trip, and halves when that happens again: the
additive increase and multiplicative decrease of TCP (RFC 5681), for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

START_BYTES = 128 << 10
"""Of what is sent before anything has come back: twice what one system call carries."""
LEAST_BYTES = 32 << 10
MOST_BYTES = 2 << 20
"""Half of the buffer that an endpoint asks for, for what others send meanwhile."""
SEGMENT_BYTES = 64 << 10
"""What one system call carries: by so much the budget grows in a round trip."""


@dataclass(frozen=True)
class Budget:
    """Its bounds, and how it grows."""

    start_bytes: int = START_BYTES
    least_bytes: int = LEAST_BYTES
    most_bytes: int = MOST_BYTES
    segment_bytes: int = SEGMENT_BYTES


class Pace:
    """Counts the bytes on the way, by ticket, and bounds them."""

    def __init__(self, tickets_max: int, bounds: Budget | None = None) -> None:
        """Nothing is on the way.

        Args:
          tickets_max: consecutive tickets that may be in use at once, a power of two.
          bounds: of the budget.
        """
        self._bounds = bounds or Budget()
        self.budget = self._bounds.start_bytes
        self.on_the_way = 0  # bytes of all tickets below; <= budget, or those of one ticket
        self._bytes_of = np.zeros(tickets_max, dtype=np.int32)  # by ticket modulo; 0: not sent
        self._doubling = True  # nothing was ever lost
        self._slowed_at = float("-inf")

    def room(self, stride: int) -> int:
        """How many rows of a stride may leave now; one always may when nothing is on the way."""
        return max((self.budget - self.on_the_way) // stride, 0 if self.on_the_way else 1)

    def sent(self, places: list[slice], stride: int) -> None:
        """Rows have left for the first time."""
        for place in places:
            self._bytes_of[place] = stride
            self.on_the_way += stride * (place.stop - (place.start or 0))

    def settled(self, places: list[slice]) -> None:
        """These tickets are chosen: they need not be sent any more."""
        freed = self._free(places)
        if self.on_the_way * 2 >= self.budget:  # less was not held back: it tells nothing
            grown = freed if self._doubling else freed * self._bounds.segment_bytes // self.budget
            self.budget = min(self.budget + grown, self._bounds.most_bytes)
        self.on_the_way -= freed

    def dropped(self, places: list[slice]) -> None:
        """These tickets are not sent any more, and nothing is known of how they fared."""
        self.on_the_way -= self._free(places)

    def _free(self, places: list[slice]) -> int:
        freed = 0
        for place in places:
            freed += int(self._bytes_of[place].sum())
            self._bytes_of[place] = 0
        return freed

    def missing(self, place: slice) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which tickets were sent and have not come back.

        Returns:
          (n,) bool, fresh.
        """
        missing: np.ndarray[tuple[int], np.dtype[np.bool_]] = self._bytes_of[place] > 0
        return missing

    def slow_down(self, now: float, round_trip_s: float) -> None:
        """Something was lost: halves the budget, once for what was on the way together."""
        if now - self._slowed_at > round_trip_s:
            self._slowed_at = now
            self._doubling = False
            self.budget = max(self.budget // 2, self._bounds.least_bytes)

    def check_invariants(self) -> None:
        """Asserts that the total is that of the tickets."""
        assert self.on_the_way == int(self._bytes_of.sum())
        assert self._bounds.least_bytes <= self.budget <= self._bounds.most_bytes
