"""One command sent once to one node, and what is known of it afterwards. Nothing is tried again.

Told apart is what decides whether a history is judged rightly: what was surely not done (its last
byte was not taken by the kernel, or the node refused it) from what may have been done (the answer
did not come, or says that nobody knows).
"""

from __future__ import annotations

import socket
from typing import Any, NamedTuple

import hiredis
import trio

from kvstore.checking.history import Command, Outcome, Output
from kvstore.checking.model import MULTI, STATE_ERRORS
from kvstore.client.dialing import DIAL_S, Greeting, NotLetIn, NotReached, dial
from kvstore.client.errors import ErrorReply, says_unknown
from kvstore.replies import Error
from kvstore.tls import TlsSocket, reason
from p4xos.tables import Address

PLAIN = Greeting(2, 0, "")
"""Of a client without TLS and without a user."""
_PROBE: tuple[Command, ...] = ((MULTI,), (b"DEL", b"check:probe"), (b"DISCARD",))
"""Rights are judged when a command is queued: this tells of them, and changes nothing."""
_RECEIVE_BYTES = 64 * 1024
_NOTHING = object()


class Result(NamedTuple):
    """What is known of an attempt."""

    outcome: Outcome
    output: Output = None
    problem: str = ""
    lost: bool = False
    """The connection is of no use any more."""


class Connection:
    """A connection to one node, for one command at a time."""

    def __init__(self, sock: socket.socket | TlsSocket) -> None:
        """Takes over a connected, non-blocking socket."""
        self._socket = sock
        self._reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)

    @classmethod
    async def open(cls, address: Address, greeting: Greeting = PLAIN) -> Connection:
        """Connects and greets, in RESP2.

        Raises:
          NotReached: this node cannot be used now; NotLetIn, NotTrusted: nor later.
        """
        assert greeting.protocol == 2, "the verdict knows the replies of RESP2"
        return cls(await dial(address, greeting))

    def close(self) -> None:
        """Closes it; whatever was under way is not heard of again."""
        self._socket.close()

    async def check_rights(self) -> None:
        """Returns when this client may write; the connection is of no further use.

        Raises:
          NotLetIn: it may not.
          NotReached: the node does not answer.
        """
        data = b"".join(hiredis.pack_command(words) for words in _PROBE)
        try:
            with trio.fail_after(DIAL_S):
                await self._send(data, _Sent(len(data)))
                replies = [await self._next_reply_untrusted() for _ in _PROBE]
        except trio.TooSlowError:
            raise NotReached(f"no answer within {DIAL_S:g} s") from None
        except OSError as error:
            raise NotReached(reason(error)) from None
        except hiredis.ProtocolError as error:
            raise NotReached(f"this is no RESP: {error}") from None
        for reply in replies:
            if isinstance(reply, ErrorReply) and reply.code == "NOPERM":
                raise NotLetIn(reply.text)

    async def attempt(self, command: Command, patience_s: float) -> Result:
        """Sends a command and waits for its answer, for so long."""
        parts = command[1:] if command[0] == MULTI else (command,)
        packed = [hiredis.pack_command(part) for part in parts]
        if command[0] == MULTI:
            packed = [hiredis.pack_command((MULTI,)), *packed, hiredis.pack_command((b"EXEC",))]
        data = b"".join(packed)
        sent = _Sent(len(data))
        replies: list[object] = []
        problem = f"no answer within {patience_s:g} s"
        try:
            with trio.move_on_after(patience_s):
                await self._send(data, sent)
                while len(replies) < len(packed):
                    replies.append(await self._next_reply_untrusted())
        except OSError as error:
            problem = reason(error)
        except hiredis.ProtocolError as error:
            problem = f"this is no RESP: {error}"
        if len(replies) == len(packed):
            return result_of(replies)
        # A node runs whole commands only.
        return Result("unknown" if sent.whole else "refused", None, problem, lost=True)

    async def _send(self, data: bytes, sent: _Sent) -> None:
        rest = memoryview(data)
        while rest:
            try:
                count = self._socket.send(rest)
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self._socket)
                continue
            sent.missing -= count
            rest = rest[count:]

    async def _next_reply_untrusted(self) -> object:
        while (reply := self._reader.gets()) is _NOTHING:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except BlockingIOError:
                continue
            if not data:
                raise ConnectionError("the node closed the connection")
            self._reader.feed(data)
        return reply


class _Sent:
    """How much of a command the kernel took."""

    def __init__(self, size: int) -> None:
        self.missing = size

    @property
    def whole(self) -> bool:
        return self.missing == 0


def result_of(replies: list[object]) -> Result:
    """What the replies to an attempt say.

    Args:
      replies: one, or those to MULTI, to each of its commands, and to EXEC.
    """
    *queued, last = replies
    if queued and queued[0] != b"OK" and not all(isinstance(r, ErrorReply) for r in replies):
        return Result("unknown", None, f"MULTI was answered with {queued[0]!r}", lost=True)
    if isinstance(last, ErrorReply):
        if says_unknown(last):
            return Result("unknown", None, last.text)
        if queued or last.text.encode() not in STATE_ERRORS:
            return Result("refused", None, last.text)
    return Result("answered", _output(last))


def _output(reply: object) -> Any:
    if isinstance(reply, ErrorReply):
        return Error(reply.text.encode())
    if isinstance(reply, list):
        return tuple(map(_output, reply))
    return reply
