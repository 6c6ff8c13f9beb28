"""Clients that wait though they could go on: CLIENT PAUSE holds them, or DEBUG SLEEP."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from kvstore.connection import Connection


class Pauses:
    """Who is held, and until when."""

    def __init__(self, watch: Callable[[Connection], None]) -> None:
        """Nobody is.

        Args:
          watch: called when a connection waits for something else.
        """
        self.held: dict[Connection, None] = {}
        """To be looked at again and again, whether they may go on."""
        self._watch = watch
        self._until = 0.0
        self._writes_only = False

    @property
    def on(self) -> bool:
        """Whether CLIENT PAUSE may hold commands."""
        return self._until > 0.0

    def begin(self, seconds: float, writes_only: bool) -> None:
        """Holds all clients' commands on keys, or writes only, for so long; 0 ends it."""
        self._until = monotonic() + seconds if seconds else 0.0
        self._writes_only = writes_only

    def hold(self, connection: Connection) -> bool:
        """Whether a connection that sleeps, or has a run that a pause may hold, must wait."""
        now = monotonic()
        client = connection.client
        if now >= self._until:
            self._until = 0.0
        if client.asleep_until and now >= client.asleep_until:
            client.asleep_until = 0.0
        paused = (
            connection.held is not None and self.on
            and (connection.held[2] or not self._writes_only)
        )  # fmt: skip
        if not (paused or client.asleep_until):
            return False
        self.held[connection] = None
        self._watch(connection)
        return True

    def take(self) -> list[Connection]:
        """Those who are held, who are not any more: they are to be tried again."""
        held = [*self.held]
        self.held.clear()
        return held
