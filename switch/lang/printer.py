"""Tree to text: what it prints parses to an equal tree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from switch.lang import syntax as s
from switch.lang.builder import PRECEDENCE

_CHOICE, _OPERATION, _PREFIX, _POSTFIX = -1, 0, 20, 21
"""How tight a node binds; an operation adds its operator's precedence."""

_INDENT = "    "


def program(tree: s.Program) -> str:
    """A whole program, its includes first."""
    parts = ["".join(f"#include <{name}>\n" for name in tree.includes)] if tree.includes else []
    parts += ["\n".join(_declaration(each)) + "\n" for each in tree.declarations]
    return "\n".join(parts)


# Types, expressions


def type_name(tree: s.Type) -> str:
    """A type."""
    match tree:
        case s.BitType(width, signed):
            word = "int" if signed else "bit"
            plain = isinstance(width, s.Number)
            return f"{word}<{expression(width) if plain else f'({expression(width)})'}>"
        case s.PlainType(word):
            return word
        case s.NamedType(name, arguments):
            return name + _types(arguments)


def _types(types: Sequence[s.Type]) -> str:
    return f"<{', '.join(map(type_name, types))}>" if types else ""


def expression(tree: s.Expression) -> str:
    """An expression, with the parentheses that it needs."""
    return _within(tree, _CHOICE)


def _within(tree: s.Expression, least: int) -> str:
    """In parentheses if it binds less tight than its surroundings need."""
    text, binds = _spelled(tree)
    return f"({text})" if binds < least else text


def _spelled(tree: s.Expression) -> tuple[str, int]:
    match tree:
        case s.Number(text) | s.Text(text) | s.Name(text) | s.Anything(text):
            return text, _POSTFIX
        case s.Truth(value):
            return ("true" if value else "false"), _POSTFIX
        case s.Member(operand, name):
            return f"{_within(operand, _POSTFIX)}.{name}", _POSTFIX
        case s.Index(operand, index):
            return f"{_within(operand, _POSTFIX)}[{expression(index)}]", _POSTFIX
        case s.Slice(operand, high, low):
            inner = f"{expression(high)}:{expression(low)}"
            return f"{_within(operand, _POSTFIX)}[{inner}]", _POSTFIX
        case s.Call(operand, types, arguments):
            inner = _arguments(arguments)
            return f"{_within(operand, _POSTFIX)}{_types(types)}({inner})", _POSTFIX
        case s.Unary(operator, operand):
            inner = _within(operand, _PREFIX)
            return operator + (f"({inner})" if inner.startswith(operator) else inner), _PREFIX
        case s.Cast(type_, operand):
            return f"({type_name(type_)})" + _within(operand, _PREFIX), _PREFIX
        case s.Several(items):
            return f"{{ {_arguments(items)} }}" if items else "{}", _PREFIX
        case s.Binary(operator, left, right):
            level = _OPERATION + PRECEDENCE[operator]
            before, after = _within(left, level), _within(right, level + 1)
            return f"{before} {operator} {after}", level
        case s.Choice(condition, then, other):
            before = _within(condition, _OPERATION)
            return f"{before} ? {expression(then)} : {expression(other)}", _CHOICE
        case s.Masked(value, mask):
            return f"{expression(value)} &&& {expression(mask)}", _CHOICE
        case s.Range(low, high):
            return f"{expression(low)} .. {expression(high)}", _CHOICE


def _arguments(arguments: Iterable[s.Argument]) -> str:
    return ", ".join(
        (f"{each.name} = " if each.name is not None else "") + expression(each.value)
        for each in arguments
    )


# Statements


def _indented(lines: Iterable[str]) -> Iterator[str]:
    return (_INDENT + line if line else line for line in lines)


def _braced(head: str, lines: Iterable[str]) -> list[str]:
    inner = list(_indented(lines))
    return [f"{head} {{".lstrip(), *inner, "}"] if inner else [f"{head} {{ }}".lstrip()]


def _block(head: str, block: s.Block) -> list[str]:
    return _braced(" ".join([*block.annotations, head]).strip(), _statements(block.items))


def _statements(items: Iterable[s.Statement]) -> Iterator[str]:
    for item in items:
        yield from _statement(item)


def _statement(tree: s.Statement) -> list[str]:
    match tree:
        case s.Assignment(target, value):
            return [f"{expression(target)} = {expression(value)};"]
        case s.CallStatement(call):
            return [f"{expression(call)};"]
        case s.If():
            return _if(tree)
        case s.Block():
            return _block("", tree)
        case s.Switch(subject, cases):
            return _braced(f"switch ({expression(subject)})", _cases(cases))
        case s.Return():
            return ["return;"]
        case s.Exit():
            return ["exit;"]
        case s.Empty():
            return [";"]
        case s.Variable() | s.Constant() | s.Instance():
            return _marked(tree.annotations, _declared(tree))


def _if(tree: s.If) -> list[str]:
    lines = _branch(f"if ({expression(tree.condition)})", tree.then)
    if tree.other is None:
        return lines
    if isinstance(tree.other, s.If):
        first, *rest = _if(tree.other)
        other = [f"else {first}", *rest]
    else:
        other = _branch("else", tree.other)
    if lines[-1] == "}" and isinstance(tree.then, s.Block):
        return [*lines[:-1], f"}} {other[0]}", *other[1:]]
    return [*lines, *other]


