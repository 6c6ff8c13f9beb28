"""A whole program: from its tree to the intermediate representation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from switch.lang import ir, operations, statements, syntax
from switch.lang.blocks import apply_block, declare_instance, lower_control, lower_parser
from switch.lang.calls import FUNCTIONS
from switch.lang.errors import P4Error, unsupported
from switch.lang.expressions import declare, evaluate, find, read_only, resolve
from switch.lang.flow import check_tables
from switch.lang.ir import NOWHERE, Bits, Where
from switch.lang.lexer import BUILT_IN_TYPES
from switch.lang.tables import NO_ACTION, declare_action
from switch.lang.types import (
    COUNTER_TYPE,
    HASH_ALGORITHM,
    STANDARD_METADATA,
    Distinct,
    Enumeration,
    Error,
    Extern,
    Integer,
    Record,
    Scalar,
    Type,
    carrier,
)
from switch.lang.values import (
    ActionName,
    BlockName,
    ExternName,
    Frame,
    FunctionName,
    InstanceName,
    Literal,
    Meaning,
    Scope,
    TypeName,
    Unit,
    Value,
    kind_of,
)

_ENUMS = {"HashAlgorithm": HASH_ALGORITHM, "CounterType": COUNTER_TYPE}


def lower(tree: syntax.Program) -> ir.Program:
    """Check a program and lower it."""
    if "v1model.p4" not in tree.includes:
        raise P4Error(Where(tree.file, 1, 1), "expected #include <v1model.p4>: programs here are "
                      "for that architecture")  # fmt: skip
    frame = Frame(_unit(), "", Scope(_built_in()), "program")
    main: syntax.Instance | None = None
    for each in tree.declarations:
        if isinstance(each, syntax.Instance) and each.type.name == "V1Switch":
            main = each
        else:
            _declare(frame, each)
    if main is None or main.name != "main":
        where = main.where if main is not None else Where(tree.file, 1, 1)
        raise P4Error(where, "expected V1Switch(...) main; with parser, verify, ingress, egress, "
                      "update and deparser")  # fmt: skip
    return _Switch(frame, main).program(Path(tree.file).stem)


def _unit() -> Unit:
    unit = Unit()
    unit.apply_block = apply_block
    return unit


def _built_in() -> Scope:
    scope = Scope()
    for name in sorted(BUILT_IN_TYPES):
        type_: Type = _ENUMS.get(name) or Extern(name)
        if name == "standard_metadata_t":
            type_ = STANDARD_METADATA
        scope.declare(name, TypeName(type_), NOWHERE)
    for name in FUNCTIONS:
        scope.declare(name, FunctionName(name), NOWHERE)
    scope.declare(NO_ACTION, ActionName(NO_ACTION, ()), NOWHERE)
    return scope


# Declarations


def _declare(frame: Frame, tree: syntax.Declaration) -> None:
    match tree:
        case syntax.Record(kind, name):
            type_ = Record(name, kind == "header", _fields(frame, tree))
            frame.scope.declare(name, TypeName(type_), tree.where)
        case syntax.Enum(_, name):
            frame.scope.declare(name, TypeName(_enum(frame, tree)), tree.where)
        case syntax.Names(kind, names):
            _names(frame, kind, names)
        case syntax.Typedef(_, _, name):
            frame.scope.declare(name, TypeName(_typedef(frame, tree)), tree.where)
        case syntax.Constant(_, name):
            statements.constant(frame, tree)
            meaning = frame.scope.find(name)
            if isinstance(meaning, Value | Literal):
                value = operations.constant(meaning, tree.where, name)
                frame.unit.constants[name] = value
        case syntax.Action():
            declare_action(frame, tree)
            frame.unit.actions.setdefault(NO_ACTION, ir.Action(NO_ACTION, (), ()))
        case syntax.Parser(name) | syntax.Control(name):
            block = BlockName(tree, frame.scope)
            _try(frame, block)
            frame.scope.declare(name, block, tree.where)
        case syntax.Instance():
            declare_instance(frame, tree)


def _fields(frame: Frame, tree: syntax.Record) -> tuple[tuple[str, Type], ...]:
    fields: dict[str, Type] = {}
    for each in tree.fields:
        type_ = resolve(frame, each.type)
        if each.name in fields:
            raise P4Error(each.where, f"the field {each.name} is there already")
        if tree.kind == "header":
            plain = isinstance(type_, Enumeration) and type_.carrier is None
            if not isinstance(type_, Scalar) or plain or not isinstance(carrier(type_), Bits):
                raise P4Error(each.where, f"a field of type {type_} in a header: expected bits, or "
                              "an enum with a type")  # fmt: skip
        elif not isinstance(type_, Scalar | Record):
            raise P4Error(each.where, f"a field of type {type_} in a struct")
        fields[each.name] = type_
    if tree.kind == "header":
        bits = sum(_bits(each) for each in fields.values())
        if bits % 8:
            raise P4Error(tree.where, f"header {tree.name} has {bits} bits: expected whole bytes")
    return tuple(fields.items())


def _bits(type_: Type) -> int:
    assert isinstance(type_, Scalar)
    base = carrier(type_)
    assert isinstance(base, Bits)
    return base.width


def _enum(frame: Frame, tree: syntax.Enum) -> Enumeration:
    underlying = resolve(frame, tree.type) if tree.type is not None else None
    if underlying is not None and not isinstance(underlying, Bits):
        raise P4Error(tree.where, f"an enum of {underlying}: expected bits")
    members: dict[str, int] = {}
    for each in tree.members:
        if each.name in members:
            raise P4Error(each.where, f"{each.name} is there already")
        if (each.value is None) == (underlying is not None):
            wanted = "a value" if each.value is None else "no value, or a type behind enum"
            raise P4Error(each.where, f"{each.name} of enum {tree.name}: expected {wanted}")
        members[each.name] = len(members)
        if each.value is not None and underlying is not None:
            value = operations.convert(evaluate(frame, each.value), underlying, each.where)
            if not isinstance(value, Value) or value.constant is None:
                raise P4Error(each.where, f"{each.name} must be known when the program is read")
            members[each.name] = value.constant
            frame.unit.constants[f"{tree.name}.{each.name}"] = value.constant
    return Enumeration(tree.name, tuple(members.items()), underlying)


def _names(frame: Frame, kind: str, names: Sequence[syntax.Enumerator]) -> None:
    if kind == "match_kind":
        return  # a table that asks for one that v1model has not is told so
    for each in names:
        if each.name in frame.unit.errors:
            raise P4Error(each.where, f"error.{each.name} is there already")
        frame.unit.errors.append(each.name)


def _typedef(frame: Frame, tree: syntax.Typedef) -> Type:
    type_ = resolve(frame, tree.type)
    if tree.kind == "typedef":
        return type_
    if not isinstance(type_, Scalar) or isinstance(type_, Error | Enumeration | Distinct):
        raise P4Error(tree.where, f"type of {type_}: expected bits or bool; typedef takes any")
    return Distinct(tree.name, type_)


def _try(frame: Frame, block: BlockName) -> None:
    """Lowers it once for nothing: what nobody applies is checked too, and what is too early."""
    unit = _unit()
    unit.errors = list(frame.unit.errors)
    unit.actions = dict(frame.unit.actions)
    unit.counters = dict(frame.unit.counters)
    instance = InstanceName(block.tree, block.scope, block.tree.name, {}, {})
    assert instance.bound is not None
    for parameter in block.tree.constructor:
        type_ = resolve(frame, parameter.type)
        one = Literal(1)
        some = one if isinstance(type_, Integer) else operations.cast(one, type_, parameter.where)
        instance.constructor[parameter.name] = some
    for parameter in block.tree.parameters:
        instance.bound[parameter.name] = _parameter(frame, unit, parameter)
    if isinstance(block.tree, syntax.Parser):
        lower_parser(unit, instance, "", "accept")
    else:
        lower_control(unit, instance)


def _parameter(frame: Frame, unit: Unit, parameter: syntax.Parameter) -> Meaning:
    type_ = resolve(frame, parameter.type)
    if isinstance(type_, Extern):
        if type_.name not in ("packet_in", "packet_out"):
            raise unsupported(parameter.where, f"a parameter of type {type_}")
        return ExternName(type_.name)
    path = "standard_metadata" if type_ == STANDARD_METADATA else f"${parameter.name}"
    meaning = declare(unit, unit.free(path), type_, parameter.where)
    return read_only(meaning) if parameter.direction in ("", "in") else meaning


# main


class _Switch:
    """V1Switch(...) main;."""

    def __init__(self, frame: Frame, tree: syntax.Instance) -> None:
        self.frame = frame
        self.unit = frame.unit
        roles = ("parser", "verify", "ingress", "egress", "update", "deparser")
        if len(tree.arguments) != len(roles):
            raise P4Error(tree.where, f"V1Switch has {len(tree.arguments)} arguments, expected "
                          f"{len(roles)}: {', '.join(roles)}")  # fmt: skip
        self.blocks = {
            role: self._block(role, each.value)
            for role, each in zip(roles, tree.arguments, strict=True)
        }

        used: dict[str, str] = {}
        for role, instance in self.blocks.items():
            name = instance.tree.name
            if name in used and instance.tree.locals:  # its tables would be there twice
                raise unsupported(tree.where, f"{name} as {used[name]} and as {role}; declare one "
                                  "for each")  # fmt: skip
            used[name] = role

    def _block(self, role: str, tree: syntax.Expression) -> InstanceName:
        call = tree if isinstance(tree, syntax.Call) else None
        if call is None or not isinstance(call.operand, syntax.Name):
            raise P4Error(tree.where, f"the {role} of V1Switch: expected a name and ()")
        meaning = find(self.frame, call.operand.name, tree.where)
        wanted = syntax.Parser if role == "parser" else syntax.Control
        if not isinstance(meaning, BlockName) or not isinstance(meaning.tree, wanted):
            kind = "parser" if role == "parser" else "control"
            raise P4Error(tree.where, f"{call.operand.name} is {kind_of(meaning)}, expected a "
                          f"{kind} for the {role} of V1Switch")  # fmt: skip
        if call.arguments or meaning.tree.constructor:
            raise unsupported(tree.where, f"arguments of {meaning.tree.name} in V1Switch")
        return InstanceName(meaning.tree, meaning.scope, meaning.tree.name, {})

    def program(self, name: str) -> ir.Program:
        """All six blocks, bound to the program's headers and metadata."""
        headers, metadata = self._declared_types()
        parameters: dict[str, Meaning] = {
            "headers": declare(self.unit, "hdr", headers, NOWHERE),
            "metadata": declare(self.unit, "meta", metadata, NOWHERE),
            "standard": declare(self.unit, "standard_metadata", STANDARD_METADATA, NOWHERE),
        }
        types = {"headers": headers, "metadata": metadata, "standard": STANDARD_METADATA}
        for role, instance in self.blocks.items():
            self._bind(instance, _SIGNATURES[role], parameters, types)
        lower_parser(self.unit, self.blocks["parser"], "", "accept")
        controls = {
            role: self._control(self.blocks[role])
            for role in ("verify", "ingress", "egress", "update", "deparser")
        }
        for role in ("verify", "update"):
            _only(controls[role], ir.Checksum, f"{role}_checksum calls")
        _only(controls["deparser"], ir.Emit, "emit calls")
        for role in ("ingress", "egress"):
            check_tables(controls[role])
        unit = self.unit
        for counter in unit.counters.values():
            if counter.size == 0 and counter.table is None:
                raise P4Error(counter.where, f"{counter.name} counts for no table: expected "
                              "counters = ...; in one")  # fmt: skip
        return ir.Program(
            name, unit.variables, unit.headers, unit.states, controls["verify"],
            controls["ingress"], controls["egress"], controls["update"], controls["deparser"],
            unit.actions, unit.tables, unit.registers, unit.counters, unit.constants,
            tuple(unit.errors),
        )  # fmt: skip

    def _declared_types(self) -> tuple[Record, Record]:
        tree = self.blocks["parser"].tree
        if len(tree.parameters) != 4:
            raise P4Error(tree.where, f"parser {tree.name}: expected the parameters (packet_in, "
                          "out headers, inout metadata, inout standard_metadata_t)")  # fmt: skip
        types = [resolve(self.frame, each.type) for each in tree.parameters]
        for type_, parameter in zip(types[1:3], tree.parameters[1:3], strict=True):
            if not isinstance(type_, Record) or type_.is_header:
                raise P4Error(parameter.where, f"found {type_}, expected a struct")
        headers, metadata = types[1], types[2]
        assert isinstance(headers, Record)
        assert isinstance(metadata, Record)
        for name, each in headers.fields:
            if not isinstance(each, Record) or not each.is_header:
                raise P4Error(tree.parameters[1].where, f"{headers} has the field {name} of type "
                              f"{each}: expected headers only")  # fmt: skip
        return headers, metadata

    def _bind(
        self, instance: InstanceName, signature: Sequence[tuple[str, str]],
        parameters: dict[str, Meaning], types: dict[str, Record],
    ) -> None:  # fmt: skip
        tree = instance.tree
        instance.bound = {}
        if len(tree.parameters) != len(signature):
            raise P4Error(tree.where, f"{tree.name} has {len(tree.parameters)} parameters, "
                          f"expected {len(signature)} for V1Switch")  # fmt: skip
        for (direction, what), parameter in zip(signature, tree.parameters, strict=True):
            found = resolve(self.frame, parameter.type)
            wanted: Type = types.get(what) or Extern(what)
            if found != wanted or parameter.direction != direction:
                expected = f"{direction} {wanted}".strip()
                raise P4Error(parameter.where, f"found {parameter.direction} {found}, expected "
                              f"{expected} for V1Switch")  # fmt: skip
            meaning = parameters.get(what) or ExternName(what)
            if direction == "in":
                assert not isinstance(meaning, ExternName)
                meaning = read_only(meaning)  # type: ignore[arg-type]  # variables
            instance.bound[parameter.name] = meaning

    def _control(self, instance: InstanceName) -> ir.Control:
        prologue, body = lower_control(self.unit, instance)
        return ir.Control(instance.tree.name, (*prologue, *body))


_PIPELINE = (("inout", "headers"), ("inout", "metadata"), ("inout", "standard"))
_SIGNATURES: dict[str, tuple[tuple[str, str], ...]] = {
    "parser": (
        ("", "packet_in"), ("out", "headers"), ("inout", "metadata"), ("inout", "standard"),
    ),
    "verify": (("inout", "headers"), ("inout", "metadata")),
    "ingress": _PIPELINE,
    "egress": _PIPELINE,
    "update": (("inout", "headers"), ("inout", "metadata")),
    "deparser": (("", "packet_out"), ("in", "headers")),
}  # fmt: skip


def _only(control: ir.Control, kind: type[ir.Statement], what: str) -> None:
    """v1model's switch runs nothing else there."""
    for statement in control.body:
        if not isinstance(statement, kind):
            raise unsupported(statement.where, f"other statements than {what} in {control.name}; "
                              "do the rest in ingress or egress")  # fmt: skip
