"""One command of a program: its bytes, what its reply becomes, and its outcome."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Generator, Sequence
from typing import Any, Generic, Protocol, Self, TypeVar

import hiredis

from kvstore.client.errors import ErrorReply, StoreError

T = TypeVar("T")

Word = bytes | str | int | float
"""A word of a command; texts are sent as UTF-8, numbers in decimal."""

READS = frozenset(
    b"BITCOUNT BITFIELD_RO BITPOS DBSIZE ECHO EXISTS EXPIRETIME GET GETBIT GETRANGE INFO KEYS LCS "
    b"MGET OBJECT PEXPIRETIME PING PTTL RANDOMKEY SCAN STRLEN SUBSTR TIME TTL TYPE".split()
)
"""Commands that change nothing and mean the same at every node: they may be asked again."""

_PENDING = object()


class Performer(Protocol):
    """What runs calls."""

    async def perform(self, calls: Sequence[Call[Any]], limit_s: float | None) -> None:
        """Runs these in order, next to one another; each is settled on return.

        Args:
          calls: at least one.
          limit_s: within this time; None: the performer's own limit.
        """
        ...


class Call(Generic[T]):
    """A command and what its reply means; `await` it, unless it stands in a pipeline.

    Of a pipeline or transaction: `value`, once the block is left.
    """

    __slots__ = ("_decode", "_limit_s", "_outcome", "_performer", "_used", "data", "name", "reads")

    def __init__(
        self, words: Sequence[Word], decode: Callable[[str, object], T], performer: Performer | None
    ) -> None:
        """Packs the words; nothing is sent.

        Args:
          words: the command's name first.
          decode: gives the reply its type, or raises UnexpectedReply.
          performer: runs it when it is awaited; None: it is part of something that runs as a whole.
        """
        first = words[0] if isinstance(words[0], bytes) else str(words[0]).encode()
        name = first.upper()
        self._used = True
        self.name = name.decode("utf-8", "replace")
        self.reads = name in READS
        self.data: bytes = hiredis.pack_command(tuple(words))  # type: ignore[arg-type]  # its stub says one item
        self._decode = decode
        self._performer = performer
        self._limit_s: float | None = None
        self._outcome: object = _PENDING
        self._used = performer is None

    def __await__(self) -> Generator[Any, Any, T]:
        return self._run().__await__()

    def __del__(self) -> None:
        # As Python warns of a coroutine: a write that is never awaited is never sent.
        if not getattr(self, "_used", True):
            warnings.warn(f"{self.name} was never awaited", RuntimeWarning, stacklevel=2)

    def within(self, seconds: float) -> Self:
        """The same call with this limit in place of the client's `limit_s`."""
        self._limit_s = seconds
        return self

    async def _run(self) -> T:
        if self._performer is None:
            raise ValueError(
                f"{self.name} stands in a pipeline or transaction: read its value behind the block"
            )
        if self._used:
            raise ValueError(f"{self.name} was awaited already: make another call")
        self._used = True
        await self._performer.perform((self,), self._limit_s)
        return self.value

    @property
    def value(self) -> T:
        """What was answered.

        Raises:
          StoreError: it failed, as the error says.
          ValueError: it has not been run.
        """
        outcome = self._outcome
        if outcome is _PENDING:
            raise ValueError(f"{self.name} has not been run: leave the block it stands in first")
        if isinstance(outcome, StoreError):
            raise outcome
        return self._decode(self.name, outcome)

    @property
    def error(self) -> StoreError | None:
        """What `value` would raise about a call that was run, if the store or the network did."""
        return self._outcome if isinstance(self._outcome, StoreError) else None

    @property
    def refused(self) -> ErrorReply | None:
        """The store's error reply, if that is what came."""
        return self._outcome if isinstance(self._outcome, ErrorReply) else None

    def settle(self, outcome: object) -> None:
        """The reply, or the error in its place."""
        self._outcome = outcome
