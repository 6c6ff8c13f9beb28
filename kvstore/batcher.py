"""Writes on their way to the log: runs of many clients packed into few values, and whose they are.

A run is never split over values, so that a client's pipeline keeps its order; small runs share a
value, so that one instance serves many clients. What an overloaded log does not take waits here.

A long run, a single command of more than `RUN_BYTES`, goes by itself, and few of those at a time:
they wait here, where nothing counts down, rather than behind one another in the log, where those at
the end would pass their deadline, and short ones would wait behind all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from kvstore.connection import Connection
from kvstore.logtime import Clock
from kvstore.packing import VALUE_OVERHEAD_BYTES, join_value, pack_commands
from kvstore.resp import Command
from p4xos.errors import Overloaded
from p4xos.log import ReplicatedLog

RUN_BYTES = 64 * 1024
"""Packed commands of one run, save a single larger one: long values travel in many fragments."""

LONG_BYTES = 8 << 20
"""Of long runs that the log has at a time, save a single larger one: the largest value, or many of
hundreds of KiB, so that none of them waits for a round trip with nothing on the way."""

Run = tuple[list[Connection], list[bytes]]
"""A client's packed commands; or one command of each of some clients, which fit into a value."""


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
        self._short: list[Run] = []
        """Runs to be proposed, in the order in which they came."""
        self._long: deque[Run] = deque()
        """The same for long ones."""
        self._long_tickets: dict[int, int] = {}
        """The bytes of each that the log has, ..."""
        self._long_bytes = 0
        """... and of all of them."""
        self._long_refused = False
        """The log had no room for the next long run: the short ones leave it some."""
        self.time_wanted = False
        """A value is to be proposed though no run waits: its stamp moves log time."""
        self.command_bytes_max: int = log.max_command_bytes - VALUE_OVERHEAD_BYTES
        """The longest packed command that can travel."""
        self.short_bytes = min(RUN_BYTES, self.command_bytes_max)
        """The longest run that may share a value with others."""
        self._log = log
        self._counters = counters
        self._watch = watch
        self._clock = clock
        self._origin = origin
        self._tickets: dict[int, list[Connection]] = {}
        """Whose runs a value holds, in its order."""

    @property
    def waiting(self) -> bool:
        """Whether runs wait that the log may take at the next try."""
        return bool(self._short) or self._long_may_go()

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
        most = self.short_bytes
        if sum(map(len, packed)) > most:
            size = count = 0
            for item in packed:
                size += len(item)
                if size > most and count:
                    break
                count += 1
            connection.put_back(run[count:])
            del packed[count:]
            if len(packed[0]) > self.command_bytes_max:
                return len(packed[0])
        connection.outstanding = len(packed)
        if len(packed) == 1 and len(packed[0]) > most:
            connection.run_bytes = len(packed[0])
            self._long.append(([connection], packed))
        else:
            self._short.append(([connection], packed))
        return 0

    def add_each(self, connections: list[Connection], commands: list[Command]) -> None:
        """Packs a command of each of these clients, for database 0, none over `short_bytes`."""
        packed = pack_commands(commands, 0)
        if sum(map(len, packed)) <= self.short_bytes:
            self._short.append((connections, packed))
        else:
            self._short += [
                ([connection], [item]) for connection, item in zip(connections, packed, strict=True)
            ]

    def propose(self) -> None:
        """Proposes all waiting runs in as few values as they fill; keeps what is not taken."""
        if not (self._long_refused and self._propose_long()):
            self._propose_short()
        if not self._long_refused:
            self._propose_long()
        for runs in (self._short, self._long):
            for connections, _ in runs:
                for connection in connections:
                    if not connection.blocked:
                        connection.blocked = True
                        self._watch(connection)

    def drop(self, connection: Connection) -> None:
        """A client has gone: what the log has not been given of it is given up."""

        def without(run: Run) -> Run:
            if connection not in run[0]:
                return run
            if len(run[0]) == 1:
                return [], []
            at = run[0].index(connection)
            return run[0][:at] + run[0][at + 1 :], run[1][:at] + run[1][at + 1 :]

        if connection.blocked:
            self._short = [run for run in map(without, self._short) if run[0]]
            self._long = deque(run for run in map(without, self._long) if run[0])

    def _long_may_go(self) -> bool:
        if not self._long:
            return False
        size = len(self._long[0][1][0])
        return not self._long_tickets or self._long_bytes + size <= LONG_BYTES

    def _propose_long(self) -> bool:
        """Proposes the next long runs as far as they may go; true: the log has no room for one."""
        self._long_refused = False
        while self._long_may_go():
            run = self._long[0]
            try:
                (ticket,) = self._log.propose([join_value(run[1], self._clock(), self._origin)])
            except Overloaded:
                self._counters["overloaded"] += 1
                self._long_refused = True
                break
            self._long.popleft()
            size = len(run[1][0])
            self._long_tickets[ticket] = size
            self._long_bytes += size
            self._taken((ticket,), ((run,),))
        return self._long_refused

    def _propose_short(self) -> None:
        if self._short:
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
        self._short = [run for runs in owners[position:] for run in runs]

    def _taken(self, tickets: Sequence[int], owners: Sequence[Sequence[Run]]) -> None:
        for ticket, runs in zip(tickets, owners, strict=True):
            connections = [connection for run in runs for connection in run[0]]
            self._tickets[ticket] = connections
            self._counters["writes_proposed"] += len(connections)
            for connection in connections:
                if connection.blocked:
                    connection.blocked = False
                    self._watch(connection)

    def _fill_values(self) -> tuple[list[bytes], list[list[Run]]]:
        """Values of at most `RUN_BYTES`, and their runs.

        A long value travels in fragments that fill their instances: runs packed into values of
        one instance each would leave a part of each empty, and be delivered one by one.
        """
        most = self.short_bytes
        values: list[bytes] = []
        owners: list[list[Run]] = []
        packed: list[bytes] = []
        runs: list[Run] = []
        stamp, origin = self._clock(), self._origin
        size = 0
        for run in self._short:
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
        self._long_bytes -= self._long_tickets.pop(ticket, 0)
        return self._tickets.pop(ticket, ())
