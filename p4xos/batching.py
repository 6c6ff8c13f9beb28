"""From a batch of messages to runs that roles act on as slices.

Strategy: a busy role hears consecutive instances from one sender in one round, because senders
batch too. Such a *run* occupies consecutive slots of the window, so every register access is a
slice: no index array, no index that repeats, one memory copy for all values. Whatever breaks the
pattern (loss, reordering, another sender) only makes runs shorter, down to single messages, which
a role's scalar path takes. Order is kept: runs are acted on one after the other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from p4xos import wire
from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, Rows, Type, alike, headers, words

SCALAR_BELOW = 8
"""Fewer messages take the scalar path: a numpy step costs as much as eight or so."""


class Run(NamedTuple):
    """Consecutive rows of one type.

    Of PHASE2A and PHASE2B also of one sender, round, vround, incarnation and low, with consecutive
    instances that do not wrap around the window. The fields are those of the first row, as Python
    ints; for other types a handler that needs more than the first row's fields reads the rows.
    """

    start: int
    stop: int
    type: int
    instance: int
    round: int
    vround: int
    sender: int
    low: int

    @property
    def size(self) -> int:
        """How many messages."""
        return self.stop - self.start


_CONSECUTIVE_TYPES = (int(Type.PHASE2A), int(Type.PHASE2B))
_CONSECUTIVE = np.zeros(256, dtype=np.bool_)
_CONSECUTIVE[list(_CONSECUTIVE_TYPES)] = True
_UNPACK = HEADER_STRUCT.unpack_from
_NOT_LENGTH = np.frombuffer(
    HEADER_STRUCT.pack(0, 0, 0, 0, 0, 0, 0, 0xFFFF, 0, 0xFFFF_FFFF, 0)[24:32], np.uint64
)[0]


def split_runs(rows: Rows, window: int) -> list[Run]:
    """The runs of a batch, in order, together covering every row.

    Args:
      rows: (n, stride) uint8, valid messages.
      window: instances a ring of slots holds, a power of two.

    Returns:
      The runs; no run of PHASE2A or PHASE2B crosses a multiple of `window`.
    """
    count = len(rows)
    if count == 0:
        return []
    if count == 1:
        return [_run(rows, 0, 1)]
    if count < SCALAR_BELOW:
        return _split_one_by_one(rows, window)
    word = words(rows)
    run = _run(rows, 0, count)
    if alike(word[:, 0]) and alike(word[:, 2]) and _all_together(word, run, window):
        return [run]
    header = headers(rows)
    instance = header["instance"].astype(np.uint64)
    type = header["type"]
    consecutive = (instance[1:] - instance[:-1]) == 1
    consecutive &= (instance[1:] & np.uint64(window - 1)) != 0
    consecutive &= word[1:, 2] == word[:-1, 2]  # round, vround
    consecutive &= header["sender"][1:] == header["sender"][:-1]
    consecutive &= header["incarnation"][1:] == header["incarnation"][:-1]
    consecutive &= word[1:, 4] == word[:-1, 4]  # low
    together = type[1:] == type[:-1]
    together &= consecutive | ~_CONSECUTIVE[type[1:]]
    starts = [0, *(np.flatnonzero(~together) + 1).tolist()]
    stops = [*starts[1:], count]
    return [_run(rows, start, stop) for start, stop in zip(starts, stops, strict=True)]


def _all_together(word: NDArray[np.uint64], run: Run, window: int) -> bool:
    """Whether a batch of one type, round and vround is one run: the busy case, told by bytes."""
    if not _CONSECUTIVE[run.type]:
        return True
    last = run.instance + run.size - 1
    if last >= wire.END_OF_LOG or run.instance // window != last // window:
        return False
    consecutive = np.arange(run.instance, last + 1, dtype=np.uint64).astype(">u8").tobytes()
    return _one_sender(word) and alike(word[:, 4]) and word[:, 1].tobytes() == consecutive


def _one_sender(word: NDArray[np.uint64]) -> bool:
    """Whether sender and incarnation, which share a word with the length, are all alike."""
    return alike(word[:, 3]) or alike(word[:, 3] & _NOT_LENGTH)


def _split_one_by_one(rows: Rows, window: int) -> list[Run]:
    """The same runs for a few messages, for which one numpy call costs more than a header."""
    data = rows.reshape(-1).data
    stride = rows.shape[1]
    runs: list[Run] = []
    start, first, expected = 0, _UNPACK(data, 0), 0
    for row in range(1, len(rows) + 1):
        if row < len(rows):
            fields = _UNPACK(data, row * stride)
            expected = first[4] + row - start
            if fields[1] == first[1] and (
                fields[1] not in _CONSECUTIVE_TYPES
                or (
                    fields[4] == expected
                    and expected & (window - 1)
                    and fields[5:8] == first[5:8]
                    and fields[9:11] == first[9:11]
                )
            ):
                continue
        runs.append(Run(start, row, first[1], first[4], first[5], first[6], first[7], first[10]))
        if row < len(rows):
            start, first = row, fields
    return runs


def _run(rows: Rows, start: int, stop: int) -> Run:
    fields = HEADER_STRUCT.unpack_from(rows[start, :HEADER_BYTES].data)
    return Run(start, stop, fields[1], fields[4], fields[5], fields[6], fields[7], fields[10])


JOINED_ROWS = 64
"""Batches of fewer rows are joined: a larger one costs more to copy than a step to begin."""


def joined(batches: Sequence[Rows]) -> Iterator[Rows]:
    """The same rows in the same order, small neighbours of one stride as one batch."""
    if len(batches) == 1:
        yield batches[0]
        return
    for stride, near in groupby(batches, _stride_of_small):
        if stride is None:
            yield from near
        else:
            some = list(near)
            yield np.concatenate(some) if len(some) > 1 else some[0]


def _stride_of_small(rows: Rows) -> int | None:
    return rows.shape[1] if len(rows) < JOINED_ROWS else None


def split_where_changes(key: NDArray[np.generic]) -> list[tuple[int, int]]:
    """The maximal stretches of equal keys.

    Args:
      key: (n,) any dtype, n at least 1.

    Returns:
      (start, stop) pairs, in order, covering 0 to n.
    """
    edges = (np.flatnonzero(key[1:] != key[:-1]) + 1).tolist()
    return list(zip([0, *edges], [*edges, len(key)], strict=True))
