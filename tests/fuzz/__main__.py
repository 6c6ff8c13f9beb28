"""Runs the fuzzing targets for a time, all in turn: `make fuzz SECONDS=600`."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz.fuzzing import BrokenPromise, Target, named, try_one
from tests.fuzz.targets import TARGETS

TURN_S = 1.0


def main() -> int:
    """Exit code 1 when a target broke its promise; what it said is kept in a directory."""
    parser = argparse.ArgumentParser(description=__doc__, prog="python -m tests.fuzz")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--only", default="", metavar="TARGET")
    parser.add_argument("--first", type=int, default=1_000_000, help="number of the first input")
    parser.add_argument("--inputs", type=int, help="of each target, whatever time it takes")
    flags = parser.parse_args()
    targets = named(TARGETS, flags.only)
    kept = Path(tempfile.mkdtemp(prefix="p4xos-fuzz-failures-"))
    tried: Counter[str] = Counter()
    failed: Counter[str] = Counter()
    ends = time.monotonic() + flags.seconds
    while True:
        for target in list(targets):
            try:
                _turn(target, flags.first, flags.inputs, tried, failed, kept)
            except pytest.skip.Exception as lacking:
                print(f"{target.name} is left out: {lacking}", file=sys.stderr)
                targets.remove(target)
        if flags.inputs is not None or time.monotonic() >= ends:
            break
    for target in targets:
        print(f"{target.name:20} {tried[target.name]:9} inputs {failed[target.name]:4} failed")
    if not failed:
        kept.rmdir()
        return 0
    print(f"the failures are in {kept}")
    return 1


def _turn(
    target: Target, first: int, inputs: int | None, tried: Counter[str], failed: Counter[str],
    kept: Path,
) -> None:  # fmt: skip
    """Some inputs of one target."""
    ends = time.monotonic() + TURN_S
    done = 0
    while done < inputs if inputs is not None else time.monotonic() < ends:
        number = first + tried[target.name]
        tried[target.name] += 1
        done += 1
        try:
            try_one(target, number)
        except BrokenPromise as error:
            failed[target.name] += 1
            if failed[target.name] <= 3:
                print(f"{target.name}: {error}", file=sys.stderr)
                (kept / f"{target.name}-{number}.txt").write_text(traceback.format_exc())


if __name__ == "__main__":
    sys.exit(main())
