"""Text to tree: the grammar's rules become nodes of `switch.lang.syntax`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from lark import Lark
from lark.exceptions import UnexpectedToken, VisitError
from lark.lexer import Lexer as LarkLexer

from switch.lang import source
from switch.lang.builder import Builder
from switch.lang.errors import P4Error
from switch.lang.ir import Where
from switch.lang.lexer import Lexer, Placed, types_of
from switch.lang.source import Source
from switch.lang.syntax import Program

_EXPRESSION_STARTS = frozenset((
    "NAME", "TYPE", "NUMBER", "TRUE", "FALSE", "STRING", "OPEN", "OPEN_BRACE", "PLUS", "MINUS",
    "COMPLEMENT", "NOT", "KEY", "ACTIONS", "ENTRIES", "STATE", "NEW_TYPE", "ERROR",
))  # fmt: skip
_OPERATORS = frozenset((
    "PLUS", "MINUS", "TIMES", "DIVIDE", "MODULO", "PLUS_SATURATING", "MINUS_SATURATING", "AND",
    "OR", "XOR", "SHIFT_LEFT", "CONCATENATE", "SAME", "UNEQUAL", "LESS", "LESS_EQUAL", "MORE",
    "MORE_EQUAL", "BOTH", "EITHER", "QMARK", "OPEN_TYPES", "CLOSE_JOINED",
))  # fmt: skip
_TYPES = frozenset(("BIT", "INT", "BOOL", "ERROR", "VOID", "STRING_TYPE", "TYPE"))
_GROUPS = (
    (
        frozenset(("HEADER", "STRUCT", "CONTROL")),
        frozenset((
            "HEADER", "STRUCT", "ENUM", "ERROR", "MATCH_KIND", "TYPEDEF", "NEW_TYPE", "CONST",
            "ACTION", "PARSER", "CONTROL", "TYPE", "SEMICOLON", "ANNOTATION",
        )),
        "a declaration",
    ),
    (
        frozenset(("IF", "SWITCH", "EXIT")),
        frozenset((
            "IF", "SWITCH", "EXIT", "RETURN", "CONST", "SEMICOLON", "OPEN_BRACE", "ANNOTATION",
            *_TYPES, *_EXPRESSION_STARTS,
        )),
        "a statement",
    ),
)  # fmt: skip
"""What is there when a group is meant, the whole group, and its name."""
_CONTEXTUAL = frozenset(("KEY", "ACTIONS", "ENTRIES", "STATE", "NEW_TYPE", "APPLY", "TYPE"))


def parse(
    path: str | Path,
    defines: Mapping[str, str | int] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Program:
    """The tree of a program; arguments as `switch.lang.source.read` has them."""
    return parse_source(source.read(path, defines, texts))


def parse_source(program: Source) -> Program:
    """The tree of what the preprocessor has left."""
    try:
        declarations = _grammar().parse(program)
    except UnexpectedToken as error:
        raise _explained(error, program) from None
    except VisitError as error:
        raise error.orig_exc from None
    return Program(program.file, program.includes, tuple(declarations))  # type: ignore[arg-type]  # built


class _Tokens(LarkLexer):
    """Gives lark our tokens: it is handed a Source where it thinks of a text."""

    def __init__(self, configuration: Any) -> None:
        self.terminals = {each.pattern.value: each.name for each in configuration.terminals}

    def lex(self, data: Any) -> Iterator[Placed]:  # type: ignore[override]  # a simpler interface
        return Lexer(self.terminals, data.tokens).run()


@cache
def _grammar() -> Lark:
    text = files("switch.lang").joinpath("grammar.lark").read_text(encoding="utf-8")
    return Lark(text, parser="lalr", lexer=_Tokens, transformer=Builder())


def _explained(error: UnexpectedToken, program: Source) -> P4Error:
    token = error.token
    expected = _in_words(set(error.accepts or error.expected), _grammar())
    if isinstance(token, Placed):
        hint = ""
        if token.type == "NAME" and "TYPE" in error.expected:  # misspelt, most often
            close = get_close_matches(token, sorted(types_of(program.tokens)), n=1)
            hint = f"; did you mean {close[0]}?" if close else "; no type has that name"
        return P4Error(token.where, f"found {token}, expected {expected}{hint}")
    where = program.tokens[-1].where if program.tokens else Where(program.file, 1, 1)
    return P4Error(where, f"the program ends here, expected {expected}")


def _in_words(terminals: set[str], grammar: Lark) -> str:
    """What could have come, the many ways to go on with an expression as one."""
    spelled = {each.name: each.pattern.value for each in grammar.terminals}
    words = []
    for starts, group, called in _GROUPS:
        if terminals >= starts:
            terminals -= group
            words.append(called)
    if terminals >= {"NAME", "NUMBER", "OPEN"}:
        terminals -= _EXPRESSION_STARTS
        words.append("an expression")
    if len(terminals & _OPERATORS) > 2:
        terminals -= _OPERATORS
        words.append("an operator")
    if terminals > {"DOT", "LSQB"}:  # any value may go on with these: they tell nothing
        terminals -= {"DOT", "LSQB", "OPEN", "OPEN_TYPES"}
    if "NAME" in terminals:
        terminals -= {"NAME"} | _CONTEXTUAL
        words.append("a name")
    if terminals >= {"TYPE", "BIT", "INT"}:
        terminals -= _TYPES
        words.append("a type")
    plain = {"TYPE": "a type", "NUMBER": "a number", "ANNOTATION": "an annotation",
             "$END": "the end of the program", "CLOSE_JOINED": ">"}  # fmt: skip
    words += sorted(plain.get(each, spelled.get(each, each)) for each in terminals)
    return " or ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else "nothing"
