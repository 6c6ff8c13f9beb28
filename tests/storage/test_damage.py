"""Damage is never taken for records: the same ones, all but the last, or a refusal."""

from __future__ import annotations

from itertools import chain, pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import wire
from p4xos.storage import Forgetful, Restored, StorageError, create_mark
from p4xos.storage.directory import MARK_NAME, segment_path
from p4xos.storage.frames import (
    FRAME_HEADER_BYTES,
    FrameAt,
    encode_frame,
    scan,
    unpack_segment_header,
)
from p4xos.testing.disk import SimulatedCrash, SimulatedDisk
from p4xos.wire import Message
from tests.storage.helpers import (
    DIRECTORY,
    OWNER,
    Node,
    new_log,
    open_log,
    phase2a,
    promise,
    records_of,
    registers,
    reopened,
    vote,
)

FIRST = segment_path(DIRECTORY, 1)


def small_log() -> tuple[SimulatedDisk, list[list[Message]]]:
    """A log of one segment, and the records of each append."""
    disk = SimulatedDisk()
    log = new_log(disk, segment_bytes=512)
    appends = [[vote(1)], [promise(2, 0x201), registers()], [vote(2, value=b"ab")]]
    for records in appends:
        log.append(records)
    log.close()
    assert log.counters["rolls"] == 0
    return disk, [records_of(records) for records in appends]


VALUE = bytes(range(1, 256)) * 6
"""Without a zero: a frame of several sectors, none of which can be taken for one never written."""
SECTOR_BYTES = 512


def long_log() -> tuple[SimulatedDisk, list[list[Message]], range]:
    """A log whose last frame lies in several sectors; what each append held, and where that is."""
    disk = SimulatedDisk()
    log = new_log(disk, segment_bytes=4096)
    appends = [[vote(1)], [vote(2, value=VALUE[:300])], [vote(3, value=VALUE[:1200])]]
    for records in appends:
        log.append(records)
    log.close()
    assert log.counters["rolls"] == 0
    last = frames_of(disk.files()[FIRST])[-1]
    assert last.end // SECTOR_BYTES - last.offset // SECTOR_BYTES >= 2
    return disk, [records_of(records) for records in appends], range(last.offset, last.end)


def frames_of(data: bytes) -> list[FrameAt]:
    header = unpack_segment_header(data)
    return scan(data, header.salt, header.first_frame).frames


