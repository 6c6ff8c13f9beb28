"""The bill of small programs whose costs can be counted by hand."""

from __future__ import annotations

import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from switch.bill import NAMES, Target, bill, described, load
from switch.bill.stages import PASSES_MAX, lay_out, levels
from switch.lang import ir
from switch.lang import load as load_program
from switch.lang.ir import Action, Apply, Assign, Bits, If, Match, Read
from tests.switch.lang.programs import (
    BOOL,
    NO_ACTION,
    const,
    dispatching,
    forward,
    header,
    is_,
    program,
    read,
    table,
)  # fmt: skip

ROOT = Path(__file__).parents[2]
A, B, C, D = (read(f"meta.{name}", 16) for name in "abcd")
VARIABLES: dict[str, ir.Type] = {f"meta.{name}": Bits(16) for name in "abcdxyz"} | {
    "meta.hit": BOOL
}


def plus(left: ir.Expression, right: ir.Expression) -> ir.Binary:
    return ir.Binary("+", left, right, Bits(16))


def put(name: str, value: ir.Expression) -> Assign:
    return Assign(f"meta.{name}", value)


def stages(*ingress: ir.Statement, stateful: int = 0, **parts: Any) -> int:
    made = program(variables=VARIABLES, ingress=ingress, **parts)
    return lay_out(made, made.ingress, stateful).stages


# Stages by dependency: single operations


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ((), 0),
        ((put("x", A),), 1),
        ((put("x", A), put("y", B), put("z", plus(C, D))), 1),  # nothing depends on anything
        ((put("x", A), put("y", read("meta.x", 16))), 2),  # reads what was written
        ((put("x", A), put("x", B)), 2),  # writes it again
        ((put("x", A), put("a", B)), 1),  # the old value is read in the same stage
        ((put("x", A), put("a", B), put("b", read("meta.x", 16))), 2),  # a swap
        ((put("x", plus(plus(plus(A, B), C), D)),), 3),  # three additions one behind the other
        ((put("x", plus(plus(A, B), plus(C, D))),), 2),  # two of them side by side
        ((put("x", ir.Cast(ir.Slice(A, 7, 0, Bits(8)), Bits(16))),), 1),  # wiring
        ((put("x", A), If(is_("meta.x", 16, 3), (put("y", B),))), 2),  # a test on it
        ((If(is_("meta.a", 16, 3), (put("x", B),), (put("x", C),)),), 1),  # one or the other
        ((If(is_("meta.a", 16, 3), (put("x", B),)), put("y", read("meta.x", 16))), 2),
        ((If(is_("meta.a", 16, 3), (put("x", B),)), put("y", C)), 1),  # after the test, not on it
        ((If(ir.Binary("<", A, B, BOOL), (put("x", C),)),), 2),  # a comparison is a subtraction
        ((If(ir.Binary("<", A, const(9, 16), BOOL), (put("x", C),)),), 1),  # but of a constant
        ((ir.MarkToDrop(), Assign("standard_metadata.egress_spec", const(1, 9))), 2),
    ],
)
def test_stages_of_operations(block: ir.Block, expected: int) -> None:
    assert stages(*block) == expected


def test_levels_count_the_longest_way() -> None:
    choice = ir.Choice(is_("meta.a", 16, 1), plus(A, B), C, Bits(16))
    assert [levels(each) for each in (A, plus(A, B), choice, plus(choice, D))] == [0, 1, 2, 3]


def test_what_follows_an_exit_hangs_on_its_test() -> None:
    compute = put("x", plus(plus(A, B), C))  # ready behind stage 2
    leave = If(is_("meta.x", 16, 0), (ir.Exit(),))
    assert stages(compute, put("y", D)) == 2
    assert stages(compute, leave, put("y", D)) == 3
    leaving = Action("ingress.leave", (), (leave,))
    returning = Action("ingress.leave", (), (If(is_("meta.x", 16, 0), (ir.Return(),)),))
    call = ir.Call("ingress.leave")
    assert stages(compute, call, put("y", D), actions=(leaving,)) == 3
    assert stages(compute, call, put("y", D), actions=(returning,)) == 2  # only the action ends


# Stages by dependency: tables


def write(name: str, variable: str) -> Action:
    return Action(f"ingress.{name}", (), (put(variable, const(1, 16)),))


FIRST, SECOND = write("first", "x"), write("second", "y")


def two_tables(
    second_key: str, second_action: Action, between: ir.Block | None = None
) -> ir.Program:
    tables = tuple(
        table(
            (read(key, 16), "exact"), name=name, default="NoAction",
            actions=(action.name, "NoAction"),
        )
        for name, key, action in (
            ("ingress.one", "meta.a", FIRST), ("ingress.two", second_key, second_action),
        )
    )  # fmt: skip
    two: ir.Block = (Apply("ingress.two"),)
    if between is not None:
        two = (If(Read("meta.hit", BOOL), two),)
    return program(
        variables=VARIABLES, actions=(FIRST, SECOND, NO_ACTION), tables=tables,
        ingress=(Apply("ingress.one", hit="meta.hit"), *(between or ()), *two),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (two_tables("meta.b", SECOND), [1, 1]),  # nothing in common
        (two_tables("meta.x", SECOND), [1, 2]),  # matches on what the first one writes
        (two_tables("meta.b", SECOND, between=()), [1, 1]),  # only where the first one hits
    ],
)
def test_stages_of_tables(made: ir.Program, expected: list[int]) -> None:
    layout = lay_out(made, made.ingress)
    assert [layout.tables["ingress.one"], layout.tables["ingress.two"]] == expected
    assert layout.stages == max(expected)


