"""From the preprocessor's tokens to those of the grammar.

P4's grammar needs to know which names are types: `(a) - b` is a cast if `a` is one. They are
collected before parsing, over the whole program: programs do not give one name both meanings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from lark import Token as Terminal

from switch.lang.errors import P4Error, unsupported
from switch.lang.ir import Where
from switch.lang.tokens import Token

BUILT_IN_TYPES = frozenset((
    "packet_in", "packet_out", "standard_metadata_t", "register", "counter", "direct_counter",
    "meter", "direct_meter", "action_profile", "action_selector", "HashAlgorithm", "CounterType",
    "MeterType", "CloneType", "V1Switch",
))  # fmt: skip

UNSUPPORTED_WORDS: Mapping[str, str] = {
    "abstract": "abstract methods",
    "extern": "extern declarations; those of v1model are built in",
    "header_union": "header unions; use headers, of which one is valid",
    "package": "package declarations; V1Switch is built in",
    "tuple": "tuples; use a struct",
    "value_set": "parser value sets; select constants",
    "varbit": "varbit; headers have a fixed size here",
    "for": "loops",
    "list": "lists of expressions as a type",
    "this": "this",
}
"""Keywords of P4-16 that no program here may use, and what the error says."""

_CLOSING = {"(": ")", "[": "]"}


class Placed(Terminal):
    """A token of lark's, with its place in our files."""

    where: Where

    @classmethod
    def of(cls, terminal: str, text: str, where: Where) -> Placed:
        """A token of a terminal of the grammar."""
        made = cls(terminal, text)
        assert isinstance(made, Placed)
        made.where = where
        return made


class Lexer:
    """Names the terminals of a program's tokens."""

    def __init__(self, terminals: Mapping[str, str], tokens: Sequence[Token]) -> None:
        self._terminals = terminals  # by text, of keywords and marks
        self._tokens = tokens
        self._types = types_of(tokens)
        self._at = 0

    def run(self) -> Iterator[Placed]:
        """The tokens as the grammar has them."""
        while self._at < len(self._tokens):
            token = self._tokens[self._at]
            self._at += 1
            if token.text == "@":
                yield self._annotation(token.where)
            else:
                yield Placed.of(self._terminal(token), token.text, token.where)

    def _terminal(self, token: Token) -> str:
        if token.kind == "name":
            return self._of_name(token)
        if token.kind != "mark":
            return token.kind.upper()
        if token.text == "<" and self._types_begin():
            return "OPEN_TYPES"
        if token.text == ">" and token.joined and self._text(-2) == ">":
            return "CLOSE_JOINED"
        return self._known(token)

    def _of_name(self, token: Token) -> str:
        if token.text in self._terminals:
            return self._terminals[token.text]
        if token.text in UNSUPPORTED_WORDS and self._text(-2) != ".":
            raise unsupported(token.where, UNSUPPORTED_WORDS[token.text])
        return "TYPE" if token.text in self._types else "NAME"

    def _known(self, token: Token) -> str:
        terminal = self._terminals.get(token.text)
        if terminal is None:
            raise P4Error(token.where, f"found {token.text}, which has no meaning here")
        return terminal

    def _text(self, offset: int) -> str:
        """Of the token that is so far from the next one."""
        at = self._at + offset
        return self._tokens[at].text if 0 <= at < len(self._tokens) else ""

    def _types_begin(self) -> bool:
        """Whether the `<` just read opens arguments that are types, as in lookahead<bit<8>>()."""
        if self._text(-2) in ("bit", "int"):
            return False
        first, second = self._text(0), self._text(1)
        if first in ("bit", "int", "bool", "void"):
            return True
        return first in self._types and second in (">", ",", "<")

    def _annotation(self, where: Where) -> Placed:
        """An annotation is one token: nobody here looks into it."""
        words: list[str] = []
        if self._at == len(self._tokens) or self._tokens[self._at].kind != "name":
            raise P4Error(where, f"found @{self._text(0)}, expected the name of an annotation")
        name = self._text(0)
        self._at += 1
        opening = self._text(0)
        if opening not in _CLOSING:
            return Placed.of("ANNOTATION", f"@{name}", where)
        depth = 0
        while True:
            if self._at == len(self._tokens):
                raise P4Error(where, f"@{name}{opening}: expected {_CLOSING[opening]} at its end")
            word = self._text(0)
            self._at += 1
            depth += (word in "([{") - (word in ")]}")
            words.append(word)
            if depth == 0:
                inner = " ".join(words[1:-1])
                return Placed.of("ANNOTATION", f"@{name}{opening}{inner}{words[-1]}", where)


def types_of(tokens: Sequence[Token]) -> frozenset[str]:
    """The names that are types in a program."""
    return BUILT_IN_TYPES | frozenset(_declared_types(tokens))


def _declared_types(tokens: Sequence[Token]) -> Iterator[str]:
    for at, token in enumerate(tokens):
        if token.text in ("header", "struct", "parser", "control"):
            yield from _named(tokens, at + 1)
        elif token.text == "enum":  # enum bit<8> name, enum type name, enum name
            behind = at + 1
            while behind + 1 < len(tokens) and tokens[behind + 1].text not in ("{", ";"):
                behind += 1
            yield from _named(tokens, behind)
        elif token.text == "typedef" or _begins_new_type(tokens, at):
            end = at + 1
            while end < len(tokens) and tokens[end].text != ";":
                end += 1
            yield from _named(tokens, end - 1)


def _named(tokens: Sequence[Token], at: int) -> Iterator[str]:
    if at < len(tokens) and tokens[at].kind == "name":
        yield tokens[at].text


def _begins_new_type(tokens: Sequence[Token], at: int) -> bool:
    """`type bit<9> port_t;` and not a field that is called `type`."""
    if tokens[at].text != "type" or at + 2 >= len(tokens):
        return False
    before = tokens[at - 1].text if at else ";"
    return before in (";", "}", ")") and tokens[at + 1].kind == "name"
