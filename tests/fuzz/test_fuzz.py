"""A bounded part of what `make fuzz` does: the same inputs in each run, and those that once failed.

An input that found a mistake is kept by a test of its own where the mistake was, in plain words.
"""

from __future__ import annotations

import pytest

from tests.fuzz.fuzzing import Target, try_one
from tests.fuzz.targets import TARGETS

INPUTS = 5
"""Of each target, times its weight."""


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_any_input_is_taken_or_refused_as_documented(target: Target) -> None:
    count = INPUTS * target.weight
    for number in range(count):
        try_one(target, number)
    print(f"{target.name}: {count} inputs")
