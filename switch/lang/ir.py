"""The intermediate representation of a v1model program: what all but the front end works on.

It is flat. Types are resolved, constants folded, parameters bound, calls of actions have their
arguments assigned: what is left is variables with a path and a width, and statements on them. A
header's field is the variable `hdr.paxos.round`, a field of the metadata `meta.slot` or
`standard_metadata.egress_spec`, a local variable `ingress.promised`. Whether a header is valid is
a variable too (`Header.valid`).

Widths: every `Bits` value is held as a Python int in [0, 2**width), signed ones in two's
complement; operations wrap, as P4-16 says (section 8.5). Both operands of an operation have one
type, but for shifts, whose right operand may have another. No consumer casts by itself: the front
end has written out every cast.

Source: P4-16 language specification 1.2.4; v1model.p4.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple


class Where(NamedTuple):
    """A place in the source text, before includes were put in."""

    file: str
    line: int
    """From 1."""
    column: int
    """From 1."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


NOWHERE = Where("", 0, 0)
"""Of what no text stands for."""


@dataclass(frozen=True, slots=True)
class Bits:
    """bit<width>, or int<width>."""

    width: int
    signed: bool = False

    def __str__(self) -> str:
        return f"{'int' if self.signed else 'bit'}<{self.width}>"


@dataclass(frozen=True, slots=True)
class Bool:
    """bool."""

    def __str__(self) -> str:
        return "bool"


Type = Bits | Bool


# Expressions: without side effects; the front end takes calls that have some out, before the
# statement that holds them.


@dataclass(frozen=True, slots=True)
class Const:
    """A value; of Bool, 0 or 1."""

    value: int
    type: Type
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Read:
    """The value of a variable."""

    path: str
    type: Type
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """`-`, `~` of bits, `!` of a bool."""

    operator: Literal["-", "~", "!"]
    operand: Expression
    type: Type
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """`|+|` and `|-|` saturate; `++` puts the left above the right; `&&` and `||` stop early."""

    operator: Literal[
        "+", "-", "*", "/", "%", "|+|", "|-|", "&", "|", "^", "<<", ">>", "++",
        "==", "!=", "<", "<=", ">", ">=", "&&", "||",
    ]  # fmt: skip
    left: Expression
    right: Expression
    type: Type
    """Of the result: Bool for comparisons, `&&`, `||`."""
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """To another width or sign: cut off, or extended by its own sign; bit<1> to bool and back."""

    operand: Expression
    type: Type
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """Bits `high` to `low` of the operand, both included."""

    operand: Expression
    high: int
    low: int
    type: Type
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """condition ? then : other."""

    condition: Expression
    then: Expression
    other: Expression
    type: Type
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Lookahead:
    """In a parser: the next bits of the packet, which stay there."""

    type: Bits
    where: Where = field(default=NOWHERE, compare=False)


Expression = Const | Read | Unary | Binary | Cast | Slice | Choice | Lookahead


# Statements


@dataclass(frozen=True, slots=True)
class Assign:
    """To a variable, or to its bits `high` to `low`."""

    path: str
    value: Expression
    high: int | None = None
    low: int | None = None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class SetValid:
    """The header becomes valid; its fields, if it was not, are undefined (bmv2: 0)."""

    header: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class SetInvalid:
    """The header becomes invalid."""

    header: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class If:
    """Runs one of two blocks."""

    condition: Expression
    then: Block
    other: Block = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Apply:
    """Looks a table up and runs what it finds.

    `switch (t.apply().action_run)` is an Apply that keeps `action`, then Ifs on it.
    """

    table: str
    hit: str | None = None
    """A Bool variable that gets whether an entry matched."""
    action: str | None = None
    """A Bits(16) variable that gets the index, in `Table.actions`, of what was run."""
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """Runs an action whose parameters have been assigned; they are variables like others."""

    action: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Exit:
    """Ends the control, whatever called it; the deparser still runs."""

    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Return:
    """Ends the action, or else the control's body."""

    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class RegisterRead:
    """A variable gets a cell; beyond the register's size it is undefined (bmv2: unchanged)."""

    register: str
    path: str
    index: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class RegisterWrite:
    """A cell gets a value; beyond the register's size nothing is to happen, but see docs."""

    register: str
    index: Expression
    value: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Count:
    """Counts this packet, and its bytes, at an index of a counter; direct ones have none."""

    counter: str
    index: Expression | None = None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class MarkToDrop:
    """v1model's: egress_spec becomes 511, mcast_grp 0."""

    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Hash:
    """The variable becomes `base + hash(data) % most`, or `base` when `most` is 0."""

    path: str
    algorithm: Literal["crc32", "crc16", "csum16", "identity"]
    base: Expression
    data: tuple[Expression, ...]
    most: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Assert:
    """Must hold here. `assert(...)` of v1model, or an annotation."""

    condition: Expression
    text: str
    """As the author wrote it."""
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Assume:
    """What comes here is taken to fulfil this."""

    condition: Expression
    text: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Extract:
    """In a parser: the header's fields from the packet, and it is valid. Short: reject."""

    header: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Advance:
    """In a parser: leaves bits of the packet out. Short: reject."""

    bits: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Verify:
    """In a parser: rejects unless the condition holds."""

    condition: Expression
    error: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Emit:
    """In the deparser: the header's bytes, if it is valid."""

    header: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Checksum:
    """The internet checksum over fields, put into a variable or compared with it.

    A comparison that fails sets `standard_metadata.checksum_error`.
    """

    verb: Literal["verify", "update"]
    condition: Expression
    data: tuple[Expression, ...]
    path: str
    with_payload: bool = False
    """What the parser left of the packet is added at the end."""
    where: Where = field(default=NOWHERE, compare=False)


