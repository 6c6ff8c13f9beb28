"""From characters to tokens with places: one regular expression, comments left out."""

from __future__ import annotations

import re
from typing import NamedTuple

from switch.lang.errors import P4Error
from switch.lang.ir import Where

_TOKEN = re.compile(
    r"""
      (?P<space>   (?: [ \t\r\f\v] | \\\r?\n | //[^\n]* | /\*.*?\*/ )+ )
    | (?P<line>    \n )
    | (?P<name>    [A-Za-z_]\w* )
    | (?P<number>  (?: \d+[ws] )? (?: 0[xX][\da-fA-F_]+ | 0[bB][01_]+ | 0[oO][0-7_]+ | 0[dD][\d_]+
                   | \d[\d_]* ) (?!\w) )
    | (?P<string>  "(?: [^"\\\n] | \\. )*" )
    | (?P<mark>    &&& | \.\.\. | \.\. | \|\+\| | \|-\| | << | <= | >= | == | != | && | \|\| | \+\+
                   | \#\# | /(?!\*) | [-+*%&|^~!<>=?:;,.(){}\[\]@\#] )
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(NamedTuple):
    """A word of the program."""

    kind: str
    """`name`, `number`, `string` or `mark`."""
    text: str
    where: Where
    joined: bool
    """It stands right behind the token before it, as the `(` of a macro's definition."""


def tokenize(text: str, file: str) -> list[list[Token]]:
    """The tokens of each line; a comment and a backslash at a line's end carry the line on."""
    lines: list[list[Token]] = [[]]
    position, line, line_start, joined = 0, 1, 0, False
    while position < len(text):
        found = _TOKEN.match(text, position)
        where = Where(file, line, position - line_start + 1)
        if found is None:
            raise P4Error(where, _no_token(text, position))
        kind, spelled = str(found.lastgroup), found[0]
        if kind == "line":
            lines.append([])
        elif kind != "space":
            lines[-1].append(Token(kind, spelled, where, joined))
        joined = kind not in ("line", "space")
        if "\n" in spelled:
            line += spelled.count("\n")
            line_start = position + spelled.rindex("\n") + 1
        position = found.end()
    return lines


def _no_token(text: str, position: int) -> str:
    if text.startswith("/*", position):
        return "this comment is never closed: expected */"
    if text[position] == '"':
        return 'this string is never closed: expected " in the same line'
    if text[position].isdigit():
        word = re.compile(r"\w+").match(text, position)
        return f"{word[0] if word else text[position]} is no number, such as 10, 0x0A or 8w10"
    return f"the character {text[position]!r} means nothing in P4"
