"""A model of the solver as what a switch can be given: a packet, registers, table entries.

It carries what the formulas say comes of it too. Where the interpreter does the same, the
counter-example is real; where it does not, one of the two has P4 wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import z3

from switch.lang import ir
from switch.lang.interpreter import Copy, Interpreter
from switch.lang.interpreter.arithmetic import internet_checksum
from switch.verify.machine import Lookup
from switch.verify.pipeline import Passage
from switch.verify.state import INDEX_BITS
from switch.verify.terms import Term


class Rule(NamedTuple):
    """What the control plane has put into a table; no matches: its default."""

    table: str
    matches: tuple[ir.Match, ...] | None
    call: ir.ActionCall


@dataclass(slots=True)
class Outcome:
    """What becomes of the packet."""

    port: int | None
    """Where one copy leaves; None: nothing leaves."""
    headers: list[tuple[str, int, int | None]] = field(default_factory=list)
    """Path, width and value of each field that leaves, in order; None where it is a checksum."""
    payload: bytes = b""
    registers: dict[tuple[str, int], int] = field(default_factory=dict)
    """Cells that the packet could change, after it."""


@dataclass(slots=True)
class Counterexample:
    """A packet, and what a switch holds when it comes."""

    program: ir.Program
    port: int
    packet: bytes
    registers: dict[tuple[str, int], int]
    """By name and index; all others are 0."""
    rules: list[Rule]
    group: int
    """The multicast group that the packet is sent to, or 0."""
    copy: Copy
    expected: Outcome

    def prepared(self) -> Interpreter:
        """A switch in that state."""
        interpreter = Interpreter(self.program)
        for (name, index), value in self.registers.items():
            interpreter.write_register(name, index, value)
        for rule in self.rules:
            table = interpreter.tables[rule.table]
            if rule.matches is None:
                table.set_default(rule.call)
            else:
                table.add(rule.matches, rule.call)
        if self.group:
            interpreter.set_group(self.group, [self.copy])
        return interpreter

    def replay(self) -> list[str]:
        """Gives it to the interpreter; in which points that does otherwise, so none is well."""
        interpreter = self.prepared()
        left = interpreter.process(self.port, self.packet)
        told = []
        for (name, index), value in self.expected.registers.items():
            held = interpreter.read_register(name, index)
            if held != value:
                told.append(f"{name}[{index}] is {held}, not {value}")
        if not left or self.expected.port is None:
            if left or self.expected.port is not None:
                told.append(f"{len(left)} packets leave")
            return told
        (port, data), *_ = left
        if port != self.expected.port:
            told.append(f"it leaves by port {port}, not {self.expected.port}")
        return told + self._differences(data)

    def _differences(self, data: bytes) -> list[str]:
        bits = sum(width for _, width, _ in self.expected.headers)
        whole, left = int.from_bytes(data, "big"), len(data) * 8
        if left != bits + len(self.expected.payload) * 8:
            size = bits // 8 + len(self.expected.payload)
            return [f"{len(data)} bytes leave, not {size}"]
        told = []
        for path, width, value in self.expected.headers:
            left -= width
            found = whole >> left & (1 << width) - 1
            if value is not None and found != value:
                told.append(f"{path} leaves as {found}, not {value}")
        if whole & (1 << left) - 1 != int.from_bytes(self.expected.payload, "big"):
            told.append("another payload leaves")
        return told

    def as_json(self) -> dict[str, object]:
        """For scripts: packets and values in hex, since 64 bits are more than JSON's numbers."""
        return {
            "port": self.port,
            "packet": self.packet.hex(),
            "registers": {
                f"{name}[{index}]": hex(value)
                for (name, index), value in self.registers.items()
                if value
            },
            "tables": [
                {
                    "table": rule.table,
                    "keys": None if rule.matches is None else [hex(m.value) for m in rule.matches],
                    "action": rule.call.action,
                    "arguments": [hex(argument) for argument in rule.call.arguments],
                }
                for rule in self.rules
            ],
            "leaves_by_port": self.expected.port,
        }