def test_two_tables_that_write_one_variable_take_two_stages() -> None:
    made = two_tables("meta.b", FIRST)
    assert lay_out(made, made.ingress).stages == 2


def test_all_actions_of_a_table_are_its_stages() -> None:
    """The longest counts; what comes behind the table waits for what it reads."""
    long = Action("ingress.long", (), (put("x", A), put("y", read("meta.x", 16))))
    actions = ("ingress.long", "ingress.first")
    one = table((A, "exact"), name="ingress.one", default="ingress.long", actions=actions)
    for then, expected in (
        ((), 2), ((put("z", read("meta.x", 16)),), 2), ((put("z", read("meta.y", 16)),), 3),
    ):  # fmt: skip
        block = (Apply("ingress.one"), *then)
        assert stages(*block, actions=(long, FIRST), tables=(one,)) == expected


# Registers

CELL = const(0, 32)
N = ir.Register("ingress.n", 16, 4)


def test_a_counter_fits_the_stage_of_its_register_where_that_can_add() -> None:
    block = (ir.RegisterRead(N.name, "meta.x", CELL),
             ir.RegisterWrite(N.name, CELL, plus(read("meta.x", 16), const(1, 16))))  # fmt: skip
    made = program(variables=VARIABLES, ingress=block, registers=(N,))
    able, unable = lay_out(made, made.ingress, 1), lay_out(made, made.ingress, 0)
    assert (able.stages, able.reads[N.name], able.writes[N.name]) == (1, {1}, {1})
    assert (unable.stages, unable.reads[N.name], unable.writes[N.name]) == (3, {1}, {3})


def test_readers_of_a_register_wait_for_the_latest_of_them() -> None:
    late = put("x", plus(plus(A, B), C))
    either = If(
        is_("meta.d", 16, 1),
        (ir.RegisterRead(N.name, "meta.y", CELL),),
        (ir.RegisterRead(N.name, "meta.y", ir.Cast(read("meta.x", 16), Bits(32))),),
    )
    made = program(variables=VARIABLES, ingress=(late, either), registers=(N,))
    assert lay_out(made, made.ingress).reads[N.name] == {3}


def test_a_register_read_for_its_own_index_has_no_stage() -> None:
    """It ends all the same, and the bill says what is wrong."""
    block = (
        ir.RegisterRead(N.name, "meta.x", CELL),
        ir.RegisterRead(N.name, "meta.y", ir.Cast(read("meta.x", 16), Bits(32))),
    )
    made = program(variables=VARIABLES, ingress=block, registers=(N,))
    assert len(lay_out(made, made.ingress).reads[N.name]) == 2
    assert PASSES_MAX < 1000
    small = Target(name="small", stages=1000)
    assert any("stages that access ingress.n" in each.what for each in bill(made, small).excess)


# Sums


def test_the_sums_of_a_program() -> None:
    entries = (((Match("exact", 1),), forward(7)), ((Match("exact", 2),), forward(8)))
    made = dispatching(table((read("hdr.tag.kind", 8), "exact"), entries=entries, size=100))
    cost = bill(made, load("bmv2"))
    (dispatch,) = cost.tables
    assert (dispatch.control, dispatch.stage, dispatch.key_bits) == ("ingress", 1, 8)
    assert (dispatch.entries, dispatch.size, dispatch.actions) == (2, 100, 2)
    assert dispatch.sram_bits == 100 * (8 + 1 + 9)  # key, which action, the port
    assert dispatch.tcam_bits == 0
    assert cost.header_bits == 16
    standard = sum(each.width for each in ir.STANDARD_METADATA.values() if isinstance(each, Bits))
    assert cost.metadata_bits == standard + 1 + 9  # a header's validity, an action's parameter
    assert (cost.actions, cost.operations, cost.parser_states) == (2, 3, 1)
    assert cost.fits


def test_ternary_keys_lie_in_tcam_and_const_entries_need_no_room_for_more() -> None:
    entries = (((Match("ternary", 1, 1),), forward(7)),)
    key = (read("hdr.tag.kind", 8), "ternary")
    made = dispatching(table(key, entries=entries, size=100, const_entries=True))
    (cost,) = bill(made, load("bmv2")).tables
    assert (cost.size, cost.tcam_bits, cost.sram_bits) == (1, 8, 1 + 9)


