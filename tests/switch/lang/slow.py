"""Expressions by hand: a value is a list of bits, the lowest first, and addition carries.

Independent of the interpreter on purpose: no Python arithmetic on values but where a number of
places is counted.
"""

from __future__ import annotations

from switch.lang import ir

Value = list[bool]


def to_bits(number: int, width: int) -> Value:
    return [bool(number >> place & 1) for place in range(width)]


def to_number(bits: Value) -> int:
    return sum(1 << place for place, bit in enumerate(bits) if bit)


def evaluate(expression: ir.Expression, variables: dict[str, int]) -> Value:
    """Its bits; a Bool is one of them."""
    match expression:
        case ir.Const(value, type_):
            return to_bits(value, width_of(type_))
        case ir.Read(path, type_):
            return to_bits(variables[path], width_of(type_))
        case ir.Unary("-", operand):
            return negative(evaluate(operand, variables))
        case ir.Unary(_, operand):
            return inverse(evaluate(operand, variables))
        case ir.Slice(operand, high, low):
            return evaluate(operand, variables)[low : high + 1]
        case ir.Choice(condition, then, other):
            return evaluate(then if evaluate(condition, variables)[0] else other, variables)
        case ir.Cast(operand, type_):
            bits = evaluate(operand, variables)
            fill = bits[-1] if is_signed(operand.type) else False
            return (bits + [fill] * width_of(type_))[: width_of(type_)]
        case ir.Binary():
            left = evaluate(expression.left, variables)
            right = evaluate(expression.right, variables)
            return binary(expression.operator, left, right, is_signed(expression.left.type))
    raise AssertionError(expression)


def width_of(type_: ir.Type) -> int:
    return type_.width if isinstance(type_, ir.Bits) else 1


def is_signed(type_: ir.Type) -> bool:
    return isinstance(type_, ir.Bits) and type_.signed


def inverse(bits: Value) -> Value:
    return [not bit for bit in bits]


def add(left: Value, right: Value, carry: bool = False) -> tuple[Value, bool]:
    """The sum, and what is carried out of it."""
    out = []
    for a, b in zip(left, right, strict=True):
        out.append(a ^ b ^ carry)
        carry = (a and b) or (a and carry) or (b and carry)
    return out, carry


def negative(bits: Value) -> Value:
    return add(inverse(bits), [False] * len(bits), carry=True)[0]


def multiply(left: Value, right: Value) -> Value:
    total = [False] * len(left)
    for place, bit in enumerate(right):
        if bit:
            total = add(total, ([False] * place + left)[: len(left)])[0]
    return total


def less(left: Value, right: Value, signed: bool) -> bool:
    """From the top: the first place where they differ decides, the other way round for a sign."""
    for place in reversed(range(len(left))):
        if left[place] != right[place]:
            return left[place] if signed and place == len(left) - 1 else right[place]
    return False


def divide(left: Value, right: Value) -> tuple[Value, Value]:
    """Quotient and remainder of unsigned numbers, by the school's way."""
    quotient, rest = [False] * len(left), [False] * len(left)
    for place in reversed(range(len(left))):
        top, rest = rest[-1], [left[place], *rest[:-1]]
        if top or not less(rest, right, signed=False):
            rest = add(rest, inverse(right), carry=True)[0]
            quotient[place] = True
    return quotient, rest


def shift(left: Value, right: Value, up: bool, fill: bool) -> Value:
    out = list(left)
    # More steps than there are places change nothing more.
    for _ in range(min(to_number(right), len(left))):
        out = [fill, *out[:-1]] if up else [*out[1:], fill]
    return out


def saturated(left: Value, right: Value, minus: bool, signed: bool) -> Value:
    """One place more holds every result; what does not come back unchanged is clamped."""
    wide_left, wide_right = (
        [*bits, bits[-1] if signed else False, bits[-1] if signed else False]
        for bits in (left, right)
    )
    if minus:
        wide_right = negative(wide_right)
    wide = add(wide_left, wide_right)[0]
    width, below = len(left), wide[-1]
    if not signed:
        if below:
            return [False] * width
        return [True] * width if any(wide[width:]) else wide[:width]
    if all(bit == below for bit in wide[width - 1 :]):
        return wide[:width]
    return [not below] * (width - 1) + [below]


def binary(operator: str, left: Value, right: Value, signed: bool) -> Value:
    match operator:
        case "+":
            return add(left, right)[0]
        case "-":
            return add(left, inverse(right), carry=True)[0]
        case "*":
            return multiply(left, right)
        case "/":
            return divide(left, right)[0]
        case "%":
            return divide(left, right)[1]
        case "|+|" | "|-|":
            return saturated(left, right, operator == "|-|", signed)
        case "&":
            return [a and b for a, b in zip(left, right, strict=True)]
        case "|":
            return [a or b for a, b in zip(left, right, strict=True)]
        case "^":
            return [a != b for a, b in zip(left, right, strict=True)]
        case "<<":
            return shift(left, right, up=True, fill=False)
        case ">>":
            return shift(left, right, up=False, fill=signed and left[-1])
        case "++":
            return right + left
        case "==":
            return [left == right]
        case "!=":
            return [left != right]
        case "<":
            return [less(left, right, signed)]
        case "<=":
            return [not less(right, left, signed)]
        case ">":
            return [less(right, left, signed)]
        case ">=":
            return [not less(left, right, signed)]
        case "&&":
            return [left[0] and right[0]]
        case "||":
            return [left[0] or right[0]]
    raise AssertionError(operator)
