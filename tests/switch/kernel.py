"""What tests of programs in the kernel need; they skip loudly where it is not there."""

from __future__ import annotations

import os
import shutil
from ctypes.util import find_library
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
