"""Clients that send one command and wait for its reply, all of a turn taken together.

Most programs use a connection like that, and a server has many of them: then a command has nobody
to share its way with, and what a run costs (`kvstore.connection`), a command costs. Here each step
is one for all who are ready: read every socket, parse what came in one go, look the commands up,
pack the writes, take the time once. `Connection.simple` tells whose command may go this way;
everything else, and whatever is not quite what is expected here, goes the general one
(`kvstore.server`), which is the rule. Both end alike: a run of one command is under way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from time import perf_counter
from typing import NamedTuple

from kvstore import commands
from kvstore.batcher import WriteBatcher
from kvstore.commands.table import Entry
from kvstore.connection import Connection
from kvstore.meter import Meter
from kvstore.resp import ChunkReader, Command

CHUNK_BYTES = 2048
"""One read of a socket. What fills it is no small command, and the general way is not slower."""

Read = tuple[Connection, tuple[Entry, Command]]
"""A client's read, with its entry of the table."""


class Other(NamedTuple):
    """A client that goes the general way after all."""

    connection: Connection
    chunk: bytes | None
    """What it sent, empty at its end; None: its socket has failed."""


class Crowd:
    """Takes the commands of many clients up, and answers them."""

    def __init__(
        self,
        chunks: ChunkReader,
        batcher: WriteBatcher,
        meter: Meter,
        counters: dict[str, int],
    ) -> None:
        """With nothing under way.

        Args:
          chunks: reads what clients send; the server's.
          batcher: gets their writes.
          meter: counts and times them.
          counters: the server's.
        """
        self._chunks = chunks
        self._batcher = batcher
        self._meter = meter
        self._counters = counters
        # Packed, a command is shorter than what its client sent.
        self._chunk_bytes = min(CHUNK_BYTES, batcher.short_bytes)
        self.reads: list[Read] = []
        """Those that wait for the next read index."""

    def receive(self, connections: Iterable[Connection]) -> list[Other]:
        """Reads these sockets once, and starts a run of each command.

        Args:
          connections: `simple` ones, nothing of theirs under way, their sockets readable.

        Returns:
          Those for which nothing was done.
        """
        senders: list[Connection] = []
        chunks: list[bytes] = []
        others: list[Other] = []
        for connection in connections:
            try:
                chunk = connection.sock.recv(self._chunk_bytes)
            except BlockingIOError:
                continue
            except OSError:
                others.append(Other(connection, None))
                continue
            if 0 < len(chunk) < self._chunk_bytes:
                senders.append(connection)
                chunks.append(chunk)
            else:
                others.append(Other(connection, chunk))
        if chunks:
            found = self._chunks.read_each(chunks)
            if found is None:
                others += map(Other, senders, chunks)
            else:
                self._start(senders, chunks, found, others)
        return others

    def _start(
        self,
        senders: Sequence[Connection],
        chunks: Sequence[bytes],
        found: Sequence[Command],
        others: list[Other],
    ) -> None:
        known, find = commands.SPELLINGS.get, commands.find
        entries: list[Entry] = []
        writers: list[Connection] = []
        writes: list[Command] = []
        meter = self._meter
        now = perf_counter()
        for connection, chunk, command in zip(senders, chunks, found, strict=True):
            entry = known(command[0]) or find(command[0])
            if (
                entry is None
                or entry.connects
                or entry.alone
                or not entry.minimum <= len(command) <= entry.maximum
            ):
                others.append(Other(connection, chunk))
                continue
            entries.append(entry)
            connection.outstanding = 1
            if entry.writes:
                connection.started = now, command, 1, meter.writes
                writers.append(connection)
                writes.append(command)
            else:
                connection.started = now, command, 1, meter.reads
                self.reads.append((connection, (entry, command)))
        self._counters["commands_received"] += len(entries)
        meter.commands.update(entries)
        if writers:
            self._batcher.add_each(writers, writes)

    def take_reads(self) -> list[Read]:
        """What `reads` holds, which is empty then."""
        reads, self.reads = self.reads, []
        return reads


def answer(connection: Connection, data: bytes) -> bool:
    """Ends a simple connection's run with the bytes of its reply.

    Returns:
      False: the socket did not take all of it, and the rest waits to be sent the general way.
    """
    connection.outstanding = 0
    try:
        sent = connection.sock.send(data)
    except OSError:
        sent = 0  # where it is sent again, that tells what has become of it
    if sent == len(data):
        return True
    connection.simple = False
    connection.out.append(data[sent:])
    return False
