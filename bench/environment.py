"""The machine that a figure belongs to, and whether anything else is using it."""

from __future__ import annotations

import os
import platform
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from p4xos.compiled import compiled_modules

LOAD_QUIET = 0.5
"""A load average (one minute) above it: something ran here that the figures do not tell about."""
BUSY_QUIET = 0.1
"""A share of all cores in use before the run above it: something is running here right now."""
LOOK_S = 1.0
"""How long to look at the cores before the run."""

_DISKLESS = ("tmpfs", "ramfs", "devtmpfs")


class Environment(NamedTuple):
    """What is printed above the figures, and goes with each of them."""

    cpu: str
    cores: int  # that this process may use
    kernel: str
    python: str
    numpy: str
    compiled: bool  # whether the modules of `make compiled` run, in this process and its children
    load_average: float  # of the last minute, before the run
    busy_share: float  # of all cores, just before the run, 0 to 1
    scratch: str  # where the data of the run are kept
    file_system: str

    def header(self) -> str:
        """The machine in two lines."""
        return (
            f"{self.cpu}, {self.cores} cores, Linux {self.kernel}, Python {self.python}, "
            f"numpy {self.numpy}, {'compiled' if self.compiled else 'not compiled'}\n"
            f"data in {self.scratch} ({self.file_system}); load average {self.load_average:.2f}, "
            f"{self.busy_share:.0%} of the cores in use before the run"
        )

    def warnings(self) -> list[str]:
        """Why the figures are not to be believed; empty on a quiet machine with a disk."""
        found = []
        if self.load_average > LOAD_QUIET or self.busy_share > BUSY_QUIET:
            found.append(
                "the machine is not quiet: these figures are lower bounds, and only ratios within "
                "one run mean something; stop what else runs here, wait a minute, run again"
            )
        if self.file_system in _DISKLESS:
            found.append(
                f"{self.scratch} is in memory ({self.file_system}): durable writes cost nothing "
                "there; name a directory on a disk with --directory"
            )
        return found


def look(scratch: Path, look_s: float = LOOK_S) -> Environment:
    """The environment now; takes `look_s` seconds to see whether the cores are in use."""
    return Environment(
        cpu=_cpu_model(Path("/proc/cpuinfo").read_text()),
        cores=len(os.sched_getaffinity(0)),
        kernel=platform.release(),
        python=platform.python_version(),
        numpy=np.__version__,
        compiled=bool(compiled_modules()),
        load_average=os.getloadavg()[0],
        busy_share=_busy_share(look_s),
        scratch=str(scratch),
        file_system=file_system(scratch, Path("/proc/mounts").read_text()),
    )


def _cpu_model(text: str) -> str:
    """The first model name of /proc/cpuinfo; other architectures have none."""
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return " ".join(value.split())
    return platform.machine()


def file_system(path: Path, mounts: str) -> str:
    """The type of the file system that holds a path, by the text of /proc/mounts."""
    path = path.resolve()
    found, depth = "unknown", -1
    for line in mounts.splitlines():
        _, point, kind, *_ = line.split(" ")
        mount = Path(point.replace("\\040", " "))
        # Of two mounts at one place the later covers the earlier.
        if path.is_relative_to(mount) and len(mount.parts) >= depth:
            found, depth = kind, len(mount.parts)
    return found


def _busy_share(seconds: float) -> float:
    before = _ticks()
    time.sleep(seconds)
    after = _ticks()
    total = after[0] - before[0]
    return 1 - (after[1] - before[1]) / total if total else 0.0


def _ticks() -> tuple[int, int]:
    """Clock ticks of all cores since boot: all, and those in which they were idle."""
    first = Path("/proc/stat").read_text().split("\n", 1)[0]
    user, nice, system, idle, iowait, irq, softirq, steal = map(int, first.split()[1:9])
    return user + nice + system + idle + iowait + irq + softirq + steal, idle + iowait
