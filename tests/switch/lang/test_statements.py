"""Drawn programs on the interpreter against one that walks the tree, a statement at a time."""

from __future__ import annotations

from random import Random

import pytest

from switch.lang import ir
from switch.lang.interpreter import Interpreter
from switch.lang.ir import Action, ActionCall, Assign, Bits, If, Match, Read
from tests.switch.lang.programs import BOOL, const, program, read, table
from tests.switch.lang.slow import evaluate, to_bits, to_number

NAMES = ("meta.a", "meta.b", "meta.c", "meta.d")
HIT, RAN = "meta.hit", "meta.ran"
CELLS = 5
REGISTER = ir.Register("cells", 8, CELLS)
INNER, OUTER, WITH_DATA = "inner", "outer", "with_data"
ACTIONS = (INNER, OUTER, WITH_DATA)
TABLE = "decide"


class Draw:
    """Draws a program: two actions, one that calls the other, and a table of all three."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.pick = self.random.choice

    def value(self) -> ir.Expression:
        kinds = (
            lambda: const(self.random.randrange(8), 8),
            lambda: read(self.pick(NAMES), 8),
            lambda: ir.Binary("+", read(self.pick(NAMES), 8), read(self.pick(NAMES), 8), Bits(8)),
            lambda: ir.Binary("^", read(self.pick(NAMES), 8), const(3, 8), Bits(8)),
        )
        return self.pick(kinds)()

    def condition(self) -> ir.Expression:
        if self.random.random() < 0.2:
            return Read(HIT, BOOL)
        return ir.Binary(self.pick(("<", "==", ">=")), self.value(), self.value(), BOOL)

    def block(self, depth: int, calls: tuple[str, ...]) -> ir.Block:
        size = self.random.randrange(1, 5)
        return tuple(self.statement(depth, calls) for _ in range(size))

    def statement(self, depth: int, calls: tuple[str, ...]) -> ir.Statement:
        path = self.pick(NAMES)
        kind = self.random.random()
        if depth and kind < 0.3:
            other = self.block(depth - 1, calls) if self.random.random() < 0.7 else ()
            return If(self.condition(), self.block(depth - 1, calls), other)
        if calls and kind < 0.45:
            name = self.pick(calls)
            return ir.Apply(TABLE, HIT, RAN) if name == TABLE else ir.Call(name)
        if kind < 0.5:
            return ir.Return()
        if kind < 0.53:
            return ir.Exit()
        if kind < 0.62:
            return ir.RegisterRead("cells", path, self.value())
        if kind < 0.72:
            return ir.RegisterWrite("cells", self.value(), self.value())
        if kind < 0.8:
            return Assign(path, ir.Slice(self.value(), 4, 2, Bits(3)), high=6, low=4)
        return Assign(path, self.value())

    def program(self) -> ir.Program:
        data = ir.Parameter("data", "with_data.data", Bits(8))
        actions = (
            Action(INNER, (), self.block(2, ())),
            Action(OUTER, (), self.block(2, (INNER,))),
            Action(WITH_DATA, (data,), (Assign("meta.d", read("with_data.data", 8)),)),
        )
        masks = (0, 1, 3, 0xFF)
        entries = tuple(
            ((Match("ternary", self.random.randrange(8), self.pick(masks)),), self.call())
            for _ in range(3)
        )
        decide = table(
            (read("meta.a", 8), "ternary"), name=TABLE, entries=entries, default=INNER,
            actions=ACTIONS,
        )  # fmt: skip
        told = (*(read(name, 8) for name in NAMES), Read(RAN, Bits(16)))
        return program(
            variables={**dict.fromkeys(NAMES, Bits(8)), HIT: BOOL, RAN: Bits(16)},
            ingress=(
                *(ir.RegisterRead("told", name, const(n, 8)) for n, name in enumerate(NAMES)),
                *self.block(3, (INNER, OUTER, TABLE)),
            ),
            egress=tuple(
                ir.RegisterWrite("told", const(n, 8), ir.Cast(each, Bits(16)))
                for n, each in enumerate(told)
            ),
            actions=actions, tables=(decide,), registers=(REGISTER, ir.Register("told", 16, 5)),
        )  # fmt: skip

    def call(self) -> ActionCall:
        name = self.pick(ACTIONS)
        return ActionCall(name, (self.random.randrange(256),) if name == WITH_DATA else ())


class Exited(Exception):
    pass


class Walker:
    """The state of a program, and what each statement does to it."""

    def __init__(self, made: ir.Program, variables: dict[str, int]) -> None:
        self.program = made
        self.variables = dict.fromkeys(made.variables, 0) | variables
        self.cells = [0] * CELLS

    def value(self, expression: ir.Expression) -> int:
        return to_number(evaluate(expression, self.variables))

    def ingress(self) -> None:
        try:
            self.walk(self.program.ingress.body[len(NAMES) :])  # behind the reads of `told`
        except Exited:
            return

    def walk(self, block: ir.Block) -> bool:
        """Whether it goes on behind the block."""
        return all(self.step(statement) for statement in block)

    def step(self, statement: ir.Statement) -> bool:
        match statement:
            case Assign(path, value, high, low):
                bits = evaluate(value, self.variables)
                if low is not None and high is not None:
                    whole = to_bits(self.variables[path], 8)
                    bits = whole[:low] + bits + whole[high + 1 :]
                self.variables[path] = to_number(bits)
            case If(condition, then, other):
                return self.walk(then if self.value(condition) else other)
            case ir.Return():
                return False
            case ir.Exit():
                raise Exited
            case ir.Call(action):
                self.walk(self.program.actions[action].body)
            case ir.Apply():
                self.apply()
            case ir.RegisterRead(_, path, index):
                if self.value(index) < CELLS:
                    self.variables[path] = self.cells[self.value(index)]
            case ir.RegisterWrite(_, index, value):
                if self.value(index) < CELLS:
                    self.cells[self.value(index)] = self.value(value)
            case _:
                raise AssertionError(statement)
        return True

    def apply(self) -> None:
        decide = self.program.tables[TABLE]
        key, call, hit = self.value(decide.keys[0].expression), decide.default, 0
        for entry in decide.entries:
            (match,) = entry.matches
            if (key ^ match.value) & match.mask == 0:
                call, hit = entry.call, 1
                break
        action = self.program.actions[call.action]
        for parameter, argument in zip(action.parameters, call.arguments, strict=True):
            self.variables[parameter.path] = argument
        self.walk(action.body)
        self.variables[HIT], self.variables[RAN] = hit, decide.actions.index(call.action)


@pytest.mark.parametrize("seeds", [range(n, n + 40) for n in range(0, 120, 40)], ids=str)
def test_drawn_programs_do_what_their_statements_say(seeds: range) -> None:
    for seed in seeds:
        draw = Draw(seed)
        made = draw.program()
        switch = Interpreter(made)
        for _ in range(4):
            variables = {name: draw.random.randrange(8) for name in NAMES}
            switch.reset()
            for number, name in enumerate(NAMES):
                switch.write_register("told", number, variables[name])
            switch.process(1, b"")
            walker = Walker(made, variables)
            walker.ingress()
            told = [walker.variables[name] for name in (*NAMES, RAN)]
            assert switch.registers["told"] == told, (seed, variables)
            assert switch.registers["cells"] == walker.cells, (seed, variables)


def test_the_drawn_programs_reach_what_they_are_to_test() -> None:
    """Exits from within actions, returns, hits, misses and indexes out of bounds."""
    faults = hits = exits = 0
    for seed in range(60):
        made = Draw(seed).program()
        switch = Interpreter(made)
        switch.process(1, b"")
        faults += sum(switch.statistics.faults.values())
        walker = Walker(made, {})
        try:
            walker.walk(made.ingress.body[len(NAMES) :])
        except Exited:
            exits += 1
        hits += walker.variables[HIT]
    assert min(faults, hits, exits) >= 3
