"""Clients that write to the store as fast as it answers, and remember what was acknowledged.

Each write has a key and value of its own, so that a lost one shows whatever came after it. A write
whose answer is an error or a broken connection has an unknown outcome: it is neither counted as
acknowledged nor as lost (docs/traps.md, 16).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from bench.errors import BenchError
from p4xos.tables import Address

try:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
except ImportError as missing:
    raise BenchError(
        "the Python package redis (redis-py) is missing; install it: pip install '.[dev]'"
    ) from missing

ANSWER_LIMIT_S = 30.0
"""Longer than a node waits for a majority, so that the node's answer comes first."""
_READ_KEYS = 500


def connect(address: Address) -> redis.Redis:
    """A client of one node that tries each command once: a retry would hide what happened."""
    return redis.Redis(
        host=address.host, port=address.port, retry=Retry(NoBackoff(), 0),
        socket_timeout=ANSWER_LIMIT_S, socket_connect_timeout=ANSWER_LIMIT_S,
    )  # fmt: skip


class Writer(threading.Thread):
    """One client in a thread; `stop` ends it."""

    def __init__(self, name: str, address: Address) -> None:
        """Idle until `start`.

        Args:
          name: begins each of its keys; no two writers of a run share one.
          address: of the node it writes to.
        """
        super().__init__(name=name, daemon=True)
        self.acknowledged: list[int] = []
        self.acknowledged_at: list[float] = []
        """Seconds, monotonic; of each of `acknowledged`."""
        self.unknown: list[tuple[int, str]] = []
        """Writes without a known outcome, each with what was said."""
        self.longest_gap_s = 0.0
        """Between two acknowledgements, or since the last one (or the start) until `stop`."""
        self._address = address
        self._stop_asked = threading.Event()
        self._progress = threading.Condition()

    def run(self) -> None:
        """Writes until it is asked to stop."""
        with connect(self._address) as client:
            last = time.monotonic()
            number = 0
            while not self._stop_asked.is_set():
                key, value = self.item(number)
                try:
                    client.set(key, value)
                except redis.RedisError as error:
                    with self._progress:
                        self.unknown.append((number, str(error)))
                    self._stop_asked.wait(0.01)  # a dead node refuses at once: do not spin
                else:
                    now = time.monotonic()
                    with self._progress:
                        self.longest_gap_s = max(self.longest_gap_s, now - last)
                        self.acknowledged.append(number)
                        self.acknowledged_at.append(now)
                        self._progress.notify_all()
                    last = now
                number += 1
            self.longest_gap_s = max(self.longest_gap_s, time.monotonic() - last)

    def item(self, number: int) -> tuple[str, str]:
        """Key and value of a write."""
        return f"{self.name}:{number}", f"{self.name}:{number}:".ljust(64, ".")

    def wait_for(self, count: int, limit_s: float) -> None:
        """Returns when so many writes were acknowledged in all.

        Raises:
          BenchError: they were not, within the limit.
        """
        with self._progress:
            if not self._progress.wait_for(lambda: len(self.acknowledged) >= count, limit_s):
                raise BenchError(
                    f"client {self.name} got {len(self.acknowledged)} of {count} acknowledgements "
                    f"within {limit_s:g} s; its last error: {self.unknown[-1:]}"
                )

    def stop(self) -> None:
        """Asks it to stop after the write under way; `join` waits for that."""
        self._stop_asked.set()


@contextmanager
def writing(addresses: Sequence[Address], prefix: str = "w") -> Iterator[list[Writer]]:
    """Runs a writer for each address; all have ended when the block is left."""
    writers = [Writer(f"{prefix}{k}", address) for k, address in enumerate(addresses)]
    for writer in writers:
        writer.start()
    try:
        yield writers
    finally:
        for writer in writers:
            writer.stop()
        for writer in writers:
            writer.join()


def wait_for_more(writers: Sequence[Writer], count: int, limit_s: float = 60.0) -> None:
    """Returns when each writer got so many more acknowledgements than it has now.

    Raises:
      BenchError: one did not, within the limit.
    """
    targets = [len(writer.acknowledged) + count for writer in writers]
    for writer, target in zip(writers, targets, strict=True):
        writer.wait_for(target, limit_s)


def lost(writers: Iterable[Writer], address: Address) -> list[str]:
    """Keys whose acknowledged write a node does not have."""
    missing = []
    with connect(address) as client:
        for writer in writers:
            items = [writer.item(number) for number in writer.acknowledged]
            for first in range(0, len(items), _READ_KEYS):
                part = items[first : first + _READ_KEYS]
                found = cast("list[bytes | None]", client.mget([key for key, _ in part]))
                missing += [
                    key
                    for (key, value), got in zip(part, found, strict=True)
                    if got != value.encode()
                ]
    return missing
