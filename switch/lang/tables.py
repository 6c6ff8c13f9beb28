"""Tables and actions: what is declared in a control."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from switch.lang import ir, operations, printer, syntax
from switch.lang.calls import finding, in_order
from switch.lang.errors import P4Error, unsupported
from switch.lang.expressions import declare, evaluate, find, read_only, resolve
from switch.lang.ir import Bits, Where
from switch.lang.statements import lower_all
from switch.lang.types import Record, carrier
from switch.lang.values import (
    ActionName,
    ActionParameter,
    ExternName,
    Frame,
    Group,
    Scope,
    TableName,
    Unit,
    Value,
    kind_of,
)

DEFAULT_SIZE = 1024
"""bmv2's, of a table that says nothing."""

NO_ACTION = "NoAction"

_Kind = Literal["exact", "lpm", "ternary", "range", "optional"]


# Actions


def declare_action(frame: Frame, tree: syntax.Action) -> None:
    """An action's parameters become variables, its body a block."""
    name = frame.named(tree.name)
    inner = Frame(frame.unit, name, Scope(frame.scope), "action")
    parameters = tuple(_parameter(inner, each) for each in tree.parameters)
    plain = [each for each in parameters if not each.direction]
    if plain and parameters[-len(plain) :] != tuple(plain):
        raise P4Error(tree.where, f"{tree.name}: expected parameters without a direction last; "
                      "tables give them")  # fmt: skip
    body = inner.inner()
    lower_all(body, tree.body.items)
    block = tuple(inner.block)
    given = tuple(
        ir.Parameter(each.name, each.variable.place.path, carrier(each.variable.type))
        for each in plain
        if isinstance(each.variable, Value) and each.variable.place is not None
    )
    frame.unit.actions[name] = ir.Action(name, given, block, tree.where)
    meaning = ActionName(name, parameters, exits(frame.unit, block))
    frame.scope.declare(tree.name, meaning, tree.where)


def _parameter(frame: Frame, tree: syntax.Parameter) -> ActionParameter:
    type_ = resolve(frame, tree.type)
    if not tree.direction and isinstance(type_, Record):
        raise P4Error(tree.where, f"{tree.name} has type {type_}: a table can only give bits")
    variable = declare(frame.unit, frame.unit.free(frame.named(tree.name)), type_, tree.where)
    seen = variable if tree.direction in ("out", "inout") else read_only(variable)
    frame.scope.declare(tree.name, seen, tree.where)
    return ActionParameter(tree.name, tree.direction, type_, variable)


def exits(unit: Unit, block: ir.Block) -> bool:
    """Whether a block may end the control, itself or by an action."""
    for statement in block:
        match statement:
            case ir.Exit():
                return True
            case ir.If(_, then, other) if exits(unit, then) or exits(unit, other):
                return True
            case ir.Call(name) if exits(unit, unit.actions[name].body):
                return True
            case ir.Apply(name):
                actions = unit.tables[name].actions
                if any(exits(unit, unit.actions[each].body) for each in actions):
                    return True
    return False


# Tables


def declare_table(frame: Frame, tree: syntax.Table) -> None:
    """A table with its keys, actions and entries."""
    properties = _Properties(tree)
    keys = tuple(_key(frame, each) for each in properties.keys)
    actions = [_listed(frame, each) for each in properties.actions]
    labels = {spelled: index for index, (spelled, _) in enumerate(actions)}
    if len(labels) != len(actions):
        raise P4Error(tree.where, f"table {tree.name} lists an action twice")
    default, default_is_const = _default(frame, properties, actions)
    names = [action.name for _, action in actions]
    if default.action not in names:  # NoAction, which needs no mention
        labels[NO_ACTION] = len(names)
        names.append(default.action)
    name = frame.named(tree.name)
    entries, are_const = properties.entries, properties.entries_are_const
    lowered = tuple(_entry(frame, each, keys, actions) for each in entries)
    size = _size(frame, properties, len(entries), are_const)
    frame.unit.actions.setdefault(NO_ACTION, ir.Action(NO_ACTION, (), ()))
    frame.unit.tables[name] = ir.Table(
        name, tuple(key for key, _ in keys), tuple(names), default, default_is_const, lowered,
        are_const, size, tree.where,
    )  # fmt: skip
    _attach_counter(frame, properties, name)
    frame.scope.declare(tree.name, TableName(name, tuple(names), labels), tree.where)


