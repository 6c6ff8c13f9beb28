"""Reads: all that have arrived wait for one read index, and are run on the local store behind it.

What a client does not take keeps the rest of its run waiting, and a read of a key whose expiry is
not decided waits for log time (`kvstore.timekeeper`); neither keeps another client waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvstore.commands.table import Entry
from kvstore.commands.transactions import add_watched
from kvstore.connection import Connection
from kvstore.crowd import Crowd, Read, answer
from kvstore.keyspace import NeedsTime
from kvstore.meter import Meter
from kvstore.replies import CommandError, Error, encode, internal_error
from kvstore.resp import Command
from kvstore.store import Store
from kvstore.timekeeper import TimeKeeper
from p4xos.errors import NoQuorum
from p4xos.log import ReplicatedLog

READ_BYTES = 64 * 1024
"""Replies made before a client is asked to take them; more reads of its run wait."""
UNSENT_BYTES = 8 << 20
"""Replies to many clients' reads that are made before the first of them is sent."""

Run = list[tuple[Entry, Command]]
"""A client's reads, each with its entry of the table."""


class Outlet(NamedTuple):
    """How a server takes connections with replies to send."""

    wait: Callable[[Connection], None]
    """They are sent with those of others."""
    send: Callable[[Connection], None]
    """They are sent now."""
    send_waiting: Callable[[], None]
    """Those of all who wait are sent."""
    flush: Callable[[], None]
    """The same, at the end of what there was to do."""


class Reads:
    """The reads of a server's clients."""

    def __init__(
        self,
        log: ReplicatedLog,
        store: Store,
        time: TimeKeeper,
        meter: Meter,
        counters: dict[str, int],
        crowd: Crowd,
        outlet: Outlet,
    ) -> None:
        """None yet.

        Args:
          log: gives the read indexes.
          store: what is read.
          time: takes reads that wait for log time.
          meter: times them.
          counters: the server's.
          crowd: has reads too.
          outlet: takes who is answered.
        """
        self._log = log
        self._store = store
        self._time = time
        self._meter = meter
        self._counters = counters
        self._crowd = crowd
        self._outlet = outlet
        self._waiting: list[tuple[Connection, Run]] = []
        """Runs that wait for the next read index."""

    def add(self, connection: Connection, run: Run) -> None:
        """A run of reads was begun."""
        self._waiting.append((connection, run))

    def request(self) -> None:
        """Asks for one read index for all reads that have arrived."""
        if not (self._waiting or self._crowd.reads):
            return
        runs, self._waiting = self._waiting, []
        crowd = self._crowd.take_reads()
        self._counters["reads_requested"] += 1

        def indexed(error: NoQuorum | None) -> None:
            if error is None:
                self._run_crowd(crowd)
                self._run_all(runs)
            else:
                self._refuse(runs, error)
                self._refuse([(connection, [read]) for connection, read in crowd], error)
            self._outlet.flush()

        self._log.read_index(indexed)

    def _run_all(self, runs: Sequence[tuple[Connection, Run]]) -> None:
        made = 0
        for connection, run in runs:
            if connection.closed:
                continue
            made += self.run(connection, run)
            if made > UNSENT_BYTES:  # a thousand clients' large values are not made at once
                self._outlet.send_waiting()
                made = 0

    def _refuse(self, runs: Sequence[tuple[Connection, Run]], error: NoQuorum) -> None:
        for connection, run in runs:
            if not connection.closed:
                self._counters["failed_reads"] += len(run)
                connection.complete([_no_read(error)] * len(run))
                self._outlet.wait(connection)

    def run(self, connection: Connection, run: Run, *, late: bool = False) -> int:
        """Runs reads on the local store until the client has more than it takes.

        Args:
          connection: whose reads they are.
          run: the reads, each with its entry of the table.
          late: they have waited for log time, which is all that counts for them now.

        Returns:
          The bytes of their replies.
        """
        client = connection.client
        keyspace = self._store.readers[client.database]
        keyspace.moment = 0 if late else self._store.clock()
        protocol = client.protocol
        out = connection.out
        self._outlet.wait(connection)
        # A choked client's reads wait; they may see later writes than their index, never older.
        most = connection.output_bytes + READ_BYTES
        size = 0
        for position, (entry, command) in enumerate(run):
            if size > most:
                connection.reads = run[position:]
                return size
            try:
                value = entry.handler(keyspace, command)
                if entry.alone:
                    value = add_watched(client, command, value)
                reply = encode(value, protocol)
            except CommandError as error:
                reply = encode(error.reply, protocol)
            except NeedsTime:
                connection.reads = []
                self._time.wait_for(keyspace.moment, connection, run[position:])
                return size
            except Exception as bug:
                reply = encode(internal_error(entry.full_name, bug), protocol)
            if client.muted and not client.hears():
                continue
            out.append(reply)
            size += len(reply)
        connection.reads = []
        connection.outstanding = 0
        self._meter.finish(connection.started, client)
        return size

    def _run_crowd(self, reads: Sequence[Read]) -> None:
        """Runs reads of simple clients on the local store, and answers them there and then."""
        keyspace = self._store.readers[0]
        keyspace.moment = self._store.clock()
        answered: list[Connection] = []
        for connection, read in reads:
            if not connection.simple:  # it has sent more meanwhile, or has gone
                if not connection.closed:
                    self.run(connection, [read])
                continue
            entry, command = read
            try:
                reply = encode(entry.handler(keyspace, command), connection.client.protocol)
            except Exception:  # the general way meets it again, and knows each
                self.run(connection, [read])
                continue
            answered.append(connection)
            if not answer(connection, reply):
                self._outlet.send(connection)
        self._meter.finish_each(answered)

    def run_late(self) -> None:
        """Runs the reads whose time has come."""
        for connection, run, _, _ in self._time.take_ready():
            if not connection.closed:
                self.run(connection, run, late=True)


def _no_read(error: NoQuorum) -> Error:
    return Error(
        f"NOQUORUM no majority answered within {error.waited_s:g} s; nothing was read: "
        "try again, or ask another node".encode()
    )
