"""Writes `wire.h`: the wire format and the outcomes for C.

`p4xos.wire` is the one place with offsets, `switch.xdp.outcomes` the one with outcomes.
`python -m switch.xdp.generate` writes the file; a test compares it.
"""

from __future__ import annotations

import numpy as np

from p4xos import wire
from p4xos.quorum import NO_ROUND
from switch.xdp import FOLDER, outcomes
from switch.xdp.outcomes import Outcome

PATH = FOLDER / "wire.h"
_C_TYPES = {"u1": "__u8", "u2": "__be16", "u4": "__be32", "u8": "__be64"}


def text() -> str:
    """What the file has to be."""
    lines = [
        "// The wire format (docs/PROTOCOL.md, section 2) and the outcomes of packets. Generated",
        "// from p4xos/wire.py and switch/xdp/outcomes.py by `python -m switch.xdp.generate`:",
        "// change those.",
        "",
        "#ifndef WIRE_H",
        "#define WIRE_H",
        "",
        "#include <linux/types.h>",
        "",
        *_constants(),
        "",
        "enum message_type {",
        *(f"    {type.name} = {type.value}," for type in wire.Type),
        f"    TYPE_MAX = {max(wire.Type)},",
        "};",
        "",
        *_header(),
        "",
        "enum outcome {",
        *(f"    {outcome.name} = {outcome.value}," for outcome in Outcome),
        f"    OUTCOMES = {outcomes.COUNT},",
        "};",
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the file."""
    PATH.write_text(text(), encoding="utf-8")


def _constants() -> list[str]:
    return [
        f"#define WIRE_VERSION {wire.VERSION}",
        f"#define HEADER_BYTES {wire.HEADER_BYTES}",
        f"#define PAYLOAD_BYTES_MAX {wire.HEADER_BYTES + wire.VALUE_BYTES_MAX}",
        f"#define NO_ROUND {NO_ROUND}",
        f"#define END_OF_LOG {wire.END_OF_LOG:#x}ULL",
        f"#define ASK_ONE_BY_ONE {wire.ASK_ONE_BY_ONE:#x}U",
        f"#define LOW_JUMP_MAX {wire.LOW_JUMP_MAX:#x}ULL",
    ]


def _header() -> list[str]:
    names, fields = wire.HEADER.names, wire.HEADER.fields
    assert names is not None
    assert fields is not None
    lines, offset = ["struct paxos {"], 0
    for name in names:
        type, at = fields[name][0], fields[name][1]
        assert at == offset, f"a gap before {name}"
        assert at % type.itemsize == 0, f"C would leave a gap before {name}"
        lines.append(f"    {_C_TYPES[np.dtype(type).str[1:]]} {name};")
        offset += type.itemsize
    return [*lines, "};", '_Static_assert(sizeof(struct paxos) == HEADER_BYTES, "the header");']


if __name__ == "__main__":
    main()
