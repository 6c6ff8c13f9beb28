"""What is known of keys without asking RocksDB: the batch under way, and what was lately used.

`dirty` is the batch: its writes are seen by the reads behind them, and `Store.commit` writes them.
`recent` and an older generation keep what was lately read or written, so that a hot key costs a
dictionary look-up. Keys here are RocksDB's (`kvstore.records`); None stands for a missing key.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Final

CACHE_BYTES = 8 << 20
"""Keys and values in one generation; two generations exist."""
CACHE_KEYS = 65536
"""Keys in one generation; each costs some 150 bytes beside its text."""


class Missing(Enum):
    """Marks that a cache says nothing about a key; None says that the key does not exist."""

    MISSING = 0


MISSING: Final = Missing.MISSING


class Memory:
    """The batch under way and the cache of one store."""

    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        """Empty; `read` asks RocksDB."""
        self._read = read
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.recent: dict[bytes, bytes | None] = {}
        self.recent_bytes = 0
        self.dirty: dict[bytes, bytes | None] = {}
        self.cleared: set[int] = set()
        """First bytes of what was emptied in this batch: RocksDB's content does not count."""
        self._older: dict[bytes, bytes | None] = {}

    def look_up(self, key: bytes) -> bytes | None:
        """What a key holds as this batch has left it; for keys that `recent` does not have."""
        held = self.peek(key)
        self.remember(key, held)
        return held

    def peek(self, key: bytes) -> bytes | None:
        """As `look_up`, for a key that need not be kept for the next look."""
        held = self._older.get(key, MISSING)
        if held is MISSING:
            held = self.dirty.get(key, MISSING)
        if held is MISSING:
            return None if key[0] in self.cleared else self._read(key)
        return held

    def remember(self, key: bytes, held: bytes | None) -> None:
        """Keeps what a key holds for the next look."""
        self.recent[key] = held
        self.recent_bytes += len(key) + (0 if held is None else len(held))
        if self.recent_bytes > CACHE_BYTES or len(self.recent) > CACHE_KEYS:
            self.turn()

    def forget(self) -> None:
        """Drops what is cached and not part of the batch: it is read from RocksDB again."""
        self.turn()
        self.turn()

    def turn(self) -> None:
        """The younger generation becomes the older one, and that is forgotten."""
        self._older, self.recent, self.recent_bytes = self.recent, {}, 0

    def write(self, key: bytes, held: bytes | None) -> None:
        """Changes what a key holds, as part of this batch."""
        self.dirty[key] = held
        self.remember(key, held)

    def drop(self, key: bytes) -> None:
        """Deletes a key that nobody is about to ask for, as part of this batch."""
        self.dirty[key] = None
        self.recent.pop(key, None)
        self._older.pop(key, None)

    def clear(self, first: int) -> None:
        """Deletes all keys with this first byte, as part of this batch."""
        for cache in (self.recent, self._older, self.dirty):
            for key in [key for key in cache if key[0] == first]:
                del cache[key]
        self.cleared.add(first)

    def committed(self) -> None:
        """The batch is in RocksDB."""
        self.dirty.clear()
        self.cleared.clear()
