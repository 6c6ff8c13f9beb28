"""What the tests of the endpoint share: rows to send, and collecting until they have arrived."""

from __future__ import annotations

import select
from typing import Any

import numpy as np

from p4xos.net import Address, UdpEndpoint
from p4xos.wire import Rows

LOCAL: Address = ("127.0.0.1", 0)
STUCK_S = 20.0
"""After this a test has failed; nothing is timed by it."""


def some_rows(count: int, stride: int, seed: int = 1) -> Rows:
    """Random rows, any stride."""
    return np.random.default_rng(seed).integers(0, 256, (count, stride), dtype=np.uint8)


def wait(endpoint: UdpEndpoint) -> None:
    """Block until the endpoint is readable."""
    readable, _, _ = select.select([endpoint._socket], [], [], STUCK_S)
    assert readable, f"nothing arrived; counters: {endpoint.counters}"


def collect(endpoint: UdpEndpoint, count: int) -> list[tuple[bytes, Address]]:
    """Datagrams in the order of arrival, until there are `count` of them."""
    found: list[tuple[bytes, Address]] = []
    while len(found) < count:
        wait(endpoint)
        for rows, source in endpoint.receive_nowait():
            assert rows.flags.c_contiguous
            assert rows.flags.writeable
            assert rows.shape[1] % 8 == 0
            assert rows.ctypes.data % 8 == 0
            found.extend((row.tobytes(), source) for row in rows)
    return found


def padded(payload: bytes) -> bytes:
    """The row in which a datagram arrives."""
    return payload + bytes(-len(payload) % 8)


class PatientSocket:
    """A socket whose receives wait for what is on its way: one drain then finds all of it."""

    def __init__(self, inner: Any, expected_bytes: int) -> None:
        self.inner = inner
        self.missing_bytes = expected_bytes

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def recvmsg_into(self, *arguments: Any) -> Any:
        if self.missing_bytes > 0:
            select.select([self.inner], [], [], STUCK_S)
        result = self.inner.recvmsg_into(*arguments)
        self.missing_bytes -= result[0]
        return result


class FailingSocket:
    """A socket whose calls fail as told: an errno for each call name, or a function to run."""

    def __init__(self, inner: Any, **calls: Any) -> None:
        self.inner = inner
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        planned = self.calls.get(name)
        if planned is None:
            return getattr(self.inner, name)
        if callable(planned):
            return planned

        def fail(*_: object) -> None:
            raise OSError(planned, "planned")

        return fail
