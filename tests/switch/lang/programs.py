"""Programs in the intermediate representation, built by hand."""

from __future__ import annotations

from switch.lang import ir
from switch.lang.ir import (
    Action,
    ActionCall,
    Apply,
    Assign,
    Bits,
    Block,
    Case,
    Const,
    Control,
    Emit,
    Entry,
    Expression,
    Extract,
    Header,
    Key,
    MarkToDrop,
    Match,
    Parameter,
    Program,
    Read,
    State,
    Table,
)  # fmt: skip

BOOL = ir.Bool()
EGRESS_SPEC = "standard_metadata.egress_spec"
MULTICAST_GROUP = "standard_metadata.mcast_grp"


def const(value: int, width: int, signed: bool = False) -> Const:
    return Const(value, Bits(width, signed))


def read(path: str, width: int) -> Read:
    return Read(path, Bits(width))


def is_(path: str, width: int, value: int) -> ir.Binary:
    return ir.Binary("==", read(path, width), const(value, width), BOOL)


def header(path: str, **widths: int) -> Header:
    return Header(path, f"{path.rpartition('.')[2]}_t", tuple(
        (name, Bits(width)) for name, width in widths.items()
    ))  # fmt: skip


def program(
    *,
    headers: tuple[Header, ...] = (),
    variables: dict[str, ir.Type] | None = None,
    states: tuple[State, ...] | None = None,
    verify: Block = (),
    ingress: Block = (),
    egress: Block = (),
    update: Block = (),
    deparser: Block | None = None,
    actions: tuple[Action, ...] = (),
    tables: tuple[Table, ...] = (),
    registers: tuple[ir.Register, ...] = (),
    counters: tuple[ir.Counter, ...] = (),
    errors: tuple[str, ...] = ir.STANDARD_ERRORS,
) -> Program:
    """By default the parser extracts all headers in order, and the deparser emits them."""
    paths: dict[str, ir.Type] = dict(ir.STANDARD_METADATA) | (variables or {})
    for each in headers:
        paths |= {f"{each.path}.{name}": type_ for name, type_ in each.fields}
        paths[each.valid] = BOOL
    for action in actions:
        paths |= {parameter.path: parameter.type for parameter in action.parameters}
    if states is None:
        extracts = tuple(Extract(each.path) for each in headers)
        states = (State("start", extracts, (), (Case((), "accept"),)),)
    if deparser is None:
        deparser = tuple(Emit(each.path) for each in headers)
    return Program(
        "by hand", paths, {each.path: each for each in headers},
        {each.name: each for each in states},
        Control("verify", verify), Control("ingress", ingress), Control("egress", egress),
        Control("update", update), Control("deparser", deparser),
        {each.name: each for each in actions}, {each.name: each for each in tables},
        {each.name: each for each in registers}, {each.name: each for each in counters}, {},
        errors,
    )  # fmt: skip


def to_port(port: int) -> Assign:
    return Assign(EGRESS_SPEC, const(port, 9))


NO_ACTION = Action("NoAction", (), ())
DROP = Action("ingress.drop", (), (MarkToDrop(),))
FORWARD = Action(
    "ingress.forward",
    (Parameter("port", "ingress.forward.port", Bits(9)),),
    (Assign(EGRESS_SPEC, read("ingress.forward.port", 9)),),
)


def table(
    *keys: tuple[Expression, str],
    entries: tuple[tuple[tuple[Match, ...], ActionCall], ...] = (),
    name: str = "ingress.dispatch",
    default: str = "ingress.drop",
    actions: tuple[str, ...] = ("ingress.forward", "ingress.drop"),
    const_entries: bool = False,
    size: int = 1024,
) -> Table:
    return Table(
        name,
        tuple(
            Key(each, kind, f"key{number}")  # type: ignore[arg-type]  # literals of tests
            for number, (each, kind) in enumerate(keys)
        ),
        actions, ActionCall(default), False,
        tuple(Entry(matches, call) for matches, call in entries), const_entries, size,
    )  # fmt: skip


def forward(port: int) -> ActionCall:
    return ActionCall("ingress.forward", (port,))


TAG = header("hdr.tag", kind=8, port=8)


def dispatching(dispatch: Table) -> Program:
    """One header of a kind and a port, and the table that decides on it."""
    return program(
        headers=(TAG,), actions=(FORWARD, DROP), tables=(dispatch,),
        ingress=(Apply(dispatch.name),),
    )  # fmt: skip