def parts_of(extent: range) -> list[slice]:
    """What of it lies in each sector."""
    bounds = range(extent.start // SECTOR_BYTES + 1, (extent.stop - 1) // SECTOR_BYTES + 1)
    cuts = [extent.start, *(SECTOR_BYTES * bound for bound in bounds), extent.stop]
    return [slice(*pair) for pair in pairwise(cuts)]


def joined(appends: list[list[Message]]) -> list[Message]:
    return list(chain.from_iterable(appends))


def rolled_log() -> SimulatedDisk:
    """A log of several segments."""
    disk = SimulatedDisk()
    log = new_log(disk)
    for instance in range(1, 9):
        log.append([vote(instance, value=b"x" * 400)])
    log.close()
    assert len(segments(disk)) >= 3
    return disk


def segments(disk: SimulatedDisk) -> list[str]:
    return sorted(path.name for path in disk.files() if path.name.startswith("segment"))


def check(disk: SimulatedDisk, appends: list[list[Message]]) -> str:
    """Opens the log; what it gives back must be true."""
    before = disk.files()
    try:
        opened = open_log(disk)
    except StorageError:
        assert disk.files() == before
        return "error"
    if isinstance(opened, Forgetful):
        assert disk.files() == before, "left as it is for the operator"
        return "forgetful"
    opened.log.close()
    found = records_of(opened.records)
    if found == joined(appends):
        return "same"
    assert found == joined(appends[:-1]), "only the last may be cut off"
    return "gone" if opened.cut is None else "cut"


def test_any_byte_of_a_log_changed() -> None:
    disk, appends = small_log()
    good = disk.files()[FIRST]
    end = scan(good, unpack_segment_header(good).salt, 1).frames
    verdicts = []
    for position in range(len(good)):
        for mask in (1 << position % 8, 0xFF):
            data = bytearray(good)
            data[position] ^= mask
            disk.put(FIRST, bytes(data))
            verdicts.append((position, check(disk, appends)))
    for position, verdict in verdicts:
        if position < end[-1].offset:
            assert verdict == "forgetful", position
        elif position < end[-1].end + FRAME_HEADER_BYTES:
            # Of zeros that were reserved, the first too: who knows what this may have been?
            assert verdict == "forgetful", position
        else:
            assert verdict == "same", position


def test_a_vote_that_was_synced_and_rots_is_not_denied() -> None:
    """docs/PROTOCOL.md, sections 2 and 3: one vote in a round, whatever its disk does to it."""
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    node = Node(disk)
    node.step(phase2a(1, 1, 0x101, 1, b"chosen"))
    node.log.close()
    good = disk.files()[FIRST]
    data = bytearray(good)
    data[frames_of(good)[-1].end - 1] ^= 1
    disk.put(FIRST, bytes(data))
    if isinstance(open_log(disk), Restored):
        disk.kill()
        [answer] = wire.messages(
            Node(disk).acceptor.step(phase2a(1, 1, 0x101, 1, b"other"), 0.0).persist[0]
        )
        pytest.fail(f"it has voted for b'chosen', and now votes for {answer.value!r}")


def test_any_byte_of_the_last_frame_changed() -> None:
    disk, appends, last = long_log()
    good = disk.files()[FIRST]
    random = Random(1)
    for position in last:
        for mask in (1 << random.randrange(8), random.randrange(1, 256), good[position]):
            data = bytearray(good)
            data[position] ^= mask
            disk.put(FIRST, bytes(data))
            assert check(disk, appends) == ("forgetful" if mask else "same"), (position, mask)


def test_any_sectors_of_the_last_frame_not_written() -> None:
    """All that a power cut can leave of it; with larger sectors, a part of these."""
    disk, appends, last = long_log()
    good = disk.files()[FIRST]
    parts = parts_of(last)
    for lost in range(1, 1 << len(parts)):
        data = bytearray(good)
        for number, part in enumerate(parts):
            if lost >> number & 1:
                data[part] = bytes(part.stop - part.start)
        disk.put(FIRST, bytes(data))
        expected = "cut" if lost + 1 < 1 << len(parts) else "gone"
        assert check(disk, appends) == expected, f"{lost:b}"


@settings(max_examples=150, deadline=None)
@given(
    st.integers(0, 600),
    st.lists(st.tuples(st.integers(0, 900), st.booleans()), min_size=1, max_size=4),
    st.randoms(use_true_random=False),
)
def test_no_power_cut_makes_an_acceptor_forgetful(
    before: int, values: list[tuple[int, bool]], random: Random
) -> None:
    """Frames anywhere, with zeros in them and without, of several rows, lost in part."""
    disk = SimulatedDisk()
    log = new_log(disk, segment_bytes=8192)
    log.append([vote(1, value=VALUE[:before])])
    last = [vote(2 + n, value=VALUE[:size] if dense else bytes(size))
            for n, (size, dense) in enumerate(values)]  # fmt: skip
    disk.crash_at = len(disk.calls) + 1
    with pytest.raises(SimulatedCrash):
        log.append(last)
    assert disk.calls[-2:] == ["write", "sync"]
    disk.crash(lambda: random.random() < 0.7)
    first = records_of([vote(1, value=VALUE[:before])])
    found = records_of(reopened(disk).records)
    assert found in (first, first + records_of(last))


def test_two_bad_records_are_more_than_a_crash_leaves() -> None:
    disk, _ = small_log()
    good = disk.files()[FIRST]
    frames = scan(good, unpack_segment_header(good).salt, 1).frames
    data = bytearray(good)
    data[frames[-2].end - 1] ^= 1
    data[frames[-1].offset] ^= 1
    disk.put(FIRST, bytes(data))
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert opened.offset == frames[-2].offset


def test_a_record_taken_out() -> None:
    disk, _ = small_log()
    good = disk.files()[FIRST]
    frames = scan(good, unpack_segment_header(good).salt, 1).frames
    disk.put(FIRST, good[: frames[1].offset] + good[frames[1].end :])
    assert isinstance(open_log(disk), Forgetful)


def test_a_log_cut_short_anywhere() -> None:
    disk, appends = small_log()
    good = disk.files()[FIRST]
    last = scan(good, unpack_segment_header(good).salt, 1).frames[-1]
    for size in range(64):
        disk.put(FIRST, good[:size])
        assert check(disk, appends) == "forgetful"
    for size in range(last.offset + 1, last.end):
        disk.put(FIRST, good[:size])
        assert check(disk, appends) == "cut"
    for size in range(last.end, len(good)):
        disk.put(FIRST, good[:size])
        assert check(disk, appends) == "same"


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.integers(0, 700))
def test_garbage_over_a_log(garbage: bytes, position: int) -> None:
    disk, appends = small_log()
    data = bytearray(disk.files()[FIRST])
    data[position : position + len(garbage)] = garbage
    disk.put(FIRST, bytes(data))
    try:
        opened = open_log(disk)
    except StorageError:
        return
    if isinstance(opened, Restored):
        found = records_of(opened.records)
        assert any(found == joined(appends[:kept]) for kept in range(4))


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 4096, b"GET / HTTP/1.1\r\n\r\n", Random(1).randbytes(4096)]
)
def test_a_file_that_is_no_segment(content: bytes) -> None:
    disk = SimulatedDisk()
    disk.put(FIRST, content)
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert (opened.path, opened.offset) == (FIRST, 0)
    assert disk.files()[FIRST] == content


