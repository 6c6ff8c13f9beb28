"""Tables at run time: which entry is taken, and what the control plane may change."""

from __future__ import annotations

import re

import pytest

from switch.lang.interpreter import Interpreter
from switch.lang.ir import ActionCall, Match
from tests.switch.lang.programs import dispatching, forward, read, table

KIND, PORT = read("hdr.tag.kind", 8), read("hdr.tag.port", 8)
ANY = Match("any")


def ternary(value: int, mask: int) -> Match:
    return Match("ternary", value, mask)


def prefix(value: int, length: int) -> Match:
    return Match("lpm", value, 0xFF << 8 - length & 0xFF)


def port_of(switch: Interpreter, kind: int, port: int = 0) -> int | None:
    out = switch.process(1, bytes([kind, port]))
    return out[0][0] if out else None


def test_of_ternary_entries_the_first_is_taken() -> None:
    entries = (
        ((ternary(0x80, 0x80), ANY), forward(1)),
        ((ternary(0xC0, 0xC0), ANY), forward(2)),
        ((Match("exact", 5), ternary(0x01, 0x0F)), forward(3)),
    )
    switch = Interpreter(dispatching(table((KIND, "ternary"), (PORT, "ternary"), entries=entries)))
    assert [port_of(switch, kind, 0x31) for kind in (0x80, 0xC1, 0x05, 0x06)] == [1, 1, 3, None]
    assert port_of(switch, 0x05, 0x32) is None


def test_of_prefixes_the_longest_is_taken() -> None:
    entries = (
        ((ANY,), forward(1)), ((prefix(0xA0, 4),), forward(2)),
        ((prefix(0x80, 1),), forward(3)), ((Match("exact", 0xAB),), forward(4)),
    )  # fmt: skip
    switch = Interpreter(dispatching(table((KIND, "lpm"), entries=entries)))
    assert [port_of(switch, kind) for kind in (0x01, 0xA1, 0x81, 0xAB)] == [1, 2, 3, 4]


def test_ranges_hold_both_ends() -> None:
    entries = (((Match("range", 3, high=5),), forward(1)),)
    switch = Interpreter(dispatching(table((KIND, "range"), entries=entries)))
    assert [port_of(switch, kind) for kind in (2, 3, 5, 6)] == [None, 1, 1, None]


def test_the_control_plane_adds_removes_and_sets_the_default() -> None:
    switch = Interpreter(dispatching(table((KIND, "exact"), (PORT, "exact"))))
    dispatch = switch.tables["ingress.dispatch"]
    key = (Match("exact", 1), Match("exact", 2))
    dispatch.add(key, forward(9))
    assert (port_of(switch, 1, 2), port_of(switch, 1, 3)) == (9, None)
    dispatch.set_default(forward(4))
    assert port_of(switch, 1, 3) == 4
    dispatch.remove(key)
    assert port_of(switch, 1, 2) == 4
    switch.reset()
    assert port_of(switch, 1, 2) is None
    assert dispatch.default.call == ActionCall("ingress.drop")
    assert dispatch.entries == []


def test_a_table_without_keys_runs_its_default() -> None:
    switch = Interpreter(dispatching(table()))
    assert port_of(switch, 1) is None
    switch.tables["ingress.dispatch"].set_default(forward(3))
    assert port_of(switch, 1) == 3


@pytest.mark.parametrize(
    ("matches", "call", "message"),
    [
        ((), forward(1), "has 1 keys, not 0"),
        ((ternary(1, 1),), forward(1), "the key key0 is exact, its match cannot be ternary"),
        ((Match("exact", 256),), forward(1), "256 is no bit<8>, as the key key0 is"),
        ((Match("exact", 1),), forward(512), "512 does not fit into port of action"),
        ((Match("exact", 1),), ActionCall("ingress.forward"), "takes 1 arguments, not 0"),
        ((Match("exact", 1),), ActionCall("NoAction"), "has no action NoAction: it is one of"),
        ((Match("exact", 7),), forward(1), "has an entry for the same keys: remove it first"),
    ],
)
def test_what_does_not_fit_is_refused(
    matches: tuple[Match, ...], call: ActionCall, message: str
) -> None:
    entries = (((Match("exact", 7),), forward(1)),)
    switch = Interpreter(dispatching(table((KIND, "exact"), entries=entries)))
    with pytest.raises(ValueError, match=re.escape(message)):
        switch.tables["ingress.dispatch"].add(matches, call)


def test_const_entries_and_full_tables_are_refused() -> None:
    entries = (((Match("exact", 7),), forward(1)),)
    one = (Match("exact", 1),)
    fixed = Interpreter(dispatching(table((KIND, "exact"), entries=entries, const_entries=True)))
    with pytest.raises(ValueError, match="has const entries: change the program"):
        fixed.tables["ingress.dispatch"].add(one, forward(1))
    with pytest.raises(ValueError, match="has const entries: change the program"):
        fixed.tables["ingress.dispatch"].remove((Match("exact", 7),))
    full = Interpreter(dispatching(table((KIND, "exact"), entries=entries, size=1)))
    with pytest.raises(ValueError, match="is full: size = 1"):
        full.tables["ingress.dispatch"].add(one, forward(1))
    with pytest.raises(ValueError, match="no entry with just these matches"):
        full.tables["ingress.dispatch"].remove(one)


def test_registers_and_groups_take_only_what_fits() -> None:
    switch = Interpreter(dispatching(table()))
    with pytest.raises(ValueError, match="no register nowhere: there is none"):
        switch.read_register("nowhere", 0)
    with pytest.raises(ValueError, match="multicast group 0: it must be 1 to 65535"):
        switch.set_group(0, [])
