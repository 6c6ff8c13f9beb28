"""Both engines answer alike, and the laws of order are true."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import pytest
import z3

from switch.verify.ordering import laws
from switch.verify.solving import (
    EFFORT_MAX,
    is_impossible,
    is_plainly_impossible,
    new_solver,
)
from switch.verify.terms import Term

A, B, C, D, E = z3.BitVecs("a b c d e", 64)
NARROW = z3.BitVecs("x y z", 16)
YES, NO = z3.Bools("yes no")
Engine = Callable[[Sequence[Term]], bool]


def by_bits(formulas: Sequence[Term]) -> bool:
    solver = new_solver(EFFORT_MAX)
    solver.add(*formulas)
    return bool(solver.check() == z3.unsat)


ENGINES: dict[str, Engine] = {
    "words": is_plainly_impossible,
    "words and laws": partial(is_plainly_impossible, with_laws=True),
    "bits": by_bits,
    "one, then the other": is_impossible,
}
CHAIN = [z3.ULE(A, B), z3.ULE(B, C), z3.ULE(C, D), z3.ULE(D, E), z3.ULT(E, A)]
"""A long round: no two of its comparisons contradict each other."""
CHOICE = [z3.ULE(z3.If(YES, A, B), C), z3.ULT(C, A), z3.ULT(C, B)]


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("question", [CHAIN, CHOICE], ids=["chain", "choice"])
def test_what_cannot_be_is_impossible(engine: Engine, question: list[Term]) -> None:
    assert engine(question)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES.keys())
@pytest.mark.parametrize("question", [CHAIN, CHOICE], ids=["chain", "choice"])
def test_what_can_be_is_not(engine: Engine, question: list[Term]) -> None:
    for number in range(len(question)):
        assert not engine([*question[:number], *question[number + 1 :]])


@pytest.mark.parametrize(
    "formulas",
    [
        CHAIN,
        CHOICE,
        [z3.ULE(A, 3), z3.ULE(3, B), A == B],
        [z3.ULE(z3.If(YES, z3.If(NO, A, B), C), D), z3.ULE(D, A), A == C, z3.ULE(B, E)],
        [z3.ULE(NARROW[0], NARROW[1] - 1), z3.ULE(NARROW[1], NARROW[2]), NARROW[0] == NARROW[2]],
    ],
)
def test_laws_hold_of_all_numbers(formulas: list[Term]) -> None:
    told = laws(formulas)
    assert told
    # By the engine that is told none.
    assert by_bits([z3.Not(z3.And(told))])


def test_with_its_laws_order_needs_no_bits() -> None:
    """Each comparison a plain unknown of which nothing is known but the laws."""
    for question in (CHAIN, CHOICE):
        normal = list(z3.Then("simplify", "propagate-values").apply(z3.And(question))[0])
        formulas = [z3.simplify(each) for each in (*normal, *laws(normal))]
        unknowns: dict[int, tuple[Term, Term]] = {}
        left = list(formulas)
        while left:
            formula = left.pop()
            if z3.is_app_of(formula, z3.Z3_OP_ULEQ) or (
                z3.is_eq(formula) and z3.is_bv(formula.arg(0))
            ):
                name = z3.Bool(f"comparison.{formula.get_id()}")
                unknowns[formula.get_id()] = (formula, name)
            else:
                left += formula.children()
        solver = z3.SimpleSolver()
        solver.add(*(z3.substitute(each, *unknowns.values()) for each in formulas))
        assert solver.check() == z3.unsat


def test_what_is_given_up_is_no_proof() -> None:
    """No square leaves 2 when it is divided by 4; to see that takes some effort."""
    impossible = [A * A + 1 == B * 4 + 3]
    assert not is_plainly_impossible(impossible, effort=10)
    assert not is_impossible(impossible, effort=10)
    assert is_impossible(impossible)
