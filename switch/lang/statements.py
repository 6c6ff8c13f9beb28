"""Statements: what they do to variables; calls are in `switch.lang.calls`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from switch.lang import calls, ir, operations, syntax
from switch.lang.errors import P4Error
from switch.lang.expressions import applied_table, declare, evaluate, resolve
from switch.lang.ir import Bool, Where
from switch.lang.moving import assign
from switch.lang.types import PLAIN_ENUM_BITS, Integer, Type, carrier
from switch.lang.values import Frame, Group, Literal, Result, TableName, Value


def lower_all(frame: Frame, items: Iterable[syntax.Statement]) -> None:
    """Statements one after another, in the names of the frame."""
    for item in items:
        lower(frame, item)


def lower(frame: Frame, tree: syntax.Statement) -> None:
    """One statement."""
    match tree:
        case syntax.Assignment(target, value):
            _no_table(frame, tree.target)
            place = evaluate(frame, target)
            assign(frame, place, evaluate(frame, value), target, value.where)
        case syntax.CallStatement(call):
            calls.lower(frame, call)
        case syntax.If():
            _if(frame, tree)
        case syntax.Block(items):
            lower_all(frame.inner(), items)
        case syntax.Switch():
            _switch(frame, tree)
        case syntax.Return():
            _only(frame, tree.where, "return")
            frame.emit(ir.Return(tree.where))
        case syntax.Exit():
            _only(frame, tree.where, "exit")
            frame.emit(ir.Exit(tree.where))
        case syntax.Empty():
            pass
        case syntax.Variable():
            variable(frame, tree)
        case syntax.Constant():
            constant(frame, tree)
        case syntax.Instance():
            raise P4Error(tree.where, f"{tree.type.name}() {tree.name}: expected it before apply")


def _no_table(frame: Frame, target: syntax.Expression) -> None:
    if isinstance(target, syntax.Call):
        raise P4Error(target.where, "a call cannot be assigned: expected a variable")


def _only(frame: Frame, where: Where, word: str) -> None:
    if frame.kind not in ("control", "action"):
        raise P4Error(where, f"{word} in a {frame.kind}: expected it in a control or an action")


def collected(frame: Frame, tree: syntax.Statement | None) -> ir.Block:
    """A statement's block, apart."""
    aside = Frame(frame.unit, frame.prefix, frame.inner().scope, frame.kind)
    if tree is not None:
        lower(aside, tree)
    return tuple(aside.block)


def _if(frame: Frame, tree: syntax.If) -> None:
    condition = operations.condition(evaluate(frame, tree.condition), tree.condition.where)
    then, other = collected(frame, tree.then), collected(frame, tree.other)
    if condition.constant is not None:
        frame.block += then if condition.constant else other
    else:
        frame.emit(ir.If(condition.expression, then, other, tree.where))


# Declarations among statements


def variable(frame: Frame, tree: syntax.Variable) -> None:
    """A local variable, with its first value."""
    type_ = resolve(frame, tree.type)
    value = evaluate(frame, tree.value) if tree.value is not None else None
    path = frame.unit.free(frame.named(tree.name))
    meaning = declare(frame.unit, path, type_, tree.where)
    frame.scope.declare(tree.name, meaning, tree.where)
    if isinstance(meaning, Group):
        for header in meaning.headers():
            assert header.path is not None
            frame.emit(ir.SetInvalid(header.path, tree.where))
    if value is not None and tree.value is not None:
        name = syntax.Name(tree.name, tree.where)
        assign(frame, meaning, value, name, tree.value.where)


def constant(frame: Frame, tree: syntax.Constant) -> None:
    """A name for a value that is known."""
    aside = frame.collecting()
    value = constant_of(resolve(frame, tree.type), evaluate(aside, tree.value), tree.value.where)
    frame.scope.declare(tree.name, value, tree.where)


def constant_of(type_: Type, value: Result, where: Where) -> Result:
    """The value of a constant of a type."""
    if isinstance(type_, Integer):
        return Literal(operations.constant(value, where, "a constant"))
    result = operations.convert(value, type_, where)
    leaves = [result] if isinstance(result, Value) else list(result.leaves())
    if any(leaf.constant is None for leaf in leaves):
        raise P4Error(where, "a constant's value must be known when the program is read")
    return result


# switch


def _switch(frame: Frame, tree: syntax.Switch) -> None:
    table = _switched_table(frame, tree)
    if table is not None:
        chosen = frame.temporary(PLAIN_ENUM_BITS, "$action")
        assert chosen.place is not None
        frame.emit(ir.Apply(table.name, action=chosen.place.path, where=tree.where))
        labels = [_action_label(case, table) for case in tree.cases]
        _chain(frame, tree, chosen, labels)
        return
    subject = operations.scalar(evaluate(frame, tree.subject), tree.subject.where)
    stable = evaluate_once(frame, subject)
    _chain(frame, tree, stable, [_value_label(frame, case, subject) for case in tree.cases])


def evaluate_once(frame: Frame, value: Value) -> Value:
    """A value that no branch changes."""
    copy = frame.temporary(value.type)
    assert copy.place is not None
    frame.emit(ir.Assign(copy.place.path, value.expression))
    return copy


def _switched_table(frame: Frame, tree: syntax.Switch) -> TableName | None:
    subject = tree.subject
    if not isinstance(subject, syntax.Member) or subject.name != "action_run":
        return None
    table = applied_table(frame, subject.operand)
    if table is None:
        raise P4Error(subject.where, "expected table.apply().action_run")
    if frame.kind != "control":
        raise P4Error(tree.where, f"a table applied in an {frame.kind}: expected it in a control")
    return table


def _action_label(case: syntax.SwitchCase, table: TableName) -> int | None:
    match case.label:
        case syntax.Anything():
            return None
        case syntax.Name(name) if name in table.labels:
            return table.labels[name]
    known = ", ".join(table.labels)
    raise P4Error(case.where, f"this is no action of the table, expected one of {known}")


def _value_label(frame: Frame, case: syntax.SwitchCase, subject: Value) -> int | None:
    if isinstance(case.label, syntax.Anything):
        return None
    value = operations.convert(evaluate(frame, case.label), subject.type, case.where)
    assert isinstance(value, Value)
    if value.constant is None:
        raise P4Error(case.where, "a label must be known when the program is read")
    return value.constant


def _chain(frame: Frame, tree: syntax.Switch, subject: Value, labels: Sequence[int | None]) -> None:
    """Ifs, the first label first; labels without a block share the next one."""
    arms: list[tuple[list[int], bool, ir.Block, Where]] = []
    waiting: list[int] = []
    seen: set[int | None] = set()
    default = False
    for case, label in zip(tree.cases, labels, strict=True):
        if label in seen:
            raise P4Error(case.where, "this label is there already")
        if default:
            raise P4Error(case.where, "expected nothing behind default")
        seen.add(label)
        default = label is None
        waiting += [label] if label is not None else []
        if case.block is not None:
            arms.append((waiting, default, collected(frame, case.block), case.where))
            waiting = []
    rest: ir.Block = ()
    for numbers, is_default, block, where in reversed(arms):
        rest = block if is_default else (ir.If(_any_of(subject, numbers), block, rest, where),)
    frame.block += rest


def _any_of(subject: Value, numbers: Sequence[int]) -> ir.Expression:
    base = carrier(subject.type)
    tests: list[ir.Expression] = [
        ir.Binary("==", subject.expression, ir.Const(number, base), Bool()) for number in numbers
    ]
    found = tests[0]
    for test in tests[1:]:
        found = ir.Binary("||", found, test, Bool())
    return found
