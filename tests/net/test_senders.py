"""Consensus takes messages from the cluster's members alone: real nodes, real sockets.

Each of the 15 message types is sent to each role of a node, from everywhere that is not the member
which may send it. docs/PROTOCOL.md, section 1; SECURITY.md, "Peers and the consensus network".
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import trio

from p4xos import wire
from p4xos.config import Cluster
from p4xos.driver import Directory, Driver
from p4xos.logstore import LogStore
from p4xos.node import Node
from p4xos.ports import free_addresses
from p4xos.tables import Address
from p4xos.wire import DROP_REASONS, Frame, Type
from tests.service.clusters import new_cluster, until

OURS: dict[str, tuple[Type, ...]] = {
    "acceptor": (Type.PHASE1B, Type.PHASE2B, Type.RECOVERING, Type.RECORDED),
    "coordinator": (Type.PHASE1A, Type.PHASE2A, Type.HEARTBEAT),
    "learner": (Type.REQUEST, Type.RECOVER, Type.CHECKPOINT, Type.LEARN),
}
"""Some of what the members of a role send."""


@contextmanager
def opened(cluster: Cluster, name: str) -> Iterator[Node]:
    with ExitStack() as stack:
        store = LogStore(cluster.data_directory(name) / "log", cluster.id)
        stack.callback(store.close)
        yield stack.enter_context(Node(cluster, name).open(store))


@contextmanager
def bound(address: Address) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(address)
        yield sock


def drops(driver: Driver) -> dict[str, int]:
    return {reason: count for reason, count in driver.drops.items() if count}


def message(frame: Frame, kind: int, version: int = wire.VERSION) -> bytes:
    """A message that would do harm if it were believed."""
    rows = wire.encode(
        frame.cluster, frame.group, kind, instance=7, round=0xFFFF_FF00, vround=0xFFFF_FF00,
        sender=frame.sender, low=1 << 30, value=b"forged!!",
    )  # fmt: skip
    wire.headers(rows)["version"] = version
    return rows.tobytes()


async def received(driver: Driver, count: int) -> dict[str, int]:
    """What a role has dropped, once it is so many."""
    await until(lambda: sum(driver.drops.values()) >= count)
    return drops(driver)


async def test_every_type_from_everywhere_but_its_sender(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path)
    stranger = Address("127.0.0.1", free_addresses(1)[0].port)
    with opened(cluster, "n1") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            for driver in node.drivers:
                sent = dict.fromkeys(DROP_REASONS, 0)
                for address, frames in wrong(cluster, stranger):
                    with bound(address) as sock:
                        for reason, data in frames:
                            sent[reason] += 1
                            sock.sendto(data, driver.address)
                        expected = {reason: count for reason, count in sent.items() if count}
                        assert await received(driver, sum(sent.values())) == expected
                assert all(sent.values()), "each reason has been met"
            told = node.status()
            nursery.cancel_scope.cancel()
    # None of it has reached a role: rounds, instances and lows would be far away now.
    assert told["coordinator"]["round"] < 0xFFFF_0000  # type: ignore[index]  # of this node
    assert told["learner"]["low"] == 1  # type: ignore[index]  # of this node
    assert told["learner"]["heard"] < 7  # type: ignore[index]  # of this node


def wrong(cluster: Cluster, stranger: Address) -> Iterator[tuple[Address, list[tuple[str, bytes]]]]:
    """Where something is sent from, and each datagram with the reason why it is dropped."""
    right = Frame(cluster.id, cluster.group, 1)
    every = [(kind, message(right, kind)) for kind in Type]
    assert len(every) == len(wire.Type)
    yield stranger, [("foreign_address", data) for _, data in every]
    for role, own in OURS.items():
        member = cluster.members(role)[1]  # type: ignore[arg-type]  # a role's name
        assert member.id == right.sender
        may = peers_of(cluster, member.address)
        assert set(own) <= may
        frames = [("sender", data) for kind, data in every if kind not in may]
        for kind in may:
            frames += [
                ("sender", message(right._replace(sender=2), kind)),
                ("cluster", message(right._replace(cluster=cluster.id ^ 1), kind)),
                ("cluster", message(right._replace(group=cluster.group + 1), kind)),
                ("version", message(right, kind, wire.VERSION + 1)),
                ("length", message(right, kind)[:-8]),
            ]
        frames += [("type", message(right, kind)) for kind in (0, len(Type) + 1, 255)]
        yield member.address, frames


def peers_of(cluster: Cluster, address: Address) -> set[int]:
    return set(Directory(cluster).peers[address].senders)


async def test_who_speaks_another_version_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = new_cluster(tmp_path)
    caplog.set_level(logging.WARNING)
    with opened(cluster, "n1") as node, bound(cluster.acceptors[1].address) as sock:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            later = message(Frame(cluster.id, 0, 1), Type.PHASE2B, wire.VERSION + 1)
            for _ in range(20):
                sock.sendto(later, cluster.learners[0].address)
            address = cluster.acceptors[1].address
            line = f"datagrams of version 2 from {address} are dropped: this node speaks version 1"
            await until(lambda: line in caplog.text)
            nursery.cancel_scope.cancel()
    assert caplog.text.count(line) == 1


def sockets_of_this_process() -> set[tuple[str, int]]:
    """Addresses of its TCP listeners and UDP sockets, as the kernel has them."""
    inodes = set()
    for handle in Path("/proc/self/fd").iterdir():
        try:
            inodes.add(str(handle.readlink()))
        except OSError:
            continue  # the directory's own, closed by now
    found = set()
    for table, listening in (("tcp", "0A"), ("udp", "07"), ("tcp6", "0A"), ("udp6", "07")):
        for line in Path("/proc/self/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[3] == listening and f"socket:[{columns[9]}]" in inodes:
                host, port = columns[1].rsplit(":", 1)
                packed = int(host, 16).to_bytes(len(host) // 2, "little")
                found.add((socket.inet_ntoa(packed[:4]), int(port, 16)))
    return found


async def test_a_node_binds_what_the_cluster_file_gives_it_and_nothing_else(
    tmp_path: Path,
) -> None:
    cluster = new_cluster(tmp_path)
    before = sockets_of_this_process()
    with opened(cluster, "n2") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.run)
            await until(lambda: node.pages is not None)
            own = cluster.node("n2")
            assert own.metrics is not None
            expected = {own.peer, own.metrics, *(m.address for _, m in cluster.members_of("n2"))}
            assert sockets_of_this_process() - before == {
                (each.host, each.port) for each in expected
            }
            nursery.cancel_scope.cancel()
