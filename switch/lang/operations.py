"""Types of operations, their folding where operands are known, and casts.

Source: P4-16 language specification 1.2.4, sections 8.5 to 8.11.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal as Spelled

from switch.lang import ir
from switch.lang.errors import P4Error
from switch.lang.ir import Bits, Bool, Where
from switch.lang.types import Distinct, Enumeration, Record, Scalar, Type, carrier
from switch.lang.values import Group, Listed, Literal, Result, String, Value

MAX_SHIFT = 1 << 16
"""Of numbers without a width: what lies above is a slip, and would fill the memory."""


def type_of(result: Result) -> str:
    """The type, in words."""
    match result:
        case Value():
            return str(result.type)
        case Literal():
            return "int"
        case String():
            return "string"
        case Group():
            return str(result.type)
        case Listed():
            return "a list"


def scalar_constant(value: int, type_: Scalar, where: Where) -> Value:
    """A value that is known, wrapped to its type."""
    base = carrier(type_)
    width = base.width if isinstance(base, Bits) else 1
    return Value(type_, ir.Const(value & ((1 << width) - 1), base, where))


def signed_value(value: int, type_: ir.Type) -> int:
    """The number that bits stand for."""
    if isinstance(type_, Bits) and type_.signed and value >> (type_.width - 1):
        return value - (1 << type_.width)
    return value


def of_literal(literal: Literal, type_: Type, where: Where) -> Value:
    """A number without a width gets one; it must fit."""
    if not isinstance(type_, Bits):
        raise P4Error(where, f"found the number {literal.value}, expected {type_}")
    low = -(1 << (type_.width - 1)) if type_.signed else 0
    high = 1 << (type_.width - type_.signed)
    if not low <= literal.value < high:
        raise P4Error(where, f"{literal.value} does not fit {type_}: expected {low} to {high - 1}")
    return scalar_constant(literal.value, type_, where)


def convert(result: Result, type_: Type, where: Where) -> Value | Group:
    """As an assignment does it: nothing changes but numbers, lists and enums that have a type."""
    match result:
        case Literal():
            if not isinstance(type_, Record):
                return of_literal(result, type_, where)
        case Value():
            if result.type == type_:
                return result
            if isinstance(result.type, Enumeration) and result.type.carrier == type_:
                assert isinstance(type_, Bits)
                return Value(type_, result.expression)
        case Group():
            if result.type == type_:
                return result
        case Listed():
            if isinstance(type_, Record):
                return _gathered(result, type_, where)
    raise P4Error(where, f"found {type_of(result)}, expected {type_}{_mend(result, type_)}")


def _mend(result: Result, type_: Type) -> str:
    castable = isinstance(result, Value) and isinstance(type_, Bits | Distinct | Enumeration)
    if castable and not isinstance(result.type, Bool):  # type: ignore[union-attr]  # a Value
        return f"; write ({type_}) in front of it to cast it"
    return ""


def _gathered(listed: Listed, type_: Record, where: Where) -> Group:
    if len(listed.items) != len(type_.fields):
        raise P4Error(
            where, f"found a list of {len(listed.items)}, expected the {len(type_.fields)} "
            f"fields of {type_}",
        )  # fmt: skip
    by_name = {name: each for name, each in listed.items if name is not None}
    fields: dict[str, Value | Group] = {}
    for (name, field_type), (_, item) in zip(type_.fields, listed.items, strict=True):
        if by_name and name not in by_name:
            raise P4Error(where, f"the field {name} of {type_} is missing in this list")
        fields[name] = convert(by_name.get(name, item), field_type, where)
    return Group(type_, fields, None, False)


def scalar(result: Result, where: Where) -> Value:
    """A scalar with a width, or an error."""
    if isinstance(result, Literal):
        raise P4Error(where, f"{result.value} has no width here: write 32w{result.value}, or cast")
    if not isinstance(result, Value):
        raise P4Error(where, f"found {type_of(result)}, expected bits, a bool or an enum")
    return result


def condition(result: Result, where: Where) -> Value:
    """A bool."""
    if not isinstance(result, Value) or result.type != Bool():
        mend = "; compare it: != 0" if isinstance(result, Literal | Value) else ""
        raise P4Error(where, f"found {type_of(result)}, expected bool{mend}")
    return result


def constant(result: Result, where: Where, what: str) -> int:
    """A number that is known."""
    if isinstance(result, Literal):
        return result.value
    if isinstance(result, Value) and result.constant is not None:
        return signed_value(result.constant, carrier(result.type))
    raise P4Error(where, f"{what} must be known when the program is read: expected a constant")


# Casts


def cast(result: Result, type_: Type, where: Where) -> Result:
    """(type) operand."""
    if isinstance(result, Listed | Group):
        return convert(result, type_, where)
    if isinstance(type_, Record) or not isinstance(type_, Scalar):
        if str(type_) == "int":
            return Literal(constant(result, where, "what is cast to int"))
        raise P4Error(where, f"{type_of(result)} cannot be cast to {type_}")
    if isinstance(result, Literal):
        return _cast_literal(result, type_, where)
    value = scalar(result, where)
    if value.type == type_:
        return Value(type_, value.expression)
    if not _castable(value.type, type_):
        raise P4Error(where, f"{value.type} cannot be cast to {type_}{_through(value, type_)}")
    base, target = carrier(value.type), carrier(type_)
    if base == target:
        return Value(type_, value.expression)
    if value.constant is not None:
        return scalar_constant(signed_value(value.constant, base), type_, where)
    return Value(type_, ir.Cast(value.expression, target, where))


def _cast_literal(literal: Literal, type_: Scalar, where: Where) -> Value:
    base = carrier(type_)
    if isinstance(base, Bool) and literal.value not in (0, 1):
        raise P4Error(where, f"{literal.value} cannot be cast to bool: expected 0 or 1")
    return scalar_constant(literal.value, type_, where)


def _castable(source: Scalar, target: Scalar) -> bool:
    if isinstance(source, Distinct):
        return target == source.base
    if isinstance(target, Distinct):
        return source == target.base
    if isinstance(source, Enumeration):
        return isinstance(target, Bits) and source.carrier is not None
    if isinstance(target, Enumeration):
        return isinstance(source, Bits) and source == target.carrier
    if isinstance(source, Bits) and isinstance(target, Bits):
        return source.signed == target.signed or source.width == target.width
    bit = Bits(1)
    return (source, target) in ((bit, Bool()), (Bool(), bit))


def _through(value: Value, type_: Scalar) -> str:
    source = value.type
    if isinstance(source, Bits) and isinstance(type_, Bits):
        return f"; cast to {Bits(type_.width, source.signed)} first"
    if isinstance(source, Bits) and isinstance(type_, Bool):
        return "; compare it: != 0"
    if isinstance(source, Distinct):
        return f"; cast to {source.base} first"
    return ""


# Operators of one operand


def unary(operator: str, result: Result, where: Where) -> Result:
    """`-`, `+`, `~`, `!`."""
    if operator == "!":
        value = condition(result, where)
        if value.constant is not None:
            return scalar_constant(1 - value.constant, Bool(), where)
        return Value(Bool(), ir.Unary("!", value.expression, Bool(), where))
    if isinstance(result, Literal) and operator != "~":
        return Literal(-result.value if operator == "-" else result.value)
    value = scalar(result, where)
    if not isinstance(value.type, Bits):
        raise P4Error(where, f"{operator} of {value.type}: expected bits")
    if operator == "+":
        return Value(value.type, value.expression)
    if value.constant is not None:
        folded = -value.constant if operator == "-" else ~value.constant
        return scalar_constant(folded, value.type, where)
    spelled: Spelled["-", "~"] = "-" if operator == "-" else "~"
    return Value(value.type, ir.Unary(spelled, value.expression, value.type, where))


# Operators of two

_ARITHMETIC: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
}
_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
}


def binary(operator: str, left: Result, right: Result, where: Where) -> Result:
    """Any operator between two operands but `&&` and `||`, which may leave one out."""
    if operator in ("<<", ">>"):
        return _shift(operator, left, right, where)
    if isinstance(left, Literal) and isinstance(right, Literal):
        return _of_literals(operator, left.value, right.value, where)
    if operator == "++":
        return _concatenated(scalar(left, where), scalar(right, where), where)
    first, second = _unified(operator, left, right, where)
    if operator in _COMPARISONS:
        return _compared(operator, first, second, where)
    if not isinstance(first.type, Bits):
        raise P4Error(where, f"{operator} of {first.type}: expected bits")
    if operator in ("/", "%"):
        if first.type.signed:
            raise P4Error(where, f"{operator} of {first.type}: it is for bit<> only")
        if second.constant == 0:
            raise P4Error(where, "division by zero")
    if first.constant is not None and second.constant is not None:
        return _folded(operator, first, second, where)
    return Value(first.type, ir.Binary(
        operator, first.expression, second.expression, first.type, where,  # type: ignore[arg-type]
    ))  # fmt: skip  # the grammar has no other operators


def _unified(operator: str, left: Result, right: Result, where: Where) -> tuple[Value, Value]:
    """Both of one type: a number takes the other's, an enum with a type may give up its name."""
    for result in (left, right):
        if isinstance(result, Group | Listed | String):
            raise P4Error(where, f"{operator} of {type_of(result)}: expected bits; compare fields")
    if isinstance(left, Literal):
        second = _plain(scalar(right, where))
        return of_literal(left, second.type, where), second
    first = scalar(left, where)
    if isinstance(right, Literal):
        first = _plain(first)
        return first, of_literal(right, first.type, where)
    second = scalar(right, where)
    if first.type != second.type:
        first, second = _plain(first), _plain(second)
    if first.type != second.type:
        raise P4Error(
            where, f"{operator} of {first.type} and {second.type}: expected one type; cast one"
        )
    return first, second


