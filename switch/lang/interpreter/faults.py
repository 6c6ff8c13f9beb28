"""What a program did that it must not do, counted by place."""

from __future__ import annotations

from typing import Literal, NamedTuple

from switch.lang import ir

Kind = Literal["assert", "assume", "register", "counter", "division"]


class Fault(NamedTuple):
    """A place in a program where something can go wrong, and what."""

    kind: Kind
    where: ir.Where
    text: str
    """The condition as its author wrote it, or the name of the register or counter."""

    def __str__(self) -> str:
        what = {
            "assert": f"assert({self.text}) does not hold",
            "assume": f"assume({self.text}) does not hold",
            "register": f"an index beyond the size of the register {self.text}",
            "counter": f"an index beyond the size of the counter {self.text}",
            "division": "a division by zero",
        }
        return f"{self.where}: {what[self.kind]}"


class AssertionFailed(Exception):  # not AssertionError: that is a bug of ours
    """The program met a packet and registers for which its own `assert` does not hold."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(str(fault))
        self.fault = fault
