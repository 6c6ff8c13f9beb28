"""Commands that look through a database: KEYS, SCAN, RANDOMKEY.

Keys lie in byte order. A pattern that begins with plain text is looked for where that text lies,
and nowhere else. KEYS and RANDOMKEY take no note of the log; SCAN keeps cursors (`kvstore.cursors`)
on the node that gave them.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from weakref import WeakKeyDictionary

from kvstore.commands.keys import STRING_TYPE
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, parse_integer
from kvstore.cursors import CursorTable
from kvstore.keyspace import Keyspace
from kvstore.patterns import compile_glob
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command
from kvstore.store import Store

PAGE_KEYS = 1024
"""Keys taken from the store in one call."""
SCAN_KEYS_MAX = 10_000
"""Keys that one SCAN looks at, whatever its COUNT: the node's other work waits for it."""
_DEFAULT_COUNT = 10
_SMALL_DATABASE = 256
"""RANDOMKEY chooses among all keys of a database that has no more."""
_FEW_KEYS = 16
"""RANDOMKEY chooses among all keys with a beginning that no more keys have."""
_BRANCHES = 72
"""Next bytes that RANDOMKEY counts one by one; base64 has 65."""
_DEPTH = 64
"""Bytes of a key that RANDOMKEY chooses one by one."""

_chance = random.Random()
_CURSOR = re.compile(rb"(?:[+-]?[0-9]{1,20})?\Z")
# What C's strtoul takes; text of no digits at all counts as 0.
_CURSOR_MAX = (1 << 64) - 1

_cursors: WeakKeyDictionary[Store, CursorTable] = WeakKeyDictionary()
"""A node has one store; tests run several in one process."""


def cursors_of(store: Store) -> CursorTable:
    """The cursors given out by the node of this store."""
    table = _cursors.get(store)
    if table is None:
        table = _cursors[store] = CursorTable()
    return table


def _pages(keys: Keyspace, prefix: bytes) -> Iterator[list[bytes]]:
    """All keys that begin with a prefix, in order, many at a time."""
    if prefix and keys.contains(prefix):
        yield [prefix]
    after: bytes | None = prefix or None  # in byte order the others stand right behind it
    while True:
        page = keys.scan(after, PAGE_KEYS)
        within = _within(page, prefix)
        if within:
            yield within
        if len(within) < PAGE_KEYS:
            return
        after = within[-1]


def _within(page: list[bytes], prefix: bytes) -> list[bytes]:
    """The keys of an ordered page that begin with a prefix, where none before them does not."""
    if not page or page[-1].startswith(prefix):
        return page
    return [key for key in page if key.startswith(prefix)]


def _keys(keys: Keyspace, command: Command) -> Reply:
    glob = compile_glob(command[1])
    if glob.literal:
        return [glob.prefix] if keys.contains(glob.prefix) else []
    found: list[Reply] = []
    for page in _pages(keys, glob.prefix):
        found += glob.choose(page)
    return found


def _parse_cursor(text: bytes) -> int:
    if not _CURSOR.match(text) or abs(int(text or b"0")) > _CURSOR_MAX:
        raise CommandError("ERR invalid cursor")
    return int(text or b"0") & _CURSOR_MAX


def _scan(keys: Keyspace, command: Command) -> Reply:
    cursor = _parse_cursor(command[1])
    count, pattern, wanted_type = _DEFAULT_COUNT, b"*", b""
    for position in range(2, len(command), 2):
        option = command[position].lower()
        if position + 1 == len(command) or option not in (b"count", b"match", b"type"):
            raise CommandError(SYNTAX_ERROR)
        value = command[position + 1]
        if option == b"count":
            count = parse_integer(value)
            if count < 1:
                raise CommandError(SYNTAX_ERROR)
        elif option == b"match":
            pattern = value  # only the last one counts, so no other is compiled
        else:
            wanted_type = value.lower()
    glob = compile_glob(pattern)
    table = cursors_of(keys.store)
    after = table.find(cursor, keys.database) if cursor else None
    page, last = _next_page(keys, glob.prefix, after, min(count, SCAN_KEYS_MAX))
    following = table.add(keys.database, last, cursor) if last is not None else 0
    found: list[Reply] = []
    if wanted_type in (b"", STRING_TYPE):  # a page holds keys that are there: strings
        found += glob.choose(page)
    return [b"%d" % following, found]


def _next_page(
    keys: Keyspace, prefix: bytes, after: bytes | None, count: int
) -> tuple[list[bytes], bytes | None]:
    """The next keys with a prefix, and the key behind which to go on; None: there are no more."""
    page: list[bytes] = []
    if prefix and (after is None or after < prefix):
        # A cursor from before the prefix: the client has changed its pattern.
        page = [prefix] if keys.contains(prefix) else []
        after = prefix
    found = keys.scan(after, count)
    within = _within(found, prefix)
    page += within
    return page, within[-1] if len(within) == count else None


def _randomkey(keys: Keyspace, command: Command) -> Reply:
    return random_key(keys, _chance)


def random_key(keys: Keyspace, chance: random.Random) -> bytes | None:
    """A key by chance; None when there is none.

    Of a small database each key is as likely as any other. Of a large one it is a walk down the
    tree of the keys' bytes, where each next byte is as likely as any other that occurs there. Keys
    that end in numbers or random text are near to equally likely; a key that stands alone beside
    many with a common beginning is likelier than each of them.
    """
    if keys.count() <= _SMALL_DATABASE:
        every = keys.scan(None, _SMALL_DATABASE)
        return chance.choice(every) if every else None
    prefix = b""
    few = keys.scan(None, _FEW_KEYS)
    while len(few) == _FEW_KEYS and len(prefix) < _DEPTH:
        prefix += bytes((_draw_next(keys, prefix, chance),))
        few = [prefix] if keys.contains(prefix) else []
        few = _within(few + keys.scan(prefix, _FEW_KEYS - len(few)), prefix)
    return chance.choice(few) if few else None


def _draw_next(keys: Keyspace, prefix: bytes, chance: random.Random) -> int:
    """A byte by chance of those that follow a prefix in some key; many keys have the prefix.

    A key that ends with the prefix has no such byte: it is drawn only where few are left.
    """
    found: list[int] = []
    least = 0
    while least < 256 and (key := _first_from(keys, prefix, least)) is not None:
        found.append(key[len(prefix)])
        least = found[-1] + 1
        if len(found) == _BRANCHES:
            # So many lie close together: any byte, or the next that occurs.
            key = _first_from(keys, prefix, chance.randint(found[0], 255))
            return chance.choice(found) if key is None else key[len(prefix)]
    return chance.choice(found)


def _first_from(keys: Keyspace, prefix: bytes, byte: int) -> bytes | None:
    """The first key with a prefix whose next byte is at least this; None when there is none."""
    start = prefix + bytes((byte,))
    if keys.contains(start):
        return start
    found = keys.scan(start, 1)
    return found[0] if found and found[0].startswith(prefix) else None


COMMANDS: list[Entry] = [
    Entry(b"keys", 2, Kind.READ, _keys, "Find all keys matching the given pattern", "1.0.0",
          "generic", ("readonly",)),
    Entry(b"scan", -2, Kind.READ, _scan, "Incrementally iterate the keys space", "2.8.0",
          "generic", ("readonly",)),
    Entry(b"randomkey", 1, Kind.READ, _randomkey, "Return a random key from the keyspace",
          "1.0.0", "generic", ("readonly",)),
]  # fmt: skip
