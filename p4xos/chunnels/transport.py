"""The lowest layers: `local_or_remote()` and `datagrams()`.

Within one runtime messages are handed over in memory; within one host, or containers that share a
directory, they travel by Unix sockets; else as UDP datagrams. Memory and Unix sockets keep order
and lose nothing, so that `reliable()` above them is left out; UDP promises nothing.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from p4xos.chunnels.connection import RECEIVE_MANY, Messages
from p4xos.chunnels.errors import Denied
from p4xos.chunnels.implementations import Context, Implementation, Serving, Side, implementation
from p4xos.chunnels.messages import TICKET_BYTES_MAX
from p4xos.chunnels.places import Scope
from p4xos.chunnels.stack import Chunnel, Layer, Wire, layer

log = logging.getLogger(__name__)

TRANSPORT = "transport"
BATCHES_IN_FLIGHT = 64
"""Batches handed over in memory and not yet taken; then the sender waits."""
UNIX_BYTES = 1 << 20
"""Of a Unix socket's buffers, and so of a message."""
MESSAGE_BYTES_MAX = 200_000
"""Of a message over a Unix socket, whatever buffers this system allows."""
NEWCOMERS_MAX = 256
"""Unix connections that have not shown a ticket yet."""
TICKET_WAIT_S = 5.0
STALE_S = 60.0
"""How old a socket at which nobody listens must be, before it is removed."""
_SAFE = {"order": "fifo", "loss": "none", "duplicates": "exactly-once"}


def local_or_remote() -> Chunnel[bytes, Wire]:
    """The fastest way that there is between two ends: memory, a Unix socket, or UDP."""
    return layer(TRANSPORT)


def datagrams() -> Chunnel[bytes, Wire]:
    """UDP datagrams, wherever the ends are; what stacks without a lowest layer stand on."""
    return layer(TRANSPORT).require(carrier="udp")


# UDP ---------------------------------------------------------------------------------------------


@implementation(
    TRANSPORT, "udp", scope=Scope.GLOBAL, priority=10,
    provides={"carrier": "udp", "order": "none", "loss": "any", "duplicates": "any"},
)  # fmt: skip
@asynccontextmanager
async def udp(below: None, context: Context) -> AsyncIterator[Messages[bytes]]:
    """The datagrams of the socket on which was negotiated."""
    yield await context.carrier.messages()


# Memory ------------------------------------------------------------------------------------------


class InMemory(Messages[bytes]):
    """One end of a pair of queues of batches."""

    def __init__(
        self,
        outgoing: trio.MemorySendChannel[Sequence[bytes]],
        incoming: trio.MemoryReceiveChannel[Sequence[bytes]],
    ) -> None:
        """See `pair`."""
        self._outgoing = outgoing
        self._incoming = incoming
        self._left: deque[bytes] = deque()

    @classmethod
    def pair(cls) -> tuple[InMemory, InMemory]:
        """Two ends."""
        there = trio.open_memory_channel[Sequence[bytes]](BATCHES_IN_FLIGHT)
        back = trio.open_memory_channel[Sequence[bytes]](BATCHES_IN_FLIGHT)
        return cls(there[0], back[1]), cls(back[0], there[1])

    async def send_many(self, values: Sequence[bytes]) -> None:
        """As Messages."""
        await self._outgoing.send(tuple(values))  # the caller may go on with its list

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        """As Messages."""
        left = self._left
        if not left:
            batch: Sequence[bytes] = ()
            while not batch:
                batch = await self._incoming.receive()
            if len(batch) <= limit:
                return list(batch)
            left.extend(batch)
        else:
            await trio.lowlevel.checkpoint()
        return [left.popleft() for _ in range(min(limit, len(left)))]

    async def aclose(self) -> None:
        """As Messages."""
        await self._outgoing.aclose()
        await self._incoming.aclose()


