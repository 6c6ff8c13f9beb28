"""A gallery of wrong programs: each is told where and what, in one line.

A place is counted from the line behind the mark of the part that is wrong.
"""

from __future__ import annotations

import pytest

from switch.lang import load
from switch.lang.errors import P4Error
from tests.switch.lang.texts import FILE, text

APPLY = [
    ("meta.a = 256;", 1, 10, "256 does not fit bit<8>: expected 0 to 255"),
    ("meta.a = -1;", 1, 10, "-1 does not fit bit<8>: expected 0 to 255"),
    ("meta.signed = 128;", 1, 15, "128 does not fit int<8>: expected -128 to 127"),
    ("meta.a = 8w256;", 1, 10, "256 does not fit bit<8>: expected 0 to 255"),
    ("meta.a = meta.wide;", 1, 10,
     "found bit<16>, expected bit<8>; write (bit<8>) in front of it to cast it"),
    ("meta.a = meta.flag;", 1, 10, "found bool, expected bit<8>"),
    ("meta.flag = 1;", 1, 13, "found the number 1, expected bool"),
    ("meta.flag = meta.a;", 1, 13, "found bit<8>, expected bool"),
    ("meta.a = meta.a + meta.wide;", 1, 10,
     "+ of bit<8> and bit<16>: expected one type; cast one"),
    ("meta.flag = meta.a == meta.wide;", 1, 13,
     "== of bit<8> and bit<16>: expected one type; cast one"),
    ("meta.a = meta.a && meta.b;", 1, 10, "found bit<8>, expected bool; compare it: != 0"),
    ("if (meta.a) { }", 1, 5, "found bit<8>, expected bool; compare it: != 0"),
    ("if (1) { }", 1, 5, "found int, expected bool; compare it: != 0"),
    ("meta.a = !meta.a;", 1, 10, "found bit<8>, expected bool; compare it: != 0"),
    ("meta.a = ~1;", 1, 10, "1 has no width here: write 32w1, or cast"),
    ("meta.flag = ~meta.flag;", 1, 13, "~ of bool: expected bits"),
    ("meta.flag = meta.flag < true;", 1, 13, "< of bool: expected bits; it has no order"),
    ("meta.wide = meta.a ++ 1;", 1, 13, "1 has no width here: write 32w1, or cast"),
    ("meta.a = meta.a / 0;", 1, 10, "division by zero"),
    ("meta.signed = meta.signed / 2;", 1, 15, "/ of int<8>: it is for bit<> only"),
    ("meta.a = meta.a << meta.signed;", 1, 10,
     "a shift by int<8>: expected bit<>, which is never negative"),
    ("meta.a = meta.a << -1;", 1, 10, "a shift by -1: expected 0 to 65535"),
    ("meta.a = meta.wide[16:9];", 1, 10,
     "the slice [16:9] of bit<16>: expected 15 >= high >= low >= 0"),
    ("meta.a = meta.wide[0:7];", 1, 10,
     "the slice [0:7] of bit<16>: expected 15 >= high >= low >= 0"),
    ("meta.a = meta.wide[meta.a:0];", 1, 20,
     "a bound of a slice must be known when the program is read: expected a constant"),
    ("meta.a = (bit<8>) meta.flag;", 1, 10, "bool cannot be cast to bit<8>"),
    ("meta.flag = (bool) meta.a;", 1, 13, "bit<8> cannot be cast to bool; compare it: != 0"),
    ("meta.wide = (bit<16>) meta.signed;", 1, 13,
     "int<8> cannot be cast to bit<16>; cast to int<16> first"),
    ("meta.a = meta.flag ? meta.a : meta.wide;", 1, 10,
     "? gives bit<8>, : gives bit<16>: expected one type; cast one"),
    ("meta.a = hdr;", 1, 10, "found struct headers_t, expected bit<8>"),
    ("hdr.tag = { 1, 2 };", 1, 11,
     "found a list of 2, expected the 3 fields of header tag_t"),
    ("hdr.tag = { kind = 1, port = 2, nmuber = 3 };", 1, 11,
     "the field number of header tag_t is missing in this list"),
    ("hdr.tag = hdr;", 1, 11, "found struct headers_t, expected header tag_t"),
    ("meta.flag = hdr.tag == hdr.other;", 1, 13,
     "== of header tag_t: expected bits; compare fields"),
    ("meta.c = 1;", 1, 1,
     "struct metadata_t has no field c; it has a, b, wide, signed, flag"),
    ("meta.sigend = 1;", 1, 1, "struct metadata_t has no field sigend; did you mean signed?"),
    ("mta.a = 1;", 1, 1, "mta is not declared; did you mean meta?"),
    ("meta.a.b = 1;", 1, 1, "a value of type bit<8> has no member b"),
    ("bit<8> x = 1;\nbit<8> x = 2;", 2, 1, "x is declared already, at test.p4:22:1"),
    ("const bit<8> x = 1;\nx = 2;", 2, 1, "x cannot be assigned: it is a constant"),
    ("const bit<8> x = meta.a;", 1, 18,
     "a constant's value must be known when the program is read"),
    ("x y;", 1, 3, "found y, expected ; or ="),
    ("bit<0> x;", 1, 1, "a width of 0: expected 1 to 65536"),
    ("bit<W> x;", 1, 5, "found W, expected ( or a number"),
    ("hdr.tag.setValid(1);", 1, 1, "setValid() takes no arguments"),
    ("hdr.setValid();", 1, 1, "setValid of struct headers_t: expected a header"),
    ("meta.flag = hdr.isValid();", 1, 13, "isValid of struct headers_t: expected a header"),
    ("hdr.tag.isValid();", 1, 1,
     "isValid() does nothing: expected setValid() or setInvalid()"),
    ("mark_to_drop();", 1, 1, "mark_to_drop has 0 arguments, expected 1: standard_metadata"),
    ("mark_to_drop(meta);", 1, 14, "found struct metadata_t, expected standard_metadata"),
    ("meta.a;", 1, 1, "this does nothing: expected a call or an assignment"),
    ("meta.a = 1", 2, 1, "found }, expected ;"),
    ("meta.a == 1;", 1, 8, "found ==, expected ; or ="),
    ("if meta.flag { }", 1, 4, "found meta, expected ("),
    ("switch (meta.a) { 1: { } 1: { } }", 1, 26, "this label is there already"),
    ("switch (meta.a) { default: { } 1: { } }", 1, 32, "expected nothing behind default"),
    ("switch (meta.a) { meta.b: { } }", 1, 23, "found ., expected :"),
    ("packet.emit(hdr.tag);", 1, 1, "packet is not declared"),
    ("meta.a = mark_to_drop(standard_metadata);", 1, 10,
     "a function gives no value: expected it as a statement"),
    ("verify(meta.flag, error.NoMatch);", 1, 1,
     "verify in a control: expected it in a parser"),
    ("meta.flag = standard_metadata.parser_error == error.Nothing;", 1, 47,
     "error has no Nothing"),
    ("hash(meta.wide, HashAlgorithm.crc32, 16w0, { meta.flag }, 16w8);", 1, 44,
     "a bool in a hash or checksum: expected bits; cast it to bit<1>"),
    ("hash(meta.wide, HashAlgorithm.xor16, 16w0, { meta.a }, 16w8);", 1, 17,
     "not supported: HashAlgorithm.xor16; crc32, crc16, csum16 and identity are"),
    ("random(meta.a, 0, 1);", 1, 1, "not supported: random of v1model"),
    ("clone(meta.a, 0);", 1, 1, "not supported: clone of v1model"),
    ("tag_t[2] stack;", 1, 6, "found [, expected "),
    ("meta.a = meta.wide[3];", 1, 10,
     "not supported: header stacks and other indices; declare each header"),
    ("for (bit<8> i = 0; i < 3; i = i + 1) { }", 1, 1, "not supported: loops"),
    ("varbit<8> x;", 1, 1, "not supported: varbit; headers have a fixed size here"),
    ("meta.a = 12abc;", 1, 10, "12abc is no number, such as 10, 0x0A or 8w10"),
    ("meta.a = 'c';", 1, 10, 'the character "\'" means nothing in P4'),
    ('log_msg("x);', 1, 9, 'this string is never closed: expected " in the same line'),
    ("/* never", 1, 1, "this comment is never closed: expected */"),
]  # fmt: skip

