"""What names and expressions mean while a program is lowered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from switch.lang import ir, syntax
from switch.lang.errors import P4Error
from switch.lang.types import Record, Scalar, Type, carrier


@dataclass(frozen=True, slots=True)
class Place:
    """What can be assigned: a variable, or bits of one."""

    path: str
    high: int | None = None
    low: int | None = None


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar."""

    type: Scalar
    expression: ir.Expression
    place: Place | None = None
    """None: it cannot be assigned."""

    @property
    def constant(self) -> int | None:
        """Its value, if it is known."""
        return self.expression.value if isinstance(self.expression, ir.Const) else None


@dataclass(frozen=True, slots=True)
class Literal:
    """A number without a width."""

    value: int


@dataclass(frozen=True, slots=True)
class String:
    """A text in quotation marks."""

    text: str


@dataclass(frozen=True, slots=True)
class Group:
    """A header or struct: of variables, or of values that are put together."""

    type: Record
    fields: dict[str, Value | Group]
    path: str | None = None
    """Of variables; a header has its validity below it."""
    writable: bool = True

    def leaves(self) -> Iterator[Value]:
        """Its scalars, in the order of the text."""
        for each in self.fields.values():
            if isinstance(each, Group):
                yield from each.leaves()
            else:
                yield each

    def headers(self) -> Iterator[Group]:
        """Itself, or the headers in it."""
        if self.type.is_header:
            yield self
            return
        for each in self.fields.values():
            if isinstance(each, Group):
                yield from each.headers()


@dataclass(frozen=True, slots=True)
class Listed:
    """{a, b} or {x = a, y = b}, which has no type until it is assigned."""

    items: tuple[tuple[str | None, Result], ...]


Result = Value | Literal | String | Group | Listed
"""Of an expression."""


@dataclass(frozen=True, slots=True)
class TypeName:
    """A type that has a name."""

    type: Type


@dataclass(slots=True)
class ActionName:
    """An action that can be called, or be in a table's list."""

    name: str
    parameters: tuple[ActionParameter, ...]
    exits: bool = False
    """It may end the control."""


@dataclass(frozen=True, slots=True)
class ActionParameter:
    """A parameter, and the variables that hold its argument."""

    name: str
    direction: str
    type: Type
    variable: Value | Group


@dataclass(frozen=True, slots=True)
class TableName:
    """A table that can be applied."""

    name: str
    actions: tuple[str, ...]
    labels: dict[str, int]
    """By the names that the text uses, the indices of its actions."""


@dataclass(frozen=True, slots=True)
class ExternName:
    """An object of v1model."""

    kind: str
    name: str = ""
    width: int = 0
    """Of a register's cells."""


@dataclass(frozen=True, slots=True)
class FunctionName:
    """A function of v1model."""

    name: str


@dataclass(slots=True)
class BlockName:
    """A parser or control as it was declared."""

    tree: syntax.Parser | syntax.Control
    scope: Scope
    """The names around it."""


@dataclass(slots=True)
class InstanceName:
    """A parser or control that was instantiated under a name."""

    tree: syntax.Parser | syntax.Control
    scope: Scope
    path: str
    constructor: dict[str, Result]
    bound: dict[str, Meaning] | None = None
    """What its parameters stand for, once it was applied."""
    prologue: ir.Block = ()
    body: ir.Block = ()


Meaning = (
    Value | Literal | String | Group | Listed | TypeName | ActionName | TableName | ExternName
    | FunctionName | BlockName | InstanceName
)  # fmt: skip


class Scope:
    """Names and their meaning, the inner ones first."""

    def __init__(self, outer: Scope | None = None) -> None:
        self._outer = outer
        self._names: dict[str, tuple[Meaning, ir.Where]] = {}

    def declare(self, name: str, meaning: Meaning, where: ir.Where) -> None:
        """Once only in a scope; what an outer scope has of that name is hidden."""
        known = self._names.get(name)
        if known is not None:
            raise P4Error(where, f"{name} is declared already, at {known[1]}")
        self._names[name] = (meaning, where)

    def find(self, name: str) -> Meaning | None:
        """The meaning of a name, if it has one."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._names:
                return scope._names[name][0]
            scope = scope._outer
        return None

    def names(self) -> set[str]:
        """All that are visible."""
        return set(self._names) | (self._outer.names() if self._outer is not None else set())


def kind_of(meaning: Meaning) -> str:
    """What a name stands for, in words."""
    match meaning:
        case Value():
            return f"a value of type {meaning.type}"
        case Literal():
            return "a number"
        case String():
            return "a string"
        case Group():
            return f"a {meaning.type}"
        case Listed():
            return "a list"
        case TypeName():
            return f"the type {meaning.type}"
        case ActionName():
            return "an action"
        case TableName():
            return "a table"
        case ExternName():
            return f"a {meaning.kind}"
        case FunctionName():
            return "a function"
        case BlockName() | InstanceName():
            return "a parser" if isinstance(meaning.tree, syntax.Parser) else "a control"


def validity(header: str) -> str:
    """The path of the variable that says whether a header is valid."""
    return ir.Header(header, "", ()).valid


@dataclass(slots=True)
class Unit:
    """The program as it grows."""

    variables: dict[str, ir.Type] = field(default_factory=dict)
    headers: dict[str, ir.Header] = field(default_factory=dict)
    states: dict[str, ir.State] = field(default_factory=dict)
    actions: dict[str, ir.Action] = field(default_factory=dict)
    tables: dict[str, ir.Table] = field(default_factory=dict)
    registers: dict[str, ir.Register] = field(default_factory=dict)
    counters: dict[str, ir.Counter] = field(default_factory=dict)
    constants: dict[str, int] = field(default_factory=dict)
    errors: list[str] = field(default_factory=lambda: list(ir.STANDARD_ERRORS))
    instances: set[str] = field(default_factory=set)
    """Paths of the controls and parsers that are put in."""
    apply_block: Callable[[Frame, InstanceName | BlockName, syntax.Call], None] | None = None
    """What applies controls: `switch.lang.blocks`, which stands above the statements."""

    def free(self, wanted: str) -> str:
        """A path that no variable has yet."""
        path, count = wanted, 1
        while any(each == path or each.startswith(f"{path}.") for each in self.variables):
            count += 1
            path = f"{wanted}${count}"
        return path


class Frame:
    """Where statements are being lowered: names, and the block that grows."""

    def __init__(self, unit: Unit, prefix: str, scope: Scope, kind: str) -> None:
        self.unit = unit
        self.prefix = prefix
        """What names declared here begin with, the path of the control or action."""
        self.scope = scope
        self.kind = kind
        """`program`, `parser`, `control` or `action`."""
        self.block: list[ir.Statement] = []

    def named(self, name: str) -> str:
        """The full name of what is declared here."""
        return f"{self.prefix}.{name}" if self.prefix else name

    def inner(self) -> Frame:
        """Names of its own, the same block."""
        frame = Frame(self.unit, self.prefix, Scope(self.scope), self.kind)
        frame.block = self.block
        return frame

    def collecting(self) -> Frame:
        """The same names, a block of its own."""
        return Frame(self.unit, self.prefix, self.scope, self.kind)

    def emit(self, statement: ir.Statement) -> None:
        """Adds a statement."""
        self.block.append(statement)

    def temporary(self, type_: Scalar, name: str = "$value") -> Value:
        """A variable that the text does not name."""
        path = self.unit.free(self.named(name))
        self.unit.variables[path] = carrier(type_)
        return Value(type_, ir.Read(path, carrier(type_)), Place(path))
