"""What the clients of a node hold in its memory together, and who gives way when it is too much.

One connection's bounds (`kvstore.connection`) are generous, since one client may send and read
large values at full speed; a thousand times their sum is more than a node has. So what goes beyond
a little is counted together, each way.

Input: unfinished commands, commands that wait, transactions being queued. Beyond the bound nothing
more is read of those who hold some, save of the one that began first, so that one always gets on;
the kernel's flow control then makes its client wait. Who holds much and sends next to nothing
meanwhile is cut off, since it keeps the others from their turn.

Output: replies that are not taken. They cannot be taken back, so beyond the bound whoever has taken
nothing for longest is cut off.

A client that holds little is never touched, whatever the others do.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic

from kvstore.connection import RECEIVE_BYTES, Connection
from kvstore.replies import error_bytes

log = logging.getLogger(__name__)

INPUT_BYTES = 256 << 20
"""Of all that hold more than `LITTLE_BYTES`: 32 of the largest values at a time."""
OUTPUT_BYTES = 256 << 20
"""Of all replies that are not taken."""
LITTLE_BYTES = 2 * RECEIVE_BYTES
"""Not counted; with it the most that `MAX_CLIENTS` of the well-behaved hold is 1.2 GiB."""
LOOK_S = 1.0
"""How often those that are waited for are looked at, while somebody waits."""
PATIENCE_S = 5.0
PATIENCE_BYTES = 256 << 10
"""What must come within `PATIENCE_S`: 50 KiB/s, while others wait for the room that it takes."""

_TOO_SLOW = error_bytes(
    f"ERR this node has no room for commands that are sent so slowly: {INPUT_BYTES >> 20} MiB of "
    "unfinished ones are held for its clients; send smaller ones, or try again later"
)


@dataclass(slots=True)
class _Held:
    size: int
    arrived: int = 0  # since `since`
    since: float = 0.0


class Burden:
    """The clients of a server that hold more than a little."""

    def __init__(
        self,
        counters: dict[str, int],
        watch: Callable[[Connection], None],
        close: Callable[[Connection], None],
    ) -> None:
        """Nobody holds anything.

        Args:
          counters: the server's.
          watch: called when a connection's `parked` has changed.
          close: closes a connection.
        """
        self.input_bytes = self.output_bytes = 0
        self.parked: dict[Connection, None] = {}
        """Those that are not read for want of room."""
        self._counters = counters
        self._watch = watch
        self._close = close
        self._inputs: dict[Connection, _Held] = {}  # who began first comes first
        self._outputs: dict[Connection, int] = {}  # who has taken nothing for longest comes first
        self._look_at = 0.0

    def input(self, connection: Connection) -> None:
        """Takes what a connection holds now of what its client sent."""
        size = connection.input_bytes
        held = self._inputs.get(connection)
        if held is None:
            if size <= LITTLE_BYTES or connection.closed:
                return
            held = self._inputs[connection] = _Held(0, since=monotonic())
            connection.burdens = True
        self.input_bytes += size - held.size
        held.arrived += max(size - held.size, 0)
        held.size = size
        if size <= LITTLE_BYTES:
            self._forget_input(connection)
        elif self.input_bytes > INPUT_BYTES and connection is not next(iter(self._inputs)):
            self._park(connection)

    def output(self, connection: Connection, taken: bool) -> None:
        """Takes what a connection's client has not taken yet.

        Args:
          connection: one that is not closed.
          taken: whether its socket has just taken something.
        """
        size = len(connection.unsent)  # all of it is held until the last byte of it is taken
        before = self._outputs.get(connection, 0)
        self.output_bytes += size - before
        if taken or not size:
            self._outputs.pop(connection, None)
        if size:
            self._outputs[connection] = size
            connection.burdens = True
        while self.output_bytes > OUTPUT_BYTES:
            slowest = next(iter(self._outputs))
            self._counters["outputs_cut_off"] += 1
            log.warning(
                "client %s is cut off: replies of %d bytes are held for clients that do not take "
                "them, %d of them its own, and it has taken nothing for longest",
                slowest.client.address, self.output_bytes, self._outputs[slowest],
            )  # fmt: skip
            self._close(slowest)

    def left(self, connection: Connection) -> None:
        """A connection is closed."""
        self.output_bytes -= self._outputs.pop(connection, 0)
        if connection in self._inputs:
            self._forget_input(connection)

    def look(self) -> None:
        """Cuts off who keeps others waiting; to be called now and then while somebody waits."""
        now = monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_S
        for connection, held in list(self._inputs.items()):
            if connection in self.parked or connection.outstanding:
                held.arrived, held.since = 0, now  # it is this node that is waited for
            elif held.arrived >= PATIENCE_BYTES:
                held.arrived, held.since = 0, now
            elif now - held.since >= PATIENCE_S:
                self._counters["inputs_cut_off"] += 1
                log.warning(
                    "client %s is cut off: others wait for room to send, it holds %d bytes of it, "
                    "and has sent %d in %g s",
                    connection.client.address, held.size, held.arrived, PATIENCE_S,
                )  # fmt: skip
                connection.out.append(_TOO_SLOW)
                connection.send()
                self._close(connection)

    def _park(self, connection: Connection) -> None:
        if connection not in self.parked:
            self._counters["inputs_parked"] += 1
            connection.parked = True
            self.parked[connection] = None
            self._watch(connection)

    def _forget_input(self, connection: Connection) -> None:
        self.input_bytes -= self._inputs.pop(connection).size
        self.parked.pop(connection, None)
        connection.parked = False
        if not connection.closed:
            self._watch(connection)
        while self.parked:
            first = next(iter(self._inputs))
            waiting = first if first in self.parked else next(iter(self.parked))
            if waiting is not first and self.input_bytes > INPUT_BYTES:
                break
            del self.parked[waiting]
            waiting.parked = False
            self._inputs[waiting].arrived, self._inputs[waiting].since = 0, monotonic()
            self._watch(waiting)
