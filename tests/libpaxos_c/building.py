"""Builds the C library and its programs, once for a run of the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "p4xos" / "compat" / "libpaxos_c"
EVENT_H = Path("/usr/include/event2/event.h")


def need_tools() -> None:
    """Skips without what compiles it; CI and root have it (deploy/setup)."""
    for program in ("gcc", "make"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: sudo apt-get install {program}")
    if not EVENT_H.exists():
        pytest.skip("libevent's headers are not installed: sudo apt-get install libevent-dev")


def build(directory: Path, *, sanitize: bool) -> Path:
    """Compiles all of it into a directory; a warning is an error."""
    need_tools()
    command = ["make", "-j2", "-C", str(FOLDER), f"BUILD={directory}"]
    if sanitize:
        command += ["SANITIZE=1", "CFLAGS=-O1 -g"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return directory


def build_program(source: Path, library: Path, *parts: str) -> Path:
    """Compiles a test's own program against a library under ASan, and parts that it hides."""
    program = library / source.stem
    command = [
        "gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-g", "-fsanitize=address,undefined",
        "-fno-sanitize-recover=all", f"-I{FOLDER / 'include'}", f"-I{FOLDER / 'src'}", str(source),
        *(str(library / part) for part in parts),
        f"-L{library}", "-levpaxos", "-levent_core", "-Wl,-rpath,$ORIGIN", "-o", str(program),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return program


def environment() -> dict[str, str]:
    """For programs under ASan: what it finds ends them with a code of its own."""
    return {
        **os.environ,
        "ASAN_OPTIONS": "exitcode=99:abort_on_error=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
    }
