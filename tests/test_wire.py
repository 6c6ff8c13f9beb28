"""The wire format against its document, and against garbage (docs/PROTOCOL.md, section 2)."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import wire
from p4xos.errors import BadPacket
from p4xos.wire import HEADER, HEADER_BYTES, Message, Peer, Rows, Summary, Type, decode_untrusted

PROTOCOL = Path(__file__).parents[1] / "docs" / "PROTOCOL.md"
CLUSTER, GROUP = 0xC1051234, 3
PEER = Peer(CLUSTER, GROUP, {Type.PHASE2A: 1, Type.HEARTBEAT: 1, Type.CHECKPOINT: 2})
PROFILE = settings(deadline=None, derandomize=True, database=None, max_examples=300)


def table(heading: str) -> list[list[str]]:
    """The cells of the first table of PROTOCOL.md whose head begins with these words."""
    lines = PROTOCOL.read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if line.startswith(heading))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip().strip("`") for cell in line.strip("|").split("|")])
    return rows


# The document ----------------------------------------------------------------------------------


def test_the_header_is_the_documents() -> None:
    """PROTOCOL 2: offsets, fields and sizes."""
    assert HEADER.fields is not None
    ours = [
        (str(HEADER.fields[name][1]), name, f"u{8 * HEADER.fields[name][0].itemsize}")
        for name in HEADER.names or ()
    ]
    assert [(offset, field, kind) for offset, field, kind, _ in table("| offset |")] == ours
    assert HEADER.itemsize == HEADER_BYTES == 40


def test_every_field_is_in_network_order_and_none_overlap() -> None:
    """PROTOCOL 2: network byte order; the fields fill the 40 bytes."""
    assert HEADER.fields is not None
    covered: Counter[int] = Counter()
    for kind, offset in ((field[0], field[1]) for field in HEADER.fields.values()):
        assert kind.itemsize == 1 or kind.newbyteorder(">") == kind
        covered.update(range(offset, offset + kind.itemsize))
    assert covered == Counter(range(40))


def test_the_types_are_the_documents() -> None:
    """PROTOCOL 2: numbers and names."""
    named = {
        (int(number), name)
        for number, name in (
            match for cell, *_ in table("| type |") for match in re.findall(r"(\d+) (\w+)", cell)
        )
    }
    assert named == {(type.value, type.name) for type in Type}


def test_a_message_by_its_bytes() -> None:
    """PROTOCOL 2: one message, written out."""
    rows = wire.encode(
        CLUSTER, GROUP, Type.PHASE2B, instance=0x0102030405060708, round=0x0A0B0C0D,
        vround=0x0E0F1011, sender=0x1213, incarnation=0x14151617, low=0x18191A1B1C1D1E1F,
        value=b"value",
    )  # fmt: skip
    assert rows.tobytes().hex(" ", 4) == (
        "01040003 c1051234 01020304 05060708 0a0b0c0d 0e0f1011 12130005 14151617 "
        "18191a1b 1c1d1e1f 76616c75 65000000"
    )


# Coding ----------------------------------------------------------------------------------------

MESSAGES = st.builds(
    lambda value, **fields: Message(version=1, length=len(value), value=value, **fields),
    type=st.sampled_from([type.value for type in Type]),
    group=st.just(GROUP),
    cluster=st.just(CLUSTER),
    instance=st.integers(0, 2**64 - 1),
    round=st.integers(0, 2**32 - 1),
    vround=st.integers(0, 2**32 - 1),
    sender=st.integers(0, 2**16 - 1),
    incarnation=st.integers(0, 2**32 - 1),
    low=st.integers(0, 2**64 - 1),
    value=st.binary(max_size=40),
)


@PROFILE
@given(st.lists(MESSAGES, max_size=6))
def test_messages_survive_a_round_trip(batch: list[Message]) -> None:
    """PROTOCOL 2: the scalar and the array form are the same bytes; the rest is zero."""
    rows = wire.from_messages(batch)
    assert wire.messages(rows) == batch
    assert rows.shape[1] % 8 == 0
    header = wire.headers(rows)
    for name in HEADER.names or ():
        assert header[name].tolist() == [getattr(m, name) for m in batch]
    for m, row in zip(batch, rows, strict=True):
        one = wire.encode(
            m.cluster, m.group, m.type, instance=m.instance, round=m.round, vround=m.vround,
            sender=m.sender, incarnation=m.incarnation, low=m.low, value=m.value,
        )  # fmt: skip
        assert one[0].tobytes() == row[: one.shape[1]].tobytes()
        assert not row[HEADER_BYTES + m.length :].any()


def test_a_value_that_no_frame_carries_is_the_callers_mistake() -> None:
    """PROTOCOL 2: the largest value is what one 1,500-byte frame carries."""
    wire.encode(CLUSTER, GROUP, Type.REQUEST, value=bytes(wire.VALUE_BYTES_MAX))
    with pytest.raises(ValueError, match=r"1433 bytes.*1432 bytes"):
        wire.encode(CLUSTER, GROUP, Type.REQUEST, value=bytes(wire.VALUE_BYTES_MAX + 1))


@PROFILE
@given(
    st.integers(0, 2**64 - 1),
    st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=15).map(tuple),
    st.integers(0, 2**32 - 1),
)
def test_payloads_survive_a_round_trip(number: int, seen: tuple[int, ...], count: int) -> None:
    """PROTOCOL 2: the values of PHASE1A, RECOVER, LEARN, of the summary, and `seen`."""
    assert wire.unpack_end(wire.pack_end(number)) == number
    summary = Summary(number, count, count, seen)
    assert wire.unpack_summary(wire.pack_summary(summary), len(seen)) == summary
    assert wire.unpack_seen(wire.pack_seen(seen), len(seen)) == seen


@PROFILE
@given(st.binary(max_size=90), st.integers(1, 15))
def test_payloads_of_another_size_are_bad_packets(value: bytes, acceptors: int) -> None:
    """PROTOCOL 2: BadPacket and nothing else."""
    for unpack, size in (
        (lambda: wire.unpack_end(value), 8),
        (lambda: wire.unpack_summary(value, acceptors), 16 + 4 * acceptors),
        (lambda: wire.unpack_seen(value, acceptors), 4 * acceptors),
    ):
        if len(value) == size:
            unpack()
        else:
            with pytest.raises(BadPacket):
                unpack()


def test_a_summary_is_told_from_a_vote() -> None:
    """PROTOCOL 2: a vote has a vround; a report without a vote has no value."""
    assert wire.is_summary(0, 20)
    assert not wire.is_summary(0, 0)
    assert not wire.is_summary(256, 0)
    assert not wire.is_summary(256, 20)


# What comes from outside -----------------------------------------------------------------------


def good(count: int = 1, **fields: int) -> Rows:
    rows = wire.new_rows(count, 16)
    header = wire.headers(rows)
    header["version"], header["type"], header["sender"] = wire.VERSION, Type.PHASE2A, 1
    header["cluster"], header["group"], header["length"] = CLUSTER, GROUP, 16
    header["instance"] = np.arange(count)
    for name, value in fields.items():
        header[name] = value
    return rows


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("version", {"version": 2}),
        ("version", {"version": 0}),
        ("type", {"type": 0}),
        ("type", {"type": 16}),
        ("type", {"type": 255}),
        ("cluster", {"cluster": CLUSTER + 1}),
        ("cluster", {"group": GROUP + 1}),
        ("sender", {"sender": 2}),
        ("sender", {"sender": 65_535}),
        ("sender", {"type": Type.PHASE1A}),
        ("length", {"length": 17}),
        ("length", {"length": 65_535}),
    ],
)
@pytest.mark.parametrize("count", [1, 5])
def test_every_reason_to_drop(reason: str, fields: dict[str, int], count: int) -> None:
    """PROTOCOL 2: dropped and counted by reason, in a batch of its like and among good ones."""
    assert reason in wire.DROP_REASONS
    counters: dict[str, int] = {}
    assert len(decode_untrusted(good(count, **fields), PEER, counters)) == 0
    assert counters == {reason: count}
    mixed = np.concatenate([good(), good(count, **fields), good(2)])
    counters = {}
    kept = decode_untrusted(mixed, PEER, counters)
    assert wire.messages(kept) == wire.messages(good()) + wire.messages(good(2))
    assert counters == {reason: count}


def test_a_good_batch_is_given_back_as_it_is() -> None:
    """PROTOCOL 2: no copy where all is well, uniform or mixed."""
    for rows in (good(3), np.concatenate([good(), good(type=Type.CHECKPOINT, sender=2)])):
        counters: dict[str, int] = {}
        assert decode_untrusted(rows, PEER, counters) is rows
        assert counters == {}


def test_an_empty_batch_is_nothing() -> None:
    """PROTOCOL 2: it never raises."""
    assert len(decode_untrusted(good(0), PEER, {})) == 0


def obviously_good(m: Message, room: int) -> bool:
    return (
        m.version == wire.VERSION
        and m.cluster == CLUSTER
        and m.group == GROUP
        and PEER.senders.get(m.type) == m.sender
        and m.length <= room
    )


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "version": st.sampled_from([0, 1, 2, 255]),
        "type": st.integers(0, 20),
        "group": st.sampled_from([GROUP, 0]),
        "cluster": st.sampled_from([CLUSTER, 0, 2**32 - 1]),
        "sender": st.sampled_from([0, 1, 2, 65_535]),
        "length": st.integers(0, 30),
        "instance": st.integers(0, 2**64 - 1),
    },
)


@PROFILE
@given(st.lists(FIELDS, max_size=12), st.booleans())
def test_trap_11_bad_rows_never_pass(batch: list[dict[str, int]], uniform: bool) -> None:
    """Traps, 11: rows near to good ones: exactly the good ones pass, in order."""
    if uniform and batch:
        batch = [batch[0]] * len(batch)
    rows = np.concatenate([good(0), *(good(**fields) for fields in batch)])
    wanted = [m for m in wire.messages(rows) if obviously_good(m, 16)]
    counters: dict[str, int] = {}
    assert wire.messages(decode_untrusted(rows, PEER, counters)) == wanted
    assert sum(counters.values()) == len(rows) - len(wanted)
    assert set(counters) <= set(wire.DROP_REASONS)


@PROFILE
@given(st.binary(min_size=40, max_size=400), st.sampled_from([40, 48, 64]))
def test_trap_11_noise_never_raises(noise: bytes, stride: int) -> None:
    """Traps, 11: anything at all, of any size that a receiver cuts rows from."""
    count = len(noise) // stride
    rows = np.frombuffer(bytearray(noise[: count * stride]), np.uint8).reshape(count, stride)
    counters: dict[str, int] = {}
    kept = decode_untrusted(rows, PEER, counters)
    assert all(obviously_good(m, stride - HEADER_BYTES) for m in wire.messages(kept))
    assert len(kept) + sum(counters.values()) == count


@pytest.mark.parametrize("text", [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 2, b"\xc1" * 40])
def test_trap_11_an_http_request_is_of_another_version(text: bytes) -> None:
    """Traps, 11: byte 0xc1 and an HTTP request crashed an acceptor in public code."""
    data = text[: len(text) // 8 * 8]
    counters: dict[str, int] = {}
    rows = np.frombuffer(bytearray(data), np.uint8).reshape(1, -1)
    assert len(decode_untrusted(rows, PEER, counters)) == 0
    assert counters == {"version": 1}
