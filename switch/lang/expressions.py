"""Expressions: from trees to typed values, and what the names in them mean."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from difflib import get_close_matches
from typing import Literal as Spelled

from switch.lang import ir, operations, syntax
from switch.lang.errors import P4Error, unsupported
from switch.lang.ir import Bits, Bool, Where
from switch.lang.macros import integer
from switch.lang.types import (
    Distinct,
    Enumeration,
    Error,
    Extern,
    Integer,
    Record,
    Scalar,
    String,
    Type,
    carrier,
)
from switch.lang.values import (
    ActionName,
    BlockName,
    ExternName,
    Frame,
    FunctionName,
    Group,
    InstanceName,
    Listed,
    Literal,
    Meaning,
    Place,
    Result,
    TableName,
    TypeName,
    Unit,
    Value,
    kind_of,
    validity,
)
from switch.lang.values import String as StringValue

MAX_WIDTH = 1 << 16
"""Of bit<>: what is wider is a slip."""


# Types


def resolve(frame: Frame, tree: syntax.Type) -> Type:
    """The type that a tree spells."""
    match tree:
        case syntax.BitType(width, signed):
            bits = operations.constant(evaluate(frame, width), tree.where, "a width")
            if not 1 + signed <= bits <= MAX_WIDTH:
                raise P4Error(
                    tree.where, f"a width of {bits}: expected {1 + signed} to {MAX_WIDTH}"
                )
            return Bits(bits, signed)
        case syntax.PlainType(word):
            if word == "void":
                raise P4Error(tree.where, "void is the type of nothing here")
            words: dict[str, Type] = {
                "bool": Bool(), "error": Error(), "int": Integer(), "string": String(),
            }  # fmt: skip
            return words[word]
        case syntax.NamedType(name, arguments):
            meaning = find(frame, name, tree.where)
            if not isinstance(meaning, TypeName):
                raise P4Error(tree.where, f"{name} is {kind_of(meaning)}, expected a type")
            if arguments:
                raise P4Error(tree.where, f"{name} takes no types")
            return meaning.type


# Variables


def declare(unit: Unit, path: str, type_: Type, where: Where) -> Value | Group:
    """Variables for all that a type is made of."""
    match type_:
        case Record():
            return _declare_record(unit, path, type_, where)
        case Bits() | Bool() | Error() | Enumeration() | Distinct():
            base = carrier(type_)
            unit.variables[path] = base
            return Value(type_, ir.Read(path, base), Place(path))
        case Integer() | String() | Extern():
            raise P4Error(where, f"a variable of type {type_}: expected bits, a bool, a struct "
                          "or a header")  # fmt: skip


def _declare_record(unit: Unit, path: str, type_: Record, where: Where) -> Group:
    if type_.is_header:
        header = ir.Header(path, type_.name, tuple(
            (name, base) for name, each in type_.fields
            if isinstance(each, Scalar) and isinstance(base := carrier(each), Bits)
        ))  # fmt: skip
        unit.headers[path] = header
        unit.variables[header.valid] = Bool()
    fields = {name: declare(unit, f"{path}.{name}", each, where) for name, each in type_.fields}
    return Group(type_, fields, path)


def read_only(meaning: Value | Group) -> Value | Group:
    """The same, but it cannot be assigned."""
    if isinstance(meaning, Value):
        return Value(meaning.type, meaning.expression)
    fields = {name: read_only(each) for name, each in meaning.fields.items()}
    return Group(meaning.type, fields, meaning.path, False)


# Names


def find(frame: Frame, name: str, where: Where) -> Meaning:
    """What a name means; unknown ones are compared with those there are."""
    meaning = frame.scope.find(name)
    if meaning is None:
        close = get_close_matches(name, sorted(frame.scope.names()), n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise P4Error(where, f"{name} is not declared{hint}")
    return meaning


def meaning_of(frame: Frame, tree: syntax.Expression) -> Meaning:
    """What a tree stands for, which need not be a value."""
    match tree:
        case syntax.Name(name):
            return _placed(find(frame, name, tree.where), tree.where)
        case syntax.Member(operand, name):
            return _member(frame, operand, name, tree.where)
    return evaluate(frame, tree)


def _placed(meaning: Meaning, where: Where) -> Meaning:
    """With the place where it is used, for whoever explains a proof or a fault."""
    if isinstance(meaning, Value) and isinstance(meaning.expression, ir.Read | ir.Const):
        return replace(meaning, expression=replace(meaning.expression, where=where))
    return meaning


def _member(frame: Frame, operand: syntax.Expression, name: str, where: Where) -> Meaning:
    if isinstance(operand, syntax.Name) and operand.name == "error":
        return _error(frame, name, where)
    if isinstance(operand, syntax.Call) and name in ("hit", "miss"):
        return _hit(frame, operand, name == "hit", where)
    owner = meaning_of(frame, operand)
    if isinstance(owner, Group):
        found = owner.fields.get(name)
        if found is None:
            raise P4Error(where, f"{owner.type} has no field {name}{_among(name, owner.fields)}")
        return _placed(found, where)
    if isinstance(owner, TypeName) and isinstance(owner.type, Enumeration):
        members = dict(owner.type.members)
        if name not in members:
            raise P4Error(where, f"enum {owner.type} has no {name}{_among(name, members)}")
        return operations.scalar_constant(members[name], owner.type, where)
    raise P4Error(where, f"{kind_of(owner)} has no member {name}")


def _among(name: str, known: Mapping[str, object]) -> str:
    names = list(known)
    close = get_close_matches(name, names, n=1)
    return f"; did you mean {close[0]}?" if close else f"; it has {', '.join(names)}"


def _error(frame: Frame, name: str, where: Where) -> Value:
    errors = frame.unit.errors
    if name not in errors:
        raise P4Error(where, f"error has no {name}{_among(name, dict.fromkeys(errors))}")
    return operations.scalar_constant(errors.index(name), Error(), where)


# Expressions


def evaluate(frame: Frame, tree: syntax.Expression) -> Result:
    """The value of an expression; what it does on the way is put into the frame's block."""
    match tree:
        case syntax.Number(text):
            return _number(text, tree.where)
        case syntax.Truth(holds):
            return operations.scalar_constant(int(holds), Bool(), tree.where)
        case syntax.Text(text):
            return StringValue(text)
        case syntax.Name() | syntax.Member():
            meaning = meaning_of(frame, tree)
            if not isinstance(meaning, Result):
                raise P4Error(tree.where, f"found {kind_of(meaning)}, expected a value")
            return meaning
        case syntax.Slice(operand, high, low):
            top, bottom = (
                operations.constant(evaluate(frame, each), each.where, "a bound of a slice")
                for each in (high, low)
            )
            return operations.sliced(evaluate(frame, operand), top, bottom, tree.where)
        case syntax.Unary(operator, operand):
            return operations.unary(operator, evaluate(frame, operand), tree.where)
        case syntax.Binary():
            return _binary(frame, tree)
        case syntax.Cast(type_, operand):
            target = resolve(frame, type_)
            return operations.cast(evaluate(frame, operand), target, tree.where)
        case syntax.Choice():
            return _choice(frame, tree)
        case syntax.Call():
            return _call(frame, tree)
        case syntax.Several(items):
            return Listed(tuple((each.name, evaluate(frame, each.value)) for each in items))
        case syntax.Index():
            raise unsupported(tree.where, "header stacks and other indices; declare each header")
        case syntax.Masked() | syntax.Range() | syntax.Anything():
            raise P4Error(tree.where, "this is for entries and select cases, expected a value")


