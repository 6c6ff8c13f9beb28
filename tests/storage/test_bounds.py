"""Disk use and what a start reads stay bounded, through ten windows of any traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

import numpy as np
import pytest

from p4xos import wire
from p4xos.storage import create_mark
from p4xos.storage.directory import Owner, read_contents
from p4xos.storage.frames import FRAME_HEADER_BYTES
from p4xos.storage.recovery import Segment, read_log
from p4xos.storage.retention import DEAD_SEGMENTS
from p4xos.testing.disk import SimulatedDisk
from p4xos.wire import Rows
from tests.storage.helpers import DIRECTORY, OWNER, Node, phase1a, phase2a

WINDOW = 64
SEGMENT = 4096
VALUE = b"v" * 64
VALUES = 10 * WINDOW
REGISTERS_BYTES = 40 + 16 + 8
VOTE_BYTES = FRAME_HEADER_BYTES + 2 * 8 + wire.stride_for(len(VALUE)) + REGISTERS_BYTES
"""Of a vote alone in its frame, beside the registers that tell its `low`: the worst."""
CARRIED_BYTES = WINDOW * 40 + REGISTERS_BYTES
BOUND = WINDOW * VOTE_BYTES + (DEAD_SEGMENTS + 1) * SEGMENT + 3 * (CARRIED_BYTES + VOTE_BYTES)
FRAMES_BOUND = BOUND // (FRAME_HEADER_BYTES + 8 + 40)


def in_order(batch: int) -> Iterator[Rows]:
    for first in range(1, VALUES, batch):
        yield phase2a(first, batch, 0x101, max(1, first + batch - WINDOW), VALUE)


def one_by_one() -> Iterator[Rows]:
    return in_order(1)


def in_batches() -> Iterator[Rows]:
    return in_order(16)


def low_far_behind_then_near() -> Iterator[Rows]:
    for first in range(1, VALUES):
        yield phase2a(first, 1, 0x101, max(1, first // 48 * 48 - 8), VALUE)


def low_stands_still() -> Iterator[Rows]:
    """Every instance of one window, voted on again in ten rounds."""
    for counter in range(1, 11):
        for first in range(1, WINDOW, 4):
            yield phase2a(first, 4, counter << 8 | 1, 1, VALUE)


def hot_and_cold() -> Iterator[Rows]:
    """A vote that stays in each segment, among many for one instance."""
    for counter in range(1, VALUES):
        yield phase2a(WINDOW, 1, counter << 8 | 1, 1, VALUE)
        if counter % 12 == 0 and counter // 12 < WINDOW:
            yield phase2a(counter // 12, 1, counter << 8 | 1, 1, VALUE)


def promises_only() -> Iterator[Rows]:
    yield from in_order(WINDOW - 1)
    low = VALUES - WINDOW - 64
    for counter in range(2, VALUES):
        yield phase1a(low + counter % WINDOW, low + counter % WINDOW + 3, counter << 8 | 1, low)


def floor_only() -> Iterator[Rows]:
    yield phase2a(1, 8, 0x101, 1, VALUE)
    for counter in range(2, 2 * VALUES):
        yield phase1a(1, wire.END_OF_LOG, counter << 8 | 1, 1)


def wide_strides() -> Iterator[Rows]:
    for rows in in_order(4):
        wide = np.zeros((len(rows), wire.stride_for(200)), np.uint8)
        wide[:, : rows.shape[1]] = rows
        yield wide


def anything() -> Iterator[Rows]:
    random = Random(5)
    kinds: list[Callable[[], Iterator[Rows]]] = [low_stands_still, hot_and_cold, floor_only]
    running = [kind() for kind in kinds]
    for _ in range(VALUES):
        rows = next(random.choice(running), None)
        if rows is not None:
            yield rows


TRAFFIC = [
    one_by_one, in_batches, low_far_behind_then_near, low_stands_still, hot_and_cold,
    promises_only, floor_only, wide_strides, anything,
]  # fmt: skip


@pytest.mark.parametrize("traffic", TRAFFIC, ids=lambda traffic: traffic.__name__)
def test_disk_use_and_start_are_bounded(traffic: Callable[[], Iterator[Rows]]) -> None:
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    node = Node(disk, window=WINDOW, segment_bytes=SEGMENT)
    most = 0
    for rows in traffic():
        node.step(rows)
        on_disk = sum(len(data) for path, data in disk.files().items() if path.suffix == ".log")
        assert on_disk - node.log.disk_bytes in range(-1, 400), "but for seals"
        most = max(most, on_disk)
    assert node.log.counters["segments_deleted"] > 0, "the traffic must outgrow the bound"
    assert most <= BOUND
    node.log.close()
    assert frames_on(disk) <= FRAMES_BOUND
    expected = node.state()
    assert Node(disk, window=WINDOW, segment_bytes=SEGMENT).state() == expected


def frames_on(disk: SimulatedDisk) -> int:
    """How many frames a start reads."""
    numbers = read_contents(disk, DIRECTORY).segments
    survived = read_log(disk, DIRECTORY, numbers, Owner(**OWNER), WINDOW)
    assert isinstance(survived, tuple)
    segments: list[Segment] = survived[0]
    return sum(len(segment.scan.frames) for segment in segments)


def test_votes_in_order_are_never_copied() -> None:
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    node = Node(disk, window=WINDOW, segment_bytes=SEGMENT)
    for rows in in_batches():
        node.step(rows)
    assert node.log.counters["rolls"] > 5
    assert node.log.counters["votes_copied"] == 0
