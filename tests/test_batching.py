"""Runs: what a batch is cut into."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import wire
from p4xos.batching import JOINED_ROWS, joined, split_runs, split_where_changes
from p4xos.wire import Message, Type

WINDOW = 8
CONSECUTIVE = (Type.PHASE2A, Type.PHASE2B)
PROFILE = settings(deadline=None, derandomize=True, database=None, max_examples=400)


def message(
    type: int, instance: int, round: int, sender: int, low: int, incarnation: int
) -> Message:
    return Message(1, type, 0, 0, instance, round, round, sender, 0, incarnation, low, b"")


@st.composite
def stretches(draw: st.DrawFn) -> list[Message]:
    """Consecutive instances, as senders make them."""
    type = draw(st.sampled_from([*CONSECUTIVE, *CONSECUTIVE, Type.REQUEST, Type.LEARN]))
    first = draw(st.one_of(st.integers(0, 20), st.sampled_from([2**64 - 3, 2**32 - 2, 2**63 - 2])))
    small = st.integers(0, 1)
    fields = [draw(small) for _ in range(4)]
    count = draw(st.integers(1, 2 * WINDOW + 2))
    return [message(type, (first + k) % 2**64, *fields) for k in range(count)]


BATCHES = st.lists(stretches(), max_size=5).map(lambda parts: [m for part in parts for m in part])


@PROFILE
@given(BATCHES)
def test_runs_cover_every_row_in_order(batch: list[Message]) -> None:
    """Each row is in exactly one run, and the runs are in the order of the rows."""
    runs = split_runs(wire.from_messages(batch), WINDOW)
    assert [k for run in runs for k in range(run.start, run.stop)] == list(range(len(batch)))
    assert all(run.size >= 1 for run in runs)


@PROFILE
@given(BATCHES)
def test_keys_are_constant_in_a_run(batch: list[Message]) -> None:
    """A run's fields are its first row's; of PHASE2A and PHASE2B those of every row."""
    for run in split_runs(wire.from_messages(batch), WINDOW):
        part = batch[run.start : run.stop]
        first = part[0]
        assert (run.instance, run.round, run.vround) == (first.instance, first.round, first.vround)
        assert (run.type, run.sender, run.low) == (first.type, first.sender, first.low)
        assert {m.type for m in part} == {run.type}
        if run.type in CONSECUTIVE:
            assert len({(m.round, m.vround, m.sender, m.incarnation, m.low) for m in part}) == 1


@PROFILE
@given(BATCHES)
def test_a_run_never_wraps(batch: list[Message]) -> None:
    """Its instances are consecutive, and so are their slots: the ring does not end in it."""
    for run in split_runs(wire.from_messages(batch), WINDOW):
        if run.type in CONSECUTIVE:
            instances = [m.instance for m in batch[run.start : run.stop]]
            assert instances == list(range(run.instance, run.instance + run.size))
            assert run.instance // WINDOW == (run.instance + run.size - 1) // WINDOW


@PROFILE
@given(stretches())
def test_runs_are_as_long_as_they_may_be(batch: list[Message]) -> None:
    """A stretch is cut only where the ring ends."""
    runs = split_runs(wire.from_messages(batch), WINDOW)
    if batch[0].type in CONSECUTIVE:
        ends = {m.instance // WINDOW for m in batch}
        assert len(runs) == len(ends)
    else:
        assert len(runs) == 1


@PROFILE
@given(st.lists(st.integers(0, 2), min_size=1, max_size=20))
def test_stretches_of_equal_keys(keys: list[int]) -> None:
    parts = split_where_changes(np.array(keys))
    assert [k for start, stop in parts for k in keys[start:stop]] == keys
    assert all(len(set(keys[start:stop])) == 1 for start, stop in parts)
    assert all(keys[a - 1] != keys[a] for a, _ in parts[1:])


@given(st.lists(st.tuples(st.integers(1, 2 * JOINED_ROWS), st.sampled_from([40, 48])), max_size=8))
@settings(max_examples=50)
def test_joined_batches_have_the_same_rows_in_the_same_order(shapes: list[tuple[int, int]]) -> None:
    batches = [np.full(shape, k, np.uint8) for k, shape in enumerate(shapes)]
    found = list(joined(batches))
    assert [bytes(row) for rows in found for row in rows] == [
        bytes(row) for rows in batches for row in rows
    ]
    assert all(rows.base is None and len(rows) for rows in found)
    for rows, following in pairwise(found):
        small = max(len(rows), len(following)) < JOINED_ROWS
        assert not small or rows.shape[1] != following.shape[1]
