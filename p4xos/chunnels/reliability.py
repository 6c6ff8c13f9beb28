"""`reliable()`: messages in order, exactly once, over what may lose, double or reorder them.

`reliable(ordered=False)` does without the order, so that each message may go its own way.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

import trio

from p4xos.chunnels.connection import RECEIVE_MANY, Messages
from p4xos.chunnels.implementations import Context, Implementation, Side, implementation
from p4xos.chunnels.singly import Singly
from p4xos.chunnels.stack import Chunnel, layer
from p4xos.chunnels.window import Window

RELIABLE = "reliable"
SINGLY = "singly-1"
"""The format of reliable messages that need nothing of one another."""
FLUSH_S = 1.5
"""How long closing waits until all has arrived."""


def reliable(*, ordered: bool = True) -> Chunnel[bytes, bytes]:
    """In order and exactly once; left out where what is below does that already.

    Args:
      ordered: False where any order will do: then messages may go to several servers behind one
        address, as a sharding program in the kernel gives them (docs/chunnels.md).
    """
    found: Chunnel[bytes, bytes] = layer(RELIABLE)
    return found.require(order="fifo") if ordered else found


class Machine(Protocol):
    """What `Reliable` runs: `Window` or `Singly`."""

    counters: dict[str, int]
    finished: bool
    failure: str | None
    unread: deque[bytes]

    @property
    def full(self) -> bool:
        """Whether who writes should wait."""
        ...

    @property
    def idle(self) -> bool:
        """Whether all that was written has arrived."""
        ...

    def write(self, messages: Iterable[bytes]) -> None:
        """Messages to send; ValueError where one is too long."""
        ...

    def finish(self) -> None:
        """Nothing more will be written."""
        ...

    def transmit(self, now: float) -> list[bytes]:
        """Datagrams to send now."""
        ...

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        ...

    def tick(self, now: float) -> None:
        """Notices what did not arrive in time; then `transmit`."""
        ...

    def receive_untrusted(self, datagram: bytes, now: float) -> None:
        """A datagram of the other end; never raises."""
        ...

    def took(self, messages: Sequence[bytes]) -> bool:
        """These were read; True when `transmit` should tell that there is room."""
        ...


class Reliable(Messages[bytes]):
    """Runs a `Machine` over datagrams."""

    def __init__(self, below: Messages[bytes], machine: Machine) -> None:
        """Needs `run_receiver` and `run_timer` beside it."""
        self.window = machine
        self._below = below
        self._arrived = trio.Event()
        self._moved = trio.Event()  # something was acknowledged
        self._kick = trio.Event()  # the timer must look again
        self._sleeps_until = float("inf")
        self._ended: Exception | None = None  # what is below has
        self._closed = False

    async def send_many(self, values: Sequence[bytes]) -> None:
        """As Messages."""
        await trio.lowlevel.checkpoint()
        while self.window.full:
            self._check()
            await self._moved.wait()
        self._check()
        self.window.write(values)
        await self._transmit()

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        """As Messages."""
        await trio.lowlevel.checkpoint()
        unread = self.window.unread
        while not unread:
            if self._closed:
                raise trio.ClosedResourceError("this connection was closed here")
            if self.window.finished:
                raise trio.EndOfChannel
            self._check()
            await self._arrived.wait()
        found = [unread.popleft() for _ in range(min(limit, len(unread)))]
        if self.window.took(found):
            await self._transmit()
        return found

    def _check(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this connection was closed here")
        if self.window.failure is not None:
            raise trio.BrokenResourceError(self.window.failure)
        if self._ended is not None:
            told = str(self._ended) or "the other end has closed before all had arrived"
            raise trio.BrokenResourceError(told) from self._ended

    async def _transmit(self) -> None:
        now = trio.current_time()
        datagrams = self.window.transmit(now)
        deadline = self.window.deadline()
        if deadline is not None and deadline < self._sleeps_until:
            self._kick.set()
        if datagrams:
            try:
                await self._below.send_many(datagrams)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                self._end(error)

    def _end(self, error: Exception) -> None:
        self._ended = self._ended or error
        self._tell()
        self._arrived.set()

    def _tell(self) -> None:
        self._moved.set()
        self._moved = trio.Event()

    async def run_receiver(self) -> None:
        """Takes what arrives, until that has ended."""
        window = self.window
        try:
            while self._ended is None and window.failure is None:
                datagrams = await self._below.receive_many()
                now = trio.current_time()
                for datagram in datagrams:
                    window.receive_untrusted(datagram, now)
                if window.unread or window.finished:
                    self._arrived.set()
                    self._arrived = trio.Event()
                await self._transmit()
                self._tell()
        except (trio.BrokenResourceError, trio.ClosedResourceError, trio.EndOfChannel) as error:
            self._end(error)
        finally:
            # Cancelled or not: nobody takes anything any more, so nobody need wait for it.
            self._end(trio.ClosedResourceError("this connection was closed here"))

    async def run_timer(self) -> None:
        """Sends again what did not arrive, until the connection fails."""
        while self.window.failure is None and self._ended is None:
            deadline = self.window.deadline()
            self._sleeps_until = float("inf") if deadline is None else deadline
            self._kick = trio.Event()
            with trio.move_on_at(self._sleeps_until):
                await self._kick.wait()
            self.window.tick(trio.current_time())
            await self._transmit()
        self._tell()
        self._arrived.set()

    async def aclose(self) -> None:
        """As Messages; waits a little until all has arrived."""
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        self._closed = True
        self._arrived.set()
        if self._ended is None and self.window.failure is None:
            self.window.finish()
            with trio.move_on_after(FLUSH_S):
                await self._transmit()
                while not self.window.idle and self._ended is None:
                    await self._moved.wait()
        await self._below.aclose()


@implementation(
    RELIABLE, "window", removable=True,
    provides={
        "order": "fifo", "loss": "none", "duplicates": "exactly-once", "format": "window-1",
    },
)  # fmt: skip
@asynccontextmanager
async def window(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
    """A sliding window with selective acknowledgements."""
    yield _started(Reliable(below, Window()), context)


@implementation(
    RELIABLE, "singly", removable=True, priority=-10,
    provides={"order": "none", "loss": "none", "duplicates": "exactly-once", "format": SINGLY},
)  # fmt: skip
@asynccontextmanager
async def singly(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
    """Each message acknowledged by itself, in any order."""
    life = time.time_ns()
    machine = Singly(context.carrier.origin, life, client=context.side is Side.CLIENT)
    yield _started(Reliable(below, machine), context)


def _started(running: Reliable, context: Context) -> Reliable:
    context.nursery.start_soon(running.run_receiver)
    context.nursery.start_soon(running.run_timer)
    return running


IMPLEMENTATIONS: list[Implementation] = [window, singly]
