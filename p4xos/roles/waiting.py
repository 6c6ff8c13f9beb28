"""Requests that wait for an instance: during phase 1, and while the window is full."""

from __future__ import annotations

from collections import deque

from p4xos.wire import Rows


class WaitingRequests:
    """A bounded queue of REQUEST rows; what does not fit is for the proposer to send again."""

    def __init__(self, messages_max: int) -> None:
        self._batches: deque[Rows] = deque()
        self._messages = 0
        self._messages_max = messages_max

    def __len__(self) -> int:
        """How many messages wait."""
        return self._messages

    def add(self, rows: Rows) -> int:
        """Takes a copy of what fits, as a batch is the driver's after the step; tells how many."""
        kept = rows[: self._messages_max - self._messages]
        if len(kept):
            self._batches.append(kept.copy())
            self._messages += len(kept)
        return len(kept)

    def take(self, count: int) -> Rows:
        """The oldest messages, at most `count` and of one batch; there must be one."""
        rows = self._batches.popleft()
        if count < len(rows):
            self._batches.appendleft(rows[count:])
        taken = rows[:count]
        self._messages -= len(taken)
        return taken

    def clear(self) -> None:
        """Another coordinator serves: the proposers send to it."""
        self._batches.clear()
        self._messages = 0

    def check_invariants(self) -> None:
        """Asserts that the count is that of the batches, and bounded."""
        assert self._messages == sum(map(len, self._batches)) <= self._messages_max