class _Properties:
    """The properties of a table, each at most once."""

    def __init__(self, tree: syntax.Table) -> None:
        self.tree = tree
        self.keys: tuple[syntax.Key, ...] = ()
        self.actions: tuple[syntax.ActionReference, ...] = ()
        self.entries: tuple[syntax.Entry, ...] = ()
        self.entries_are_const = False
        self.others: dict[str, syntax.Property] = {}
        seen: set[str] = set()
        for each in tree.properties:
            name = each.name if isinstance(each, syntax.Property) else type(each).__name__.lower()
            if name in seen:
                raise P4Error(each.where, f"table {tree.name} has {name} twice")
            seen.add(name)
            match each:
                case syntax.Keys(keys):
                    self.keys = keys
                case syntax.Actions(actions):
                    self.actions = actions
                case syntax.Entries(entries, is_const):
                    self.entries, self.entries_are_const = entries, is_const
                case syntax.Property():
                    self._other(each)
        if "actions" not in seen:
            raise P4Error(tree.where, f"table {tree.name} has no actions: expected actions = {{}}")

    def _other(self, tree: syntax.Property) -> None:
        known = ("default_action", "size", "counters")
        if tree.name in ("meters", "implementation", "support_timeout", "psa_direct_counter"):
            raise unsupported(tree.where, f"the table property {tree.name}")
        if tree.name not in known:
            raise P4Error(tree.where, f"{tree.name} is no property of a table; known are key, "
                          f"actions, entries, {', '.join(known)}")  # fmt: skip
        self.others[tree.name] = tree


def _key(frame: Frame, tree: syntax.Key) -> tuple[ir.Key, Value]:
    if tree.kind not in get_args(_Kind):
        known = ", ".join(get_args(_Kind))
        raise P4Error(tree.where, f"{tree.kind} is no way to match; known are {known}")
    value = operations.scalar(evaluate(frame, tree.expression), tree.where)
    if tree.kind in ("lpm", "range", "ternary") and not isinstance(carrier(value.type), Bits):
        raise P4Error(tree.where, f"{_a(tree.kind)} key of {value.type}: expected bits")
    kind: _Kind = tree.kind  # type: ignore[assignment]  # checked above
    return ir.Key(value.expression, kind, printer.expression(tree.expression)), value


def _listed(frame: Frame, tree: syntax.ActionReference) -> tuple[str, ActionName]:
    spelled = tree.action
    if isinstance(spelled, syntax.Call) and not spelled.arguments:
        spelled = spelled.operand
    if isinstance(spelled, syntax.Call):
        raise unsupported(tree.where, "arguments in a table's list of actions")
    if not isinstance(spelled, syntax.Name):
        raise P4Error(tree.where, "expected the name of an action")
    action = finding(frame, spelled.name, tree.where)
    if any(each.direction for each in action.parameters):
        raise unsupported(tree.where, f"{spelled.name} has parameters with a direction, which no "
                          "table can give; use variables")  # fmt: skip
    return spelled.name, action


def _call(
    frame: Frame, tree: syntax.Expression, actions: Sequence[tuple[str, ActionName]]
) -> ir.ActionCall:
    """An action of the table with arguments that are known."""
    name = tree.operand if isinstance(tree, syntax.Call) else tree
    given = tree.arguments if isinstance(tree, syntax.Call) else ()
    listed = dict(actions)
    if not isinstance(name, syntax.Name) or name.name not in listed:
        found = printer.expression(name)
        raise P4Error(tree.where, f"{found} is not among the table's actions: expected one of "
                      f"{', '.join(listed)}")  # fmt: skip
    action = listed[name.name]
    parameters = action.parameters
    names = [each.name for each in parameters]
    arguments = []
    for parameter, each in zip(
        parameters, in_order(given, names, name.name, tree.where), strict=True
    ):
        value = operations.convert(evaluate(frame, each.value), parameter.type, each.value.where)
        if not isinstance(value, Value) or value.constant is None:
            raise P4Error(each.where, f"{parameter.name} must be known when the program is read")
        arguments.append(value.constant)
    return ir.ActionCall(action.name, tuple(arguments))


