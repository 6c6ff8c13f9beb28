"""Expressions of the representation as z3 terms.

P4's arithmetic is that of bit vectors; what differs from z3 is written out here: saturation,
shifts by an amount of another width, signs. A read that happens only under a condition, behind
`&&`, `||` or `?:`, is reported with that condition: a header's field may be read there, and
nowhere else, when the condition says that the header is valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import z3

from switch.lang import ir

Term = Any
"""A z3 expression; z3 tells type checkers nothing about itself."""
Reader = Callable[[ir.Read, Term], Term]
"""Gives a variable's value; also told under which condition the value is used."""
Ahead = Callable[[int], Term]
"""Gives the next bits of the packet, as many as asked for."""


class Unsupported(ValueError):
    """A construct that the verifier has no formula for."""

    def __init__(self, where: ir.Where, found: str) -> None:
        super().__init__(f"{where}: {found}: the verifier cannot express it")


def term(
    expression: ir.Expression, read: Reader, guard: Term, lookahead: Ahead | None = None
) -> Term:
    """An expression's value: a Bool for ir.Bool, else a BitVec of its width.

    Args:
      expression: of the program.
      read: gives the variables' values.
      guard: under which condition the expression is evaluated.
      lookahead: in a parser, the packet.
    """

    def go(e: ir.Expression, under: Term) -> Term:
        match e:
            case ir.Const():
                return constant(e.value, e.type)
            case ir.Read():
                return read(e, under)
            case ir.Unary():
                operand = go(e.operand, under)
                return {"-": lambda: -operand, "~": lambda: ~operand, "!": lambda: z3.Not(operand)}[
                    e.operator
                ]()
            case ir.Binary(operator="&&"):
                left = go(e.left, under)
                return z3.And(left, go(e.right, z3.And(under, left)))
            case ir.Binary(operator="||"):
                left = go(e.left, under)
                return z3.Or(left, go(e.right, z3.And(under, z3.Not(left))))
            case ir.Binary():
                return _binary(e, go(e.left, under), go(e.right, under))
            case ir.Cast():
                return _cast(e, go(e.operand, under))
            case ir.Slice():
                return z3.Extract(e.high, e.low, go(e.operand, under))
            case ir.Choice():
                condition = go(e.condition, under)
                then = go(e.then, z3.And(under, condition))
                return z3.If(condition, then, go(e.other, z3.And(under, z3.Not(condition))))
            case ir.Lookahead():
                if lookahead is None:
                    raise Unsupported(e.where, "lookahead outside of a parser")
                return lookahead(e.type.width)

    return go(expression, guard)


def constant(value: int, type_: ir.Type) -> Term:
    """A number as a term of a type."""
    if isinstance(type_, ir.Bool):
        return z3.BoolVal(bool(value))
    return z3.BitVecVal(value, type_.width)


def symbol(name: str, type_: ir.Type) -> Term:
    """An unknown of a type."""
    return z3.Bool(name) if isinstance(type_, ir.Bool) else z3.BitVec(name, type_.width)


def resized(value: Term, width: int, signed: bool = False) -> Term:
    """A bit vector cut off or extended to a width."""
    size = value.size()
    if size == width:
        return value
    if size > width:
        return z3.Extract(width - 1, 0, value)
    return (z3.SignExt if signed else z3.ZeroExt)(width - size, value)


def matches(match: ir.Match, value: Term) -> Term:
    """Whether a key, or a select expression, fulfils a match."""
    if match.kind == "any":
        return z3.BoolVal(True)
    if z3.is_bool(value):
        return value == z3.BoolVal(bool(match.value))
    width = value.size()
    wanted = z3.BitVecVal(match.value, width)
    if match.kind == "exact":
        return value == wanted
    if match.kind == "range":
        return z3.And(z3.UGE(value, wanted), z3.ULE(value, z3.BitVecVal(match.high, width)))
    mask = z3.BitVecVal(match.mask, width)
    return value & mask == wanted & mask


def _cast(e: ir.Cast, operand: Term) -> Term:
    source, target = e.operand.type, e.type
    if isinstance(target, ir.Bool):
        return operand if isinstance(source, ir.Bool) else operand == 1
    if isinstance(source, ir.Bool):
        return z3.If(operand, z3.BitVecVal(1, target.width), z3.BitVecVal(0, target.width))
    return resized(operand, target.width, source.signed)


def _binary(e: ir.Binary, left: Term, right: Term) -> Term:
    type_ = e.left.type
    signed = isinstance(type_, ir.Bits) and type_.signed
    match e.operator:
        case "+":
            return left + right
        case "-":
            return left - right
        case "*":
            return left * right
        case "/":
            return left / right if signed else z3.UDiv(left, right)
        case "%":
            return z3.SRem(left, right) if signed else z3.URem(left, right)
        case "|+|" | "|-|":
            return _saturated(e.operator, left, right, signed)
        case "&":
            return left & right
        case "|":
            return left | right
        case "^":
            return left ^ right
        case "<<" | ">>":
            return _shifted(e.operator, left, right, signed)
        case "++":
            return z3.Concat(left, right)
        case "==":
            return left == right
        case "!=":
            return left != right
        case "<":
            return left < right if signed else z3.ULT(left, right)
        case "<=":
            return left <= right if signed else z3.ULE(left, right)
        case ">":
            return left > right if signed else z3.UGT(left, right)
        case ">=":
            return left >= right if signed else z3.UGE(left, right)
    raise Unsupported(e.where, f"the operator {e.operator}")


def _saturated(operator: str, left: Term, right: Term, signed: bool) -> Term:
    """In two bits more nothing wraps, and what does not fit is seen."""
    width = left.size()
    wide = [resized(side, width + 2, signed) for side in (left, right)]
    exact = wide[0] + wide[1] if operator == "|+|" else wide[0] - wide[1]
    least, most = (-(1 << width - 1), (1 << width - 1) - 1) if signed else (0, (1 << width) - 1)
    low, high = z3.BitVecVal(least, width + 2), z3.BitVecVal(most, width + 2)
    return z3.Extract(width - 1, 0, z3.If(exact < low, low, z3.If(exact > high, high, exact)))


def _shifted(operator: str, left: Term, right: Term, signed: bool) -> Term:
    """By the full amount: 256 in eight bits more than the left operand has is not 0."""
    width = left.size()
    wide = max(width, right.size())
    amount, value = resized(right, wide), resized(left, wide, signed and operator == ">>")
    if operator == "<<":
        shifted = value << amount
    else:
        shifted = value >> amount if signed else z3.LShR(value, amount)
    return z3.Extract(width - 1, 0, shifted)
