"""Connections over UDP: many on a server's one socket, told apart by their ids; one a client's.

A message is a datagram. It may be lost, or come twice or late: `reliable()` mends that. Both ends
say that they are there when they have nothing to say, and notice when the other one is not.
"""

from __future__ import annotations

import errno
import logging
import socket
from collections import deque
from collections.abc import Callable, Sequence

import trio

from p4xos.chunnels import messages
from p4xos.chunnels.connection import RECEIVE_MANY, Messages
from p4xos.chunnels.errors import Denied
from p4xos.chunnels.messages import ID_BYTES
from p4xos.chunnels.negotiation import FIRST_PAUSE_S, LONGEST_PAUSE_S

log = logging.getLogger(__name__)

Address = tuple[str, int]

PING_S = 5.0
"""An end that has sent nothing for so long says that it is there."""
LOST_S = 20.0
"""An end of which nothing is heard for so long is gone."""
INBOX_MESSAGES, INBOX_BYTES = 8192, 4 << 20
"""Of a connection, not yet taken by its layers; what comes then is dropped, and counted."""
DRAIN = 256
"""Datagrams of one turn."""
SOCKET_BYTES = 4 << 20
"""Asked of the kernel for each direction; it gives what it may."""
MESSAGE_BYTES_MAX = messages.DATAGRAM_BYTES_MAX - 1 - ID_BYTES
_HEAD_BYTES = 1 + ID_BYTES


def open_socket(address: Address) -> socket.socket:
    """A UDP socket that never blocks, bound.

    Raises:
      OSError: the address is in use, or not one of this machine.
    """
    opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        opened.bind(address)
        opened.setblocking(False)
    except OSError as error:  # which does not tell of what address
        opened.close()
        where = f"{address[0]}:{address[1]} (UDP)"
        raise OSError(error.errno, error.strerror or str(error), where) from None
    return opened


Tap = Callable[[bytes, bytes, Address], bool]
"""Gets the kind of a datagram, the whole of it, and whose it is; True: that was all."""


