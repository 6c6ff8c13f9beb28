"""Calls as statements: actions, tables, controls, and what v1model brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from switch.lang import ir, operations, printer, syntax
from switch.lang.errors import P4Error, unsupported
from switch.lang.expressions import evaluate, find, meaning_of, no_arguments
from switch.lang.ir import Bits, Bool, Where
from switch.lang.moving import assign, store
from switch.lang.types import COUNTER_TYPE, HASH_ALGORITHM, Error, carrier
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
    Result,
    String,
    TableName,
    Value,
    kind_of,
)

INDEX = Bits(32)
"""The type of v1model's register and counter indices."""


def lower(frame: Frame, tree: syntax.Call) -> None:
    """A call for what it does."""
    if isinstance(tree.operand, syntax.Member):
        _method(frame, tree, tree.operand)
        return
    meaning = meaning_of(frame, tree.operand)
    match meaning:
        case ActionName():
            _action(frame, meaning, tree)
        case FunctionName(name):
            _FUNCTIONS[name](frame, tree)
        case _:
            raise P4Error(tree.where, f"{printer.expression(tree.operand)} is {kind_of(meaning)}, "
                          "expected an action or a function")  # fmt: skip


def _method(frame: Frame, tree: syntax.Call, member: syntax.Member) -> None:
    owner = meaning_of(frame, member.operand)
    match owner:
        case Group():
            _of_header(frame, owner, member, tree)
        case TableName() if member.name == "apply":
            if frame.kind != "control":
                raise P4Error(tree.where, f"a table applied in an {frame.kind}: "
                              "expected it in a control's apply")  # fmt: skip
            no_arguments(tree, "apply")
            frame.emit(ir.Apply(owner.name, where=tree.where))
        case InstanceName() | BlockName() if member.name == "apply":
            assert frame.unit.apply_block is not None
            frame.unit.apply_block(frame, owner, tree)
        case ExternName():
            methods = _METHODS[owner.kind]
            if member.name not in methods:
                known = ", ".join(methods) or "none here"
                raise P4Error(tree.where, f"{owner.kind} has no method {member.name}; it has "
                              f"{known}")  # fmt: skip
            methods[member.name](frame, owner, tree)
        case _:
            raise P4Error(tree.where, f"{kind_of(owner)} has no method {member.name}")


def _of_header(frame: Frame, owner: Group, member: syntax.Member, tree: syntax.Call) -> None:
    if member.name not in ("setValid", "setInvalid"):
        raise P4Error(tree.where, f"{member.name}() does nothing: expected setValid() or "
                      "setInvalid()")  # fmt: skip
    if not owner.type.is_header or owner.path is None:
        raise P4Error(tree.where, f"{member.name} of {owner.type}: expected a header")
    if not owner.writable:
        raise P4Error(tree.where, f"{member.name}: this header can only be read here")
    no_arguments(tree, member.name)
    made = ir.SetValid if member.name == "setValid" else ir.SetInvalid
    frame.emit(made(owner.path, tree.where))


# Arguments


def in_order(
    given: Sequence[syntax.Argument], names: Sequence[str], what: str, where: Where
) -> list[syntax.Argument]:
    """The arguments by the order of the parameters."""
    if len(given) != len(names):
        expected = f"{len(names)}: {', '.join(names)}" if names else "none"
        raise P4Error(where, f"{what} has {len(given)} arguments, expected {expected}")
    by_name = {each.name: each for each in given if each.name is not None}
    if not by_name:
        return list(given)
    for name, each in by_name.items():
        if name not in names:
            raise P4Error(each.where, f"{what} has no parameter {name}, only {', '.join(names)}")
    if len(by_name) != len(given):
        raise P4Error(where, f"{what}: expected names for all its arguments, or for none")
    return [by_name[name] for name in names]


def _values(
    frame: Frame, tree: syntax.Call, what: str, names: Sequence[str]
) -> list[tuple[Result, syntax.Expression]]:
    if tree.types:
        raise P4Error(tree.where, f"{what} takes no types here")
    arguments = in_order(tree.arguments, names, what, tree.where)
    return [(evaluate(frame, each.value), each.value) for each in arguments]


def _index(result: tuple[Result, syntax.Expression]) -> ir.Expression:
    value = operations.convert(result[0], INDEX, result[1].where)
    assert isinstance(value, Value)
    return value.expression


# Actions


