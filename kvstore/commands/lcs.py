"""LCS: the longest common subsequence of two strings, by Redis' rules for choosing among several.

Strategy. Redis fills a table of lengths L(i, j) for the first i bytes of one string and the first
j of the other, four bytes a cell, and walks back from the end: a pair of equal bytes is a match;
else it goes to the longer of L(i-1, j) and L(i, j-1), and of two equal ones to the latter. Two
neighbours differ by 0 or 1, so a row here is one Python integer with a bit for each column, and
the next row follows from it by one addition (Crochemore, Iliopoulos, Pinzon and Reid 2001; Hyyro
2004). The walk asks of each cell only whether it goes on along the row, so each row keeps just the
bits where it does not: a thirty-second of Redis' memory, and a few operations on integers a row.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer
from kvstore.keyspace import Keyspace
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command

MAX_CELLS = (512 << 20) // 4
"""What Redis' own bound of 512 MB of transient memory allows; 16 MiB here."""
_TOO_LARGE = "ERR Insufficient memory, transient memory for LCS exceeds proto-max-bulk-len"


class Run(NamedTuple):
    """Bytes that match one after the other in both strings."""

    left: int
    """Where it begins in the first string."""
    right: int
    """Where it begins in the second one."""
    length: int


class _Row(NamedTuple):
    """Bits over the columns for one byte of the shorter string; bit 0 is the first column."""

    matches: int
    """Columns whose byte equals the row's."""
    stops: int
    """Columns where the walk does not go on to the one before."""


def matching_runs(left: bytes, right: bytes) -> list[Run]:
    """The runs of the subsequence that Redis chooses, the last one first."""
    if len(left) <= len(right):
        return _walk(_rows(left, right, along_left=False), len(right))
    turned = _walk(_rows(right, left, along_left=True), len(left))
    return [Run(run.right, run.left, run.length) for run in turned]


def _rows(shorter: bytes, longer: bytes, *, along_left: bool) -> list[_Row]:
    """A row for each byte of the shorter string.

    Args:
      shorter: its bytes are the rows; it may be the first or the second string.
      longer: its bytes are the columns.
      along_left: the columns are the first string's. Between two ways as long as each other the
        walk shortens the second string, so where that is the rows' a tie leaves the row.
    """
    matches_of = _matches(set(shorter), longer)
    every = (1 << len(longer)) - 1
    level = every  # columns where L is as in the column before; in the row of no bytes all are
    rows = []
    for byte in shorter:
        matches = matches_of[byte]
        hits = level & matches
        total = level + hits
        carried = (level ^ hits ^ total) >> 1  # columns where L is one more than in the row before
        level = (total | (level ^ hits)) & every
        rows.append(_Row(matches, matches | (every ^ (carried if along_left else level))))
    return rows


def _matches(bytes_: set[int], columns: bytes) -> dict[int, int]:
    """For each of some bytes, the columns that hold it."""
    array = np.frombuffer(columns, np.uint8)
    return {
        byte: int.from_bytes(np.packbits(array == byte, bitorder="little").tobytes(), "little")
        for byte in bytes_
    }


def _walk(rows: list[_Row], columns: int) -> list[Run]:
    """The walk back from the last row and column; `left` of its runs is the row."""
    runs: list[Run] = []
    for row in reversed(range(len(rows))):
        matches, stops = rows[row]
        stop = (stops & ((1 << columns) - 1)).bit_length() - 1
        if stop < 0:
            break
        if not matches >> stop & 1:
            columns = stop + 1
            continue
        columns = stop
        if runs and runs[-1][:2] == (row + 1, stop + 1):
            runs[-1] = Run(row, stop, runs[-1].length + 1)
        else:
            runs.append(Run(row, stop, 1))
    return runs


def _lcs(keys: Keyspace, command: Command) -> Reply:
    try:
        left, right = (keys.get(key) or b"" for key in command[1:3])
    except CommandError:
        raise CommandError("ERR The specified keys must contain string values") from None
    options, shortest = _parse_options(command[3:])
    if {b"len", b"idx"} <= options:
        raise CommandError("ERR If you want both the length and indexes, please just use IDX.")
    if (len(left) + 1) * (len(right) + 1) > MAX_CELLS:
        raise CommandError(_TOO_LARGE)
    runs = matching_runs(left, right)
    length = sum(run.length for run in runs)
    if b"idx" in options:
        shown = [run for run in runs if run.length >= shortest]
        return {
            b"matches": [_describe(run, b"withmatchlen" in options) for run in shown],
            b"len": length,
        }
    if b"len" in options:
        return length
    return b"".join(left[run.left : run.left + run.length] for run in reversed(runs))


def _parse_options(words: Command) -> tuple[set[bytes], int]:
    """The options without arguments, in lower case, and the least length of a run to be shown."""
    options: set[bytes] = set()
    shortest = 0
    remaining = iter(words)
    for word in remaining:
        option = word.lower()
        if option == b"minmatchlen":
            argument = next(remaining, None)
            if argument is None:
                raise CommandError(SYNTAX_ERROR)
            shortest = parse_integer(argument)
        elif option in (b"len", b"idx", b"withmatchlen"):
            options.add(option)
        else:
            raise CommandError(SYNTAX_ERROR)
    return options, shortest


def _describe(run: Run, with_length: bool) -> Reply:
    """An item of LCS IDX: first and last place in either string."""
    places: list[Reply] = [
        [run.left, run.left + run.length - 1],
        [run.right, run.right + run.length - 1],
    ]
    return [*places, run.length] if with_length else places


COMMANDS: list[Entry] = [
    Entry(b"lcs", -3, Kind.READ, _lcs, "Find longest common substring", "7.0.0", "string",
          ("readonly",), (1, 2, 1)),
]
