"""What layers provide and what is asked of them.

Each is a key with a level. Keys in SCALES, and those of AMOUNTS, are compared: what is provided is
at least what is asked. All others (a codec, the hash of a schema) are equal, or do not fit; an end
that says nothing of such a key takes the other's.
"""

from __future__ import annotations

from collections.abc import Mapping

Level = str | int
Levels = Mapping[str, Level]

SCALES: Mapping[str, tuple[str, ...]] = {
    "order": ("none", "fifo", "total"),
    "loss": ("any", "gap-notify", "none"),
    "duplicates": ("any", "at-most-once", "exactly-once"),
    "durability": ("none", "one", "majority", "majority-disk"),
}
AMOUNTS = frozenset({"value_bytes"})
"""Numbers of which more is better."""


def is_compared(key: str) -> bool:
    """Whether more of it satisfies who asks for less."""
    return key in SCALES or key in AMOUNTS


def checked(levels: Mapping[str, Level]) -> dict[str, Level]:
    """The levels that a caller gives; ValueError where one is unknown."""
    for key, level in levels.items():
        if key in SCALES and level not in SCALES[key]:
            known = ", ".join(SCALES[key])
            raise ValueError(f"{key}={level!r} is no level; from weak to strong there is {known}")
        if key in AMOUNTS and (not isinstance(level, int) or isinstance(level, bool)):
            raise ValueError(f"{key}={level!r} is no whole number")
        if isinstance(level, bool):
            raise ValueError(f"{key}={level!r}: a level is a text or a whole number")
    return dict(levels)


def rank(key: str, level: Level) -> int:
    """Where a compared level stands; -1 for one that is not on the scale."""
    if key in AMOUNTS:
        return level if isinstance(level, int) else -1
    scale = SCALES[key]
    return scale.index(level) if isinstance(level, str) and level in scale else -1


def satisfies(key: str, provided: Level | None, asked: Level) -> bool:
    """Whether what is provided is what is asked, or better."""
    if not is_compared(key):
        return provided is None or provided == asked
    return provided is not None and rank(key, provided) >= rank(key, asked)


def disagreement(one: Levels, other: Levels) -> str | None:
    """The first key on which two ends differ though they must not."""
    for key in sorted(one.keys() & other.keys()):
        if not is_compared(key) and one[key] != other[key]:
            return key
    return None


def together(one: Levels, other: Levels) -> dict[str, Level]:
    """What two ends provide between them: of what is compared the weaker of both."""
    found = {**other, **one}
    for key in one.keys() & other.keys():
        if is_compared(key):
            found[key] = min(one[key], other[key], key=lambda level: rank(key, level))
    return found


def lacking(provided: Levels, asked: Levels) -> str | None:
    """The first key of what is asked that is not provided."""
    for key in sorted(asked):
        if not satisfies(key, provided.get(key), asked[key]):
            return key
    return None


def in_words(levels: Levels) -> str:
    """For people: `codec=json, order=fifo`."""
    return ", ".join(f"{key}={level}" for key, level in sorted(levels.items()))