def _plain(value: Value) -> Value:
    if isinstance(value.type, Enumeration) and value.type.carrier is not None:
        return Value(value.type.carrier, value.expression)
    return value


def _compared(operator: str, first: Value, second: Value, where: Where) -> Value:
    if operator not in ("==", "!=") and not isinstance(first.type, Bits):
        raise P4Error(where, f"{operator} of {first.type}: expected bits; it has no order")
    if first.constant is not None and second.constant is not None:
        base = carrier(first.type)
        holds = _COMPARISONS[operator](
            signed_value(first.constant, base), signed_value(second.constant, base)
        )
        return scalar_constant(int(holds), Bool(), where)
    return Value(Bool(), ir.Binary(
        operator, first.expression, second.expression, Bool(), where,  # type: ignore[arg-type]
    ))  # fmt: skip  # the grammar has no other operators


def _folded(operator: str, first: Value, second: Value, where: Where) -> Value:
    assert isinstance(first.type, Bits)
    assert first.constant is not None
    assert second.constant is not None
    left = signed_value(first.constant, first.type)
    right = signed_value(second.constant, first.type)
    if operator in ("|+|", "|-|"):
        lowest = -(1 << (first.type.width - 1)) if first.type.signed else 0
        highest = (1 << (first.type.width - first.type.signed)) - 1
        exact = left + right if operator == "|+|" else left - right
        return scalar_constant(min(max(exact, lowest), highest), first.type, where)
    return scalar_constant(_ARITHMETIC[operator](left, right), first.type, where)


