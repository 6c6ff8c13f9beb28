"""A crash within any call: everything that an append returned for is found again."""

from __future__ import annotations

import errno
from random import Random

import pytest

from p4xos.storage import Forgetful, MemoryStorage, Restored, RoundFile, StorageError, create_mark
from p4xos.testing.disk import SimulatedCrash, SimulatedDisk
from tests.storage.helpers import DIRECTORY, OWNER, Node, State, open_log, traffic

STEPS = 40


def run(disk: SimulatedDisk, states: list[State], seed: int) -> None:
    """Starts an acceptor and lets it work; `states` is after each durable step."""
    node = Node(disk)
    states.append(node.state())
    for rows in traffic(Random(seed), STEPS):
        effects = node.acceptor.step(rows.copy(), 0.0)
        states.append(node.state())  # may be found: it is only promised once the append returns
        node.log.append(effects.persist)
        states.append(node.state())  # must be found
    node.log.close()


def marked_disk() -> SimulatedDisk:
    disk = SimulatedDisk()
    create_mark(DIRECTORY, **OWNER, disk=disk)
    disk.calls.clear()
    return disk


def allowed(states: list[State]) -> list[State]:
    """The last durable state, and that of an append under way."""
    return states[-2:] if len(states) % 2 == 0 else states[-1:]


@pytest.mark.parametrize("seed", range(3))
def test_a_crash_in_any_call_loses_nothing_that_was_durable(seed: int) -> None:
    disk = marked_disk()
    run(disk, [], seed)
    calls = disk.calls
    assert calls.count("unlink") > 3, "the workload must roll and delete"
    for index in range(len(calls)):
        random = Random(index)
        disk = marked_disk()
        disk.crash_at = index
        states: list[State] = []
        with pytest.raises(SimulatedCrash):
            run(disk, states, seed)
        disk.crash_randomly(random)
        node = Node(disk)
        if states:
            assert node.state() in allowed(states), f"crash in call {index}, {calls[index]}"
        # What was found is durable by now, the torn record is gone, and the log goes on.
        found = node.state()
        disk.crash(lambda: False)
        node = Node(disk)
        assert node.state() == found
        for rows in traffic(random, 3):
            node.step(rows)
        expected = node.state()
        disk.crash_randomly(random)
        assert Node(disk).state() == expected


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_an_error_in_any_call_stops_the_log_and_loses_nothing(number: int) -> None:
    disk = marked_disk()
    run(disk, [], 7)
    calls = disk.calls
    for index in range(len(calls)):
        disk = marked_disk()
        disk.failures[index] = number
        states: list[State] = []
        with pytest.raises(StorageError, match=r"space|Input/output"):
            run(disk, states, 7)
        disk.kill()  # the process ends; what it failed to sync is still in memory
        node = Node(disk)
        if states:
            assert node.state() in allowed(states), f"error in call {index}, {calls[index]}"
        found = node.state()
        disk.crash(lambda: False)
        assert Node(disk).state() == found, "what was read back was not on the disk"


def test_the_first_start_is_safe_in_any_call() -> None:
    disk = marked_disk()
    opened = open_log(disk)
    assert isinstance(opened, Restored)
    for index in range(len(disk.calls)):
        for seed in range(8):
            disk = marked_disk()
            disk.crash_at = index
            with pytest.raises(SimulatedCrash):
                open_log(disk)
            disk.crash_randomly(Random(seed))
            assert isinstance(open_log(disk), Restored), "neither stuck nor forgetful"


def test_the_making_of_a_mark_can_be_done_again_after_a_crash() -> None:
    for index in range(4):
        disk = SimulatedDisk()
        disk.crash_at = index
        with pytest.raises(SimulatedCrash):
            create_mark(DIRECTORY, **OWNER, disk=disk)
        disk.crash_randomly(Random(index))
        if isinstance(open_log(disk), Forgetful):
            create_mark(DIRECTORY, **OWNER, disk=disk)
            assert isinstance(open_log(disk), Restored)


def test_a_memory_acceptor_never_starts_twice_as_new() -> None:
    """docs/PROTOCOL.md, section 8."""
    for seed in range(8):
        disk = marked_disk()
        assert isinstance(MemoryStorage.open(DIRECTORY, **OWNER, disk=disk), MemoryStorage)
        disk.crash_randomly(Random(seed))
        assert isinstance(MemoryStorage.open(DIRECTORY, **OWNER, disk=disk), Forgetful)


def test_a_round_that_was_written_is_found_after_a_crash_in_any_call() -> None:
    """docs/traps.md, 8."""
    path = DIRECTORY / "round"
    for index in range(12):
        disk = SimulatedDisk()
        file = RoundFile(path, cluster=1, group=2, coordinator=3, disk=disk)
        disk.crash_at = index
        written = [0]
        with pytest.raises(SimulatedCrash):  # noqa: PT012 - whichever call fails
            for counter in range(1, 9):
                written.append(counter << 8 | 3)
                file.write(written[-1])
        disk.crash_randomly(Random(index))
        again = RoundFile(path, cluster=1, group=2, coordinator=3, disk=disk)
        assert again.read() in written[-2:]
