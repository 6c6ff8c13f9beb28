"""Fakes for what a role's driver owns: an acceptor's log and an application's state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from p4xos import wire
from p4xos.wire import Rows, Type

SEGMENT_RECORDS = 24
"""Batches of records in a segment: few, so that a short run sees segments come and go."""


class RecordLog:
    """An acceptor's log in memory: what was appended survives, in segments that are trimmed.

    A segment that begins takes `carry_over()` first; full segments go, oldest first, once they hold
    no vote at or above `low`.
    """

    def __init__(self) -> None:
        self.carry_over: Callable[[], list[Rows]] = list
        self._segments: list[list[Rows]] = [[]]
        self._low = 1

    def append(self, records: list[Rows]) -> None:
        """Keeps copies; they are durable at once."""
        if not records:
            return
        kept = [rows.copy() for rows in records]
        if len(self._segments[-1]) >= SEGMENT_RECORDS:
            # `carry_over` shows the state behind these records: both stand in the new segment.
            self._segments.append([rows.copy() for rows in self.carry_over()])
        self._segments[-1].extend(kept)
        for rows in kept:
            header = wire.headers(rows)
            if header["type"][0] == Type.RECORDED:
                self._low = max(self._low, int(header["low"].max()))
        while len(self._segments) > 1 and self._highest_vote(self._segments[0]) < self._low:
            del self._segments[0]

    def records(self) -> list[Rows]:
        """Everything kept, in order."""
        return [rows.copy() for segment in self._segments for rows in segment]

    @staticmethod
    def _highest_vote(segment: list[Rows]) -> int:
        highest = 0
        for rows in segment:
            header = wire.headers(rows)
            votes = header["instance"][header["type"] == Type.PHASE2B]
            highest = max(highest, int(votes.max()) if len(votes) else 0)
        return highest


@dataclass
class AppliedLog:
    """A state machine that remembers every command: its state is what it has applied."""

    applied: int = 0
    """The last instance whose effect is in the state."""
    commands: list[bytes] = field(default_factory=list)
    learner_state: dict[bytes, bytes] = field(default_factory=dict)
    """The learner's records at `applied`, stored with it."""

    def copy(self) -> AppliedLog:
        """A consistent snapshot."""
        return AppliedLog(self.applied, list(self.commands), dict(self.learner_state))
