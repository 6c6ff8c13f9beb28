"""Where iterations by SCAN go on: the cursors that one node has given out.

An iteration walks the keys in byte order, so its place is the last key looked at, and a key that is
there throughout is always returned. A cursor is a number that stands for that place in this table.
It is random: another node's is unknown here, and never stands for another place. A cursor that is
unknown, because another node gave it or because it was forgotten, starts the iteration over: keys
come again, as Redis' SCAN allows, and none is missed.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

CURSORS = 16_384
"""Iterations that may be under way, with those given up; a cursor costs some 300 bytes."""
CURSORS_BYTES = 8 << 20
"""Keys in the table: they may be long."""
_CURSOR_BITS = 52
"""Some clients keep a cursor in a double."""


class _Place(NamedTuple):
    database: int
    after: bytes
    previous: int
    """The cursor that led here; forgotten once this one is used."""


class CursorTable:
    """The cursors of one node; of too many, those longest not used are forgotten."""

    def __init__(
        self, draw: Callable[[int], int] = secrets.randbits, *, most: int = CURSORS,
        most_bytes: int = CURSORS_BYTES,
    ) -> None:
        """Empty.

        Args:
          draw: gives a random number of so many bits.
          most: cursors.
          most_bytes: keys they stand for, together.
        """
        self._draw = draw
        self._most = most
        self._most_bytes = most_bytes
        self._places: OrderedDict[int, _Place] = OrderedDict()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._places)

    def find(self, cursor: int, database: int) -> bytes | None:
        """The last key that was looked at; None: from the beginning.

        The cursor stays good: a client whose reply was lost asks again. The one before it, which
        nobody needs who has this one, is forgotten.
        """
        place = self._places.get(cursor)
        if place is None or place.database != database:
            return None
        self._places.move_to_end(cursor)
        self._forget(place.previous)
        return place.after

    def add(self, database: int, after: bytes, previous: int) -> int:
        """A cursor for the place behind a key.

        Args:
          database: its number.
          after: the last key that was looked at.
          previous: the cursor with which the client came, 0 at the beginning.
        """
        cursor = 0
        while not cursor or cursor in self._places:
            cursor = self._draw(_CURSOR_BITS)
        self._places[cursor] = _Place(database, after, previous)
        self._bytes += len(after)
        while len(self._places) > self._most or self._bytes > self._most_bytes:
            if len(self._places) == 1:
                break  # the one that is being given out
            self._forget(next(iter(self._places)))
        return cursor

    def _forget(self, cursor: int) -> None:
        place = self._places.pop(cursor, None)
        if place is not None:
            self._bytes -= len(place.after)