def test_what_a_target_lacks_is_told_one_by_one() -> None:
    wide = header("hdr.wide", value=64)
    cells = ir.Register("ingress.cells", 64, 100)
    where = ir.Where("wide.p4", 4, 2)
    sum_ = ir.Binary("+", read("hdr.wide.value", 64), const(1, 64), Bits(64), where)
    by = ir.Cast(read("hdr.wide.value", 64), Bits(8))
    made = program(
        headers=(wide,), registers=(cells,),
        ingress=(
            ir.RegisterRead(cells.name, "hdr.wide.value", CELL),
            Assign("hdr.wide.value", sum_),
            Assign("hdr.wide.value", ir.Binary("<<", sum_, by, Bits(64), where)),
            ir.RegisterWrite(cells.name, CELL, read("hdr.wide.value", 64)),
        ),
    )  # fmt: skip
    target = Target(
        name="tiny", stages=3, stage_sram_bits=1000, packet_bits=100, register_bits=32,
        arithmetic_bits=32, multiplies=False,
    )  # fmt: skip
    cost = bill(made, target)
    assert not cost.fits
    assert [str(each).partition(",")[0].rpartition(":")[0] for each in cost.excess[:1]] == [
        "stages of ingress"
    ]
    text = "\n".join(map(str, cost.excess))
    for expected in (
        "stages of ingress: 5 needed, 3 there",
        "bits of headers and metadata: ",
        "SRAM bits of all stages: 6,400 needed, 3,000 there",
        "bits of a cell of ingress.cells: 64 needed, 32 there",
        "bits of ingress.cells, in one stage: 6,400 needed, 1,000 there",
        "stages that access ingress.cells (1, 5): 2 needed, 1 there",
        "bits of the operands of + at wide.p4:4:2: 64 needed, 32 there",
        "units for << by a variable at wide.p4:4:2: 1 needed, 0 there",
    ):
        assert expected in text
    assert text in described(cost).replace("\n  ", "\n")


def test_too_many_tables_and_registers_in_one_stage() -> None:
    made = two_tables("meta.b", SECOND)
    target = Target(name="one", stage_tables=1, stage_registers=1)
    assert [str(each) for each in bill(made, target).excess] == [
        "tables in stage 1 of ingress: 2 needed, 1 there"
    ]
    registers = tuple(ir.Register(f"ingress.{name}", 16, 1) for name in "ab")
    reads = (ir.RegisterRead(f"ingress.{name}", f"meta.{name}", CELL) for name in "ab")
    made = program(variables=VARIABLES, ingress=tuple(reads), registers=registers)
    assert [str(each) for each in bill(made, target).excess] == [
        "registers in stage 1 of ingress: 2 needed, 1 there"
    ]


def test_the_bill_as_json_and_as_text() -> None:
    made = dispatching(table((read("hdr.tag.kind", 8), "exact")))
    cost = bill(made, load("tofino"))
    read_back = json.loads(json.dumps(cost.to_json()))
    assert read_back["fits"] is True
    assert read_back["tables"][0]["name"] == "ingress.dispatch"
    text = described(cost)
    assert text.endswith("It fits tofino.")
    assert "ingress.dispatch  ingress" in text


# The project's programs


@cache
def own(name: str) -> ir.Program:
    sizes = {"ACCEPTORS": 5, "VALUE_BYTES": 32}
    return load_program(ROOT / "switch" / "p4" / f"{name}.p4", sizes)


def test_the_acceptor_needs_what_its_registers_say() -> None:
    made = own("acceptor")
    cost = bill(made, load("bmv2"))
    assert cost.fits
    groups, window = made.constants["GROUPS"], made.constants["WINDOW"]
    by_group = 32 + 32 + 64 + 64 + 32 * 5
    by_slot = 64 + 32 + 32 + 16 + 8 * 32
    assert sum(each.bits for each in cost.registers) == groups * (by_group + window * by_slot)
    assert {each.control for each in cost.registers} == {"ingress"}


def test_why_the_acceptor_is_no_tofino_program_as_it_is_written() -> None:
    """A vote is compared and stored in different stages, and its value is wider than a cell."""
    lacking = "\n".join(str(each) for each in bill(own("acceptor"), load("tofino")).excess)
    assert "stages that access Acceptor.slot_round" in lacking
    assert "bits of a cell of Acceptor.slot_value" in lacking
    coordinator = bill(own("coordinator"), load("tofino"))
    assert coordinator.stages["ingress"] <= 12


# Targets


def test_the_projects_own_targets_can_be_read() -> None:
    assert set(NAMES) == {"bmv2", "tofino"}
    assert {load(name).name for name in NAMES} == set(NAMES)
    assert load("tofino").stages == 12
    assert load("bmv2").stages is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = ", "this is not TOML"),
        ("[limits]\n", '"name": the key is missing'),
        ('name = "x"\nlimit = 3\n', 'did you mean "limits"?'),
        ('name = "x"\n[limits]\nstage = 3\n', 'did you mean "stages"?'),
        ('name = "x"\n[limits]\nstages = -1\n', "found -1, allowed is a whole number from 0"),
        ('name = "x"\n[model]\nmultiplies = true\n', 'allowed is "yes" or "no"'),
    ],
)
def test_a_wrong_profile_is_told(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "target.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)) as told:
        load(str(path))
    assert str(path) in str(told.value)


def test_an_unknown_target_is_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"neither a known one \(bmv2, tofino\) nor a file"):
        load(str(tmp_path / "none"))
