"""A server on a log of one replica, and a raw client to talk to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hiredis
import trio

from kvstore.authentication import Authenticator
from kvstore.limits import Limits
from kvstore.listening import bound_socket
from kvstore.logtime import Clock, wall_clock
from kvstore.machine import KvStateMachine
from kvstore.server import KvServer
from kvstore.store import Store
from kvstore.tls import ServerTls
from p4xos.testing.local_log import LocalLog

CLUSTER = 0x5EED


def pack(*words: bytes) -> bytes:
    """A command as clients send it."""
    return bytes(hiredis.pack_command(tuple[Any, ...](words)))


class Talker:
    """A raw client: bytes out, exactly so many bytes in."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._got = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def receive(self, count: int) -> bytes:
        with trio.fail_after(20):
            while len(self._got) < count:
                data = await self.stream.receive_some(65536)
                if not data:
                    break
                self._got += data
        got, self._got = self._got[:count], self._got[count:]
        return got

    async def expect(self, data: bytes) -> None:
        assert await self.receive(len(data)) == data

    async def line(self) -> bytes:
        """The next line, with its end."""
        line = b""
        while not line.endswith(b"\r\n"):
            byte = await self.receive(1)
            assert byte, line
            line += byte
        return line

    async def rest_of(self, end: bytes) -> bytes:
        """Everything up to this end."""
        got = b""
        while not got.endswith(end):
            more = await self.receive(1)
            assert more, got
            got += more
        return got

    async def rest(self) -> bytes:
        """Everything until the server closes."""
        return await self.receive(1 << 40)


async def talk(talker: Talker, sent: bytes) -> bytes:
    """What the server says to all of it, until it closes; QUIT is added, and its OK left out."""
    if b"QUIT\r\n" in sent:
        await talker.send(sent)
        return await talker.rest()
    await talker.send(sent + b"QUIT\r\n")
    return (await talker.rest()).removesuffix(b"+OK\r\n")


async def talk_to_empty(port: int, sent: bytes) -> bytes:
    """The same of a server that listens there, on empty databases."""
    for message in (b"FLUSHALL\r\n", sent):
        async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
            received = await talk(Talker(stream), message)
    return received


@dataclass
class Running:
    """A server, what is below it, and where it listens."""

    server: KvServer
    log: LocalLog
    machine: KvStateMachine
    store: Store
    _talkers: list[Talker]

    async def connect(self) -> Talker:
        talker = Talker(await trio.open_tcp_stream("127.0.0.1", self.server.port))
        self._talkers.append(talker)
        return talker


@contextlib.asynccontextmanager
async def serving(
    directory: Path,
    clock: Clock = wall_clock,
    *,
    users: Path | None = None,
    tls: ServerTls | None = None,
    plain: bool = True,
    limits: Limits | None = None,
    **log_options: int,
) -> AsyncIterator[Running]:
    """A server on a fresh store and a `LocalLog`; all of it is closed at the end."""
    store = Store(directory / "store", CLUSTER, clock)
    machine = KvStateMachine(store)
    log = LocalLog(**log_options)
    log.attach(machine)
    server = KvServer(
        log, machine, bound_socket(("127.0.0.1", 0)) if plain else None, limits=limits,
        tls=None if tls is None else (bound_socket(("127.0.0.1", 0)), tls),
        access=None if users is None else Authenticator(users),
    )  # fmt: skip
    talkers: list[Talker] = []
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(log.run)
            await nursery.start(server.run)
            yield Running(server, log, machine, store, talkers)
            nursery.cancel_scope.cancel()
    finally:
        for talker in talkers:
            talker.stream.socket.close()
        store.close()
