"""Runs a program's blocks on symbolic states, and notes what must hold on the way.

What the control plane fills in is unknown: a table whose entries are not const may do whatever its
list of actions allows, with any arguments, at each lookup anew. A program narrows that by an
`assume` at the beginning of an action. Obligations are only noted here; `proof` decides them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import z3

from switch.lang import ir
from switch.verify.state import FALSE, INDEX_BITS, TRUE, State, Write, both, joined
from switch.verify.terms import (
    Ahead,
    Term,
    Unsupported,
    constant,
    matches,
    resized,
    symbol,
    term,
)

Runner = Callable[[State], State | None]
DECIDED = "$decided"
"""A variable of our own: whether something has said what becomes of the packet."""
EGRESS_SPEC = "standard_metadata.egress_spec"
MULTICAST = "standard_metadata.mcast_grp"
CHECKSUM_ERROR = "standard_metadata.checksum_error"


class Way(NamedTuple):
    """What a lookup may come to."""

    condition: Term
    hit: Term
    action: str
    arguments: tuple[Term, ...]


class Obligation(NamedTuple):
    """Something that must hold at a place, whatever comes in."""

    property: str
    where: ir.Where
    text: str
    violated: Term
    """Satisfiable, together with the first `assumed` assumptions: a bug."""
    assumed: int


class Lookup(NamedTuple):
    """One lookup in a table that the control plane fills; what replays a counter-example reads."""

    table: str
    guard: Term
    keys: tuple[Term, ...]
    hit: Term
    action: Term
    """The index in the table's actions."""
    arguments: dict[str, tuple[Term, ...]]
    """By action."""


class Sum(NamedTuple):
    """A checksum that is verified; a counter-example must have it right where `wrong` is not."""

    path: str
    guard: Term
    data: tuple[Term, ...]
    with_payload: bool
    wrong: Term


@dataclass(slots=True)
class Access:
    """One use of a register."""

    register: str
    guard: Term
    index: Term
    stage: str


