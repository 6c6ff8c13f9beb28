"""What statements and expressions become, seen by what the program then does to a packet."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.lang import ir, load
from switch.lang.errors import P4Error
from switch.lang.interpreter import Interpreter
from switch.lang.ir import Assign, Bits, Bool, Const, If, Read, Return
from switch.lang.returns import without_returns
from switch.lang.types import STANDARD_METADATA, Scalar, carrier
from switch.lang.values import Frame, Scope, Unit
from tests.switch.lang.texts import FILE, program, text


def run(made: ir.Program, packet: bytes = b"\x01\x02\x00\x03") -> bytes:
    ((_, sent),) = Interpreter(made, strict=True).process(1, packet)
    return sent


def result(apply: str, locals: str = "", top: str = "", packet: bytes = b"\x01\x02\x00\x03") -> int:
    """What the program leaves in meta.wide."""
    made = program(f"{apply}\nhdr.tag.number = meta.wide;", locals, top)
    return int.from_bytes(run(made, packet)[2:4])


# Expressions


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3", 7),
        ("(bit<16>) (8w255 + 8w1)", 0),
        ("(bit<16>) (8w200 |+| 8w100)", 255),
        ("(bit<16>) (8w1 |-| 8w2)", 0),
        ("8w1 ++ 8w2", 0x0102),
        ("(bit<16>) 16w0x1234[11:4]", 0x23),
        ("(bit<16>) (int<16>) -8s1", 0xFFFF),
        ("(bit<16>) (bit<16>) (bit<8>) -8s1", 0x00FF),
        ("16w7 / 2 + 16w7 % 2", 4),
        ("16w1 << 3 | 16w0x8000 >> 15", 9),
        ("(bit<16>) ((int<16>) 16w0x8000 >> 15)", 0xFFFF),
        ("true ? 16w1 : 16w2", 1),
        ("-8s1 < 1 && 8w255 > 1 ? 16w1 : 16w2", 1),
        ("~16w0 & 16w0xF0 ^ 16w0xFF", 0x0F),
        ("(bit<16>) (bit<1>) true", 1),
        ("(bit<16>) (bit<8>) 300", 44),
        ("1 << 15", 0x8000),
    ],
)
def test_what_is_known_is_folded(expression: str, value: int) -> None:
    made = program(f"meta.wide = {expression};")
    (assignment,) = made.ingress.body
    assert isinstance(assignment, ir.Assign)
    assert assignment.value == ir.Const(value, Bits(16))


OPERANDS = st.integers(0, 255)


@st.composite
def terms(draw: st.DrawFn, depth: int = 2) -> str:
    """An expression of bit<8> over the names x and y and z."""
    if depth == 0:
        return draw(st.sampled_from(["x", "y", "z"]))
    one, two = draw(terms(depth - 1)), draw(terms(depth - 1))
    form = draw(st.sampled_from([
        "({0} + {1})", "({0} - {1})", "({0} * {1})", "({0} |+| {1})", "({0} |-| {1})",
        "({0} & {1})", "({0} | {1})", "({0} ^ {1})", "({0} << ({1} & 7))", "({0} >> ({1} & 15))",
        "(~{0})", "(-{0})", "({0} < {1} ? {0} : {1})", "({0} == {1} ? 8w3 : {1})",
        "(bit<8>) ((int<8>) {0} >> ({1} & 7))", "({0}[3:0] ++ {1}[7:4])",
        "((int<8>) {0} <= (int<8>) {1} ? {0} : 8w9)", "({0} / ({1} | 1))", "({0} % ({1} | 1))",
        "(bit<8>) ((int<8>) {0} |+| (int<8>) {1})", "((bit<16>) {0} * (bit<16>) {1})[11:4]",
        "(bit<8>) (bit<16>) ((int<16>) (int<8>) {0} - (int<16>) (int<8>) {1})",
    ]))  # fmt: skip
    return f"({form.format(one, two)})"


@settings(max_examples=12, deadline=None)
@given(st.lists(terms(), min_size=4, max_size=4), OPERANDS, OPERANDS, OPERANDS)
def test_folding_and_running_agree(drawn: list[str], x: int, y: int, z: int) -> None:
    known = f"const bit<8> x = {x}; const bit<8> y = {y}; const bit<8> z = {z};"
    folded = program(f"{known} {' '.join(f'meta.a = {term};' for term in drawn)}").ingress.body
    expected = [each.value.value for each in folded if isinstance(each, Assign)
                and isinstance(each.value, Const)]  # fmt: skip
    names = "bit<8> x = hdr.tag.kind; bit<8> y = hdr.tag.port; bit<8> z = hdr.tag.number[7:0];"
    results = ("kind", "port", "number[15:8]", "number[7:0]")
    assigned = " ".join(f"hdr.tag.{to} = {term};" for to, term in zip(results, drawn, strict=True))
    assert list(run(program(f"{names} {assigned}"), bytes((x, y, 0, z)))) == expected


def test_what_an_operand_does_comes_first_and_only_if_it_is_asked() -> None:
    """t is asked only where && goes on; what was read before it is what it was."""
    table = """
        action touch() { meta.a = meta.a + 1; }
        table t { key = { hdr.tag.kind: exact; } actions = { touch; NoAction; }
                  const entries = { 1: touch(); } }
    """
    count = "meta.a = 0; {} meta.wide = (bit<16>) meta.a;"
    asked = "if (hdr.tag.port == {} && t.apply().hit) {{ meta.a = meta.a + 10; }}"
    assert result(count.format(asked.format(2)), table) == 11
    assert result(count.format(asked.format(3)), table) == 0
    otherwise = "if (hdr.tag.port == {} || t.apply().miss) {{ meta.a = meta.a + 10; }}"
    assert result(count.format(otherwise.format(2)), table) == 10
    assert result(count.format(otherwise.format(3)), table) == 1
    choice = "meta.b = hdr.tag.port == {} ? (t.apply().hit ? 8w5 : 8w6) : 8w7;"
    both = "meta.a = 0; {} meta.wide = meta.a ++ meta.b;"
    assert result(both.format(choice.format(2)), table) == 0x0105
    assert result(both.format(choice.format(3)), table) == 0x0007
    before = "meta.a = 0; meta.b = meta.a + (t.apply().hit ? 8w1 : 8w0);"
    assert result(f"{before} meta.wide = meta.a ++ meta.b;", table) == 0x0101


# Assignments


@pytest.mark.parametrize(
    ("statements", "value"),
    [
        ("meta.wide = 0; meta.wide[11:4] = 0xAB;", 0x0AB0),
        ("meta.wide = 0; meta.wide[11:4][3:0] = 0xF;", 0x00F0),
        ("hdr.tag = { hdr.tag.port, hdr.tag.kind, 7 }; "
         "meta.wide = hdr.tag.kind ++ hdr.tag.port;", 0x0201),
        ("hdr.tag = { number = 9, kind = 1, port = 2 }; meta.wide = hdr.tag.number;", 9),
        ("hdr.other = hdr.tag; hdr.tag.number = 5; meta.wide = hdr.other.number;", 3),
        ("hdr.other = hdr.tag; meta.wide = hdr.other.isValid() ? 16w1 : 16w2;", 1),
        ("tag_t t; hdr.tag = t; meta.wide = hdr.tag.isValid() ? 16w1 : 16w2; "
         "hdr.tag.setValid();", 2),
        ("tag_t t = hdr.tag; meta.wide = t.number + 1;", 4),
        ("metadata_t m = meta; m.wide = 8; meta = m;", 8),
        ("hdr.other.setValid(); hdr.other.setInvalid(); "
         "meta.wide = hdr.other.isValid() ? 16w1 : 16w2;", 2),
        ("bit<16> x = 1; { bit<16> x = 2; meta.wide = x; } meta.wide = meta.wide ++ 8w0 == 0 ? "
         "16w9 : meta.wide + x;", 3),
    ],
)  # fmt: skip
def test_assignments(statements: str, value: int) -> None:
    assert result(statements) == value


def test_a_list_is_copied_only_if_it_names_what_it_goes_to() -> None:
    made = program("hdr.tag = { meta.a, meta.b, meta.wide };")
    assert not [name for name in made.variables if "$value" in name]


# Actions


def test_arguments_go_in_and_come_back() -> None:
    actions = """
        action add(in bit<8> x, inout bit<8> y, out bit<16> z) {
            y = x + y;
            z = (bit<16>) y;
            if (y > 10) { return; }
            y = 0;
        }
        action set(bit<16> x) { meta.wide = x; }
    """
    assert result("meta.a = 5; add(6, meta.a, meta.wide); "
                  "meta.wide = meta.wide + (bit<16>) meta.a;", actions) == 22  # fmt: skip
    assert result("meta.a = 5; add(z = meta.wide, x = 2, y = meta.a); "
                  "meta.wide = meta.wide + (bit<16>) meta.a;", actions) == 7  # fmt: skip
    assert result("set(300);", actions) == 300


def test_a_slice_and_a_header_can_be_handed_to_an_action() -> None:
    actions = """
        action invert(inout bit<8> x) { x = ~x; }
        action clear(inout tag_t t) { t.number = 0; t.setInvalid(); }
    """
    assert result("meta.wide = 0; invert(meta.wide[11:4]);", actions) == 0x0FF0
    assert result("clear(hdr.tag); meta.wide = hdr.tag.isValid() ? 16w1 : 16w2; "
                  "hdr.tag.setValid();", actions) == 2  # fmt: skip


def test_exit_ends_the_control_from_within_an_action() -> None:
    made = program("hdr.tag.kind = 9; leave(); hdr.tag.kind = 10;", "action leave() { exit; }")
    assert run(made)[0] == 9


# switch


@pytest.mark.parametrize(("kind", "value"), [(1, 10), (2, 20), (3, 20), (4, 40), (9, 40)])
def test_switch_on_a_value(kind: int, value: int) -> None:
    cases = "1: { meta.wide = 10; hdr.tag.kind = 4; } 2: 3: { meta.wide = 20; }"
    body = f"switch (hdr.tag.kind) {{ {cases} default: {{ meta.wide = 40; }} }}"
    assert result(body, packet=bytes((kind, 2, 0, 3))) == value


@pytest.mark.parametrize(("kind", "value"), [(1, 1), (2, 2), (3, 0), (9, 3)])
def test_switch_on_the_action_that_ran(kind: int, value: int) -> None:
    table = """
        action a() { } action b() { } action c() { }
        table t { key = { hdr.tag.kind: exact; } actions = { a; b; c; }
                  const entries = { 1: a(); 2: b(); 3: c(); } }
    """
    body = """
        meta.wide = 0;
        switch (t.apply().action_run) {
            a: { meta.wide = 1; }
            b: { meta.wide = 2; }
            NoAction: { meta.wide = 3; }
        }
    """
    assert result(body, table, packet=bytes((kind, 2, 0, 3))) == value


# Controls in controls


INNER = """
control Inner(inout bit<16> total, in bit<16> by)(bit<16> step) {
    register<bit<16>>(4) calls;
    bit<16> seen = 7;
    action add() { total = total + by + step; }
    apply {
        bit<16> before;
        calls.read(before, 0);
        calls.write(0, before + 1);
        if (by == 0) { return; }
        if (by == 9) { exit; }
        add();
        if (by == 1) { seen = 0; return; } else { seen = seen + 1; }
        total = total + seen;
    }
}
"""


@pytest.mark.parametrize(
    ("applied", "value"),
    [
        ("i.apply(meta.wide, 0);", 0),
        ("i.apply(meta.wide, 1);", 101),
        ("i.apply(meta.wide, 2);", 110),
        ("i.apply(meta.wide, 2); i.apply(meta.wide, 2);", 220),  # `seen` begins anew
        ("i.apply(meta.wide, 1); j.apply(meta.wide, 1);", 1102),
        ("i.apply(by = 1, total = meta.wide);", 101),
        ("bit<16> x = 5; i.apply(x, 1); meta.wide = x;", 106),
    ],
)
def test_a_control_is_put_in_where_it_is_applied(applied: str, value: int) -> None:
    assert result(f"meta.wide = 0; {applied}", "Inner(100) i; Inner(1000) j;", INNER) == value


def test_exit_of_an_inner_control_ends_the_outer_one() -> None:
    made = program(
        "hdr.tag.kind = 1; i.apply(meta.wide, 9); hdr.tag.kind = 2;", "Inner(1) i;", INNER
    )
    assert run(made)[0] == 1


def test_instances_have_their_own_registers_and_actions() -> None:
    made = program("i.apply(meta.wide, 1); j.apply(meta.wide, 1); i.apply(meta.wide, 1);",
                   "Inner(1) i; Inner(2) j;", INNER)  # fmt: skip
    switch = Interpreter(made)
    switch.process(1, b"\x01\x02\x00\x03")
    assert {name: cells[0] for name, cells in switch.registers.items()} == {
        "I.i.calls": 2, "I.j.calls": 1,
    }  # fmt: skip
    assert {"I.i.add", "I.j.add"} <= set(made.actions)


def test_a_control_can_be_applied_by_its_type() -> None:
    top = "control Set(out bit<16> x) { apply { x = 77; } }"
    assert result("Set.apply(meta.wide);", "", top) == 77


def test_an_argument_that_is_part_of_another_is_copied_or_refused() -> None:
    top = "control Both(inout bit<8> x, in bit<8> y) { apply { x = 1; x = x + y; } }"
    assert result("meta.a = 5; Both.apply(meta.a, meta.a); meta.wide = (bit<16>) meta.a;",
                  "", top) == 6  # fmt: skip
    top = "control Both(inout metadata_t m, inout bit<8> x) { apply { m.a = 1; x = x + 1; } }"
    with pytest.raises(P4Error, match="not supported: an argument that is part of another one"):
        program("Both.apply(meta, meta.a);", "", top)


def test_an_exit_never_loses_what_was_to_be_copied_back() -> None:
    with pytest.raises(P4Error, match="not supported: exit in Inner, whose changed arguments"):
        program("bit<32> x = 0; i.apply(x[15:0], 1);", "Inner(1) i;", INNER)
    action = "action a(out bit<8> x) { x = 1; exit; }"
    with pytest.raises(P4Error, match=r"not supported: exit in I\.a, which has out parameters"):
        program("a(meta.a);", action)


def test_a_control_with_tables_is_used_in_one_role() -> None:
    """One without anything of its own may be both, as checksums that nobody makes."""
    whole = text("", "action a() { }")
    twice = whole.replace("V(), I(), E(), U()", "V(), I(), I(), V()")
    with pytest.raises(P4Error, match="not supported: I as ingress and as egress; declare one"):
        load(FILE, None, {FILE: twice})
    once = whole.replace("V(), I(), E(), U()", "V(), I(), E(), V()")
    assert load(FILE, None, {FILE: once}).update.name == "V"


def test_an_instance_is_applied_with_the_same_arguments_each_time() -> None:
    with pytest.raises(P4Error, match="not supported: Inner applied again with other arguments"):
        program("bit<16> x = 0; i.apply(meta.wide, 1); i.apply(x, 1);", "Inner(1) i;", INNER)


def test_an_out_header_is_invalid_at_first() -> None:
    top = "control New(out tag_t t) { apply { } }"
    body = "New.apply(hdr.tag); meta.wide = hdr.tag.isValid() ? 16w1 : 16w2; hdr.tag.setValid();"
    assert result(body, "", top) == 2


# return


READS = {name: Read(name, Bool()) for name in "pqr"}


@st.composite
def blocks(draw: st.DrawFn, depth: int = 2) -> ir.Block:
    """Each statement leaves a mark of its own, so that two runs can be compared."""
    made: list[ir.Statement] = []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["mark", "if", "return"] if depth else ["mark", "return"]))
        if kind == "mark":
            made.append(Assign("mark", Const(draw(st.integers(0, 99)), Bits(8))))
        elif kind == "return":
            made.append(Return())
        else:
            condition = READS[draw(st.sampled_from("pqr"))]
            then, other = draw(blocks(depth - 1)), draw(blocks(depth - 1))
            made.append(If(condition, then, other))
    return tuple(made)


class Returned(Exception):
    pass


def walk(block: ir.Block, values: dict[str, int], marks: list[int]) -> None:
    for each in block:
        match each:
            case Return():
                raise Returned
            case Assign("mark", Const(value)):
                marks.append(value)
            case Assign(path, Const(value)):
                values[path] = value
            case If(Read(path), then, other):
                walk(then if values[path] else other, values, marks)
            case If(ir.Unary("!", Read(path)), then, other):
                walk(other if values[path] else then, values, marks)
            case _:
                raise AssertionError(each)


@settings(max_examples=100, deadline=None)
@given(blocks())
def test_without_its_returns_a_block_does_the_same(block: ir.Block) -> None:
    rewritten = without_returns(Frame(Unit(), "c", Scope(), "control"), block)
    for bits in range(8):
        values = {"p": bits & 1, "q": bits >> 1 & 1, "r": bits >> 2}
        expected: list[int] = []
        with suppress(Returned):
            walk(block, dict(values), expected)
        found: list[int] = []
        walk(rewritten, dict(values), found)
        assert found == expected


# Parsers


def parsed(parser: str, packet: bytes) -> bytes:
    head = (
        "parser P(packet_in packet, out headers_t hdr, inout metadata_t meta,\n"
        "inout standard_metadata_t standard_metadata) {\n"
    )
    return run(program("", parser=f"{parser.replace('P {', head)}"), packet)


def test_parsers_in_parsers() -> None:
    """A state goes on behind the accept of the one it applies; its reject is everybody's."""
    whole = """
        parser Q(packet_in packet, inout tag_t t, out bit<8> found) {
            bit<8> count = 1;
            state start {
                packet.extract(t);
                transition select(t.kind) { 1: more; 2: accept; default: reject; }
            }
            state more { count = count + 1; transition twice; }
            state twice { found = count; transition accept; }
        }
        P {
            Q() q;
            state start {
                bit<8> n = 0;
                q.apply(packet, hdr.tag, n);
                hdr.tag.port = n;
                transition select(n) { 2: again; default: accept; }
            }
            state again {
                bit<8> n;
                q.apply(packet, hdr.tag, n);
                hdr.tag.number[15:8] = n;
                transition accept;
            }
        }
    """
    assert parsed(whole, bytes((2, 9, 9, 9))) == bytes((2, 0, 9, 9))
    assert parsed(whole, bytes((1, 9, 9, 9, 1, 8, 8, 8))) == bytes((1, 8, 2, 8))
    assert parsed(whole, bytes((3, 9, 9, 9))) == bytes((3, 9, 9, 9))


