"""Thrift's binary protocol, byte by byte as Apache's implementation of it writes and reads it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from p4xos.errors import BadPacket
from switch.bmv2 import thrift
from switch.bmv2.runtime import PATIENCE, Runtime, SwitchGone, SwitchRefused

STRING, I32 = b"\x0b", b"\x08"
WRITE = (  # register_write(0, "a.low", 2, -1), number 7, of the service `standard`
    b"\x80\x01\x00\x01" + b"\0\0\0\x1a" + b"standard:bm_register_write" + b"\0\0\0\x07"
    + I32 + b"\0\x01" + b"\0\0\0\0"
    + STRING + b"\0\x02" + b"\0\0\0\x05" + b"a.low"
    + I32 + b"\0\x03" + b"\0\0\0\x02"
    + b"\x0a" + b"\0\x04" + b"\xff" * 8
    + b"\0"
)  # fmt: skip


def reply(name: str, sequence: int, fields: bytes, *, type: int = 2) -> bytes:
    head = struct.pack(">Ii", 0x8001_0000 | type, len(name)) + name.encode()
    return head + struct.pack(">i", sequence) + fields + b"\0"


def test_a_call_is_written_as_thrift_writes_it() -> None:
    fields = thrift.i32(1, 0), thrift.text(2, "a.low"), thrift.i32(3, 2), thrift.i64(4, -1)
    assert thrift.call("standard", "bm_register_write", 7, *fields) == WRITE


def test_lists_and_structs_are_written_as_thrift_writes_them() -> None:
    key = thrift.body(thrift.i32(1, 0), thrift.record(2, thrift.text(1, b"\x01\x02")))
    assert thrift.records(3, [key]) == (
        b"\x0f\0\x03" + b"\x0c" + b"\0\0\0\x01"
        + I32 + b"\0\x01" + b"\0\0\0\0"
        + b"\x0c\0\x02" + STRING + b"\0\x01" + b"\0\0\0\x02" + b"\x01\x02" + b"\0"
        + b"\0"
    )  # fmt: skip
    assert thrift.texts(5, [b"ab", b""]) == (
        b"\x0f\0\x05" + b"\x0b" + b"\0\0\0\x02" + b"\0\0\0\x02ab" + b"\0\0\0\0"
    )
    assert thrift.flag(3, False) == b"\x02\0\x03\0"


def test_replies_are_read_as_they_come_in() -> None:
    first = reply("bm_counter_read", 3, thrift.record(0, thrift.i64(1, 9), thrift.i64(2, -4)))
    second = reply("bm_mt_clear_entries", 4, b"")
    for cut in range(len(first)):
        assert thrift.decode_reply_untrusted(first[:cut]) is None
    found = thrift.decode_reply_untrusted(first + second)
    assert found == (thrift.Reply("bm_counter_read", 3, False, {0: {1: 9, 2: -4}}), len(first))
    numbers = b"\x0f\0\0" + b"\x0a" + struct.pack(">i2q", 2, 5, -6)
    listed = thrift.decode_reply_untrusted(reply("bm_register_read_all", 1, numbers))
    assert listed is not None
    assert listed[0].fields == {0: [5, -6]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x01\x00\x01\0\0\0\0", "0x80010001 begins no reply"),
        (b"HTTP/1.1 400", "0x48545450 begins no reply"),
        (b"\x80\x01\x00\x02\xff\xff\xff\xff", "-1 is no size"),
        (b"\x80\x01\x00\x02\x7f\xff\xff\xff", "2147483647 is no size"),
        (reply("f", 1, b"\x63\0\0"), "99 is no type"),
        (reply("f", 1, b"\x0d\0\0"), "a map: no call here answers one"),
        (reply("f", 1, b"\x0c\0\0" * 20), "more than 8 structs"),
        (reply("f", 1, b"\x0f\0\0\x00\0\0\0\x05"), "a list of 5 values of type 0"),
        (reply("f", 1, b"\x0f\0\0\x0a\x7f\0\0\0"), "a list of 2130706432 values"),
    ],
)
def test_what_is_no_reply_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(BadPacket, match=message):
        thrift.decode_reply_untrusted(data)


@pytest.fixture
def ends() -> Iterator[tuple[Runtime, socket.socket]]:
    near, far = socket.socketpair()
    with near, far:
        yield Runtime(near, lambda: "the switch ended"), far


def test_registers_are_unsigned_here(ends: tuple[Runtime, socket.socket]) -> None:
    runtime, switch = ends
    switch.sendall(reply("bm_register_write", 1, b""))
    runtime.write("a.low", 2, (1 << 64) - 1)
    assert switch.recv(4096) == WRITE.replace(b"\0\0\0\x07", b"\0\0\0\x01", 1)
    switch.sendall(reply("bm_register_read", 2, thrift.i64(0, -2)))
    assert runtime.read("a.low", 2) == (1 << 64) - 2


def test_a_number_that_bmv2_cannot_tell_is_not_taken_for_another(
    ends: tuple[Runtime, socket.socket],
) -> None:
    """It answers 2^63 - 1 for all that is larger."""
    runtime, switch = ends
    switch.sendall(reply("bm_register_read", 1, thrift.i64(0, (1 << 63) - 2)))
    assert runtime.read("a.low", 2) == (1 << 63) - 2
    switch.sendall(reply("bm_register_read", 2, thrift.i64(0, (1 << 63) - 1)))
    with pytest.raises(SwitchRefused, match=r"a.low\[2\] holds 2\^63 - 1 or more"):
        runtime.read("a.low", 2)


def test_many_counters_are_asked_for_at_once(ends: tuple[Runtime, socket.socket]) -> None:
    runtime, switch = ends
    for number in range(1, 4):
        counted = thrift.record(0, thrift.i64(1, 0), thrift.i64(2, 10 * number))
        switch.sendall(reply("bm_counter_read", number, counted))
    assert runtime.packets("a.outcomes", [5, 6, 7]) == [10, 20, 30]
    assert switch.recv(4096).count(b"standard:bm_counter_read") == 3


def test_what_the_switch_refuses_is_told(ends: tuple[Runtime, socket.socket]) -> None:
    runtime, switch = ends
    refusal = thrift.record(1, thrift.i32(1, 18))
    switch.sendall(reply("bm_mt_add_entry", 1, refusal))
    with pytest.raises(SwitchRefused, match=r"refuses bm_mt_add_entry of a.senders: error 18 "):
        runtime.add_entry("a.senders", [b"\0"], "a.configured", [])
    unknown = thrift.text(1, "Unknown function") + thrift.i32(2, 1)
    switch.sendall(reply("bm_register_reset", 2, unknown, type=3))
    with pytest.raises(SwitchRefused, match=r"this bmv2 cannot do .* bmv2 1.15 can"):
        runtime.clear_register("a.seen")
    switch.sendall(reply("bm_register_read", 9, thrift.i64(0, 1)))
    with pytest.raises(BadPacket, match="is one to bm_register_read, number 9"):
        runtime.read("a.low", 0)
    switch.sendall(reply("bm_register_read", 4, thrift.text(0, "five")))
    with pytest.raises(BadPacket, match="expected a number"):
        runtime.read("a.low", 0)


def test_a_switch_that_hangs_up_is_gone(ends: tuple[Runtime, socket.socket]) -> None:
    runtime, switch = ends
    switch.close()
    with pytest.raises(SwitchGone, match=r"the switch ended \(.*its registers are lost"):
        runtime.read("a.low", 0)


def test_a_switch_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("switch.bmv2.runtime.WAIT_S", 0.0001)
    near, far = socket.socketpair()
    with near, far:
        runtime = Runtime(near, lambda: "the switch hangs")
        with pytest.raises(SwitchGone, match="no answer within"):
            runtime.read("a.low", 0)
    assert PATIENCE > 1
