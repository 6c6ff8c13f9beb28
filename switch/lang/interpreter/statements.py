"""Statements of the representation as lines of Python.

A program's variables are one dict `v` from path to value, so that a packet's copy for multicast
is `dict(v)`, and the generated text reads like the P4 text. Registers, counters and tables are
globals of the generated module. An action is a function of `v`; Return leaves it, Exit is an
exception that ends the control. The parser's functions also have `raw`, the packet as one number,
and `left`, how many of its bits are not yet extracted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

from switch.lang import ir
from switch.lang.interpreter.expressions import Expressions, mask, width_of
from switch.lang.interpreter.faults import Fault, Kind

EGRESS_SPEC, MULTICAST_GROUP = "standard_metadata.egress_spec", "standard_metadata.mcast_grp"
CHECKSUM_ERROR = "standard_metadata.checksum_error"
LENGTH = "v['standard_metadata.packet_length']"


class Names:
    """Python names for what the program calls otherwise; no two things share one."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}

    def __call__(self, kind: str, name: str) -> str:
        """`table_ingress_dispatch` for the table `ingress.dispatch`."""
        if (kind, name) not in self._given:
            python = f"{kind}_{re.sub(r'[^0-9A-Za-z]', '_', name)}"
            while python in self._given.values():
                python += "_"
            self._given[kind, name] = python
        return self._given[kind, name]


