"""Compiles the programs with clang, and keeps what came out by what went in.

An object is named by a hash of all sources, sizes, flags and the compiler's version: it is never
stale, and made again only when one of them changes.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from switch.xdp import FOLDER
from switch.xdp.errors import XdpUnavailable

FLAGS = ("-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3")
"""Version 3 of the instruction set: Linux 5.12 and later."""
PACKAGES = "apt-get install clang libbpf-dev"
_LINES_SHOWN = 3


def cache_directory() -> Path:
    """Where objects are kept."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "p4xos" / "xdp"


def build(program: str, defines: Mapping[str, int], directory: Path | None = None) -> Path:
    """The object file of a program.

    Args:
      program: "acceptor", "coordinator" or "shard", or a path of a source that stands elsewhere.
      defines: its sizes (`sizes.h`).
      directory: where it is kept; by default `cache_directory()`.

    Raises:
      XdpUnavailable: no clang, or it does not compile.
    """
    source = FOLDER / f"{program}.bpf.c" if program.isidentifier() else Path(program)
    command = [
        _clang(), *FLAGS, f"-I{FOLDER}", f"-I/usr/include/{os.uname().machine}-linux-gnu",
        *(f"-D{name}={value}" for name, value in sorted(defines.items())),
    ]  # fmt: skip
    directory = _private(directory or cache_directory())
    kept = directory / f"{source.name.partition('.')[0]}-{_name(source, command)}.o"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            made = Path(scratch, kept.name)
            _compile([*command, "-c", str(source), "-o", str(made)])
            made.rename(kept)  # whole, or not there: another process may be making it too
    return kept


def _clang() -> str:
    found = shutil.which("clang")
    if found is None:
        raise XdpUnavailable("clang is missing", f"install it (Debian: {PACKAGES})")
    return found


def _private(directory: Path) -> Path:
    """The kernel is given what lies there: nobody else may write it."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    found = directory.stat()
    if found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & 0o022:
        raise XdpUnavailable(
            f"others can write to {directory}", "remove it, or set XDG_CACHE_HOME to another place"
        )
    return directory


def _name(source: Path, command: list[str]) -> str:
    digest = hashlib.sha256(_version(command[0]))
    for part in (*command[1:], *sorted(map(str, FOLDER.glob("*.h"))), str(source)):
        path = Path(part)
        digest.update(path.read_bytes() if path.is_file() else part.encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]


@lru_cache(maxsize=4)
def _version(clang: str) -> bytes:
    return subprocess.run([clang, "--version"], capture_output=True, check=True).stdout


def _compile(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        errors = [line for line in done.stderr.splitlines() if "error" in line]
        told = "; ".join(errors[:_LINES_SHOWN]) or f"exit code {done.returncode}"
        raise XdpUnavailable(
            f"clang does not compile the programs: {told}",
            f"install the headers that it names (Debian: {PACKAGES})",
        )
