"""What an acceptor's log must keep: for each slot, the newest vote and the segment it lies in.

A vote is live while its instance is at or above `low` and no later vote took its slot. Segments
go from the oldest on, so that their numbers have no hole. Deleting only what lies below `low`
would not bound the log: votes cast again in new rounds, and promises without votes, add to it
while `low` stands still. So when more than DEAD_SEGMENTS of it are dead, live votes of the oldest
segments are copied ahead, and those segments go.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos import wire
from p4xos.wire import HEADER_BYTES, Rows, Type

DEAD_SEGMENTS = 1.5
"""Dead bytes kept, in segments. In order, votes leave less than one dead: they are never copied."""

WAITING_ROWS_MAX = 1 << 16
"""Rows noted before they are looked at: a few milliseconds and megabytes."""

_NONE = -1
_VOTE, _REGISTERS = int(Type.PHASE2B), int(Type.RECORDED)  # an enum's member costs a call


class _Noted(NamedTuple):
    """What `note` was given and nobody has looked at; one entry a call, but for `headers`."""

    headers: list[bytes]
    counts: list[int]  # rows of each call
    segments: list[int]
    stored_bytes: list[int]
    rows: int  # in all


class LiveVotes:
    """Which votes are live, where they lie, and the bytes that they take there."""

    def __init__(self, window: int) -> None:
        """Nothing is live.

        Args:
          window: slots, a power of two.
        """
        self.window = window
        self._low = 1  # every instance below is forgotten
        self._instance = np.zeros(window, dtype=np.int64)  # 0: no vote in this slot yet
        self._segment = np.full(window, _NONE, dtype=np.int64)  # where its newest vote lies
        self._bytes = np.zeros(window, dtype=np.float64)  # with its share of the frame
        self._waiting = _Noted([], [], [], [], 0)

    def note(self, batches: Sequence[Rows], segment: int, stored_bytes: int) -> None:
        """Takes in records that lie in a segment now.

        Only their headers are copied here, since every append pays for this; they are looked at
        when somebody asks, thousands at once.

        Args:
          batches: rows as persisted, later ones newer.
          segment: its number.
          stored_bytes: what the batches take there, everything counted.
        """
        waiting = self._waiting
        waiting.headers.extend(rows[:, :HEADER_BYTES].tobytes() for rows in batches)
        count = sum(map(len, batches))
        waiting.counts.append(count)
        waiting.segments.append(segment)
        waiting.stored_bytes.append(stored_bytes)
        self._waiting = waiting._replace(rows=waiting.rows + count)
        if self._waiting.rows > WAITING_ROWS_MAX:
            self._settle()

    def _settle(self) -> None:
        """Looks at what was noted."""
        headers, counts, segments, stored_bytes, rows = self._waiting
        if rows == 0:
            return
        self._waiting = _Noted([], [], [], [], 0)
        header = np.frombuffer(b"".join(headers), wire.HEADER)
        registers = header["type"] == _REGISTERS
        if registers.any():
            self._low = max(self._low, int(header["low"][registers].max()))
        is_vote = header["type"] == _VOTE
        call = np.repeat(np.arange(len(counts)), counts)[is_vote]  # the call that noted each vote
        votes_of_call = np.bincount(call, minlength=len(counts))
        instances = header["instance"][is_vote].astype(np.int64)
        slots = instances & (self.window - 1)
        self._instance[slots] = instances  # of repeats the last stays, as it must
        self._segment[slots] = np.array(segments)[call]
        self._bytes[slots] = np.array(stored_bytes)[call] / votes_of_call[call]

    def live_bytes(self, oldest: int, newest: int) -> NDArray[np.float64]:
        """The bytes of live votes in each of the segments oldest..newest."""
        self._settle()
        live = (self._instance >= self._low) & (self._segment >= oldest)
        return np.bincount(
            self._segment[live] - oldest, weights=self._bytes[live], minlength=newest - oldest + 1
        ).astype(np.float64)

    def select(self, batches: Sequence[Rows], segment: int) -> list[Rows]:
        """The live votes of a segment, for copying.

        Args:
          batches: all rows of the segment, in order.
          segment: its number.

        Returns:
          Fresh arrays, one for each stride; each instance once, so their order means nothing.
        """
        self._settle()
        newest = np.zeros(self.window, dtype=np.int64)  # position of a slot's last vote
        position = 0
        votes = []
        for rows in batches:
            header = wire.headers(rows)
            instances = header["instance"].astype(np.int64)
            slots = instances & (self.window - 1)
            live = (header["type"] == _VOTE) & (instances >= self._low)
            live &= (self._segment[slots] == segment) & (self._instance[slots] == instances)
            index = np.flatnonzero(live)
            newest[slots[index]] = position + index
            votes.append((rows, index, slots[index], position))
            position += len(rows)
        by_stride: dict[int, list[Rows]] = {}
        for rows, index, slots, start in votes:
            kept = rows[index[newest[slots] == start + index]]
            if len(kept):
                by_stride.setdefault(rows.shape[1], []).append(kept)
        return [np.concatenate(group) for group in by_stride.values()]


def dispensable(sizes: Sequence[int], live: Sequence[float], segment_bytes: int) -> int:
    """How many of the oldest segments are to go.

    Args:
      sizes: bytes of each segment, oldest first.
      live: bytes of live votes in each, which must be copied if it goes.
      segment_bytes: the size of a segment as configured.
    """
    going = 0
    dead = sum(sizes) - sum(live)
    for size, kept in zip(sizes, live, strict=True):
        if kept > 0 and dead <= DEAD_SEGMENTS * segment_bytes:
            break
        dead -= size - kept
        going += 1
    return going
