"""Clients that do everything a little: all kinds of commands, large values, coming and going."""

from __future__ import annotations

import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import redis

from bench.writers import connect
from p4xos.tables import Address

KEYS = 3000
"""A fixed set: a store that grows would hide a process that does."""
VALUE_BYTES = 100
LARGE_BYTES = 300_000
LARGE_EVERY = 400
APPENDED_MAX = 4000
TRANSACTION_KEYS = 4
STAY = 300
"""Commands on one connection, on average."""
EXPIRE_MAX_S = 60
PAUSE_S = 0.002
"""Between two commands of a client: the load is to last, not to be as high as can be."""


class Worker(threading.Thread):
    """One client in a thread, at whichever node chance gives it."""

    def __init__(self, number: int, addresses: Sequence[Address], seed: int) -> None:
        super().__init__(name=f"worker {number}", daemon=True)
        self.done: Counter[str] = Counter()
        """Commands by kind that were answered."""
        self.failed: Counter[str] = Counter()
        """Errors by what they say."""
        self.counted = 0
        """INCRs acknowledged of its own counter ..."""
        self.uncertain = 0
        """... and those whose outcome is unknown."""
        self.counter = f"counter:{number}"
        self._addresses = addresses
        self._chance = random.Random(f"{seed}:{number}")
        self._stop_asked = threading.Event()
        self._kinds: list[tuple[int, str, Callable[[redis.Redis], object]]] = [
            (30, "GET", lambda c: c.get(self._key())),
            (25, "SET", lambda c: c.set(self._key(), self._value())),
            (15, "INCR", self._count),
            (10, "APPEND", self._append),
            (8, "DEL", lambda c: c.delete(self._key())),
            (7, "EXPIRE", lambda c: c.expire(self._key(), self._chance.randint(1, EXPIRE_MAX_S))),
            (5, "MULTI", self._transact),
        ]

    def run(self) -> None:
        """Works until it is asked to stop."""
        while not self._stop_asked.is_set():
            client = connect(self._chance.choice(self._addresses))
            try:
                with client:
                    self._work(client)
            except redis.RedisError as error:
                self.failed[f"{type(error).__name__}: {str(error)[:60]}"] += 1
                self._stop_asked.wait(0.1)
            finally:
                client.close()

    def _work(self, client: redis.Redis) -> None:
        weights = [weight for weight, _, _ in self._kinds]
        for _ in range(self._chance.randint(1, 2 * STAY)):
            if self._stop_asked.wait(PAUSE_S):
                return
            if self._chance.random() < 1 / LARGE_EVERY:
                client.set(self._key(), self._chance.randbytes(LARGE_BYTES))
                self.done["SET large"] += 1
                continue
            ((_, name, act),) = self._chance.choices(self._kinds, weights)
            act(client)
            self.done[name] += 1

    def stop(self) -> None:
        """Asks it to stop after the command under way."""
        self._stop_asked.set()

    def _key(self) -> str:
        return f"key:{self._chance.randrange(KEYS)}"

    def _value(self) -> bytes:
        return self._chance.randbytes(VALUE_BYTES)

    def _count(self, client: redis.Redis) -> None:
        try:
            client.incr(self.counter)
        except redis.RedisError:
            self.uncertain += 1
            raise
        self.counted += 1

    def _append(self, client: redis.Redis) -> None:
        key = f"list:{self._chance.randrange(KEYS)}"
        length = client.append(key, self._value())
        assert isinstance(length, int)
        if length > APPENDED_MAX:
            client.delete(key)

    def _transact(self, client: redis.Redis) -> None:
        with client.pipeline(transaction=True) as pipeline:
            for _ in range(TRANSACTION_KEYS):
                pipeline.set(self._key(), self._value())
            pipeline.get(self._key())
            pipeline.execute()


class Visitor(threading.Thread):
    """Comes, says PING, and goes, all the time; sometimes without waiting for the answer."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        super().__init__(name="visitor", daemon=True)
        self.visits = 0
        self._addresses = addresses
        self._stop_asked = threading.Event()

    def run(self) -> None:
        """Visits until it is asked to stop."""
        while not self._stop_asked.wait(10 * PAUSE_S):
            address = random.choice(self._addresses)
            client = connect(address)
            try:
                client.ping()
                self.visits += 1
                if self.visits % 5 == 0:
                    with socket.create_connection(address) as hasty:
                        hasty.sendall(b"*2\r\n$3\r\nGET\r\n$5\r\nkey:0\r\n")
            except (redis.RedisError, OSError):
                self._stop_asked.wait(0.1)
            finally:
                client.close()

    def stop(self) -> None:
        """Asks it to stop."""
        self._stop_asked.set()


@contextmanager
def loading(addresses: Sequence[Address], workers: int, seed: int) -> Iterator[list[Worker]]:
    """Runs workers and a visitor; all have ended when the block is left."""
    started = [Worker(number, addresses, seed) for number in range(workers)]
    visitor = Visitor(addresses)
    threads: list[Worker | Visitor] = [*started, visitor]
    for thread in threads:
        thread.start()
    try:
        yield started
    finally:
        for thread in threads:
            thread.stop()
        for thread in threads:
            thread.join()
