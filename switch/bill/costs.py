"""What a program costs: tables, registers, headers, actions, stages; what a target lacks for it.

All sums are of the program as written: no variable shares its place with another, no table its
memory. What a compiler saves comes on top; what is counted here it cannot do without knowing more
than the text says.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from switch.bill.stages import Layout, lay_out
from switch.bill.targets import Target
from switch.lang import ir
from switch.lang.walking import expressions, statements, uses

_IN_TCAM = {"ternary", "lpm", "range"}
_ARITHMETIC = {"+", "-", "*", "/", "%", "|+|", "|-|", "<", "<=", ">", ">="}
_MULTIPLYING = {"*", "/", "%"}
_SHIFTS = {"<<", ">>"}


@dataclass(frozen=True, slots=True)
class TableCost:
    """One table."""

    name: str
    control: str
    """Where it is applied: ingress or egress; empty for nowhere."""
    stage: int
    """From 1; 0 where it is not applied."""
    keys: tuple[str, ...]
    """`name: kind, bits`."""
    key_bits: int
    actions: int
    entries: int
    """In the program's text."""
    size: int
    """Entries that it has room for; just those of the text where they are const."""
    sram_bits: int
    tcam_bits: int


@dataclass(frozen=True, slots=True)
class RegisterCost:
    """One register."""

    name: str
    width: int
    size: int
    bits: int
    control: str
    read_in: tuple[int, ...]
    """Stages."""
    written_in: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Excess:
    """Something that the target has not enough of."""

    what: str
    needed: int
    available: int

    def __str__(self) -> str:
        return f"{self.what}: {self.needed:,} needed, {self.available:,} there"


@dataclass(frozen=True, slots=True)
class Bill:
    """All of it."""

    program: str
    target: str
    tables: tuple[TableCost, ...]
    registers: tuple[RegisterCost, ...]
    headers: dict[str, int]
    """Bits by header."""
    header_bits: int
    metadata_bits: int
    """Of metadata, standard metadata and local variables, validity included."""
    actions: int
    operations: int
    """Statements in actions and controls."""
    parser_states: int
    stages: dict[str, int]
    """By control."""
    excess: tuple[Excess, ...]

    @property
    def fits(self) -> bool:
        """Whether nothing lacks."""
        return not self.excess

    def to_json(self) -> dict[str, Any]:
        """For scripts."""
        return asdict(self) | {"fits": self.fits}


def bill(program: ir.Program, target: Target) -> Bill:
    """What the program costs, and what the target has not enough of."""
    layouts = {
        name: lay_out(program, control, target.stateful_operations)
        for name, control in (("ingress", program.ingress), ("egress", program.egress))
    }
    tables = tuple(_table(each, layouts, program) for each in program.tables.values())
    registers = tuple(_register(each, layouts) for each in program.registers.values())
    headers = {each.path: each.bits for each in program.headers.values()}
    fields = {f"{each.path}.{name}" for each in program.headers.values() for name, _ in each.fields}
    metadata = sum(_width(type_) for path, type_ in program.variables.items() if path not in fields)
    found = Bill(
        program=program.name,
        target=target.name,
        tables=tables,
        registers=registers,
        headers=headers,
        header_bits=sum(headers.values()),
        metadata_bits=metadata,
        actions=len(program.actions),
        operations=sum(1 for block in _blocks(program) for _ in statements(block)),
        parser_states=len(program.states),
        stages={name: layout.stages for name, layout in layouts.items()},
        excess=(),
    )
    lacking = [*_sums(found, program, target), *_by_stage(found, target), *_words(program, target)]
    return replace(found, excess=tuple(lacking))


def _width(type_: ir.Type) -> int:
    return type_.width if isinstance(type_, ir.Bits) else 1


def _table(table: ir.Table, layouts: dict[str, Layout], program: ir.Program) -> TableCost:
    widths = [_width(key.expression.type) for key in table.keys]
    const = table.entries_are_const and table.entries
    size = len(table.entries) if const or not table.keys else table.size
    parameters = (program.actions[name].parameters for name in table.actions)
    result = max((sum(_width(p.type) for p in each) for each in parameters), default=0)
    result += (len(table.actions) - 1).bit_length()
    ternary = any(key.kind in _IN_TCAM for key in table.keys)
    control = next((name for name, each in layouts.items() if table.name in each.tables), "")
    return TableCost(
        name=table.name,
        control=control,
        stage=layouts[control].tables[table.name] if control else 0,
        keys=tuple(
            f"{key.name}: {key.kind}, {width}"
            for key, width in zip(table.keys, widths, strict=True)
        ),
        key_bits=sum(widths),
        actions=len(table.actions),
        entries=len(table.entries),
        size=size,
        sram_bits=size * (result if ternary else sum(widths) + result),
        tcam_bits=size * sum(widths) if ternary else 0,
    )


