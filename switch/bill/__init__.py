"""What a program costs on a target."""

from switch.bill.costs import Bill, Excess, RegisterCost, TableCost, bill
from switch.bill.described import described
from switch.bill.targets import NAMES, Target, load

__all__ = [
    "NAMES", "Bill", "Excess", "RegisterCost", "TableCost", "Target", "bill", "described", "load",
]  # fmt: skip
