"""libpaxos' messages: the same bytes as its own, in whatever pieces they come."""

from __future__ import annotations

import io

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from p4xos.compat.libpaxos.messages import (
    Kind,
    Message,
    encode,
    encode_accepted,
    parse_untrusted,
)
from p4xos.compat.libpaxos.packs import Values
from p4xos.errors import BadPacket
from tests.libpaxos.peers import packed

unhurried = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
"""A test is no measurement: this machine may do much else."""

LIMIT = 1 << 20
numbers = st.integers(0, 2**32 - 1) | st.sampled_from([0, 127, 128, 255, 256, 65535, 65536])
ids = st.integers(0, 9)
values = st.binary(max_size=40) | st.sampled_from([b"", b"x" * 255, b"x" * 256, b"x" * 65536])
messages = st.one_of(
    st.tuples(st.sampled_from([0, 5]), numbers, numbers),
    st.tuples(st.sampled_from([1, 3]), ids, numbers, numbers, numbers, values),
    st.tuples(st.just(2), numbers, numbers, values),
    st.tuples(st.just(4), ids, numbers, numbers),
    st.tuples(st.just(6), numbers),
    st.tuples(st.just(7), ids, numbers),
    st.tuples(st.just(8), values),
)


def as_message(message: tuple[object, ...]) -> Message:
    kind, *rest = message
    value = rest.pop() if isinstance(rest[-1], bytes) else b""
    return Message(Kind(kind), tuple(rest), value)  # type: ignore[arg-type]  # drawn so


@unhurried
@given(st.lists(messages, max_size=30), st.lists(st.integers(1, 200)))
def test_any_messages_in_any_pieces(sent: list[tuple[object, ...]], sizes: list[int]) -> None:
    stream = b"".join(packed(*message) for message in sent)
    assert b"".join(encode(as_message(message)) for message in sent) == stream
    held, found_values, found = b"", [], []
    while stream:
        size = sizes.pop() if sizes else len(stream)
        held, stream = held + stream[:size], stream[size:]
        parsed = parse_untrusted(held, LIMIT)
        held = held[parsed.used :]
        start = 0
        for length in parsed.lengths:
            found_values.append(parsed.data[start : start + length])
            start += length
        assert start == len(parsed.data)
        found += parsed.messages
    assert held == b""
    assert found_values == [message[1] for message in sent if message[0] == 8]
    assert found == [as_message(message) for message in sent if message[0] != 8]


@unhurried
@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 60), st.data())
def test_runs_of_equal_lengths_go_as_one_array(
    count: int, length: int, where: int, data: st.DataObject
) -> None:
    """Also where one among them differs, and where the last one is not complete."""
    sent = [bytes((k % 251,)) * length for k in range(count)]
    if where < count:
        sent[where] = data.draw(st.binary(max_size=70))
    stream = b"".join(packed(8, value) for value in sent)
    cut = data.draw(st.integers(0, 3))
    parsed = parse_untrusted(stream + packed(8, b"rest")[:cut], LIMIT)
    assert parsed.used == len(stream)
    assert parsed.lengths == [len(value) for value in sent]
    assert parsed.data == b"".join(sent)


@unhurried
@given(
    st.integers(1, 9) | st.integers(100, 300) | st.integers(65500, 65600) | st.integers(2**32 - 99),
    st.lists(st.binary(max_size=30), min_size=1, max_size=40) | st.builds(
        lambda count, length: [bytes((k,)) * length for k in range(count)],
        st.integers(1, 60), st.integers(0, 300),
    ),
    ids,
)  # fmt: skip
def test_accepted_is_what_msgpack_makes(first: int, told: list[bytes], acceptor: int) -> None:
    first = min(first, 2**32 - len(told))
    lengths = b"".join(len(value).to_bytes(4) for value in told)
    values = Values(first, lengths, b"".join(told))
    wanted = [packed(3, acceptor, first + k, 1, 1, value) for k, value in enumerate(told)]
    assert encode_accepted((acceptor,), values) == b"".join(wanted)
    other = (acceptor + 1) % 10
    both = encode_accepted((acceptor, other), values)
    wanted += [packed(3, other, first + k, 1, 1, value) for k, value in enumerate(told)]
    assert sorted(msgpack.Unpacker(io.BytesIO(both), raw=False)) == sorted(
        msgpack.Unpacker(io.BytesIO(b"".join(wanted)), raw=False)
    )
    assert len(both) == sum(map(len, wanted))


def test_values_of_an_older_msgpack_are_read() -> None:
    """It had one type for texts and bytes."""
    for value in (b"x", b"x" * 40, b"x" * 300, b"x" * 70000):
        data: bytes = msgpack.packb([8, value], use_bin_type=False)
        assert parse_untrusted(data * 2, LIMIT).data == value * 2


@pytest.mark.parametrize(
    "data",
    [
        b"\xc1", b"\xc0", b"GET /", b"\x90", b"\x91\x08", b"\x92\x05", b"\x97\x03", b"\xdc\x00\x02",
        packed(8, 5), packed(5, 1, b"x"), packed(5, 1, 2**32), packed(3, 10, 1, 1, 1, b""),
        packed(7, 200, 1), packed(6, 1.5), packed(6, None), packed(8, b"x" * 101),
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused_with_what_came_before_it_lost(data: bytes) -> None:
    with pytest.raises(BadPacket):
        parse_untrusted(data, 100)
    with pytest.raises(BadPacket):
        parse_untrusted(packed(6, 1) + packed(8, b"v") * 20 + data, 100)


@unhurried
@given(st.binary(max_size=60))
def test_any_bytes_are_taken_or_refused(data: bytes) -> None:
    try:
        parsed = parse_untrusted(data, 50)
    except BadPacket:
        return
    assert 0 <= parsed.used <= len(data)
    assert sum(parsed.lengths) == len(parsed.data)
