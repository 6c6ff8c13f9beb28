"""The programs are proved, and the formulas do what the interpreter does with them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import z3

import switch.p4
from p4xos.wire import Type
from switch.lang import load
from switch.verify.counterexample import counterexample
from switch.verify.pipeline import Passage, passage
from switch.verify.proof import holds_in
from switch.verify.solving import EFFORT_MAX, new_solver
from switch.verify.verifier import property_names, role_of, verify
from tests.switch.verify.test_gallery import ALL, SMALL

PROGRAMS = Path(switch.p4.__file__).parent
DOCUMENT = Path(switch.p4.__file__).parents[2] / "docs" / "switch.md"
SIZES = [SMALL, {"VERIFY": 1}] if ALL else [SMALL]
"""The default sizes take twice as long: `make gallery`."""
ANSWERED = {
    "acceptor": (Type.PHASE1A, Type.PHASE2A, Type.LEARN, Type.READ_INDEX, Type.RECORD),
    "coordinator": (Type.REQUEST,),
}


@pytest.mark.parametrize("sizes", SIZES, ids=["small", "default"][: len(SIZES)])
@pytest.mark.parametrize("name", ["acceptor", "coordinator"])
def test_every_property_of_a_program_is_proved(name: str, sizes: dict[str, int]) -> None:
    program = load(PROGRAMS / f"{name}.p4", sizes)
    report = verify(program)
    assert {finding.name for finding in report.findings} == property_names(program).keys()
    assert [(each.name, each.text) for each in report.findings if not each.holds] == []
    assert report.assumptions


@pytest.mark.parametrize("name", ["acceptor", "coordinator"])
def test_every_property_is_documented(name: str) -> None:
    """In the table of docs/switch.md."""
    text = DOCUMENT.read_text(encoding="utf-8")
    names = property_names(load(PROGRAMS / f"{name}.p4", SMALL))
    assert [each for each in names if f"`{each}`" not in text] == []


@cache
def small(name: str) -> Passage:
    return passage(load(PROGRAMS / f"{name}.p4", SMALL))


@pytest.mark.parametrize(
    ("name", "type_"), [(name, type_) for name, types in ANSWERED.items() for type_ in types]
)
def test_a_packet_that_is_answered_is_answered_alike(name: str, type_: Type) -> None:
    """A model of the formulas: packet, registers, tables, and what leaves; then the interpreter."""
    whole = small(name)
    role = role_of(whole.machine.program)
    assert role is not None
    step = role.step(whole)
    solver = new_solver(EFFORT_MAX)
    solver.add(*whole.machine.assumptions, *(value == 0 for value in whole.machine.undefined))
    solver.add(whole.sent, step.received.type == type_, role.invariant(step))
    assert solver.check() == z3.sat
    model = solver.model()
    assert holds_in(model, step.heard)
    found = counterexample(whole, model)
    assert found.expected.port is not None
    assert found.replay() == []