def counterexample(
    passage: Passage, model: z3.ModelRef, cells: Sequence[tuple[str, Term]] = ()
) -> Counterexample:
    """What a model says.

    Args:
      passage: which program's.
      model: from `proof`.
      cells: register and index of cells that matter besides those that the program touches.
    """

    def number(term: Term) -> int:
        value = model.eval(term, model_completion=True)
        return int(z3.is_true(value)) if z3.is_bool(value) else int(value.as_long())

    machine = passage.machine
    touched = [(a.register, a.index) for a in machine.accesses] + list(cells)
    places = dict.fromkeys(
        (name, index)
        for name, index in ((name, number(term)) for name, term in touched)
        if index < machine.program.registers[name].size
    )
    group = number(passage.multicast)
    values = passage.left.values
    rid = number(values["standard_metadata.egress_rid"])
    copy = Copy(number(passage.copied_to), rid)
    at = {place: z3.BitVecVal(place[1], INDEX_BITS) for place in places}
    return Counterexample(
        machine.program,
        number(passage.port),
        _packet(passage, number),
        {place: number(passage.before(place[0], at[place])) for place in places},
        _rules(passage, number),
        group,
        copy,
        _outcome(passage, number, {place: passage.after(place[0], at[place]) for place in places}),
    )


class _Number(Protocol):
    """The type of `number`: a term's value in the model."""

    def __call__(self, term: Term) -> int: ...


def _packet(passage: Passage, number: _Number) -> bytes:
    """The packet; checksums, of which formulas only know whether they are right, are put in."""
    length, bits = number(passage.length), passage.packet.size()
    data: int = number(passage.packet) << -bits % 8
    packet = bytearray(data.to_bytes((bits + 7) // 8, "big")[:length].ljust(length, b"\0"))
    payload = number(passage.payload) // 8
    for sum_ in passage.machine.sums:
        field_ = passage.parsed.values[sum_.path]
        if number(sum_.guard) and not number(sum_.wrong) and z3.is_app_of(field_, z3.Z3_OP_EXTRACT):
            rest = bytes(packet[payload:]) if sum_.with_payload else b""
            at = (bits - 1 - field_.params()[0]) // 8
            packet[at : at + 2] = _checksum(sum_.data, rest, number).to_bytes(2, "big")
    return bytes(packet)


def _checksum(data: Sequence[Term], rest: bytes, number: _Number) -> int:
    value = bits = 0
    for term in data:
        width = 1 if z3.is_bool(term) else term.size()
        value, bits = value << width | number(term), bits + width
    behind = 8 * len(rest)
    return internet_checksum(value << behind | int.from_bytes(rest, "big"), bits + behind)


def _rules(passage: Passage, number: _Number) -> list[Rule]:
    program = passage.machine.program
    rules: dict[object, Rule] = {}
    for lookup in passage.machine.lookups:
        if number(lookup.guard):
            rule = _rule(program.tables[lookup.table], lookup, number)
            if rule is not None:
                rules[rule.table, rule.matches] = rule
    return list(rules.values())


def _rule(table: ir.Table, lookup: Lookup, number: _Number) -> Rule | None:
    hit = number(lookup.hit)
    if not hit and table.default_is_const:
        return None
    name = table.actions[min(number(lookup.action), len(table.actions) - 1)]
    call = ir.ActionCall(name, tuple(number(each) for each in lookup.arguments[name]))
    if not hit:
        return Rule(table.name, None, call)
    matches = []
    for key, term in zip(table.keys, lookup.keys, strict=True):
        value = number(term)
        ones = (1 << (1 if z3.is_bool(term) else term.size())) - 1
        kind = "exact" if key.kind == "optional" else key.kind
        mask = ones if kind in ("ternary", "lpm") else 0
        matches.append(ir.Match(kind, value, mask, value if kind == "range" else 0))
    return Rule(table.name, tuple(matches), call)


def _outcome(
    passage: Passage, number: _Number, after: dict[tuple[str, int], Term]
) -> Outcome:
    program = passage.machine.program
    registers = {place: number(term) for place, term in after.items()}
    if not number(passage.sent):
        return Outcome(None, registers=registers)
    sums = {s.path for s in _statements(program.update.body) if isinstance(s, ir.Checksum)}
    headers: list[tuple[str, int, int | None]] = []
    for name, emitted in passage.machine.emitted:
        if number(emitted):
            header = program.headers[name]
            for field_, type_ in header.fields:
                path = f"{name}.{field_}"
                value = None if path in sums else number(passage.left.values[path])
                headers.append((path, type_.width, value))
    payload = _packet(passage, number)[number(passage.payload) // 8 :]
    port = number(passage.left.values["standard_metadata.egress_port"])
    return Outcome(port, headers, payload, registers)


def _statements(block: ir.Block) -> list[ir.Statement]:
    """All of a block, those within ifs too."""
    found: list[ir.Statement] = []
    for statement in block:
        found.append(statement)
        if isinstance(statement, ir.If):
            found += _statements(statement.then) + _statements(statement.other)
    return found
