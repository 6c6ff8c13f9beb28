"""An acceptor with its log on a simulated disk, and traffic for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

from p4xos import wire
from p4xos.roles.acceptor import Acceptor
from p4xos.storage import AcceptorLog, Disk, Forgetful, Restored, create_mark
from p4xos.wire import Frame, Rows, Type

CLUSTER, GROUP, ACCEPTOR, WINDOW = 0xC0FFEE, 3, 1, 8
DIRECTORY = Path("/data/acceptor")
OWNER: dict[str, Any] = {"cluster": CLUSTER, "group": GROUP, "acceptor": ACCEPTOR}
SEGMENT_BYTES = 1024


def vote(
    instance: int, round: int = 0x101, value: bytes = b"value", room: int | None = None
) -> Rows:
    """One PHASE2B row; `room` is the stride's room for a value when it is more than needed."""
    rows = wire.encode(
        CLUSTER, GROUP, Type.PHASE2B, instance=instance, round=round, vround=round, value=value
    )
    if room is None:
        return rows
    wide = wire.new_rows(1, room)
    wide[:, : rows.shape[1]] = rows
    return wide


def promise(instance: int, round: int) -> Rows:
    """One promise without a vote."""
    return wire.encode(CLUSTER, GROUP, Type.PHASE1B, instance=instance, round=round)


def registers(low: int = 1, floor: int = 0) -> Rows:
    """One row of registers."""
    return wire.encode(CLUSTER, GROUP, Type.RECORDED, vround=floor, low=low, value=bytes(12))


def no_carry_over() -> list[Rows]:
    return [registers()]


def records_of(batches: list[Rows]) -> list[wire.Message]:
    """All records, whatever the strides they are stored with."""
    return [message for rows in batches for message in wire.messages(rows)]


def salts(seed: int = 1) -> Callable[[], int]:
    random = Random(seed)
    return lambda: random.getrandbits(32)


def open_log(
    disk: Disk,
    directory: Path = DIRECTORY,
    *,
    window: int = WINDOW,
    carry_over: Callable[[], list[Rows]] = no_carry_over,
    segment_bytes: int = SEGMENT_BYTES,
) -> Restored | Forgetful:
    return AcceptorLog.open(
        directory,
        **OWNER,
        window=window,
        carry_over=carry_over,
        segment_bytes=segment_bytes,
        disk=disk,
        draw_salt=salts(),
    )


def new_log(
    disk: Disk, directory: Path = DIRECTORY, *, segment_bytes: int = SEGMENT_BYTES
) -> AcceptorLog:
    create_mark(directory, **OWNER, disk=disk)
    opened = open_log(disk, directory, segment_bytes=segment_bytes)
    assert isinstance(opened, Restored)
    return opened.log


def reopened(disk: Disk, directory: Path = DIRECTORY) -> Restored:
    opened = open_log(disk, directory)
    assert isinstance(opened, Restored), str(opened)
    return opened


State = tuple[object, ...]


class Node:
    """The real role on a log."""

    def __init__(
        self,
        disk: Disk,
        directory: Path = DIRECTORY,
        *,
        window: int = WINDOW,
        segment_bytes: int = SEGMENT_BYTES,
    ) -> None:
        self.acceptor = Acceptor(
            frame=Frame(CLUSTER, GROUP, ACCEPTOR), acceptors=3, window=window, value_bytes=200
        )
        opened = open_log(
            disk,
            directory,
            window=window,
            carry_over=self.acceptor.carry_over,
            segment_bytes=segment_bytes,
        )
        assert isinstance(opened, Restored), str(opened)
        self.log = opened.log
        self.records = opened.records
        self.acceptor.restore(opened.records)
        self.acceptor.check_invariants()

    def step(self, rows: Rows) -> None:
        """Acts on messages and makes their records durable."""
        self.log.append(self.acceptor.step(rows.copy(), 0.0).persist)

    def state(self) -> State:
        """All that an answer can depend on."""
        a = self.acceptor
        live = np.flatnonzero((a.slot_instance >= a.low) & (a.slot_instance < a.low + a.window))
        slots = [
            (
                int(a.slot_instance[slot]),
                max(int(a.slot_round[slot]), a.floor),
                int(a.slot_vround[slot]),
                a.slot_value[slot, : a.slot_length[slot]].tobytes(),
            )
            for slot in live
        ]
        held = sorted(slot for slot in slots if slot[1] > a.floor or slot[2])
        return a.floor, a.low, a.highest, a.highest_round, a.seen, a.incarnation, tuple(held)


def phase2a(first: int, count: int, round: int, low: int, value: bytes) -> Rows:
    return np.concatenate(
        [
            wire.encode(CLUSTER, GROUP, Type.PHASE2A, instance=i, round=round, low=low, value=value)
            for i in range(first, first + count)
        ]
    )


def phase1a(first: int, end: int, round: int, low: int) -> Rows:
    return wire.encode(
        CLUSTER, GROUP, Type.PHASE1A, instance=first, round=round, low=low,
        value=wire.pack_end(end),
    )  # fmt: skip


def traffic(random: Random, steps: int, *, window: int = WINDOW) -> Iterator[Rows]:
    """Votes, votes again in higher rounds, promises of both kinds, and a `low` that moves."""
    counter, low, next = 1, 1, 1
    for _ in range(steps):
        kind = random.random()
        counter += random.random() < 0.3
        round = counter << 8 | 1
        if kind < 0.2:
            first = random.randrange(low, low + window)
            yield phase1a(first, first + random.randint(1, 3), round, low)
        elif kind < 0.25:
            yield phase1a(low, wire.END_OF_LOG, round, low)
        elif kind < 0.4:
            yield phase2a(random.randrange(low, next + 1), 1, round, low, b"again")
        else:
            count = random.randint(1, 3)
            low = max(low, next + count - window + random.randint(0, 4))
            next = max(next, low)
            yield phase2a(
                next, count, round, low, bytes([65 + counter % 26]) * random.randint(0, 90)
            )
            next += count
