"""A bill as text for people."""

from __future__ import annotations

from collections.abc import Sequence

from switch.bill.costs import Bill


def described(bill: Bill) -> str:
    """Sections with a line a thing, and at the end what lacks."""
    lines = [f"{bill.program} on {bill.target}", ""]
    lines += _columns(
        ["table", "control", "stage", "keys", "key bits", "actions", "entries", "size",
         "SRAM bits", "TCAM bits"],
        [
            [t.name, t.control, t.stage, len(t.keys), t.key_bits, t.actions, t.entries, t.size,
             t.sram_bits, t.tcam_bits]
            for t in bill.tables
        ],
    )  # fmt: skip
    lines += ["", *_columns(
        ["register", "control", "width", "cells", "bits", "read in", "written in"],
        [
            [r.name, r.control, r.width, r.size, r.bits, _stages(r.read_in), _stages(r.written_in)]
            for r in bill.registers
        ],
    )]  # fmt: skip
    lines += [
        "",
        f"headers     {bill.header_bits:,} bits "
        f"({', '.join(f'{path} {bits:,}' for path, bits in bill.headers.items())})",
        f"metadata    {bill.metadata_bits:,} bits, local variables included",
        f"registers   {sum(r.bits for r in bill.registers):,} bits",
        f"actions     {bill.actions}; {bill.operations} operations in them and in controls",
        f"parser      {bill.parser_states} states",
        f"stages      {', '.join(f'{name} {n}' for name, n in bill.stages.items())}, by dependency",
        "",
    ]
    if bill.fits:
        return "\n".join([*lines, f"It fits {bill.target}."])
    lacking = [f"  {excess}" for excess in bill.excess]
    return "\n".join([*lines, f"It does not fit {bill.target} as it is written:", *lacking])


def _stages(stages: Sequence[int]) -> str:
    return ", ".join(map(str, stages)) or "-"


def _columns(head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    """Numbers to the right, all else to the left; nothing for no rows."""
    if not rows:
        return []
    texts = [
        list(head),
        *([f"{each:,}" if isinstance(each, int) else str(each) for each in row] for row in rows),
    ]
    widths = [max(len(row[column]) for row in texts) for column in range(len(head))]
    right = [isinstance(each, int) for each in rows[0]]
    return [
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in texts
    ]
