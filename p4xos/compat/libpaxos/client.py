"""Submitting and learning at the ports of a `paxos.conf`, for programs in Python and trio.

Both connect to whichever address answers, the last that did first, and again when a connection is
lost. What got no answer is sent again under its number, so it counts once; a learner goes on behind
what it was told. `programs` gives them the names of libpaxos' C interface.
"""

from __future__ import annotations

import secrets
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from p4xos.compat.libpaxos.conf import PaxosConf
from p4xos.dialing import ConnectionLost, Dialed, Refused, Unreachable, dial
from p4xos.errors import BadPacket, Overloaded, SessionLost
from p4xos.framing import Frame, FrameStream, integer_untrusted
from p4xos.packing import (
    Deliveries,
    pack_payloads,
    unpack_delivered_untrusted,
    unpack_instances_untrusted,
)
from p4xos.remote_errors import raise_error_untrusted
from p4xos.tables import Address

RETRY_S = 0.1
"""How long to wait until the next address is tried."""
FRAME_VALUES = 1024
FRAME_BYTES = 256 << 10
"""Of values that share one frame."""
FRAMES_UNANSWERED = 256
WAITING_BYTES = 64 << 20
"""Of values that are submitted and not yet known to be in the log."""
_LOST = (
    trio.BrokenResourceError, trio.ClosedResourceError, ConnectionLost, Unreachable, BadPacket,
    OSError,
)  # fmt: skip


def addresses_of(conf: PaxosConf) -> list[Address]:
    """All addresses of a file, acceptors first, each once."""
    return list(dict.fromkeys((*conf.acceptors, *conf.proposers)))


@asynccontextmanager
async def connected(addresses: deque[Address]) -> AsyncIterator[FrameStream]:
    """A connection to one of them; those that do not answer move to the end.

    Raises:
      Refused: who answered does not want this client at all.
    """
    dialed: Dialed | None = None
    while dialed is None:
        try:
            dialed = await dial(addresses[0], 0, None)
        except _LOST:
            addresses.rotate(-1)
            await trio.sleep(RETRY_S)
    try:
        yield dialed.frames
    finally:
        await dialed.frames.aclose()


class Submission:
    """A value on its way."""

    def __init__(self, value: bytes) -> None:
        self.value = value
        self.iid: int | None = None
        """Its instance, once it is in the log; None where the answer was lost once."""
        self.error: Refused | None = None
        self.settled = trio.Event()

    async def wait(self) -> int | None:
        """The instance; or what the gateway says against the value is raised."""
        await self.settled.wait()
        if self.error is not None:
            raise self.error
        return self.iid


