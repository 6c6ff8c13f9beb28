"""Ordinary v1model programs, from text to packets."""

from __future__ import annotations

import struct
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest

from switch.lang import ir, load
from switch.lang.interpreter import Interpreter

EXAMPLES = Path(__file__).parent / "examples"
INSIDE, OUTSIDE = 1, 2
HOME, AWAY = 0x0A000005, 0xC0A80107
MAC_HERE, MAC_THERE = bytes.fromhex("0200000000aa"), bytes.fromhex("0200000000bb")


@cache
def program(name: str) -> ir.Program:
    return load(EXAMPLES / name)


def switch(name: str) -> Interpreter:
    return Interpreter(program(name), strict=True)


def checksum(data: bytes) -> int:
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ethernet(kind: int, payload: bytes) -> bytes:
    return MAC_HERE + MAC_THERE + kind.to_bytes(2) + payload


def ipv4(
    payload: bytes, *, ttl: int = 64, protocol: int = 17, source: int = HOME, to: int = AWAY,
    words: int = 5,
) -> bytes:  # fmt: skip
    options = bytes(4 * (words - 5))
    head = struct.pack(
        "!BBHHHBBHII", 0x40 | words, 0, 20 + len(payload), 0, 0, ttl, protocol, 0, source, to
    )
    return head[:10] + checksum(head).to_bytes(2) + head[12:] + options + payload


# The router


def route(
    prefix: int, bits: int, hop: int, port: int
) -> tuple[tuple[ir.Match, ...], ir.ActionCall]:
    mask = (1 << 32) - (1 << (32 - bits))
    return (ir.Match("lpm", prefix, mask),), ir.ActionCall("Router.route", (hop, port))


def router() -> Interpreter:
    made = switch("router.p4")
    for prefix, bits, hop, port in (
        (0xC0A80000, 16, 0x0A000001, 7),
        (0xC0A80100, 24, 0x0A000002, 8),
        (0x08000000, 8, 0x0A000009, 9),
    ):
        made.tables["Router.routes"].add(*route(prefix, bits, hop, port))
    return made


@pytest.mark.parametrize(("to", "port", "mac"), [(AWAY, 8, 2), (0xC0A80207, 7, 1)])
def test_the_router_takes_the_longest_prefix(to: int, port: int, mac: int) -> None:
    found = router().process(1, ethernet(0x0800, ipv4(b"payload!", to=to)))
    forwarded = ipv4(b"payload!", ttl=63, to=to)  # its checksum is made anew
    expected = (0x020000000000 + mac).to_bytes(6) + MAC_HERE + b"\x08\x00" + forwarded
    assert found == [(port, expected)]


@pytest.mark.parametrize(
    "packet",
    [
        pytest.param(ethernet(0x0800, ipv4(b"", to=0x01010101)), id="no route"),
        pytest.param(ethernet(0x0800, ipv4(b"", to=0x08080808)), id="an unknown next hop"),
        pytest.param(ethernet(0x0800, ipv4(b"", ttl=1)), id="the end of its life"),
        pytest.param(ethernet(0x0800, ipv4(b"", ttl=0)), id="past it"),
        pytest.param(ethernet(0x0800, ipv4(b"", words=6)), id="options"),
        pytest.param(ethernet(0x0800, ipv4(b"")[:-1]), id="short"),
        pytest.param(ethernet(0x0806, ipv4(b"")), id="another protocol"),
        pytest.param(
            ethernet(0x0800, bytes.fromhex("4500001400000000401100000a000005c0a80107")),
            id="a wrong checksum",
        ),
    ],
)
def test_the_router_drops(packet: bytes) -> None:
    assert router().process(1, packet) == []


def test_nothing_goes_back_where_it_came_from() -> None:
    assert router().process(8, ethernet(0x0800, ipv4(b""))) == []


def test_errors_of_one_s_own_are_numbered_behind_those_of_core() -> None:
    made = router()
    assert made.program.errors[7:] == ("Version", "Options")
    made.process(1, ethernet(0x0800, ipv4(b"", words=6)))
    assert made.statistics.parser_errors == {"Options": 1}


def test_the_router_is_what_its_text_says() -> None:
    text = program("router.p4")
    routes = text.tables["Router.routes"]
    assert (routes.size, routes.keys[0].kind, routes.default_is_const) == (1024, "lpm", False)
    assert routes.actions == ("Router.route", "Router.drop", "Router.no_route")
    assert text.counters["Router.by_route"].table == "Router.routes"
    assert text.constants == {
        "EtherType.IPV4": 0x0800, "EtherType.CALCULATOR": 0x1234, "ROUTES": 1024,
    }  # fmt: skip
    assert list(text.states) == [
        "start", "network", "network.ipv4.start", "network.after_ipv4",
    ]  # fmt: skip


# The calculator


def asked(operator: str | int, left: int, right: int, flags: int = 0) -> bytes:
    code = ord(operator) if isinstance(operator, str) else operator
    return ethernet(0x1234, struct.pack("!HBBiiI", 0x5034, code, flags, left, right, 0))


