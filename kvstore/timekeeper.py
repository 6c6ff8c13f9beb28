"""When a node moves log time on its own: an entry without commands, stamped by its clock.

Three occasions, and none while nothing is due:
  a read has met a key that is due by this node's clock and not by log time: it waits for the time;
  keys are due and no client's entry has come to remove them: the node with the lowest rank first;
  another node's stamp was not believed though this node's clock confirms it (`kvstore.logtime`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import trio

from kvstore.batcher import WriteBatcher
from kvstore.commands.table import Entry
from kvstore.connection import Connection
from kvstore.resp import Command
from kvstore.store import Store

PATIENCE_S = 1.0
"""How long a read waits for log time. Then log time as it is must do: this clock is alone."""
LOOK_S = 1.0
"""How often an idle node looks for keys that are due; a read that wants to know does not wait."""
SHORTEST_S = 0.05
"""Bounds how often it looks when keys are due all the time."""
RANK_LAG_MS = 100
"""How much later each rank looks: longer than an entry takes, so that one node suffices."""
RANKS = 8
"""Of more learners some share a rank: two entries of no commands do no harm."""


class LateRead(NamedTuple):
    """Reads of one client that wait until log time is at their moment."""

    connection: Connection
    run: list[tuple[Entry, Command]]
    moment: int
    give_up_at: float


class TimeKeeper:
    """Asks for entries that move log time."""

    def __init__(
        self, store: Store, batcher: WriteBatcher, origin: int, wake: Callable[[], None]
    ) -> None:
        """With nothing to ask for.

        Args:
          store: tells log time and what is due.
          batcher: proposes the entry.
          origin: this learner's id.
          wake: makes the server's task propose what waits.
        """
        self.late: list[LateRead] = []
        """Reads that wait for log time."""
        self._store = store
        self._batcher = batcher
        self._lag_ms = origin % RANKS * RANK_LAG_MS
        self._wake = wake
        self._sweeping = False

    @property
    def waiting(self) -> bool:
        """Whether the server must come back soon."""
        return bool(self.late) or self._batcher.time_wanted

    def want(self) -> None:
        """Has an entry proposed, if no client's is about to be."""
        self._batcher.time_wanted = True
        self._wake()

    def wait_for(
        self, moment: int, connection: Connection, run: list[tuple[Entry, Command]]
    ) -> None:
        """Keeps reads until log time is at `moment`."""
        self.late.append(LateRead(connection, run, moment, trio.current_time() + PATIENCE_S))
        self.want()

    def take_ready(self) -> list[LateRead]:
        """Reads that need not wait any longer."""
        if not self.late:
            return []
        log_time, now = self._store.time.now, trio.current_time()
        ready: list[LateRead] = []
        waiting: list[LateRead] = []
        for late in self.late:
            is_ready = late.moment <= log_time or late.give_up_at <= now
            (ready if is_ready else waiting).append(late)
        self.late = waiting
        return ready

    def applied(self) -> None:
        """Entries were applied: goes on with the removal of keys that this node began."""
        if self._sweeping:
            self._sweeping = self._store.expiries.next_due <= self._store.time.now
            if self._sweeping:
                self.want()

    async def run(self) -> None:
        """Looks for keys that are due, until cancelled."""
        while True:
            due_in_s = (self._store.expiries.next_due + self._lag_ms - self._store.clock()) / 1000
            if due_in_s > 0:
                await trio.sleep(min(max(due_in_s, SHORTEST_S), LOOK_S))
                continue
            self._sweeping = True
            self.want()
            await trio.sleep(SHORTEST_S + self._lag_ms / 1000)