def test_a_torn_tail_is_told_cut_off_and_overwritten() -> None:
    disk, appends, last = long_log()
    torn = bytearray(disk.files()[FIRST])
    part = parts_of(last)[1]
    torn[part] = bytes(part.stop - part.start)
    disk.put(FIRST, bytes(torn))
    opened = reopened(disk)
    assert opened.cut is not None
    assert str(opened.cut) == f"{FIRST}, byte {last.start}: a record torn by a crash was cut off"
    assert not any(disk.files()[FIRST][last.start :])
    opened.log.append([vote(9)])
    disk.crash(lambda: False)
    again = reopened(disk)
    assert again.cut is None
    assert records_of(again.records) == joined(appends[:-1]) + records_of([vote(9)])


@pytest.mark.parametrize(("guessed", "expected"), [(0, Forgetful), (1, Restored)])
def test_what_a_client_wrote_never_looks_like_a_record(guessed: int, expected: type) -> None:
    """A torn write may hold a value made to look like a frame; it lacks the segment's salt."""
    disk = SimulatedDisk()
    log = new_log(disk)
    [frame_header, *rest] = encode_frame([vote(3)], 3, log._salt ^ guessed)
    log.append([vote(1)])
    log.append([vote(2, value=b"".join([frame_header, *rest]))])
    log.close()
    data = bytearray(disk.files()[FIRST])
    torn = bytes(data).index(b"P4xFrame", 64 + 8)
    assert torn // SECTOR_BYTES == (torn + FRAME_HEADER_BYTES - 1) // SECTOR_BYTES
    data[torn : torn + FRAME_HEADER_BYTES] = bytes(FRAME_HEADER_BYTES)
    disk.put(FIRST, bytes(data))
    opened = open_log(disk)
    assert isinstance(opened, expected)
    if isinstance(opened, Restored):
        assert [m.instance for m in records_of(opened.records)] == [1]


