"""Macros: what replaces a name, and the arithmetic of #if."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from switch.lang.errors import P4Error
from switch.lang.ir import Where
from switch.lang.tokens import Token

MAX_SHIFT = 64
"""C's numbers end there."""

_INTEGER = re.compile(r"(?:\d+[ws])?(\w+)")


class Macro(NamedTuple):
    """What a #define says."""

    parameters: tuple[str, ...] | None
    """None: it is used without parentheses."""
    body: tuple[Token, ...]


def name_of(rest: Sequence[Token], where: Where, directive: str) -> str:
    """The only token there is, which must be a name."""
    if len(rest) != 1 or rest[0].kind != "name":
        found = " ".join(token.text for token in rest) or "nothing"
        raise P4Error(where, f"{directive}: found {found}, expected one name")
    return rest[0].text


class Expansion:
    """Replaces macros in a sequence of tokens, and in what replaced them."""

    def __init__(
        self,
        macros: Mapping[str, Macro],
        tokens: Sequence[Token],
        open_macros: frozenset[str] = frozenset(),
    ) -> None:
        self.macros = macros
        self.tokens = tokens
        self.open = open_macros
        """Those that are being replaced just now: one is not replaced within itself."""
        self.at = 0

    def run(self) -> list[Token]:
        """The tokens that are there afterwards."""
        out: list[Token] = []
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            macro = self.macros.get(token.text) if token.kind == "name" else None
            if macro is None or token.text in self.open:
                out.append(token)
            elif macro.parameters is None:
                out += self._body(token, macro, {})
            elif self.at < len(self.tokens) and self.tokens[self.at].text == "(":
                out += self._body(token, macro, self._arguments(token, macro.parameters))
            else:
                out.append(token)
        return out

    def _body(self, use: Token, macro: Macro, arguments: Mapping[str, list[Token]]) -> list[Token]:
        body: list[Token] = []
        for token in macro.body:
            if token.text in arguments:
                body += arguments[token.text]
            else:
                body.append(token._replace(where=use.where))
        return Expansion(self.macros, body, self.open | {use.text}).run()

    def _arguments(self, use: Token, parameters: tuple[str, ...]) -> dict[str, list[Token]]:
        given: list[list[Token]] = [[]]
        self.at += 1
        depth = 1
        while True:
            if self.at == len(self.tokens):
                raise P4Error(use.where, f"{use.text}(...: expected ) at the end of its arguments")
            token = self.tokens[self.at]
            self.at += 1
            depth += (token.text in "([{") - (token.text in ")]}")
            if depth == 0:
                break
            if token.text == "," and depth == 1:
                given.append([])
            else:
                given[-1].append(token)
        if given == [[]] and not parameters:
            given = []
        if len(given) != len(parameters):
            raise P4Error(
                use.where, f"{use.text} has {len(given)} arguments, expected {len(parameters)}"
            )
        expanded = (Expansion(self.macros, each, self.open).run() for each in given)
        return dict(zip(parameters, expanded, strict=True))


def integer(text: str) -> int:
    """The value of a number's digits, without its width."""
    found = _INTEGER.fullmatch(text)
    assert found is not None, text
    digits = found[1].replace("_", "").lower()
    base = {"0x": 16, "0b": 2, "0o": 8, "0d": 10}.get(digits[:2])
    return int(digits[2:], base) if base else int(digits)


class Arithmetic:
    """The value of an #if: integers, defined(), C's operators; a name that is no macro is 0."""

    LEVELS = (  # loosest first
        ("||",),
        ("&&",),
        ("|",),
        ("^",),
        ("&",),
        ("==", "!="),
        ("<", "<=", ">", ">="),
        ("<<", ">>"),
        ("+", "-"),
        ("*", "/", "%"),
    )

    def __init__(self, macros: Mapping[str, Macro], tokens: Sequence[Token], where: Where) -> None:
        self.where = where
        plain: list[Token] = []
        rest = list(tokens)
        while rest:
            token = rest.pop(0)
            if token.text == "defined":
                with_parentheses = bool(rest) and rest[0].text == "("
                named = rest[1:2] if with_parentheses else rest[:1]
                name = name_of(named, where, "defined")
                del rest[: 3 if with_parentheses else 1]
                plain.append(Token("number", str(int(name in macros)), token.where, False))
            else:
                plain.append(token)
        self.tokens = _shifts_joined(Expansion(macros, plain).run())
        self.at = 0

    def value(self) -> int:
        """Of the whole line."""
        value = self._level(0)
        if self.at != len(self.tokens):
            raise self._wrong()
        return value

    def _level(self, level: int) -> int:
        if level == len(self.LEVELS):
            return self._unary()
        value = self._level(level + 1)
        while self.at < len(self.tokens) and self.tokens[self.at].text in self.LEVELS[level]:
            operator = self._next()
            right = self._level(level + 1)
            if operator in ("/", "%") and right == 0:
                raise P4Error(self.where, "#if: division by zero")
            value = int(_OPERATIONS[operator](value, right))
        return value

    def _unary(self) -> int:
        text = self._next()
        if text == "!":
            return int(not self._unary())
        if text == "-":
            return -self._unary()
        if text == "(":
            value = self._level(0)
            if self._next() != ")":
                raise self._wrong()
            return value
        kind = self.tokens[self.at - 1].kind
        if kind not in ("number", "name"):
            raise self._wrong()
        return integer(text) if kind == "number" else 0

    def _next(self) -> str:
        if self.at == len(self.tokens):
            raise self._wrong()
        self.at += 1
        return self.tokens[self.at - 1].text

    def _wrong(self) -> P4Error:
        text = " ".join(token.text for token in self.tokens) or "nothing"
        return P4Error(self.where, f"#if: found {text}, expected an expression of integers")


def _shifts_joined(tokens: Sequence[Token]) -> list[Token]:
    """`>>` is two tokens, since it may close two lists of types."""
    joined: list[Token] = []
    for token in tokens:
        if token.text == ">" and token.joined and joined and joined[-1].text == ">":
            joined[-1] = joined[-1]._replace(text=">>")
        else:
            joined.append(token)
    return joined


_OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "||": lambda a, b: bool(a) or bool(b),
    "&&": lambda a, b: bool(a) and bool(b),
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "&": lambda a, b: a & b,
    "<<": lambda a, b: a << min(b, MAX_SHIFT) if b >= 0 else 0,
    ">>": lambda a, b: a >> b if b >= 0 else 0,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": lambda a, b: a // b,
    "%": lambda a, b: a % b,
}
