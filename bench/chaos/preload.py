"""What is preloaded into nodes (preload.c), and the page by which a run steers it."""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
from pathlib import Path

from bench.errors import BenchError

_SOURCE = Path(__file__).with_name("preload.c")
_LAYOUT = struct.Struct("=4q")
_OFFSET_AT, _FAILING_AT, _FAILED_AT, _SHIFTED_AT = range(0, _LAYOUT.size, 8)
_NUMBER = struct.Struct("=q")


def build(directory: Path) -> Path:
    """Compiles the shared object into a directory; its path.

    Raises:
      BenchError: there is no compiler, or it refuses.
    """
    if shutil.which("gcc") is None:
        raise BenchError("gcc is missing: apt-get install gcc libc6-dev")
    library = directory / "preload.so"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    command = ["gcc", *flags, "-o", str(library), str(_SOURCE), "-ldl"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise BenchError(f"{_SOURCE.name} does not compile:\n{done.stderr}")
    return library


class Page:
    """The page of one node; what is set stays set over restarts of the node."""

    def __init__(self, path: Path, library: Path) -> None:
        """Makes the file, with nothing set.

        Args:
          path: of the file.
          library: what `build` has made.
        """
        self._path = path
        self._library = library
        path.write_bytes(bytes(_LAYOUT.size))
        with path.open("r+b") as file:
            self._mapped = mmap.mmap(file.fileno(), _LAYOUT.size)

    def command(self, command: list[str]) -> list[str]:
        """What runs a command under this page."""
        return ["env", f"LD_PRELOAD={self._library}", f"CHAOS_PAGE={self._path}", *command]

    def close(self) -> None:
        """Lets go of the file."""
        self._mapped.close()

    def set_clock(self, offset_s: float) -> None:
        """The wall clock is so far off from now on."""
        self._set(_OFFSET_AT, round(offset_s * 1e9))

    def fail_syncs(self, failing: bool) -> None:
        """Whether every fsync and fdatasync fails with EIO from now on."""
        self._set(_FAILING_AT, int(failing))

    @property
    def failed_syncs(self) -> int:
        """How many have failed so."""
        return self._get(_FAILED_AT)

    @property
    def shifted_reads(self) -> int:
        """How often a clock was read that is off."""
        return self._get(_SHIFTED_AT)

    def _set(self, at: int, value: int) -> None:
        _NUMBER.pack_into(self._mapped, at, value)

    def _get(self, at: int) -> int:
        return int(_NUMBER.unpack_from(self._mapped, at)[0])