def test_lookahead_of_a_header_takes_nothing() -> None:
    body = """
        P {
            state start {
                tag_t ahead = packet.lookahead<tag_t>();
                bit<8> first = packet.lookahead<bit<8>>();
                packet.extract(hdr.tag);
                hdr.tag.kind = ahead.number[7:0];
                hdr.tag.port = first;
                transition accept;
            }
        }
    """
    assert parsed(body, bytes((1, 2, 3, 4, 5))) == bytes((4, 1, 3, 4, 5))


def test_a_start_that_is_gone_back_to_must_not_begin_anew() -> None:
    body = "P { bit<8> n = 0; state start { transition select(n) { 0: start; _: accept; } } }"
    with pytest.raises(P4Error, match="not supported: a transition to start in a parser whose"):
        parsed(body, b"")


# Tables


def test_matches_of_entries() -> None:
    keys = "hdr.tag.kind: exact; hdr.tag.port: ternary; hdr.tag.number: lpm; meta.a: range; "
    made = program("", f"""
        action a(bit<8> x, bool y) {{ }}
        table t {{
            key = {{ {keys} meta.b: optional; }}
            actions = {{ a; }}
            entries = {{
                (1, 2, 3, 4, 5): a(6, true);
                (1, 2 &&& 0xf2, 0xab00 &&& 0xff00, 4 .. 8, _): a(y = false, x = 7);
                (1, _, default, _, 5): a(8, 1 == 1);
            }}
        }}
    """)  # fmt: skip
    table = made.tables["I.t"]
    any_ = ir.Match("any")
    assert [entry.matches for entry in table.entries] == [
        (ir.Match("exact", 1), ir.Match("ternary", 2, 0xFF), ir.Match("lpm", 3, 0xFFFF),
         ir.Match("range", 4, 0, 4), ir.Match("exact", 5)),
        (ir.Match("exact", 1), ir.Match("ternary", 2, 0xF2), ir.Match("lpm", 0xAB00, 0xFF00),
         ir.Match("range", 4, 0, 8), any_),
        (ir.Match("exact", 1), any_, any_, any_, ir.Match("exact", 5)),
    ]  # fmt: skip
    assert [entry.call.arguments for entry in table.entries] == [(6, 1), (7, 0), (8, 1)]
    assert (table.actions, table.default) == (("I.a", "NoAction"), ir.ActionCall("NoAction"))
    assert (table.size, table.entries_are_const) == (1024, False)