class Submitting:
    """Values into the log: `submit` at any time, while `run` runs."""

    def __init__(self, conf: PaxosConf) -> None:
        self._addresses = deque(addresses_of(conf))
        self._waiting: deque[Submission] = deque()  # in no frame yet
        self._frames: dict[int, list[Submission]] = {}  # unanswered, by number
        self._client = secrets.randbits(63) + 1
        self._number = 1
        self._forgotten = False  # by the log: its next name waits until all its frames are answered
        self._bytes = 0
        self._more = trio.Event()

    def submit(self, value: bytes) -> Submission:
        """Takes a value.

        Raises:
          Overloaded: more waits than WAITING_BYTES; nothing was taken.
        """
        if self._bytes + len(value) > WAITING_BYTES:
            raise Overloaded(len(self._waiting), len(self._waiting))
        submission = Submission(bytes(value))
        self._waiting.append(submission)
        self._bytes += len(value)
        self._more.set()
        return submission

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            async with connected(self._addresses) as frames:
                for number in list(self._frames):
                    self._post(frames, number)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, frames, nursery.cancel_scope)
                    nursery.start_soon(self._write, frames, nursery.cancel_scope)

    async def _write(self, frames: FrameStream, connection: trio.CancelScope) -> None:
        with suppress(*_LOST):
            while True:
                while self._waiting and self._may_frame():
                    self._post(frames, self._next_frame())
                await frames.flush()
                self._more = trio.Event()
                await self._more.wait()
        connection.cancel()

    def _may_frame(self) -> bool:
        if self._forgotten and not self._frames:
            self._client, self._number = secrets.randbits(63) + 1, 1
            self._forgotten = False
        return not self._forgotten and len(self._frames) < FRAMES_UNANSWERED

    def _next_frame(self) -> int:
        some, size = [self._waiting.popleft()], 0
        while self._waiting and len(some) < FRAME_VALUES:
            size += len(some[-1].value)
            if size + len(self._waiting[0].value) > FRAME_BYTES:
                break
            some.append(self._waiting.popleft())
        number, self._number = self._number, self._number + 1
        self._frames[number] = some
        return number

    def _post(self, frames: FrameStream, number: int) -> None:
        head = {"ask": "submit", "id": number, "client": self._client, "number": number}
        frames.post(head, pack_payloads([one.value for one in self._frames[number]]))

    async def _read(self, frames: FrameStream, connection: trio.CancelScope) -> None:
        with suppress(*_LOST):
            while (frame := await frames.receive_untrusted()) is not None:
                self._answered_untrusted(frame)
                self._more.set()
        connection.cancel()

    def _answered_untrusted(self, frame: Frame) -> None:
        number = integer_untrusted(frame.head, "id")
        some = self._frames.get(number)
        if some is None:
            return
        try:
            raise_error_untrusted(frame.head)
        except SessionLost:
            # This frame does not count, and never will; the others have answers of their own to
            # come, so until then nothing goes out under another name.
            self._waiting.extendleft(reversed(self._frames.pop(number)))
            self._forgotten = True
            return
        except Refused as error:
            # Its number must not stay a hole: it goes out again with nothing in it.
            if not some:
                raise BadPacket(f"a frame without values is refused: {error}") from error
            self._frames[number] = []
            self._settle(some, None, error)
            raise ConnectionLost("the gateway", str(error)) from error
        del self._frames[number]
        iids = unpack_instances_untrusted(frame.body)
        self._settle(some, iids[0] if iids else None, None)

    def _settle(self, some: Sequence[Submission], first: int | None, error: Refused | None) -> None:
        for k, one in enumerate(some):
            one.iid = None if first is None else first + k
            one.error = error
            self._bytes -= len(one.value)
            one.settled.set()


class Learning:
    """What is delivered, from an instance on; one task reads at a time."""

    def __init__(self, conf: PaxosConf) -> None:
        self._addresses = deque(addresses_of(conf))
        self.next = 1 if conf.options.learner_catch_up else 0
        """The next instance; 0: whichever comes next."""
        self._trimmed: int | None = None
        self._frames: FrameStream | None = None

    async def batches(self) -> AsyncGenerator[Deliveries, None]:
        """(iid, value) in order, in lists, for ever.

        Raises:
          Trimmed: what comes next is no longer kept.
        """
        while True:
            async with connected(self._addresses) as self._frames:
                with suppress(*_LOST):
                    self._frames.post({"ask": "deliver", "first": self.next})
                    self._post_trim()
                    await self._frames.flush()
                    while (frame := await self._frames.receive_untrusted()) is not None:
                        raise_error_untrusted(frame.head)
                        if "next" not in frame.head:
                            continue  # the answer to a trim
                        delivered = unpack_delivered_untrusted(frame.body)
                        self.next = integer_untrusted(frame.head, "next")
                        if delivered:
                            yield delivered
                        await self._frames.flush()
            self._frames = None

    def trim(self, iid: int) -> None:
        """Says that all through an instance is put aside; goes out with what is read next."""
        self._trimmed = iid
        self._post_trim()

    def _post_trim(self) -> None:
        if self._trimmed is not None and self._frames is not None:
            self._frames.post({"ask": "trim", "id": 0, "instance": self._trimmed})
