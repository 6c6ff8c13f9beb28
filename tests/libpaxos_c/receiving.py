"""The library's parsers in a process of their own, under the sanitizers, for fuzzing."""

from __future__ import annotations

import atexit
import select
import struct
import subprocess
import tempfile
from pathlib import Path

from tests.fuzz.fuzzing import BrokenPromise
from tests.libpaxos_c.building import FOLDER, environment, need_tools

ANSWER_S = 60.0
"""An input takes less than a millisecond: one that takes so long never ends."""


class Receiver:
    """The program `receiving.c`, compiled at the first input and started anew when it dies."""

    def __init__(self) -> None:
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def feed(self, kind: bytes, data: bytes) -> list[str]:
        """The words of its answer; see `receiving.c` for the kinds.

        Raises:
          BrokenPromise: the program died, or answers nothing.
        """
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(struct.pack(">I", len(data)) + kind + data)
            self._process.stdin.flush()
        except BrokenPipeError:
            self._died("it died")
        if not select.select([self._process.stdout], [], [], ANSWER_S)[0]:
            self._process.kill()
            self._died(f"it did not answer for {ANSWER_S:g} s")
        answer = self._process.stdout.readline()
        if not answer:
            self._died("it died")
        return answer.decode().split()

    def close(self) -> None:
        """Ends the program, and removes it."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _start(self) -> None:
        if self._directory is None:
            need_tools()
            self._directory = tempfile.TemporaryDirectory(prefix="p4xos-receiving-")
            atexit.register(self.close)
            _build(Path(self._directory.name))
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                [self._errors.with_name("receiving")], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=errors, env=environment(),
            )  # fmt: skip

    @property
    def _errors(self) -> Path:
        assert self._directory is not None
        return Path(self._directory.name) / "errors.txt"

    def _died(self, what: str) -> None:
        assert self._process is not None
        self._process.communicate()
        self._process = None
        said = self._errors.read_text(encoding="utf-8", errors="replace")
        raise BrokenPromise(f"{what}: {said[-4000:]}")


def _build(directory: Path) -> None:
    """All of the library but what makes connections, in one program."""
    own = Path(__file__).with_suffix(".c")
    sources = [path for path in sorted((FOLDER / "src").glob("*.c")) if path.name != "sockets.c"]
    command = [
        "gcc", "-std=gnu11", "-O1", "-g", "-Wall", "-Wextra", "-Werror",
        "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer",
        f"-I{FOLDER / 'include'}", f"-I{FOLDER / 'src'}", str(own), *map(str, sources),
        "-levent_core", "-o", str(directory / "receiving"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