LOCALS = [
    ("action a() { b(); }", 1, 14, "b is not declared"),
    ("action a() { a(); }", 1, 14, "a is not declared"),
    ("action a(in bit<8> x) { x = 1; }", 1, 25, "x cannot be assigned: it can only be read"),
    ("action a(bit<8> x) { x = 1; }", 1, 22, "x cannot be assigned: it can only be read"),
    ("action a(bit<8> x, in bit<8> y) { }", 1, 1,
     "a: expected parameters without a direction last; tables give them"),
    ("action a(tag_t x) { }", 1, 10, "x has type header tag_t: a table can only give bits"),
    ("action a() { t.apply(); }", 1, 14, "t is not declared"),
    ("table t { key = { meta.a: exact; } }", 1, 1, "table t has no actions: expected actions = {}"),
    ("table t { actions = { a; } }", 1, 23, "a is not declared"),
    ("table t { actions = { meta; } }", 1, 23, "meta is a struct metadata_t, expected an action"),
    ("table t { key = { meta.a: fuzzy; } actions = { NoAction; } }", 1, 19,
     "fuzzy is no way to match; known are exact, lpm, ternary, range, optional"),
    ("table t { key = { meta.flag: lpm; } actions = { NoAction; } }", 1, 19,
     "a lpm key of bool: expected bits"),
    ("table t { key = { meta: exact; } actions = { NoAction; } }", 1, 19,
     "found struct metadata_t, expected bits, a bool or an enum"),
    ("action a() { }\ntable t { actions = { NoAction; } default_action = a(); }", 2, 52,
     "a is not among the table's actions: expected one of NoAction"),
    ("action a(bit<8> x) { }\ntable t { actions = { a; } default_action = a(); }", 2, 45,
     "a has 0 arguments, expected 1: x"),
    ("action a(bit<8> x) { }\ntable t { actions = { a; } default_action = a(300); }", 2, 47,
     "300 does not fit bit<8>: expected 0 to 255"),
    ("action a(bit<8> x) { }\ntable t { actions = { a; } default_action = a(meta.a); }", 2, 47,
     "x must be known when the program is read"),
    ("action a(in bit<8> x) { }\ntable t { actions = { a; } }", 2, 23,
     "not supported: a has parameters with a direction, which no table can give; use variables"),
    ("table t { actions = { NoAction; NoAction; } }", 1, 1, "table t lists an action twice"),
    ("table t { actions = { NoAction; } size = 1; size = 2; }", 1, 45, "table t has size twice"),
    ("table t { actions = { NoAction; } szie = 1; }", 1, 35,
     "szie is no property of a table; known are key, actions, entries, default_action, size, "
     "counters"),
    ("table t { actions = { NoAction; } meters = m; }", 1, 35,
     "not supported: the table property meters"),
    ("table t { key = { meta.a: exact; } actions = { NoAction; }\n"
     "const entries = { (1, 2): NoAction(); } }", 2, 20, "2 keys in this entry, expected 1"),
    ("table t { key = { meta.a: exact; } actions = { NoAction; }\n"
     "const entries = { 256: NoAction(); } }", 2, 19, "256 does not fit bit<8>: expected 0 to 255"),
    ("table t { key = { meta.a: exact; } actions = { NoAction; }\n"
     "const entries = { _: NoAction(); } }", 2, 19, "_ for an exact key: expected a value"),
    ("table t { key = { meta.a: exact; } actions = { NoAction; }\n"
     "const entries = { 1 &&& 3: NoAction(); } }", 2, 19, "&&& for an exact key: expected a value"),
    ("table t { key = { meta.a: ternary; } actions = { NoAction; }\n"
     "const entries = { 1 .. 3: NoAction(); } }", 2, 19, ".. for a ternary key: expected a value"),
    ("table t { key = { meta.a: lpm; } actions = { NoAction; }\n"
     "const entries = { 0 &&& 0x0f: NoAction(); } }", 2, 19,
     "the mask 0xf of an lpm key: expected ones, then zeros"),
    ("table t { key = { meta.a: range; } actions = { NoAction; }\n"
     "const entries = { 3 .. 1: NoAction(); } }", 2, 19, "the range 3 .. 1 is empty"),
    ("table t { key = { meta.a: exact; } actions = { NoAction; } size = 1;\n"
     "entries = { 1: NoAction(); 2: NoAction(); } }", 1, 60, "a size of 1: expected 2 or more"),
    ("register<bit<8>>(0) r;", 1, 18, "a register of size 0: expected 1 or more"),
    ("register<bit<8>>() r;", 1, 1, "register has 0 arguments, expected 1: size"),
    ("register<tag_t>(8) r;", 1, 1,
     "a register of header tag_t: expected register<bit<...>>"),
    ("counter(8) c;", 1, 1, "counter has 1 arguments, expected 2: size, type"),
    ("direct_counter(CounterType.packets) c;", 1, 1,
     "I.c counts for no table: expected counters = ...; in one"),
    ("meter(8, MeterType.packets) m;", 1, 1, "not supported: meter of v1model"),
    ("tag_t() t;", 1, 1,
     "tag_t is the type header tag_t: expected a control, a parser, or a register or counter of "
     "v1model"),
    ("register<bit<8>>(8) r;\naction a() { r.read(meta.wide, 0); }", 2, 21,
     "found bit<16>, expected bit<8>: an out parameter takes no other type"),
    ("register<bit<8>>(8) r;\naction a() { r.read(1, 0); }", 2, 21,
     "1 is for an out parameter: expected a variable that can be assigned"),
    ("register<bit<8>>(8) r;\naction a() { r.write(meta.a, 0); }", 2, 22,
     "found bit<8>, expected bit<32>; write (bit<32>) in front of it to cast it"),
    ("register<bit<8>>(8) r;\naction a() { r.add(0, 1); }", 2, 14,
     "register has no method add; it has read, write"),
]  # fmt: skip

