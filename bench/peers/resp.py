"""Loads on a server that speaks Redis' protocol."""

from __future__ import annotations

import hiredis

from bench import redis_benchmark
from bench.crowd import request
from bench.errors import BenchError
from bench.peers.peer import KEYS, VALUE_BYTES, Figures, Kind, item
from bench.redis_benchmark import Load
from p4xos.tables import Address

TESTS: dict[Kind, str] = {"write": "set", "read": "get"}
WAIT_LIMIT_MS = 10_000
_FIRST_REQUESTS = 200


def measured(address: Address, clients: int, kind: Kind, seconds: float) -> Figures:
    """redis-benchmark, first with a few requests: for warm-up, and to know how many to ask for.

    Raises:
      BenchError: it is missing, failed, or got an error from the server.
    """

    def run(requests: int) -> redis_benchmark.Result:
        load = Load(TESTS[kind], clients, 1, requests, VALUE_BYTES, KEYS)
        return redis_benchmark.run(load, address)

    first = run(max(_FIRST_REQUESTS, 10 * clients))
    result = run(max(int(first.requests_per_s * seconds), 4 * clients))
    return Figures(result.requests_per_s, result.p50_ms, result.p99_ms)


class Writes:
    """A connection's SETs, each followed by a WAIT for so many replicas where there are any."""

    def __init__(self, replicas: int = 0) -> None:
        self._replicas = replicas
        self._reader = hiredis.Reader()
        self._written = False
        wait = request("WAIT", replicas, WAIT_LIMIT_MS)
        self._after = wait if replicas else b""

    def opening(self) -> bytes:
        """Nothing: RESP has no greeting."""
        return b""

    def request(self, number: int) -> bytes:
        """Both commands in one piece: the WAIT costs no round trip of its own."""
        self._written = False
        return request("SET", *item(number)) + self._after

    def receive(self, data: bytes) -> tuple[bool, bytes]:
        """Complete with the OK, and with the number of replicas where WAIT was sent."""
        self._reader.feed(data)
        while (reply := self._reader.gets()) is not False:
            if not self._written:
                if reply != b"OK":
                    raise BenchError(f"a SET was answered {reply!r}")
                self._written = True
                if self._replicas:
                    continue
            elif not isinstance(reply, int) or reply < self._replicas:
                raise BenchError(f"WAIT {self._replicas} was answered {reply!r}")
            return True, b""
        return False, b""
