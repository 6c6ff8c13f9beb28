"""A server of known latencies: in virtual time for the generator alone, and one of real sockets."""

from __future__ import annotations

import heapq
import socket
import threading
import time
from collections.abc import Callable, Iterator

import hiredis

from bench.load.generator import Generator
from bench.load.outcome import Outcome
from bench.load.plan import Plan
from p4xos.tables import Address

MS = 1_000_000
Answer = Callable[[list[bytes]], bytes]


def stored(words: list[bytes]) -> bytes:
    """As a store in which every record is there."""
    if words[0] == b"MGET":
        return b"*%d\r\n" % (len(words) - 1) + b"$1\r\nv\r\n" * (len(words) - 1)
    return b"$1\r\nv\r\n" if words[0] == b"GET" else b"+OK\r\n"


class VirtualServer:
    """`generator.Network` in virtual time: each request takes `delay_ns`, none waits for another.

    From `stalls_ns` to `resumes_ns` nothing is answered: what was due then comes at its end.
    """

    def __init__(
        self, delay_ns: int, stalls_ns: int = -1, resumes_ns: int = -1, *,
        answer: Answer = stored, send_cost_ns: int = 0, frozen_ns: tuple[int, int] = (0, 0),
    ) -> None:  # fmt: skip
        self.delay_ns, self.stalls_ns, self.resumes_ns = delay_ns, stalls_ns, resumes_ns
        self.answer, self.send_cost_ns = answer, send_cost_ns
        self.frozen_ns = frozen_ns
        """From when until when nothing runs here, neither server nor generator."""
        self.requests: list[list[bytes]] = []
        self.arrivals: list[tuple[int, int]] = []
        """Time and client of each."""
        self._now = 0
        self._parsers: dict[int, hiredis.Reader] = {}
        self._coming: list[tuple[int, int, int, bytes]] = []

    def now_ns(self) -> int:
        return self._now

    def send(self, client: int, data: bytes) -> None:
        parser = self._parsers.setdefault(client, hiredis.Reader())
        parser.feed(data)
        while (words := parser.gets()) is not False:
            self.requests.append(words)
            self.arrivals.append((self._now, client))
            due = self._now + self.delay_ns
            if self.stalls_ns <= due < self.resumes_ns:
                due = self.resumes_ns
            number = len(self.requests)
            heapq.heappush(self._coming, (due, number, client, self.answer(words)))
        self._now += self.send_cost_ns

    def receive(self, until_ns: int) -> Iterator[tuple[int, bytes]]:
        first = self._coming[0][0] if self._coming else until_ns
        self._now = max(self._now, min(first, until_ns))
        if self.frozen_ns[0] <= self._now < self.frozen_ns[1]:
            self._now = self.frozen_ns[1]
        ready = []
        while self._coming and self._coming[0][0] <= self._now:
            _, _, client, data = heapq.heappop(self._coming)
            ready.append((client, data))
        yield from ready

    def run(self, plan: Plan) -> Outcome:
        return Generator(plan.check(), self).run()


class SlowServer:
    """A RESP server of real sockets that answers each request after `delay_s` at the earliest."""

    def __init__(self, delay_s: float) -> None:
        self.delay_s = delay_s
        self.closes = False
        """Closes a connection instead of the answer to its first request."""
        self.requests: list[list[bytes]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(*self._listener.getsockname())
        self._threads = [threading.Thread(target=self._accept)]
        self._connections: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        parser = hiredis.Reader()
        with connection:
            while data := connection.recv(1 << 16):
                parser.feed(data)
                while (words := parser.gets()) is not False:
                    if words == [b"PING"]:
                        connection.sendall(b"+PONG\r\n")
                        continue
                    if self.closes:
                        return
                    self.requests.append(words)
                    time.sleep(self.delay_s)
                    connection.sendall(stored(words))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()