class _Word:
    """What a server says of a ticket, for a client in the same runtime."""

    def __init__(self) -> None:
        self.said: str | None = None
        self.heard = trio.Event()

    def begin(self, why: str) -> None:
        """As `Serving.admit_untrusted` wants it."""
        self.said = why
        self.heard.set()


@asynccontextmanager
async def _listen_in_memory(
    serving: Serving, layer: Layer
) -> AsyncIterator[Mapping[str, object]]:
    serving.runtime.listening[serving.name] = serving.admit_untrusted
    try:
        yield {"memory": serving.name}
    finally:
        del serving.runtime.listening[serving.name]


@asynccontextmanager
async def _in_memory(below: None, context: Context) -> AsyncIterator[Messages[bytes]]:
    if context.side is Side.SERVER:
        yield await context.carrier.messages()
        return
    knock = context.runtime.listening.get(str(context.chosen.parameters.get("memory")))
    if knock is None:
        raise Denied("it has ended")
    ours, theirs = InMemory.pair()
    word = _Word()
    knock(context.carrier.ticket, theirs, word.begin)
    if context.carrier.wait:
        await word.heard.wait()
    if word.said:
        raise Denied(word.said)
    try:
        yield ours
    finally:
        await ours.aclose()


memory = Implementation(
    TRANSPORT, "memory", _in_memory, scope=Scope.APPLICATION, reach=Scope.APPLICATION,
    priority=30, provides={"carrier": "memory", **_SAFE}, listen=_listen_in_memory,
)  # fmt: skip


# Unix sockets ------------------------------------------------------------------------------------


class UnixMessages(Messages[bytes]):
    """A connected socket that keeps the bounds of messages (SOCK_SEQPACKET)."""

    def __init__(self, sock: socket.socket, *, greeted: bool = True) -> None:
        """Owns the socket.

        Args:
          sock: connected, not blocking.
          greeted: whether the peer's first message is one of the application's.
        """
        self._socket = sock
        self._greeted = greeted
        self._closed = False

    async def greeting(self) -> None:
        """Waits for the server's word; Denied where that is not good."""
        while not self._greeted:
            await trio.lowlevel.wait_readable(self._socket)
            self._take_greeting()

    def _take_greeting(self) -> None:
        try:
            word = self._socket.recv(MESSAGE_BYTES_MAX)
        except BlockingIOError:
            return
        except OSError as error:
            raise trio.BrokenResourceError(f"the server has gone: {error}") from error
        if word != b"\0":  # the length 0 would be the end of the connection
            raise Denied(word[1:].decode(errors="replace") or "it has ended")
        self._greeted = True

    async def send_many(self, values: Sequence[bytes]) -> None:
        """As Messages; a message is at most MESSAGE_BYTES_MAX long."""
        await trio.lowlevel.checkpoint()
        for value in values:
            if len(value) >= MESSAGE_BYTES_MAX:
                raise ValueError(
                    f"a message has {len(value)} bytes and a Unix socket takes "
                    f"{MESSAGE_BYTES_MAX - 1}; divide it"
                )
            # Its end is told from an empty message by a byte that every message has.
            data = b"\0" + value
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this connection was closed here")
                try:
                    self._socket.send(data)
                    break
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                except OSError as error:
                    raise trio.BrokenResourceError(
                        f"the other end has closed the connection ({os.strerror(error.errno or 0)})"
                    ) from error

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        """As Messages."""
        await trio.lowlevel.checkpoint()
        found: list[bytes] = []
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this connection was closed here")
            if not self._greeted:
                await self.greeting()
            try:
                while len(found) < limit:
                    data = self._socket.recv(MESSAGE_BYTES_MAX)
                    if not data:
                        if found:
                            return found  # the end is there the next time too
                        raise trio.EndOfChannel
                    found.append(data[1:])
                return found
            except BlockingIOError:
                if found:
                    return found
                await trio.lowlevel.wait_readable(self._socket)
            except OSError as error:
                if found:
                    return found
                if error.errno == errno.ECONNRESET:
                    raise trio.BrokenResourceError("the other end is gone") from error
                raise trio.BrokenResourceError(str(error)) from error

    async def aclose(self) -> None:
        """As Messages."""
        if not self._closed:
            self._closed = True
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


