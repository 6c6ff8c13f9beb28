"""Expressions of the representation as Python text.

Every text stands in brackets of its own, or is a name or number. Bits become an int of their
width; a Bool becomes something that Python takes for true or false, and 0 or 1 by `stored`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from switch.lang import ir

_SAME = {"&", "|", "^"}
_WRAP = {"+", "-", "*"}
_COMPARE = {"==", "!=", "<", "<=", ">", ">="}


def mask(width: int) -> str:
    """All ones, in hex."""
    return hex((1 << width) - 1)


def width_of(type_: ir.Type) -> int:
    """Bits that a value takes."""
    return type_.width if isinstance(type_, ir.Bits) else 1


class Expressions:
    """Translates; where an operation has no result, the text calls `fault` with a number."""

    def __init__(self, division_by_zero: Callable[[ir.Where], int]) -> None:
        self._division_by_zero = division_by_zero

    def stored(self, expression: ir.Expression) -> str:
        """As a variable holds it: Bools are 0 or 1."""
        text = self.text(expression)
        if isinstance(expression.type, ir.Bool) and not isinstance(expression, ir.Const | ir.Read):
            return f"(1 if {text} else 0)"
        return text

    def concatenated(self, data: Sequence[ir.Expression]) -> tuple[str, int]:
        """The fields one behind the other, and how many bits that is."""
        bits = sum(width_of(each.type) for each in data)
        left, parts = bits, []
        for each in data:
            left -= width_of(each.type)
            parts.append(f"{self.stored(each)} << {left}" if left else self.stored(each))
        return f"({' | '.join(parts) or '0'})", bits

    def text(self, expression: ir.Expression) -> str:
        """Its value."""
        match expression:
            case ir.Const(value):
                return hex(value) if value > 9 else str(value)
            case ir.Read(path):
                return f"v[{path!r}]"
            case ir.Unary("!", operand):
                return f"(not {self.text(operand)})"
            case ir.Unary("~", operand):
                return f"({self.text(operand)} ^ {mask(width_of(expression.type))})"
            case ir.Unary(_, operand):
                return f"(-{self.text(operand)} & {mask(width_of(expression.type))})"
            case ir.Binary():
                return self._binary(expression)
            case ir.Cast():
                return self._cast(expression)
            case ir.Slice(operand, high, low):
                return f"({self.text(operand)} >> {low} & {mask(high - low + 1)})"
            case ir.Choice(condition, then, other):
                return f"({self.stored(then)} if {self.text(condition)} else {self.stored(other)})"
            case ir.Lookahead(type_):
                return f"lookahead(raw, left, {type_.width})"

    def _binary(self, expression: ir.Binary) -> str:
        operator, type_ = expression.operator, expression.left.type
        left, right = self.text(expression.left), self.text(expression.right)
        width = width_of(type_)
        signed = isinstance(type_, ir.Bits) and type_.signed
        if operator in _SAME:
            return f"({left} {operator} {right})"
        if operator in _WRAP:
            return f"({left} {operator} {right} & {mask(width)})"
        if operator in ("&&", "||"):
            return f"({left} {'and' if operator == '&&' else 'or'} {right})"
        if operator == "++":
            return f"({left} << {width_of(expression.right.type)} | {right})"
        if operator in ("==", "!=") and isinstance(type_, ir.Bool):
            return f"(bool({left}) {operator} bool({right}))"
        if operator in _COMPARE:
            # Two's complement with its top bit turned over is in the order of the numbers.
            over = f" ^ {hex(1 << width >> 1)}" if signed and operator not in ("==", "!=") else ""
            return f"(({left}{over}) {operator} ({right}{over}))"
        if operator == "<<":
            return f"shifted_left({left}, {right}, {width})"
        if operator == ">>":
            if signed:
                return f"shifted_right_signed({left}, {right}, {width})"
            return f"({left} >> {right})"
        if operator in ("|+|", "|-|"):
            sign = operator[1]
            if signed:
                both = f"as_signed({left}, {width}) {sign} as_signed({right}, {width})"
                return f"clamped_signed({both}, {width})"
            return f"clamped({left} {sign} {right}, {width})"
        assert not signed, f"{expression.where}: the language has no signed {operator}"
        if isinstance(expression.right, ir.Const) and expression.right.value:
            return f"({left} {'//' if operator == '/' else '%'} {right})"
        function = "divided" if operator == "/" else "remainder"
        return f"{function}({left}, {right}, fault, {self._division_by_zero(expression.where)})"

    def _cast(self, expression: ir.Cast) -> str:
        operand, target = expression.operand, expression.type
        text, source = self.text(operand), operand.type
        if isinstance(target, ir.Bool):
            return text
        if isinstance(source, ir.Bool):
            return self.stored(operand)
        if target.width < source.width:
            return f"({text} & {mask(target.width)})"
        if target.width > source.width and source.signed:
            return f"(as_signed({text}, {source.width}) & {mask(target.width)})"
        return text
