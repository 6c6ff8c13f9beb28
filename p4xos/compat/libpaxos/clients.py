"""Which packs of which clients the log has had: a pack that comes twice counts once.

A function of the log, so that all gateways agree, now and after any restart:

    client unknown, number 1:            known from here on; NEW
    client unknown, another number:      REFUSED: it was forgotten, or never was
    number had before:                   REPEATED
    number > through + AHEAD:            REFUSED
    else:                                NEW

`through` is the number up to which all have come. CLIENTS_MAX are known; for one more, the one that
was not heard of for longest is forgotten, by the log's instances and never by a clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, auto
from typing import NamedTuple

import msgpack

from p4xos.roles.sessions import SequenceSet

CLIENTS_MAX = 4096
AHEAD = 1024
"""Numbers above `through` that a client may have under way: the bound on what is kept of it."""


class Verdict(Enum):
    """What a pack is to the log."""

    NEW = auto()
    REPEATED = auto()
    REFUSED = auto()


class _Client(NamedTuple):
    last_instance: int
    had: SequenceSet


class Clients:
    """The table."""

    def __init__(self, records: Mapping[bytes, bytes] | None = None) -> None:
        """As records say that were kept of another one; none: empty."""
        found = []
        for key, value in (records or {}).items():
            last, through, ahead = msgpack.unpackb(value)
            had = SequenceSet(through, [(start, stop) for start, stop in ahead])
            found.append((last, int.from_bytes(key, "big"), had))
        self._clients = {client: _Client(last, had) for last, client, had in sorted(found)}
        """The one that was not heard of for longest comes first."""
        self._changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._clients)

    def take(self, client: int, number: int, instance: int) -> Verdict:
        """Takes a pack that was chosen in an instance; instances only grow."""
        known = self._clients.pop(client, None)
        if known is None:
            if number != 1:
                return Verdict.REFUSED
            if len(self._clients) >= CLIENTS_MAX:
                oldest = next(iter(self._clients))
                del self._clients[oldest]
                self._changed.add(oldest)
            known = _Client(instance, SequenceSet())
        self._clients[client] = _Client(instance, known.had)
        self._changed.add(client)
        if number > known.had.through + AHEAD:
            return Verdict.REFUSED
        return Verdict.NEW if known.had.take(number, number + 1) else Verdict.REPEATED

    def had(self, client: int, number: int) -> bool:
        """Whether a pack counts already."""
        known = self._clients.get(client)
        return known is not None and not known.had.untouched(number, number + 1)

    def changes(self) -> dict[bytes, bytes | None]:
        """Records that changed since the last call, to be kept; None: to be removed."""
        changes: dict[bytes, bytes | None] = {}
        for client in self._changed:
            known = self._clients.get(client)
            changes[client.to_bytes(8, "big")] = None if known is None else msgpack.packb(
                [known.last_instance, known.had.through, known.had.ahead]
            )
        self._changed.clear()
        return changes
