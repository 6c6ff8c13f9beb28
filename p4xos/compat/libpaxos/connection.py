"""One connection at a port of `paxos.conf`: what has arrived, what it is told, what it holds.

A learner is told of values in order: a `Stream` has a cursor, and what a socket does not take is
not made. One that keeps up shares the bytes that are made for all (`gateway`); one that does not is
told from the store at its own pace, and so costs a bounded amount however slow it is.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING, Literal

from p4xos.compat.libpaxos.messages import IID_MAX
from p4xos.compat.libpaxos.packs import Values, joined

if TYPE_CHECKING:
    from p4xos.compat.libpaxos.store import PackStore, Taken

RECEIVE_BYTES = 256 << 10
OUTPUT_BYTES = 256 << 10
"""What a socket has not taken and a connection may hold; its learner then falls behind."""
VALUES_UNDER_WAY = 16_384
REQUESTS_UNDER_WAY = 1024
"""Of one connection, not in the log yet; it is not read from beyond that."""
_BUFFERS = 64

Dialect = Literal["libpaxos", "frames"]


class Stream:
    """How far a learner has been told."""

    __slots__ = ("backfill", "cursor", "encode", "encode_own", "group", "last", "live", "start")

    def __init__(
        self, group: object, cursor: int, encode: Callable[[Values], bytes], last: int,
        encode_own: Callable[[Values], bytes] | None = None,
    ) -> None:
        """Begins somewhere.

        Args:
          group: streams of one group get the same bytes.
          cursor: the first iid to tell.
          encode: makes bytes of values.
          last: the last iid that can be told.
          encode_own: the same of values that came through this gateway; as `encode` if None.
        """  # fmt: skip
        self.group = group
        self.encode = encode
        self.encode_own = encode_own or encode
        self.last = last
        self.start = cursor
        """All from here to `cursor` has been told on this connection."""
        self.cursor = cursor
        self.backfill: tuple[int, int] | None = None
        """What is told before it goes on at `cursor`: from here, to `start`."""
        self.live = False
        """It stands at the end, and is told together with all others that do."""

    def next_bytes(self, store: PackStore, bytes_max: int) -> bytes:
        """What comes next, as bytes; none at the end.

        Raises:
          Trimmed: it is no longer kept.
        """
        first, stop = self.backfill or (self.cursor, self.last + 1)
        if first >= stop:
            return b""
        found = store.values(first, bytes_max)
        if not found:
            return b""
        values = joined(found).before(stop)
        if self.backfill is None:
            self.cursor = values.next
        elif values.next < stop:
            self.backfill = values.next, stop
        else:
            self.backfill = None
        return self.encode(values)

    def go_back(self, first: int) -> None:
        """Tells what lies before its start as well, from an iid on, in order."""
        self.backfill = first, self.start
        self.start = first


class Connection:
    """A peer, whichever of both dialects it speaks; see `gateway`."""

    __slots__ = (
        "acceptor", "blocked", "closed", "dialect", "greeted", "host", "input", "mask", "out",
        "out_bytes", "requests", "settle", "sock", "stream", "taken_at", "trimmed", "under_way",
    )  # fmt: skip

    def __init__(
        self, sock: socket.socket, host: str, acceptor: int | None, now: float,
        settle: Callable[[Connection, int | None, Taken], None],
    ) -> None:
        """Just accepted.

        Args:
          sock: not blocking; owned.
          host: where it comes from.
          acceptor: as which acceptor this port speaks; None: it is a proposer's alone.
          now: seconds.
          settle: told of what this connection submitted.
        """  # fmt: skip
        self.sock = sock
        self.host = host
        self.acceptor = acceptor
        self.settle = settle
        self.dialect: Dialect | None = None
        """None until its first byte, or until it has been silent for long enough."""
        self.greeted = False
        """It said hello, where its dialect has one."""
        self.input = b""
        """The beginning of a message."""
        self.out: deque[bytes | memoryview] = deque()
        self.out_bytes = 0
        self.stream: Stream | None = None
        self.trimmed: int | None = None
        """What its learner has put aside: its hold begins behind it."""
        self.under_way = 0
        """Values, or requests, not in the log yet."""
        self.blocked = False
        """Not read from, because the log takes no more."""
        self.taken_at = now
        """When it last took something, or had taken all."""
        self.mask = 0
        self.closed = False

    def settled(self, count: int, request: int | None, taken: Taken) -> None:
        """As `submitting.Owner`."""
        self.under_way -= count
        self.settle(self, request, taken)

    @property
    def busy(self) -> bool:
        """Whether so much of it is under way that it should wait."""
        most = REQUESTS_UNDER_WAY if self.dialect == "frames" else VALUES_UNDER_WAY
        return self.under_way >= most

    @property
    def choked(self) -> bool:
        """Whether it takes too little of what it is told."""
        return self.out_bytes > OUTPUT_BYTES

    def tell(self, data: bytes) -> None:
        """Has bytes sent with the next `send`."""
        self.out.append(data)
        self.out_bytes += len(data)

    def send(self, now: float) -> bool:
        """Sends what the socket takes; false: the peer has gone."""
        out = self.out
        while out:
            try:
                if len(out) == 1:
                    sent = self.sock.send(out[0])
                else:
                    sent = self.sock.sendmsg(islice(out, _BUFFERS))
            except BlockingIOError:
                return True
            except OSError:
                return False
            self.taken_at = now
            self.out_bytes -= sent
            while out and sent >= len(out[0]):
                sent -= len(out.popleft())
            if sent:
                out[0] = memoryview(out[0])[sent:]
                return True
        self.taken_at = now
        return True


LIBPAXOS_LAST = IID_MAX
"""The last iid that libpaxos' messages hold."""
FRAMES_LAST = 2**64 - 1
