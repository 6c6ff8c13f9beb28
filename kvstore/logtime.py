"""Log time: the clock that all replicas share, because it comes out of the log.

Every entry carries its proposer's clock as a stamp, and `now = max(now, stamp)`: replicas that
applied the same entries have the same time, and so expire the same keys at the same entry.

One node's wrong clock must not expire everybody's keys. A stamp more than `LEAP_MS` ahead is a
*leap*. It is not believed from one node alone, only remembered; the time that two nodes vouch for,
the lower one of their stamps, is believed. After a quiet hour every first stamp is a leap: replicas
whose own clock confirms it say so by an entry of their own, and the time moves (`kvstore.server`).
All of it is part of the state: it follows from the entries alone, never from a clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import msgpack

LEAP_MS: Final = 10_000
"""Clocks that are set by NTP differ by far less, and a cluster in use moves its time more often."""

Clock = Callable[[], int]
"""Milliseconds since the epoch, as this machine believes."""


def wall_clock() -> int:
    """This machine's clock, in ms since the epoch."""
    return time.time_ns() // 1_000_000


class LogTime:
    """The time of one replica's log."""

    def __init__(self) -> None:
        """Before the first entry, which is believed."""
        self.alone = False
        """The cluster has one learner, whose stamps are all there is; the same on all replicas."""
        self.reset()

    def reset(self) -> None:
        """Back to the beginning."""
        self.now = 0
        """The highest time believed, in ms."""
        self.entry = 0
        """What the entry under way counts relative times from: `now`, or its stamp when that is
        ahead: what it writes is to last as long as its own client asked for, whoever is right."""
        self.leaps: dict[int, int] = {}
        """The last stamp not believed, by origin; all are ahead of `now`."""

    def advance(self, stamp: int, origin: int) -> bool:
        """Takes an entry's stamp; false when it is a leap that is not believed now."""
        self.entry = self.now
        if stamp <= self.now:
            return True
        if not (stamp - self.now <= LEAP_MS or self.now == 0 or self.alone):
            others = [leap for other, leap in self.leaps.items() if other != origin]
            self._move(max((min(stamp, leap) for leap in others), default=0))
        believed = stamp - self.now <= LEAP_MS or self.now == 0 or self.alone
        if believed:
            self._move(stamp)
        else:
            self.leaps[origin] = stamp
        self.entry = max(stamp, self.now)
        return believed

    def _move(self, now: int) -> None:
        if now > self.now:
            self.now = now
            if self.leaps:
                self.leaps = {origin: leap for origin, leap in self.leaps.items() if leap > now}

    def pack(self) -> bytes:
        """For the store."""
        packed: bytes = msgpack.packb([self.now, sorted(self.leaps.items())])
        return packed

    def unpack(self, packed: bytes) -> None:
        """What the store had."""
        self.now, leaps = msgpack.unpackb(packed)
        self.entry = self.now
        self.leaps = dict(leaps)
