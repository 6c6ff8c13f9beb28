"""Tests on the compiled modules: python -m tests.compiled, some ten minutes.

What stands under LEFT_OUT cannot run on them, each with its reason; everything else that exercises
a compiled module must, and finds the same.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPILED = ROOT / ".compiled"
FOLDERS = (
    "tests/roles", "tests/simulator", "tests/net", "tests/storage", "tests/kvstore",
    "tests/service", "tests/vectors", "tests/fuzz", "tests/moving", "tests/libpaxos",
    "tests/system", "tests/test_batching.py", "tests/test_envelope.py", "tests/test_loop.py",
    "tests/test_retained.py", "tests/test_wire.py", "tests/test_traps.py",
)  # fmt: skip
_SEEDED = "its seeded bugs are subclasses of roles, which compiled classes cannot have"
_REPLACED = "it replaces a function or a method, which compiled code calls directly"
LEFT_OUT = {
    "tests/kvstore/test_reference.py": "the page that it compares lies beside the sources",
    "tests/net/test_udp_failures.py::test_required_offload_that_is_missing": _REPLACED,
    "tests/service/test_catch_up.py::test_a_lost_store": _REPLACED,
    "tests/simulator/test_checkers.py": _SEEDED,
    "tests/simulator/test_forgetting.py::"
    "test_one_epoch_for_all_loses_a_chosen_value_of_five": _SEEDED,
}
"""What cannot run, by pytest's name for it, and why."""

COMMANDS: tuple[tuple[str, ...], ...] = (
    ("-m", "pytest", "-q", "-o", "pythonpath=.compiled", "-o", "cache_dir=.pytest_cache/compiled",
     *(f"--deselect={name}" for name in LEFT_OUT), *FOLDERS),
    ("-m", "tests.fuzz", "--seconds", "60"),
    ("-m", "p4xos.testing.simulate", "--seeds", "100"),
    ("-m", "bench.chaos", "--minutes", "1"),
)  # fmt: skip


def environment() -> dict[str, str]:
    """For a Python whose `p4xos` and `kvstore` are the compiled ones, and that of its children."""
    return {
        **os.environ,
        "PYTHONPATH": f"{COMPILED}{os.pathsep}{ROOT}",
        "PYTHONSAFEPATH": "1",  # else `-m` puts the present directory first
    }


def main() -> int:
    """Exit code of the first command that fails."""
    for command in COMMANDS:
        print("python", *command, flush=True)
        code = subprocess.call([sys.executable, *command], cwd=ROOT, env=environment())
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
