"""Bytes that nobody of this project sent, on every port, while clients work (docs/traps.md, 11)."""

from __future__ import annotations

import random
import socket
from collections.abc import Sequence

import pytest

from bench.store_cluster import StoreCluster
from bench.writers import connect, lost, wait_for_more, writing
from p4xos import wire
from p4xos.config import ROLE_NAMES
from p4xos.tables import Address
from p4xos.wire import Type

LIMIT_S = 30

BYTES = random.Random(11).randbytes

DATAGRAMS: Sequence[bytes] = (
    b"",
    b"\xc1",
    b"\x01",
    BYTES(39),
    BYTES(40),
    BYTES(1472),
    BYTES(65_507),
    b"\x01\x03" + bytes(38),
    b"GET / HTTP/1.1\r\n\r\n",
)
STREAMS: Sequence[bytes] = (
    b"\xc1",
    b"\r\n",
    b"$-1\r\n",
    b"*-5\r\n",
    b"*1000000000\r\n",
    b"*1\r\n$99999999999\r\n",
    b"*2\r\n$3\r\nGET\r\n$5\r\nab",
    b"GET / HTTP/1.1\r\nHost: example\r\n\r\n",
    b"\x00" * 5000,
    BYTES(5000),
    BYTES(200_000),
)


def forged(cluster: int) -> list[bytes]:
    """Good messages of every type, of this cluster, from an address that is no member's."""
    return [
        wire.encode(
            cluster, 0, kind, instance=7, round=0xFFFF_FF00, low=5, value=b"forged!!"
        ).tobytes()
        for kind in Type
    ]


def send_datagrams(store: StoreCluster) -> None:
    """To the ports of all roles."""
    datagrams = [*DATAGRAMS, *forged(store.cluster.id)]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for role in ROLE_NAMES:
            for member in store.cluster.members(role):
                for datagram in datagrams:
                    sender.sendto(datagram, member.address)


def send_stream(address: Address, data: bytes) -> bytes:
    """What a TCP server answers until it closes; a server that never does fails the test."""
    answer = b""
    with socket.create_connection(address, LIMIT_S) as connection:
        try:
            connection.sendall(data)
            connection.shutdown(socket.SHUT_WR)
            while more := connection.recv(65_536):
                answer += more
        except ConnectionError:
            pass  # it closed with our bytes unread
        except TimeoutError:
            pytest.fail(f"{address} neither answers nor closes after {data[:40]!r}")
    return answer


def test_garbage_on_every_port_ends_nothing(shared: StoreCluster) -> None:
    addresses = [shared.endpoint(name) for name in shared.names]
    with writing(addresses, "garbage") as writers:
        for _ in range(3):
            send_datagrams(shared)
            wait_for_more(writers, 10)
        for node in shared.cluster.nodes:
            for data in STREAMS:
                send_stream(node.peer, data)
        wait_for_more(writers, 10)
        for address in addresses:
            for data in STREAMS:
                send_stream(address, data)
        wait_for_more(writers, 10)
    assert all(child.running for child in shared.children.values())
    assert [writer.unknown for writer in writers] == [[], [], []]
    for address in addresses:
        assert lost(writers, address) == []
        with connect(address) as client:
            assert client.info("stats")["protocol_errors"] > 0
            assert client.info("drops")["dropped_foreign_address"] > 0
    for child in shared.children.values():
        assert "Traceback" not in child.log_text()


def test_bad_resp_is_answered_with_an_error(shared: StoreCluster) -> None:
    address = shared.endpoint(shared.names[0])
    assert send_stream(address, b"*1\r\n$99999999999\r\n").startswith(b"-ERR Protocol error")
    assert b"not HTTP" in send_stream(address, b"GET / HTTP/1.1\r\nHost: example\r\n\r\n")
