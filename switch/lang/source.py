"""The preprocessor: files to one sequence of tokens, each with the place where it was written.

It works on tokens, not on text, so that an error behind an include or a macro still names file,
line and column. What a macro stands for has the place where the macro was used.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from switch.lang.errors import P4Error, unsupported
from switch.lang.ir import Where
from switch.lang.macros import Arithmetic, Expansion, Macro, name_of
from switch.lang.tokens import Token, tokenize

BUILT_IN = ("core.p4", "v1model.p4")
"""Includes whose text nobody needs: the front end knows what they declare."""

_DEEPEST_INCLUDE = 32


class Source(NamedTuple):
    """A program after the preprocessor."""

    file: str
    tokens: list[Token]
    includes: tuple[str, ...]
    """Which of BUILT_IN were asked for, in order."""


class _Branch:
    """An #if that is open."""

    def __init__(self, where: Where, outer: bool, holds: bool) -> None:
        self.where = where
        self.outer = outer
        self.active = outer and holds
        self.taken = holds
        self.is_last = False

    def turn(self, holds: bool) -> None:
        """To the next #elif or #else."""
        self.active = self.outer and holds and not self.taken
        self.taken = self.taken or holds


def read(
    path: str | Path,
    defines: Mapping[str, str | int] | None = None,
    texts: Mapping[str, str] | None = None,
) -> Source:
    """Read a program with all it includes.

    Args:
      path: the file; error messages name it as it is given here.
      defines: macros, as `-D name=value` gives them to p4c.
      texts: stands in place of files, by the name that messages give them.
    """
    reader = _Reader(texts or {})
    for name, value in (defines or {}).items():
        if not name.isidentifier():
            raise ValueError(f"-D {name}: expected a name, as in -D SLOTS=1024")
        body = [token for line in tokenize(str(value), f"<-D {name}>") for token in line]
        reader.macros[name] = Macro(None, tuple(body))
    reader.read(str(path), None)
    reader.flush()
    return Source(str(path), reader.tokens, tuple(reader.includes))


class _Reader:
    def __init__(self, texts: Mapping[str, str]) -> None:
        self.texts = texts
        self.macros: dict[str, Macro] = {}
        self.includes: dict[str, None] = {}
        self.tokens: list[Token] = []
        self._waiting: list[Token] = []  # text since the last directive, not yet expanded
        self._depth = 0

    def read(self, file: str, asked_at: Where | None) -> None:
        text = self.texts.get(file)
        if text is None:
            try:
                text = Path(file).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                if asked_at is None and isinstance(error, OSError):
                    raise
                reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
                raise P4Error(asked_at or Where(file, 1, 1), f"{file}: {reason}") from error
        branches: list[_Branch] = []
        for line in tokenize(text, file):
            if line and line[0].text == "#":
                self._directive(line, branches)
            elif not branches or branches[-1].active:
                self._waiting += line
        if branches:
            raise P4Error(branches[-1].where, "this #if is never closed: expected #endif")

    def flush(self) -> None:
        """Expand what was read since the last change of the macros."""
        self.tokens += Expansion(self.macros, self._waiting).run()
        self._waiting = []

    # Directives

    def _directive(self, line: list[Token], branches: list[_Branch]) -> None:
        active = not branches or branches[-1].active
        if len(line) == 1:
            return  # a lone # is allowed, and nothing
        word, rest, where = line[1].text, line[2:], line[0].where
        if word in ("if", "ifdef", "ifndef"):
            holds = active and self._condition(word, rest, where)
            branches.append(_Branch(where, active, holds))
        elif word in ("elif", "else", "endif"):
            if not branches:
                raise P4Error(where, f"#{word} without an #if before it")
            self._turn(word, rest, where, branches)
        elif not active:
            return
        elif word in _PLAIN:
            _PLAIN[word](self, rest, where)
        else:
            raise P4Error(
                where, f"#{word} is no directive; known are define, undef, include, if, ifdef, "
                "ifndef, elif, else, endif and error",
            )  # fmt: skip

    def _turn(self, word: str, rest: list[Token], where: Where, branches: list[_Branch]) -> None:
        branch = branches[-1]
        if word == "endif":
            branches.pop()
            return
        if branch.is_last:
            raise P4Error(where, f"#{word} after the #else of this #if: expected #endif")
        branch.is_last = word == "else"
        undecided = branch.outer and not branch.taken
        branch.turn(word == "else" or (undecided and self._condition("if", rest, where)))

    def _condition(self, word: str, rest: list[Token], where: Where) -> bool:
        if word == "if":
            return bool(Arithmetic(self.macros, rest, where).value())
        name = name_of(rest, where, f"#{word}")
        return (name in self.macros) == (word == "ifdef")

    def _define(self, rest: list[Token], where: Where) -> None:
        self.flush()
        name = name_of(rest[:1], where, "#define")
        body, parameters = rest[1:], None
        if body and body[0].text == "(" and body[0].joined:
            end = next((i for i, token in enumerate(body) if token.text == ")"), None)
            if end is None:
                raise P4Error(where, f"#define {name}(...: expected ) in the same line")
            parameters = tuple(token.text for token in body[1:end] if token.text != ",")
            body = body[end + 1 :]
        for token in body:
            if token.text in ("#", "##"):
                raise unsupported(token.where, f"{token.text} in a macro")
        self.macros[name] = Macro(parameters, tuple(body))

    def _undef(self, rest: list[Token], where: Where) -> None:
        self.flush()
        self.macros.pop(name_of(rest, where, "#undef"), None)

    def _include(self, rest: list[Token], where: Where) -> None:
        spelled = "".join(token.text for token in rest)
        if spelled.startswith("<") and spelled.endswith(">"):
            name = spelled[1:-1]
            if name not in BUILT_IN:
                known = " and ".join(f"<{each}>" for each in BUILT_IN)
                raise P4Error(where, f"#include {spelled}: built in are {known}; "
                              'write "..." for a file of your own')  # fmt: skip
            self.includes[name] = None
            return
        if len(rest) != 1 or rest[0].kind != "string":
            raise P4Error(where, '#include: expected <core.p4>, <v1model.p4> or a file in "..."')
        if self._depth == _DEEPEST_INCLUDE:
            raise P4Error(where, f"{_DEEPEST_INCLUDE} files include one another: a circle? "
                          "Guard each with #ifndef")  # fmt: skip
        self._depth += 1
        self.read(str(Path(where.file).parent / rest[0].text[1:-1]), where)
        self._depth -= 1

    def _error(self, rest: list[Token], where: Where) -> None:
        text = " ".join(token.text for token in rest)
        raise P4Error(where, f"#error {text}".rstrip())

    def _ignore(self, rest: list[Token], where: Where) -> None:
        """#pragma and #line say nothing to a front end of one target."""


_PLAIN: dict[str, Callable[[_Reader, list[Token], Where], None]] = {
    "define": _Reader._define,
    "undef": _Reader._undef,
    "include": _Reader._include,
    "error": _Reader._error,
    "pragma": _Reader._ignore,
    "line": _Reader._ignore,
}
