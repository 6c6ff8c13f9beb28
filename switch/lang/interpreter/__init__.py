"""Runs v1model programs: a switch in one process."""

from switch.lang.interpreter.faults import AssertionFailed, Fault
from switch.lang.interpreter.machine import Copy, Interpreter, Statistics
from switch.lang.interpreter.tables import Found, Table

__all__ = ["AssertionFailed", "Copy", "Fault", "Found", "Interpreter", "Statistics", "Table"]
