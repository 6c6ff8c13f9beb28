"""What the server measures as it works: commands by name, how long answers took, the slow log.

The hot path pays for a run of a client's commands, not for a command: one look at the clock when
the run is taken, one when it is answered, one bucket, and a count in C of its table entries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import groupby
from time import perf_counter
from typing import TYPE_CHECKING

from kvstore.redaction import redacted
from kvstore.slowlog import SlowLog, shown
from p4xos.histogram import Histogram

if TYPE_CHECKING:
    from kvstore.commands.client import Client
    from kvstore.commands.table import Entry
    from kvstore.connection import Connection
    from kvstore.resp import Command

_LONG_BYTES = 4096
"""A longer command is cut for the slow log at once, so that its value is not held in memory."""


def _cut(command: Sequence[bytes]) -> tuple[bytes, ...]:
    """A command as the slow log keeps it; a long one is cut already, and a tuple."""
    return command if isinstance(command, tuple) else shown(command)


def _began(connection: Connection) -> float:
    assert connection.started is not None, "a run that ends was started"
    return connection.started[0]


Started = tuple[float, Sequence[bytes], int, Histogram]
"""A run under way: when it was taken, its first command, how many they are, and what times it.
A plain tuple: an object of a class costs more than all the rest."""


class Meter:
    """Counts and times; all of it only grows, save the slow log."""

    def __init__(self) -> None:
        self.commands: Counter[Entry] = Counter()
        """How often each command was run, by its entry of the table."""
        self.reads = Histogram()
        """From a read run taken to its answer: mostly the read index."""
        self.writes = Histogram()
        """From a write run taken to its answer: consensus and applying it."""
        self.slowlog = SlowLog()

    def start(self, entries: list[Entry], run: list[Command], writes: bool) -> Started:
        """A run was taken; what this returns goes to `finish`.

        Args:
          entries: of its commands, at least one.
          run: its commands.
          writes: whether one of them writes.
        """
        count, entry = len(entries), entries[0]
        if count == 1 or entries.count(entry) == count:  # benchmarks and bulk loads are all alike
            self.commands[entry] += count
        else:
            self.commands.update(entries)
        first: Sequence[bytes] = run[0]
        if len(first[-1]) > _LONG_BYTES or (len(first) > 3 and sum(map(len, first)) > _LONG_BYTES):
            first = shown(first)
        return perf_counter(), first, count, self.writes if writes else self.reads

    def finish(self, started: Started | None, client: Client) -> None:
        """Its answer is there."""
        assert started is not None, "a run that ends was started"
        at, first, count, histogram = started
        took_s = perf_counter() - at
        histogram.observe(took_s)
        if took_s >= self.slowlog.threshold_s:
            self.slowlog.note(
                took_s, _cut(first), count - 1, address=client.address, name=client.name
            )

    def finish_each(self, connections: Iterable[Connection]) -> None:
        """The answers of runs of one command each are there, all of them reads, or all writes."""
        now = perf_counter()
        for at, group in groupby(connections, _began):
            took_s = now - at
            alike = list(group)
            first = alike[0].started
            assert first is not None, "a run that ends was started"
            first[3].observe(took_s, len(alike))
            if took_s >= self.slowlog.threshold_s:
                for connection in alike:
                    started, client = connection.started, connection.client
                    assert started is not None, "a run that ends was started"
                    self.slowlog.note(
                        took_s, _cut(started[1]), address=client.address, name=client.name
                    )

    def answered_at_once(
        self, entry: Entry, command: Command, began: float, client: Client
    ) -> None:
        """A connection command was answered; `began` is `perf_counter` from before it."""
        self.commands[entry] += 1
        took_s = perf_counter() - began
        if took_s >= self.slowlog.threshold_s:
            self.slowlog.note(
                took_s, shown(redacted(command)), address=client.address, name=client.name
            )

    def status(self) -> dict[str, object]:
        """As data, for `Node.status`."""
        return {
            "commands": {entry.full_name.decode(): n for entry, n in self.commands.items()},
            "reads": self.reads.state(),
            "writes": self.writes.state(),
            "slow": self.slowlog.count,
        }
