"""What the printer gives parses to an equal tree."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from switch.lang import printer
from switch.lang import syntax as s
from switch.lang.builder import PRECEDENCE
from switch.lang.parser import parse

ROOT = Path(__file__).parents[3]
PROGRAMS = [
    ROOT / "switch" / "p4" / "coordinator.p4",
    ROOT / "switch" / "p4" / "acceptor.p4",
    *sorted((Path(__file__).parent / "examples").glob("*r.p4")),
    Path(__file__).parent / "examples" / "firewall.p4",
]

RARE = """\
#include <v1model.p4>

enum bit<8> Kind { A = 1, B = A2 + 1 }
enum Plain { X, Y }
error { Mine }
match_kind { fuzzy }
@hidden typedef int<8> small;
@a("b", 1 + 2) @c[d = 3] const bool FLAG = !(true || false) && true;
const bit<(1 + 7)> W = - -1;
header h { @f bit type; small key; Kind kind; error e; bit<32> state; }
parser Q(packet_in p, out h x) { state start { transition accept; } }
control Sub(in bit<8> x)(bit<8> size, bool flag) { apply { } }
parser P(packet_in p, out h x)(bit<8> size, bool flag) {
    const int N = 3;
    Q() q;
    @s state start { h y = { }; q.apply(p, x); transition accept; }
    state none { }
    state next {
        if (x.type == 1) { p.advance(8); } else p.advance(16);
        transition select(x.type, x.key) {
            (1, _): start;
            (1 &&& 3, 2 .. 4): none;
            _: reject;
        }
    }
}
control C(in h x) {
    @atomic action a(in bit<8> y, out bit<8> z, bit<8> w) { z = y; ; return; }
    Sub<bit<8>>(1, flag = true) sub;
    @name("t") table t {
        key = { x.type: exact @name("k"); x.key[3:0]: ternary; }
        actions = { @tableonly a; NoAction(); }
        const default_action = a(1);
        @pragma entries = { const (1, 2): a(w = 3) @prio(1); (default, 4): NoAction; }
        size = 3 + 4;
    }
    apply {
        @atomic { bit<8> n; }
        { }
        if (t.apply().hit) { if (a) b(); else c(); } else if (d) e(_); else { f(); }
        switch (t.apply().action_run) { a: default: { exit; } }
        switch (x.type) { 1: { } Kind.A: { g(); } }
        x = (h) { type = 1, key = (small) ~y };
        n = a ? b ? 1 : 2 : (c ? 3 : 4);
        n = (a ? b : c) ? 5 : 6;
        m = error.Mine;
        k = p.lookahead<bit<8>>() ++ (k >> 1 > 2 ? 8w1 : 8w0);
        l[7:0][3:0] = -(-1) - -1;
        s = { 1, { 2, 3 } };
        log_msg("x = {}\\n", { x });
    }
}
"""


def round_trip(tree: s.Program) -> s.Program:
    return parse("f.p4", None, {"f.p4": printer.program(tree)})


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_programs_come_back(path: Path) -> None:
    tree = parse(path)
    assert round_trip(tree) == tree


def test_rare_forms_come_back() -> None:
    tree = parse("f.p4", None, {"f.p4": RARE})
    assert round_trip(tree) == tree
    again = printer.program(round_trip(tree))
    assert again == printer.program(tree)


def test_it_prints_as_people_write() -> None:
    text = "#include <v1model.p4>\n\nconst bit<8> A = (1 + 2) * 3 + f(~x[7:0]);\n"
    assert printer.program(parse("f.p4", None, {"f.p4": text})) == text


NAMES = st.sampled_from(["a", "b", "type", "key"]).map(s.Name)
NUMBERS = st.sampled_from(["0", "0x1F", "8w255", "4s0b01"]).map(s.Number)
TYPES = st.sampled_from([
    s.BitType(s.Number("8"), False), s.BitType(s.Name("W"), True), s.PlainType("bool"),
])  # fmt: skip


def operations(inner: st.SearchStrategy[s.Expression]) -> st.SearchStrategy[s.Expression]:
    operators = st.sampled_from(sorted(PRECEDENCE))
    arguments = st.lists(st.builds(s.Argument, inner), max_size=2).map(tuple)
    return st.one_of(
        st.builds(s.Unary, st.sampled_from("-+~!"), inner),
        st.builds(s.Binary, operators, inner, inner),
        st.builds(s.Choice, inner, inner, inner),
        st.builds(s.Cast, TYPES, inner),
        st.builds(s.Member, inner.filter(lambda each: not isinstance(each, s.Several)),
                  st.sampled_from(["x", "apply", "state"])),
        st.builds(s.Slice, NAMES, inner, inner),
        st.builds(s.Call, NAMES, st.just(()), arguments),
        st.builds(s.Several, arguments),
    )  # fmt: skip


EXPRESSIONS = st.recursive(st.one_of(NAMES, NUMBERS), operations, max_leaves=12)


@settings(max_examples=60, deadline=None)
@given(st.lists(EXPRESSIONS, min_size=1, max_size=8))
def test_any_expression_comes_back(expressions: list[s.Expression]) -> None:
    constants = tuple(s.Constant(s.PlainType("bool"), "A", each) for each in expressions)
    tree = s.Program("f.p4", (), constants)
    assert round_trip(tree) == tree
