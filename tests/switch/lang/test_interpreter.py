"""What happens to a packet, on small programs made by hand (v1model as bmv2 runs it)."""

from __future__ import annotations

import pytest

from switch.lang import ir
from switch.lang.interpreter import AssertionFailed, Copy, Interpreter
from switch.lang.interpreter.generated import STATES_MAX
from switch.lang.ir import Assign, Bits, Case, Extract, If, Match, Read, State
from tests.switch.lang.programs import (
    BOOL,
    DROP,
    EGRESS_SPEC,
    FORWARD,
    MULTICAST_GROUP,
    NO_ACTION,
    TAG,
    const,
    dispatching,
    forward,
    header,
    is_,
    program,
    read,
    table,
    to_port,
)  # fmt: skip

KIND = read("hdr.tag.kind", 8)
ERROR = "standard_metadata.parser_error"


def exact(value: int) -> tuple[Match, ...]:
    return (Match("exact", value),)


# Where a packet goes


def test_an_entry_decides_the_port_and_the_rest_of_the_packet_follows() -> None:
    entries = ((exact(1), forward(7)), (exact(2), forward(8)))
    switch = Interpreter(dispatching(table((KIND, "exact"), entries=entries)))
    assert switch.process(3, b"\x01\xaapayload") == [(7, b"\x01\xaapayload")]
    assert switch.process(3, b"\x02\xbb") == [(8, b"\x02\xbb")]
    assert switch.process(3, b"\x03\xcc") == []
    assert switch.statistics[:3] == (3, 2, 1)


def test_port_zero_is_where_an_undecided_packet_goes() -> None:
    """As on bmv2: nothing but a decision drops."""
    assert Interpreter(program()).process(3, b"xyz") == [(0, b"xyz")]


def test_multicast_wins_over_drop_and_egress_sees_each_copy() -> None:
    rid = Read("standard_metadata.egress_rid", Bits(16))
    replicated = is_("standard_metadata.instance_type", 32, 5)
    made = program(
        headers=(TAG,),
        ingress=(ir.MarkToDrop(), Assign(MULTICAST_GROUP, const(5, 16))),
        egress=(
            Assign("hdr.tag.port", ir.Cast(rid, Bits(8))),
            If(replicated, (Assign("hdr.tag.kind", const(9, 8)),)),
            If(is_("standard_metadata.egress_port", 9, 12), (ir.MarkToDrop(),)),
        ),
    )  # fmt: skip
    switch = Interpreter(made)
    assert switch.process(1, b"\x01\x02!") == []  # the group has no members yet
    switch.set_group(5, [Copy(10, 1), Copy(11, 2), Copy(12, 3)])
    assert switch.process(1, b"\x01\x02!") == [(10, b"\x09\x01!"), (11, b"\x09\x02!")]


def test_what_egress_does_to_one_copy_no_other_sees() -> None:
    increment = ir.Binary("+", read("hdr.tag.kind", 8), const(1, 8), Bits(8))
    made = program(
        headers=(TAG,),
        ingress=(Assign(MULTICAST_GROUP, const(1, 16)),),
        egress=(Assign("hdr.tag.kind", increment),),
    )
    switch = Interpreter(made)
    switch.set_group(1, [Copy(1), Copy(2), Copy(3)])
    assert {packet for _, packet in switch.process(1, b"\x01\x00")} == {b"\x02\x00"}


def test_a_later_egress_spec_undoes_the_drop_and_egress_can_drop() -> None:
    assert Interpreter(program(ingress=(ir.MarkToDrop(), to_port(4)))).process(1, b"") == [(4, b"")]
    made = program(ingress=(to_port(4),), egress=(ir.MarkToDrop(),))
    assert Interpreter(made).process(1, b"") == []


# The parser


def test_a_short_packet_is_rejected_and_goes_on_with_the_error() -> None:
    made = program(
        headers=(TAG,),
        ingress=(to_port(1), If(is_(ERROR, 32, 1), (to_port(2),))),
    )
    switch = Interpreter(made)
    assert switch.process(1, b"\x01") == [(2, b"\x01")]  # invalid: not emitted, all is payload
    assert switch.process(1, b"\x01\x02") == [(1, b"\x01\x02")]
    assert switch.statistics.parser_errors == {"PacketTooShort": 1}


