"""Many messages in one system call arrive as if each had travelled by its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p4xos import multi_message
from p4xos.multi_message import pack_address, unpack_address
from p4xos.net import UdpEndpoint
from p4xos.receiving import RECEIVE_BYTES
from p4xos.udp_socket import probe_segments
from p4xos.wire import HEADER_BYTES
from tests.net.loopback import LOCAL, collect, some_rows

pytestmark = pytest.mark.skipif(
    not (probe_segments() and multi_message.available),
    reason="this kernel has no UDP_SEGMENT and UDP_GRO, or another layout than 64-bit Linux",
)


def test_a_large_batch_leaves_and_arrives_in_few_calls() -> None:
    with (
        UdpEndpoint.bind(LOCAL) as sender,
        UdpEndpoint.bind(LOCAL) as one,
        UdpEndpoint.bind(LOCAL) as two,
    ):
        rows = some_rows(10 * 128 + 5, 128)
        sender.send(rows, [one.address, two.address])
        assert sender.counters["send_calls"] == 1
        assert sender.counters["sent"] == 2 * len(rows)
        for receiver in (one, two):
            batches = receiver.receive_nowait()
            assert [batch.source for batch in batches] == [sender.address] * len(batches)
            found = np.concatenate([batch.rows for batch in batches])
            assert found.tobytes() == rows.tobytes()
            assert receiver.counters["receive_calls"] <= 3
            assert receiver.counters["receive_copied"] == 0


def test_full_messages_of_one_sender_are_one_view() -> None:
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        rows = some_rows(9 * 128, 128)
        sender.send(rows, [receiver.address])
        (batch,) = receiver.receive_nowait()
        assert batch.rows.tobytes() == rows.tobytes()
        assert np.shares_memory(batch.rows, receiver._receiver.arena)


def test_more_chunks_than_one_call_takes() -> None:
    with UdpEndpoint.bind(LOCAL) as sender, UdpEndpoint.bind(LOCAL) as receiver:
        rows = some_rows(70 * 44, 1472)
        sender.send(rows[: 30 * 44], [receiver.address])
        assert collect(receiver, 30 * 44) == [
            (row.tobytes(), sender.address) for row in rows[: 30 * 44]
        ]
        sender.send(rows, [receiver.address] * 7)
        assert sender.counters["sent"] + sender.counters["send_full"] == 30 * 44 + 7 * len(rows)
        assert sender.counters["send_calls"] >= 1 + 70 * 7 // multi_message.MESSAGES_MAX


def test_one_bad_address_among_others_loses_only_its_own() -> None:
    with (
        UdpEndpoint.bind(LOCAL) as sender,
        UdpEndpoint.bind(LOCAL) as one,
        UdpEndpoint.bind(LOCAL) as two,
    ):
        rows = some_rows(5 * 128, 128)
        sender.send(rows, [one.address, ("127.0.0.1", 0), two.address])
        expected = [(row.tobytes(), sender.address) for row in rows]
        assert collect(one, len(rows)) == expected
        assert collect(two, len(rows)) == expected
        assert sender.counters["sent"] == 2 * len(rows)
        assert sender.counters["send_failed"] == len(rows)
        assert sender.offload


Sends = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([7, 40, 44, 96, 128, 512, 1472]),
        st.sampled_from([1, 2, 3, 44, 100, 127, 128, 129, 300]),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=60, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(sends=Sends, arena=st.sampled_from([RECEIVE_BYTES, 3 * RECEIVE_BYTES, 4 << 20]))
def test_any_mixture_arrives_whole_and_in_order(
    sends: list[tuple[int, int, int]], arena: int
) -> None:
    """Of each sender, whatever lengths its messages have and whoever sends between them."""
    senders = [UdpEndpoint.bind(LOCAL) for _ in range(3)]
    with UdpEndpoint.bind(LOCAL, arena_bytes=arena) as receiver:
        expected: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        shorts = 0
        for number, (k, stride, count) in enumerate(sends):
            rows = some_rows(count, stride)
            rows[:, :4] = np.frombuffer(number.to_bytes(4, "big"), np.uint8)
            senders[k].send(rows, [receiver.address])
            if stride < HEADER_BYTES:
                shorts += count
                continue
            padded = -(-stride // 8) * 8
            expected[k] += [row.tobytes().ljust(padded, b"\0") for row in rows]
        found: dict[int, list[bytes]] = {0: [], 1: [], 2: []}
        sources = {sender.address: k for k, sender in enumerate(senders)}
        while batches := receiver.receive_nowait():
            for batch in batches:
                assert batch.rows.ctypes.data % 8 == batch.rows.shape[1] % 8 == 0
                found[sources[batch.source]] += [row.tobytes() for row in batch.rows]
        assert receiver.overflow() == 0
        assert found == expected
        assert receiver.counters["receive_short"] == shorts
    for sender in senders:
        sender.close()


@pytest.mark.parametrize("address", [("127.0.0.1", 7000), ("::1", 65535), ("10.1.2.3", 1)])
def test_addresses_survive_packing(address: tuple[str, int]) -> None:
    packed = pack_address(address)
    assert packed is not None
    assert unpack_address(packed.ljust(32, b"\0")) == address


def test_what_has_no_packed_form_goes_the_plain_way() -> None:
    assert pack_address(("fe80::1%lo", 1)) is None
    assert pack_address(("localhost", 1)) is None


def test_ipv6() -> None:
    try:
        receiver = UdpEndpoint.bind(("::1", 0))
    except OSError:
        pytest.skip("this machine has no IPv6 loopback")
    with receiver, UdpEndpoint.bind(("::1", 0)) as sender:
        rows = some_rows(9 * 128, 128)
        sender.send(rows, [receiver.address])
        assert collect(receiver, len(rows)) == [(row.tobytes(), sender.address) for row in rows]
        assert sender.counters["send_calls"] == 1


def test_the_address_family_is_the_sockets() -> None:
    with UdpEndpoint.bind(LOCAL) as endpoint, pytest.raises(ValueError, match="family"):
        endpoint.send(some_rows(400, 128), [("::1", 9)])
