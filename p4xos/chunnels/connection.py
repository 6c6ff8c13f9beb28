"""Connections: what a layer is given, what it gives, and what applications hold."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

import trio

if TYPE_CHECKING:
    from p4xos.chunnels.explanation import Explanation

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


class LayerMetrics:
    """What went through a layer, at its upper side."""

    __slots__ = ("received", "received_batches", "sent", "sent_batches")

    def __init__(self) -> None:
        self.sent = 0
        self.sent_batches = 0
        self.received = 0
        self.received_batches = 0

    def add(self, other: LayerMetrics) -> None:
        """Counts what another one has counted."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def as_dict(self) -> dict[str, int]:
        """For people and scripts."""
        return {name: getattr(self, name) for name in self.__slots__}


class Metered(Messages[T]):
    """Counts what passes."""

    def __init__(self, below: Messages[T], metrics: LayerMetrics) -> None:
        self._below = below
        self._metrics = metrics
        self._send_many = below.send_many
        self._receive_many = below.receive_many

    async def send_many(self, values: Sequence[T]) -> None:
        """As Messages."""
        metrics = self._metrics
        metrics.sent += len(values)
        metrics.sent_batches += 1
        await self._send_many(values)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[T]:
        """As Messages."""
        values = await self._receive_many(limit)
        metrics = self._metrics
        metrics.received += len(values)
        metrics.received_batches += 1
        return values

    async def aclose(self) -> None:
        """As Messages."""
        await self._below.aclose()


class Mapped(Messages[Up], Generic[Up, Down]):
    """A layer that makes each message into another one, and back.

    Two of them that follow one another may be run as one: they hold nothing back.
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
        self._below = below
        self._outgoing = outgoing
        self._incoming = incoming

    async def send_many(self, values: Sequence[Up]) -> None:
        """As Messages."""
        await self._below.send_many(self._outgoing(values))

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[Up]:
        """As Messages."""
        while True:
            values = self._incoming(await self._below.receive_many(limit))
            if values:
                return values

    async def aclose(self) -> None:
        """As Messages."""
        await self._below.aclose()


class Connection(Messages[T]):
    """What an application holds: messages of its own type, and how they travel."""

    def __init__(
        self,
        top: Messages[T],
        explanation: Explanation,
        metrics: Mapping[str, LayerMetrics],
        peer: str,
    ) -> None:
        """Made by `Endpoint.connect` and `Endpoint.serve`."""
        self._top = top
        self._explanation = explanation
        self.metrics = metrics
        """What each layer has carried, by its type; from application to wire."""
        self.peer = peer
        """The other end, for people."""
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