@pytest.mark.parametrize(
    ("apply", "refused"),
    [
        ("t.apply(); t.apply();", True),
        ("if (meta.flag) { t.apply(); } t.apply();", True),
        ("if (t.apply().hit) { meta.a = t.apply().hit ? 8w1 : 8w2; }", True),
        ("if (meta.flag) { t.apply(); } else { t.apply(); }", False),
        ("if (meta.flag) { t.apply(); return; } t.apply();", False),
        ("if (meta.flag) { exit; } else { t.apply(); exit; } t.apply();", False),
    ],
)
def test_no_table_is_applied_twice_for_one_packet(apply: str, refused: bool) -> None:
    table = "table t { key = { meta.a: exact; } actions = { NoAction; } }"
    if not refused:
        assert program(apply, table).tables
        return
    with pytest.raises(P4Error, match=r"not supported: I\.t applied twice for one packet") as told:
        program(apply, table)
    assert told.value.where.column == apply.rindex("t.apply") + 1


# The program


def test_v1model_is_what_the_representation_says() -> None:
    fields = {
        f"standard_metadata.{name}": carrier(type_)
        for name, type_ in STANDARD_METADATA.fields
        if isinstance(type_, Scalar)
    }
    assert fields == ir.STANDARD_METADATA


def test_constants_are_there_for_tests_and_control_planes() -> None:
    top = "const bit<16> A = 1 << 4; const int B = A * 2 == 32 ? 3 : 4; const int<8> C = -1;"
    assert program("", "", top.replace("A * 2", "(int) A * 2")).constants == {
        "A": 16, "B": 3, "C": -1,
    }  # fmt: skip


def test_asserts_keep_the_words_of_the_author() -> None:
    made = program("assert(meta.a<1 || hdr.tag.isValid()); assume(meta.b == 2);")
    first, second = made.ingress.body
    assert isinstance(first, ir.Assert)
    assert first.text == "meta.a < 1 || hdr.tag.isValid()"
    assert (first.where.line, first.where.column) == (22, 1)
    assert isinstance(second, ir.Assume)


def test_dead_branches_are_checked_but_left_out() -> None:
    made = program("if (SIZE > 8) { meta.a = 1; } else { meta.a = 2; }",
                   top="const bit<8> SIZE = 4;")  # fmt: skip
    assert made.ingress.body == (Assign("meta.a", Const(2, Bits(8))),)
    with pytest.raises(P4Error, match="does not fit"):
        program("if (false) { meta.a = 256; }")
