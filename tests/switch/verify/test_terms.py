"""Terms compute what the interpreter computes."""

from __future__ import annotations

import random
from typing import Literal, get_args

import pytest
import z3

from switch.lang import ir
from switch.lang.interpreter import arithmetic
from switch.lang.interpreter.expressions import Expressions
from switch.verify.terms import Term, Unsupported, matches, term

Operator = Literal[
    "+", "-", "*", "|+|", "|-|", "&", "|", "^", "<<", ">>", "++", "==", "!=", "<", "<=", ">", ">="
]
COMPARISONS = {"==", "!=", "<", "<=", ">", ">="}


def no_reads(read: ir.Read, guard: Term) -> Term:
    raise AssertionError("constants alone")


def by_solver(expression: ir.Expression) -> int:
    value = z3.simplify(term(expression, no_reads, z3.BoolVal(True)))
    return int(z3.is_true(value)) if z3.is_bool(value) else int(value.as_long())


def by_interpreter(expression: ir.Expression) -> int:
    text = Expressions(lambda where: 0).text(expression)
    return int(eval(text, dict(vars(arithmetic))))


def drawn(draw: random.Random, width: int) -> int:
    edges = [0, 1, (1 << width) - 1, 1 << width - 1, (1 << width - 1) - 1]
    return draw.choice([*edges, draw.getrandbits(width), draw.getrandbits(width)])


@pytest.mark.parametrize("signed", [False, True], ids=["bit", "int"])
@pytest.mark.parametrize("operator", get_args(Operator))
def test_operators(operator: Operator, signed: bool) -> None:
    draw = random.Random(f"{operator} {signed}")
    for _ in range(60):
        width = draw.choice([1, 3, 8, 64])
        type_ = ir.Bits(width, signed)
        other = ir.Bits(draw.choice([4, 9])) if operator in ("<<", ">>") else type_
        left = ir.Const(drawn(draw, width), type_)
        right = ir.Const(drawn(draw, other.width), other)
        result: ir.Type = type_
        if operator in COMPARISONS:
            result = ir.Bool()
        elif operator == "++":
            result = ir.Bits(2 * width)
        expression = ir.Binary(operator, left, right, result)
        assert by_solver(expression) == by_interpreter(expression), expression


@pytest.mark.parametrize("signed", [False, True], ids=["bit", "int"])
def test_casts_slices_and_unary_operators(signed: bool) -> None:
    draw = random.Random(signed)
    for _ in range(60):
        width, to = draw.choice([1, 5, 16]), draw.choice([1, 5, 16, 33])
        operand = ir.Const(drawn(draw, width), ir.Bits(width, signed))
        high = draw.randrange(width)
        low = draw.randrange(high + 1)
        for expression in (
            ir.Cast(operand, ir.Bits(to, signed)),
            ir.Slice(operand, high, low, ir.Bits(high - low + 1)),
            ir.Unary("-", operand, operand.type),
            ir.Unary("~", operand, operand.type),
        ):
            assert by_solver(expression) == by_interpreter(expression), expression


def test_a_read_behind_a_condition_is_told_with_it() -> None:
    asked: list[Term] = []
    a, b = z3.Bools("a b")

    def read(e: ir.Read, guard: Term) -> Term:
        asked.append(guard)
        return {"a": a, "b": b}[e.path]

    both = ir.Binary("&&", ir.Read("a", ir.Bool()), ir.Read("b", ir.Bool()), ir.Bool())
    value = term(both, read, z3.BoolVal(True))
    assert [z3.simplify(guard).sexpr() for guard in asked] == ["true", "a"]
    assert z3.simplify(value == z3.And(a, b)).sexpr() == "true"


@pytest.mark.parametrize(
    ("match", "taken"),
    [
        (ir.Match("exact", 5), {5}),
        (ir.Match("ternary", 4, 6), {4, 5, 12, 13}),
        (ir.Match("lpm", 8, 12), {8, 9, 10, 11}),
        (ir.Match("range", 3, high=5), {3, 4, 5}),
        (ir.Match("any"), set(range(16))),
    ],
    ids=lambda value: value.kind if isinstance(value, ir.Match) else "",
)
def test_matches(match: ir.Match, taken: set[int]) -> None:
    held = {n for n in range(16) if z3.is_true(z3.simplify(matches(match, z3.BitVecVal(n, 4))))}
    assert held == taken


def test_what_has_no_formula_is_told_with_its_place() -> None:
    ahead = ir.Lookahead(ir.Bits(8), ir.Where("a.p4", 3, 7))
    with pytest.raises(Unsupported, match=r"a\.p4:3:7: lookahead outside of a parser"):
        term(ahead, no_reads, z3.BoolVal(True))
