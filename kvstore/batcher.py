"""Writes on their way to the log: runs of many clients packed into few values, and whose they are.

A run is never split over values, so that a client's pipeline keeps its order; small runs share a
value, so that one instance serves many clients. What an overloaded log does not take waits here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kvstore.connection import Connection
from kvstore.logtime import Clock
from kvstore.packing import VALUE_OVERHEAD_BYTES, join_value, pack_commands
from kvstore.resp import Command
from p4xos.errors import Overloaded
from p4xos.log import ReplicatedLog

RUN_BYTES = 64 * 1024
"""Packed commands of one run, save a single larger one: long values travel in many fragments."""

Run = tuple[Connection, list[bytes]]
"""A client's packed commands."""


class WriteBatcher:
    """Packs, proposes, and remembers whose runs a ticket stands for."""

    def __init__(
        self,
        log: ReplicatedLog,
        counters: dict[str, int],
        watch: Callable[[Connection], None],
        clock: Clock,
        origin: int,
    ) -> None:
        """With nothing to propose.

        Args:
          log: takes the values.
          counters: the server's.
          watch: called when a connection's `blocked` has changed.
          clock: stamps the values.
          origin: this learner's id, beside the stamps.
        """
        self.waiting: list[Run] = []
        """Runs to be proposed, in the order in which they came."""
        self.time_wanted = False
        """A value is to be proposed though no run waits: its stamp moves log time."""
        self._log = log
        self._counters = counters
        self._watch = watch
        self._clock = clock
        self._origin = origin
        self._tickets: dict[int, list[Connection]] = {}
        """Whose runs a value holds, in its order."""

    @property
    def command_bytes_max(self) -> int:
        """The longest packed command that can travel."""
        return self._log.max_command_bytes - VALUE_OVERHEAD_BYTES

    @property
    def in_flight(self) -> int:
        """Values that the log took and has not answered for."""
        return len(self._tickets)

    def add(self, connection: Connection, run: list[Command]) -> int:
        """Packs a run; what is too much for one value goes back to the connection's backlog.

        Returns:
          0; or the bytes of the first command when that is too long to travel: it is dropped.
        """
        packed = pack_commands(run, connection.client.database)
        limit = self.command_bytes_max
        most = min(RUN_BYTES, limit)
        if sum(map(len, packed)) > most:
            size = count = 0
            for item in packed:
                size += len(item)
                if size > most and count:
                    break
                count += 1
            connection.put_back(run[count:])
            del packed[count:]
            if len(packed[0]) > limit:
                return len(packed[0])
        connection.outstanding = len(packed)
        self.waiting.append((connection, packed))
        return 0

    def propose(self) -> None:
        """Proposes all waiting runs in as few values as they fill; keeps what is not taken."""
        if self.waiting:
            values, owners = self._fill_values()
        elif self.time_wanted:
            values, owners = [join_value((), self._clock(), self._origin)], [[]]
        else:
            return
        position, count = 0, len(values)
        while position < len(values):
            # An overloaded log takes all of a call or nothing: offer it less, down to one value.
            try:
                tickets = self._log.propose(values[position : position + count])
            except Overloaded:
                self._counters["overloaded"] += 1
                if count == 1:
                    break
                count = (count + 1) // 2
                continue
            self.time_wanted = False
            self._taken(tickets, owners[position : position + count])
            position += len(tickets)
        self.waiting = [run for runs in owners[position:] for run in runs]
        for connection, _ in self.waiting:
            if not connection.blocked:
                connection.blocked = True
                self._watch(connection)

    def _taken(self, tickets: Sequence[int], owners: Sequence[Sequence[Run]]) -> None:
        for ticket, runs in zip(tickets, owners, strict=True):
            self._tickets[ticket] = [connection for connection, _ in runs]
            self._counters["writes_proposed"] += len(runs)
            for connection, _ in runs:
                if connection.blocked:
                    connection.blocked = False
                    self._watch(connection)

    def _fill_values(self) -> tuple[list[bytes], list[list[Run]]]:
        """Values of at most `RUN_BYTES`, save single runs that are larger, and their runs.

        A long value travels in fragments that fill their instances: runs packed into values of
        one instance each would leave a part of each empty, and be delivered one by one.
        """
        most = min(RUN_BYTES, self.command_bytes_max)
        values: list[bytes] = []
        owners: list[list[Run]] = []
        packed: list[bytes] = []
        runs: list[Run] = []
        stamp, origin = self._clock(), self._origin
        size = 0
        for run in self.waiting:
            items = run[1]
            length = len(items[0]) if len(items) == 1 else sum(map(len, items))
            if runs and size + length > most:
                values.append(join_value(packed, stamp, origin))
                owners.append(runs)
                packed, runs, size = [], [], 0
            packed += items
            runs.append(run)
            size += length
        values.append(join_value(packed, stamp, origin))
        owners.append(runs)
        return values, owners

    def owners(self, ticket: int) -> Sequence[Connection]:
        """Whose runs the value of this ticket held, in its order; the ticket is used up."""
        return self._tickets.pop(ticket, ())