def _of_literals(operator: str, left: int, right: int, where: Where) -> Result:
    if operator in _COMPARISONS:
        return scalar_constant(int(_COMPARISONS[operator](left, right)), Bool(), where)
    if operator not in _ARITHMETIC or operator in ("&", "|", "^"):
        raise P4Error(where, f"{operator} of two numbers without a width: write 32w{left}")
    if operator in ("/", "%"):
        if right == 0:
            raise P4Error(where, "division by zero")
        if left < 0 or right < 0:
            raise P4Error(where, f"{operator} of a negative number")
    return Literal(_ARITHMETIC[operator](left, right))


def _concatenated(first: Value, second: Value, where: Where) -> Value:
    if not isinstance(first.type, Bits) or not isinstance(second.type, Bits):
        raise P4Error(where, f"++ of {first.type} and {second.type}: expected bits")
    type_ = Bits(first.type.width + second.type.width, first.type.signed)
    if first.constant is not None and second.constant is not None:
        return scalar_constant(first.constant << second.type.width | second.constant, type_, where)
    return Value(type_, ir.Binary("++", first.expression, second.expression, type_, where))


def _shift(operator: str, left: Result, right: Result, where: Where) -> Result:
    if isinstance(right, Literal):
        if not 0 <= right.value < MAX_SHIFT:
            raise P4Error(where, f"a shift by {right.value}: expected 0 to {MAX_SHIFT - 1}")
        if isinstance(left, Literal):
            shifted = left.value << right.value if operator == "<<" else left.value >> right.value
            return Literal(shifted)
        right = of_literal(right, Bits(32), where)
    first, second = scalar(left, where), _plain(scalar(right, where))
    if not isinstance(first.type, Bits) or not isinstance(second.type, Bits):
        raise P4Error(where, f"{operator} of {first.type} by {second.type}: expected bits")
    if second.type.signed:
        raise P4Error(where, f"a shift by {second.type}: expected bit<>, which is never negative")
    if first.constant is not None and second.constant is not None:
        value, by = signed_value(first.constant, first.type), min(second.constant, MAX_SHIFT)
        return scalar_constant(value << by if operator == "<<" else value >> by, first.type, where)
    spelled: Spelled["<<", ">>"] = "<<" if operator == "<<" else ">>"
    return Value(
        first.type, ir.Binary(spelled, first.expression, second.expression, first.type, where)
    )


# Slices


def sliced(result: Result, high: int, low: int, where: Where) -> Value:
    """Bits `high` to `low`."""
    value = scalar(result, where)
    if not isinstance(value.type, Bits):
        raise P4Error(where, f"a slice of {value.type}: expected bits")
    if not 0 <= low <= high < value.type.width:
        raise P4Error(
            where, f"the slice [{high}:{low}] of {value.type}: expected "
            f"{value.type.width - 1} >= high >= low >= 0",
        )  # fmt: skip
    type_ = Bits(high - low + 1)
    if value.constant is not None:
        return scalar_constant(value.constant >> low, type_, where)
    place = value.place
    if place is not None:
        base = place.low or 0
        place = type(place)(place.path, base + high, base + low)
    return Value(type_, ir.Slice(value.expression, high, low, type_, where), place)
