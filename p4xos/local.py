"""The log's interface inside a node that has a learner: no TCP, the same methods as `Client`."""

from __future__ import annotations

from collections.abc import Sequence

import trio

from p4xos.application import Application
from p4xos.errors import NoQuorum, Overloaded, P4xosError
from p4xos.interface import DeliveredBatches, DeliveredValues, Recovered, read_chosen
from p4xos.logstore import LogStore
from p4xos.packing import Deliveries, split_payloads

BATCH_BYTES = 256 << 10
"""Of values in one batch of `deliver_batches`."""
SUBMIT_VALUES = 1024
SUBMIT_BYTES = 1 << 20
"""Proposed at once, or one command; longer lists go in parts, each as soon as there is room."""


async def propose_with_patience(
    application: Application, store: LogStore, payloads: Sequence[bytes], patience_s: float
) -> list[int]:
    """Proposes as soon as there is room; returns the tickets.

    Raises:
      Overloaded: there was none all the time; nothing was taken.
      ValueError: a payload is longer than any command may be, or the store refuses it.
    """
    store.check(payloads)
    with trio.move_on_after(patience_s):
        while True:
            applied = store.applied
            try:
                return application.propose(payloads)
            except Overloaded:
                await store.wait_beyond(applied)
    return application.propose(payloads)


class Outcome:
    """What became of one group of submissions, for whoever waits for it."""

    def __init__(self) -> None:
        self.error: P4xosError | None = None
        self._instances: list[int] = []
        self._settled = trio.Event()

    def settle(self, outcome: list[int] | P4xosError) -> None:
        """Ends the wait; see `submissions.Settled`."""
        if isinstance(outcome, P4xosError):
            self.error = outcome
        else:
            self._instances = outcome
        self._settled.set()

    async def wait(self) -> list[int]:
        """The instances, or the error raised."""
        await self._settled.wait()
        if self.error is not None:
            raise self.error
        return self._instances


class LocalClient:
    """A `Log` in the process of its node."""

    def __init__(self, application: Application) -> None:
        """Needs no connection.

        Raises:
          ValueError: the node runs another application than the plain log.
        """
        if not isinstance(application.machine, LogStore):
            raise ValueError(
                "this node's state machine is no LogStore: submit through its application"
            )
        self._application = application
        self._store = application.machine

    async def submit(self, value: bytes, *, deadline: float | None = None) -> int:
        """As `Log.submit`."""
        return (await self.submit_many([value], deadline=deadline))[0]

    async def submit_many(
        self, values: Sequence[bytes], *, deadline: float | None = None
    ) -> list[int]:
        """As `Log.submit_many`."""
        longest_s = self._application.replica.proposer.timing.deadline_s
        wait_s = longest_s if deadline is None else min(deadline, longest_s)
        outcomes: list[Outcome] = []
        with trio.move_on_after(wait_s):
            for part in split_payloads(values, SUBMIT_VALUES, SUBMIT_BYTES):
                tickets = await propose_with_patience(
                    self._application, self._store, part, longest_s
                )
                outcomes.append(Outcome())
                self._store.submissions.expect(tickets, outcomes[-1].settle)
            return [instance for outcome in outcomes for instance in await outcome.wait()]
        if not outcomes:
            proposer = self._application.replica.proposer
            raise Overloaded(proposer.in_flight, proposer.in_flight_max)
        raise NoQuorum(None, wait_s)

    def deliver(self, after: int = 0) -> DeliveredValues:
        """As `Log.deliver`."""
        return DeliveredValues(self.deliver_batches(after))

    def deliver_batches(self, after: int = 0) -> DeliveredBatches:
        """As `Log.deliver_batches`."""
        return _LocalBatches(self._store, after + 1)

    async def recover(self, instance: int) -> Recovered:
        """As `Log.recover`."""
        return (await self.recover_many([instance]))[0]

    async def recover_many(self, instances: Sequence[int]) -> list[Recovered]:
        """As `Log.recover_many`."""
        await trio.lowlevel.checkpoint()
        return [read_chosen(k, self._application.recover(k)) for k in instances]


class _LocalBatches(DeliveredBatches):
    def __init__(self, store: LogStore, first: int) -> None:
        self._store = store
        self._first = first

    async def __anext__(self) -> Deliveries:
        await trio.lowlevel.checkpoint()
        delivered: Deliveries = []
        while not delivered:
            await self._store.wait_beyond(self._first - 1)
            delivered, self._first = self._store.delivered(self._first, BATCH_BYTES)
        return delivered

    async def aclose(self) -> None:
        """Holds nothing."""
        await trio.lowlevel.checkpoint()