def _register(register: ir.Register, layouts: dict[str, Layout]) -> RegisterCost:
    name = register.name
    used = (each for each, layout in layouts.items() if name in layout.reads | layout.writes)
    control = next(used, "")
    layout = layouts[control] if control else Layout()
    return RegisterCost(
        name=name,
        width=register.width,
        size=register.size,
        bits=register.width * register.size,
        control=control,
        read_in=tuple(sorted(layout.reads.get(name, ()))),
        written_in=tuple(sorted(layout.writes.get(name, ()))),
    )


def _above(what: str, needed: int, available: int | None) -> Iterator[Excess]:
    if available is not None and needed > available:
        yield Excess(what, needed, available)


def _sums(found: Bill, program: ir.Program, target: Target) -> Iterator[Excess]:
    """What is bounded for the whole program, and for one register."""
    for control, stages in found.stages.items():
        yield from _above(f"stages of {control}", stages, target.stages)
    packet = found.header_bits + found.metadata_bits
    yield from _above("bits of headers and metadata", packet, target.packet_bits)
    for kind in ("sram", "tcam"):
        stage: int | None = getattr(target, f"stage_{kind}_bits")
        if stage is None or target.stages is None:
            continue
        needed = sum(getattr(table, f"{kind}_bits") for table in found.tables)
        if kind == "sram":
            needed += sum(each.bits for each in found.registers)
        yield from _above(f"{kind.upper()} bits of all stages", needed, stage * target.stages)
    for register in found.registers:
        name = register.name
        yield from _above(f"bits of a cell of {name}", register.width, target.register_bits)
        yield from _above(f"bits of {name}, in one stage", register.bits, target.stage_sram_bits)
        if target.stages is not None:
            used = sorted({*register.read_in, *register.written_in})
            what = f"stages that access {name} ({', '.join(map(str, used))})"
            yield from _above(what, len(used), 1)


def _by_stage(found: Bill, target: Target) -> Iterator[Excess]:
    """What is bounded within a stage."""
    for control, stages in found.stages.items():
        for stage in range(1, stages + 1):
            at = f"in stage {stage} of {control}"
            here = [t for t in found.tables if (t.control, t.stage) == (control, stage)]
            yield from _above(f"tables {at}", len(here), target.stage_tables)
            registers = [
                each for each in found.registers
                if each.control == control and stage in {*each.read_in, *each.written_in}
            ]  # fmt: skip
            yield from _above(f"registers {at}", len(registers), target.stage_registers)


def _words(program: ir.Program, target: Target) -> Iterator[Excess]:
    """Operations that the target's arithmetic does not have, each told once."""
    told: set[tuple[str, int]] = set()
    for operation, where in _operations(program):
        operator, width = operation.operator, _width(operation.left.type)
        if operator in _ARITHMETIC and (operator, width) not in told:
            told.add((operator, width))
            what = f"bits of the operands of {operator} at {where}"
            yield from _above(what, width, target.arithmetic_bits)
        by_constant = isinstance(operation.right, ir.Const)
        hard = operator in _MULTIPLYING or (operator in _SHIFTS and not by_constant)
        if hard and not target.multiplies and (operator, 0) not in told:
            told.add((operator, 0))
            yield Excess(f"units for {operator} by a variable at {where}", 1, 0)


def _operations(program: ir.Program) -> Iterator[tuple[ir.Binary, ir.Where]]:
    """Of all match-action blocks."""
    for block in _blocks(program):
        for statement in statements(block):
            for each in (below for use in uses(statement) for below in expressions(use)):
                if isinstance(each, ir.Binary):
                    yield each, statement.where if each.where == ir.NOWHERE else each.where


def _blocks(program: ir.Program) -> list[ir.Block]:
    bodies = [action.body for action in program.actions.values()]
    return [*bodies, program.ingress.body, program.egress.body]
