"""Calls that are sent together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self, TypeVar

from kvstore.client.call import Call, Performer, Word
from kvstore.client.commands import Commands
from kvstore.client.errors import OutcomeUnknown

T = TypeVar("T")


class Pipeline(Commands):
    """Collects calls, and runs them when its block is left without an error."""

    def __init__(self, performer: Performer) -> None:
        self.calls: list[Call[Any]] = []
        """In the order in which they will be run."""
        self._performer = performer
        self._limit_s: float | None = None

    def within(self, seconds: float) -> Self:
        """The same pipeline with this limit for all of it."""
        self._limit_s = seconds
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Runs the calls; raises the worst that happened to one, with every call settled."""
        if error is None and self.calls:
            await self._performer.perform(self.calls, self._limit_s)
            raise_worst(self.calls)

    def _call(self, decode: Callable[[str, object], T], *words: Word) -> Call[T]:
        call = Call(words, decode, None)
        self.calls.append(call)
        return call


def raise_worst(calls: Iterable[Call[Any]]) -> None:
    """Raises an unknown outcome if there is one, else the first error, if there is one."""
    errors = [call.error for call in calls if call.error is not None]
    for error in errors:
        if isinstance(error, OutcomeUnknown):
            raise error
    if errors:
        raise errors[0]