def test_select_takes_the_first_case_that_matches() -> None:
    long = header("hdr.long", number=32)
    start = State(
        "start", (Extract("hdr.tag"),), (KIND, read("hdr.tag.port", 8)),
        (
            Case((Match("exact", 1), Match("any")), "more"),
            Case((Match("ternary", 0x80, 0xF0), Match("range", 3, high=5)), "more"),
            Case((Match("exact", 2), Match("any")), "accept"),
        ),
    )  # fmt: skip
    more = State("more", (Extract("hdr.long"),), (), (Case((), "accept"),))
    number = ir.Cast(read("hdr.long.number", 32), Bits(9))
    made = program(
        headers=(TAG, long), states=(start, more), ingress=(Assign(EGRESS_SPEC, number),)
    )
    switch = Interpreter(made)
    for first, port in ((b"\x01\x00", 77), (b"\x8f\x05", 77), (b"\x02\x00", 0), (b"\x8f\x06", 0)):
        packet = first + b"\x00\x00\x00\x4dx"
        assert switch.process(1, packet) == [(port, packet)]
    assert switch.statistics.parser_errors == {"NoMatch": 1}  # of \x8f\x06 alone


def test_fields_of_all_widths_come_back_as_they_came() -> None:
    odd = header("hdr.odd", a=3, b=1, c=12, d=9, e=7, f=512)
    packet = bytes(range(4)) + bytes(range(64)) + b"\xff\x80"
    made = program(headers=(odd,), ingress=(to_port(1),))
    assert Interpreter(made).process(1, packet) == [(1, packet)]


def test_lookahead_leaves_the_packet_and_advance_does_not() -> None:
    cases = (Case((Match("exact", 0xEE),), "skip"), Case((Match("any"),), "rest"))
    start = State("start", (), (ir.Lookahead(Bits(8)),), cases)
    skip = State("skip", (ir.Advance(const(8, 32)),), (), (Case((), "rest"),))
    rest = State("rest", (Extract("hdr.tag"),), (), (Case((), "accept"),))
    switch = Interpreter(program(headers=(TAG,), states=(start, skip, rest)))
    assert switch.process(1, b"\xee\x01\x02") == [(0, b"\x01\x02")]
    assert switch.process(1, b"\x01\x02\x03") == [(0, b"\x01\x02\x03")]
    assert switch.process(1, b"") == [(0, b"")]
    assert switch.statistics.parser_errors == {"PacketTooShort": 1}


def test_verify_rejects_with_its_error_and_a_parser_without_end_stops() -> None:
    errors = (*ir.STANDARD_ERRORS, "BadKind")
    check = ir.Verify(is_("hdr.tag.kind", 8, 1), "BadKind")
    start = State("start", (Extract("hdr.tag"), check), (), (Case((), "accept"),))
    made = program(headers=(TAG,), states=(start,), errors=errors,
                   ingress=(Assign(EGRESS_SPEC, ir.Cast(read(ERROR, 32), Bits(9))),))  # fmt: skip
    switch = Interpreter(made)
    assert switch.process(1, b"\x02\x00") == [(7, b"\x02\x00")]
    assert switch.statistics.parser_errors == {"BadKind": 1}

    steps = ir.Binary("+", read("meta.steps", 16), const(1, 16), Bits(16))
    round_ = State("start", (Assign("meta.steps", steps),), (), (Case((), "start"),))
    made = program(states=(round_,), variables={"meta.steps": Bits(16)},
                   ingress=(ir.RegisterWrite("steps", const(0, 1), read("meta.steps", 16)),),
                   registers=(ir.Register("steps", 16, 1),))  # fmt: skip
    switch = Interpreter(made)
    assert switch.process(1, b"") == [(0, b"")]
    assert switch.read_register("steps", 0) == STATES_MAX
    assert switch.statistics.parser_errors == {"ParserTimeout": 1}


# Statements


def test_exit_ends_the_control_and_return_only_the_action() -> None:
    leave = ir.Action("ingress.leave", (), (
        If(is_("hdr.tag.kind", 8, 1), (ir.Exit(),)),
        If(is_("hdr.tag.kind", 8, 2), (ir.Return(),)),
        Assign("hdr.tag.port", const(3, 8)),
    ))  # fmt: skip
    nested = ir.Action("ingress.nested", (), (ir.Call("ingress.leave"),))
    made = program(
        headers=(TAG,), actions=(leave, nested),
        ingress=(to_port(1), ir.Call("ingress.nested"), to_port(2)),
        egress=(If(is_("hdr.tag.kind", 8, 4), (ir.Return(),)), Assign("hdr.tag.kind", const(0, 8))),
    )  # fmt: skip
    switch = Interpreter(made)
    assert switch.process(1, b"\x01\xff") == [(1, b"\x00\xff")]  # egress runs after exit too
    assert switch.process(1, b"\x02\xff") == [(2, b"\x00\xff")]
    assert switch.process(1, b"\x03\xff") == [(2, b"\x00\x03")]
    assert switch.process(1, b"\x04\xff") == [(2, b"\x04\x03")]