def _number(text: str, where: Where) -> Result:
    value = integer(text)
    for mark in ("w", "s"):
        width, found, _ = text.partition(mark)
        if found and width.isdigit():
            type_ = Bits(int(width), mark == "s")
            if not 1 + (mark == "s") <= type_.width <= MAX_WIDTH:
                raise P4Error(where, f"a width of {width}: expected 1 to {MAX_WIDTH}")
            return operations.of_literal(Literal(value), type_, where)
    return Literal(value)


def _binary(frame: Frame, tree: syntax.Binary) -> Result:
    left = evaluate(frame, tree.left)
    aside = frame.collecting()
    if tree.operator in ("&&", "||"):
        return _logical(frame, tree, left, aside)
    right = evaluate(aside, tree.right)
    if aside.block:  # the left one is read before what the right one does
        left = kept(frame, left)
        frame.block += aside.block
    return operations.binary(tree.operator, left, right, tree.where)


def kept(frame: Frame, result: Result) -> Result:
    """A value as it is now, whatever is done afterwards."""
    if not isinstance(result, Value) or result.constant is not None:
        return result
    copy = frame.temporary(result.type)
    assert copy.place is not None
    frame.emit(ir.Assign(copy.place.path, result.expression))
    return copy


def _logical(frame: Frame, tree: syntax.Binary, first: Result, aside: Frame) -> Value:
    left = operations.condition(first, tree.left.where)
    right = operations.condition(evaluate(aside, tree.right), tree.right.where)
    decided = int(tree.operator == "||")
    if left.constant is not None:
        if left.constant == decided:
            return left
        frame.block += aside.block
        return right
    if not aside.block:
        if right.constant is not None and right.constant != decided:
            return left
        both = left.expression, right.expression
        spelled: Spelled["&&", "||"] = "&&" if tree.operator == "&&" else "||"
        return Value(Bool(), ir.Binary(spelled, *both, Bool(), tree.where))
    result = frame.temporary(Bool())
    assert result.place is not None
    path = result.place.path
    both_count: ir.Block = (*aside.block, ir.Assign(path, right.expression, where=tree.where))
    left_decides: ir.Block = (ir.Assign(path, ir.Const(decided, Bool()), where=tree.where),)
    then, other = (left_decides, both_count) if decided else (both_count, left_decides)
    frame.emit(ir.If(left.expression, then, other, tree.where))
    return result