Statement = (
    Assign | SetValid | SetInvalid | If | Apply | Call | Exit | Return
    | RegisterRead | RegisterWrite | Count | MarkToDrop | Hash | Assert | Assume
    | Extract | Advance | Verify | Emit | Checksum
)  # fmt: skip
Block = tuple[Statement, ...]


# What a program is made of


@dataclass(frozen=True, slots=True)
class Header:
    """One instance of a header type; its fields are variables `<path>.<name>`, the first on top."""

    path: str
    type_name: str
    fields: tuple[tuple[str, Bits], ...]

    @property
    def valid(self) -> str:
        """The path of the Bool variable that says whether it is valid."""
        return f"{self.path}.$valid"

    @property
    def bits(self) -> int:
        """Its size."""
        return sum(type_.width for _, type_ in self.fields)


@dataclass(frozen=True, slots=True)
class Parameter:
    """One that the control plane, or a table's entry, gives to an action."""

    name: str
    path: str
    type: Type


@dataclass(frozen=True, slots=True)
class Action:
    """A named block; `parameters` are those without a direction, in order."""

    name: str
    """`<control>.<name>`; NoAction is `NoAction`."""
    parameters: tuple[Parameter, ...]
    body: Block
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Match:
    """What one key of an entry, or one `select` expression, takes.

    exact: `value`; ternary: `value` under `mask`; lpm: `value` under `mask`, whose ones are on top;
    range: `value` to `high`, both included; any: everything.
    """

    kind: Literal["exact", "ternary", "lpm", "range", "any"]
    value: int = 0
    mask: int = 0
    high: int = 0


@dataclass(frozen=True, slots=True)
class ActionCall:
    """An action and its control-plane arguments."""

    action: str
    arguments: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Key:
    """An expression that a table matches on."""

    expression: Expression
    kind: Literal["exact", "ternary", "lpm", "range", "optional"]
    name: str


@dataclass(frozen=True, slots=True)
class Entry:
    """Of `entries = {...}`; of several that match the first in the text is taken, but for lpm."""

    matches: tuple[Match, ...]
    call: ActionCall
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """A match-action table."""

    name: str
    """`<control>.<name>`."""
    keys: tuple[Key, ...]
    actions: tuple[str, ...]
    default: ActionCall
    default_is_const: bool
    entries: tuple[Entry, ...]
    entries_are_const: bool
    size: int
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Register:
    """`register<bit<width>>(size)`; all cells are 0 at first."""

    name: str
    """`<control>.<name>`, or `<name>` for one of the whole program."""
    width: int
    size: int
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Counter:
    """A counter; `size` 0 is a direct one, of the table `table`."""

    name: str
    size: int
    table: str | None = None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a `select`: the first whose matches all hold is taken."""

    matches: tuple[Match, ...]
    state: str


@dataclass(frozen=True, slots=True)
class State:
    """Of the parser. Where no case matches it rejects; `accept` and `reject` are states' names."""

    name: str
    body: Block
    select: tuple[Expression, ...]
    cases: tuple[Case, ...]
    """With `select` empty there is one case, without matches: a plain transition."""
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Control:
    """Ingress, egress, and the two for checksums, and the deparser."""

    name: str
    body: Block


STANDARD_ERRORS = (
    "NoError", "PacketTooShort", "NoMatch", "StackOutOfBounds", "HeaderTooShort", "ParserTimeout",
    "ParserInvalidArgument",
)  # fmt: skip
"""core.p4's, in its order."""


@dataclass(frozen=True, slots=True)
class Program:
    """A whole v1model program. Names are keys, in the order of the text."""

    name: str
    variables: dict[str, Type]
    """Everything that has a path, validity and standard metadata among it."""
    headers: dict[str, Header]
    states: dict[str, State]
    """`start` is the first."""
    verify: Control
    ingress: Control
    egress: Control
    update: Control
    deparser: Control
    actions: dict[str, Action]
    tables: dict[str, Table]
    registers: dict[str, Register]
    counters: dict[str, Counter]
    constants: dict[str, int]
    """Of the top level: what tests and control planes look sizes up in."""
    errors: tuple[str, ...] = STANDARD_ERRORS
    """What `Verify.error` names; `standard_metadata.parser_error` is the index. Own ones follow."""


DROP_PORT = 511
"""v1model's: what `mark_to_drop` writes to the egress port."""

STANDARD_METADATA: dict[str, Type] = {
    "standard_metadata.ingress_port": Bits(9),
    "standard_metadata.egress_spec": Bits(9),
    "standard_metadata.egress_port": Bits(9),
    "standard_metadata.instance_type": Bits(32),
    "standard_metadata.packet_length": Bits(32),
    "standard_metadata.enq_timestamp": Bits(32),
    "standard_metadata.enq_qdepth": Bits(19),
    "standard_metadata.deq_timedelta": Bits(32),
    "standard_metadata.deq_qdepth": Bits(19),
    "standard_metadata.ingress_global_timestamp": Bits(48),
    "standard_metadata.egress_global_timestamp": Bits(48),
    "standard_metadata.mcast_grp": Bits(16),
    "standard_metadata.egress_rid": Bits(16),
    "standard_metadata.checksum_error": Bits(1),
    "standard_metadata.parser_error": Bits(32),
    "standard_metadata.priority": Bits(3),
}
