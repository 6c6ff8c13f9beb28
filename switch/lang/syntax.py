"""The tree of a program as it was written, after the preprocessor.

Two trees are equal when they say the same: places are left out of the comparison. Parentheses have
no node; numbers and annotations keep their spelling.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from switch.lang.ir import NOWHERE, Where

# Types


@dataclass(frozen=True, slots=True)
class BitType:
    """bit<width> or int<width>; plain `bit` is bit<1>."""

    width: Expression
    signed: bool
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class PlainType:
    """One that is a word."""

    word: Literal["bool", "error", "int", "void", "string"]
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class NamedType:
    """One that was declared, perhaps with types for its parameters."""

    name: str
    arguments: tuple[Type, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


Type = BitType | PlainType | NamedType


# Expressions


@dataclass(frozen=True, slots=True)
class Number:
    """As it was spelled: 10, 0x0A, 8w10."""

    text: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Truth:
    """true or false."""

    value: bool
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Text:
    """A string, with its quotation marks."""

    text: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Name:
    """A name; the keyword `error` before a dot is one too."""

    name: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Member:
    """operand.name."""

    operand: Expression
    name: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Index:
    """operand[index]."""

    operand: Expression
    index: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Slice:
    """operand[high:low]."""

    operand: Expression
    high: Expression
    low: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Unary:
    """An operator before its operand."""

    operator: Literal["-", "+", "~", "!"]
    operand: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Expression
    right: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Cast:
    """(type) operand."""

    type: Type
    operand: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Choice:
    """condition ? then : other."""

    condition: Expression
    then: Expression
    other: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Argument:
    """Of a call; with a name it may stand anywhere. `_` as value: the result is not wanted."""

    value: Expression
    name: str | None = None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Call:
    """operand<types>(arguments)."""

    operand: Expression
    types: tuple[Type, ...]
    arguments: tuple[Argument, ...]
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Several:
    """{a, b}, or with names {x = a, y = b}."""

    items: tuple[Argument, ...]
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Masked:
    """value &&& mask, of an entry or a case."""

    value: Expression
    mask: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Range:
    """low .. high, both included."""

    low: Expression
    high: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Anything:
    """`_`, or `default`."""

    word: Literal["_", "default"]
    where: Where = field(default=NOWHERE, compare=False)


Expression = (
    Number | Truth | Text | Name | Member | Index | Slice | Unary | Binary | Cast | Choice
    | Call | Several | Masked | Range | Anything
)  # fmt: skip


# Statements


@dataclass(frozen=True, slots=True)
class Assignment:
    """target = value;."""

    target: Expression
    value: Expression
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class CallStatement:
    """A call for what it does."""

    call: Call
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class If:
    """if (condition) then else other."""

    condition: Expression
    then: Statement
    other: Statement | None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Block:
    """{ ... }."""

    items: tuple[Statement, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class SwitchCase:
    """label: block; without a block it shares that of the next."""

    label: Expression
    block: Block | None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Switch:
    """switch (subject) { ... }."""

    subject: Expression
    cases: tuple[SwitchCase, ...]
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Return:
    """return;."""

    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Exit:
    """exit;."""

    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Empty:
    """A lone semicolon."""

    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Variable:
    """type name = value;."""

    type: Type
    name: str
    value: Expression | None
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Constant:
    """const type name = value;."""

    type: Type
    name: str
    value: Expression
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Instance:
    """type(arguments) name;."""

    type: NamedType
    arguments: tuple[Argument, ...]
    name: str
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


Statement = (
    Assignment | CallStatement | If | Block | Switch | Return | Exit | Empty
    | Variable | Constant | Instance
)  # fmt: skip


# Declarations


@dataclass(frozen=True, slots=True)
class Field:
    """Of a header or a struct."""

    type: Type
    name: str
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Record:
    """A header or a struct."""

    kind: Literal["header", "struct"]
    name: str
    fields: tuple[Field, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Enumerator:
    """A name of an enum, with its value if the enum has a type."""

    name: str
    value: Expression | None
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Enum:
    """An enum; with a type, each name has a value."""

    type: Type | None
    name: str
    members: tuple[Enumerator, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Names:
    """error or match_kind: more names for what is built in."""

    kind: Literal["error", "match_kind"]
    names: tuple[Enumerator, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Typedef:
    """typedef gives a type another name; type makes a new one of it."""

    kind: Literal["typedef", "type"]
    type: Type
    name: str
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Parameter:
    """Of an action, a parser or a control."""

    direction: Literal["", "in", "out", "inout"]
    type: Type
    name: str
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Action:
    """action name(parameters) { ... }."""

    name: str
    parameters: tuple[Parameter, ...]
    body: Block
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Key:
    """expression : kind;."""

    expression: Expression
    kind: str
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class ActionReference:
    """An action in a table's list."""

    action: Expression
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Entry:
    """keys : action; of a table."""

    keys: tuple[Expression, ...]
    action: Expression
    is_const: bool
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Keys:
    """key = { ... }."""

    keys: tuple[Key, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Actions:
    """actions = { ... }."""

    actions: tuple[ActionReference, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Entries:
    """entries = { ... }."""

    entries: tuple[Entry, ...]
    is_const: bool
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Property:
    """name = value; of a table: size, default_action, counters, and others."""

    name: str
    value: Expression
    is_const: bool
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Table:
    """table name { ... }."""

    name: str
    properties: tuple[Keys | Actions | Entries | Property, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class SelectCase:
    """keys: state;."""

    keys: tuple[Expression, ...]
    state: str
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Transition:
    """To a state by name, or to one that the values of expressions select."""

    select: tuple[Expression, ...]
    cases: tuple[SelectCase, ...]
    """With `select` empty: one case without keys."""
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class State:
    """Of a parser; without a transition it rejects."""

    name: str
    body: tuple[Statement, ...]
    transition: Transition | None
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Parser:
    """parser name(parameters)(constructor) { ... }."""

    name: str
    parameters: tuple[Parameter, ...]
    constructor: tuple[Parameter, ...]
    locals: tuple[Variable | Constant | Instance, ...]
    states: tuple[State, ...]
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


@dataclass(frozen=True, slots=True)
class Control:
    """control name(parameters)(constructor) { ... apply { ... } }."""

    name: str
    parameters: tuple[Parameter, ...]
    constructor: tuple[Parameter, ...]
    locals: tuple[Variable | Constant | Instance | Action | Table, ...]
    body: Block
    annotations: tuple[str, ...] = ()
    where: Where = field(default=NOWHERE, compare=False)


Declaration = (
    Record | Enum | Names | Typedef | Constant | Action | Parser | Control | Instance
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Program:
    """A whole program."""

    file: str = field(compare=False)
    includes: tuple[str, ...]
    """Those of core.p4 and v1model.p4."""
    declarations: tuple[Declaration, ...]
