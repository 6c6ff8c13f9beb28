"""Messages and layers of the tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import trio

from p4xos.chunnels import Connection, Messages, Runtime
from p4xos.chunnels.connection import RECEIVE_MANY

T = TypeVar("T")
ANYWHERE = ("127.0.0.1", 0)
PATIENCE_S = 30.0
"""Until a test gives up; never part of what is tested."""


@dataclass(frozen=True)
class Op:
    verb: str
    key: str
    value: bytes = b""


async def echo(connection: Connection[T]) -> None:
    while True:
        await connection.send_many(await connection.receive_many())


@asynccontextmanager
async def patiently() -> AsyncIterator[None]:
    with trio.fail_after(PATIENCE_S):
        yield


def apart() -> Runtime:
    """A runtime as of another process on this host."""
    return Runtime()


def elsewhere() -> Runtime:
    """A runtime as of another host."""
    runtime = Runtime()
    runtime.place = runtime.place._replace(host="elsewhere")
    return runtime


class Pipe(Messages[bytes]):
    """Two queues; for layers without a connection."""

    def __init__(
        self,
        outgoing: trio.MemorySendChannel[bytes],
        incoming: trio.MemoryReceiveChannel[bytes],
    ) -> None:
        self._outgoing = outgoing
        self._incoming = incoming

    @classmethod
    def pair(cls, size: int = 100_000) -> tuple[Pipe, Pipe]:
        there = trio.open_memory_channel[bytes](size)
        back = trio.open_memory_channel[bytes](size)
        return cls(there[0], back[1]), cls(back[0], there[1])

    async def send_many(self, values: Sequence[bytes]) -> None:
        for value in values:
            await self._outgoing.send(value)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        found = [await self._incoming.receive()]
        while len(found) < limit:
            try:
                found.append(self._incoming.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        return found

    async def aclose(self) -> None:
        await self._outgoing.aclose()
        await self._incoming.aclose()
