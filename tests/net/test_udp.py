"""Real sockets on loopback: what is sent arrives, batched, whoever of the two can offload."""

from __future__ import annotations

import socket

import numpy as np
import pytest
import trio
import trio.testing
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p4xos.net import (
    ARENA_BYTES,
    BindFailed,
    Network,
    UdpEndpoint,
)
from p4xos.receiving import RECEIVE_BYTES
from p4xos.sending import DATAGRAM_BYTES_MAX, SEND_BYTES_MAX
from p4xos.udp_socket import probe_segments
from p4xos.wire import HEADER_BYTES, Rows
from tests.net.loopback import LOCAL, PatientSocket, collect, padded, some_rows, wait

OFFLOADS = [
    pytest.param(
        True,
        id="offload",
        marks=pytest.mark.skipif(
            not probe_segments(), reason="this kernel has no UDP_SEGMENT and UDP_GRO"
        ),
    ),
    pytest.param(False, id="plain"),
]


@pytest.mark.parametrize("sending", OFFLOADS)
@pytest.mark.parametrize("receiving", OFFLOADS)
@pytest.mark.parametrize(("count", "stride"), [(1, 40), (128, 128), (300, 128), (50, 1472)])
def test_round_trip(sending: bool, receiving: bool, count: int, stride: int) -> None:
    rows = some_rows(count, stride)
    with (
        UdpEndpoint.bind(LOCAL, offload=sending) as sender,
        UdpEndpoint.bind(LOCAL, offload=receiving) as receiver,
    ):
        sender.send(rows, [receiver.address])
        found = collect(receiver, count)
        assert found == [(row.tobytes(), sender.address) for row in rows]
        assert sender.counters["sent"] == receiver.counters["received"] == count
        assert sender.offload == sending
        if not sending:
            assert sender.counters["send_calls"] == count


def test_the_offload_that_is_there_is_used_by_default() -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint:
        assert endpoint.offload == bool(probe_segments())


def test_one_call_carries_a_batch_to_each_address() -> None:
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as one:
        if not sender.offload:
            pytest.skip("this kernel has no UDP_SEGMENT and UDP_GRO")
        with UdpEndpoint.bind(LOCAL) as two:
            rows = some_rows(sender.segments_max, 128)
            sender.send(rows, [one.address, two.address])
            assert collect(one, len(rows)) == collect(two, len(rows))
            assert sender.counters["send_calls"] == 2
            assert one.counters["receive_calls"] == 1


def test_a_full_chunk_arrives_in_one_receive() -> None:
    """A send close to 64 KiB that the kernel would cut up on the way costs a call a datagram."""
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        if not sender.offload:
            pytest.skip("this kernel has no UDP_SEGMENT and UDP_GRO")
        for stride in (1424, 1472, 4672):
            before = receiver.counters["receive_calls"]
            count = SEND_BYTES_MAX // stride
            sender.send(some_rows(count, stride), [receiver.address])
            collect(receiver, count)
            assert receiver.counters["receive_calls"] == before + 1


@pytest.mark.parametrize("offload", OFFLOADS)
def test_neighbours_of_one_source_and_stride_are_one_view_into_the_arena(
    monkeypatch: pytest.MonkeyPatch, offload: bool
) -> None:
    with (
        UdpEndpoint.bind(LOCAL, offload=offload) as sender,
        UdpEndpoint.bind(LOCAL, offload=offload) as other,
        UdpEndpoint.bind(LOCAL, offload=offload) as receiver,
    ):
        for k in range(3):
            sender.send(some_rows(10, 128, k), [receiver.address])
        sender.send(some_rows(4, 64), [receiver.address])
        other.send(some_rows(5, 64), [receiver.address])
        patient = PatientSocket(receiver._socket, 30 * 128 + 9 * 64)
        monkeypatch.setattr(receiver._receiver, "socket", patient)
        batches = receiver.receive_nowait()
        assert [(batch.rows.shape, batch.source) for batch in batches] == [
            ((30, 128), sender.address),
            ((4, 64), sender.address),
            ((5, 64), other.address),
        ]
        assert all(np.shares_memory(batch.rows, receiver._receiver.arena) for batch in batches)
        assert receiver.counters["receive_copied"] == 0


