"""Glob patterns against a slow, obvious matcher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvstore.patterns import PATTERN_BYTES_MAX, compile_glob
from kvstore.replies import CommandError


def signed(value: int) -> int:
    return value - 256 if value > 127 else value


def class_at(pattern: bytes, text: int) -> tuple[bool, bytes]:
    """Whether a byte is in the class that begins behind `[`, and the pattern behind the class."""
    negated = pattern[:1] == b"^"
    rest = pattern[negated:]
    found = False
    while rest and rest[:1] != b"]":
        if rest[:1] == b"\\" and len(rest) >= 2:
            found |= rest[1] == text
            rest = rest[2:]
        elif len(rest) >= 3 and rest[1:2] == b"-":
            low, high = sorted((signed(rest[0]), signed(rest[2])))
            found |= low <= signed(text) <= high
            rest = rest[3:]
        else:
            found |= rest[0] == text
            rest = rest[1:]
    return found != negated, rest[1:]


def matches(pattern: bytes, text: bytes) -> bool:
    if not pattern or not text:
        return pattern == text
    mark, rest = pattern[:1], pattern[1:]
    if mark == b"*":
        return any(
            matches(rest, text[n:]) for n in range(len(text) + 1)
        ) or not rest.strip(b"*")
    if mark == b"?":
        return finished(rest, text[1:])
    if mark == b"[":
        found, rest = class_at(rest, text[0])
        return found and finished(rest, text[1:])
    if mark == b"\\" and rest:
        mark, rest = rest[:1], rest[1:]
    return mark == text[:1] and finished(rest, text[1:])


def finished(pattern: bytes, text: bytes) -> bool:
    """The rest matches; stars at the end of a text match nothing."""
    return matches(pattern, text) if text else not pattern.strip(b"*")


PIECES = st.sampled_from([bytes((byte,)) for byte in b"ab*?[]^-\\\x80\xff\n"])


@given(st.lists(PIECES, max_size=9).map(b"".join), st.lists(PIECES, max_size=5).map(b"".join))
def test_a_pattern_matches_what_redis_would(pattern: bytes, text: bytes) -> None:
    expected = text == b"" if pattern == b"*" and not text else matches(pattern, text)
    glob = compile_glob(pattern)
    assert glob.matches(text) == expected
    assert glob.choose([text]) == ([text] if expected else [])
    if expected:
        assert text.startswith(glob.prefix)
        assert not glob.literal or text == glob.prefix


@pytest.mark.parametrize(
    ("pattern", "prefix", "literal"),
    [
        (b"user:*", b"user:", False), (b"user:1", b"user:1", True), (b"*", b"", False),
        (rb"a\*b?", b"a*b", False), (b"[a]b", b"", False), (b"a[b", b"a", False), (b"", b"", True),
    ],
)  # fmt: skip
def test_what_every_match_begins_with_is_known(
    pattern: bytes, prefix: bytes, literal: bool
) -> None:
    assert compile_glob(pattern)[1:] == (prefix, literal)


def test_no_pattern_takes_exponential_time() -> None:
    assert not compile_glob(b"*a" * 500 + b"b").matches(b"a" * 10_000)


def test_a_pattern_is_bounded() -> None:
    assert compile_glob(b"?" * PATTERN_BYTES_MAX).matches(b"x" * PATTERN_BYTES_MAX)
    with pytest.raises(CommandError, match="16385 bytes is over the limit of 16384"):
        compile_glob(b"?" * (PATTERN_BYTES_MAX + 1))