class Machine:
    """One packet's way through one program."""

    def __init__(self, program: ir.Program) -> None:
        self.program = program
        self.obligations: list[Obligation] = []
        self.assumptions: list[Term] = []
        """In the order in which the packet meets them."""
        self.lookups: list[Lookup] = []
        self.accesses: list[Access] = []
        self.sums: list[Sum] = []
        self.undefined: list[Term] = []
        """Values that P4 leaves open; bmv2 has 0 there."""
        self.emitted: list[tuple[str, Term]] = []
        self.stage = ""
        self.lookahead: Ahead | None = None
        self.extract: Callable[[ir.Extract | ir.Advance | ir.Verify, State], State]
        self.registers = {
            name: z3.Function(
                f"register.{name}", z3.BitVecSort(INDEX_BITS), z3.BitVecSort(register.width)
            )
            for name, register in program.registers.items()
        }
        self._header_of = {
            f"{header.path}.{name}": header
            for header in program.headers.values()
            for name, _ in header.fields
        }
        self._names: dict[str, int] = {}
        self._exits: list[tuple[Term, State]] = []
        self._returns: list[list[tuple[Term, State]]] = []

    # Unknowns ------------------------------------------------------------------------------------

    def fresh(self, name: str, type_: ir.Type) -> Term:
        """An unknown under a name of its own."""
        count = self._names[name] = self._names.get(name, 0) + 1
        return symbol(name if count == 1 else f"{name}#{count}", type_)

    def open(self, name: str, type_: ir.Type) -> Term:
        """A value that P4 leaves open."""
        value = self.fresh(f"undefined.{name}", type_)
        self.undefined.append(value)
        return value

    def oblige(self, property: str, where: ir.Where, text: str, violated: Term) -> None:
        """Notes that something must never come about."""
        if not z3.is_false(violated):
            known = len(self.assumptions)
            self.obligations.append(Obligation(property, where, text, violated, known))

    # Running -------------------------------------------------------------------------------------

    def control(self, control: ir.Control, state: State, stage: str) -> State:
        """A whole control; where it ends, by whatever way."""
        self.stage = stage
        self._exits = []
        self._returns = [[]]
        end = self._block(control.body, state)
        ways = self._returns.pop() + self._exits
        if not ways and end is not None:
            return end
        whole = joined(ways + ([(end.guard, end)] if end is not None else []), state.guard)
        assert whole is not None, "a control ends somewhere"
        return whole

    def body(self, block: ir.Block, state: State) -> State:
        """Statements of a parser's state."""
        end = self._block(block, state)
        assert end is not None, "a parser has no exit and no return"
        return end

    def value(self, expression: ir.Expression, state: State, where: ir.Where) -> Term:
        """An expression's value at a place."""

        def read(e: ir.Read, under: Term) -> Term:
            self._check_read(e.path, state, under, e.where if e.where.line else where)
            return state.values[e.path]

        return term(expression, read, state.guard, self.lookahead)

    def _block(self, block: ir.Block, state: State | None) -> State | None:
        for statement in block:
            if state is None:
                return None
            state = self._statement(statement, state)
        return state

    def _statement(self, s: ir.Statement, state: State) -> State | None:
        match s:
            case ir.Assign():
                self._assign(s, state)
            case ir.SetValid():
                self._set_valid(s, state)
            case ir.SetInvalid():
                state.values[self.program.headers[s.header].valid] = FALSE
            case ir.If():
                return self._if(s, state)
            case ir.Apply():
                return self._apply(s, state)
            case ir.Call():
                return self._action(s.action, state)
            case ir.Exit():
                self._exits.append((state.guard, state))
                return None
            case ir.Return():
                self._returns[-1].append((state.guard, state))
                return None
            case ir.RegisterRead():
                self._register_read(s, state)
            case ir.RegisterWrite():
                self._register_write(s, state)
            case ir.Count():
                self._count(s, state)
            case ir.MarkToDrop():
                self._set(EGRESS_SPEC, z3.BitVecVal(ir.DROP_PORT, 9), state)
                self._set(MULTICAST, z3.BitVecVal(0, 16), state)
            case ir.Hash():
                self._hash(s, state)
            case ir.Assert():
                holds = self.value(s.condition, state, s.where)
                self.oblige("assert", s.where, s.text, both(state.guard, z3.Not(holds)))
            case ir.Assume():
                holds = self.value(s.condition, state, s.where)
                self.assumptions.append(z3.Implies(state.guard, holds))
            case ir.Extract() | ir.Advance() | ir.Verify():
                return self.extract(s, state)
            case ir.Emit():
                valid = state.values[self.program.headers[s.header].valid]
                self.emitted.append((s.header, both(state.guard, valid)))
            case ir.Checksum():
                self._checksum(s, state)
        return state

    def _set(self, path: str, value: Term, state: State) -> None:
        state.values[path] = value
        state.unset.pop(path, None)
        if path in (EGRESS_SPEC, MULTICAST):
            state.values[DECIDED] = TRUE

    def _assign(self, s: ir.Assign, state: State) -> None:
        value = self.value(s.value, state, s.where)
        header = self._header_of.get(s.path)
        if header is not None:
            self._check_valid("header", header, state, state.guard, s.path, "written", s.where)
        if s.high is not None and s.low is not None:
            old = state.values[s.path]
            parts = [value]
            if s.high < old.size() - 1:
                parts.insert(0, z3.Extract(old.size() - 1, s.high + 1, old))
            if s.low > 0:
                parts.append(z3.Extract(s.low - 1, 0, old))
            value = z3.Concat(*parts) if len(parts) > 1 else value
        self._set(s.path, value, state)

    def _set_valid(self, s: ir.SetValid, state: State) -> None:
        header = self.program.headers[s.header]
        was = state.values[header.valid]
        for name, type_ in header.fields:
            path = f"{header.path}.{name}"
            state.values[path] = z3.If(was, state.values[path], self.open(path, type_))
        state.values[header.valid] = TRUE

    def _if(self, s: ir.If, state: State) -> State | None:
        condition = self.value(s.condition, state, s.where)
        return self._fork(
            state,
            [
                (condition, lambda st: self._block(s.then, st)),
                (z3.Not(condition), lambda st: self._block(s.other, st)),
            ],
        )

    def _fork(self, state: State, ways: Sequence[tuple[Term, Runner]]) -> State | None:
        """Runs each way where its condition holds; the conditions exclude each other."""
        outcomes = []
        whole = True
        for condition, run in ways:
            start = state.under(condition)
            guard = start.guard
            end = run(start)
            whole = whole and end is not None and end.guard is guard
            if end is not None:
                outcomes.append((condition, end))
        return joined(outcomes, state.guard if whole else None)

    def _action(self, name: str, state: State) -> State | None:
        self._returns.append([])
        end = self._block(self.program.actions[name].body, state)
        returned = self._returns.pop()
        if not returned:
            return end
        return joined(returned + ([(end.guard, end)] if end is not None else []))

    # Tables --------------------------------------------------------------------------------------

    def _apply(self, s: ir.Apply, state: State) -> State | None:
        table = self.program.tables[s.table]
        keys = tuple(self.value(key.expression, state, s.where) for key in table.keys)
        ways = self._ways(table, keys, state)

        def runner(way: Way) -> Runner:
            def run(st: State) -> State | None:
                parameters = self.program.actions[way.action].parameters
                for parameter, argument in zip(parameters, way.arguments, strict=True):
                    self._set(parameter.path, argument, st)
                if s.hit is not None:
                    self._set(s.hit, way.hit, st)
                if s.action is not None:
                    number = table.actions.index(way.action)
                    self._set(s.action, z3.BitVecVal(number, 16), st)
                return self._action(way.action, st)

            return run

        return self._fork(state, [(way.condition, runner(way)) for way in ways])

    def _arguments(self, call: ir.ActionCall) -> tuple[Term, ...]:
        parameters = self.program.actions[call.action].parameters
        return tuple(
            constant(value, parameter.type)
            for parameter, value in zip(parameters, call.arguments, strict=True)
        )

    def _ways(self, table: ir.Table, keys: tuple[Term, ...], state: State) -> list[Way]:
        """All that a lookup may come to, each with its condition; they exclude each other.

        What the program's text fixes is taken from it: the first entry that matches, of prefixes
        the longest; the default. The rest is the control plane's choice.
        """
        ways: list[Way] = []
        left = TRUE
        entries = list(table.entries) if table.entries_are_const else []
        for number in (n for n, key in enumerate(table.keys) if key.kind == "lpm"):
            entries.sort(key=lambda entry: -entry.matches[number].mask.bit_count())
        for entry in entries:
            found = z3.And([matches(m, key) for m, key in zip(entry.matches, keys, strict=True)])
            call = entry.call
            ways.append(Way(both(left, found), TRUE, call.action, self._arguments(call)))
            left = both(left, z3.Not(found))
        hit = FALSE
        if table.keys and not entries:
            hit = self.fresh(f"table.{table.name}.hit", ir.Bool())
        if table.default_is_const:
            missed, call = both(left, z3.Not(hit)), table.default
            ways.append(Way(missed, FALSE, call.action, self._arguments(call)))
            left = both(left, hit)
        if not z3.is_false(hit) or not table.default_is_const:
            ways += self._chosen_ways(table, keys, hit, left, state)
        return ways

    def _chosen_ways(
        self, table: ir.Table, keys: tuple[Term, ...], hit: Term, left: Term, state: State
    ) -> list[Way]:
        """Any of the table's actions, with any arguments."""
        chosen = self.fresh(f"table.{table.name}.action", ir.Bits(16))
        arguments = {
            name: tuple(
                self.fresh(f"table.{table.name}.{name}.{parameter.name}", parameter.type)
                for parameter in self.program.actions[name].parameters
            )
            for name in table.actions
        }
        self.lookups.append(Lookup(table.name, state.guard, keys, hit, chosen, arguments))
        ways = []
        last = len(table.actions) - 1
        for number, name in enumerate(table.actions):
            is_it = chosen == number if number < last else z3.UGE(chosen, last)
            ways.append(Way(both(left, is_it), hit, name, arguments[name]))
        return ways

    # Registers, and what else has an index or stays unknown --------------------------------------

    def _index(
        self, what: str, size: int, index: ir.Expression, state: State, where: ir.Where
    ) -> tuple[Term, Term]:
        """An index in INDEX_BITS, and whether it is in range."""
        value = self.value(index, state, where)
        inside = TRUE
        if 1 << value.size() > size:
            inside = z3.ULT(value, z3.BitVecVal(size, value.size()))
            text = f"index of {what} below {size}"
            self.oblige("index", where, text, both(state.guard, z3.Not(inside)))
        return resized(value, INDEX_BITS), inside

    def _accessed(
        self, register: str, index: ir.Expression, state: State, where: ir.Where
    ) -> tuple[Term, Term]:
        size = self.program.registers[register].size
        cell, inside = self._index(register, size, index, state, where)
        self.accesses.append(Access(register, both(state.guard, inside), cell, self.stage))
        if self.stage != "ingress":
            text = f"register {register} used in {self.stage}: only ingress is one thread"
            self.oblige("stage", where, text, state.guard)
        return cell, inside

    def _register_read(self, s: ir.RegisterRead, state: State) -> None:
        cell, inside = self._accessed(s.register, s.index, state, s.where)
        value = state.cell(s.register, cell, self.registers[s.register](cell))
        if not z3.is_true(inside):
            beyond = self.open(s.path, ir.Bits(value.size()))
            value = z3.If(inside, value, beyond)
        self._set(s.path, value, state)

    def _register_write(self, s: ir.RegisterWrite, state: State) -> None:
        cell, inside = self._accessed(s.register, s.index, state, s.where)
        value = self.value(s.value, state, s.where)
        state.writes += (Write(s.register, both(state.guard, inside), cell, value),)

    def _count(self, s: ir.Count, state: State) -> None:
        counter = self.program.counters[s.counter]
        if s.index is not None:
            self._index(s.counter, counter.size, s.index, state, s.where)

    def _hash(self, s: ir.Hash, state: State) -> None:
        """Any value in the range: a proof must not depend on what a hash function gives."""
        for expression in s.data:
            self.value(expression, state, s.where)
        type_ = self.program.variables[s.path]
        if isinstance(type_, ir.Bool):
            raise Unsupported(s.where, "a hash into a bool")
        base = self.value(s.base, state, s.where)
        most = resized(self.value(s.most, state, s.where), 64)
        offset = self.fresh(f"hash.{s.path}", ir.Bits(64))
        inside = z3.If(most == 0, offset == 0, z3.ULT(offset, most))
        self.assumptions.append(z3.Implies(state.guard, inside))
        value = resized(resized(base, 64) + offset, type_.width)
        self._set(s.path, value, state)

    def _checksum(self, s: ir.Checksum, state: State) -> None:
        """Any value: no property depends on a sum, but its inputs must be there to be read."""
        condition = self.value(s.condition, state, s.where)
        inner = state.under(condition)
        data = tuple(self.value(expression, inner, s.where) for expression in s.data)
        header = self._header_of.get(s.path)
        if header is not None:
            self._check_valid("header", header, inner, inner.guard, s.path, "summed", s.where)
        if s.verb == "update":
            sum_ = self.fresh(f"checksum.{s.path}", self.program.variables[s.path])
            state.values[s.path] = z3.If(condition, sum_, state.values[s.path])
            return
        wrong = self.fresh(f"checksum.{s.path}.wrong", ir.Bits(1))
        self.sums.append(Sum(s.path, inner.guard, data, s.with_payload, wrong))
        error = state.values[CHECKSUM_ERROR]
        state.values[CHECKSUM_ERROR] = z3.If(condition, error | wrong, error)

    # Checks --------------------------------------------------------------------------------------

    def _check_read(self, path: str, state: State, under: Term, where: ir.Where) -> None:
        header = self._header_of.get(path)
        if header is not None:
            self._check_valid("header", header, state, under, path, "read", where)
        elif path in state.unset:
            text = f"{path} set before it is read"
            self.oblige("unset", where, text, both(under, state.unset[path]))

    def _check_valid(
        self, property: str, header: ir.Header, state: State, under: Term, path: str, verb: str,
        where: ir.Where,
    ) -> None:  # fmt: skip
        valid = state.values[header.valid]
        if not z3.is_true(valid):
            text = f"{header.path} valid where {path} is {verb}"
            self.oblige(property, where, text, both(under, z3.Not(valid)))
