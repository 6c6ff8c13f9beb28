"""A new connection to a node, behind its greeting: TLS, protocol, user, database, name."""

from __future__ import annotations

import os
import socket
import ssl
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

import hiredis
import trio

from kvstore.client.errors import ErrorReply
from kvstore.tls import TlsSocket, reason
from p4xos.tables import Address

DIAL_S = 2.0
"""A node that takes longer to answer a greeting is of no use now; the next one is tried."""
AUTHENTICATING_S = 10.0
"""The same where it checks a password: that is slow on purpose the first time."""
RECEIVE_BYTES = 16384
_REFUSALS = frozenset(("WRONGPASS", "NOAUTH", "NOPERM"))

_NOTHING = object()


class NotReached(Exception):
    """This node cannot be used now; the message says why."""


class NotLetIn(NotReached):
    """This node does not know the user, or has another password of its."""


class NotTrusted(NotReached):
    """One side does not take the certificate of the other, or misses it."""


@dataclass(frozen=True)
class Greeting:
    """What every connection of a client is set to."""

    protocol: Literal[2, 3]
    database: int
    name: str
    username: str = ""
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None

    @property
    def limit_s(self) -> float:
        """How long it may take."""
        return DIAL_S if self.password is None else AUTHENTICATING_S

    def commands(self) -> list[bytes]:
        """Packed; each must be answered with no error."""
        commands: list[tuple[str | int, ...]] = [("HELLO", 3) if self.protocol == 3 else ("PING",)]
        if self.password is not None:
            user = self.username or "default"
            if self.protocol == 3:
                commands = [("HELLO", 3, "AUTH", user, self.password)]
            else:
                commands = [("AUTH", user, self.password)]
        if self.name:
            commands.append(("CLIENT", "SETNAME", self.name))
        if self.database:
            commands.append(("SELECT", self.database))
        return [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]  # its stub says one item


async def dial(address: Address, greeting: Greeting) -> socket.socket | TlsSocket:
    """Connects and greets.

    Returns:
      A non-blocking socket, the caller's to close.

    Raises:
      NotReached: in any other case; NotLetIn and NotTrusted where to try again is of no use.
    """
    try:
        with trio.fail_after(greeting.limit_s):
            stream = await trio.open_tcp_stream(address.host, address.port)
            plain = socket.socket(fileno=stream.socket.detach())
            plain.setblocking(False)
            sock: socket.socket | TlsSocket = plain
            try:
                if greeting.tls is not None:
                    sock = await _wrapped(plain, address.host, greeting.tls)
                await _greet_untrusted(sock, greeting.commands())
                return sock
            except BaseException:
                sock.close()
                raise
    except trio.TooSlowError:
        raise NotReached(f"no answer within {greeting.limit_s:g} s") from None
    except trio.BrokenResourceError as error:
        raise NotReached(_in_words(error.__cause__)) from None
    except ssl.SSLError as error:
        # A node that dies in between sends no alert: with one it has judged what it was shown.
        judged = isinstance(error, ssl.SSLCertVerificationError) or "ALERT" in (error.reason or "")
        raise (NotTrusted if judged else NotReached)(f"TLS: {reason(error)}") from None
    except OSError as error:
        raise NotReached(_in_words(error)) from None


async def _wrapped(sock: socket.socket, host: str, context: ssl.SSLContext) -> TlsSocket:
    """The client's side of TLS behind its handshake, which checks whom it talks to."""
    wrapped = TlsSocket(
        context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
    )
    try:
        while True:
            try:
                wrapped.handshake()
                return wrapped
            except ssl.SSLWantReadError:
                await trio.lowlevel.wait_readable(wrapped)
            except ssl.SSLWantWriteError:
                await trio.lowlevel.wait_writable(wrapped)
    except BaseException:
        wrapped.close()
        raise


async def _greet_untrusted(sock: socket.socket | TlsSocket, commands: list[bytes]) -> None:
    """Raises NotReached for every answer but a friendly one."""
    data = memoryview(b"".join(commands))
    while data:
        try:
            data = data[sock.send(data) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)
        except OSError:
            # Why the node ended it may have come before: under TLS 1.3 what it thinks of the
            # client's certificate arrives behind the handshake, and this then raises it.
            with suppress(BlockingIOError):
                sock.recv(RECEIVE_BYTES)
            raise
    reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
    for _ in commands:
        try:
            while (reply := reader.gets()) is _NOTHING:
                reader.feed(await _receive_untrusted(sock))
        except hiredis.ProtocolError as error:
            raise NotReached(f"this is no RESP: {error}") from None
        if isinstance(reply, ErrorReply):
            raise (NotLetIn if reply.code in _REFUSALS else NotReached)(reply.text)


async def _receive_untrusted(sock: socket.socket | TlsSocket) -> bytes:
    while True:
        await trio.lowlevel.wait_readable(sock)
        try:
            data = sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            continue
        if not data:
            raise NotReached("it closed the connection")
        return data


def _in_words(error: BaseException | None) -> str:
    """What the system said: trio tells which host, and has the reason below, in a group or not."""
    below = error.__cause__ if error is not None else None
    if isinstance(below, BaseExceptionGroup):
        below = below.exceptions[0]
    chosen = below if isinstance(below, OSError) else error
    if isinstance(chosen, OSError) and chosen.errno:
        return os.strerror(chosen.errno).lower()
    return str(chosen or "broken")
