"""p4c and bmv2 themselves. Where they are, all tests of switches run on them as well as here.

Those are: the vectors and the random traffic (tests/switch/test_conformance.py), and the cluster
whose switches are killed (tests/system/test_bmv2.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from p4xos import wire
from p4xos.effects import LEARNERS
from p4xos.testing import vectors
from switch.bmv2 import programs
from switch.bmv2.layout import Layout
from switch.bmv2.plane import Bmv2Plane
from switch.control.backend import REGISTERS, SLOT_REGISTERS
from switch.control.entries import VALUE_SIZES, sizes
from switch.control.p4_plane import program
from switch.control.plan import PlaneRole
from tests.switch.bmv2.needed import why_not
from tests.switch.planes import plan

if why_not() is not None:
    pytest.skip(
        "NOT RUN ON p4c AND bmv2, only on the interpreter: vectors, random traffic, cluster, a "
        f"killed switch; {why_not()}",
        allow_module_level=True,
    )


@pytest.mark.parametrize("role", ["acceptor", "coordinator"])
@pytest.mark.parametrize("acceptors", [1, 3, 15])
@pytest.mark.parametrize("value_bytes", [min(VALUE_SIZES), max(VALUE_SIZES)])
def test_p4c_takes_the_programs_without_a_warning(
    tmp_path: Path, role: PlaneRole, acceptors: int, value_bytes: int
) -> None:
    defines = sizes(value_bytes=value_bytes, window=256, acceptors=acceptors)
    made = tmp_path / "made.json"
    assert programs.compile(role, defines, made) == ""
    layout = Layout.read(made)
    read = program(role, value_bytes=value_bytes, window=256, acceptors=acceptors)
    own = {name.rpartition(".")[2]: each for name, each in read.registers.items()}
    assert {n: (r.bits, r.size) for n, r in layout.registers.items()} == {
        n: (r.width, r.size) for n, r in own.items()
    }
    expected = REGISTERS[role] + (SLOT_REGISTERS if role == "acceptor" else ())
    assert set(layout.registers) == set(expected)


def test_bmv2_loses_nothing_of_what_is_sent_at_once() -> None:
    """Many batches, each as large as is ever under way, told to as many learners as may be."""
    plane = Bmv2Plane()
    plane.load(plan("acceptor", 0, window=1024, value_bytes=128, learners=7))
    plane.write("low", 1)
    plane.open()
    votes = wire.from_messages([
        vectors.read(vectors.packet(f'PHASE2A instance={k} round=1.0 low=1 value="{k}"'))
        for k in range(1, 1025)
    ])  # fmt: skip
    try:
        assert [to for to, _ in plane.inject(votes)] == [LEARNERS] * 1024
        assert plane.statistics()["votes"] == 1024
    finally:
        plane.teardown()
