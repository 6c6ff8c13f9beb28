"""One wait for all the roles of a process.

Waking a task costs as much as a role's whole step on a small batch, so the roles of a process share
one: it waits for all their sockets at once (an epoll descriptor is itself readable), then turns
until nothing is left to do. What one role of the process sends to another does not leave it: it
goes into the other's inbox and is acted on in the same turn, as if it had come by the shortest
network there is. Order and rules are those of the driver: persisted, then sent, near or far.

An application's clients are waited for in the same place, where it gives their descriptor
(`watch`): a request then finds the loop awake, and the loop the request's answers.

Where none of those clients waits for an answer, its replica's messages wait a little: what is
chosen has its majority without this replica, which has only to keep up.

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
"""How long the loop waits for the next turn by itself: going to sleep and waking up by way of the
event loop costs more than a small batch. It does not where it would keep an application waiting
whose clients it does not know."""
ROUNDS_MAX = 256
"""Drivers served in one turn."""
LINGER_S = 0.001
"""How long a replica's inbox may wait after a submission from outside a turn: in it is the vote of
this process' acceptor, which decides nothing before others' votes come, and they wake the loop."""

DEFER_S = 0.01
"""How long a replica's messages may wait where nobody waits for what they decide: votes of several
turns of the cluster then cost one step."""
DEFER_BYTES = 64 * 1024
DEFER_PART = 16
"""Taken at once after such a wait, and the next one is shorter: what a small socket buffer holds,
or this part of one that the kernel granted."""


class Loop:
    """Turns the drivers of one process."""

    def __init__(
        self, *, linger_s: float = LINGER_S,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """Without drivers; the caller closes the loop and them.

        Args:
          linger_s: LINGER_S, or 0 where the vote of this process' acceptor is a majority.
          clock: seconds, monotonic; trio's own, since the loop sleeps by it.
        """
        self._linger_s = linger_s
        self._clock = clock
        self._drivers: dict[int, Driver] = {}  # by descriptor
        self._watched: dict[int, Callable[[], None]] = {}  # by descriptor: called when it is ready
        self._local: dict[Address, Driver] = {}
        self._routes: dict[To, tuple[list[Driver], list[Address]]] = {}
        self._deferred: dict[Driver, float] = {}  # what has arrived waits until then
        self._ready: deque[Driver] = deque()  # each at most once: see `Driver.waiting`
        self._epoll = select.epoll()
        self._turning = False
        self._turned_at = float("-inf")  # when the last turn ended
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
        driver.defer_s = DEFER_S
        granted = driver.network.receive_buffer_bytes
        driver.defer_bytes = max(DEFER_BYTES, granted // DEFER_PART)

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """Calls an application between two turns, whenever its descriptor is readable."""
        self._watched[descriptor] = ready
        self._epoll.register(descriptor, select.EPOLLIN)

    def unwatch(self, descriptor: int) -> None:
        """Forgets a descriptor, before it is closed."""
        del self._watched[descriptor]
        if not self._epoll.closed:
            self._epoll.unregister(descriptor)

    @property
    def _patient(self) -> bool:
        """Whether waiting here keeps no client waiting that the loop does not know."""
        return bool(self._watched) or not any(
            driver.calls_back for driver in self._drivers.values()
        )

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
        """A turn, and those that follow upon it, as long as others of the process can wait.

        Where the last one is long ago nothing is waited for: an idle process is woken by a
        heartbeat now and then, which nothing follows upon.
        """
        began = self._clock()
        until = began + TURNS_S
        patient = began - self._turned_at < TURNS_S and self._patient
        events = self._epoll.poll(0)
        while True:
            self._turn(events)
            for descriptor, _ in events:
                ready = self._watched.get(descriptor)
                if ready is not None:
                    ready()
            self._turned_at = self._clock()
            if self._behind or not patient or self._turned_at >= until:
                return
            wait_s = min(self._linger_s, PATIENCE_S) if self._ready else PATIENCE_S
            events = self._epoll.poll(wait_s)
            if not events and not self._ready:
                return

    def _turn(self, events: list[tuple[int, int]]) -> None:
        """Everything that has arrived, is due, or follows from it, bounded."""
        self._turning = True
        try:
            now = self._clock()
            for descriptor, _ in events:
                arrived = self._drivers.get(descriptor)
                # One that is deferred shows up for an error of its socket, which is to be read.
                if arrived is not None and (
                    arrived in self._deferred or not self._defer(arrived, now)
                ):
                    arrived.readable = True
                    self._hurry(arrived)
            self._resume(now)
            for driver in self._drivers.values():
                if driver.due(now):
                    driver.timed = True
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
        if driver.unhurried is not None:
            if driver.taken_bytes > driver.defer_bytes:
                driver.defer_s /= 2
            elif driver.taken_bytes < driver.defer_bytes // 4:
                driver.defer_s = min(driver.defer_s * 2, DEFER_S)

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

    def _defer(self, driver: Driver, now: float) -> bool:
        """Lets what has arrived for a driver wait, unless somebody waits for it."""
        if driver.waiting or not self._may_wait(driver):
            return False
        if driver not in self._deferred:
            self._deferred[driver] = now + driver.defer_s
            self._epoll.modify(driver.network.fileno(), 0)
        return True

    def _may_wait(self, driver: Driver) -> bool:
        return bool(self._watched) and driver.unhurried is not None and driver.unhurried()

    def _resume(self, now: float) -> None:
        """Deferred drivers whose time has come, or for which somebody now waits."""
        for driver, until in [*self._deferred.items()]:
            if now >= until or driver.due(now) or not self._may_wait(driver):
                self._hurry(driver)

    def _hurry(self, driver: Driver) -> None:
        if self._deferred.pop(driver, None) is not None:
            self._epoll.modify(driver.network.fileno(), select.EPOLLIN)
            driver.readable = True
        self.make_ready(driver)

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
            if not self._defer(receiver, self._clock()):
                self.make_ready(receiver)

    def submitted(self) -> None:
        """Something was performed from outside: does what follows, and mends the alarm clock."""
        if self._turning or self._failure is not None:
            return
        if self._deferred:
            self._resume(self._clock())
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
        times += self._deferred.values()
        return min((time for time in times if time is not None), default=float("inf"))
