"""Writes `headers.p4`: the wire format for P4, from `p4xos.wire`, the one place with offsets.

`python -m switch.p4.generate` writes it; a test compares it.
"""

from __future__ import annotations

from p4xos import wire
from p4xos.quorum import NO_ROUND
from switch.p4 import FOLDER

PATH = FOLDER / "headers.p4"
_RENAMED = {"type": "message_type"}  # `type` is a keyword of P4
_REMARKS = {
    "PHASE1A": "coordinator, to acceptors",
    "PHASE1B": "acceptor, to that coordinator",
    "PHASE2A": "coordinator, to acceptors",
    "PHASE2B": "acceptor, to learners",
    "REQUEST": "proposer, to the coordinator",
    "HEARTBEAT": "coordinator, to all",
    "RECOVER": "learner, to coordinators",
    "LEARN": "learner, to acceptors",
    "CHECKPOINT": "learner, to coordinators",
    "READ_INDEX": "proposer or coordinator, to acceptors",
    "READ_INDEX_REPLY": "acceptor, to who asked",
    "RECORD": "acceptor that forgot, to acceptors",
    "RECORDED": "acceptor, to that one",
    "RECOVERING": "acceptor that forgot, to coordinators",
    "ASK_CHECKPOINT": "acceptor that forgot, to learners",
}


def text() -> str:
    """What the file has to be."""
    lines = [
        "// The wire format (docs/PROTOCOL.md, section 2). Generated from p4xos/wire.py by",
        "// `python -m switch.p4.generate`: change that one.",
        "",
        "#ifndef HEADERS_P4",
        "#define HEADERS_P4",
        "",
        *_constants(),
        "",
        *_message_types(),
        "",
        *_header(),
        "",
        *_fields(),
        "",
        "#endif",
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Writes the file."""
    PATH.write_text(text(), encoding="utf-8")


def _constants() -> list[str]:
    return [
        f"const bit<8> VERSION = {wire.VERSION};",
        f"const bit<16> HEADER_BYTES = {wire.HEADER_BYTES};",
        f"const bit<32> NO_ROUND = {NO_ROUND};",
        f"const bit<64> END_OF_LOG = {wire.END_OF_LOG:#x};",
        f"const bit<32> ASK_ONE_BY_ONE = {wire.ASK_ONE_BY_ONE:#x};",
        f"const bit<64> LOW_JUMP_MAX = {wire.LOW_JUMP_MAX:#x};",
    ]


def _message_types() -> list[str]:
    lines = []
    for type in wire.Type:
        lines.append(f"const bit<8> {type.name} = {type.value}; // {_REMARKS[type.name]}")
    return [*lines, f"const bit<8> TYPE_MAX = {max(wire.Type)};"]


def _layout() -> list[tuple[str, int]]:
    """Names and bits, in the order of the bytes."""
    names, fields = wire.HEADER.names, wire.HEADER.fields
    assert names is not None
    assert fields is not None
    offset, layout = 0, []
    for name in names:
        type, at = fields[name][0], fields[name][1]
        assert at == offset, f"a gap before {name}"
        layout.append((_RENAMED.get(name, name), 8 * type.itemsize))
        offset += type.itemsize
    assert offset == wire.HEADER_BYTES
    return layout


def _header() -> list[str]:
    return ["header paxos_t {", *(f"    bit<{bits}> {name};" for name, bits in _layout()), "}"]


def _fields() -> list[str]:
    """All fields as a list, for checksums."""
    names = [f"h.{name}" for name, _ in _layout()]
    rows = [", ".join(names[row : row + 4]) for row in range(0, len(names), 4)]
    return ["#define PAXOS_FIELDS(h) \\", *(f"    {row}, \\" for row in rows[:-1]),
            f"    {rows[-1]}"]  # fmt: skip


if __name__ == "__main__":
    main()