def test_headers_become_valid_with_zeros_and_invalid_ones_are_not_emitted() -> None:
    extra = header("hdr.extra", value=16)
    kind = read("hdr.tag.kind", 8)
    made = program(
        headers=(TAG, extra),
        states=(State("start", (Extract("hdr.tag"),), (), (Case((), "accept"),)),),
        ingress=(
            Assign("hdr.extra.value", const(0xFFFF, 16)),  # of an invalid header: lost
            If(ir.Binary("==", kind, const(1, 8), BOOL), (ir.SetValid("hdr.extra"),)),
            If(ir.Binary("==", kind, const(2, 8), BOOL), (ir.SetInvalid("hdr.tag"),)),
            If(ir.Read("hdr.extra.$valid", BOOL), (ir.SetValid("hdr.extra"), to_port(5))),
        ),
    )
    switch = Interpreter(made)
    assert switch.process(1, b"\x01\x02rest") == [(5, b"\x01\x02\x00\x00rest")]
    assert switch.process(1, b"\x02\x02rest") == [(0, b"rest")]


def test_part_of_a_variable_is_assigned() -> None:
    made = program(
        headers=(TAG,),
        ingress=(Assign("hdr.tag.kind", const(0b101, 3), high=4, low=2),),
    )
    assert Interpreter(made).process(1, b"\xe3\x00") == [(0, b"\xf7\x00")]
    assert Interpreter(made).process(1, b"\x1f\x00") == [(0, b"\x17\x00")]


def test_a_chain_of_else_if_may_be_long() -> None:
    chain: ir.Block = ()
    for kind in reversed(range(200)):
        chain = (If(is_("hdr.tag.kind", 8, kind), (to_port(kind + 1),), chain),)
    switch = Interpreter(program(headers=(TAG,), ingress=chain))
    for kind, port in ((0, 1), (150, 151), (199, 200), (200, 0)):
        assert switch.process(1, bytes([kind, 0]))[0][0] == port


def test_switch_on_what_ran_and_on_whether_it_hit() -> None:
    dispatch = table((KIND, "exact"), entries=((exact(1), forward(1)),))
    made = program(
        headers=(TAG,), actions=(FORWARD, DROP), tables=(dispatch,),
        variables={"meta.hit": BOOL, "meta.ran": Bits(16)},
        ingress=(
            ir.Apply("ingress.dispatch", "meta.hit", "meta.ran"),
            If(Read("meta.hit", BOOL), (Assign("hdr.tag.port", const(0xAA, 8)),)),
            If(is_("meta.ran", 16, 1), (to_port(2),)),
        ),
    )  # fmt: skip
    switch = Interpreter(made)
    assert switch.process(1, b"\x01\x00") == [(1, b"\x01\xaa")]
    assert switch.process(1, b"\x02\x00") == [(2, b"\x02\x00")]


# Registers, counters, asserts


def counting(size: int, index: ir.Expression) -> ir.Program:
    one = ir.Binary("+", read("meta.n", 32), const(1, 32), Bits(32))
    where = ir.Where("count.p4", 7, 3)
    return program(
        headers=(TAG,), variables={"meta.n": Bits(32)},
        ingress=(
            ir.RegisterRead("ingress.n", "meta.n", index, where),
            ir.RegisterWrite("ingress.n", index, one, where),
            ir.Count("ingress.seen", index, where),
        ),
        registers=(ir.Register("ingress.n", 32, size),),
        counters=(ir.Counter("ingress.seen", size),),
    )  # fmt: skip


def test_registers_hold_from_packet_to_packet_until_switched_off() -> None:
    switch = Interpreter(counting(4, KIND))
    for _ in range(3):
        switch.process(1, b"\x02\x00")
    cells = switch.registers["ingress.n"]
    assert cells == [0, 0, 3, 0]
    seen = switch.counters["ingress.seen"]
    assert (seen.packets[2], seen.bytes[2]) == (3, 6)
    switch.write_register("ingress.n", 2, 10)
    switch.process(1, b"\x02\x00")
    assert switch.read_register("ingress.n", 2) == 11
    switch.reset()
    assert cells == [0] * 4
    assert seen.packets == [0] * 4
    assert switch.statistics == (0, 0, 0, {}, {})


def test_an_index_out_of_bounds_is_counted_and_changes_nothing() -> None:
    switch = Interpreter(counting(4, KIND))
    switch.process(1, b"\x04\x00")
    assert switch.registers["ingress.n"] == [0] * 4
    faults = {fault.kind: n for fault, n in switch.statistics.faults.items()}
    assert faults == {"counter": 1, "register": 2}
    assert str(next(iter(switch.statistics.faults))) == (
        "count.p4:7:3: an index beyond the size of the register ingress.n"
    )
    constant = Interpreter(counting(4, const(4, 8)))
    constant.process(1, b"\x00\x00")
    assert constant.registers["ingress.n"] == [0] * 4
    assert sum(constant.statistics.faults.values()) == 3


