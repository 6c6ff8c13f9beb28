"""What a program holds at one place, as terms over the packet and the registers before it.

Strategy: the passive form of weakest preconditions (Flanagan and Saxe, POPL 2001; p4v, SIGCOMM
2018). No variable is ever assigned twice: a State maps each to the term that it is now, and where
ways meet again, a variable that differs becomes an if-then-else. So a program is one formula whose
size is that of its text, not of the number of its paths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import z3

from switch.verify.terms import Term

INDEX_BITS = 32
"""Of every register's index, whatever the program's type for it is."""
TRUE = z3.BoolVal(True)
FALSE = z3.BoolVal(False)


class Write(NamedTuple):
    """A register's cell that got a value."""

    register: str
    guard: Term
    index: Term
    value: Term


@dataclass(slots=True)
class State:
    """One place in the program."""

    guard: Term
    """When the packet comes here; the other terms mean nothing where it does not hold."""
    values: dict[str, Term]
    """By path."""
    unset: dict[str, Term]
    """Of variables that nothing has set yet on some way here: on which."""
    valid_of: Mapping[str, str]
    """By a header's field: the variable that says whether it means anything."""
    writes: tuple[Write, ...] = ()
    """In the order of the program; ways that exclude each other in any order."""

    def under(self, condition: Term) -> State:
        """The same place, where a condition holds too."""
        return State(
            both(self.guard, condition), dict(self.values), dict(self.unset), self.valid_of,
            self.writes,
        )  # fmt: skip

    def cell(self, register: str, index: Term, before: Term) -> Term:
        """A register's cell here, if `before` is what it held before the packet."""
        for write in self.writes:
            if write.register == register:
                meant = both(write.guard, write.index == index)
                before = z3.If(meant, write.value, before)
        return before


def both(left: Term, right: Term) -> Term:
    """And, without what is plainly true."""
    if z3.is_true(left):
        return right
    return left if z3.is_true(right) else z3.And(left, right)


def joined(outcomes: Sequence[tuple[Term, State]], guard: Term | None = None) -> State | None:
    """The place where ways meet; None when there is no way.

    Args:
      outcomes: for each way the condition that tells it from the others, and its state. The last
        one's condition is not looked at.
      guard: when the packet comes here, if not simply where it came one of the ways.
    """
    if not outcomes:
        return None
    if len(outcomes) == 1:
        return outcomes[0][1]
    states = [state for _, state in outcomes]
    known = z3.Or([state.guard for state in states]) if guard is None else guard
    first = states[0]
    values = {
        path: _chosen(outcomes, path, first.valid_of.get(path)) for path in first.values
    }
    unset = {
        path: _merged([(c, s.unset.get(path, FALSE)) for c, s in outcomes])
        for path in {path: None for s in states for path in s.unset}
    }
    return State(known, values, unset, first.valid_of, _all_writes(states))


def _chosen(outcomes: Sequence[tuple[Term, State]], path: str, valid: str | None) -> Term:
    """A variable's value where ways meet.

    A field of a header that is not valid may be anything, and to read it is a bug that is told as
    such; so where some ways have the header and some have not, it is what it is in the former.
    """
    ways = [(c, s) for c, s in outcomes if valid is None or not z3.is_false(s.values[valid])]
    return _merged([(condition, state.values[path]) for condition, state in ways or outcomes])


def _merged(ways: Sequence[tuple[Term, Term]]) -> Term:
    """If-then-else over what differs."""
    result = ways[-1][1]
    for condition, value in reversed(ways[:-1]):
        if value is not result and not value.eq(result):
            result = z3.If(condition, value, result)
    return result


def _all_writes(states: Sequence[State]) -> tuple[Write, ...]:
    """What all share, once; then each way's own, which only counts where that way was taken."""
    shared = 0
    for column in zip(*(state.writes for state in states), strict=False):
        if any(write is not column[0] for write in column):
            break
        shared += 1
    writes = list(states[0].writes[:shared])
    for state in states:
        for write in state.writes[shared:]:
            writes.append(write._replace(guard=both(write.guard, state.guard)))
    return tuple(writes)
