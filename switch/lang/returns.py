"""A control put into another one must not end it: its `return`s become Ifs."""

from __future__ import annotations

from switch.lang import ir
from switch.lang.ir import Bool
from switch.lang.values import Frame


def without_returns(frame: Frame, block: ir.Block) -> ir.Block:
    """The same block, which goes on behind its end where it returned."""
    if not _may_return(block):
        return block
    flag = frame.temporary(Bool(), "$returned")
    assert flag.place is not None
    path = flag.place.path
    body = _Rewriting(path).block(block, False)
    if not _assigned(body, path):
        del frame.unit.variables[path]
        return body
    return (ir.Assign(path, ir.Const(0, Bool())), *body)


class _Rewriting:
    def __init__(self, flag: str) -> None:
        self.flag = flag

    def block(self, block: ir.Block, mark: bool) -> ir.Block:
        """`mark`: what follows the block has to know whether it returned."""
        for at, statement in enumerate(block):
            if isinstance(statement, ir.Return):
                done = ir.Assign(self.flag, ir.Const(1, Bool()), where=statement.where)
                return (*block[:at], done) if mark else block[:at]
            if isinstance(statement, ir.If) and _may_return((statement,)):
                rest = block[at + 1 :]
                return (*block[:at], *self._branching(statement, rest, mark))
        return block

    def _branching(self, tree: ir.If, rest: ir.Block, mark: bool) -> ir.Block:
        """What follows goes into the branch that does not return, if one always does."""
        then, other = tree.then, tree.other
        if not rest or _returns(then) or _returns(other):
            if not _returns(then):
                then = (*then, *rest)
            if not _returns(other):
                other = (*other, *rest) if _returns(tree.then) or not rest else other
            inner = self.block(then, mark), self.block(other, mark)
            return (ir.If(tree.condition, *inner, tree.where),)
        inner = self.block(then, True), self.block(other, True)
        going = ir.Unary("!", ir.Read(self.flag, Bool()), Bool())
        after = self.block(rest, mark)
        return (ir.If(tree.condition, *inner, tree.where), ir.If(going, after, (), tree.where))


def _may_return(block: ir.Block) -> bool:
    return any(
        isinstance(each, ir.Return)
        or (isinstance(each, ir.If) and (_may_return(each.then) or _may_return(each.other)))
        for each in block
    )


def _returns(block: ir.Block) -> bool:
    """Whether every way through it returns."""
    return any(
        isinstance(each, ir.Return)
        or (isinstance(each, ir.If) and _returns(each.then) and _returns(each.other))
        for each in block
    )


def _assigned(block: ir.Block, path: str) -> bool:
    return any(
        (isinstance(each, ir.Assign) and each.path == path)
        or (isinstance(each, ir.If) and (_assigned(each.then, path) or _assigned(each.other, path)))
        for each in block
    )