def test_a_direct_counter_counts_at_what_matched() -> None:
    body = (*FORWARD.body, ir.Count("ingress.hits"))
    count = ir.Action("ingress.forward", FORWARD.parameters, body)
    dispatch = table((KIND, "exact"), entries=((exact(1), forward(1)), (exact(2), forward(2))))
    made = program(
        headers=(TAG,), actions=(count, DROP), tables=(dispatch,),
        ingress=(ir.Apply("ingress.dispatch"),),
        counters=(ir.Counter("ingress.hits", 0, "ingress.dispatch"),),
    )  # fmt: skip
    switch = Interpreter(made)
    for kind in (1, 2, 2, 3):
        switch.process(1, bytes([kind, 0, 0]))
    found = [each for _, each in switch.tables["ingress.dispatch"].entries]
    assert [(each.packets, each.bytes) for each in found] == [(1, 3), (2, 6)]


def test_an_assert_that_fails_is_counted_and_raised_where_wanted() -> None:
    where = ir.Where("a.p4", 5, 9)
    made = program(
        headers=(TAG,),
        ingress=(
            ir.Assume(is_("hdr.tag.port", 8, 0), "port == 0", where),
            ir.Assert(is_("hdr.tag.kind", 8, 1), "kind == 1", where),
        ),
    )
    switch, strict = Interpreter(made), Interpreter(made, strict=True)
    assert switch.process(1, b"\x02\x01") == [(0, b"\x02\x01")]
    assert {fault.kind: n for fault, n in switch.statistics.faults.items()} == {
        "assert": 1, "assume": 1,
    }  # fmt: skip
    assert strict.process(1, b"\x01\x01") == [(0, b"\x01\x01")]
    with pytest.raises(AssertionFailed, match=r"a\.p4:5:9: assert\(kind == 1\) does not hold"):
        strict.process(1, b"\x02\x00")


# Checksums and hashes


def test_a_checksum_over_fields_and_payload() -> None:
    """The UDP way: verified when it comes, made anew after a change."""
    sum_ = header("hdr.sum", length=16, check=16)
    fields = (read("hdr.sum.length", 16),)
    yes = ir.Const(1, BOOL)
    made = program(
        headers=(sum_,),
        verify=(ir.Checksum("verify", yes, fields, "hdr.sum.check", True),),
        ingress=(
            to_port(1),
            If(is_("standard_metadata.checksum_error", 1, 1), (ir.MarkToDrop(),)),
            Assign("hdr.sum.length", const(0x0202, 16)),
        ),
        update=(ir.Checksum("update", yes, fields, "hdr.sum.check", True),),
    )
    switch = Interpreter(made)
    good = (0x0101 + 0x6162 + 0x6300) ^ 0xFFFF
    assert switch.process(1, b"\x01\x01" + good.to_bytes(2, "big") + b"abc") == [
        (1, b"\x02\x02" + (good - 0x0101).to_bytes(2, "big") + b"abc")
    ]
    assert switch.process(1, b"\x01\x01" + (good ^ 1).to_bytes(2, "big") + b"abc") == []


def test_a_hash_falls_into_its_range() -> None:
    def hashing(most: int) -> Interpreter:
        return Interpreter(program(
            headers=(TAG,),
            ingress=(ir.Hash(EGRESS_SPEC, "crc32", const(10, 9), (KIND,), const(most, 32)),),
        ))  # fmt: skip

    ports = {hashing(4).process(1, bytes([kind, 0]))[0][0] for kind in range(64)}
    assert ports == {10, 11, 12, 13}
    assert hashing(0).process(1, b"\x01\x00")[0][0] == 10


def test_two_names_that_differ_only_in_punctuation_stay_apart() -> None:
    first, second = ir.Action("a.b_c", (), (to_port(1),)), ir.Action("a_b.c", (), (to_port(2),))
    made = program(actions=(first, second, NO_ACTION), ingress=(ir.Call("a.b_c"),))
    assert Interpreter(made).process(1, b"") == [(1, b"")]


def test_timestamps_are_the_callers() -> None:
    clock = ir.Cast(Read("standard_metadata.ingress_global_timestamp", Bits(48)), Bits(9))
    switch = Interpreter(program(ingress=(Assign(EGRESS_SPEC, clock),)))
    assert switch.process(1, b"", now_us=33) == [(33, b"")]
