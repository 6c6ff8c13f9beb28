"""MULTI and EXEC, with WATCH on a connection of its own.

Without watched keys the whole, MULTI to EXEC, is one group on the shared connection: nothing of
another task comes in between. WATCH belongs to a connection, so it needs one that nobody shares.
EXEC decides: a node that did not get it in full has done nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

import trio

from kvstore.client import replies
from kvstore.client.call import Call, Word
from kvstore.client.commands import Commands, Key
from kvstore.client.connections import TRY_AGAIN_S, Connections
from kvstore.client.errors import (
    Aborted,
    ErrorReply,
    OutcomeUnknown,
    StoreError,
    Unavailable,
    UnexpectedReply,
    says_refused,
    says_unknown,
)
from kvstore.client.link import Group, Link
from kvstore.client.outcomes import sort_out
from kvstore.client.pipeline import raise_worst

T = TypeVar("T")
_MULTI = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC = b"*1\r\n$4\r\nEXEC\r\n"


class Transaction(Commands):
    """Collects calls, and has them done as one when its block is left without an error."""

    def __init__(
        self, connections: Connections, watched: Sequence[Key], limit_s: float, window: int
    ) -> None:
        """Made by `Client.transaction`."""
        self.calls: list[Call[Any]] = []
        """In the order in which they will be done."""
        self._connections = connections
        self._watched = watched
        self._limit_s = limit_s
        self._window = window
        self._pinned: Pinned | None = None
        self._clean = False

    @property
    def now(self) -> Commands:
        """Calls that are run at once, to read what is watched.

        Raises:
          ValueError: nothing is watched.
        """
        if self._pinned is None:
            raise ValueError("nothing is watched: read with the client, or name keys to watch")
        return self._pinned

    async def __aenter__(self) -> Self:
        if not self._watched:
            return self
        problems: dict[str, str] = {}
        with trio.move_on_after(self._limit_s):
            while True:
                link = await self._connections.lease(problems)
                pinned = Pinned(link, self._limit_s)
                watching = Call((b"WATCH", *self._watched), replies.done, None)
                try:
                    await pinned.perform((watching,), None)
                    error = watching.error
                except BaseException:
                    self._connections.release(link, clean=False)
                    raise
                if error is None:
                    self._pinned = pinned
                    return self
                self._connections.release(link, clean=False)
                if isinstance(error, ErrorReply) and not says_refused(error, reads=True):
                    raise error
                problems[str(link.address)] = str(error)
                await trio.sleep(TRY_AGAIN_S)
        raise Unavailable("WATCH", f"no node ran it within {self._limit_s:g} s", problems)

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Has the calls done; raises Aborted, or the worst that happened to one of them."""
        try:
            if error is None and self.calls:
                await self._commit()
        finally:
            if self._pinned is not None:
                self._connections.release(self._pinned.link, clean=self._clean)
                self._pinned = None
        if error is None:
            raise_worst(self.calls)

    def _call(self, decode: Callable[[str, object], T], *words: Word) -> Call[T]:
        call = Call(words, decode, None)
        self.calls.append(call)
        return call

    async def _commit(self) -> None:
        problems: dict[str, str] = {}
        outcome: StoreError | None = None
        with trio.move_on_after(self._limit_s):
            while True:
                link = self._pinned.link if self._pinned else None
                if link is None:
                    link = await self._connections.shared(problems)
                await link.wait_room(self._window)
                group = Group([_MULTI, *(c.data for c in self.calls), _EXEC], reads=False)
                link.post(group)
                reason = f"no answer within {self._limit_s:g} s"
                try:
                    await group.wait()
                finally:
                    left = link.leave(group) if group.missing else group.count
                    if left == group.count:
                        outcome = OutcomeUnknown("EXEC", str(link.address), link.lost or reason)
                if not group.missing:
                    self._clean = True
                    self._read(group.replies, str(link.address))
                    return
                if outcome is not None:
                    raise outcome
                if self._pinned is not None:
                    why = link.lost or "the node does not answer"
                    raise Aborted(f"the connection was lost before EXEC was sent: {why}")
        if outcome is not None:
            raise outcome
        raise Unavailable("EXEC", f"no node ran it within {self._limit_s:g} s", problems)

    def _read(self, answers: Sequence[object], node: str) -> None:
        """Settles the calls, or raises why nothing was done."""
        begun, *queued, result = answers
        if isinstance(begun, ErrorReply):
            # Without MULTI the rest are commands of their own.
            if all(isinstance(a, ErrorReply) and not says_unknown(a) for a in answers):
                raise begun
            raise OutcomeUnknown("MULTI", node, f"it was refused ({begun.text}), what followed ran")
        for answer in queued:
            if isinstance(answer, ErrorReply):
                raise answer
        if result is None:
            raise Aborted("a watched key has changed")
        if isinstance(result, ErrorReply):
            if says_unknown(result):
                raise OutcomeUnknown("EXEC", node, result.text)
            raise result
        if not isinstance(result, list) or len(result) != len(self.calls):
            raise UnexpectedReply("EXEC", result)
        for call, reply in zip(self.calls, result, strict=True):
            call.settle(reply)


class Pinned(Commands):
    """Calls on one connection and no other: never sent again."""

    def __init__(self, link: Link, limit_s: float) -> None:
        self.link = link
        self._limit_s = limit_s

    def _call(self, decode: Callable[[str, object], T], *words: Word) -> Call[T]:
        return Call(words, decode, self)

    async def perform(self, calls: Sequence[Call[Any]], limit_s: float | None) -> None:
        """As `Client.perform`, but a lost connection aborts the transaction."""
        limit = self._limit_s if limit_s is None else limit_s
        group = Group([call.data for call in calls], reads=all(call.reads for call in calls))
        rest = list(calls)
        with trio.move_on_after(limit):
            self.link.post(group)
            try:
                await group.wait()
            finally:
                left = self.link.leave(group) if group.missing else group.count
                reason = self.link.lost or f"no answer within {limit:g} s"
                rest = sort_out(calls, group.replies, left, str(self.link.address), reason)
        for call in rest:
            call.settle(Aborted(f"{call.name} could not be run where keys are watched: {reason}"))
