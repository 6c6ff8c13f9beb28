"""A replicated log of one replica in memory, for tests of what is built on the log.

It keeps every promise of `ReplicatedLog` and none that the real one does not make. Deliveries
happen when `deliver()` is called, or, while `run()` is a task of some nursery, at a later turn of
the loop, never inside `propose`. A test may hold deliveries back, refuse proposals, or let tickets
and reads fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import trio

from p4xos.errors import NoQuorum, Overloaded
from p4xos.log import Delivered, StateMachine

READ_CALLBACK = Callable[[NoQuorum | None], None]


class LocalLog:
    """Delivers what is proposed to one state machine, in the order of the proposals."""

    def __init__(
        self,
        *,
        max_value_bytes: int = 1400,
        max_command_bytes: int = 16 << 20,
        limit: int = 65536,
        batch_values: int = 1024,
    ) -> None:
        """A log with nothing in it.

        Args:
          max_value_bytes: as the log tells its application.
          max_command_bytes: longer values are refused.
          limit: values in flight beyond which `propose` raises `Overloaded`.
          batch_values: how many values one `apply` gets at most.
        """
        self.max_value_bytes = max_value_bytes
        self.max_command_bytes = max_command_bytes
        self.limit = limit
        self.batch_values = batch_values
        self.held = False
        """While true `run()` delivers nothing; `deliver()` still does."""
        self.failing: NoQuorum | None = None
        """While set, proposals and reads end with this error instead of a delivery."""
        self.proposed: list[bytes] = []
        """Every value ever taken, for assertions, while `recording`."""
        self.recording = False
        self.read_requests = 0
        self._machine: StateMachine | None = None
        self._instance = 0
        self._next_ticket = 1
        self._queue: list[tuple[int, bytes]] = []
        self._reads: list[READ_CALLBACK] = []
        self._wake = trio.Event()

    def attach(self, machine: StateMachine) -> None:
        """Gives the log its state machine, and goes on behind what that has applied."""
        self._machine = machine
        self._instance = machine.applied

    @property
    def applied(self) -> int:
        """The last instance applied."""
        return self._instance

    @property
    def in_flight(self) -> int:
        """Values proposed and not delivered."""
        return len(self._queue)

    def propose(self, values: Sequence[bytes]) -> list[int]:
        """As `ReplicatedLog.propose`."""
        for value in values:
            if len(value) > self.max_command_bytes:
                raise ValueError(f"value of {len(value)} bytes is over {self.max_command_bytes}")
        if len(self._queue) + len(values) > self.limit:
            raise Overloaded(len(self._queue), self.limit)
        first = self._next_ticket
        self._next_ticket += len(values)
        tickets = list(range(first, self._next_ticket))
        self._queue.extend(zip(tickets, values, strict=True))
        if self.recording:
            self.proposed.extend(values)
        self._wake.set()
        return tickets

    def read_index(self, callback: READ_CALLBACK) -> None:
        """As `ReplicatedLog.read_index`; answered behind everything proposed before it."""
        self.read_requests += 1
        self._reads.append(callback)
        self._wake.set()

    def deliver(self, count: int | None = None) -> int:
        """Delivers `count` values (all when None) in one batch, then answers the reads.

        Reads wait when values remain, since those may be what they must see.

        Returns:
          How many values were delivered or failed.
        """
        assert self._machine is not None, "attach a state machine first"
        taken = self._queue[:count]
        del self._queue[: len(taken)]
        if self.failing is not None:
            self._machine.unknown([ticket for ticket, _ in taken], self.failing)
        elif taken:
            first = self._instance + 1
            self._instance += len(taken)
            batch = [
                Delivered(first + index, ticket, value)
                for index, (ticket, value) in enumerate(taken)
            ]
            self._machine.apply(batch, self._instance, {})
        if not self._queue:
            reads, self._reads = self._reads, []
            for callback in reads:
                callback(self.failing)
        return len(taken)

    def deliver_foreign(self, values: Sequence[bytes]) -> None:
        """Delivers values of another replica: the state machine sees no tickets."""
        assert self._machine is not None, "attach a state machine first"
        first = self._instance + 1
        self._instance += len(values)
        batch = [Delivered(first + index, None, value) for index, value in enumerate(values)]
        self._machine.apply(batch, self._instance, {})

    def release(self) -> None:
        """Ends holding back."""
        self.held = False
        self._wake.set()

    async def run(self) -> None:
        """Delivers what was proposed, one turn of the loop later, until cancelled."""
        while True:
            await self._wake.wait()
            await trio.lowlevel.checkpoint()
            self._wake = trio.Event()
            if self.held:
                continue
            while self._queue or self._reads:
                self.deliver(self.batch_values)
