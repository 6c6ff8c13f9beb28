"""How a question is put to z3: can all of this hold?

Two engines, one after the other. The first keeps words whole: that a value which is only moved
about is the one that came it sees at once, where 512 bits are 512 searches. What it does not see
soon it hardly ever sees. Then words become bits, and a SAT solver does the rest; models are always
its. z3's own strategy for the logic (QF_UFBV) begins like the first, and now and then needs
minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import z3

from switch.verify import ordering
from switch.verify.terms import Term

EFFORT_MAX = 200_000_000
"""For one question, in z3's own unit, which unlike seconds is the same on any machine, busy or
not: minutes, a hundred times what any question about our programs takes. What takes longer is
reported as undecided, never as proved."""
EFFORT_FIRST = 4_000_000
"""For a question that may turn out not to be the best one to ask."""
EFFORT_WORDS = 600_000
"""For the first engine: some tenths of a second. Nine questions of ten it decides in a tenth of
that, and most of the others not in ten times as much."""

_SIMPLER = (
    "simplify", "propagate-values", "solve-eqs", "elim-uncnstr", "simplify", "ackermannize_bv",
    "simplify",
)  # fmt: skip
"""Registers become unknowns, and what follows plainly is gone."""
_WORDS = ("simplify", "smt")
_BITS = ("max-bv-sharing", "bit-blast", "sat")


def is_plainly_impossible(
    formulas: Sequence[Term], effort: int = EFFORT_WORDS, with_laws: bool = False
) -> bool:
    """Whether the first engine sees that formulas cannot all hold; no is also "not decided".

    Args:
      formulas: what is asked.
      effort: of which it takes no more than EFFORT_WORDS.
      with_laws: whether it is told the laws of order, which costs something.
    """
    goal = z3.Goal()
    goal.add(*formulas)
    (simpler,) = z3.Then(*_SIMPLER)(goal)
    left = list(simpler)
    solver = _solver(_WORDS, min(effort, EFFORT_WORDS))
    solver.add(*left, *(ordering.laws(left) if with_laws else []))
    return bool(solver.check() == z3.unsat)


def new_solver(effort: int) -> z3.Solver:
    """An empty solver, of the second engine, that gives up after some effort."""
    return _solver((*_SIMPLER, *_BITS), effort)


def is_impossible(
    formulas: Sequence[Term], effort: int = EFFORT_MAX, with_laws: bool = False
) -> bool:
    """Whether formulas cannot all hold, by either engine; no is also "not decided"."""
    if is_plainly_impossible(formulas, effort, with_laws):
        return True
    solver = new_solver(effort)
    solver.add(*formulas)
    return bool(solver.check() == z3.unsat)


def _solver(steps: Sequence[str], effort: int) -> z3.Solver:
    solver = z3.Then(*steps).solver()
    solver.set("rlimit", effort)
    return solver
