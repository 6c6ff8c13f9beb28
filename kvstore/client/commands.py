"""The store's main commands with types, for the client, its pipelines and its transactions alike.

Each method makes a `Call`. What becomes of it is the business of the class that has the methods:
a `Client` runs a call when it is awaited, a pipeline collects it. https://redis.io/commands/ has
the meaning of each; what is not here goes by `execute`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from kvstore.client import replies
from kvstore.client.call import Call, Word

T = TypeVar("T")
Key = bytes | str
Condition = Literal["NX", "XX", "GT", "LT"]

STATEFUL = frozenset(
    b"AUTH CLIENT DISCARD EXEC HELLO MONITOR MULTI PSUBSCRIBE QUIT RESET SELECT SSUBSCRIBE "
    b"SUBSCRIBE UNWATCH WATCH".split()
)
"""Commands about the connection: it is shared, so they would hit every other task too."""


class Commands(ABC):
    """Methods that make calls."""

    @abstractmethod
    def _call(self, decode: Callable[[str, object], T], *words: Word) -> Call[T]:
        """A call of these words."""

    def execute(self, *words: Word) -> Call[Any]:
        """Any command: `execute("BITPOS", key, 1)`.

        Raises:
          ValueError: none is given, or one that changes the connection, which tasks share.
        """
        if not words:
            raise ValueError("a command has one word at least: execute('PING')")
        first = words[0] if isinstance(words[0], bytes) else str(words[0]).encode()
        if first.upper() in STATEFUL:
            raise ValueError(
                f"{first.decode('utf-8', 'replace')} changes the connection, which all tasks "
                "share: use transaction(), or database= and name= of the client"
            )
        return self._call(replies.anything, *words)

    # Strings -------------------------------------------------------------------------------------

    def get(self, key: Key) -> Call[bytes | None]:
        """The value; None when there is none."""
        return self._call(replies.text_or_none, b"GET", key)

    def set(
        self,
        key: Key,
        value: Word,
        *,
        expire_s: float | None = None,
        expire_at_ms: int | None = None,
        keep_expiry: bool = False,
        only: Literal["NX", "XX"] | None = None,
        if_equal: Word | None = None,
    ) -> Call[bool]:
        """Stores a value; False when a condition did not hold.

        Args:
          key: of the value.
          value: replaces what is there, of whatever type.
          expire_s: from now.
          expire_at_ms: since the epoch.
          keep_expiry: the key's own goes on.
          only: "NX": if it is not there; "XX": if it is.
          if_equal: if this is what is there.
        """
        words: list[Word] = [b"SET", key, value]
        if only is not None:
            words.append(only)
        if if_equal is not None:
            words += [b"IFEQ", if_equal]
        words += _expiry(expire_s, expire_at_ms)
        if keep_expiry:
            words.append(b"KEEPTTL")
        return self._call(replies.was_done, *words)

    def set_and_get(self, key: Key, value: Word) -> Call[bytes | None]:
        """Stores a value without expiry; what was there before."""
        return self._call(replies.text_or_none, b"SET", key, value, b"GET")

    def getdel(self, key: Key) -> Call[bytes | None]:
        """The value, which is removed."""
        return self._call(replies.text_or_none, b"GETDEL", key)

    def getex(
        self,
        key: Key,
        *,
        expire_s: float | None = None,
        expire_at_ms: int | None = None,
        persist: bool = False,
    ) -> Call[bytes | None]:
        """The value, whose expiry is changed."""
        words = [*_expiry(expire_s, expire_at_ms), *([b"PERSIST"] if persist else [])]
        return self._call(replies.text_or_none, b"GETEX", key, *words)

    def mget(self, *keys: Key) -> Call[list[bytes | None]]:
        """The values of all these keys at one time."""
        return self._call(replies.texts_or_none, b"MGET", *keys)

    def mset(self, values: Mapping[Key, Word] | Mapping[str, Word]) -> Call[None]:
        """Stores all these at one time."""
        return self._call(replies.done, b"MSET", *_flat(values))

    def msetnx(self, values: Mapping[Key, Word] | Mapping[str, Word]) -> Call[bool]:
        """Stores all these if none of the keys is there."""
        return self._call(replies.truth, b"MSETNX", *_flat(values))

    def append(self, key: Key, value: Word) -> Call[int]:
        """The length with this behind it."""
        return self._call(replies.integer, b"APPEND", key, value)

    def strlen(self, key: Key) -> Call[int]:
        """The length in bytes."""
        return self._call(replies.integer, b"STRLEN", key)

    def getrange(self, key: Key, start: int, end: int) -> Call[bytes]:
        """The bytes from `start` through `end`; negative ones count from the end."""
        return self._call(replies.text, b"GETRANGE", key, start, end)

    def setrange(self, key: Key, offset: int, value: Word) -> Call[int]:
        """The length with `value` written at `offset`."""
        return self._call(replies.integer, b"SETRANGE", key, offset, value)

    def incr(self, key: Key, by: int = 1) -> Call[int]:
        """The number, so much larger."""
        return self._call(replies.integer, b"INCRBY", key, by)

    def decr(self, key: Key, by: int = 1) -> Call[int]:
        """The number, so much smaller."""
        return self._call(replies.integer, b"DECRBY", key, by)

    def incrbyfloat(self, key: Key, by: float) -> Call[float]:
        """The number, so much larger."""
        return self._call(replies.number, b"INCRBYFLOAT", key, by)

    # Bits ----------------------------------------------------------------------------------------

    def getbit(self, key: Key, offset: int) -> Call[int]:
        """One bit."""
        return self._call(replies.integer, b"GETBIT", key, offset)

    def setbit(self, key: Key, offset: int, bit: Literal[0, 1]) -> Call[int]:
        """What the bit was."""
        return self._call(replies.integer, b"SETBIT", key, offset, bit)

    def bitcount(self, key: Key) -> Call[int]:
        """How many bits are set."""
        return self._call(replies.integer, b"BITCOUNT", key)

    # Keys ----------------------------------------------------------------------------------------

    def delete(self, *keys: Key) -> Call[int]:
        """How many of these were there, and are not any more."""
        return self._call(replies.integer, b"DEL", *keys)

    def exists(self, *keys: Key) -> Call[int]:
        """How many of these are there."""
        return self._call(replies.integer, b"EXISTS", *keys)

    def type(self, key: Key) -> Call[bytes]:
        """b"string", or b"none"."""
        return self._call(replies.text, b"TYPE", key)

    def rename(self, key: Key, new: Key) -> Call[None]:
        """Moves a value; an error reply when there is none."""
        return self._call(replies.done, b"RENAME", key, new)

    def renamenx(self, key: Key, new: Key) -> Call[bool]:
        """Moves a value if `new` is not there."""
        return self._call(replies.truth, b"RENAMENX", key, new)

    def copy(self, key: Key, new: Key, *, replace: bool = False) -> Call[bool]:
        """Copies a value; False when there is none, or `new` is there and not to be replaced."""
        return self._call(replies.truth, b"COPY", key, new, *([b"REPLACE"] if replace else []))

    def scan(
        self, cursor: bytes | int = 0, *, match: Key | None = None, count: int | None = None
    ) -> Call[tuple[bytes, list[bytes]]]:
        """The next cursor, b"0" at the end, and some keys; `Client.all_keys` goes through all."""
        words: list[Word] = [b"SCAN", cursor]
        if match is not None:
            words += [b"MATCH", match]
        if count is not None:
            words += [b"COUNT", count]
        return self._call(replies.page, *words)

    def dbsize(self) -> Call[int]:
        """How many keys there are."""
        return self._call(replies.integer, b"DBSIZE")

    def flushdb(self) -> Call[None]:
        """Removes every key of the database."""
        return self._call(replies.done, b"FLUSHDB")

    # Expiry --------------------------------------------------------------------------------------

    def expire(self, key: Key, seconds: float, only: Condition | None = None) -> Call[bool]:
        """The key goes away after this time; False when it is not there, or `only` says no."""
        words = [] if only is None else [only]
        return self._call(replies.truth, b"PEXPIRE", key, _milliseconds(seconds), *words)

    def expire_at(self, key: Key, at_ms: int, only: Condition | None = None) -> Call[bool]:
        """The key goes away at this time, in milliseconds since the epoch."""
        words = [] if only is None else [only]
        return self._call(replies.truth, b"PEXPIREAT", key, at_ms, *words)

    def persist(self, key: Key) -> Call[bool]:
        """The key stays; False when it had no expiry."""
        return self._call(replies.truth, b"PERSIST", key)

    def ttl(self, key: Key) -> Call[int]:
        """Seconds left; -1: no expiry, -2: no key."""
        return self._call(replies.integer, b"TTL", key)

    def pttl(self, key: Key) -> Call[int]:
        """Milliseconds left; -1: no expiry, -2: no key."""
        return self._call(replies.integer, b"PTTL", key)

    # The store -----------------------------------------------------------------------------------

    def ping(self) -> Call[bytes]:
        """b"PONG": a node answers, which says nothing of the others."""
        return self._call(replies.text, b"PING")

    def info(self, *sections: str) -> Call[dict[str, str]]:
        """What the node that answers tells of itself."""
        return self._call(replies.sections, b"INFO", *sections)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)


def _expiry(expire_s: float | None, expire_at_ms: int | None) -> Sequence[Word]:
    if expire_s is not None and expire_at_ms is not None:
        raise ValueError("expire_s and expire_at_ms are both given: leave one out")
    if expire_s is not None:
        return [b"PX", _milliseconds(expire_s)]
    return [] if expire_at_ms is None else [b"PXAT", expire_at_ms]


def _flat(values: Mapping[Any, Word]) -> list[Word]:
    if not values:
        raise ValueError("no keys are given; give one at least")
    return [word for pair in values.items() for word in pair]