class Statements:
    """Translates blocks; what can go wrong in them is put into `faults`."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self.names = Names()
        self.faults: list[Fault] = []
        self.expressions = Expressions(lambda where: self.fault("division", where, ""))

    def fault(self, kind: Kind, where: ir.Where, text: str) -> int:
        """The number by which the generated text reports this place."""
        self.faults.append(Fault(kind, where, text))
        return len(self.faults) - 1

    def block(self, block: ir.Block, leave: str = "return") -> list[str]:
        """Its lines, not indented; `leave` is what Return becomes."""
        lines = [line for statement in block for line in self._statement(statement, leave)]
        return lines or ["pass"]

    def _statement(self, statement: ir.Statement, leave: str) -> Iterator[str]:
        text, stored = self.expressions.text, self.expressions.stored
        match statement:
            case ir.Assign(path, value, None, None):
                yield f"v[{path!r}] = {stored(value)}"
            case ir.Assign(path, value, high, low):
                assert high is not None
                assert low is not None
                others = mask(self._width(path)) + f" ^ {mask(high - low + 1)} << {low}"
                yield f"v[{path!r}] = v[{path!r}] & ({others}) | {stored(value)} << {low}"
            case ir.SetValid(header):
                valid = self.program.headers[header].valid
                yield f"if not v[{valid!r}]:"
                yield f"    v.update({self.names('zeros', header)})"
            case ir.SetInvalid(header):
                yield f"v[{self.program.headers[header].valid!r}] = 0"
            case ir.If():
                yield from self._if(statement, leave)
            case ir.Apply(applied, hit, action):
                kept = "found = " if hit or action else ""
                yield f"{kept}{self.names('apply', applied)}(v)"
                if hit:
                    yield f"v[{hit!r}] = found.hit"
                if action:
                    yield f"v[{action!r}] = found.index"
            case ir.Call(action):
                yield f"{self.names('action', action)}(v)"
            case ir.Exit():
                yield "raise Exited"
            case ir.Return():
                yield leave
            case ir.RegisterRead(register, path, index):
                yield from self._in_bounds(
                    "register", register, index, statement.where,
                    lambda cells, at: f"v[{path!r}] = {cells}[{at}]",
                )  # fmt: skip
            case ir.RegisterWrite(register, index, value):
                yield from self._in_bounds(
                    "register", register, index, statement.where,
                    lambda cells, at: f"{cells}[{at}] = {stored(value)}",
                )  # fmt: skip
            case ir.Count(counter, None):
                table = self.program.counters[counter].table
                assert table is not None
                yield f"{self.names('table', table)}.last.count({LENGTH})"
            case ir.Count(counter, index):
                assert index is not None
                yield from self._in_bounds(
                    "counter", counter, index, statement.where,
                    lambda cells, at: f"{cells}.count({at}, {LENGTH})",
                )  # fmt: skip
            case ir.MarkToDrop():
                yield f"v[{EGRESS_SPEC!r}] = {ir.DROP_PORT}"
                yield f"v[{MULTICAST_GROUP!r}] = 0"
            case ir.Hash():
                yield from self._hash(statement)
            case ir.Assert(condition, condition_text) | ir.Assume(condition, condition_text):
                kind: Kind = "assert" if isinstance(statement, ir.Assert) else "assume"
                yield f"if not {text(condition)}:"
                yield f"    fault({self.fault(kind, statement.where, condition_text)})"
            case ir.Extract(header):
                yield from self._extract(self.program.headers[header])
            case ir.Advance(bits):
                yield f"left = advanced(left, {text(bits)})"
            case ir.Verify(condition, error):
                yield f"if not {text(condition)}:"
                yield f"    raise Rejected({self.program.errors.index(error)})  # {error}"
            case ir.Emit(header):
                yield from self._emit(self.program.headers[header])
            case ir.Checksum():
                yield from self._checksum(statement)

    def _width(self, path: str) -> int:
        return width_of(self.program.variables.get(path) or ir.STANDARD_METADATA[path])

    def _if(self, statement: ir.If, leave: str) -> Iterator[str]:
        """A chain of `else if` stays flat: Python bounds how deep a text may be indented."""
        word = "if"
        while True:
            yield f"{word} {self.expressions.text(statement.condition)}:"
            yield from indented(self.block(statement.then, leave))
            match statement.other:
                case (ir.If() as next_one,):
                    statement, word = next_one, "elif"
                case ():
                    return
                case other:
                    yield "else:"
                    yield from indented(self.block(other, leave))
                    return

    def _in_bounds(
        self,
        kind: Literal["register", "counter"],
        name: str,
        index: ir.Expression,
        where: ir.Where,
        access: Callable[[str, str], str],
    ) -> Iterator[str]:
        """An access to a cell, or, beyond the size, nothing and a fault."""
        program, cells = self.program, self.names(kind, name)
        size = (program.registers if kind == "register" else program.counters)[name].size
        if isinstance(index, ir.Const) and index.value < size:
            yield access(cells, str(index.value))
            return
        yield f"index = {self.expressions.text(index)}"
        yield f"if index < {size}:"
        yield f"    {access(cells, 'index')}"
        yield "else:"
        yield f"    fault({self.fault(kind, where, name)})"

    def _hash(self, statement: ir.Hash) -> Iterator[str]:
        text = self.expressions.text
        data, bits = self.expressions.concatenated(statement.data)
        width = mask(self._width(statement.path))
        yield f"most = {text(statement.most)}"
        yield f"value = hashed({statement.algorithm!r}, {data}, {bits}) % most if most else 0"
        yield f"v[{statement.path!r}] = {text(statement.base)} + value & {width}"

    def _extract(self, header: ir.Header) -> Iterator[str]:
        short = self.program.errors.index("PacketTooShort")
        yield f"if left < {header.bits}:"
        yield f"    raise Rejected({short})  # PacketTooShort"
        yield f"left -= {header.bits}"
        yield "bits = raw >> left"
        left = header.bits
        for name, type_ in header.fields:
            left -= type_.width
            shift = f" >> {left}" if left else ""
            yield f"v[{f'{header.path}.{name}'!r}] = bits{shift} & {mask(type_.width)}"
        yield f"v[{header.valid!r}] = 1"

    def _emit(self, header: ir.Header) -> Iterator[str]:
        reads = [ir.Read(f"{header.path}.{name}", type_) for name, type_ in header.fields]
        data, bits = self.expressions.concatenated(reads)
        yield f"if v[{header.valid!r}]:"
        yield f"    out = out << {bits} | {data}"
        yield f"    bits += {bits}"

    def _checksum(self, statement: ir.Checksum) -> Iterator[str]:
        data, bits = self.expressions.concatenated(statement.data)
        if statement.with_payload:
            sum_ = f"internet_checksum({data} << left | payload, {bits} + left)"
        else:
            sum_ = f"internet_checksum({data}, {bits})"
        yield f"if {self.expressions.text(statement.condition)}:"
        if statement.verb == "update":
            yield f"    v[{statement.path!r}] = {sum_}"
        else:
            yield f"    if v[{statement.path!r}] != {sum_}:"
            yield f"        v[{CHECKSUM_ERROR!r}] = 1"


def indented(lines: Iterable[str]) -> Iterator[str]:
    """Each line one step further in."""
    return (f"    {line}" for line in lines)
