"""Assignments: of scalars, slices, headers, structs and lists."""

from __future__ import annotations

from switch.lang import ir, operations, printer, syntax
from switch.lang.errors import P4Error
from switch.lang.expressions import kept
from switch.lang.ir import Bool, Where
from switch.lang.values import Frame, Group, Listed, Result, Value, validity
from switch.lang.walking import reads


def assign(
    frame: Frame, target: Result, value: Result, tree: syntax.Expression, where: Where
) -> None:
    """What `target = value;` does; both have been evaluated."""
    spelled = printer.expression(tree)
    if isinstance(target, Value):
        if target.place is None:
            raise P4Error(tree.where, f"{spelled} cannot be assigned{_why(target)}")
        source = operations.convert(value, target.type, where)
        assert isinstance(source, Value)
        store(frame, target, source, tree.where)
    elif isinstance(target, Group):
        if not target.writable:
            raise P4Error(tree.where, f"{spelled} cannot be assigned: it can only be read")
        group = operations.convert(value, target.type, where)
        assert isinstance(group, Group)
        if isinstance(value, Listed) and _mixed(target, group):
            group = _kept(frame, group)
        move(frame, target, group, tree.where)
    else:
        found = operations.type_of(target)
        raise P4Error(tree.where, f"{spelled} is {found}, expected a variable")


def _why(target: Value) -> str:
    return ": it is a constant" if target.constant is not None else ": it can only be read"


def store(frame: Frame, target: Value, source: Value, where: Where) -> None:
    """Into a variable, or bits of one."""
    place = target.place
    assert place is not None
    frame.emit(ir.Assign(place.path, source.expression, place.high, place.low, where))


def _mixed(target: Group, source: Group) -> bool:
    written = {leaf.place.path for leaf in target.leaves() if leaf.place is not None}
    return bool(written & reads(*(leaf.expression for leaf in source.leaves())))


def _kept(frame: Frame, group: Group) -> Group:
    """Copies, since a list may name what is assigned: x = {x.b, x.a}."""
    fields: dict[str, Value | Group] = {}
    for name, each in group.fields.items():
        if isinstance(each, Group):
            fields[name] = _kept(frame, each)
        else:
            copy = kept(frame, each)
            assert isinstance(copy, Value)
            fields[name] = copy
    return Group(group.type, fields, None, False)


def move(frame: Frame, target: Group, source: Group, where: Where) -> None:
    """Each field; a header's validity too."""
    if target.path is not None and target.path == source.path:
        return
    if not target.type.is_header:
        _move_fields(frame, target, source, where)
        return
    assert target.path is not None
    aside = frame.collecting()
    aside.emit(ir.SetValid(target.path, where))
    _move_fields(aside, target, source, where)
    if source.path is None:
        frame.block += aside.block
        return
    valid = ir.Read(validity(source.path), Bool(), where)
    invalid = (ir.SetInvalid(target.path, where),)
    frame.emit(ir.If(valid, tuple(aside.block), invalid, where))


def _move_fields(frame: Frame, target: Group, source: Group, where: Where) -> None:
    for name, into in target.fields.items():
        value = source.fields[name]
        if isinstance(into, Group):
            assert isinstance(value, Group)
            move(frame, into, value, where)
        else:
            assert isinstance(value, Value)
            store(frame, into, value, where)
