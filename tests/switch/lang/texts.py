"""Whole programs around the few lines that a test is about."""

from __future__ import annotations

from collections.abc import Mapping

from switch.lang import load
from switch.lang.ir import Program

FILE = "test.p4"

_BEFORE = """\
#include <core.p4>
#include <v1model.p4>
"""

_TYPES = """\
header tag_t { bit<8> kind; bit<8> port; bit<16> number; }
struct headers_t { tag_t tag; tag_t other; }
struct metadata_t { bit<8> a; bit<8> b; bit<16> wide; int<8> signed; bool flag; }
"""

_PARSER = """\
parser P(packet_in packet, out headers_t hdr, inout metadata_t meta,
         inout standard_metadata_t standard_metadata) {
    state start { packet.extract(hdr.tag); transition accept; }
}
"""

_AROUND = """\
control V(inout headers_t hdr, inout metadata_t meta) { apply { } }
control E(inout headers_t hdr, inout metadata_t meta,
          inout standard_metadata_t standard_metadata) { apply { } }
control U(inout headers_t hdr, inout metadata_t meta) { apply { } }
control D(packet_out packet, in headers_t hdr) { apply { packet.emit(hdr.tag); } }
"""

_MAIN = "V1Switch(P(), V(), I(), E(), U(), D()) main;\n"


def text(apply: str = "", locals: str = "", top: str = "", parser: str = _PARSER) -> str:
    """A program.

    The lines of `top`, `locals` and `apply` come at the very end of it, each behind a comment with
    its name, so that a test can count from there.
    """
    ingress = (
        "control I(inout headers_t hdr, inout metadata_t meta, "
        "inout standard_metadata_t standard_metadata) {\n"
        f"// locals\n{locals}\napply {{\n// apply\n{apply}\n}}\n}}\n"
    )
    return f"{_BEFORE}{_TYPES}{parser}{_AROUND}// top\n{top}\n{ingress}{_MAIN}"


def program(
    apply: str = "", locals: str = "", top: str = "", parser: str = _PARSER,
    defines: Mapping[str, str | int] | None = None,
) -> Program:  # fmt: skip
    """The same, lowered."""
    return load(FILE, defines, {FILE: text(apply, locals, top, parser)})


def alone(whole: str) -> Program:
    """A program that is nothing but this text."""
    return load(FILE, None, {FILE: whole})
