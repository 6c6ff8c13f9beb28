"""Who waits for which ticket: submissions, until they are delivered or their outcome is unknown.

Tickets end by delivery or by `failed`; one that ends twice, or that nobody waits for any more, is
ignored. Several values submitted together are one group, and end together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from p4xos.errors import P4xosError

Settled = Callable[[list[int] | P4xosError], None]
"""Gets the instances of a group's values, or why they are not known."""


class _Group:
    def __init__(self, count: int, settled: Settled) -> None:
        self.instances = [0] * count
        self.missing = count
        self.settled = settled
        self.over = False


class Submissions:
    """The groups under way."""

    def __init__(self) -> None:
        self._waiting: dict[int, tuple[_Group, int]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def expect(self, tickets: Sequence[int], settled: Settled) -> None:
        """Calls `settled` once, when all of these tickets have ended."""
        group = _Group(len(tickets), settled)
        for k, ticket in enumerate(tickets):
            self._waiting[ticket] = (group, k)

    def delivered(self, ticket: int, instance: int, count: int) -> None:
        """Consecutive tickets were delivered at consecutive instances."""
        if not self._waiting:
            return
        for k in range(count):
            found = self._waiting.pop(ticket + k, None)
            if found is None:
                continue
            group, place = found
            group.instances[place] = instance + k
            group.missing -= 1
            if not group.missing and not group.over:
                group.over = True
                group.settled(group.instances)

    def failed(self, tickets: Sequence[int], error: P4xosError) -> None:
        """The outcome of these is unknown, and with it that of their groups."""
        for ticket in tickets:
            found = self._waiting.pop(ticket, None)
            if found is None:
                continue
            group = found[0]
            if not group.over:
                group.over = True
                group.settled(error)