@pytest.mark.parametrize("sending", OFFLOADS)
@pytest.mark.parametrize("receiving", OFFLOADS)
@pytest.mark.parametrize("stride", [41, 63, 100, 129])
def test_odd_strides_arrive_zero_padded(sending: bool, receiving: bool, stride: int) -> None:
    rows = some_rows(9, stride)
    with (
        UdpEndpoint.bind(LOCAL, offload=sending) as sender,
        UdpEndpoint.bind(LOCAL, offload=receiving) as receiver,
    ):
        # The arena holds old bytes where the padding will be.
        sender.send(np.full((9, 160), 255, np.uint8), [receiver.address])
        collect(receiver, 9)
        sender.send(rows, [receiver.address])
        assert [row for row, _ in collect(receiver, 9)] == [padded(row.tobytes()) for row in rows]


@pytest.mark.parametrize(("stride", "last"), [(128, 64), (128, 61), (99, 44), (99, 98), (128, 40)])
def test_a_short_last_datagram_is_a_batch_of_its_own(stride: int, last: int) -> None:
    if not probe_segments():
        pytest.skip("this kernel has no UDP_SEGMENT and UDP_GRO")
    payload = some_rows(1, 5 * stride + last).tobytes()
    with (
        UdpEndpoint.bind(LOCAL) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(17, 103, stride)
        sender.sendto(payload, receiver.address)
        sender.sendto(payload[:stride], receiver.address)
        found = [row for row, _ in collect(receiver, 7)]
        pieces = [payload[k : k + stride] for k in range(0, len(payload), stride)]
        assert found == [padded(piece) for piece in [*pieces, payload[:stride]]]


def test_a_last_datagram_shorter_than_a_header_is_dropped() -> None:
    if not probe_segments():
        pytest.skip("this kernel has no UDP_SEGMENT and UDP_GRO")
    with (
        UdpEndpoint.bind(LOCAL) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        sender.setsockopt(17, 103, 64)
        sender.sendto(bytes(3 * 64 + 39), receiver.address)
        assert len(collect(receiver, 3)) == 3
        assert receiver.counters["receive_short"] == 1


@pytest.mark.parametrize("offload", OFFLOADS)
def test_foreign_datagrams_of_any_size(offload: bool) -> None:
    """docs/traps.md, 11: garbage is counted or handed on, never raised."""
    sizes = [*range(70), 1471, 1473, 9001, 65_000, 65_506, DATAGRAM_BYTES_MAX]
    with (
        UdpEndpoint.bind(LOCAL, offload=offload) as receiver,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as foreign,
    ):
        payloads = [some_rows(1, size, size).tobytes() for size in sizes]
        for payload in payloads:
            foreign.sendto(payload, receiver.address)
        good = [padded(payload) for payload in payloads if len(payload) >= HEADER_BYTES]
        assert [row for row, _ in collect(receiver, len(good))] == good
        assert receiver.counters["receive_empty"] == 1
        assert receiver.counters["receive_short"] == HEADER_BYTES - 1


def test_a_segmented_flood_of_runts_is_counted_each() -> None:
    if not probe_segments():
        pytest.skip("this kernel has no UDP_SEGMENT and UDP_GRO")
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        sender.send(some_rows(10, 7), [receiver.address])
        sender.send(some_rows(1, 64), [receiver.address])
        assert len(collect(receiver, 1)) == 1
        assert receiver.counters["receive_short"] == 10


def test_one_drain_stays_within_the_arena() -> None:
    with (
        UdpEndpoint.bind(LOCAL) as sender,
        UdpEndpoint.bind(LOCAL, arena_bytes=RECEIVE_BYTES + 1024) as receiver,
    ):
        rows = some_rows(20, 1024)
        for row in rows:
            sender.send(row.reshape(1, -1), [receiver.address])
        wait(receiver)
        # Two fit before there is no longer room for the largest receive.
        drains = [receiver.receive_nowait()]
        assert sum(len(batch.rows) for batch in drains[0]) <= 2
        rest = collect(receiver, 20 - sum(len(batch.rows) for batch in drains[0]))
        assert rest[-1][0] == rows[-1].tobytes()


def test_slices_and_columns_are_sent_as_they_look() -> None:
    whole = some_rows(40, 256)
    frozen = whole.copy()
    frozen.flags.writeable = False
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        for part in (whole[10:20], whole[::2], whole[:, :64], whole[3:4, 8:128], frozen[5:9]):
            sender.send(part, [receiver.address])
            found = [row for row, _ in collect(receiver, len(part))]
            assert found == [row.tobytes() for row in part]
        sender.send(whole[:0], [receiver.address])
        sender.send(whole, [])
        assert sender.counters["sent"] == receiver.counters["received"]


def test_the_fault_hook_drops_duplicates_and_reorders() -> None:
    rows = some_rows(3, 64)

    def faulty(rows: Rows, address: tuple[str, int]) -> list[Rows]:
        assert address == receiver.address
        return [rows[2:], rows[:1], rows[:1]]

    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        sender.fault = faulty
        sender.send(rows, [receiver.address])
        assert [row for row, _ in collect(receiver, 3)] == [rows[k].tobytes() for k in (2, 0, 0)]


def test_ipv6() -> None:
    try:
        receiver = UdpEndpoint.bind(("::1", 0))
    except BindFailed as error:
        pytest.skip(f"no IPv6 loopback here: {error}")
    with receiver, UdpEndpoint.bind(("::1", 0)) as sender:
        rows = some_rows(100, 72)
        sender.send(rows, [receiver.address])
        assert collect(receiver, 100) == [(row.tobytes(), sender.address) for row in rows]
        with pytest.raises(ValueError, match="another address family"):
            sender.send(rows, [("127.0.0.1", 9)])


SENDS = st.lists(
    st.tuples(st.integers(1, 140), st.integers(HEADER_BYTES, 300), st.integers(0, 2**32)),
    min_size=1,
    max_size=8,
)


@pytest.mark.parametrize("sending", OFFLOADS)
@pytest.mark.parametrize("receiving", OFFLOADS)
@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(sends=SENDS)
def test_what_one_source_sends_in_order_arrives_identical(
    sending: bool, receiving: bool, sends: list[tuple[int, int, int]]
) -> None:
    with (
        UdpEndpoint.bind(LOCAL, offload=sending) as sender,
        UdpEndpoint.bind(LOCAL, offload=receiving) as receiver,
    ):
        for count, stride, seed in sends:
            rows = some_rows(count, stride, seed)
            sender.send(rows, [receiver.address])
            # Taken send by send, so that a small receive buffer loses nothing.
            found = [row for row, _ in collect(receiver, count)]
            assert found == [padded(row.tobytes()) for row in rows]


async def test_wait_readable_returns_when_something_arrives() -> None:
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        network: Network = receiver
        assert network.receive_nowait() == []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receiver.wait_readable)
            await trio.testing.wait_all_tasks_blocked()
            sender.send(some_rows(3, 64), [receiver.address])
        assert sum(len(batch.rows) for batch in network.receive_nowait()) == 3


async def test_close_wakes_who_waits() -> None:
    endpoint = UdpEndpoint.bind(LOCAL)
    async with trio.open_nursery() as nursery:

        async def wait_closed() -> None:
            with pytest.raises(trio.ClosedResourceError):
                await endpoint.wait_readable()

        nursery.start_soon(wait_closed)
        await trio.testing.wait_all_tasks_blocked()
        endpoint.close()
    endpoint.close()


def test_the_arena_is_made_once() -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint:
        arena = endpoint._receiver.arena
        endpoint.receive_nowait()
        assert endpoint._receiver.arena is arena
        assert len(arena) == ARENA_BYTES
