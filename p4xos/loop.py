"""One wait for all the roles of a process.

Waking a task costs as much as a role's whole step on a small batch, so the roles of a process share
one: it waits for all their sockets at once (an epoll descriptor is itself readable), then turns
until nothing is left to do. What one role of the process sends to another does not leave it: it
goes into the other's inbox and is acted on in the same turn, as if it had come by the shortest
network there is. Order and rules are those of the driver: persisted, then sent, near or far.

An application may submit from outside a turn. The other roles of the process act on it at once; its
own replica waits for the loop's next turn, so that an application is never called back from inside
its call.
"""

from __future__ import annotations

import select
from collections import deque
from collections.abc import Callable

import trio

from p4xos.driver import Driver
from p4xos.effects import To
from p4xos.net import Address
from p4xos.wire import Rows

TURNS_S = 0.005
"""How long turns may follow each other before other tasks of the process get theirs."""
PATIENCE_S = 0.001
"""How long a process of roles alone waits for the next turn by itself: going to sleep and waking
up by way of the event loop costs more than a small batch. Where an application's clients wait it
is 0."""
ROUNDS_MAX = 256
"""Drivers served in one turn."""
LINGER_S = 0.001
"""How long a replica's inbox may wait after a submission from outside a turn: in it is the vote of
this process' acceptor, which decides nothing before others' votes come, and they wake the loop."""


class Loop:
    """Turns the drivers of one process."""

    def __init__(
        self, *, linger_s: float = LINGER_S, patience_s: float = 0.0,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """Without drivers; the caller closes the loop and them.

        Args:
          linger_s: LINGER_S, or 0 where the vote of this process' acceptor is a majority.
          patience_s: PATIENCE_S, or 0 where other tasks of the process must not wait so long.
          clock: seconds, monotonic; trio's own, since the loop sleeps by it.
        """
        self._linger_s = linger_s
        self._patience_s = patience_s
        self._clock = clock
        self._drivers: dict[int, Driver] = {}  # by descriptor
        self._local: dict[Address, Driver] = {}
        self._routes: dict[To, tuple[list[Driver], list[Address]]] = {}
        self._ready: deque[Driver] = deque()  # each at most once: see `Driver.waiting`
        self._epoll = select.epoll()
        self._turning = False
        self._behind = False  # the last turn ended at its bound, not for want of work
        self._sleep: trio.CancelScope | None = None
        self._failure: BaseException | None = None  # nothing is acted on or sent any more

    def add(self, driver: Driver) -> None:
        """Takes a driver in; before anything runs."""
        descriptor = driver.network.fileno()
        self._drivers[descriptor] = driver
        self._local[driver.address] = driver
        self._routes.clear()
        self._epoll.register(descriptor, select.EPOLLIN)
        driver.attach(self)

    def close(self) -> None:
        """Gives the descriptor back; the drivers are their owner's to close."""
        self._epoll.close()

    async def run(self) -> None:
        """Until cancelled; an error of a role or its storage ends it."""
        self._turns()
        while True:
            with trio.CancelScope(deadline=self._wake_at()) as self._sleep:
                await trio.lowlevel.wait_readable(self._epoll.fileno())
            self._sleep = None
            if self._failure is not None:
                raise self._failure
            self._turns()

    def _turns(self) -> None:
        """A turn, and those that follow upon it where nobody else waits for the process."""
        self._turn(self._epoll.poll(0))
        if self._patience_s:
            until = self._clock() + TURNS_S
            while not self._ready and self._clock() < until:
                events = self._epoll.poll(self._patience_s)
                if not events:
                    return
                self._turn(events)

    def _turn(self, events: list[tuple[int, int]]) -> None:
        """Everything that has arrived, is due, or follows from it, bounded."""
        self._turning = True
        try:
            now = self._clock()
            for descriptor, _ in events:
                driver = self._drivers[descriptor]
                driver.readable = True
                self.make_ready(driver)
            for driver in self._drivers.values():
                if driver.due(now):
                    self.make_ready(driver)
            for _ in range(ROUNDS_MAX):
                if not self._ready:
                    break
                self._pump(self._ready.popleft())
            self._behind = bool(self._ready)
        finally:
            self._turning = False

    def _pump(self, driver: Driver) -> None:
        driver.waiting = False
        try:
            driver.pump(self._clock())
        except BaseException as error:
            self.fail(error)
            raise

    def fail(self, error: BaseException) -> None:
        """A role or its storage failed, maybe inside a call of somebody who takes errors.

        An acceptor may now hold votes that are not durable, so it must never answer again, whoever
        caught the error: nothing is acted on or sent from here on, and `run` raises it too.
        """
        if self._failure is None:
            self._failure = error
        if self._sleep is not None:
            self._sleep.deadline = float("-inf")

    def make_ready(self, driver: Driver) -> None:
        """The driver has something to do."""
        if not driver.waiting:
            driver.waiting = True
            self._ready.append(driver)

    def send(self, driver: Driver, to: To, rows: Rows) -> None:
        """Sends to those far away, then to those in this process."""
        if self._failure is not None:
            return
        route = self._routes.get(to)
        if route is None:
            addresses = driver.directory.addresses(to)
            near = [self._local[address] for address in addresses if address in self._local]
            far = [address for address in addresses if address not in self._local]
            route = self._routes[to] = (near, far)
        near, far = route
        if far:
            driver.network.send(rows, far)
        for receiver in near:
            # A copy: roles rewrite rows in place, and a proposer keeps its own for a retry.
            receiver.inbox.append(rows.copy())
            self.make_ready(receiver)

    def submitted(self) -> None:
        """Something was performed from outside: does what follows, and mends the alarm clock."""
        if self._turning or self._failure is not None:
            return
        kept: list[Driver] = []
        while self._ready:
            driver = self._ready.popleft()
            if driver.calls_back:
                kept.append(driver)
            else:
                self._pump(driver)
        self._ready.extend(kept)
        if self._sleep is not None:
            wake_at = self._wake_at()
            if wake_at < self._sleep.deadline:
                self._sleep.deadline = wake_at

    def _wake_at(self) -> float:
        times = [driver.role.deadline() for driver in self._drivers.values()]
        if self._ready:
            times.append(self._clock() + (0.0 if self._behind else self._linger_s))
        return min((time for time in times if time is not None), default=float("inf"))