def _choice(frame: Frame, tree: syntax.Choice) -> Result:
    decision = operations.condition(evaluate(frame, tree.condition), tree.condition.where)
    aside, beside = frame.collecting(), frame.collecting()
    results = evaluate(aside, tree.then), evaluate(beside, tree.other)
    if decision.constant is not None:
        frame.block += aside.block if decision.constant else beside.block
        return results[0 if decision.constant else 1]
    then, other = _same_type(results[0], results[1], tree)
    if not aside.block and not beside.block:
        type_ = carrier(then.type)
        return Value(then.type, ir.Choice(
            decision.expression, then.expression, other.expression, type_, tree.where,
        ))  # fmt: skip
    result = frame.temporary(then.type)
    assert result.place is not None
    path = result.place.path
    first = (*aside.block, ir.Assign(path, then.expression, where=tree.where))
    second = (*beside.block, ir.Assign(path, other.expression, where=tree.where))
    frame.emit(ir.If(decision.expression, first, second, tree.where))
    return result


def _same_type(then: Result, other: Result, tree: syntax.Choice) -> tuple[Value, Value]:
    if isinstance(then, Literal) and not isinstance(other, Literal):
        second = operations.scalar(other, tree.other.where)
        return operations.of_literal(then, second.type, tree.then.where), second
    first = operations.scalar(then, tree.then.where)
    if isinstance(other, Literal):
        return first, operations.of_literal(other, first.type, tree.other.where)
    second = operations.scalar(other, tree.other.where)
    if first.type != second.type:
        raise P4Error(
            tree.where, f"? gives {first.type}, : gives {second.type}: expected one type; cast one"
        )
    return first, second


# Calls that are values


def _call(frame: Frame, tree: syntax.Call) -> Result:
    if isinstance(tree.operand, syntax.Member):
        owner = meaning_of(frame, tree.operand.operand)
        method = tree.operand.name
        if isinstance(owner, Group):
            return _of_header(owner, method, tree)
        if isinstance(owner, ExternName) and owner.kind == "packet_in" and method == "lookahead":
            return _lookahead(frame, tree)
        if isinstance(owner, TableName):
            raise P4Error(tree.where, "what apply() gives is no value: expected .hit or .miss "
                          "behind it, or switch (....action_run)")  # fmt: skip
        raise P4Error(tree.where, f"{method} of {kind_of(owner)} gives no value")
    meaning = meaning_of(frame, tree.operand)
    if isinstance(meaning, FunctionName | ActionName | InstanceName | BlockName):
        raise P4Error(tree.where, f"{kind_of(meaning)} gives no value: expected it as a statement")
    raise P4Error(tree.where, f"{kind_of(meaning)} cannot be called")


