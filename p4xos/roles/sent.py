"""What the coordinator last sent for each instance of the window.

Never two values for one instance in one round: a PHASE2A is sent again only from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import numpy as np

from p4xos import wire
from p4xos.quorum import NO_ROUND
from p4xos.wire import HEADER_BYTES, Rows


class SentRing:
    """The round and value of the last PHASE2A, by slot."""

    def __init__(self, window: int, value_bytes: int) -> None:
        self._window = window
        self._instance = np.zeros(window, dtype=np.int64)  # 0: none
        self._round = np.zeros(window, dtype=np.uint32)  # of the PHASE2A, never decreasing
        self._length = np.zeros(window, dtype=np.uint16)
        self._value = np.zeros((window, value_bytes), dtype=np.uint8)

    def clear(self) -> None:
        """A new term: what an older round sent is not this one's to send again."""
        self._instance[:] = 0

    def keep(self, first: int, round: int, rows: Rows) -> None:
        """Keeps consecutive proposals, `first` being the first row's instance."""
        width = min(rows.shape[1] - HEADER_BYTES, self._value.shape[1])
        lengths = wire.headers(rows)["length"]
        done = 0
        while done < len(rows):  # twice at most per window: a slice ends where the ring does
            slot = (first + done) & (self._window - 1)
            count = min(len(rows) - done, self._window - slot)
            part, taken = slice(slot, slot + count), slice(done, done + count)
            self._instance[part] = np.arange(first + done, first + done + count)
            self._round[part] = round
            self._length[part] = lengths[taken]
            self._value[part, :width] = rows[taken, HEADER_BYTES : HEADER_BYTES + width]
            done += count

    def round_of(self, instance: int) -> int:
        """The round of the last PHASE2A for an instance, NO_ROUND when there is none."""
        slot = instance & (self._window - 1)
        return int(self._round[slot]) if self._instance[slot] == instance else NO_ROUND

    def value_in(self, instance: int, round: int) -> bytes:
        """What was last sent for an instance, b"" unless that was in this round."""
        slot = instance & (self._window - 1)
        if self._instance[slot] != instance or self._round[slot] != round:
            return b""
        return self._value[slot, : self._length[slot]].tobytes()

    def rows(
        self, instances: Iterable[int], encode: Callable[[int, int, bytes], Rows]
    ) -> Iterator[Rows]:
        """The PHASE2A to send again, one message each, of those sent in this term."""
        for instance in instances:
            slot = instance & (self._window - 1)
            if self._instance[slot] == instance:
                value = self._value[slot, : self._length[slot]].tobytes()
                yield encode(instance, int(self._round[slot]), value)
