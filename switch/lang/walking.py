"""What is inside expressions and blocks."""

from __future__ import annotations

from collections.abc import Iterator

from switch.lang import ir


def operands(expression: ir.Expression) -> tuple[ir.Expression, ...]:
    """The expressions right below it."""
    match expression:
        case ir.Unary(_, operand) | ir.Cast(operand) | ir.Slice(operand):
            return (operand,)
        case ir.Binary(_, left, right):
            return left, right
        case ir.Choice(condition, then, other):
            return condition, then, other
    return ()


def expressions(expression: ir.Expression) -> Iterator[ir.Expression]:
    """It and all below."""
    yield expression
    for each in operands(expression):
        yield from expressions(each)


def reads(*given: ir.Expression) -> set[str]:
    """The variables that they depend on."""
    return {
        each.path for one in given for each in expressions(one) if isinstance(each, ir.Read)
    }  # fmt: skip


def uses(statement: ir.Statement) -> tuple[ir.Expression, ...]:
    """The expressions in a statement itself; those of blocks in it are their own."""
    match statement:
        case ir.Assign(value=value):
            return (value,)
        case ir.If(condition=condition) | ir.Assert(condition=condition):
            return (condition,)
        case ir.Assume(condition=condition) | ir.Verify(condition=condition):
            return (condition,)
        case ir.RegisterRead(index=index):
            return (index,)
        case ir.RegisterWrite(index=index, value=value):
            return index, value
        case ir.Count(index=index):
            return () if index is None else (index,)
        case ir.Hash(base=base, data=data, most=most):
            return base, *data, most
        case ir.Advance(bits=bits):
            return (bits,)
        case ir.Checksum(condition=condition, data=data):
            return condition, *data
    return ()


def statements(block: ir.Block) -> Iterator[ir.Statement]:
    """All of a block, those in its branches too; not those of what it calls or applies."""
    for statement in block:
        yield statement
        if isinstance(statement, ir.If):
            yield from statements(statement.then)
            yield from statements(statement.other)
