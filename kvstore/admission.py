"""Which clients are let in, and how long they may keep a node waiting.

A *newcomer* is a connection that has not shown yet who it is: its TLS handshake is under way, or it
must authenticate. It has small bounds and little time, and when there are too many, the oldest
gives way: who authenticates does so at once. Without users and TLS there are no newcomers.

Everything else is looked at once a second, by asking the kernel when it last saw data: what that
finds out costs no client anything.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable
from time import monotonic
from typing import TYPE_CHECKING

from kvstore.limits import Limits, ages
from kvstore.tls import TlsSocket

if TYPE_CHECKING:
    from kvstore.connection import Connection

log = logging.getLogger(__name__)

NEWCOMERS_MAX = 1024
"""With the bounds of each, some 200 MiB. Never more than half of `max_clients`: else strangers who
only connect would keep everybody out."""
NEWCOMER_OUTPUT_BYTES = 64 * 1024
"""Replies that a newcomer does not take; then it is closed."""
HANDSHAKES_OF_TURN = 16
"""Steps of handshakes between two looks at everything else: each may take a millisecond."""
LOOK_S = 1.0
"""How often connections are looked at."""
TELL_S = 60.0
"""A reason for which clients are turned away is told in the log so often at most."""

COUNTERS = (
    "connections_refused", "connections_refused_of_address", "newcomers_displaced",
    "newcomers_timed_out", "newcomers_too_large", "tls_handshakes", "tls_handshakes_failed",
    "tls_on_plain_port", "idle_closed", "stalled_closed", "outputs_overrun", "users_gone_closed",
)  # fmt: skip


class Admission:
    """The newcomers of a server, its limits, and what it tells of clients turned away."""

    def __init__(
        self, limits: Limits, counters: dict[str, int], close: Callable[[Connection], None]
    ) -> None:
        """Nobody has come yet.

        Args:
          limits: at the start; CONFIG SET changes some.
          counters: of the server; those named in `COUNTERS` are kept here.
          close: closes a connection.
        """
        self.max_clients = limits.max_clients
        self.idle_timeout_s = limits.idle_timeout_s
        self.limits = limits
        self.newcomers: dict[Connection, float] = {}
        """When each came, oldest first."""
        self._counters = counters
        self._close = close
        self._addresses: Counter[str] = Counter()
        """Connections by address, while that is bounded."""
        self._handshakes_left = HANDSHAKES_OF_TURN
        self._told: dict[str, tuple[float, int]] = {}
        """When a reason was told, and how often it was met by then."""

    def refusal(self, address: str, connected: int) -> str | None:
        """Why a new client is not let in; None: it is."""
        if connected >= self.max_clients:
            self.turned_away("connections_refused", address, "max_clients of them are connected")
            return "ERR max number of clients reached"
        bound = self.limits.max_per_address
        if bound:
            if self._addresses[address] >= bound:
                why = "max_per_address of its are connected"
                self.turned_away("connections_refused_of_address", address, why)
                return f"ERR max number of clients from one address reached ({bound})"
        return None

    def came(self, connection: Connection) -> None:
        """A connection is open; `left` is owed."""
        if self.limits.max_per_address:
            self._addresses[connection.client.host] += 1

    def left(self, connection: Connection) -> None:
        """A connection is closed."""
        self.newcomers.pop(connection, None)
        if self.limits.max_per_address:
            address = connection.client.host
            self._addresses[address] -= 1
            if self._addresses[address] <= 0:
                del self._addresses[address]

    def begin(self, connection: Connection) -> None:
        """This connection must show who it is; the oldest newcomer may have to go for it."""
        connection.parser.bound(newcomer=True)
        self.newcomers.pop(connection, None)
        self.newcomers[connection] = monotonic()
        most = min(NEWCOMERS_MAX, max(1, self.max_clients // 2))
        while len(self.newcomers) > most:
            oldest = next(iter(self.newcomers))
            if not self._is_known(oldest):
                why = f"more than {most} connections have not authenticated"
                self.turned_away("newcomers_displaced", oldest.client.address, why)
                self._close(oldest)

    def known(self, connection: Connection) -> None:
        """It has shown who it is."""
        connection.parser.bound(newcomer=False)
        self.newcomers.pop(connection, None)

    def begin_turn(self) -> None:
        """The server looks at its sockets again."""
        self._handshakes_left = HANDSHAKES_OF_TURN

    def may_shake(self) -> bool:
        """Whether one more step of a handshake has room in this turn; epoll tells of it again."""
        self._handshakes_left -= 1
        return self._handshakes_left >= 0

    def established(self, connection: Connection) -> None:
        """The TLS handshake is over."""
        self._counters["tls_handshakes"] += 1
        self._is_known(connection)

    def is_greedy(self, connection: Connection) -> bool:
        """Whether this is a newcomer that lets its replies pile up; it is closed then."""
        if connection not in self.newcomers or connection.output_bytes <= NEWCOMER_OUTPUT_BYTES:
            return False
        why = "it does not take its replies, and has not authenticated"
        self.turned_away("newcomers_too_large", connection.client.address, why)
        self._close(connection)
        return True

    def _is_known(self, connection: Connection) -> bool:
        """Whether a newcomer need not show more than it has; if so, it is none any more."""
        client = connection.client
        if client.server.access is not None and client.user is None:
            return False
        if isinstance(connection.sock, TlsSocket) and not connection.sock.established:
            return False
        self.known(connection)
        return True

    def look(self, connections: Iterable[Connection]) -> None:
        """Closes whom the limits do not let stay; for once a second."""
        oldest_s = monotonic() - self.limits.greeting_timeout_s
        for connection, came in list(self.newcomers.items()):
            if came > oldest_s:
                break
            if not self._is_known(connection):
                why = f"it has not shown who it is within {self.limits.greeting_timeout_s:g} s"
                self.turned_away("newcomers_timed_out", connection.client.address, why)
                self._close(connection)
        idle_s, stalled_s = self.idle_timeout_s, self.limits.stalled_timeout_s
        for connection in list(connections):
            if connection.unsent:
                if ages(connection.sock).sent_s > stalled_s:
                    why = f"it has taken nothing of its replies for {stalled_s:g} s"
                    self.turned_away("stalled_closed", connection.client.address, why)
                    self._close(connection)
            elif idle_s and not (
                connection.outstanding or connection.backlog or connection.held
                or connection.client.monitoring
            ):  # fmt: skip
                if min(ages(connection.sock)) > idle_s:
                    self._counters["idle_closed"] += 1
                    self._close(connection)

    def turned_away(self, reason: str, address: str, why: str) -> None:
        """Counts a client turned away, and tells of it, seldom: anybody can make it happen."""
        counters = self._counters
        counters[reason] += 1
        now = monotonic()
        told_at, count = self._told.get(reason, (-TELL_S, 0))
        if now - told_at >= TELL_S:
            self._told[reason] = now, counters[reason]
            more = counters[reason] - count - 1
            others = f" ({more} more since it was last told)" if more else ""
            log.warning("client %s is turned away: %s%s", address, why, others)
