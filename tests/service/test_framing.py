"""Garbage on the TCP port is answered, counted, and ends nothing else (docs/traps.md, 11)."""

from __future__ import annotations

import contextlib
import struct
from pathlib import Path

import msgpack
import numpy as np
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p4xos import framing, service
from p4xos.client import Client
from p4xos.effects import Chosen
from p4xos.errors import BadPacket
from p4xos.framing import FrameStream, decode_head_untrusted, encode_frame
from p4xos.packing import (
    pack_chosen,
    pack_delivered,
    pack_payloads,
    pack_runs,
    split_chosen,
    split_payloads,
    unpack_chosen_untrusted,
    unpack_delivered_untrusted,
    unpack_instances_untrusted,
    unpack_payloads_untrusted,
    unpack_runs_untrusted,
)
from p4xos.remote_errors import raise_error_untrusted
from p4xos.service import ListenFailed, listen
from p4xos.tables import Address
from tests.service.clusters import Nodes, running, until

HELLO = {"ask": "hello", "version": service.OPEN_VERSION, "cluster": 0, "peer": False}

# Pure parts --------------------------------------------------------------------------------------


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_in_one_way(data: bytes) -> None:
    for read in (
        decode_head_untrusted, unpack_payloads_untrusted, unpack_delivered_untrusted,
        unpack_chosen_untrusted, unpack_runs_untrusted, unpack_instances_untrusted,
    ):  # fmt: skip
        with contextlib.suppress(BadPacket):
            read(data)


@pytest.mark.parametrize("key", [[], {}, [1]])
def test_a_head_with_a_key_that_is_a_list_is_refused(key: object) -> None:
    """msgpack raises TypeError for it, which none of its errors is."""
    with pytest.raises(BadPacket, match="not msgpack"):
        decode_head_untrusted(b"\x81" + msgpack.packb(key) + b"\x01")


@given(st.dictionaries(st.text(max_size=8), st.one_of(st.integers(0, 2**64), st.text(), st.none())))
def test_any_error_head_is_an_error_or_refused(head: dict[str, object]) -> None:
    for name in ("Trimmed", "NoQuorum", "Overloaded", "SessionLost", "NotDelivered", "?", 7):
        with pytest.raises(Exception) as raised:
            raise_error_untrusted({**head, "error": name})
        assert raised.type.__module__.startswith("p4xos.")


@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(1, 40), st.integers(1, 500))
def test_payloads_come_back(payloads: list[bytes], values_max: int, bytes_max: int) -> None:
    assert unpack_payloads_untrusted(pack_payloads(payloads)) == payloads
    delivered = list(enumerate(payloads, 7))
    assert unpack_delivered_untrusted(pack_delivered(delivered)) == delivered
    parts = list(split_payloads(payloads, values_max, bytes_max))
    assert [payload for part in parts for payload in part] == payloads
    assert all(len(part) <= values_max for part in parts)
    assert all(len(part) == 1 or sum(map(len, part)) <= bytes_max for part in parts)


@given(st.lists(st.binary(max_size=50), min_size=1, max_size=40), st.integers(1, 500))
def test_chosen_values_come_back(values: list[bytes], bytes_max: int) -> None:
    width = max(map(len, values))
    rows = np.zeros((len(values), width), np.uint8)
    for row, value in enumerate(values):
        rows[row, : len(value)] = np.frombuffer(value, np.uint8)
    chosen = Chosen(5, rows, np.array([len(value) for value in values]))
    parts = split_chosen(chosen, bytes_max)
    back = unpack_runs_untrusted(pack_runs(parts))
    found = [
        (run.instance + k, run.values[k, :length].tobytes())
        for run in back
        for k, length in enumerate(run.lengths.tolist())
    ]
    assert found == list(enumerate(values, 5))
    whole = unpack_chosen_untrusted(pack_chosen(chosen))
    assert (whole.values == rows).all()


def test_a_few_bytes_do_not_unfold_into_gigabytes() -> None:
    lengths = np.zeros(65536, ">u4")
    lengths[0] = 60_000
    data = struct.pack(">QI", 1, len(lengths)) + lengths.tobytes() + bytes(60_000)
    with pytest.raises(BadPacket):
        unpack_chosen_untrusted(data)


# On the port -------------------------------------------------------------------------------------

GARBAGE = [
    b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"\xc1",  # docs/traps.md, 11
    b"\x00" * 64,
    b"\xff" * 4096,
    struct.pack(">II", 1, 0) + b"\xc1",
    struct.pack(">II", 1, 0) + b"\xc0",
    struct.pack(">II", framing.HEAD_BYTES_MAX + 1, 0),
    struct.pack(">II", 5, framing.BODY_BYTES_MAX + 1) + b"12345",
    encode_frame({"ask": "hello"}),
    encode_frame({"ask": "deliver", "first": 1}),
    encode_frame({**HELLO, "version": "1"}),
    encode_frame(HELLO) + encode_frame({"ask": "nothing"}),
    encode_frame(HELLO) + encode_frame({"ask": "submit", "id": 1}, b"\xff\xff\xff\xff"),
    encode_frame(HELLO) + encode_frame({"ask": "submit", "id": -1}, b"\x00\x00\x00\x00"),
    encode_frame(HELLO) + encode_frame({"ask": "recover", "id": 1, "instance": "x"}),
    encode_frame(HELLO) + encode_frame({"ask": "tail", "first": 0}),
    encode_frame(HELLO) + encode_frame({"ask": "piece", "copy": 0, "name": 5, "offset": 0}),
    encode_frame(HELLO)
    + encode_frame({"ask": "deliver", "first": 1})
    + encode_frame({"ask": "deliver", "first": 1}),
    encode_frame(HELLO) + struct.pack(">II", 100, 0) + b"half",
]