def answer(operator: str | int, left: int, right: int, flags: int = 0) -> tuple[int, int]:
    ((port, packet),) = switch("calculator.p4").process(5, asked(operator, left, right, flags))
    assert port == 5
    assert packet[:12] == MAC_THERE + MAC_HERE
    _, _, flags, _, _, result = struct.unpack("!HBBiiI", packet[14:])
    return result, flags


@pytest.mark.parametrize(
    ("operator", "left", "right", "result", "flags"),
    [
        ("+", 2, 3, 5, 0),
        ("+", 2**31 - 1, 1, 2**31, 1),
        ("-", 2, 3, 2**32 - 1, 1),
        ("*", -7, 6, 2**32 - 42, 1),
        (">", -5, 4, 4, 0),
        (">", -5, -9, 2**32 - 5, 1),
        ("/", -9, 0, 2**32 - 5, 1),  # the sign stays when bits leave on the right
        ("h", 0x1234ABCD, 0x5678EF01, 0xABCD5678, 1),
        ("i", 0x00000001, 0x00020000, 0x00010002, 0),
    ],
)
def test_the_calculator_knows(
    operator: str, left: int, right: int, result: int, flags: int
) -> None:
    assert answer(operator, left, right) == (result, flags)


@pytest.mark.parametrize(("operator", "flags"), [("?", 0), ("-", 128), ("*", 1)])
def test_the_calculator_refuses_what_no_entry_takes(operator: str, flags: int) -> None:
    assert answer(operator, 2, 3, flags) == (0, flags | 128)


def test_the_calculator_looks_ahead_before_it_takes_a_header() -> None:
    wrong = bytearray(asked("+", 2, 3))
    wrong[14] ^= 1
    assert switch("calculator.p4").process(5, bytes(wrong)) == []


# The firewall


def ports(source: int, to: int, tcp: int | None) -> bytes:
    head = struct.pack("!HH", source, to)
    return head if tcp is None else head + struct.pack("!IIBBHHH", 1, 2, 0x50, tcp, 99, 0, 0)


def out(port: int = 1000, tcp: int | None = None, words: int = 5) -> bytes:
    protocol = 17 if tcp is None else 6
    payload = ports(port, 80, tcp) + b"data"
    return ethernet(0x0800, ipv4(payload, protocol=protocol, words=words))


def back(port: int = 1000, tcp: int | None = None) -> bytes:
    protocol = 17 if tcp is None else 6
    payload = ports(80, port, tcp) + b"data"
    return ethernet(0x0800, ipv4(payload, protocol=protocol, source=AWAY, to=HOME))


SYN, ACK = 2, 16


@pytest.mark.parametrize(("opening", "answering"), [(None, None), (SYN, ACK)])
def test_an_answer_comes_in_once_somebody_inside_has_asked(
    opening: int | None, answering: int | None
) -> None:
    firewall = switch("firewall.p4")
    assert firewall.process(OUTSIDE, back(tcp=answering)) == []
    asking = out(tcp=opening)
    assert firewall.process(INSIDE, asking) == [(OUTSIDE, asking)]
    answering_packet = back(tcp=answering)
    assert firewall.process(OUTSIDE, answering_packet) == [(INSIDE, answering_packet)]
    assert firewall.counters["Firewall.verdicts"].packets == [0, 1, 1, 1]


def test_a_connection_is_opened_by_its_first_segment_only() -> None:
    firewall = switch("firewall.p4")
    assert len(firewall.process(INSIDE, out(tcp=ACK))) == 1
    assert firewall.process(OUTSIDE, back(tcp=ACK)) == []


def test_of_many_closed_connections_hardly_one_is_let_in() -> None:
    firewall = switch("firewall.p4")
    for port in range(1000, 1100):
        firewall.process(INSIDE, out(port))
    assert all(firewall.process(OUTSIDE, back(port)) for port in range(1000, 1100))
    assert sum(bool(firewall.process(OUTSIDE, back(port))) for port in range(2000, 2400)) < 8


def test_each_instance_has_its_own_register_of_its_own_size() -> None:
    registers = load(EXAMPLES / "firewall.p4", {"CELLS": 128}).registers
    sizes = {name: each.size for name, each in registers.items()}
    assert sizes == {"Firewall.first.seen": 128, "Firewall.second.seen": 64}


def test_foreign_ports_fragments_and_other_protocols_are_dropped() -> None:
    firewall = switch("firewall.p4")
    fragment = bytearray(out())
    fragment[20:22] = b"\x00\x10"
    arp = ethernet(0x0806, bytes(28))
    for port, packet in ((3, out()), (INSIDE, bytes(fragment)), (INSIDE, arp)):
        assert firewall.process(port, packet) == []
    assert firewall.counters["Firewall.verdicts"].packets == [3, 0, 0, 0]


def test_names_are_in_the_order_of_the_text() -> None:
    for example in ("router.p4", "calculator.p4", "firewall.p4"):
        lines = [each.where.line for each in program(example).tables.values()]
        assert all(first < second for first, second in pairwise(lines))