@pytest.mark.parametrize("which", ["first", "middle", "last"])
def test_a_missing_segment(which: str) -> None:
    disk = rolled_log()
    names = segments(disk)
    gone = names[{"first": 0, "middle": len(names) // 2, "last": -1}[which]]
    disk.remove(DIRECTORY / gone)
    before = disk.files()
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert opened.path == DIRECTORY / gone
    assert "missing" in opened.reason
    assert disk.files() == before


def test_a_segment_under_another_name_or_of_another_log() -> None:
    disk = rolled_log()
    first, *_, last = segments(disk)
    content = disk.files()[DIRECTORY / first]
    disk.put(DIRECTORY / last, content)
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert "under another name" in opened.reason


def test_the_records_that_begin_a_segment_are_never_torn() -> None:
    """They were durable before the segment got its name, and older segments went then."""
    disk = rolled_log()
    last = DIRECTORY / segments(disk)[-1]
    data = disk.files()[last]
    header = unpack_segment_header(data)
    head = scan(data, header.salt, header.first_frame).frames[0]
    disk.put(last, data[: head.end - 8] + bytes(len(data) - head.end + 8))
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert (opened.path, opened.offset) == (last, head.offset)


def test_damage_in_a_segment_that_is_not_the_last() -> None:
    disk = rolled_log()
    first = DIRECTORY / segments(disk)[0]
    good = disk.files()[first]
    data = bytearray(good)
    header = unpack_segment_header(good)
    frame = scan(good, header.salt, header.first_frame).frames[-1]
    data[frame.end - 1] ^= 1
    disk.put(first, bytes(data))
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert (opened.path, opened.offset) == (first, frame.offset)


@pytest.mark.parametrize("name", ["segment-1.log", "segment-0000000001.log.bak", "notes.txt"])
def test_a_foreign_file(name: str) -> None:
    disk, _ = small_log()
    disk.put(DIRECTORY / name, b"?")
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert opened.path == DIRECTORY / name


def test_unfinished_files_of_a_crash_are_no_damage() -> None:
    disk, appends = small_log()
    disk.put(DIRECTORY / "segment-0000000002.log.tmp", b"half")
    assert check(disk, appends) == "same"
    assert segments(disk) == [FIRST.name]


def test_a_damaged_mark() -> None:
    disk = SimulatedDisk()
    disk.put(DIRECTORY / MARK_NAME, b"?")
    opened = open_log(disk)
    assert isinstance(opened, Forgetful)
    assert opened.path == DIRECTORY / MARK_NAME


def test_a_mark_changed_anywhere() -> None:
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    path = DIRECTORY / MARK_NAME
    good = disk.files()[path]
    changed = [good[:size] for size in range(len(good))]
    for position in range(8 * len(good)):
        data = bytearray(good)
        data[position // 8] ^= 1 << position % 8
        changed.append(bytes(data))
    for content in changed:
        disk.put(path, content)
        before = disk.files()
        opened = open_log(disk)
        assert isinstance(opened, Forgetful)
        assert disk.files() == before


def test_segments_that_are_swapped_or_written_twice() -> None:
    disk = rolled_log()
    names = [DIRECTORY / name for name in segments(disk)]
    good = {name: disk.files()[name] for name in names}
    for one in names:
        for other in names:
            if one == other:
                continue
            for first, second in ((good[other], good[one]), (good[one], good[one])):
                disk.put(one, first)
                disk.put(other, second)
                opened = open_log(disk)
                assert isinstance(opened, Forgetful), (one, other)
                assert "under another name" in opened.reason
                disk.put(one, good[one])
                disk.put(other, good[other])


def test_an_older_copy_of_any_segment_but_the_last() -> None:
    """Its end was followed by more: a seal, or the next segment's first frame, tells."""
    disk = SimulatedDisk()
    log = new_log(disk)
    older: dict[str, bytes] = {}
    for instance in range(1, 9):
        log.append([vote(instance, value=b"x" * 300)])
        for name in segments(disk):
            older.setdefault(name, disk.files()[DIRECTORY / name])
    log.close()
    tried = 0
    for name in segments(disk)[:-1]:
        now = disk.files()[DIRECTORY / name]
        frames = len(scan(now, (header := unpack_segment_header(now)).salt, header.first_frame)[0])
        then = older[name]
        if len(scan(then, header.salt, header.first_frame)[0]) == frames:
            continue
        disk.put(DIRECTORY / name, then)
        opened = open_log(disk)
        assert isinstance(opened, Forgetful)
        assert "damaged or missing" in opened.reason
        disk.put(DIRECTORY / name, now)
        tried += 1
    assert tried > 1


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_sector_of_zeros_before_the_end(sector: int) -> None:
    """What is gone is missed, as long as anything is left behind it.

    Zeros through the very end look like a log that is shorter, and one torn record, as no file can
    tell by itself: a disk that loses what it had synced there goes unnoticed.
    """
    disk = SimulatedDisk()
    log = new_log(disk, segment_bytes=4 * sector)
    appends = [[vote(instance, value=b"y" * 150)] for instance in range(1, 4 * sector // 250)]
    for records in appends:
        log.append(records)
    log.close()
    assert log.counters["rolls"] == 0
    good = disk.files()[FIRST]
    last = scan(good, unpack_segment_header(good).salt, 1).frames[-1]
    starts = range(0, last.offset - sector, sector // 2)
    assert len(starts) > 3
    for start in starts:
        disk.put(FIRST, good[:start] + bytes(sector) + good[start + sector :])
        assert check(disk, [records_of(records) for records in appends]) == "forgetful", start