async def answer_to(nodes: Nodes, data: bytes) -> bytes:
    """All that the node says to these bytes, until it closes."""
    address = nodes.cluster.nodes[0].peer
    stream = await trio.open_tcp_stream(address.host, address.port)
    answer = b""
    async with stream:
        await stream.send_all(data)
        await stream.send_eof()
        with trio.fail_after(20):
            try:
                while more := await stream.receive_some():
                    answer += more
            except trio.BrokenResourceError:
                pass
    return answer


async def test_garbage_is_answered_closed_and_counted(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1, sealed=False) as nodes:
        served = nodes.running["n1"].service
        assert served is not None
        for data in GARBAGE:
            bad = served.counters["bad_frames"]
            answer = await answer_to(nodes, data)
            assert served.counters["bad_frames"] == bad + 1, data
            assert b"BadPacket" in answer, data
        for data in (b"", encode_frame(HELLO), encode_frame(HELLO)[:-1], b"\x00"):
            await answer_to(nodes, data)
        await until(lambda: served.connections == 0)
        assert served.clients == 0
        assert served.counters["failed_connections"] == 0
        async with Client.connect(nodes.cluster) as client:  # and all is well
            assert await client.submit(b"value")


async def test_random_requests(tmp_path: Path) -> None:
    """Requests of the right names with anything else in them."""
    values: list[object] = [None, -1, 0, 1, 2**64 - 1, "", "x", b"y", [], {}, 1.5, True]
    names = ["submit", "recover", "status", "deliver", "tail", "copy", "piece", "hello"]
    fields = ["id", "instance", "first", "above", "copy", "name", "offset"]
    chance = np.random.default_rng(7)
    async with running(tmp_path, nodes=1, sealed=False) as nodes:
        served = nodes.running["n1"].service
        assert served is not None
        for _ in range(150):
            head = {"ask": names[chance.integers(len(names))]}
            picked = {field: values[chance.integers(len(values))] for field in fields}
            packed = msgpack.packb({**picked, **head})
            body = chance.bytes(int(chance.integers(30)))
            frame = struct.pack(">II", len(packed), len(body)) + packed + body
            await answer_to(nodes, encode_frame(HELLO) + frame)
        assert served.counters["failed_connections"] == 0
        async with Client.connect(nodes.cluster) as client:
            assert await client.submit(b"value")


async def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many connections, too many clients, silence and slowness: refused, never waited for."""
    monkeypatch.setattr(service, "CONNECTIONS_MAX", 3)
    monkeypatch.setattr(service, "CLIENTS_MAX", 1)
    async with running(tmp_path, nodes=1, sealed=False) as nodes:
        address = nodes.cluster.nodes[0].peer
        served = nodes.running["n1"].service
        assert served is not None
        async with Client.connect(nodes.cluster) as client:
            assert b"has 1 clients" in await answer_to(nodes, encode_frame(HELLO))
            monkeypatch.setattr(service, "HELLO_S", 0.05)
            assert b"no hello" in await silent(address, b"")
            monkeypatch.setattr(framing, "FRAME_PATIENCE_S", 0.05)
            monkeypatch.setattr(service, "HELLO_S", 20.0)
            assert b"took longer" in await silent(address, b"\x00\x00")
            async with (
                await trio.open_tcp_stream(*address),
                await trio.open_tcp_stream(*address),
            ):
                await until(lambda: served.connections == 3)
                assert b"connections" in await answer_to(nodes, b"")
            assert await client.submit(b"value")


async def silent(address: Address, data: bytes) -> bytes:
    async with await trio.open_tcp_stream(*address) as stream:
        if data:
            await stream.send_all(data)
        answer = b""
        while more := await stream.receive_some():
            answer += more
        return answer


async def test_a_reader_that_does_not_read_holds_little(tmp_path: Path) -> None:
    """Deliveries are read from the store at the reader's pace."""
    async with running(tmp_path, nodes=1, sealed=False) as nodes:
        store = nodes.running["n1"].application
        assert store is not None
        address = nodes.cluster.nodes[0].peer
        async with Client.connect(nodes.cluster) as client:
            await client.submit_many([bytes(1000)] * 20_000, deadline=60)
            async with await trio.open_tcp_stream(*address) as stream:
                frames = FrameStream(stream)
                frames.post(HELLO)
                frames.post({"ask": "deliver", "first": 1})
                await frames.flush()
                await client.submit_many([bytes(1000)] * 100)  # others are served meanwhile
                total = 0
                while total < 20_100:
                    frame = await frames.receive_untrusted()
                    assert frame is not None
                    assert len(frame.body) < 2 * service.STREAM_BYTES
                    if "next" in frame.head:
                        total += len(unpack_delivered_untrusted(frame.body))


async def test_the_port_is_in_use() -> None:
    with listen(Address("127.0.0.1", 0)) as holder:
        address = Address(*holder.getsockname())
        with pytest.raises(ListenFailed, match="in use") as failed:
            listen(address)
        assert str(address) in str(failed.value)
    with pytest.raises(ListenFailed):
        listen(Address("192.0.2.1", 7))