class Datagrams(Messages[bytes]):
    """One connection; its owner feeds what arrives."""

    def __init__(self, id: bytes, sock: socket.socket, address: Address | None) -> None:
        """Nothing is sent yet.

        Args:
          id: of the connection.
          sock: not blocking; with an address, others use it too.
          address: of the other end; None: the socket is connected to it.
        """
        self.id = id
        self.dropped = 0
        self.lost: str | None = None
        self.ended = False
        self.closed = False
        self.begun = False
        """At a server: whether its ticket has made it."""
        self.via: Address | None = None
        """At a shard: the server that has introduced the client, and all but messages is for."""
        self.tap: Tap | None = None
        """At a server: sees what comes for this connection first, also from other addresses."""
        self.heard_at = self.sent_at = trio.current_time()
        self._socket = sock
        self._address = address
        self._data_head = messages.DATA + id
        self._inbox: deque[bytes] = deque()
        self._inbox_bytes = 0
        self._more = trio.Event()

    # What arrives --------------------------------------------------------------------------------

    def take_untrusted(self, kind: bytes, data: bytes) -> None:
        """A datagram of this connection, in order of arrival; never raises."""
        self.heard_at = trio.current_time()
        if kind == messages.DATA:
            if len(self._inbox) >= INBOX_MESSAGES or self._inbox_bytes >= INBOX_BYTES:
                self.dropped += 1
                return
            self._inbox.append(data[_HEAD_BYTES:])
            self._inbox_bytes += len(data) - _HEAD_BYTES
            self._wake()
        elif kind == messages.CLOSE:
            self.end()
        elif kind == messages.PING:
            self.say(messages.PONG)

    def end(self, lost: str | None = None) -> None:
        """Nothing more will come: the other end has closed, or is lost."""
        self.ended = True
        self.lost = self.lost or lost
        self._wake()

    # Messages ------------------------------------------------------------------------------------

    async def send_many(self, values: Sequence[bytes]) -> None:
        """As Messages; a message is at most MESSAGE_BYTES_MAX long."""
        await trio.lowlevel.checkpoint()
        for value in values:
            self._check()
            if len(value) > MESSAGE_BYTES_MAX:
                raise ValueError(
                    f"a message has {len(value)} bytes and a datagram holds {MESSAGE_BYTES_MAX}; "
                    "put reliable() above, which divides them"
                )
            data = self._data_head + value
            while not self._send(data):
                await trio.lowlevel.wait_writable(self._socket)
                self._check()
        self.sent_at = trio.current_time()

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        """As Messages."""
        await trio.lowlevel.checkpoint()
        while not self._inbox:
            if self.closed:
                raise trio.ClosedResourceError("this connection was closed here")
            if self.lost is not None:
                raise trio.BrokenResourceError(self.lost)
            if self.ended:
                raise trio.EndOfChannel
            await self._wait()
        found = [self._inbox.popleft() for _ in range(min(limit, len(self._inbox)))]
        self._inbox_bytes -= sum(map(len, found))
        return found

    async def _wait(self) -> None:
        """Until something has arrived."""
        self._more = trio.Event()
        await self._more.wait()

    def _wake(self) -> None:
        """Whoever waits looks again."""
        self._more.set()

    async def aclose(self) -> None:
        """Tells the other end, which may not hear of it, and then notices by itself."""
        if not self.closed:
            if not self.ended:
                self.say(messages.CLOSE)
            self.closed = True
            self._wake()
        await trio.lowlevel.checkpoint()

    def _check(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError("this connection was closed here")
        if self.ended:
            raise trio.BrokenResourceError(self.lost or "the other end has closed the connection")

    def say(self, kind: bytes, rest: bytes = b"") -> None:
        """Something beside the messages; it is lost where the kernel does not take it now."""
        self.sent_at = trio.current_time()
        self._send(kind + self.id + rest, self.via)

    def _send(self, data: bytes, to: Address | None = None) -> bool:
        """Whether the kernel took it; what cannot be delivered is lost, as on the way."""
        try:
            if self._address is None:
                self._socket.send(data)
            else:
                self._socket.sendto(data, to or self._address)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno == errno.EMSGSIZE:
                raise ValueError(f"a message of {len(data)} bytes is too long for UDP") from None
            if error.errno == errno.EBADF:
                self.end("the socket is closed")
        return True

    def look(self, now: float) -> None:
        """Says that this end is there, and notices when the other one is not."""
        if now - self.heard_at > LOST_S:
            self.end(
                f"nothing was heard of the other end for {LOST_S:g} s; look whether it runs, then "
                "connect again"
            )
        elif now - self.sent_at >= PING_S and not self.ended:
            self.say(messages.PING)


class ClientDatagrams(Datagrams):
    """The only connection of its socket: whoever waits for messages reads them."""

    def __init__(self, id: bytes, sock: socket.socket, ticket: bytes) -> None:
        """Sends its ticket until the server has shown that it has it."""
        super().__init__(id, sock, None)
        self.denied: str | None = None
        self._ticket = ticket
        self._confirmed = False
        self._waiting: trio.CancelScope | None = None
        self._kinds = {
            messages.CONFIRMED, messages.DENIED, messages.DATA, messages.CLOSE, messages.PING,
            messages.PONG,
        }  # fmt: skip

    def confirm(self) -> None:
        """Sends the ticket."""
        self._send(messages.CONFIRM + self._ticket)

    async def run(self) -> None:
        """What an end owes beside its messages, until cancelled."""
        pause = FIRST_PAUSE_S
        while not self._confirmed and not self.ended and not self.closed:
            await trio.sleep(pause)
            self.drain()
            if not self._confirmed:
                self.confirm()
                pause = min(2 * pause, LONGEST_PAUSE_S)
        while not self.ended and not self.closed:
            await trio.sleep(PING_S / 2)
            self.drain()
            self.look(trio.current_time())

    async def wait_confirmed(self) -> None:
        """Until the server has the ticket; Denied when it does not take it."""
        while not self._confirmed:
            await self._wait()
        if self.denied is not None:
            raise Denied(self.denied)

    async def _wait(self) -> None:
        if not self.drain():
            # The other task of this connection may take what arrives, or give the other end up:
            # the socket alone would not tell.
            with trio.CancelScope() as self._waiting:
                await trio.lowlevel.wait_readable(self._socket)
            self._waiting = None
            self.drain()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()

    def drain(self) -> bool:
        """Takes what has arrived; False when that is nothing."""
        for taken in range(DRAIN):
            try:
                data = self._socket.recv(messages.DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return taken > 0
            except ConnectionRefusedError:
                continue  # nobody is there just now: the server may be starting again
            except OSError as error:
                self.end(f"the socket failed: {error}")
                return True
            kind = data[:1]
            if kind not in self._kinds or data[1:_HEAD_BYTES] != self.id:
                self.dropped += 1  # an answer to the offer that came late, or a stranger's
                continue
            if kind == messages.DENIED:
                self.denied = data[_HEAD_BYTES:].decode(errors="replace")
                self.end(str(Denied(self.denied)))
            self._confirmed = True
            self.take_untrusted(kind, data)
        return True

    async def aclose(self) -> None:
        """As Datagrams; the socket too."""
        await super().aclose()
        self._socket.close()


class ServerSocket:
    """A server's socket: offers and tickets go to its owner, the rest to the connections."""

    def __init__(self, sock: socket.socket) -> None:
        """Owns the socket."""
        self.address: Address = sock.getsockname()
        self.connections: dict[bytes, Datagrams] = {}
        self.counters = dict.fromkeys(
            ("datagrams", "unknown_connection", "foreign_address", "unknown_kind", "dropped",
             "bad_introductions"), 0,
        )  # fmt: skip
        self.on_offer: Callable[[bytes, Address], bytes | None] = lambda data, address: None
        self.on_confirm: Callable[[bytes, Address], bytes | None] = lambda data, address: None
        self.on_introduce: Callable[[bytes, Address], bytes | None] = lambda data, address: None
        self.was_closed: Callable[[bytes], bool] = lambda id: False
        self._socket = sock

    def open(self, id: bytes, address: Address) -> Datagrams:
        """A connection, from now on."""
        opened = self.connections[id] = Datagrams(id, self._socket, address)
        return opened

    def forget(self, id: bytes) -> None:
        """A connection has ended."""
        ended = self.connections.pop(id, None)
        if ended is not None:
            self.counters["dropped"] += ended.dropped

    async def run(self) -> None:
        """Takes what arrives, until cancelled."""
        looked_at = trio.current_time()
        while True:
            with trio.move_on_after(PING_S / 2):
                await trio.lowlevel.wait_readable(self._socket)
                self._drain()
                await trio.lowlevel.checkpoint()
            now = trio.current_time()
            if now - looked_at >= PING_S / 2:
                looked_at = now
                for connection in list(self.connections.values()):
                    connection.look(now)

    def _drain(self) -> None:
        for _ in range(DRAIN):
            try:
                data, address = self._socket.recvfrom(messages.DATAGRAM_BYTES_MAX + 1)
            except BlockingIOError:
                return
            except OSError as error:  # what came back for a datagram that nobody took
                log.debug("a datagram came back: %s", error)
                continue
            self._take_untrusted(data, address)

    def _take_untrusted(self, data: bytes, address: Address) -> None:
        """Any datagram of anybody; never raises."""
        counters = self.counters
        counters["datagrams"] += 1
        kind = data[:1]
        answer: bytes | None = None
        if kind == messages.OFFER:
            answer = self.on_offer(data, address)
        elif kind == messages.CONFIRM:
            answer = self.on_confirm(data[1:], address)
        elif kind == messages.INTRODUCE:
            answer = self.on_introduce(data[1:], address)
        else:
            connection = self.connections.get(data[1:_HEAD_BYTES])
            if connection is not None and connection.tap is not None:
                if connection.tap(kind, data, address):
                    return
            if kind not in (messages.DATA, messages.CLOSE, messages.PING, messages.PONG):
                counters["unknown_kind"] += 1
            elif connection is None:
                counters["unknown_connection"] += 1
                if kind != messages.CLOSE and self.was_closed(data[1:_HEAD_BYTES]):
                    # It was told so before, and that was lost: it need not wait for its time-out.
                    answer = messages.CLOSE + data[1:_HEAD_BYTES]
            elif address not in (connection._address, connection.via):
                counters["foreign_address"] += 1
            else:
                connection.take_untrusted(kind, data)
        if answer is not None:
            self.send(answer, address)

    def send(self, data: bytes, address: Address) -> None:
        """A datagram; it is lost where the kernel does not take it now."""
        try:
            self._socket.sendto(data, address)
        except OSError as error:
            log.debug("a datagram did not leave: %s", error)

    def close(self) -> None:
        """Ends the socket and all connections on it."""
        for connection in self.connections.values():
            connection.end("the server has ended")
        self._socket.close()