def _branch(head: str, tree: s.Statement) -> list[str]:
    """A block that carries nothing behind its head, any other statement below it."""
    if isinstance(tree, s.Block) and not tree.annotations:
        return _block(head, tree)
    return [head, *_indented(_statement(tree))]


def _cases(cases: Iterable[s.SwitchCase]) -> Iterator[str]:
    for case in cases:
        head = f"{expression(case.label)}:"
        yield from [head] if case.block is None else _block(head, case.block)


def _declared(tree: s.Variable | s.Constant | s.Instance) -> list[str]:
    match tree:
        case s.Variable(type_, name, None):
            return [f"{type_name(type_)} {name};"]
        case s.Variable(type_, name, value) if value is not None:
            return [f"{type_name(type_)} {name} = {expression(value)};"]
        case s.Constant(type_, name, value):
            return [f"const {type_name(type_)} {name} = {expression(value)};"]
        case s.Instance(type_, arguments, name):
            return [f"{type_name(type_)}({_arguments(arguments)}) {name};"]
    raise AssertionError(tree)


def _marked(annotations: Sequence[str], lines: list[str]) -> list[str]:
    """Annotations go before the first line."""
    return [" ".join([*annotations, lines[0]]), *lines[1:]]


# Declarations


def _declaration(tree: s.Declaration | s.Table) -> list[str]:
    return _marked(tree.annotations, _bare(tree))


def _bare(tree: s.Declaration | s.Table) -> list[str]:
    match tree:
        case s.Record(kind, name, fields):
            lines = (_marked(f.annotations, [f"{type_name(f.type)} {f.name};"]) for f in fields)
            return _braced(f"{kind} {name}", (line for each in lines for line in each))
        case s.Enum(None, name, members):
            return _braced(f"enum {name}", _enumerators(members))
        case s.Enum(type_, name, members) if type_ is not None:
            return _braced(f"enum {type_name(type_)} {name}", _enumerators(members))
        case s.Names(kind, members):
            return _braced(kind, _enumerators(members))
        case s.Typedef(kind, type_, name):
            return [f"{kind} {type_name(type_)} {name};"]
        case s.Action(name, parameters, body):
            return _block(f"action {name}({_parameters(parameters)})", body)
        case s.Parser():
            return _parser(tree)
        case s.Control():
            return _control(tree)
        case s.Table(name, properties):
            lines = (_marked(each.annotations, _property(each)) for each in properties)
            return _braced(f"table {name}", (line for each in lines for line in each))
        case s.Constant() | s.Instance():
            return _declared(tree)
    raise AssertionError(tree)


def _enumerators(members: Sequence[s.Enumerator]) -> Iterator[str]:
    for member in members:
        value = f" = {expression(member.value)}" if member.value is not None else ""
        yield f"{member.name}{value}" + ("," if member is not members[-1] else "")


def _parameters(parameters: Iterable[s.Parameter]) -> str:
    return ", ".join(
        " ".join(filter(None, (*p.annotations, p.direction, type_name(p.type), p.name)))
        for p in parameters
    )


def _head(word: str, tree: s.Parser | s.Control) -> str:
    constructor = f"({_parameters(tree.constructor)})" if tree.constructor else ""
    return f"{word} {tree.name}({_parameters(tree.parameters)}){constructor}"


def _parser(tree: s.Parser) -> list[str]:
    lines = [line for each in tree.locals for line in _marked(each.annotations, _declared(each))]
    for state in tree.states:
        inner = [*_statements(state.body), *_transition(state.transition)]
        lines += _marked(state.annotations, _braced(f"state {state.name}", inner))
    return _braced(_head("parser", tree), lines)


def _transition(tree: s.Transition | None) -> list[str]:
    if tree is None:
        return []
    if not tree.select:
        return [f"transition {tree.cases[0].state};"]
    subjects = ", ".join(map(expression, tree.select))
    return _braced(
        f"transition select({subjects})",
        (f"{_keys(case.keys)}: {case.state};" for case in tree.cases),
    )


def _keys(keys: Sequence[s.Expression]) -> str:
    text = ", ".join(map(expression, keys))
    return f"({text})" if len(keys) > 1 else text


def _control(tree: s.Control) -> list[str]:
    lines: list[str] = []
    for each in tree.locals:
        lines += (
            _declaration(each)
            if isinstance(each, s.Action | s.Table)
            else _marked(each.annotations, _declared(each))
        )
    return _braced(_head("control", tree), [*lines, *_block("apply", tree.body)])


def _property(tree: s.Keys | s.Actions | s.Entries | s.Property) -> list[str]:
    match tree:
        case s.Keys(keys):
            return _braced("key =", (
                " ".join([f"{expression(k.expression)}: {k.kind}", *k.annotations]) + ";"
                for k in keys
            ))  # fmt: skip
        case s.Actions(actions):
            return _braced("actions =", (
                " ".join([*a.annotations, expression(a.action)]) + ";" for a in actions
            ))  # fmt: skip
        case s.Entries(entries, is_const):
            return _braced("const entries =" if is_const else "entries =", map(_entry, entries))
        case s.Property(name, value, is_const):
            return [f"{'const ' if is_const else ''}{name} = {expression(value)};"]


def _entry(tree: s.Entry) -> str:
    text = f"{_keys(tree.keys)}: {expression(tree.action)}"
    return " ".join([f"const {text}" if tree.is_const else text, *tree.annotations]) + ";"
