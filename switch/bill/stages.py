"""How many match-action stages a control needs, by what depends on what.

In one stage a table is matched and its action runs: each operation on values as they were before
the stage. So

- what reads a variable, as an operand, a key or a condition, stands behind the stage that wrote it;
- what writes a variable stands behind the stage that wrote it before, and not before one that
  still reads the old value;
- what hangs on a condition or a table's outcome may stand in the stage that evaluates it;
- branches exclude each other, as a table's actions do: both may write a variable in one stage;
- an expression takes a stage for each operation on the longest way through it, but for what is
  wiring (casts, slices, `++`) or a stage's own test (comparing with a constant, `==`, `&&`);
- a register lies in one stage. Its readers wait for the latest of them. A cell's new value may
  take `stateful_operations` more steps within that stage; a write that comes later does not fit,
  and is reported with both stages.

The dependencies are those of Jose et al., Compiling Packet Programs to Reconfigurable Switches
(NSDI 2015), for single operations. No compiler's cleverness is taken into account (nothing is
reordered, no copy left out), and none of the limits but order: the count is what the program as
written asks for.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from switch.lang import ir
from switch.lang.walking import operands, reads

PASSES_MAX = 64
"""Of moving a register's readers to the latest one: where one reader waits for another of the same
register this has no end."""

_TESTS = {"==", "!=", "&&", "||"}
_COMPARE = {"<", "<=", ">", ">="}
_SPECIAL = ("standard_metadata.egress_spec", "standard_metadata.mcast_grp")


@dataclass
class Moment:
    """How far the variables are at one point of the program, in stages from 1."""

    written: dict[str, int] = field(default_factory=dict)
    """By variable, the stage behind which its value is there; 0 from the parser."""
    read: dict[str, int] = field(default_factory=dict)
    """By variable, the last stage that wants its value."""

    def copy(self) -> Moment:
        """One that changes for itself."""
        return Moment(dict(self.written), dict(self.read))

    def merge(self, others: Iterable[Moment]) -> None:
        """Any of them may have come to pass."""
        for other in others:
            for mine, theirs in ((self.written, other.written), (self.read, other.read)):
                for path, stage in theirs.items():
                    mine[path] = max(stage, mine.get(path, 0))


@dataclass
class Layout:
    """Where things stand, by stage from 1."""

    stages: int = 0
    tables: dict[str, int] = field(default_factory=dict)
    reads: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))
    """By register."""
    writes: defaultdict[str, set[int]] = field(default_factory=lambda: defaultdict(set))


class Left(NamedTuple):
    """Whether a block may end early, by what: the stage of its test, or 0 for never."""

    exit: int = 0
    return_: int = 0

    def or_else(self, other: Left) -> Left:
        """Either may have ended it."""
        return Left(max(self.exit, other.exit), max(self.return_, other.return_))


class _Control:
    """One pass over a control."""

    def __init__(
        self, program: ir.Program, stateful_operations: int, readers: dict[str, int]
    ) -> None:
        self.program = program
        self.stateful_operations = stateful_operations
        self.readers = readers
        self.layout = Layout()

    def block(self, block: ir.Block, moment: Moment, behind: int) -> Left:
        """Places a block, whose tests so far are ready behind the stage `behind`."""
        left = Left()
        for statement in block:
            match statement:
                case ir.If(condition, then, other):
                    test = max(behind, self._ready(moment, condition))
                    self._wanted(moment, test + 1, condition)
                    ended = self._branches(moment, test, [then, other])
                case ir.Apply():
                    ended = Left(exit=self._apply(statement, moment, behind).exit)
                case ir.Call(action):
                    body = self.program.actions[action].body
                    ended = Left(exit=self.block(body, moment, behind).exit)
                case ir.Exit():
                    return left.or_else(Left(exit=behind + 1))
                case ir.Return():
                    return left.or_else(Left(return_=behind + 1))
                case _:
                    self._operation(statement, moment, behind)
                    continue
            left = left.or_else(ended)
            # What follows runs only where the test of the `exit` or `return` said no.
            behind = max(behind, left.exit - 1, left.return_ - 1)
        return left

    def _branches(self, moment: Moment, test: int, blocks: Iterable[ir.Block]) -> Left:
        """One of several blocks runs, after a test that is ready behind the stage `test`."""
        ways, left = [], Left()
        for block in blocks:
            way = moment.copy()
            left = left.or_else(self.block(block, way, test))
            ways.append(way)
        moment.merge(ways)
        return left

    def _apply(self, statement: ir.Apply, moment: Moment, behind: int) -> Left:
        table = self.program.tables[statement.table]
        keys = [key.expression for key in table.keys]
        test = max(behind, self._ready(moment, *keys))
        self._wanted(moment, test + 1, *keys)
        self._up_to(test + 1)
        self.layout.tables[table.name] = max(test + 1, self.layout.tables.get(table.name, 0))
        left = self._branches(
            moment, test, [self.program.actions[name].body for name in table.actions]
        )
        for path in (statement.hit, statement.action):
            if path is not None:  # a test on it is one of this stage
                moment.written[path] = test
        return left

    def _operation(self, statement: ir.Statement, moment: Moment, behind: int) -> None:
        match statement:
            case ir.Assign(path, value):
                self._assign(moment, path, behind, value)
            case ir.Hash(path, _, base, data, most):
                self._assign(moment, path, behind, base, most, *data)
            case ir.SetValid(header) | ir.SetInvalid(header):
                self._write(moment, self.program.headers[header].valid, behind + 1)
            case ir.MarkToDrop():
                for path in _SPECIAL:
                    self._write(moment, path, behind + 1)
            case ir.RegisterRead(register, path, index):
                start = max(behind, self._ready(moment, index)) + 1
                start = max(start, self.readers.get(register, 0))
                self._wanted(moment, start, index)
                self.layout.reads[register].add(start)
                self._write(moment, path, start)
            case ir.RegisterWrite(register, index, value):
                start = max(behind, self._ready(moment, index, value)) + 1
                read = max(self.layout.reads[register], default=start)
                if start - read - 1 <= self.stateful_operations:
                    start = read if start > read else start
                self._wanted(moment, start, index, value)
                self._up_to(start)
                self.layout.writes[register].add(start)
            case ir.Count(_, index):
                wanted = () if index is None else (index,)
                start = max(behind, self._ready(moment, *wanted)) + 1
                self._wanted(moment, start, *wanted)
                self._up_to(start)

    def _assign(self, moment: Moment, path: str, behind: int, *values: ir.Expression) -> None:
        """The last step writes; the first reads."""
        before = max(behind, *(self._written(moment, value) for value in values))
        steps = max(1, *(levels(value) for value in values))
        self._wanted(moment, before + 1, *values)
        self._write(moment, path, before + steps)

    def _write(self, moment: Moment, path: str, stage: int) -> None:
        stage = max(stage, moment.written.get(path, 0) + 1, moment.read.get(path, 0))
        moment.written[path] = stage
        self._up_to(stage)

    def _written(self, moment: Moment, *values: ir.Expression) -> int:
        return max((moment.written.get(path, 0) for path in reads(*values)), default=0)

    def _ready(self, moment: Moment, *values: ir.Expression) -> int:
        """The stage behind which the values can be tested or matched."""
        return max((self._written(moment, value) + levels(value) for value in values), default=0)

    def _wanted(self, moment: Moment, stage: int, *values: ir.Expression) -> None:
        for path in reads(*values):
            moment.read[path] = max(stage, moment.read.get(path, 0))

    def _up_to(self, stage: int) -> None:
        self.layout.stages = max(self.layout.stages, stage)


def levels(expression: ir.Expression) -> int:
    """Operations on the longest way through it, one behind the other."""
    below = max((levels(each) for each in operands(expression)), default=0)
    match expression:
        case ir.Binary(operator) if operator in _TESTS or operator == "++":
            return below
        case ir.Binary(operator, left, right) if operator in _COMPARE:
            return below + (not isinstance(left, ir.Const) and not isinstance(right, ir.Const))
        case ir.Unary("!"):
            return below
        case ir.Binary() | ir.Unary() | ir.Choice():
            return below + 1
    return below


def lay_out(program: ir.Program, control: ir.Control, stateful_operations: int = 0) -> Layout:
    """The stages of one control.

    Args:
      program: what the control is of.
      control: ingress or egress.
      stateful_operations: as the target's.
    """
    readers: dict[str, int] = {}
    for _ in range(PASSES_MAX):
        attempt = _Control(program, stateful_operations, readers)
        attempt.block(control.body, Moment(), 0)
        latest = {name: max(stages) for name, stages in attempt.layout.reads.items() if stages}
        if latest == readers:
            break
        readers = latest
    return attempt.layout
