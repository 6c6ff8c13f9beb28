"""The tail of the log that a learner keeps in memory, for peers that catch up and for `recover`."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from p4xos.effects import Chosen
from p4xos.errors import Trimmed

RETAINED_BYTES = 64 << 20
"""Longer than a snapshot's transfer at full load; above it the oldest values are let go."""
BATCH_BYTES = 440
"""What a batch takes beside its values, as measured: two arrays and a tuple. With one small value
in each it is most of all."""
HELD_FACTOR = 4
"""How much more is kept while a peer fetches a snapshot."""


class RetainedLog:
    """Consecutive chosen values through the last one delivered, bounded in bytes."""

    def __init__(self, next_instance: int, bytes_max: int = RETAINED_BYTES) -> None:
        """Empty.

        Args:
          next_instance: the first that will be appended.
          bytes_max: of memory.
        """
        self._chunks: deque[Chosen] = deque()
        self._bytes = 0
        self._bytes_max = bytes_max
        self._next = next_instance
        self._held: int | None = None

    @property
    def low(self) -> int:
        """The oldest instance retained; `next` when there is none."""
        return self._chunks[0].instance if self._chunks else self._next

    @property
    def next(self) -> int:
        """Behind the newest instance retained."""
        return self._next

    def append(self, chosen: Chosen) -> None:
        """Takes the next values, dropping the oldest over the bound."""
        if chosen.instance != self._next:  # a snapshot was installed in between
            self._chunks.clear()
            self._bytes = 0
        self._chunks.append(chosen)
        self._next = chosen.instance + len(chosen.lengths)
        self._bytes += _bytes_of(chosen)
        while self._bytes > self._bytes_max and len(self._chunks) > 1:
            held = self._held is not None and self._chunks[1].instance > self._held
            if held and self._bytes <= HELD_FACTOR * self._bytes_max:
                break
            self._bytes -= _bytes_of(self._chunks.popleft())

    def hold(self, first: int | None) -> None:
        """Keeps the values from an instance on beyond the bound; see `p4xos.log.Retained`."""
        self._held = first

    def since(self, first: int) -> Iterator[Chosen]:
        """The values from an instance on, in order; Trimmed when it is no longer retained."""
        if first < self.low:
            raise Trimmed(first, self.low)
        for chunk in self._chunks:
            skip = max(first - chunk.instance, 0)
            if skip < len(chunk.lengths):
                yield Chosen(chunk.instance + skip, chunk.values[skip:], chunk.lengths[skip:])

    def value(self, instance: int) -> bytes:
        """What was chosen, raw: with its envelope, b"" for a no-op.

        Raises:
          Trimmed: no longer retained.
          LookupError: not delivered yet.
        """
        for chunk in self.since(instance):
            return chunk.values[0, : int(chunk.lengths[0])].tobytes()
        raise LookupError(f"instance {instance} is not delivered here yet, {self._next} is next")


def _bytes_of(chosen: Chosen) -> int:
    return chosen.values.nbytes + chosen.lengths.nbytes + BATCH_BYTES
