"""A node of the tree for each rule of the grammar; operators get their precedence here."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from lark import Transformer

from switch.lang import syntax as s
from switch.lang.errors import P4Error
from switch.lang.ir import NOWHERE, Where
from switch.lang.lexer import Placed

PRECEDENCE = {
    operator: level
    for level, operators in enumerate((
        ("||",), ("&&",), ("==", "!="), ("<", "<=", ">", ">="), ("|",), ("^",), ("&",),
        ("<<", ">>"), ("+", "-", "++", "|+|", "|-|"), ("*", "/", "%"),
    ))
    for operator in operators
}  # fmt: skip
"""Loosest first; unlike C's, P4's `&`, `^` and `|` bind tighter than comparisons."""

Items = list[Any]
"""What lark hands over: tokens and nodes, in the order of the rule."""

_Annotated = TypeVar("_Annotated")


def _where(item: Any) -> Where:
    return getattr(item, "where", NOWHERE)


def _annotated(items: Items) -> tuple[tuple[str, ...], Items]:
    """Annotations apart from what they stand before, or behind."""
    marks = tuple(str(item) for item in items if _is(item, "ANNOTATION"))
    return marks, [item for item in items if not _is(item, "ANNOTATION")]


def _is(item: Any, terminal: str) -> bool:
    return isinstance(item, Placed) and item.type == terminal


def _with_annotations(items: Items) -> Any:
    marks, (node,) = _annotated(items)
    return replace(node, annotations=marks) if marks else node


class Builder(Transformer[Placed, Any]):
    """Called by lark for each rule that is complete."""

    def start(self, items: Items) -> Items:
        return [item for item in items if not isinstance(item, Placed)]

    declaration = staticmethod(_with_annotations)
    parser_local = staticmethod(_with_annotations)
    control_local = staticmethod(_with_annotations)
    annotated_item = staticmethod(_with_annotations)
    property = staticmethod(_with_annotations)

    def record(self, items: Items) -> s.Record:
        kind, name, *fields = items
        return s.Record(kind.value, name.value, tuple(fields), (), kind.where)

    def field(self, items: Items) -> s.Field:
        marks, (type_, name) = _annotated(items)
        return s.Field(type_, name.value, marks, name.where)

    def enum(self, items: Items) -> s.Enum:
        word, name, *members = items
        return s.Enum(None, name.value, tuple(members), (), word.where)

    def typed_enum(self, items: Items) -> s.Enum:
        word, type_, name, *members = items
        return s.Enum(type_, name.value, tuple(members), (), word.where)

    def enumerator(self, items: Items) -> s.Enumerator:
        name, value = items[0], items[1] if len(items) > 1 else None
        return s.Enumerator(name.value, value, name.where)

    def names(self, items: Items) -> s.Names:
        kind, *names = items
        return s.Names(kind.value, tuple(names), (), kind.where)

    def typedef(self, items: Items) -> s.Typedef:
        marks, (kind, type_, name) = _annotated(items)
        return s.Typedef(kind.value, type_, name.value, marks, kind.where)

    def constant(self, items: Items) -> s.Constant:
        word, type_, name, value = items
        return s.Constant(type_, name.value, value, (), word.where)

    # Types

    def bits(self, items: Items) -> s.Type:
        word = items[0]
        if len(items) == 1 and word == "int":
            return s.PlainType("int", word.where)
        width = items[1] if len(items) > 1 else s.Number("1", word.where)
        return s.BitType(width, word == "int", word.where)

    def word_type(self, items: Items) -> s.PlainType:
        return s.PlainType(items[0].value, items[0].where)

    def named_type(self, items: Items) -> s.NamedType:
        arguments = items[1] if len(items) > 1 else ()
        return s.NamedType(items[0].value, arguments, items[0].where)

    def type_arguments(self, items: Items) -> tuple[s.Type, ...]:
        return tuple(item for item in items if not isinstance(item, Placed))

    # Actions, parsers, controls

    def action(self, items: Items) -> s.Action:
        word, name, parameters, body = items
        return s.Action(name.value, parameters, body, (), word.where)

    def parameters(self, items: Items) -> tuple[s.Parameter, ...]:
        return tuple(items)

    def parameter(self, items: Items) -> s.Parameter:
        marks, plain = _annotated(items)
        *words, type_, name = plain
        direction: Any = words[0].value if words else ""
        return s.Parameter(direction, type_, name.value, marks, _where(plain[0]))

    def parser(self, items: Items) -> s.Parser:
        word, name, parameters, *rest = items
        constructor = rest.pop(0) if isinstance(rest[0], tuple) else ()
        states = tuple(item for item in rest if isinstance(item, s.State))
        local = tuple(item for item in rest if not isinstance(item, s.State))
        return s.Parser(name.value, parameters, constructor, local, states, (), word.where)

    def state(self, items: Items) -> s.State:
        marks, (word, name, *body) = _annotated(items)
        last = body.pop() if body and isinstance(body[-1], s.Transition) else None
        return s.State(name.value, tuple(body), last, marks, word.where)

    def transition(self, items: Items) -> s.Transition:
        word, name = items
        return s.Transition((), (s.SelectCase((), name.value, name.where),), word.where)

    def select(self, items: Items) -> s.Transition:
        word, _, expressions, *cases = items
        return s.Transition(expressions, tuple(cases), word.where)

    def select_case(self, items: Items) -> s.SelectCase:
        keys, name = items
        return s.SelectCase(keys, name.value, _where(keys[0]))

    def control(self, items: Items) -> s.Control:
        word, name, parameters, *rest = items
        constructor = rest.pop(0) if isinstance(rest[0], tuple) else ()
        *local, _, body = rest
        return s.Control(name.value, parameters, constructor, tuple(local), body, (), word.where)

    def instance(self, items: Items) -> s.Instance:
        word, *types, arguments, name = items
        type_ = s.NamedType(word.value, types[0] if types else (), word.where)
        return s.Instance(type_, arguments, name.value, (), word.where)

    # Tables

    def table(self, items: Items) -> s.Table:
        word, name, *properties = items
        return s.Table(name.value, tuple(properties), (), word.where)

    def keys(self, items: Items) -> s.Keys:
        return s.Keys(tuple(items[1:]), (), items[0].where)

    def key(self, items: Items) -> s.Key:
        marks, (expression, kind) = _annotated(items)
        return s.Key(expression, kind.value, marks, _where(expression))

    def actions(self, items: Items) -> s.Actions:
        return s.Actions(tuple(items[1:]), (), items[0].where)

    def action_reference(self, items: Items) -> s.ActionReference:
        marks, (action,) = _annotated(items)
        return s.ActionReference(action, marks, _where(action))

    def entries(self, items: Items) -> s.Entries:
        is_const = _is(items[0], "CONST")
        return s.Entries(tuple(items[1 + is_const :]), is_const, (), items[0].where)

    def entry(self, items: Items) -> s.Entry:
        marks, plain = _annotated(items)
        is_const = _is(plain[0], "CONST")
        keys, action = plain[is_const:]
        return s.Entry(keys, action, is_const, marks, _where(keys[0]))

    def other(self, items: Items) -> s.Property:
        is_const = _is(items[0], "CONST")
        name, value = items[is_const:]
        return s.Property(name.value, value, is_const, (), items[0].where)

    def keyset(self, items: Items) -> tuple[s.Expression, ...]:
        return tuple(items)

    def masked(self, items: Items) -> s.Masked:
        return s.Masked(items[0], items[1], _where(items[0]))

    def range(self, items: Items) -> s.Range:
        return s.Range(items[0], items[1], _where(items[0]))

    def anything(self, items: Items) -> s.Anything:
        return s.Anything(items[0].value, items[0].where)

    # Statements

    def block(self, items: Items) -> s.Block:
        return s.Block(tuple(items[1:]), (), items[0].where)

    def assignment(self, items: Items) -> s.Assignment:
        return s.Assignment(items[0], items[1], _where(items[0]))

    def call_statement(self, items: Items) -> s.CallStatement:
        if not isinstance(items[0], s.Call):
            raise P4Error(_where(items[0]), "this does nothing: expected a call or an assignment")
        return s.CallStatement(items[0], _where(items[0]))

    def if_(self, items: Items) -> s.If:
        word, condition, then, *other = items
        return s.If(condition, then, other[1] if other else None, word.where)

    def switch(self, items: Items) -> s.Switch:
        word, subject, *cases = items
        return s.Switch(subject, tuple(cases), word.where)

    def switch_case(self, items: Items) -> s.SwitchCase:
        label, block = items[0], items[1] if len(items) > 1 else None
        return s.SwitchCase(label, block, _where(label))

    def return_(self, items: Items) -> s.Return:
        return s.Return(items[0].where)

    def exit(self, items: Items) -> s.Exit:
        return s.Exit(items[0].where)

    def empty(self, items: Items) -> s.Empty:
        return s.Empty(items[0].where)

    def variable(self, items: Items) -> s.Variable:
        type_, name, *value = items
        return s.Variable(type_, name.value, value[0] if value else None, (), _where(type_))

    # Expressions

    def expressions(self, items: Items) -> tuple[s.Expression, ...]:
        return tuple(items)

    def choice(self, items: Items) -> s.Choice:
        return s.Choice(items[0], items[1], items[2], _where(items[0]))

    def operations(self, items: Items) -> s.Expression:
        tree: s.Expression = _climb(items, 0)
        return tree

    def shift_right(self, items: Items) -> Placed:
        return Placed.of("SHIFT_RIGHT", ">>", items[0].where)

    def prefixed(self, items: Items) -> s.Unary:
        return s.Unary(items[0].value, items[1], items[0].where)

    def cast(self, items: Items) -> s.Cast:
        return s.Cast(items[1], items[2], items[0].where)

    def several(self, items: Items) -> s.Several:
        return s.Several(tuple(items[1:]), items[0].where)

    def member(self, items: Items) -> s.Member:
        return s.Member(items[0], items[1].value, _where(items[0]))

    def type_member(self, items: Items) -> s.Member:
        return s.Member(s.Name(items[0].value, items[0].where), items[1].value, items[0].where)

    def index(self, items: Items) -> s.Index:
        return s.Index(items[0], items[1], _where(items[0]))

    def slice(self, items: Items) -> s.Slice:
        return s.Slice(items[0], items[1], items[2], _where(items[0]))

    def call(self, items: Items) -> s.Call:
        operand, *types, arguments = items
        return s.Call(operand, types[0] if types else (), arguments, _where(operand))

    def type_call(self, items: Items) -> s.Call:
        return self.call([s.Name(items[0].value, items[0].where), *items[1:]])

    def name_expression(self, items: Items) -> s.Name:
        return s.Name(items[0].value, items[0].where)

    def truth(self, items: Items) -> s.Truth:
        return s.Truth(items[0] == "true", items[0].where)

    def string(self, items: Items) -> s.Text:
        return s.Text(items[0].value, items[0].where)

    def number(self, items: Items) -> s.Number:
        return s.Number(items[0].value, items[0].where)

    def arguments(self, items: Items) -> tuple[s.Argument, ...]:
        return tuple(item for item in items if isinstance(item, s.Argument))

    def argument(self, items: Items) -> s.Argument:
        name = items[0].value if len(items) > 1 else None
        return s.Argument(items[-1], name, _where(items[0]))

    def argument_unwanted(self, items: Items) -> s.Argument:
        return s.Argument(s.Anything("_", items[0].where), None, items[0].where)

    def name(self, items: Items) -> Placed:
        placed: Placed = items[0]
        return placed

    contextual = name


def _climb(items: Items, level: int) -> Any:
    """Takes operands and operators off the front as long as they bind at least so tight."""
    left = items.pop(0)
    while items and PRECEDENCE[items[0].value] >= level:
        operator = items.pop(0).value
        right = _climb(items, PRECEDENCE[operator] + 1)
        left = s.Binary(operator, left, right, _where(left))
    return left


# `if` and `return` are words of Python: their rules' methods get their names here.
setattr(Builder, "if", Builder.if_)
setattr(Builder, "return", Builder.return_)