def _action(frame: Frame, action: ActionName, tree: syntax.Call) -> None:
    if frame.kind not in ("control", "action"):
        raise P4Error(tree.where, f"an action called in a {frame.kind}: expected it in a control")
    names = [parameter.name for parameter in action.parameters]
    results = _values(frame, tree, action.name, names)
    back: list[tuple[Result, Value | Group, syntax.Expression]] = []
    for parameter, (result, spelled) in zip(action.parameters, results, strict=True):
        if parameter.direction in ("out", "inout"):
            check_target(result, parameter.type, spelled, parameter.direction)
            back.append((result, parameter.variable, spelled))
        if parameter.direction != "out":
            assign(frame, parameter.variable, result, spelled, spelled.where)
    if back and action.exits:
        raise unsupported(tree.where, f"exit in {action.name}, which has out parameters; "
                          "let it set a variable, and exit outside")  # fmt: skip
    frame.emit(ir.Call(action.name, tree.where))
    for target, variable, spelled in back:
        assign(frame, target, variable, spelled, spelled.where)


def check_target(result: Result, type_: object, tree: syntax.Expression, direction: str) -> None:
    """An argument for an out parameter must be assignable, and of its very type."""
    writable = (isinstance(result, Value) and result.place is not None) or (
        isinstance(result, Group) and result.writable and result.path is not None
    )
    if not writable:
        raise P4Error(tree.where, f"{printer.expression(tree)} is for an {direction} parameter: "
                      "expected a variable that can be assigned")  # fmt: skip
    assert isinstance(result, Value | Group)
    if result.type != type_:
        raise P4Error(tree.where, f"found {result.type}, expected {type_}: an {direction} "
                      "parameter takes no other type")  # fmt: skip


# Registers, counters


