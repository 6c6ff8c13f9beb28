"""p4c and bmv2: where they are, and what the one makes for the other.

Neither is in a package registry. What p4c makes is kept in a cache directory, under a name that is
a digest of the programs, of the sizes and of the compiler: another of any of them is another file.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from p4xos.planes import NoDataPlane
from switch.control.plan import PlaneRole
from switch.p4 import FOLDER

COMPILER, SWITCH = "p4c-bm2-ss", "simple_switch"
_HOW = (
    "build p4c and bmv2 from https://github.com/p4lang (no package registry has them) and put "
    "them on PATH, or take --data-plane p4, which runs the same programs without them"
)


def missing() -> str | None:
    """What cannot be found and how to get it, in one line; None where all is there."""
    absent = [name for name in (COMPILER, SWITCH) if shutil.which(name) is None]
    if not absent:
        return None
    are = "is" if len(absent) == 1 else "are"
    return f"{' and '.join(absent)} {are} not on PATH: {_HOW}"


def require() -> None:
    """Raises NoDataPlane where something is missing."""
    what = missing()
    if what is not None:
        raise NoDataPlane(f'the data plane "bmv2" cannot run here: {what}')


@cache
def notifications(switch: str, port: int) -> list[str]:
    """Flags that keep a switch's notifications in its network; else they leave a file in /tmp.

    A bmv2 that was built without nanomsg has none, and does not know the flag.
    """
    flag = "--notifications-addr"
    asked = subprocess.run([switch, "--help"], capture_output=True, text=True, errors="replace")
    return [flag, f"tcp://127.0.0.1:{port}"] if flag in asked.stdout + asked.stderr else []


def cache_directory() -> Path:
    """As the XDG base directory specification says."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "p4xos" / "bmv2"


def compiled(role: PlaneRole, defines: Mapping[str, str]) -> Path:
    """The JSON that `simple_switch` loads; made at the first use.

    Raises:
      NoDataPlane: there is no compiler, or it does not take the program.
    """
    require()
    kept = cache_directory()
    made = kept / f"{role}-{_digest(role, defines)}.json"
    if made.exists():
        return made
    kept.mkdir(parents=True, exist_ok=True)
    # One of the nodes that start together compiles, the others wait for it.
    with (kept / f"{role}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            unfinished = made.with_suffix(".unfinished")
            compile(role, defines, unfinished)
            unfinished.replace(made)
    return made


def compile(role: PlaneRole, defines: Mapping[str, str], output: Path) -> str:
    """Writes a program's JSON; what p4c says beside, nothing where it is content."""
    done = subprocess.run(
        [COMPILER, "--std", "p4-16", "-I", str(FOLDER), *(f"-D{k}={v}" for k, v in defines.items()),
         "-o", str(output), str(FOLDER / f"{role}.p4")],
        capture_output=True, text=True, errors="replace",
    )  # fmt: skip
    if done.returncode != 0:
        told = (done.stderr or done.stdout).strip()
        raise NoDataPlane(
            f"{COMPILER} ended with {done.returncode} on {role}.p4: {told}; this tree is known to "
            "compile with p4c 1.2.5"
        )
    return done.stderr


def _digest(role: PlaneRole, defines: Mapping[str, str]) -> str:
    digest = hashlib.sha256()
    for path in sorted(FOLDER.glob("*.p4")):
        digest.update(f"{path.name} {path.stat().st_size}\n".encode() + path.read_bytes())
    compiler = Path(shutil.which(COMPILER) or COMPILER).resolve()
    told = compiler.stat()
    digest.update(f"{compiler} {told.st_size} {told.st_mtime_ns}\n".encode())
    digest.update(repr((role, sorted(defines.items()))).encode())
    return digest.hexdigest()[:32]
