"""Servers that behave as a test says: they parse RESP with the store's own parser."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple

import trio

from kvstore.replies import OK, Reply, encode
from kvstore.resp import Command, PlainParser
from p4xos.tables import Address


class Raw(NamedTuple):
    """Bytes to send as they are."""

    data: bytes


class FakeNode:
    """A node: `answer` decides what becomes of each command; by default all is OK."""

    def __init__(self) -> None:
        self.commands: list[Command] = []
        """All that came, without greetings."""
        self.connections = 0
        self.answer: Callable[[Command], Awaitable[Reply | Raw]] = self.say_ok
        """A reply, or bytes to send; raises Hangup to close the connection."""
        self.arrived = trio.Event()
        self.address = Address("127.0.0.1", 0)
        self.streams: list[trio.SocketStream] = []

    async def say_ok(self, command: Command) -> Reply | Raw:
        return OK

    async def handle(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        self.streams.append(stream)
        parser = PlainParser()
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, Hangup):
            while data := await stream.receive_some(65536):
                parser.feed(data)
                while (command := parser.next_command()) is not None:
                    await stream.send_all(await self.reply_to(command))
        await stream.aclose()

    async def reply_to(self, command: Command) -> bytes:
        if command[0] == b"HELLO":
            return encode({b"server": b"redis", b"proto": 3}, 3)
        if command[0] in (b"SELECT", b"CLIENT"):
            return b"+OK\r\n"
        self.commands.append(command)
        self.arrived.set()
        reply = await self.answer(command)
        return reply.data if isinstance(reply, Raw) else encode(reply, 3)

    @property
    def names(self) -> list[bytes]:
        """The names of the commands that came."""
        return [command[0] for command in self.commands]


class Hangup(Exception):
    """The node closes the connection."""


async def hang_up(command: Command) -> Reply | Raw:
    raise Hangup


async def never(command: Command) -> Reply | Raw:
    await trio.sleep_forever()
    raise AssertionError


@contextlib.asynccontextmanager
async def fake_nodes(count: int = 1) -> AsyncIterator[list[FakeNode]]:
    """Running nodes, gone at the end."""
    nodes = [FakeNode() for _ in range(count)]
    async with trio.open_nursery() as nursery:
        for node in nodes:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            node.address = Address(*listener.socket.getsockname()[:2])
            nursery.start_soon(trio.serve_listeners, node.handle, [listener])
        yield nodes
        nursery.cancel_scope.cancel()

