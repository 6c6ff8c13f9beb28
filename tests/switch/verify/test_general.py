"""What is asked of any program, on small ones: each is right, or wrong at one place."""

from __future__ import annotations

import pytest

from switch.lang import load
from switch.verify.verifier import GENERAL, Report, verify

PROGRAM = """
#include <core.p4>
#include <v1model.p4>
header h_t { bit<8> kind; bit<8> at; bit<16> data; }
header other_t { bit<8> data; }
struct headers_t { h_t h; other_t other; }
struct metadata_t { bit<8> note; }
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta,
         inout standard_metadata_t standard_metadata) {
    state start {
        packet.extract(hdr.h);
        transition select(hdr.h.kind) { 7: more; default: accept; }
    }
    state more { packet.extract(hdr.other); transition accept; }
}
control V(inout headers_t hdr, inout metadata_t meta) { apply { } }
control I(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    register<bit<16>>(200) cells;
    register<bit<16>>(256) all_cells;
    bit<16> value = 0;
    action drop() { mark_to_drop(standard_metadata); }
    action send(bit<9> port) {
        ASSUME
        standard_metadata.egress_spec = port;
    }
    action give_up() { mark_to_drop(standard_metadata); exit; }
    action leave() { if (hdr.h.kind == 1) { return; } hdr.h.data = 9; }
    table forward {
        key = { hdr.h.kind: exact; }
        actions = { send; drop; }
        const default_action = drop();
    }
    table fixed {
        key = { hdr.h.at: ternary; }
        actions = { send; drop; }
        const entries = { 8w0 &&& 8w1: send(3); 8w1: send(4); }
        const default_action = drop();
    }
    apply {
        if (!hdr.h.isValid()) { drop(); return; }
        BODY
    }
}
control E(inout headers_t hdr, inout metadata_t meta, inout standard_metadata_t standard_metadata) {
    EGRESS
    apply { APPLY }
}
control U(inout headers_t hdr, inout metadata_t meta) { apply { } }
control D(packet_out packet, in headers_t hdr) {
    apply { packet.emit(hdr.h); packet.emit(hdr.other); }
}
V1Switch(P(), V(), I(), E(), U(), D()) main;
"""
REAL_PORT = "assume(port != 0 && port != 511);"
SEND = "standard_metadata.egress_spec = 5;"


def report(body: str, *, assumed: str = REAL_PORT, egress: str = "", apply: str = "") -> Report:
    text = PROGRAM.replace("BODY", body).replace("ASSUME", assumed)
    text = text.replace("EGRESS", egress).replace("APPLY", apply)
    return verify(load("small.p4", {}, {"small.p4": text}), processes=1)


RIGHT = {
    "behind the parser's condition": "if (standard_metadata.parser_error == error.NoError"
    f" && hdr.h.kind == 7) {{ value = (bit<16>) hdr.other.data; }}{SEND}",
    "behind isValid": f"if (hdr.other.isValid() && hdr.other.data == 1) {{ value = 1; }} {SEND}",
    "made valid": f"hdr.other.setValid(); hdr.other.data = 1; value = 1; {SEND}",
    "an index bounded": f"if (hdr.h.at < 200) {{ cells.read(value, (bit<32>) hdr.h.at); }} {SEND}",
    "an index that cannot be too large": f"all_cells.write((bit<32>) hdr.h.at, 1); {SEND}",
    "what was written is read": "if (hdr.h.at < 200) { cells.write((bit<32>) hdr.h.at, 3);"
    f" cells.read(value, (bit<32>) hdr.h.at); assert(value == 3); }} {SEND}",
    "another cell stays": "cells.read(value, 7); cells.write(8, 1); bit<16> again = 0;"
    f" cells.read(again, 7); assert(value == again); {SEND}",
    "a table": "forward.apply();",
    "an exit": f"{SEND} if (hdr.h.kind == 2) {{ give_up(); }} assert(hdr.h.kind != 2);",
    "a return": f"hdr.h.data = 0; leave(); assert(hdr.h.kind == 1 || hdr.h.data == 9); {SEND}",
    "entries in their order": "fixed.apply(); assert(hdr.h.at == 0 || hdr.h.at & 1 == 0"
    " == (standard_metadata.egress_spec == 3));",
    "a hit": f"if (!fixed.apply().hit) {{ assert(hdr.h.at & 1 == 1 && hdr.h.at != 1); }} {SEND}",
    "an assumption": f"assume(hdr.h.data < 9); assert(hdr.h.data < 10); {SEND}",
    "a multicast": f"{SEND} standard_metadata.mcast_grp = 1;",
    "arithmetic": "assert(hdr.h.data |+| 1 != 0); assert(hdr.h.data + 1 - 1 == hdr.h.data);"
    f" {SEND}",
}


