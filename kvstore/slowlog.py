"""The slow log: the commands that took longest to answer, newest first, in bounded memory.

Redis measures a command's own execution. Here a command is answered when a majority has voted and
the replica has applied it, or when a read index came back, and that is what is measured: from the
moment its run was taken up to its reply. A run of a pipeline is answered together and is one entry,
with its first command and how many followed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

ARGUMENTS_MAX = 32
ARGUMENT_BYTES_MAX = 128
"""Redis keeps no more of a command either: a slow MSET of 8 MiB must not be kept in memory."""
DEFAULT_SLOWER_THAN_US = 10_000
DEFAULT_MAX_LENGTH = 128
ENTRIES_MAX = 100_000
"""Whatever slowlog-max-len says: some 400 MB where every entry is as large as it can be."""
NEVER = float("inf")


class SlowEntry(NamedTuple):
    """One slow command, or one slow run."""

    number: int
    """Counted from 0 since the process started; RESET does not begin anew."""
    at_s: int
    """Seconds since the epoch, when it was answered."""
    duration_us: int
    words: tuple[bytes, ...]
    """The command, cut to what is shown."""
    address: str
    name: bytes
    """Of the client, as CLIENT SETNAME gave it."""


class SlowLog:
    """The newest slow entries. The hot path compares with `threshold_s` and calls `note` rarely."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Empty, with Redis' defaults.

        Args:
          clock: seconds since the epoch.
        """
        self.count = 0
        """Entries ever made."""
        self._clock = clock
        self._entries: deque[SlowEntry] = deque()
        self.max_length = DEFAULT_MAX_LENGTH
        self.slower_than_us = DEFAULT_SLOWER_THAN_US

    @property
    def slower_than_us(self) -> int:
        """CONFIG's slowlog-log-slower-than: 0 notes everything, a negative number nothing."""
        return self._slower_than_us

    @slower_than_us.setter
    def slower_than_us(self, value: int) -> None:
        self._slower_than_us = value
        self.threshold_s = NEVER if value < 0 else value / 1e6
        """What took as long is noted."""

    @property
    def max_length(self) -> int:
        """CONFIG's slowlog-max-len: the oldest entries beyond it are forgotten."""
        return self._max_length

    @max_length.setter
    def max_length(self, value: int) -> None:
        self._max_length = value
        limit = min(value, ENTRIES_MAX)
        self._entries = deque(islice(self._entries, limit), maxlen=limit)

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[SlowEntry]:
        return iter(self._entries)

    def note(
        self,
        duration_s: float,
        words: tuple[bytes, ...],
        more: int = 0,
        *,
        address: str = "",
        name: bytes = b"",
    ) -> None:
        """Takes a command up, whatever it took: the caller has compared with `threshold_s`.

        Args:
          duration_s: how long it took.
          words: as `shown` cuts them; of a run the first command's.
          more: commands of the run behind it.
          address: of the client.
          name: of the client.
        """
        if more:
            words = (*words[: ARGUMENTS_MAX - 1], b"... (%d more commands)" % more)
        entry = SlowEntry(
            self.count, int(self._clock()), int(duration_s * 1e6), words, address, name
        )
        self.count += 1
        self._entries.appendleft(entry)

    def reset(self) -> None:
        """Forgets all entries."""
        self._entries.clear()


def shown(command: Sequence[bytes]) -> tuple[bytes, ...]:
    """A command cut to what the slow log keeps of it, in Redis' words."""
    words = tuple(_cut(word) for word in command[:ARGUMENTS_MAX])
    left_out = len(command) - ARGUMENTS_MAX
    if left_out > 0:
        words = (*words[:-1], b"... (%d more arguments)" % (left_out + 1))
    return words


def _cut(word: bytes) -> bytes:
    left_out = len(word) - ARGUMENT_BYTES_MAX
    return word if left_out <= 0 else (
        word[:ARGUMENT_BYTES_MAX] + b"... (%d more bytes)" % left_out
    )
