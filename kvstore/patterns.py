r"""Redis' glob patterns (KEYS, SCAN MATCH, CONFIG GET) as regular expressions.

`*` any bytes, `?` one byte, `[a-z]` `[^a]` one of a class, `\x` x itself. Redis' corners are
kept: a class that is not closed ends with the pattern, `[a-]` is a range up to `]`, bytes in a
range compare as signed, and an empty text matches no pattern but `` and `*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from kvstore.replies import CommandError

PATTERN_BYTES_MAX = 16 * 1024
"""A regular expression costs some 100 times its text in memory and is compiled in one piece."""
_CACHED_PATTERNS = 128
_CACHED_BYTES_MAX = 1024
"""Longer patterns are compiled each time: nobody repeats them, and the cache stays small."""


class Glob(NamedTuple):
    """A pattern ready to be matched."""

    expression: re.Pattern[bytes] | None
    """Matches a text in full; None: every text matches."""
    prefix: bytes
    """What every matching text begins with."""
    literal: bool
    """Nothing but `prefix` matches."""

    def matches(self, text: bytes) -> bool:
        """Whether the whole text matches."""
        return self.expression is None or self.expression.fullmatch(text) is not None

    def choose(self, texts: list[bytes]) -> list[bytes]:
        """Those that match, in their order."""
        if self.expression is None:
            return texts
        fullmatch = self.expression.fullmatch
        return [text for text in texts if fullmatch(text)]


def compile_glob(pattern: bytes) -> Glob:
    """A pattern compiled, or taken from the cache.

    Raises:
      CommandError: it is too long.
    """
    if len(pattern) <= _CACHED_BYTES_MAX:
        return _cached(pattern)
    if len(pattern) > PATTERN_BYTES_MAX:
        raise CommandError(
            f"ERR pattern of {len(pattern)} bytes is over the limit of {PATTERN_BYTES_MAX} bytes"
        )
    return _compile(pattern)


def _compile(pattern: bytes) -> Glob:
    if pattern == b"*":
        return Glob(None, b"", literal=False)
    segments: list[list[frozenset[int] | int]] = [[]]
    for atom in _atoms(pattern):
        if atom is None:
            segments.append([])
        else:
            segments[-1].append(atom)
    prefix = bytearray()
    for atom in segments[0]:
        if not isinstance(atom, int):
            break
        prefix.append(atom)
    literal = len(segments) == 1 and len(prefix) == len(segments[0])
    texts = [b"".join(map(_expression, segment)) for segment in segments]
    if len(texts) > 1:
        # Each part between two stars is taken where it first fits, and never tried again: a match
        # further right could leave less for the rest, never more. So no pattern is slow.
        middle = b"".join(b"(?>.*?%b)" % text for text in texts[1:-1] if text)
        # The empty key: Redis' loop ends before it looks at a star.
        texts = [b"(?=.)" if not any(texts) else b"", texts[0], middle, b".*", texts[-1]]
    return Glob(re.compile(b"".join(texts), re.DOTALL), bytes(prefix), literal)


_cached = lru_cache(maxsize=_CACHED_PATTERNS)(_compile)


def _atoms(pattern: bytes) -> Iterator[frozenset[int] | int | None]:
    """What each place of a matching text may hold: a byte, one of a set; None is a star."""
    position, end = 0, len(pattern)
    while position < end:
        mark = pattern[position]
        if mark == ord("*"):
            yield None
        elif mark == ord("?"):
            yield _ANY
        elif mark == ord("["):
            position, members = _class(pattern, position + 1)
            yield members
            continue
        else:
            if mark == ord("\\") and position + 1 < end:
                position += 1
            yield pattern[position]
        position += 1


def _class(pattern: bytes, position: int) -> tuple[int, frozenset[int]]:
    """The place behind a class, and its bytes.

    Args:
      pattern: the whole pattern.
      position: of the first byte behind `[`.
    """
    end = len(pattern)
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members: set[int] = set()
    while position < end:
        first = pattern[position]
        if first == ord("\\") and position + 1 < end:
            position += 1
            members.add(pattern[position])
        elif first == ord("]"):
            position += 1
            break
        elif position + 2 < end and pattern[position + 1] == ord("-"):
            low, high = sorted((_signed(first), _signed(pattern[position + 2])))
            members.update(value & 0xFF for value in range(low, high + 1))
            position += 2
        else:
            members.add(first)
        position += 1
    return position, _ANY - members if negated else frozenset(members)


def _signed(value: int) -> int:
    return value - 256 if value > 127 else value


def _expression(atom: frozenset[int] | int) -> bytes:
    if isinstance(atom, int):
        return re.escape(bytes((atom,)))
    if atom == _ANY:
        return b"."
    if not atom:
        return b"(?!)"
    # As ranges: `[^a]`, four bytes of a pattern, is 255 members, and thousands of it would be
    # compiled for seconds.
    return b"[%b]" % b"".join(b"\\x%02x-\\x%02x" % bounds for bounds in _ranges(atom))


def _ranges(members: frozenset[int]) -> Iterator[tuple[int, int]]:
    """The first and the last of each run of neighbours."""
    ordered = sorted(members)
    first = last = ordered[0]
    for member in ordered[1:]:
        if member != last + 1:
            yield first, last
            first = member
        last = member
    yield first, last


_ANY = frozenset(range(256))
