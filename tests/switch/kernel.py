"""What tests of programs in the kernel need; they skip loudly where it is not there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import weakref
from ctypes.util import find_library
from pathlib import Path
from typing import ClassVar

import pytest

from switch.control.plan import Plan
from switch.xdp.plane import XdpPlane


def missing() -> str:
    """What keeps programs from being loaded here; empty: nothing."""
    if os.geteuid() != 0:
        return "loading programs into the kernel needs root"
    if shutil.which("clang") is None:
        return "there is no clang (Debian: apt-get install clang libbpf-dev)"
    if find_library("bpf") is None:
        return "there is no libbpf (Debian: apt-get install libbpf-dev)"
    return ""


in_the_kernel = pytest.mark.skipif(bool(missing()), reason=missing())


def held(process: int) -> set[tuple[str, int]]:
    """What the kernel keeps for a process: links, programs and maps, by kind and number."""
    found = set()
    for info in Path(f"/proc/{process}/fdinfo").iterdir():
        try:
            text = info.read_text()
        except OSError:
            continue  # closed meanwhile
        pairs = re.findall(r"^(link|prog|map)_id:\s*(\d+)$", text, re.MULTILINE)
        found |= {(kind, int(number)) for kind, number in pairs}
    return found


def in_kernel() -> set[tuple[str, int]]:
    """Every link, program and map there is."""
    found = set()
    for kind in ("link", "prog", "map"):
        told = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, check=True)
        found |= {(kind, item["id"]) for item in json.loads(told.stdout)}
    return found


class ReusedXdpPlane(XdpPlane):
    """Reset where it was loaded for the same before: compiler and verifier take a while."""

    _kept: ClassVar[dict[str, ReusedXdpPlane]] = {}

    def load(self, plan: Plan) -> None:
        before = self._kept.get(repr(plan))
        if before is None:
            self._kept[repr(plan)] = self
            super().load(plan)
        else:
            self.__dict__ = before.__dict__
            self.reset()

    def teardown(self) -> None:
        self.reset()


class UnwiredXdpPlane(XdpPlane):
    """On no interface: nothing changes. Each is used again when it was left."""

    _left: ClassVar[dict[str, list[dict[str, object]]]] = {}

    def load(self, plan: Plan) -> None:
        left = self._left.setdefault(repr(plan), [])
        if left:
            self.__dict__.update(left.pop())
            self._endpoints.write(self._endpoint.pack())  # closed, as when it was loaded
            self.reset()
        else:
            super().load(plan)
        self._leave = weakref.finalize(self, left.append, self.__dict__.copy())

    def teardown(self) -> None:
        self._leave()

    def keep_up(self) -> float:
        return 1.0