def _of_header(owner: Group, method: str, tree: syntax.Call) -> Result:
    sizes = {"minSizeInBits": 1, "maxSizeInBits": 1, "minSizeInBytes": 8, "maxSizeInBytes": 8}
    if method in sizes:
        bits = sum(_width(each.type) for each in owner.leaves())
        return Literal(-(-bits // sizes[method]))
    if method != "isValid":
        raise P4Error(tree.where, f"{method} gives no value, expected isValid()")
    if not owner.type.is_header or owner.path is None:
        raise P4Error(tree.where, f"isValid of {owner.type}: expected a header")
    no_arguments(tree, "isValid")
    return Value(Bool(), ir.Read(validity(owner.path), Bool(), tree.where))


def no_arguments(tree: syntax.Call, name: str) -> None:
    """Complains about any."""
    if tree.arguments or tree.types:
        raise P4Error(tree.where, f"{name}() takes no arguments")


def _width(type_: Scalar) -> int:
    base = carrier(type_)
    return base.width if isinstance(base, Bits) else 1


def _lookahead(frame: Frame, tree: syntax.Call) -> Result:
    if len(tree.types) != 1 or tree.arguments:
        raise P4Error(tree.where, "expected one type, as in lookahead<bit<8>>()")
    type_ = resolve(frame, tree.types[0])
    if isinstance(type_, Record):
        size = sum(_bits_of(each, tree.where) for _, each in type_.fields)
        group, rest = _cut(type_, Value(Bits(size), ir.Lookahead(Bits(size), tree.where)), size,
                           tree.where)  # fmt: skip
        assert rest == 0
        return group
    if not isinstance(type_, Bits):
        raise P4Error(tree.where, f"lookahead<{type_}>: expected bits, a header or a struct")
    if type_.signed:
        ahead = Value(Bits(type_.width), ir.Lookahead(Bits(type_.width), tree.where))
        return operations.cast(ahead, type_, tree.where)
    return Value(type_, ir.Lookahead(type_, tree.where))


def _bits_of(type_: Type, where: Where) -> int:
    if isinstance(type_, Record):
        return sum(_bits_of(each, where) for _, each in type_.fields)
    if not isinstance(type_, Scalar) or isinstance(type_, Bool):
        raise P4Error(where, f"lookahead of {type_}: expected bits")
    return _width(type_)


def _cut(type_: Record, whole: Value, top: int, where: Where) -> tuple[Group, int]:
    """The fields of a record from bits below `top`; what is left below them."""
    fields: dict[str, Value | Group] = {}
    for name, each in type_.fields:
        if isinstance(each, Record):
            fields[name], top = _cut(each, whole, top, where)
            continue
        assert isinstance(each, Scalar)
        low = top - _width(each)
        bits = operations.sliced(whole, top - 1, low, where)
        fields[name] = Value(each, bits.expression)
        top = low
    return Group(type_, fields, None, False), top


def _hit(frame: Frame, call: syntax.Call, hit: bool, where: Where) -> Value:
    """table.apply().hit: the lookup first, then its answer."""
    name = applied_table(frame, call)
    if name is None:
        raise P4Error(where, f"expected table.apply().{'hit' if hit else 'miss'}")
    if frame.kind != "control":
        raise P4Error(where, f"a table applied in {frame.kind}s: expected it in a control's apply")
    found = frame.temporary(Bool(), "$hit")
    assert found.place is not None
    frame.emit(ir.Apply(name.name, hit=found.place.path, where=where))
    if hit:
        return found
    return Value(Bool(), ir.Unary("!", found.expression, Bool(), where))


def applied_table(frame: Frame, call: syntax.Expression) -> TableName | None:
    """The table of `table.apply()`, if it is that."""
    if not isinstance(call, syntax.Call) or not isinstance(call.operand, syntax.Member):
        return None
    if call.operand.name != "apply":
        return None
    owner = meaning_of(frame, call.operand.operand)
    if not isinstance(owner, TableName):
        return None
    no_arguments(call, "apply")
    return owner
