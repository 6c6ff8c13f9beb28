"""A new connection to a node, behind its greeting: protocol, database, name."""

from __future__ import annotations

import os
import socket
from typing import Literal, NamedTuple

import hiredis
import trio

from kvstore.client.errors import ErrorReply
from p4xos.tables import Address

DIAL_S = 2.0
"""A node that takes longer to answer a greeting is of no use now; the next one is tried."""

_NOTHING = object()


class NotReached(Exception):
    """This node cannot be used now; the message says why."""


class Greeting(NamedTuple):
    """What every connection of a client is set to."""

    protocol: Literal[2, 3]
    database: int
    name: str

    def commands(self) -> list[bytes]:
        """Packed; each must be answered with no error."""
        commands: list[tuple[str | int, ...]] = [
            ("HELLO", 3) if self.protocol == 3 else ("PING",)
        ]
        if self.name:
            commands.append(("CLIENT", "SETNAME", self.name))
        if self.database:
            commands.append(("SELECT", self.database))
        return [hiredis.pack_command(command) for command in commands]  # type: ignore[arg-type]  # its stub says one item


async def dial(address: Address, greeting: Greeting) -> socket.socket:
    """Connects and greets.

    Returns:
      A non-blocking socket, the caller's to close.

    Raises:
      NotReached: in any other case.
    """
    try:
        with trio.fail_after(DIAL_S):
            stream = await trio.open_tcp_stream(address.host, address.port)
            try:
                await _greet_untrusted(stream, greeting.commands())
                sock = socket.socket(fileno=stream.socket.detach())
                sock.setblocking(False)
                return sock
            except BaseException:
                stream.socket.close()
                raise
    except trio.TooSlowError:
        raise NotReached(f"no answer within {DIAL_S:g} s") from None
    except trio.BrokenResourceError as error:
        raise NotReached(_in_words(error.__cause__)) from None
    except OSError as error:
        raise NotReached(_in_words(error)) from None


async def _greet_untrusted(stream: trio.SocketStream, commands: list[bytes]) -> None:
    """Raises NotReached for every answer but a friendly one."""
    await stream.send_all(b"".join(commands))
    reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
    for _ in commands:
        try:
            while (reply := reader.gets()) is _NOTHING:
                data = await stream.receive_some()
                if not data:
                    raise NotReached("it closed the connection")
                reader.feed(data)
        except hiredis.ProtocolError as error:
            raise NotReached(f"this is no RESP: {error}") from None
        if isinstance(reply, ErrorReply):
            raise NotReached(reply.text)


def _in_words(error: BaseException | None) -> str:
    """What the system said: trio tells which host, and has the reason below, in a group or not."""
    below = error.__cause__ if error is not None else None
    if isinstance(below, BaseExceptionGroup):
        below = below.exceptions[0]
    chosen = below if isinstance(below, OSError) else error
    if isinstance(chosen, OSError) and chosen.errno:
        return os.strerror(chosen.errno).lower()
    return str(chosen or "broken")
