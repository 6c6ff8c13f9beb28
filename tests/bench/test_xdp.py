"""What the scenario of the kernel measures besides the closed loop: small, and to its end."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import xdp
from bench.xdp import SIDES, Side
from tests.switch.kernel import in_the_kernel
from tests.system.test_data_plane import environment

pytestmark = in_the_kernel


@pytest.mark.parametrize("side", SIDES, ids=lambda side: side.name)
def test_a_quorum_answers_a_plain_socket(
    side: Side, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = environment(tmp_path / "installed")  # the kernel's data plane, installed or not
    monkeypatch.setenv("PYTHONPATH", found["PYTHONPATH"])
    taken_us = xdp.quorums_us(tmp_path / "run" / "quorum", side, 200)
    assert len(taken_us) == 180
    assert (taken_us > 0).all()


def test_programs_alone() -> None:
    assert xdp.acceptor_alone_ns(10_000) > 0
    assert xdp.coordinator_alone_ns(10_000) > 0


