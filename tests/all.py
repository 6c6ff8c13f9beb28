"""All tests in half the time: python -m tests.all; what pytest is given instead runs by itself.

Those of tests/chaos have networks of their own and mostly wait, so they run beside the others, on
the other core, and are told when both are through.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile

from p4xos.processes import end_with_parent

APART = "tests/chaos"
NO_TESTS_FAILED = 0


def main(arguments: list[str]) -> int:
    """Exit code of pytest: the first that is not 0."""
    command = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.call([*command, *arguments])
    with tempfile.TemporaryFile("w+", errors="replace") as told:
        apart = subprocess.Popen(
            [*command, "-o", "cache_dir=.pytest_cache/apart", APART],
            stdout=told, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent(signal.SIGTERM),
        )  # fmt: skip
        try:
            code = subprocess.call(
                [*command, f"--ignore={APART}"], preexec_fn=end_with_parent(signal.SIGTERM)
            )
            print(f"{APART}, which ran meanwhile:", flush=True)
            code_apart = apart.wait()
        except BaseException:  # Ctrl-C has reached it too
            apart.terminate()
            apart.wait()
            raise
        told.seek(0)
        print(told.read(), end="", flush=True)
    return code if code != NO_TESTS_FAILED else code_apart


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
