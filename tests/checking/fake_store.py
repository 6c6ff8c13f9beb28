"""A RESP server on a store in memory: right as it is, and wrong in the way that a test says."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import trio

from kvstore.checking.history import Command, Output
from kvstore.replies import OK, Error, Reply, encode, error_bytes
from kvstore.resp import PlainParser
from p4xos.tables import Address
from tests.checking.histories import Store


class Hangup(Exception):
    """The connection is closed."""


class Refusal(Exception):
    """The reply is this error."""


class FakeStore:
    """Several nodes of one store."""

    def __init__(self) -> None:
        self.store = Store()
        self.run: Callable[[str, Command], Output] = lambda node, command: self.store.run(command)
        """Runs a command, or a transaction, that came to a node; raises Refusal or Hangup."""
        self.commands: list[Command] = []
        """All that ran."""

    async def serve(self, node: str, stream: trio.SocketStream) -> None:
        parser = PlainParser()
        queued: list[Command] | None = None
        with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError, Hangup):
            while data := await stream.receive_some(65536):
                parser.feed(data)
                while (words := parser.next_command()) is not None:
                    name = words[0]
                    command: Command = tuple(words)
                    if name == b"PING":
                        reply = b"+PONG\r\n"
                    elif name == b"MULTI":
                        queued, reply = [], b"+OK\r\n"
                    elif name == b"EXEC" and queued is not None:
                        command, queued = (b"MULTI", *queued), None
                        reply = self.reply(node, command)
                    elif queued is not None:
                        queued.append(command)
                        reply = b"+QUEUED\r\n"
                    else:
                        reply = self.reply(node, command)
                    await stream.send_all(reply)
        await stream.aclose()

    def reply(self, node: str, command: Command) -> bytes:
        self.commands.append(command)
        try:
            return encode(_as_reply(self.run(node, command)), 2)
        except Refusal as refusal:
            return error_bytes(str(refusal))


def _as_reply(output: Output) -> Reply:
    if isinstance(output, tuple) and not isinstance(output, Error):
        return [_as_reply(item) for item in output]
    if output == b"OK":
        return OK
    assert output is None or isinstance(output, bytes | int | Error)
    return output


@contextlib.asynccontextmanager
async def fake_store(
    names: tuple[str, ...] = ("n1", "n2", "n3"),
) -> AsyncIterator[tuple[FakeStore, dict[str, Address]]]:
    """A running store and its addresses, gone at the end."""
    store = FakeStore()
    nodes: dict[str, Address] = {}

    def handler(name: str) -> Callable[[trio.SocketStream], Awaitable[None]]:
        return lambda stream: store.serve(name, stream)

    async with trio.open_nursery() as nursery:
        for name in names:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nodes[name] = Address(*listener.socket.getsockname()[:2])
            nursery.start_soon(partial(trio.serve_listeners, handler(name), [listener]))
        yield store, nodes
        nursery.cancel_scope.cancel()
