"""Clients that append numbers to keys of their own: the final values tell the whole story.

What an appender was told is compared with what the store has in the end. A number that was
acknowledged and is missing was lost; one that stands twice was applied twice; one that was answered
by an error that denies it and is there was denied wrongly. Of a write without an answer, or with
one that says so, the outcome is unknown: it may stand there once or not at all, at any later place
(docs/traps.md, 16).
"""

from __future__ import annotations

import socket
import threading
import time
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import hiredis

from bench.errors import BenchError
from p4xos.tables import Address

ANSWER_LIMIT_S = 30.0
"""Longer than a node waits for a majority, so that the node's answer comes first."""
AGAIN_S = 0.01
"""A dead node refuses at once: do not spin."""
KEY_WRITES = 500
"""Numbers appended to one key; a value that grew for ever would be what is measured."""
UNKNOWN = ("NOQUORUM", "UNKNOWN")
"""Codes of errors that leave open whether the write was done."""


class Appender(threading.Thread):
    """One client in a thread, closed loop, at one node; `stop` ends it."""

    def __init__(self, name: str, address: Address) -> None:
        """Idle until `start`.

        Args:
          name: begins each of its keys; no two appenders of a run share one.
          address: of the node it writes to.
        """
        super().__init__(name=name, daemon=True)
        self.address = address
        self.acknowledged: list[int] = []
        self.acknowledged_at: list[float] = []
        """Seconds, monotonic; of each of `acknowledged`."""
        self.unknown: set[int] = set()
        self.denied: dict[int, str] = {}
        """Answered by an error that says it was not done."""
        self.errors: Counter[str] = Counter()
        """What was said instead of an acknowledgement."""
        self._number = 0
        self._stop_asked = threading.Event()
        self._progress = threading.Condition()

    def run(self) -> None:
        """Appends until it is asked to stop, over a new connection after each failure."""
        while not self._stop_asked.is_set():
            try:
                with socket.create_connection(self.address, ANSWER_LIMIT_S) as connection:
                    self._append_on(connection)
            except OSError as error:
                self.errors[type(error).__name__] += 1
            self._stop_asked.wait(AGAIN_S)

    def _append_on(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        reader = hiredis.Reader()
        while not self._stop_asked.is_set():
            number, self._number = self._number, self._number + 1
            self.unknown.add(number)  # until something is known
            words: tuple[Any, ...] = ("APPEND", self.key(number), f"{number},")
            connection.sendall(hiredis.pack_command(words))
            while (answer := reader.gets()) is False:
                data = connection.recv(4096)
                if not data:
                    self.errors["the connection was ended"] += 1
                    return
                reader.feed(data)
            self._note(number, answer)

    def _note(self, number: int, answer: object) -> None:
        if isinstance(answer, hiredis.ReplyError):
            code = str(answer).split(" ")[0]
            self.errors[code] += 1
            if code not in UNKNOWN:
                self.unknown.discard(number)
                self.denied[number] = str(answer)
            self._stop_asked.wait(AGAIN_S)
            return
        self.unknown.discard(number)
        with self._progress:
            self.acknowledged.append(number)
            self.acknowledged_at.append(time.monotonic())
            self._progress.notify_all()

    def key(self, number: int) -> str:
        """Where a number is appended."""
        return f"{self.name}:{number // KEY_WRITES}"

    def all_keys(self) -> list[str]:
        """All keys that it has written to."""
        return [self.key(number) for number in range(0, self._number, KEY_WRITES)]

    def wait_for(self, count: int, limit_s: float) -> None:
        """Returns when so many numbers were acknowledged in all.

        Raises:
          BenchError: they were not, within the limit.
        """
        with self._progress:
            if not self._progress.wait_for(lambda: len(self.acknowledged) >= count, limit_s):
                raise BenchError(
                    f"client {self.name} got {len(self.acknowledged)} of {count} acknowledgements "
                    f"within {limit_s:g} s; it was told {dict(self.errors)}"
                )

    def longest_gap_s(self, since: float, until: float) -> float:
        """The longest time between two acknowledgements that ended within these moments.

        The first gap begins with the last acknowledgement before `since`; what has not ended by
        `until` counts up to there.
        """
        times = self.acknowledged_at[:]
        first = max(bisect_right(times, since) - 1, 0)
        seen = [*times[first : bisect_right(times, until)], until]
        return max(later - earlier for earlier, later in pairwise(seen))

    def stop(self) -> None:
        """Asks it to stop after the write under way; `join` waits for that."""
        self._stop_asked.set()


@contextmanager
def appending(addresses: Sequence[Address], prefix: str = "a") -> Iterator[list[Appender]]:
    """Runs an appender for each address; all have ended when the block is left."""
    appenders = [Appender(f"{prefix}{k}", address) for k, address in enumerate(addresses)]
    for appender in appenders:
        appender.start()
    try:
        yield appenders
    finally:
        for appender in appenders:
            appender.stop()
        for appender in appenders:
            appender.join()


def wait_for_more(appenders: Sequence[Appender], count: int, limit_s: float = 60.0) -> None:
    """Returns when each appender got so many more acknowledgements than it has now.

    Raises:
      BenchError: one did not, within the limit.
    """
    targets = [len(appender.acknowledged) + count for appender in appenders]
    for appender, target in zip(appenders, targets, strict=True):
        appender.wait_for(target, limit_s)


class Verdict(NamedTuple):
    """What is wrong with the numbers that a node has; empty lists when nothing is."""

    lost: list[str]
    """Acknowledged and not there."""
    twice: list[str]
    """There more than once."""
    denied: list[str]
    """There, though the answer was that it was not done."""
    misplaced: list[str]
    """Acknowledged before another one that stands before it, or never sent at all."""

    @property
    def good(self) -> bool:
        """Whether the store has done what it said, and nothing else."""
        return not any(self)


def judge(appenders: Iterable[Appender], address: Address) -> Verdict:
    """Compares what appenders that have ended were told with what a node has."""
    found = Verdict([], [], [], [])
    with socket.create_connection(address, ANSWER_LIMIT_S) as connection:
        for appender in appenders:
            numbers: list[int] = []
            for key in appender.all_keys():
                numbers += parse(_get(connection, key))
            compare(appender, numbers, found)
    return found


def compare(appender: Appender, numbers: Sequence[int], found: Verdict) -> None:
    """Adds to `found` what is wrong with the numbers of one appender.

    Args:
      appender: has ended.
      numbers: of all its keys, in their order.
      found: is added to.
    """
    name, counts = appender.name, Counter(numbers)
    acknowledged = set(appender.acknowledged)
    found.lost.extend(f"{name}: {n}" for n in appender.acknowledged if n not in counts)
    found.twice.extend(f"{name}: {n}" for n, count in counts.items() if count > 1)
    found.denied.extend(f"{name}: {n}" for n in appender.denied if n in counts)
    known = acknowledged | appender.unknown | appender.denied.keys()
    found.misplaced.extend(f"{name}: {n} was never sent" for n in counts if n not in known)
    in_order = [n for n in dict.fromkeys(numbers) if n in acknowledged]
    if in_order != sorted(in_order):
        found.misplaced.append(f"{name}: acknowledged numbers stand in another order")


def parse(value: bytes) -> list[int]:
    """The numbers of one key.

    Raises:
      BenchError: it holds something else.
    """
    words = value.split(b",")
    if words.pop() or not all(word.isdigit() for word in words):
        raise BenchError(f"numbers were appended, and what is there is {value[:80]!r}")
    return [int(word) for word in words]


def _get(connection: socket.socket, key: str) -> bytes:
    words: tuple[Any, ...] = ("GET", key)
    connection.sendall(hiredis.pack_command(words))
    reader = hiredis.Reader()
    while (answer := reader.gets()) is False:
        data = connection.recv(1 << 16)
        if not data:
            raise BenchError("the node ended the connection while it was read")
        reader.feed(data)
    if answer is None:
        return b""
    if not isinstance(answer, bytes):
        raise BenchError(f"reading {key} failed: {answer!r}")
    return answer
