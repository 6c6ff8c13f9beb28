"""One connection to a node, shared by many tasks: requests in one order, replies in the same.

RESP has no request numbers: the n-th reply belongs to the n-th command. So nothing that was sent is
ever taken out of the order. A task that stops waiting leaves its group of commands where it is, and
its replies are dropped when they come; what has not left yet is withdrawn, and never sent.

How much the kernel took is counted to the byte. A command whose last byte it did not take cannot
have been run, since a node runs whole commands only: that is what makes a retry safe.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Sequence
from itertools import accumulate

import hiredis
import trio

from kvstore.client.errors import ErrorReply
from kvstore.tls import TlsSocket
from p4xos.tables import Address

SEND_BYTES = 256 * 1024
"""Requests joined for one call of the kernel; what is not among them can still be withdrawn."""
RECEIVE_BYTES = 256 * 1024
QUEUED_BYTES_MAX = 4 << 20
"""Requests that the node does not take; further ones wait."""

_NOTHING = object()


class Group:
    """Commands that stand next to one another on a connection, and the replies so far."""

    __slots__ = (
        "_ends", "_task", "abandoned", "begin", "count", "data", "missing", "reads", "replies",
        "settled", "withdrawn",
    )  # fmt: skip

    def __init__(self, commands: Sequence[bytes], *, reads: bool) -> None:
        """Posted by `Link.post`.

        Args:
          commands: packed, at least one.
          reads: none of them changes anything.
        """
        self.data = commands[0] if len(commands) == 1 else b"".join(commands)
        self._ends = [len(self.data)] if len(commands) == 1 else [*accumulate(map(len, commands))]
        self.count = self.missing = len(commands)
        self.reads = reads
        self.replies: list[object] = []
        """Those that came while somebody waited."""
        self.begin = -1
        """Where its bytes begin in all that this connection sends; -1: not among them yet."""
        self.settled = False
        """No reply will be added."""
        self.abandoned = False
        """Nobody waits for the replies that are still to come."""
        self.withdrawn = False
        """It was taken back before anything of it was sent."""
        self._task: trio.lowlevel.Task | None = None

    def whole_commands(self, count: int) -> int:
        """How many of its commands lie within its first `count` bytes."""
        return sum(end <= count for end in self._ends)

    async def wait(self) -> None:
        """Returns when it is settled; for one task."""
        if self.settled:
            await trio.lowlevel.checkpoint()
            return
        self._task = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._task = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)

    def settle(self) -> None:
        """Ends the wait."""
        self.settled = True
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None


class Link:
    """A connection behind its greeting; `run` carries what is posted, until it is lost."""

    def __init__(
        self, sock: socket.socket | TlsSocket, address: Address, patience_s: float
    ) -> None:
        """Takes over a connected, non-blocking socket.

        Args:
          sock: closed by `run`.
          address: the node's.
          patience_s: how long the node may be silent while it owes a reply.
        """
        self.address = address
        self.lost: str | None = None
        """Why the connection ended; None while it lasts."""
        self.retired = False
        """Nothing more is posted here."""
        self.outstanding = 0
        """Commands posted and not answered."""
        self._socket = sock
        self._patience_s = patience_s
        self._queue: deque[Group] = deque()
        self._queued_bytes = 0
        self._awaited: deque[Group] = deque()
        """Groups that have left, or are about to, in the order of their replies."""
        self._passed = 0
        """Bytes of all groups that were ever in `_awaited`, ..."""
        self._taken = 0
        """... and how many of them the kernel took."""
        self._heard_at = 0.0
        """When a reply came last, or when the first one of now was asked for."""
        self._work = trio.Event()
        self._room = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()

    @property
    def usable(self) -> bool:
        """Whether new requests may go here."""
        return self.lost is None and not self.retired

    def post(self, group: Group) -> None:
        """Sends a group behind those posted before; settles it at once when that cannot be."""
        if not self.usable:
            group.withdrawn = True
            group.settle()
            return
        if not self.outstanding:
            self._heard_at = trio.current_time()
        self.outstanding += group.count
        self._queued_bytes += len(group.data)
        self._queue.append(group)
        self._work.set()

    def full(self, window: int) -> bool:
        """Whether too much is under way, or waits for the node to take it."""
        return self.outstanding >= window or self._queued_bytes > QUEUED_BYTES_MAX

    async def wait_room(self, window: int) -> None:
        """Waits until the bounds let another group through, or the connection is not usable."""
        while self.full(window) and self.usable:
            await self._room.park()

    def leave(self, group: Group) -> int:
        """Stops waiting for a group.

        Returns:
          How many of its commands the node may have run, or may run later.
        """
        if group.withdrawn:
            return 0
        if group.begin < 0:
            group.withdrawn = True
            self.outstanding -= group.count
            self._queued_bytes -= len(group.data)
            group.data = b""  # the group itself stays in the queue until its turn
            self._room.unpark(count=group.count)
            return 0
        group.abandoned = True
        if self.lost is not None:
            return group.whole_commands(self._taken - group.begin)
        self._end_if_useless()
        return group.count  # what the kernel did not take yet, it may take still

    def retire(self) -> None:
        """Lasts until nobody hopes for a reply of it, and takes nothing more."""
        self.retired = True
        self._room.unpark_all()
        self._end_if_useless()

    def close(self, reason: str) -> None:
        """Ends the connection; `run` returns."""
        self._lose(reason)
        self._scope.cancel()

    async def run(self) -> None:
        """Carries requests and replies until the connection ends, and closes it."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._send)
                    nursery.start_soon(self._receive_untrusted)
                    nursery.start_soon(self._watch)
        finally:
            self._lose("the client was closed")
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()

    async def _send(self) -> None:
        while True:
            await self._work.wait()
            data = self._next_bytes()
            while data:
                try:
                    sent = self._socket.send(data)
                except BlockingIOError:
                    await trio.lowlevel.wait_writable(self._socket)
                    continue
                except OSError as error:
                    self.close(_in_words(error))
                    return
                self._taken += sent
                data = data[sent:]
            await trio.lowlevel.checkpoint()

    def _next_bytes(self) -> memoryview:
        """Takes groups off the queue and puts them among those whose replies are awaited."""
        parts: list[bytes] = []
        size = 0
        while self._queue and size < SEND_BYTES:
            group = self._queue.popleft()
            if group.withdrawn:
                continue
            group.begin = self._passed
            self._passed += len(group.data)
            size += len(group.data)
            parts.append(group.data)
            self._awaited.append(group)
        self._queued_bytes -= size
        if not self._queue:
            self._work = trio.Event()
        return memoryview(parts[0] if len(parts) == 1 else b"".join(parts))

    async def _receive_untrusted(self) -> None:
        reader = hiredis.Reader(replyError=ErrorReply, notEnoughData=_NOTHING)
        while True:
            await trio.lowlevel.wait_readable(self._socket)
            try:
                data = self._socket.recv(RECEIVE_BYTES)
            except BlockingIOError:
                continue
            except OSError as error:
                self.close(_in_words(error))
                return
            if not data:
                self.close("the node closed the connection")
                return
            self._heard_at = trio.current_time()
            try:
                reader.feed(data)
                answered = self._hand_out(reader)
            except hiredis.ProtocolError as error:
                self.close(f"this is no RESP: {error}")
                return
            if answered is None:
                self.close("it sent a reply that nobody asked for")
                return
            self._room.unpark(count=answered)
            self._end_if_useless()

    def _hand_out(self, reader: hiredis.Reader) -> int | None:
        """Gives replies to their groups; how many they were, None when one belongs to none."""
        answered = 0
        awaited = self._awaited
        while (reply := reader.gets()) is not _NOTHING:
            if type(reply) is hiredis.PushNotification:
                continue  # out of band: no command's reply
            if not awaited:
                return None
            group = awaited[0]
            group.missing -= 1  # its place counts even when nobody wants what stands there
            if not group.abandoned:
                group.replies.append(reply)
            answered += 1
            if not group.missing:
                awaited.popleft()
                if not group.settled:
                    group.settle()
        self.outstanding -= answered
        return answered

    async def _watch(self) -> None:
        """Tells a node that has stopped to answer from one that has nothing to do."""
        while not self.outstanding or trio.current_time() - self._heard_at <= self._patience_s:
            await trio.sleep(self._patience_s / 4)
        # Whoever can go elsewhere is let go; writes that have left wait on for their replies.
        for group in list(self._queue):
            if not group.withdrawn:
                self.leave(group)
                group.settle()
        for group in self._awaited:
            if group.reads and not group.abandoned:
                group.abandoned = True
                group.settle()
        self.retire()

    def _end_if_useless(self) -> None:
        if self.retired and all(g.abandoned or g.withdrawn for g in (*self._awaited, *self._queue)):
            self.close("it was left for another node")

    def _lose(self, reason: str) -> None:
        if self.lost is not None:
            return
        self.lost = reason
        for group in self._queue:
            if not group.withdrawn:
                group.withdrawn = True
                group.settle()
        for group in self._awaited:
            if not group.settled:
                group.settle()
        self._queue.clear()
        self._awaited.clear()
        self.outstanding = self._queued_bytes = 0
        self._room.unpark_all()


def _in_words(error: OSError) -> str:
    return os.strerror(error.errno).lower() if error.errno else str(error)