def _read(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    (target, spelled), index = _values(frame, tree, "read", ("result", "index"))
    check_target(target, Bits(owner.width), spelled, "out")
    assert isinstance(target, Value)
    at = _index(index)
    _into(frame, target, lambda path: ir.RegisterRead(owner.name, path, at, tree.where))


def _into(frame: Frame, target: Value, made: Callable[[str], ir.Statement]) -> None:
    """A statement that writes a whole variable; for a slice, through another one."""
    assert target.place is not None
    if target.place.high is None:
        frame.emit(made(target.place.path))
        return
    whole = frame.temporary(target.type)
    assert whole.place is not None
    frame.emit(made(whole.place.path))
    store(frame, target, whole, ir.NOWHERE)


def _write(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    index, (value, spelled) = _values(frame, tree, "write", ("index", "value"))
    cell = operations.convert(value, Bits(owner.width), spelled.where)
    assert isinstance(cell, Value)
    frame.emit(ir.RegisterWrite(owner.name, _index(index), cell.expression, tree.where))


def _count(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    (index,) = _values(frame, tree, "count", ("index",))
    frame.emit(ir.Count(owner.name, _index(index), tree.where))


def _count_direct(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    no_arguments(tree, "count")
    frame.emit(ir.Count(owner.name, None, tree.where))


# Packets


def _headers(result: Result, spelled: syntax.Expression) -> list[str]:
    if not isinstance(result, Group):
        found = operations.type_of(result)
        raise P4Error(spelled.where, f"found {found}, expected a header")
    paths = [header.path for header in result.headers()]
    return [path for path in paths if path is not None]


def _extract(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    if len(tree.arguments) == 2:
        raise unsupported(tree.where, "extract with a size; headers have a fixed one here")
    ((result, spelled),) = _values(frame, tree, "extract", ("hdr",))
    if not isinstance(result, Group) or not result.type.is_header or not result.writable:
        raise P4Error(spelled.where, f"found {operations.type_of(result)}, expected a header "
                      "that can be written")  # fmt: skip
    frame.block += [ir.Extract(path, tree.where) for path in _headers(result, spelled)]


def _advance(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    (bits,) = _values(frame, tree, "advance", ("sizeInBits",))
    frame.emit(ir.Advance(_index(bits), tree.where))


def _emit(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    ((result, spelled),) = _values(frame, tree, "emit", ("hdr",))
    results = [item for _, item in result.items] if isinstance(result, Listed) else [result]
    for each in results:
        frame.block += [ir.Emit(path, tree.where) for path in _headers(each, spelled)]


def _lookahead(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    raise P4Error(tree.where, "lookahead alone does nothing: expected an assignment of it")


def _length(frame: Frame, owner: ExternName, tree: syntax.Call) -> None:
    raise unsupported(tree.where, "packet.length(); standard_metadata.packet_length has it")


_Method = Callable[[Frame, ExternName, syntax.Call], None]
_METHODS: Mapping[str, Mapping[str, _Method]] = {
    "register": {"read": _read, "write": _write},
    "counter": {"count": _count},
    "direct_counter": {"count": _count_direct},
    "packet_in": {
        "extract": _extract, "lookahead": _lookahead, "advance": _advance, "length": _length,
    },
    "packet_out": {"emit": _emit},
}  # fmt: skip


# Functions


def _mark_to_drop(frame: Frame, tree: syntax.Call) -> None:
    ((result, spelled),) = _values(frame, tree, "mark_to_drop", ("standard_metadata",))
    if not isinstance(result, Group) or result.path != "standard_metadata":
        raise P4Error(spelled.where, f"found {operations.type_of(result)}, expected "
                      "standard_metadata")  # fmt: skip
    if not result.writable:
        raise P4Error(spelled.where, "mark_to_drop: standard_metadata can only be read here")
    frame.emit(ir.MarkToDrop(tree.where))


def algorithm_of(result: Result, where: Where) -> str:
    """The name of a HashAlgorithm."""
    if not isinstance(result, Value) or result.type != HASH_ALGORITHM or result.constant is None:
        raise P4Error(where, f"found {operations.type_of(result)}, expected one of HashAlgorithm")
    return HASH_ALGORITHM.members[result.constant][0]


def _hash(frame: Frame, tree: syntax.Call) -> None:
    target, algorithm, base, data, most = _values(
        frame, tree, "hash", ("result", "algo", "base", "data", "max")
    )
    name = algorithm_of(algorithm[0], algorithm[1].where)
    if name not in ("crc32", "crc16", "csum16", "identity"):
        raise unsupported(algorithm[1].where, f"HashAlgorithm.{name}; crc32, crc16, csum16 and "
                          "identity are")  # fmt: skip
    result = target[0]
    if not isinstance(result, Value) or not isinstance(result.type, Bits):
        raise P4Error(target[1].where, f"found {operations.type_of(result)}, expected bits")
    check_target(result, result.type, target[1], "out")
    bounds = [_sized(each, result.type) for each in (base, most)]
    items = data_of(data[0], data[1].where)
    _into(frame, result, lambda path: ir.Hash(
        path, name, bounds[0], items, bounds[1], tree.where,  # type: ignore[arg-type]  # checked
    ))  # fmt: skip


def _sized(given: tuple[Result, syntax.Expression], type_: Bits) -> ir.Expression:
    """A bound of a hash: a number gets a width that holds it, and the result's at least."""
    result, spelled = given
    if isinstance(result, Literal):
        width = max(type_.width, result.value.bit_length())
        return operations.of_literal(result, Bits(width), spelled.where).expression
    value = operations.scalar(result, spelled.where)
    if not isinstance(value.type, Bits):
        raise P4Error(spelled.where, f"found {value.type}, expected bits")
    return value.expression


def data_of(result: Result, where: Where) -> tuple[ir.Expression, ...]:
    """What a hash or checksum is over: fields in order, those of headers among them."""
    if isinstance(result, Listed):
        return tuple(each for _, item in result.items for each in data_of(item, where))
    if isinstance(result, Group):
        return tuple(leaf.expression for leaf in result.leaves())
    value = operations.scalar(result, where)
    if isinstance(carrier(value.type), Bool):
        raise P4Error(where, "a bool in a hash or checksum: expected bits; cast it to bit<1>")
    return (value.expression,)


def _checksum(verb: str, with_payload: bool) -> _Function:
    name = f"{verb}_checksum{'_with_payload' if with_payload else ''}"

    def lowered(frame: Frame, tree: syntax.Call) -> None:
        given = _values(frame, tree, name, ("condition", "data", "checksum", "algo"))
        when, data, target, algorithm = given
        found = algorithm_of(algorithm[0], algorithm[1].where)
        if found != "csum16":
            raise unsupported(algorithm[1].where, f"HashAlgorithm.{found} of a checksum; "
                              "csum16 is")  # fmt: skip
        checksum = target[0]
        if not isinstance(checksum, Value) or checksum.type != Bits(16):
            raise P4Error(target[1].where, f"found {operations.type_of(checksum)}, expected "
                          "bit<16>")  # fmt: skip
        if checksum.place is None or checksum.place.high is not None:
            raise P4Error(target[1].where, "expected a field that holds the checksum")
        condition = operations.condition(when[0], when[1].where)
        frame.emit(ir.Checksum(
            "verify" if verb == "verify" else "update", condition.expression,
            data_of(data[0], data[1].where), checksum.place.path, with_payload, tree.where,
        ))  # fmt: skip

    return lowered


def _claim(name: str) -> _Function:
    def lowered(frame: Frame, tree: syntax.Call) -> None:
        ((result, spelled),) = _values(frame, tree, name, ("check",))
        condition = operations.condition(result, spelled.where).expression
        text = printer.expression(spelled)
        kind = ir.Assert if name == "assert" else ir.Assume
        frame.emit(kind(condition, text, tree.where))

    return lowered


def _verify(frame: Frame, tree: syntax.Call) -> None:
    if frame.kind != "parser":
        raise P4Error(tree.where, f"verify in a {frame.kind}: expected it in a parser")
    (check, spelled), (error, named) = _values(frame, tree, "verify", ("check", "toSignal"))
    condition = operations.condition(check, spelled.where)
    if not isinstance(error, Value) or error.type != Error() or error.constant is None:
        raise P4Error(named.where, f"found {operations.type_of(error)}, expected an error, as "
                      "error.NoMatch")  # fmt: skip
    name = frame.unit.errors[error.constant]
    frame.emit(ir.Verify(condition.expression, name, tree.where))


def _log(frame: Frame, tree: syntax.Call) -> None:
    """Checked and left out: a log is for who watches a switch, not for what it does."""
    results = [evaluate(frame, each.value) for each in tree.arguments]
    if not results or not isinstance(results[0], String):
        raise P4Error(tree.where, "log_msg: expected a string first")


def _missing(name: str) -> _Function:
    def lowered(frame: Frame, tree: syntax.Call) -> None:
        raise unsupported(tree.where, f"{name} of v1model")

    return lowered


_Function = Callable[[Frame, syntax.Call], None]
_FUNCTIONS: dict[str, _Function] = {
    "mark_to_drop": _mark_to_drop,
    "hash": _hash,
    "verify_checksum": _checksum("verify", False),
    "update_checksum": _checksum("update", False),
    "verify_checksum_with_payload": _checksum("verify", True),
    "update_checksum_with_payload": _checksum("update", True),
    "assert": _claim("assert"),
    "assume": _claim("assume"),
    "verify": _verify,
    "log_msg": _log,
    **{
        name: _missing(name)
        for name in (
            "random", "digest", "clone", "clone3", "clone_preserving_field_list", "resubmit",
            "resubmit_preserving_field_list", "recirculate", "truncate",
            "recirculate_preserving_field_list",
        )
    },
}  # fmt: skip
FUNCTIONS = tuple(_FUNCTIONS)
"""What v1model declares."""


# Objects of v1model


def instantiate(frame: Frame, tree: syntax.Instance, width: int) -> ExternName:
    """A register or counter; `width` is that of a register's cells."""
    kind, name = tree.type.name, frame.named(tree.name)
    names = {"register": ("size",), "counter": ("size", "type"), "direct_counter": ("type",)}
    call = syntax.Call(syntax.Name(kind, tree.where), (), tree.arguments, tree.where)
    given = _values(frame, call, kind, names[kind])
    size = 0
    if kind != "direct_counter":
        size = operations.constant(given[0][0], given[0][1].where, "a size")
        if not 0 < size < 1 << 32:
            raise P4Error(given[0][1].where, f"a {kind} of size {size}: expected 1 or more")
    if kind != "register":
        result, spelled = given[-1]
        if not isinstance(result, Value) or result.type != COUNTER_TYPE:
            raise P4Error(spelled.where, f"found {operations.type_of(result)}, expected one of "
                          "CounterType")  # fmt: skip
        frame.unit.counters[name] = ir.Counter(name, size, None, tree.where)
    else:
        frame.unit.registers[name] = ir.Register(name, width, size, tree.where)
    return ExternName(kind, name, width)


def finding(frame: Frame, name: str, where: Where) -> ActionName:
    """An action by its name."""
    meaning = find(frame, name, where)
    if not isinstance(meaning, ActionName):
        raise P4Error(where, f"{name} is {kind_of(meaning)}, expected an action")
    return meaning