def _default(
    frame: Frame, properties: _Properties, actions: Sequence[tuple[str, ActionName]]
) -> tuple[ir.ActionCall, bool]:
    given = properties.others.get("default_action")
    if given is None:
        return ir.ActionCall(NO_ACTION), False
    no_action = given.value.operand if isinstance(given.value, syntax.Call) else given.value
    if no_action == syntax.Name(NO_ACTION):
        return ir.ActionCall(NO_ACTION), given.is_const
    return _call(frame, given.value, actions), given.is_const


def _size(frame: Frame, properties: _Properties, entries: int, are_const: bool) -> int:
    given = properties.others.get("size")
    if given is None:
        return entries if are_const else max(DEFAULT_SIZE, entries)
    size = operations.constant(evaluate(frame, given.value), given.where, "a size")
    if size < max(entries, 1):
        raise P4Error(given.where, f"a size of {size}: expected {max(entries, 1)} or more")
    return size


def _attach_counter(frame: Frame, properties: _Properties, table: str) -> None:
    given = properties.others.get("counters")
    if given is None:
        return
    if not isinstance(given.value, syntax.Name):
        raise P4Error(given.where, "counters: expected the name of a direct_counter")
    meaning = find(frame, given.value.name, given.value.where)
    if not isinstance(meaning, ExternName) or meaning.kind != "direct_counter":
        raise P4Error(given.value.where, f"{given.value.name} is {kind_of(meaning)}, expected a "
                      "direct_counter")  # fmt: skip
    counter = frame.unit.counters[meaning.name]
    if counter.table is not None:
        raise P4Error(given.where, f"{given.value.name} is {counter.table}'s already: expected "
                      "one of its own for each table")  # fmt: skip
    frame.unit.counters[meaning.name] = ir.Counter(meaning.name, 0, table, counter.where)


# Entries and select cases


def _entry(
    frame: Frame,
    tree: syntax.Entry,
    keys: Sequence[tuple[ir.Key, Value]],
    actions: Sequence[tuple[str, ActionName]],
) -> ir.Entry:
    if not keys:
        raise P4Error(tree.where, "an entry of a table without keys")
    if len(tree.keys) != len(keys):
        raise P4Error(tree.where, f"{len(tree.keys)} keys in this entry, expected {len(keys)}")
    matches = tuple(
        match_of(frame, each, value, key.kind)
        for each, (key, value) in zip(tree.keys, keys, strict=True)
    )
    return ir.Entry(matches, _call(frame, tree.action, actions), tree.where)


def match_of(frame: Frame, tree: syntax.Expression, subject: Value, kind: str) -> ir.Match:
    """What a key of an entry, or of a select (kind `select`), takes."""
    base = carrier(subject.type)
    ones = (1 << base.width) - 1 if isinstance(base, Bits) else 1
    match tree:
        case syntax.Anything():
            if kind == "exact":
                raise P4Error(tree.where, f"{tree.word} for an exact key: expected a value")
            return ir.Match("any")
        case syntax.Masked(value, mask):
            if kind not in ("ternary", "lpm", "select"):
                raise P4Error(tree.where, f"&&& for {_a(kind)} key: expected a value")
            bits = _known(frame, mask, subject, tree.where)
            if kind == "lpm" and (~bits & ones) & ((~bits & ones) + 1):
                raise P4Error(tree.where, f"the mask {bits:#x} of an lpm key: expected ones, then "
                              "zeros")  # fmt: skip
            masked = _known(frame, value, subject, tree.where) & bits
            return ir.Match("lpm" if kind == "lpm" else "ternary", masked, bits)
        case syntax.Range(low, high):
            if kind not in ("range", "select"):
                raise P4Error(tree.where, f".. for {_a(kind)} key: expected a value")
            first = _known(frame, low, subject, tree.where)
            last = _known(frame, high, subject, tree.where)
            if first > last:
                raise P4Error(tree.where, f"the range {first} .. {last} is empty")
            return ir.Match("range", first, 0, last)
    found = _known(frame, tree, subject, tree.where)
    if kind in ("ternary", "lpm"):
        return ir.Match("ternary" if kind == "ternary" else "lpm", found, ones)
    return ir.Match("range", found, 0, found) if kind == "range" else ir.Match("exact", found)


def _a(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _known(frame: Frame, tree: syntax.Expression, subject: Value, where: Where) -> int:
    result = operations.convert(evaluate(frame, tree), subject.type, tree.where)
    if isinstance(result, Group) or result.constant is None:
        raise P4Error(where, "a key of an entry or case must be known when the program is read")
    return result.constant
