"""All tests in less time: python -m tests.all; what pytest is given instead runs by itself.

Three runs of pytest go beside each other, cut so that each takes about as long: the folders of PURE
start no cluster and compute; tests/chaos has networks of its own and mostly waits, and the tests of
the store and of the bench are with it; all else waits for processes and disks. The first two are
told of when all are through.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from p4xos.processes import end_with_parent

PURE = ("checking", "fuzz", "promela", "roles", "simulator", "storage", "switch")
APART = {
    "store": ("tests/chaos", "tests/kvstore", "tests/bench"),
    "pure": tuple(f"tests/{name}" for name in PURE),
}
NO_TESTS_FAILED = 0


class Beside(NamedTuple):
    """A run of pytest that is told of afterwards."""

    folders: tuple[str, ...]
    process: subprocess.Popen[bytes]
    told: Path


def main(arguments: list[str]) -> int:
    """Exit code of pytest: the first that is not 0."""
    # What a shell starts in the background ignores Ctrl-C, and so would all that the tests start;
    # those that try it would wait for ever.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "pytest"]
    if arguments:
        return subprocess.call([*command, *arguments])
    with tempfile.TemporaryDirectory() as directory:
        beside = [
            _start(command, name, folders, Path(directory) / name)
            for name, folders in APART.items()
        ]
        ignored = [f"--ignore={folder}" for each in beside for folder in each.folders]
        try:
            codes = [
                subprocess.call([*command, *ignored], preexec_fn=end_with_parent(signal.SIGTERM))
            ]
            for each in beside:
                print(f"{', '.join(each.folders)}, which ran meanwhile:", flush=True)
                codes.append(each.process.wait())
                print(each.told.read_text(errors="replace"), end="", flush=True)
        except BaseException:  # Ctrl-C has reached them too
            for each in beside:
                each.process.terminate()
            for each in beside:
                each.process.wait()
            raise
    return next((code for code in codes if code != NO_TESTS_FAILED), NO_TESTS_FAILED)


def _start(command: list[str], name: str, folders: tuple[str, ...], told: Path) -> Beside:
    with told.open("wb") as out:
        process = subprocess.Popen(
            [*command, "-o", f"cache_dir=.pytest_cache/{name}", *folders],
            stdout=out, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
            preexec_fn=end_with_parent(signal.SIGTERM),
        )  # fmt: skip
    return Beside(folders, process, told)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit(130)
