"""What every client of the log offers to applications (docs/PROTOCOL.md, section 6)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from typing import Literal, NamedTuple, Protocol, Self

from p4xos.envelope import ENVELOPE_BYTES, OPEN_SESSION, open_envelope
from p4xos.packing import Deliveries


class Recovered(NamedTuple):
    """What was chosen in an instance."""

    instance: int
    kind: Literal["value", "fragment", "open", "no-op", "malformed"]
    """A command whole or in part, a session's beginning, nothing; or nothing that p4xos makes."""
    payload: bytes = b""
    """Without the envelope; all bytes of a malformed value."""
    session: int = 0
    sequence: int = 0
    fragment: int = 0
    fragments: int = 0


def read_chosen(instance: int, value: bytes) -> Recovered:
    """A chosen value, raw, as `recover` tells it."""
    if not value:
        return Recovered(instance, "no-op")
    envelope = open_envelope(value)
    if envelope is None:
        return Recovered(instance, "malformed", value)
    kind: Literal["value", "fragment", "open"] = "value"
    if envelope.session == OPEN_SESSION:
        kind = "open"
    elif (envelope.fragment, envelope.fragments) != (0, 1):
        kind = "fragment"
    return Recovered(instance, kind, value[ENVELOPE_BYTES:], *envelope)


class DeliveredBatches(ABC):
    """What is delivered, in batches; ends only by an error."""

    def __aiter__(self) -> Self:
        return self

    @abstractmethod
    async def __anext__(self) -> Deliveries:
        """The next values in order, one at least; waits for them."""

    @abstractmethod
    async def aclose(self) -> None:
        """Gives back what the stream holds; leaving the client does so too."""


class DeliveredValues:
    """What is delivered, value by value; ends only by an error."""

    def __init__(self, batches: DeliveredBatches) -> None:
        self._batches = batches
        self._values = iter(Deliveries())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[int, bytes]:
        """(instance, payload) of the next value; waits for it."""
        while True:
            for value in self._values:
                return value
            self._values = iter(await self._batches.__anext__())

    async def aclose(self) -> None:
        """Gives back what the stream holds; leaving the client does so too."""
        await self._batches.aclose()


class Log(Protocol):
    """A replicated log: `p4xos.client.Client` over TCP, `p4xos.local.LocalClient` in a node."""

    async def submit(self, value: bytes, *, deadline: float | None = None) -> int:
        """Has a value chosen; returns its instance once it is delivered.

        Args:
          value: a command; what is longer than one instance takes travels in fragments.
          deadline: seconds; by default, and at most, the cluster's `deadline_s`.

        Raises:
          NoQuorum, SessionLost, ConnectionLost: the outcome is unknown, the value may be
            delivered later; nothing is submitted again by itself.
          Overloaded: no room in the window until the deadline; nothing was taken.
          Refused: the node cannot take it; the message says why.
        """
        ...

    async def submit_many(
        self, values: Sequence[bytes], *, deadline: float | None = None
    ) -> list[int]:
        """As `submit` for each value, far faster; the instances in the order of the values.

        The values need not be delivered in their order. After an error the outcome of each of
        them is unknown.
        """
        ...

    def deliver(self, after: int = 0) -> AsyncIterator[tuple[int, bytes]]:
        """Iterates over (instance, payload) behind an instance, then over what follows, for ever.

        Without no-ops and duplicates; a command in fragments comes joined, at its last instance.
        The iterator raises Trimmed when what it needs next is no longer kept.
        """
        ...

    def deliver_batches(self, after: int = 0) -> AsyncIterator[Deliveries]:
        """As `deliver`, in lists of (instance, payload)."""
        ...

    async def recover(self, instance: int) -> Recovered:
        """What was chosen in an instance.

        Raises:
          Trimmed: it is no longer kept.
          NotDelivered: this replica has not delivered it yet.
        """
        ...

    async def recover_many(self, instances: Sequence[int]) -> list[Recovered]:
        """As `recover` for each of them."""
        ...
