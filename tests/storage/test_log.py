"""What an append keeps, what `open` gives back, and what is refused."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from itertools import chain, count
from pathlib import Path
from random import Random

import numpy as np
import pytest

from p4xos import wire
from p4xos.storage import (
    AcceptorLog,
    Forgetful,
    MemoryStorage,
    Restored,
    RoundFile,
    StorageError,
    create_mark,
)
from p4xos.storage.directory import MARK_NAME, segment_path
from p4xos.storage.disk import Buffer
from p4xos.storage.frames import unpack_segment_header
from p4xos.storage.retention import LiveVotes
from p4xos.testing.disk import SimulatedCrash, SimulatedDisk
from p4xos.wire import Rows
from tests.storage.helpers import (
    CLUSTER,
    DIRECTORY,
    OWNER,
    SEGMENT_BYTES,
    Node,
    new_log,
    no_carry_over,
    open_log,
    phase1a,
    phase2a,
    promise,
    records_of,
    registers,
    reopened,
    vote,
)

FIRST = segment_path(DIRECTORY, 1)


def marked_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    return disk


# Records ---------------------------------------------------------------------------------------


def test_records_come_back_in_order_whatever_their_strides() -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    appended: list[list[Rows]] = [
        [vote(1), promise(2, 0x201), registers(low=1)],
        [np.concatenate([vote(2), vote(3)]), vote(4, value=b"x" * 100)],
        [],
        [np.zeros((0, 40), np.uint8)],
        [promise(5, 0x301)],
    ]
    for records in appended:
        log.append(records)
    log.close()
    opened = reopened(disk)
    assert opened.cut is None
    assert records_of(opened.records) == records_of(list(chain.from_iterable(appended)))
    assert log.counters["appends"] == 3


def test_trap_14_an_append_is_one_write_and_one_sync() -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    disk.calls.clear()
    log.append([vote(1), promise(2, 0x201), vote(3, value=b"x" * 64), registers()])
    assert disk.calls == ["write", "sync"]


def test_room_that_no_value_needs_is_not_stored() -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    rows = np.concatenate([vote(1, value=b"a", room=1400), vote(2, value=b"bcd", room=1400)])
    kept = rows.copy()
    log.append([rows])
    log.close()
    stored = reopened(disk).records[0]
    assert stored.shape == (2, wire.stride_for(3))
    assert wire.messages(stored) == wire.messages(rows)
    assert (rows == kept).all(), "the caller's rows are not touched"


def test_many_small_appends_come_back_in_few_arrays() -> None:
    disk = SimulatedDisk()
    log = new_log(disk, segment_bytes=1 << 16)
    for instance in range(1, 200):
        log.append([vote(instance)])
    log.close()
    assert [len(rows) for rows in reopened(disk).records] == [199]


def test_an_append_larger_than_a_segment_is_taken() -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    rows = np.concatenate([vote(i, value=b"x" * 1000) for i in range(1, 7)])
    assert rows.nbytes > 4 * SEGMENT_BYTES
    log.append([rows])
    log.append([vote(7)])
    log.close()
    messages = records_of(reopened(disk).records)
    assert [m.instance for m in messages if m.type == wire.Type.PHASE2B] == [*range(1, 8)]


def test_an_append_of_very_many_arrays_is_taken() -> None:
    disk = SimulatedDisk()
    log = new_log(disk, segment_bytes=1 << 18)
    log.append([vote(i) for i in range(1, 1500)])
    log.close()
    assert [m.instance for m in records_of(reopened(disk).records)] == [*range(1, 1500)]


def test_a_promise_that_a_rolling_append_turns_into_a_vote_is_in_one_write_with_it() -> None:
    """The promise has left `carry_over`; its old segment may only go together with the vote."""

    def work(disk: SimulatedDisk) -> int:
        """Ends with the append that rolls; returns the number of calls before it."""
        node = Node(disk)
        node.step(phase1a(1, 2, 0x901, 1))
        for counter in count(2):
            if node.log._used + 300 > node.log._limit:
                break
            node.step(phase1a(5, 6, counter << 8 | 1, 1))
        before = len(disk.calls)
        node.step(phase2a(1, 1, 0x901, 1, b"x" * 180))
        assert 1 not in [m.instance for m in records_of(node.acceptor.carry_over()[1:])]
        assert node.log.counters["segments_deleted"] == 1
        return before

    disk = marked_disk()
    before = work(disk)
    for index in range(before, len(disk.calls)):
        for seed in range(8):
            crashed = marked_disk()
            crashed.crash_at = index
            with pytest.raises(SimulatedCrash):
                work(crashed)
            crashed.crash_randomly(Random(seed))
            assert Node(crashed).acceptor.slot_round[1] == 0x901, "an answered promise is gone"


def test_promises_and_registers_outlive_the_segments_they_were_written_to() -> None:
    """docs/PROTOCOL.md, section 3: persisted are floor, slot rounds, votes, seen and low."""
    disk = marked_disk()
    node = Node(disk)
    node.step(phase1a(1, wire.END_OF_LOG, 0x201, 1))
    node.step(phase2a(1, 1, 0x301, 1, b"cold"))
    node.step(phase1a(1, 4, 0x9901, 1))
    for counter in range(4, 150):  # low never moves, one instance is voted on again and again
        node.step(phase2a(5, 1, counter << 8 | 1, 1, b"hot" * 20))
    assert node.log.counters["segments_deleted"] > 5
    expected = node.state()
    assert node.acceptor.carry_over()[1:], "there are promises to lose"
    disk.crash(lambda: False)
    assert Node(disk).state() == expected


def test_what_a_roll_carries_lies_behind_the_votes_it_copies() -> None:
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    opened = open_log(disk, carry_over=lambda: [registers(), promise(1, 0x901)])
    assert isinstance(opened, Restored)
    opened.log.append([vote(1, 0x101)])
    counter = 1
    while not opened.log.counters["votes_copied"]:
        counter += 1
        opened.log.append([vote(2, counter << 8, b"hot" * 20)])
    opened.log.close()
    about_one = [m.round for m in records_of(reopened(disk).records) if m.instance == 1]
    assert about_one[-1] == 0x901
    assert 0x101 in about_one


def test_of_an_instance_only_the_newest_vote_is_copied() -> None:
    votes = LiveVotes(8)
    segment = [np.concatenate([vote(1, 0x101), vote(1, 0x201), vote(2)]), vote(1, 0x301, b"x" * 9)]
    votes.note(segment, 1, 400)
    votes.note([vote(2, 0x401)], 2, 100)
    copied = records_of(votes.select(segment, 1))
    assert [(m.instance, m.round) for m in copied] == [(1, 0x301)]
    assert votes.live_bytes(1, 2).tolist() == [100, 100]


def test_a_roll_that_deletes_several_segments_never_leaves_a_hole() -> None:
    def work(disk: SimulatedDisk) -> None:
        log = new_log(disk)
        for instance in range(1, 9):
            log.append([vote(instance, value=b"x" * 400)])
        assert log.counters["segments_deleted"] == 0
        log.append([registers(low=9)])
        for instance in range(9, 12):
            log.append([vote(instance, value=b"x" * 400)])

    disk = SimulatedDisk()
    work(disk)
    removals = [index for index, call in enumerate(disk.calls) if call == "unlink"][1:]
    assert removals[1] - removals[0] <= 2, "several go in one roll"
    for index in range(removals[0], removals[-1] + 2):
        for seed in range(8):
            disk = SimulatedDisk()
            disk.crash_at = index
            with pytest.raises(SimulatedCrash):
                work(disk)
            disk.crash_randomly(Random(seed))
            reopened(disk)


# The log stops ---------------------------------------------------------------------------------


@pytest.mark.parametrize("call", [0, 1], ids=["write", "sync"])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_after_an_error_every_append_raises_and_nothing_is_tried_again(
    call: int, number: int
) -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    disk.calls.clear()
    disk.failures[call] = number
    with pytest.raises(StorageError, match=str(FIRST)) as raised:
        log.append([vote(1)])
    assert "start" in raised.value.remedy
    calls = list(disk.calls)
    for _ in range(2):
        with pytest.raises(StorageError, match="takes no more records"):
            log.append([vote(2)])
    assert disk.calls == calls
    log.close()


def test_trap_10_a_full_disk_is_named_and_what_was_durable_is_kept() -> None:
    """docs/traps.md, 10."""
    disk = SimulatedDisk()
    log = new_log(disk)
    disk.capacity_bytes = sum(map(len, disk.files().values())) + SEGMENT_BYTES // 2
    appended = 0
    with pytest.raises(StorageError, match=r"No space left.*free some space"):  # noqa: PT012 - whichever call fails
        for instance in range(1, 1000):
            log.append([vote(instance)])
            appended = instance
    disk.crash(lambda: False)
    disk.capacity_bytes = None
    opened = reopened(disk)
    assert [m.instance for m in records_of(opened.records)] == [*range(1, appended + 1)]
    opened.log.append([vote(appended + 1)])


def test_a_write_that_the_disk_takes_in_pieces_is_completed() -> None:
    class Pieces(SimulatedDisk):
        def write(self, handle: int, buffers: Sequence[Buffer], offset: int) -> int:
            data = b"".join(buffers)
            return super().write(handle, [data[:100]], offset)

    disk = Pieces()
    log = new_log(disk)
    log.append([vote(1, value=b"x" * 500)])
    log.close()
    assert records_of(reopened(disk).records)[0].value == b"x" * 500


def test_a_closed_log_takes_nothing() -> None:
    log = new_log(SimulatedDisk())
    log.close()
    log.close()
    with pytest.raises(StorageError, match="closed"):
        log.append([vote(1)])


# Whose directory it is -------------------------------------------------------------------------


def test_an_empty_or_missing_directory_is_that_of_an_acceptor_that_forgot() -> None:
    """docs/PROTOCOL.md, sections 3 and 8; docs/traps.md, 9."""
    disk = SimulatedDisk()
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert "there is no log" in str(opened)
    assert isinstance(open_log(disk), Forgetful), "asking changes nothing"


def test_the_mark_is_used_once() -> None:
    disk = SimulatedDisk()
    new_log(disk).close()
    assert DIRECTORY / MARK_NAME not in disk.files()
    disk.remove(FIRST)
    assert isinstance(open_log(disk), Forgetful)


def test_the_mark_is_refused_where_something_is() -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    with pytest.raises(StorageError, match="in use"):
        create_mark(DIRECTORY, **OWNER, disk=disk)
    log.close()
    with pytest.raises(StorageError, match="already holds an acceptor's log"):
        create_mark(DIRECTORY, **OWNER, disk=disk)
    disk = marked_disk()
    with pytest.raises(StorageError, match="already holds an acceptor's mark"):
        create_mark(DIRECTORY, **OWNER, disk=disk)
    disk = SimulatedDisk()
    disk.put(DIRECTORY / "holiday.jpg", b"")
    with pytest.raises(StorageError, match=r"holiday\.jpg"):
        create_mark(DIRECTORY, **OWNER, disk=disk)


@pytest.mark.parametrize("field", ["cluster", "group", "acceptor"])
@pytest.mark.parametrize("with_log", [False, True])
def test_the_directory_of_another_is_an_error_and_stays_as_it_is(
    field: str, with_log: bool
) -> None:
    disk = marked_disk()
    create_mark(DIRECTORY / "other", **(OWNER | {field: 9}), disk=disk)
    if with_log:
        reopened(disk).log.close()
    before = disk.files()
    other = OWNER | {field: 9}
    with pytest.raises(StorageError, match=r"was found, .*9.* was expected; give each"):
        AcceptorLog.open(DIRECTORY, **other, window=8, carry_over=no_carry_over, disk=disk)
    if not with_log:
        with pytest.raises(StorageError, match="was expected"):
            MemoryStorage.open(DIRECTORY, **other, disk=disk)
    assert disk.files() == before


def test_another_window_or_a_later_format_is_an_error() -> None:
    disk = SimulatedDisk()
    new_log(disk).close()
    with pytest.raises(StorageError, match=r"window of 8 .* 16 was expected; set the window back"):
        open_log(disk, window=16)
    data = disk.files()[FIRST]
    later = unpack_segment_header(data)._replace(version=2).pack()
    disk.put(FIRST, later + data[len(later) :])
    with pytest.raises(StorageError, match="format version 2 was found, version 1 was expected"):
        open_log(disk)


def test_two_users_of_a_directory() -> None:
    disk = SimulatedDisk()
    log = new_log(disk)
    with pytest.raises(StorageError, match="in use"):
        open_log(disk)
    with pytest.raises(StorageError, match="in use"):
        MemoryStorage.open(DIRECTORY, **OWNER, disk=disk)
    log.close()
    reopened(disk)


# Acceptors that forgot -------------------------------------------------------------------------


def begin(disk: SimulatedDisk) -> AcceptorLog:
    return AcceptorLog.begin(
        DIRECTORY, **OWNER, window=8, carry_over=lambda: [registers(low=77)], disk=disk
    )


def test_a_forgetful_acceptor_that_joined_begins_with_its_registers() -> None:
    """docs/PROTOCOL.md, section 8."""
    disk = SimulatedDisk()
    assert isinstance(open_log(disk), Forgetful)
    log = begin(disk)
    log.append([vote(78)])
    disk.crash(lambda: False)
    messages = records_of(reopened(disk).records)
    assert [(m.low, m.instance) for m in messages] == [(77, 0), (0, 78)]


def test_a_new_log_never_begins_over_an_old_one() -> None:
    disk = SimulatedDisk()
    new_log(disk).close()
    before = disk.files()
    with pytest.raises(StorageError, match="move it away"):
        begin(disk)
    assert disk.files() == before


def test_memory_mode_forgets() -> None:
    """docs/traps.md, 9."""
    disk = marked_disk()
    first = MemoryStorage.open(DIRECTORY, **OWNER, disk=disk)
    assert isinstance(first, MemoryStorage)
    first.append([vote(1)])
    assert first.counters["rows"] == 1
    first.close()
    again = MemoryStorage.open(DIRECTORY, **OWNER, disk=disk)
    assert isinstance(again, Forgetful)
    assert isinstance(open_log(disk), Forgetful), "nor is it new in durable mode"
    MemoryStorage.begin(DIRECTORY, disk=disk).close()


def test_memory_mode_is_refused_over_a_durable_log() -> None:
    disk = SimulatedDisk()
    new_log(disk).close()
    with pytest.raises(StorageError, match="durable"):
        MemoryStorage.open(DIRECTORY, **OWNER, disk=disk)


# The coordinator's round -----------------------------------------------------------------------

ROUND = Path("/data/coordinator/round")


def round_file(disk: SimulatedDisk, coordinator: int = 2) -> RoundFile:
    return RoundFile(ROUND, cluster=CLUSTER, group=1, coordinator=coordinator, disk=disk)


def test_the_last_round_is_kept() -> None:
    """docs/PROTOCOL.md, section 4; docs/traps.md, 8."""
    disk = SimulatedDisk()
    file = round_file(disk)
    assert file.read() == 0
    file.write(0x102)
    file.write(0x302)
    disk.crash(lambda: False)
    again = round_file(disk)
    assert again.read() == 0x302
    with pytest.raises(ValueError, match="only grow"):
        again.write(0x202)


def test_a_round_file_changed_anywhere_is_never_another_round() -> None:
    disk = SimulatedDisk()
    round_file(disk).write(0x302)
    good = disk.files()[ROUND]
    damaged = [good[:size] for size in range(len(good))] + [good + b"\0"]
    for position in range(8 * len(good)):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        damaged.append(bytes(data))
    for content in damaged:
        disk.put(ROUND, content)
        with pytest.raises(StorageError, match="damaged; check the disk, then remove this file"):
            round_file(disk).read()


def test_the_round_of_another_coordinator_is_an_error() -> None:
    disk = SimulatedDisk()
    round_file(disk).write(0x302)
    with pytest.raises(StorageError, match=r"coordinator 2 .* coordinator 1 .* was expected"):
        round_file(disk, coordinator=1).read()


def test_a_round_that_cannot_be_written_is_an_error() -> None:
    disk = SimulatedDisk()
    for call, number in ((1, errno.ENOSPC), (2, errno.EIO)):
        disk.calls.clear()
        disk.failures = {call: number}
        with pytest.raises(StorageError, match=str(ROUND)):
            round_file(disk).write(0x302)
