"""Each fault bites, and is over when it has ended: seen from outside, on hosts without nodes."""

from __future__ import annotations

import errno
import random
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.chaos import faults
from bench.chaos.cluster import ChaosCluster
from bench.chaos.faults import FAULTS, Fault, NotNow, empty
from bench.chaos.hosts import Network
from bench.chaos.relay import Relay
from p4xos.tables import Address

COUNT = 60
QUIET_S = 0.2
"""After what was expected: nothing more came, as far as one can see."""
LIMIT_S = 60.0


class Got(NamedTuple):
    """What arrived."""

    numbers: list[int]
    sources: set[tuple[str, int]]
    first_after_s: float


@contextmanager
def sockets(machines: ChaosCluster, *addresses: Address) -> Iterator[list[socket.socket]]:
    """UDP sockets at these addresses, each on its host."""
    by_address = {host.address: host for host in machines.network.hosts.values()}
    with ExitStack() as stack:
        made = []
        for address in addresses:
            with by_address[address.host].entered():
                made.append(stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            made[-1].bind(address)
            made[-1].settimeout(QUIET_S)
        yield made


def sent(
    machines: ChaosCluster,
    source: Address,
    target: Address,
    count: int = COUNT,
    expected: Callable[[], int] = lambda: COUNT,
) -> Got:
    """Sends numbered datagrams; what has arrived when as many as expected have."""
    numbers: list[int] = []
    sources: set[tuple[str, int]] = set()
    first = 0.0
    with sockets(machines, source, target) as (sender, receiver):
        begun = time.monotonic()
        for number in range(count):
            sender.sendto(b"%d" % number, target)
        while True:
            try:
                data, where = receiver.recvfrom(100)
            except TimeoutError:
                late = time.monotonic() - begun > LIMIT_S
                if late or len(numbers) >= expected():
                    return Got(numbers, sources, first)
                continue
            first = first or time.monotonic() - begun
            numbers.append(int(data))
            sources.add(where)


def none() -> int:
    return 0


def roles(machines: ChaosCluster, name: str) -> dict[str, Address]:
    return {role: member.address for role, member in machines.cluster.members_of(name)}


@contextmanager
def begun(fault: Fault) -> Iterator[str]:
    told = fault.begin()
    try:
        yield told
    finally:
        fault.end()


def test_nothing_is_lost_without_a_fault(machines: ChaosCluster) -> None:
    source, target = (roles(machines, name)["learner"] for name in machines.names[:2])
    got = sent(machines, source, target)
    assert got.numbers == list(range(COUNT))
    assert got.sources == {source}


def test_loss(machines: ChaosCluster) -> None:
    fault = faults.Loss(machines, random.Random(8))
    source, target = (roles(machines, name)["learner"] for name in machines.names[:2])
    count = 250  # all fit into the buffer of a socket that nobody reads meanwhile
    with begun(fault) as told:
        assert told.startswith("40 % loss"), "another seed is needed"
        got = sent(
            machines, source, target, count, lambda: count - machines.network.counted(fault.table)
        )
    assert 0 < fault.bites < count
    assert len(got.numbers) == count - fault.bites, "what is lost is counted, and nothing else is"
    assert len(sent(machines, source, target).numbers) == COUNT


def test_a_partition_stops_all_traffic_between_its_parts(
    machines: ChaosCluster, chance: random.Random
) -> None:
    fault = faults.Partition(machines, chance)
    with begun(fault) as told:
        one, other = (part.split(", ") for part in told.partition(": ")[2].split(" | "))
        a, b = (roles(machines, part[0])["acceptor"] for part in (one, other))
        assert sent(machines, a, b, expected=none).numbers == []
        assert sent(machines, b, a, expected=none).numbers == []
        with machines.host(one[0]).entered(), pytest.raises(TimeoutError):
            socket.create_connection((b.host, 1), QUIET_S)
    assert fault.bites >= 2 * COUNT
    assert len(sent(machines, a, b).numbers) == COUNT


def test_one_way(machines: ChaosCluster, chance: random.Random) -> None:
    fault = faults.OneWay(machines, chance)
    with begun(fault) as told:
        deaf, _, loud = told.partition(" cannot hear ")
        a = roles(machines, loud.split(", ")[0])["acceptor"]
        b = roles(machines, deaf.split(", ")[0])["acceptor"]
        assert sent(machines, a, b, expected=none).numbers == []
        assert len(sent(machines, b, a).numbers) == COUNT
    assert fault.bites == COUNT


@pytest.mark.parametrize("kind", ["coordinator-acceptors", "coordinator-learners"])
def test_a_coordinator_is_cut_off_from_one_role_only(
    machines: ChaosCluster, chance: random.Random, kind: str
) -> None:
    fault = FAULTS[kind](machines, chance)
    cut, kept = ("acceptor", "learner")[:: 1 if kind == "coordinator-acceptors" else -1]
    with begun(fault) as told:
        name = told.split()[3]
        other = next(n for n in machines.names if n != name)
        own, there = roles(machines, name), roles(machines, other)
        assert sent(machines, own["coordinator"], there[cut], expected=none).numbers == []
        assert sent(machines, there[cut], own["coordinator"], expected=none).numbers == []
        assert len(sent(machines, own["coordinator"], there[kept]).numbers) == COUNT
        assert len(sent(machines, own["learner"], there[cut]).numbers) == COUNT
    assert fault.bites == 2 * COUNT


def test_delay(machines: ChaosCluster) -> None:
    fault = faults.Delay(machines, random.Random(1))
    source, target = (roles(machines, name)["acceptor"] for name in machines.names[:2])
    with begun(fault):
        delay_s = fault.figures_drawn[0]
        got = sent(machines, source, target)
    assert got.numbers == list(range(COUNT)), "a delay alone keeps the order"
    assert got.first_after_s >= delay_s
    assert got.sources == {source}, "a node knows others by their address"
    assert fault.bites == COUNT


def test_duplicates_come_twice(machines: ChaosCluster) -> None:
    fault = faults.Duplicate(machines, random.Random(3))
    source, target = (roles(machines, name)["acceptor"] for name in machines.names[:2])
    with begun(fault) as told:
        assert "100% repeated" in told, "another seed is needed"
        got = sent(machines, source, target, expected=lambda: 2 * COUNT)
    assert sorted(got.numbers) == sorted([*range(COUNT)] * 2)
    assert fault.bites == COUNT
    assert got.sources == {source}


def test_reorder(machines: ChaosCluster, chance: random.Random) -> None:
    fault = faults.Reorder(machines, chance)
    source, target = (roles(machines, name)["acceptor"] for name in machines.names[:2])
    with begun(fault):
        got = sent(machines, source, target)
    assert sorted(got.numbers) == list(range(COUNT))
    assert got.numbers != sorted(got.numbers)
    assert fault.bites > 0


def test_two_relays_at_once_do_not_send_packets_round_and_round(machines: ChaosCluster) -> None:
    source, target = (roles(machines, name)["acceptor"] for name in machines.names[:2])
    one, other = (kind(machines, random.Random(1)) for kind in (faults.Reorder, faults.Delay))
    with begun(one), begun(other):
        got = sent(machines, source, target)
    assert sorted(got.numbers) == list(range(COUNT))


def test_the_relay_lets_go_in_order_of_time() -> None:
    relay = Relay(1.0, 0.0, 0.0, 0.0, 0)
    relay.take(b"a", 0.0)
    relay.take(b"b", 0.5)
    assert relay.wait_s(0.5) == 0.5
    assert relay.due(0.9) == []
    assert relay.due(1.0) == [b"a"]
    assert relay.due(9.0) == [b"b"]
    assert relay.counts == {"relayed": 2, "repeated": 0, "overtaken": 0, "dropped": 0}


def test_datagrams_sent_by_one_call_travel_singly_when_asked(tmp_path: Path) -> None:
    with Network(["one", "two"], tmp_path) as network:
        one, two = network.hosts["one"], network.hosts["two"]
        for expected in (1, 40):
            rules = network.add_rules([f"ip saddr {one.address} counter"])
            with one.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                segment = (17, 103, (100).to_bytes(2, sys.byteorder))  # UDP_SEGMENT
                sender.sendmsg([bytes(4000)], [segment], 0, (two.address, 99))
            assert network.remove_rules(rules) == expected
            network.send_singly()


TRY = """
import os, time
print(time.time())
print(time.clock_gettime(time.CLOCK_REALTIME))
print(time.monotonic())
file = os.open({path!r}, os.O_RDWR | os.O_CREAT)
for sync in (os.fsync, os.fdatasync):
    try:
        sync(file)
        print(0)
    except OSError as error:
        print(error.errno)
"""


def tried(machines: ChaosCluster, name: str) -> list[float]:
    """What a Python that runs as a node does is told: wall clock twice, monotonic, two syncs."""
    code = TRY.format(path=str(machines.directory / "tried"))
    command = machines.pages[name].command([sys.executable, "-S", "-c", code])
    done = subprocess.run(machines.host(name).command(command), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


def test_clocks_jump_and_only_wall_clocks(machines: ChaosCluster, chance: random.Random) -> None:
    fault = faults.Clock(machines, chance)
    with begun(fault) as told:
        name, offset_s = told.split()[3], float(told.split()[6])
        before = time.time()
        wall, wall_too, monotonic, *_ = tried(machines, name)
        after = time.time()
        assert before + offset_s <= wall <= wall_too <= after + offset_s
        assert monotonic <= time.monotonic()
        other = next(n for n in machines.names if n != name)
        assert tried(machines, other)[0] >= after
    assert fault.bites >= 2
    assert abs(tried(machines, name)[0] - time.time()) < abs(offset_s) / 2 + 30


def test_syncs_fail_at_one_node_only(machines: ChaosCluster) -> None:
    one, other, *_ = machines.names
    page = machines.pages[one]
    page.fail_syncs(True)
    try:
        assert tried(machines, one)[3:] == [errno.EIO, errno.EIO]
        assert tried(machines, other)[3:] == [0, 0]
        assert page.failed_syncs == 2
    finally:
        page.fail_syncs(False)
    assert tried(machines, one)[3:] == [0, 0]


def test_a_small_disk_is_of_one_host_and_can_be_full(
    machines: ChaosCluster, chance: random.Random
) -> None:
    name = machines.small
    assert name is not None
    place = machines.data(name)
    outside = machines.cluster.data_directory(name)
    fault = faults.FullDisk(machines, chance)
    fault.filler = place / "filler"
    fault.fill()
    try:
        with pytest.raises(OSError, match="No space left"):
            (place / "more").write_bytes(bytes(4096))
    finally:
        fault.filler.unlink()
        (place / "more").unlink(missing_ok=True)
    (place / "more").write_bytes(bytes(4096))
    assert not (outside / "more").exists(), "it is mounted on its host only"
    (place / "more").unlink()


def test_a_disk_is_emptied_also_where_it_is_mounted(machines: ChaosCluster) -> None:
    assert machines.small is not None
    place = machines.data(machines.small) / "directory"
    (place / "below").mkdir(parents=True)
    (place / "below" / "file").touch()
    empty(place)
    assert list(place.iterdir()) == []
    place.rmdir()


def test_a_fault_that_finds_nothing_to_take_says_so(
    machines: ChaosCluster, chance: random.Random
) -> None:
    machines.out.update(machines.names)
    try:
        for kind in ("kill", "kill-all", "pause", "disk-full", "fsync-error", "empty-disk"):
            with pytest.raises(NotNow):
                FAULTS[kind](machines, chance).begin()
        assert machines.out == set(machines.names)
    finally:
        machines.out.clear()
