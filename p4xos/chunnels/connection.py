"""Connections: what a layer is given, what it gives, and what applications hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from p4xos.chunnels.explanation import Explanation
    from p4xos.chunnels.metering import LayerMetrics

T = TypeVar("T")
Up = TypeVar("Up")
Down = TypeVar("Down")

RECEIVE_MANY = 1024
"""Messages of one `receive_many`, unless the caller says otherwise."""


class Messages(trio.abc.Channel[T]):
    """A trio channel with batch forms, which are where the speed is.

    A layer has `send_many`, `receive_many` and `aclose`; the rest follows from them.
    """

    async def send(self, value: T) -> None:
        """One message."""
        await self.send_many((value,))

    async def receive(self) -> T:
        """The next message; waits for it.

        Raises:
          trio.EndOfChannel: the other end has closed, and all was received.
          trio.BrokenResourceError: the connection is lost; the message says why.
        """
        return (await self.receive_many(1))[0]

    @abstractmethod
    async def send_many(self, values: Sequence[T]) -> None:
        """Messages in their order; waits while the connection takes no more."""

    @abstractmethod
    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[T]:
        """What has arrived, one message at least and `limit` at most; raises as `receive`."""


class Mapped(Messages[Up], Generic[Up, Down]):
    """A layer that makes each message into another one, and back.

    They hold nothing back, so that neighbours of them run as one (`metering`).
    """

    def __init__(
        self,
        below: Messages[Down],
        outgoing: Callable[[Sequence[Up]], Sequence[Down]],
        incoming: Callable[[Sequence[Down]], list[Up]],
    ) -> None:
        """A layer of two functions.

        Args:
          below: what it stands on.
          outgoing: messages of the application, as they travel.
          incoming: messages that travelled; those that are no good may be left out.
        """
        self.below = below
        self.outgoing = outgoing
        self.incoming = incoming

    async def send_many(self, values: Sequence[Up]) -> None:
        """As Messages."""
        await self.below.send_many(self.outgoing(values))

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[Up]:
        """As Messages."""
        while True:
            values = self.incoming(await self.below.receive_many(limit))
            if values:
                return values

    async def aclose(self) -> None:
        """As Messages."""
        await self.below.aclose()


class Connection(Messages[T]):
    """What an application holds: messages of its own type, and how they travel."""

    def __init__(
        self,
        top: Messages[T],
        explanation: Explanation,
        metrics: Mapping[str, LayerMetrics],
        peer: str,
        round_trips: int = 0,
    ) -> None:
        """Made by `Endpoint.connect` and `Endpoint.serve`."""
        self._top = top
        self._explanation = explanation
        self.metrics = metrics
        """What each layer has carried, by its type; from application to wire."""
        self.peer = peer
        """The other end, for people."""
        self.round_trips = round_trips
        """At a client: how many making it has waited for, to discovery and to the server."""
        self.send_many = top.send_many  # type: ignore[method-assign]  # no frame between
        self.receive_many = top.receive_many  # type: ignore[method-assign]  # the same

    def explain(self) -> Explanation:
        """Every layer: the implementation that was chosen, and why."""
        return self._explanation

    async def send_many(self, values: Sequence[T]) -> None:
        """As Messages."""
        await self._top.send_many(values)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[T]:
        """As Messages."""
        return await self._top.receive_many(limit)

    async def aclose(self) -> None:
        """Ends the connection; leaving its `async with` does so too."""
        await self._top.aclose()
