"""A bounded part of what `make fuzz` does: the same inputs in each run, and those that once failed.

An input that found a mistake is kept by a test of its own where the mistake was, in plain words.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from random import Random

import pytest

from tests.fuzz.fuzzing import MEMORY_BYTES_MAX, BrokenPromise, Target, try_one
from tests.fuzz.targets import TARGETS

INPUTS = 5
"""Of each target, times its weight."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_input_is_taken_or_refused_as_documented(target: Target) -> None:
    count = INPUTS * target.weight
    for number in range(count):
        try_one(target, number)
    print(f"{target.name}: {count} inputs")


def _raise(random: Random) -> None:
    raise TypeError("an error that nobody documents")


def _warn(random: Random) -> None:
    warnings.warn("a number does not fit", RuntimeWarning, stacklevel=1)


def _allocate(random: Random) -> None:
    bytearray(MEMORY_BYTES_MAX + 1)


@pytest.mark.parametrize("broken", [_raise, _warn, _allocate])
def test_a_broken_promise_is_noticed_and_can_be_repeated(broken: Callable[[Random], None]) -> None:
    with pytest.raises(BrokenPromise, match="--only broken --first 0"):
        try_one(Target("broken", broken), 0)