def _unix_socket() -> socket.socket:
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        opened.setsockopt(socket.SOL_SOCKET, option, UNIX_BYTES)
    opened.setblocking(False)
    return opened


@asynccontextmanager
async def _listen_unix(serving: Serving, layer: Layer) -> AsyncIterator[Mapping[str, object]]:
    directory = serving.runtime.sockets
    if directory is None:
        yield {}
        return
    sweep(directory)
    path = directory / f"{secrets.token_hex(8)}.sock"
    listener = _unix_socket()
    try:
        listener.bind(str(path))
        listener.listen(1024)
        serving.nursery.start_soon(_accept_unix, listener, serving)
        yield {"path": str(path)}
    finally:
        path.unlink(missing_ok=True)
        trio.lowlevel.notify_closing(listener)
        listener.close()


def sweep(directory: Path, *, older_s: float = STALE_S) -> None:
    """Removes sockets that servers left which were killed: nobody listens at them."""
    oldest = time.time() - older_s
    for path in directory.glob("*.sock"):
        with suppress(OSError), _unix_socket() as probe:
            if path.lstat().st_mtime > oldest:
                continue  # it may be bound, and not listen yet
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink(missing_ok=True)


async def _accept_unix(listener: socket.socket, serving: Serving) -> None:
    limit = trio.CapacityLimiter(NEWCOMERS_MAX)
    while listener.fileno() >= 0:
        try:
            await trio.lowlevel.wait_readable(listener)
            accepted, _ = listener.accept()
        except BlockingIOError:
            continue
        except trio.ClosedResourceError:
            return
        except OSError as error:
            if listener.fileno() < 0:
                return
            log.warning("a connection was not accepted: %s", error)
            await trio.sleep(0.01)  # no descriptor is left: others must end first
            continue
        if limit.available_tokens <= 0:
            accepted.close()
            continue
        accepted.setblocking(False)
        serving.nursery.start_soon(_newcomer_untrusted, accepted, serving, limit)


async def _newcomer_untrusted(
    accepted: socket.socket, serving: Serving, limit: trio.CapacityLimiter
) -> None:
    """Takes the ticket of a connection; nothing that comes raises."""
    carried = UnixMessages(accepted)
    ticket = b""
    try:
        async with limit:
            with trio.move_on_after(TICKET_WAIT_S):
                with suppress(trio.EndOfChannel, trio.BrokenResourceError):
                    ticket = (await carried.receive_many(1))[0]
    except trio.Cancelled:
        accepted.close()
        raise

    def begin(why: str) -> None:
        with suppress(OSError):  # it has gone
            accepted.send(b"\0" + why.encode())
        if why:
            accepted.close()

    serving.admit_untrusted(ticket[:TICKET_BYTES_MAX], carried, begin)


@asynccontextmanager
async def _unix(below: None, context: Context) -> AsyncIterator[Messages[bytes]]:
    if context.side is Side.SERVER:
        yield await context.carrier.messages()
        return
    path = str(context.chosen.parameters.get("path"))
    if context.runtime.sockets is None or Path(path).parent != context.runtime.sockets:
        raise Denied(f"it names {path}, which is no socket of this user")
    opened = _unix_socket()
    carried = UnixMessages(opened, greeted=False)
    try:
        try:
            opened.connect(path)
        except OSError as error:
            raise Denied(f"its socket {path} cannot be reached: {error}") from None
        await carried.send(context.carrier.ticket)
        if context.carrier.wait:
            await carried.greeting()
        yield carried
    finally:
        await carried.aclose()


unix = Implementation(
    TRANSPORT, "unix", _unix, scope=Scope.HOST, reach=Scope.HOST, priority=20,
    provides={"carrier": "unix", **_SAFE}, listen=_listen_unix,
)  # fmt: skip
