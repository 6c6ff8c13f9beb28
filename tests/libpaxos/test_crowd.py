"""Thousands of connections to one gateway, a process of its own: their cost, and who waits.

`make test` takes LIBPAXOS_CONNECTIONS = 1000 of them, `make crowd` ten thousand.
"""

from __future__ import annotations

import io
import os
import resource
import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgpack
import pytest

from p4xos import inquiries
from p4xos.compat.libpaxos.connection import OUTPUT_BYTES
from p4xos.compat.libpaxos.gateway import CONNECTIONS_MAX
from p4xos.compat.libpaxos.messages import encode_accepted
from p4xos.compat.libpaxos.packs import Values
from p4xos.compat.libpaxos.serving import RESERVED_DESCRIPTORS, connections_of
from p4xos.compat.libpaxos.store import TAIL_BYTES
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME
from p4xos.tables import Address
from tests.libpaxos.launched import PATIENCE_S, POLL_S, Launched, launched
from tests.libpaxos.peers import packed

CONNECTIONS = int(os.environ.get("LIBPAXOS_CONNECTIONS", "1000"))
VALUES = 100
"""Each told to all of them."""
IDLE_BYTES_MAX = 16 << 10
"""Of the gateway's memory for a connection that has nothing to say: 2 to 3 KiB were seen."""
TAKERS, IDLERS = 16, 24
LARGE_BYTES = 64 << 10
LARGE_VALUES = 160
"""Of LARGE_BYTES: more than what all buffers of a connection hold."""


@pytest.fixture(autouse=True)
def descriptors() -> Iterator[None]:
    """Of this process, which has the other end of each connection."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = CONNECTIONS + RESERVED_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.fail(
            f"this process may have {hard} descriptors, {CONNECTIONS} connections take {wanted}: "
            "raise the limit (ulimit -Hn), or lower LIBPAXOS_CONNECTIONS"
        )
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_bytes(pid: int) -> int:
    status = Path(f"/proc/{pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) << 10


def status_of(cluster: Launched) -> dict[str, Any]:
    found = inquiries.status(Cluster.load(cluster.directory / "paxos-data" / CLUSTER_NAME))
    node: Any = found["n1"]
    told = node["libpaxos"]
    assert isinstance(told, dict)
    return told


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(POLL_S)


@contextmanager
def connected(address: Address, count: int) -> Iterator[list[socket.socket]]:
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(address, PATIENCE_S))
            for _ in range(count)
        ]  # fmt: skip


def heard_by(connections: list[socket.socket], size: int) -> bytes:
    """What all of them are told, so many bytes, beside their acceptor's state."""
    state = packed(7, 0, 0)
    by_descriptor = {connection.fileno(): connection for connection in connections}
    told = {descriptor: bytearray() for descriptor in by_descriptor}
    all_heard: set[bytes] = set()
    end = time.monotonic() + PATIENCE_S
    with select.epoll() as poll:
        for descriptor in told:
            poll.register(descriptor, select.EPOLLIN)
        while told:
            assert time.monotonic() < end, f"{len(told)} connections are not told all"
            for descriptor, _ in poll.poll(1):
                data = by_descriptor[descriptor].recv(1 << 20)
                assert data, "a connection was closed"
                told[descriptor] += data
                heard = bytes(told[descriptor]) if len(told[descriptor]) >= size else b""
                heard = heard.replace(state, b"")
                if len(heard) >= size:
                    all_heard.add(heard)
                    poll.unregister(descriptor)
                    del told[descriptor]
    (heard,) = all_heard
    return heard


def size_of(values: list[bytes]) -> int:
    lengths = b"".join(len(value).to_bytes(4) for value in values)
    return len(encode_accepted((0,), Values(1, lengths, b"".join(values))))


def test_thousands_of_connections(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Idle they cost little; a value reaches all; those that take nothing hold nobody up."""
    with launched(tmp_path, nodes=1) as cluster:
        cluster.launch()
        acceptor = cluster.conf.acceptors[0]
        node = cluster.node("n1")
        before = resident_bytes(node)
        with connected(acceptor, CONNECTIONS) as crowd:
            until(lambda: status_of(cluster)["learners"] == CONNECTIONS, "not all are connected")
            until(lambda: status_of(cluster)["learners_behind"] == 0, "some are no learners yet")
            idle = (resident_bytes(node) - before) / CONNECTIONS
            assert idle < IDLE_BYTES_MAX
            # One of a hundred submits, each from its own connection; all are told all of it.
            began = time.monotonic()
            values = [b"value %03d" % k for k in range(VALUES)]
            for value, connection in zip(values, crowd, strict=False):
                connection.sendall(packed(8, value))
            heard = heard_by(crowd, size_of(values))
            told_s = time.monotonic() - began
            messages = list(msgpack.Unpacker(io.BytesIO(heard)))
            assert [message[2] for message in messages] == list(range(1, VALUES + 1))
            assert sorted(message[5] for message in messages) == values
        until(lambda: status_of(cluster)["connections"] == 0, "connections that left are kept")
        with capsys.disabled():
            print(
                f"\n{CONNECTIONS} connections: {idle:.0f} bytes each; {VALUES * CONNECTIONS} "
                f"values told in {told_s:.2f} s"
            )


def test_those_who_take_nothing_cost_a_bounded_amount(tmp_path: Path) -> None:
    """Some of them do not read; the others are told everything."""
    with launched(tmp_path, nodes=1) as cluster:
        cluster.launch()
        node = cluster.node("n1")
        with connected(cluster.conf.acceptors[0], TAKERS + IDLERS) as crowd:
            until(lambda: status_of(cluster)["learners_behind"] == 0, "some are no learners yet")
            before = resident_bytes(node)
            readers = crowd[IDLERS:]
            with connected(cluster.conf.proposers[0], 1) as (client,):
                values = [bytes((k,)) * LARGE_BYTES for k in range(LARGE_VALUES)]
                for value in values:
                    client.sendall(packed(8, value))
                heard_by(readers, size_of(values))
            assert status_of(cluster)["learners_behind"] == IDLERS
            grown = resident_bytes(node) - before
            # The log's own part comes on top, of 60 to 75 MiB: the acceptor's ring, the newest
            # values, what RocksDB gathers. All values kept for each idler would be far more.
            bound = IDLERS * 2 * OUTPUT_BYTES + 16 * TAIL_BYTES
            assert grown < bound < IDLERS * LARGE_VALUES * LARGE_BYTES
            assert status_of(cluster)["counters"]["stalled"] == 0


def test_a_gateway_leaves_descriptors_for_its_node() -> None:
    assert connections_of(resource.RLIM_INFINITY) == CONNECTIONS_MAX
    assert connections_of(1 << 20) == CONNECTIONS_MAX
    assert connections_of(4096) == 4096 - RESERVED_DESCRIPTORS
    assert connections_of(256) == 128