TOP = [
    ("header h { bit<7> x; }", 1, 1, "header h has 7 bits: expected whole bytes"),
    ("header h { bool x; }", 1, 17,
     "a field of type bool in a header: expected bits, or an enum with a type"),
    ("header h { tag_t x; }", 1, 18,
     "a field of type header tag_t in a header: expected bits, or an enum with a type"),
    ("struct s { tga_t x; }", 1, 12,
     "found tga_t, expected a type, an annotation or }; did you mean tag_t?"),
    ("struct s { zzz x; }", 1, 12,
     "found zzz, expected a type, an annotation or }; no type has that name"),
    ("struct s { bit<8> x; bit<8> x; }", 1, 29, "the field x is there already"),
    ("struct tag_t { }", 1, 1, "tag_t is declared already, at test.p4:3:1"),
    ("enum e { A, B, A }", 1, 16, "A is there already"),
    ("enum e { A = 1 }", 1, 10, "A of enum e: expected no value, or a type behind enum"),
    ("enum bit<8> e { A }", 1, 17, "A of enum e: expected a value"),
    ("enum bit<8> e { A = 256 }", 1, 17, "256 does not fit bit<8>: expected 0 to 255"),
    ("error { NoMatch }", 1, 9, "error.NoMatch is there already"),
    ("const bit<8> A = B;", 1, 18, "B is not declared"),
    ("const bit<8> A = 1 / 0;", 1, 18, "division by zero"),
    ("type tag_t other_t;", 1, 1,
     "type of header tag_t: expected bits or bool; typedef takes any"),
    ("extern void f();", 1, 1,
     "not supported: extern declarations; those of v1model are built in"),
    ("header_union u { tag_t a; }", 1, 1,
     "not supported: header unions; use headers, of which one is valid"),
    ("control S(inout bit<8> x) { apply { y = 1; } }", 1, 37, "y is not declared"),
    ("control S(inout bit<8> x) { apply { return 1; } }", 1, 44, "found 1, expected ;"),
    ("control S(inout bit<8> x) { }", 1, 29, "found }, expected"),
    ("parser Q(packet_in p) { state s { transition accept; } }", 1, 1,
     "parser Q has no state start: expected one"),
    ("parser Q(packet_in p) { state start { transition s; } }", 1, 50,
     "there is no state s, expected one of accept, reject, start"),
    ("parser Q(packet_in p) { state start { } state start { } }", 1, 41,
     "the state start is there already"),
    ("parser Q(packet_in p, out tag_t h) { state start { p.extract(h, 8); } }", 1, 52,
     "not supported: extract with a size; headers have a fixed one here"),
    ("parser Q(packet_in p, in tag_t h) { state start { p.extract(h); } }", 1, 61,
     "found header tag_t, expected a header that can be written"),
    ("parser Q(packet_in p, out tag_t h) { state start {\n"
     "transition select(h.kind) { 300: accept; } } }", 2, 29,
     "300 does not fit bit<8>: expected 0 to 255"),
    ("parser Q(packet_in p, out tag_t h) { state start {\n"
     "transition select(h.kind, h.port) { 3: accept; } } }", 2, 37,
     "1 keys in this case, expected 2"),
    ("parser Q(packet_in p, out tag_t h) { state start { exit; } }", 1, 52,
     "exit in a parser: expected it in a control or an action"),
    ("parser Q(packet_in p) { state start { p.lookahead<bit<8>>(); } }", 1, 39,
     "lookahead alone does nothing: expected an assignment of it"),
    ("parser Q(packet_in p, out bit<8> x) { state start { x = p.lookahead<bit<16>>(); } }", 1, 57,
     "found bit<16>, expected bit<8>; write (bit<8>) in front of it to cast it"),
    ("parser Q(packet_in p) { state start { verify(true, 1); } }", 1, 52,
     "found int, expected an error, as error.NoMatch"),
    ("const bit<8> A = 1", 2, 1, "found control, expected"),
    ("#if A\n", 1, 1, "this #if is never closed: expected #endif"),
    ("#endif", 1, 1, "#endif without an #if before it"),
    ("#else", 1, 1, "#else without an #if before it"),
    ("#if 1 +\n#endif", 1, 1, "#if: found 1 +, expected an expression of integers"),
    ("#if 1 / 0\n#endif", 1, 1, "#if: division by zero"),
    ("#if 1\n#else\n#else\n#endif", 3, 1, "#else after the #else of this #if: expected #endif"),
    ("#ifdef\n#endif", 1, 1, "#ifdef: found nothing, expected one name"),
    ("#define 8 9", 1, 1, "#define: found 8, expected one name"),
    ("#define F(a, b) a\nconst bit<8> X = F(1);", 2, 18, "F has 1 arguments, expected 2"),
    ("#define F(a) a\nconst bit<8> X = F(1;", 2, 18, "F(...: expected ) at the end of its"),
    ("#define F(a) #a", 1, 14, "not supported: # in a macro"),
    ("#include <psa.p4>", 1, 1,
     '#include <psa.p4>: built in are <core.p4> and <v1model.p4>; write "..." for a file of your'),
    ('#include "none.p4"', 1, 1, "none.p4: No such file or directory"),
    ("#include none", 1, 1, '#include: expected <core.p4>, <v1model.p4> or a file in "..."'),
    ("#error sizes", 1, 1, "#error sizes"),
    ("#warn", 1, 1, "#warn is no directive; known are define, undef, include, if"),
    ("@name(", 1, 1, "@name(: expected ) at its end"),
]  # fmt: skip


FIRST_LINES = {
    part: text().splitlines().index(f"// {part}") + 2 for part in ("top", "locals", "apply")
}
"""The lines behind the marks of the parts."""


CASES = [
    pytest.param(part, *case, id=f"{part}: {case[0].splitlines()[-1]}"[:72])
    for part, cases in (("apply", APPLY), ("locals", LOCALS), ("top", TOP))
    for case in cases
]


@pytest.mark.parametrize(("part", "wrong", "line", "column", "message"), CASES)
def test_what_is_wrong_is_told_with_its_place(
    part: str, wrong: str, line: int, column: int, message: str
) -> None:
    with pytest.raises(P4Error) as caught:
        load(FILE, texts={FILE: text(**{part: wrong})})
    where, told = caught.value.where, caught.value.text
    assert (where.line - FIRST_LINES[part] + 1, where.column, told[: len(message)]) == (
        line, column, message,
    )  # fmt: skip
    assert str(caught.value) == f"test.p4:{where.line}:{column}: {told}"
    assert "\n" not in told
