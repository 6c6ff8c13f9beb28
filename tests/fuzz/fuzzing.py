"""Inputs made by chance from good ones, and what every parser of foreign bytes owes for any input.

An input is a function of its target's name and a number alone, so a failure is repeated by its
number, without a file. `tests/fuzz/targets.py` has the targets, `python -m tests.fuzz` runs them
for as long as it is told to.
"""

from __future__ import annotations

import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from random import Random

CPU_S_MAX = 5.0
"""Of this thread, for one input: load on the machine does not count, a loop without end does."""
MEMORY_BYTES_MAX = 96 << 20
"""Of one input, which is a few KiB: an announced length is not an allocation."""
MEASURED_EVERY = 16
"""Memory is watched for one input of so many: it makes everything slower."""

_EDGES = (0, 1, 2, 7, 8, 23, 24, 40, 127, 128, 255, 256, 1 << 15, (1 << 16) - 1, 1 << 16, 1 << 31,
          (1 << 32) - 1, 1 << 40, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip


class BrokenPromise(AssertionError):
    """A target did with an input what it must never do."""


@dataclass(frozen=True)
class Target:
    """One parser, and how inputs for it are made."""

    name: str
    run: Callable[[Random], None]
    """Makes an input from the random numbers, feeds it, and raises for anything undocumented."""
    weight: int = 1
    """Inputs in `make test`, in units of `INPUTS`: cheap targets take more."""


def try_one(target: Target, number: int) -> None:
    """Feeds input `number` of a target.

    Raises:
      BrokenPromise: it raised what is not documented, took too long or too much memory.
    """
    measured = number % MEASURED_EVERY == 0
    if measured:
        tracemalloc.start()
    begun = time.thread_time()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # numpy only warns where numbers do not fit
            target.run(Random(f"{target.name} {number}"))
        if measured:
            peak = tracemalloc.get_traced_memory()[1]
            if peak > MEMORY_BYTES_MAX:
                raise BrokenPromise(f"{peak} bytes were allocated")
    except Exception as error:
        again = f"python -m tests.fuzz --only {target.name} --first {number} --inputs 1"
        raise BrokenPromise(f"{type(error).__name__}: {error}; again: {again}") from error
    finally:
        if measured:
            tracemalloc.stop()
    spent_s = time.thread_time() - begun
    if spent_s > CPU_S_MAX:
        raise BrokenPromise(f"input {number} of {target.name} took {spent_s:.1f} s of CPU time")


# Inputs ------------------------------------------------------------------------------------------


def number(random: Random, bits: int) -> int:
    """A whole number of so many bits, mostly near where bounds are."""
    if random.random() < 0.6:
        edge = random.choice(_EDGES) + random.choice((-1, 0, 0, 1))
        return edge % (1 << bits)
    return random.getrandbits(bits)


def noise(random: Random, size_max: int = 64) -> bytes:
    """Any bytes."""
    return random.randbytes(random.randint(0, size_max))


def mutated(random: Random, seeds: Sequence[bytes]) -> bytes:
    """A good input, changed in a few places; now and then as it is, or nothing but noise."""
    data = bytearray(random.choice(seeds))
    if random.random() < 0.03:
        return noise(random, 256)
    for _ in range(random.choice((0, 1, 1, 1, 2, 2, 3, 5, 8))):
        _change(random, data, seeds)
    return bytes(data)


def _change(random: Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    at = random.randint(0, len(data))
    match random.randrange(9):
        case 0 if data:
            data[at % len(data)] ^= 1 << random.randrange(8)
        case 1 if data:
            data[at % len(data)] = random.randrange(256)
        case 2:
            del data[at : at + random.choice((1, 2, 4, 8, 64))]
        case 3:
            data[at:at] = noise(random, 16)
        case 4:
            size = random.choice((1, 2, 4, 8))
            order = "big" if random.random() < 0.7 else "little"
            data[at : at + size] = number(random, 8 * size).to_bytes(size, order)  # type: ignore[arg-type]  # a Literal
        case 5:
            del data[at:]
        case 6:
            data[at:at] = data[at : at + random.choice((1, 8, 40, 400))] * random.randint(1, 3)
        case 7:
            other = random.choice(seeds)
            data[at:] = other[random.randint(0, len(other)) :]
        case _:
            # A number in text, which a length or a limit may be.
            digits = b"%d" % (number(random, 64) * random.choice((1, 1, -1)))
            data[at : at + random.randint(0, 3)] = digits


def pieces(random: Random, data: bytes) -> list[bytes]:
    """The same bytes as they may arrive."""
    cuts = sorted(random.randint(0, len(data)) for _ in range(random.choice((0, 0, 1, 2, 5, 20))))
    bounds = [0, *cuts, len(data)]
    return [data[a:b] for a, b in pairwise(bounds) if a < b]


def anything(random: Random, depth: int = 3) -> object:
    """Whatever msgpack or JSON may hold."""
    kinds: list[Callable[[], object]] = [
        lambda: None,
        lambda: random.random() < 0.5,
        lambda: number(random, 64),
        lambda: -number(random, 63),
        lambda: random.choice((0.0, 1.5, float("inf"), float("nan"))),
        lambda: noise(random, 12),
        lambda: noise(random, 12).decode("latin-1"),
    ]
    if depth:
        kinds.append(lambda: [anything(random, depth - 1) for _ in range(random.randint(0, 3))])
        kinds.append(
            lambda: {str(anything(random, 0)): anything(random, depth - 1) for _ in range(2)}
        )
    return random.choice(kinds)()


def only(errors: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> bool:
    """Calls; whether it returned rather than raised one of the documented errors."""
    try:
        call()
    except errors:
        return False
    return True


def named(targets: Iterable[Target], name: str) -> list[Target]:
    """The targets of that name; all of them for an empty one."""
    found = [target for target in targets if name in ("", target.name)]
    if not found:
        known = ", ".join(target.name for target in targets)
        raise ValueError(f"there is no target {name!r}; known are {known}")
    return found