@pytest.mark.parametrize("body", RIGHT.values(), ids=RIGHT.keys())
def test_a_right_program_passes(body: str) -> None:
    found = report(body)
    assert {finding.name for finding in found.findings} == GENERAL.keys()
    assert [(each.name, each.text) for each in found.broken] == []


WRONG = {
    "a header that may not be there": (
        "header", f"if (hdr.other.data == 1) {{ value = 1; }} {SEND}",
        "hdr.other valid where hdr.other.data is read",
    ),
    "a packet that ends too soon": (
        "header", f"if (hdr.h.kind == 7) {{ value = (bit<16>) hdr.other.data; }} {SEND}", "is read",
    ),
    "or instead of and": (
        "header", f"if (hdr.other.isValid() || hdr.other.data == 1) {{ value = 1; }} {SEND}",
        "is read",
    ),
    "a field of no header": ("header", f"hdr.other.data = 1; {SEND}", "is written"),
    "an index": ("index", f"cells.read(value, (bit<32>) hdr.h.at); {SEND}", "I.cells below 200"),
    "an index by one": (
        "index", f"if (hdr.h.at <= 200) {{ cells.write((bit<32>) hdr.h.at, 1); }} {SEND}", "200",
    ),
    "no fate": ("fate", f"if (hdr.h.kind == 1) {{ {SEND} }}", "every packet dropped, sent"),
    "port 0": ("fate", "standard_metadata.egress_spec = (bit<9>) hdr.h.kind;", "port 0"),
    "dropped and sent": ("fate", "drop(); standard_metadata.mcast_grp = 1;", "both dropped"),
    "an assert": ("assert", f"assert(hdr.h.data != 77); {SEND}", "hdr.h.data != 77"),
    "an assumption too late": (
        "assert", f"assert(hdr.h.data < 10); assume(hdr.h.data < 9); {SEND}", "hdr.h.data < 10",
    ),
    "a value that wraps": ("assert", f"assert(hdr.h.data + 1 != 0); {SEND}", "hdr.h.data + 1"),
    "a variable": ("unset", f"bit<16> late; value = late; {SEND}", "set before it is read"),
    "a table's second action": (
        "assert", "forward.apply(); assert(standard_metadata.egress_spec != 511);", "511",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("property", "body", "text"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_program_is_refuted(property: str, body: str, text: str) -> None:
    found = report(body)
    assert [finding.name for finding in found.broken] == [property] * len(found.broken)
    assert text in found.broken[0].text
    for finding in found.broken:
        assert finding.differences == []


def test_a_port_of_the_control_plane_is_any_port_until_assumed() -> None:
    assert not report("forward.apply();").broken
    (finding,) = report("forward.apply();", assumed="").broken
    assert "port 0" in finding.text
    assert finding.counterexample is not None
    (rule,) = finding.counterexample.rules
    assert rule.call.action == "I.send"
    assert rule.call.arguments == (0,)
    assert finding.differences == []


def test_registers_are_for_ingress() -> None:
    found = report(SEND, egress="register<bit<8>>(1) late;", apply="late.write(0, 1);")
    assert [finding.name for finding in found.broken] == ["stage"]


def test_an_unknown_property_is_told_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no property indx of small; did you mean index\?"):
        verify(load("small.p4", {}, {"small.p4": PROGRAM.replace("ASSUME", "").replace(
            "BODY", SEND).replace("EGRESS", "").replace("APPLY", "")}), ["indx"])  # fmt: skip
