"""Whether what a serving coordinator proposes is being chosen (docs/PROTOCOL.md, section 4).

Requests outstanding and no progress mean phase 1 again. Progress is what learners have made
durable, or, when that lags, how far the votes of a majority reach: it is asked for (READ_INDEX).
"""

from __future__ import annotations


class Progress:
    """How far proposals are known to have come, and when to look again."""

    def __init__(self, stall_s: float) -> None:
        """Not watching.

        Args:
          stall_s: between two looks; twice nothing new means that the round is lost.
        """
        self.through = 0  # votes of a majority, or a checkpoint, reach so far
        self.look_at: float | None = None  # None: not watching
        self.looking = False  # a READ_INDEX of the last look is under way
        self._stall_s = stall_s
        self._stuck_at: int | None = None  # `through` at the last look that found no end of it

    def begin(self, now: float) -> None:
        """A term begins: what an older round achieved says nothing about this one."""
        self.through = 0
        self.looking = False
        self._stuck_at = None
        self.look_at = now + self._stall_s

    def stop(self) -> None:
        """The term is over."""
        self.look_at = None

    def made(self, instance: int) -> None:
        """Something reaches through an instance."""
        self.through = max(self.through, instance)

    def look(self, now: float, last_proposed: int) -> bool:
        """Whether something is outstanding, so that the acceptors are to be asked."""
        self.look_at = now + self._stall_s
        if self.through >= last_proposed:
            self._stuck_at = None
            return False
        return True

    def answered(self, voted_through: int, last_proposed: int) -> bool:
        """Takes how far a majority has voted; whether that was the same at the last look."""
        self.made(voted_through)
        if not self.looking:
            return False
        self.looking = False
        outstanding = self.through < last_proposed
        stuck = outstanding and self.through == self._stuck_at
        self._stuck_at = self.through if outstanding else None
        return stuck
