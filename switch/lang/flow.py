"""The ways through a control: no table twice on one of them, which bmv2 cannot do."""

from __future__ import annotations

from switch.lang import ir
from switch.lang.errors import unsupported


def check_tables(control: ir.Control) -> None:
    """Complains about the second `apply` of a table that may have been applied before."""
    _walk(control.body, frozenset())


def _walk(block: ir.Block, before: frozenset[str]) -> frozenset[str] | None:
    """The tables that may have been applied behind a block; None: nothing gets behind it."""
    for statement in block:
        match statement:
            case ir.Apply(table):
                if table in before:
                    raise unsupported(statement.where, f"{table} applied twice for one packet, "
                                      "which bmv2 cannot do; declare two tables")  # fmt: skip
                before |= {table}
            case ir.Return() | ir.Exit():
                return None
            case ir.If(_, then, other):
                ways = [way for way in (_walk(then, before), _walk(other, before))
                        if way is not None]  # fmt: skip
                if not ways:
                    return None
                before = frozenset().union(*ways)
    return before
