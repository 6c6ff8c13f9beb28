"""Decides: does anything that must never come about have a model?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import z3

from switch.lang import ir
from switch.verify.machine import Obligation
from switch.verify.pipeline import Passage
from switch.verify.solving import EFFORT_FIRST, EFFORT_MAX, is_plainly_impossible, new_solver
from switch.verify.state import TRUE
from switch.verify.terms import Term


class Verdict(NamedTuple):
    """What was found out about one property at one place."""

    name: str
    """The property's."""
    where: ir.Where
    text: str
    model: z3.ModelRef | None
    """A packet and registers for which it does not hold."""
    undecided: bool = False
    """The solver gave up; with neither this nor a model it is proved."""

    @property
    def holds(self) -> bool:
        """Whether it is proved."""
        return self.model is None and not self.undecided


class Undecided(RuntimeError):
    """The solver gave up."""


class Prover:
    """Decides obligations of one passage, one after the other."""

    def __init__(
        self,
        passage: Passage,
        known: Sequence[Term] = (),
        cases: Sequence[Term] = (TRUE,),
        preferred: Sequence[Term] = (),
    ) -> None:
        """Nothing is decided yet.

        Args:
          passage: where the obligations are from.
          known: what else is taken to hold, of the registers before the packet for example.
          cases: one of them always holds. Each is asked for alone: where a case fixes a byte of
            the packet, most of the program falls away before the search begins.
          preferred: what a counter-example should fulfil if there is one that does.
        """
        self._passage = passage
        self._known = list(known)
        self._cases = list(cases)
        machine = passage.machine
        zeros = [value == (False if z3.is_bool(value) else 0) for value in machine.undefined]
        no_more_than_parsed = z3.ULE(passage.length, packet_bytes(passage))
        # Where P4 leaves a value open, bmv2 and the interpreter have 0.
        self._preferred = [z3.And(zeros), no_more_than_parsed, *preferred]

    def decide(
        self, property: str, group: Sequence[Obligation], effort: int = EFFORT_MAX
    ) -> list[Verdict]:
        """One verdict if the property is proved, else one for each place where it is broken.

        All obligations are asked for at once first: programs are right more often than not.
        """
        left = list(group)
        verdicts: list[Verdict] = []
        try:
            while left and (model := self._model(left, effort)) is not None:
                broken = next(e for e in left if holds_in(model, e.violated))
                verdicts.append(Verdict(property, broken.where, broken.text, model))
                left = [e for e in left if (e.where, e.text) != (broken.where, broken.text)]
        except Undecided:
            verdicts.append(Verdict(property, left[0].where, left[0].text, None, True))
        return verdicts or [Verdict(property, group[0].where, group[0].text, None)]

    def _model(self, obligations: Sequence[Obligation], effort: int) -> z3.ModelRef | None:
        """A packet that breaks one of them, or None."""
        assumptions = self._passage.machine.assumptions
        # What all may assume stands alone; the rest beside the obligation that may assume it.
        least = min(each.assumed for each in obligations)
        broken = [z3.And(e.violated, *assumptions[least : e.assumed]) for e in obligations]
        question = [*assumptions[:least], z3.Or(broken)]
        # Most holds whatever the registers hold, and is decided sooner without them.
        needs_known = False
        for case in self._cases:
            if not needs_known and is_plainly_impossible([case, *question], effort):
                continue
            needs_known = True
            asked = [case, *self._known, *question]
            if is_plainly_impossible(asked, effort, with_laws=True):
                continue
            model = self._model_of(asked, effort)
            if model is not None:
                return model
        return None

    def _model_of(self, question: Sequence[Term], effort: int) -> z3.ModelRef | None:
        """With as much of what is preferred as can be."""
        solver = new_solver(effort)
        solver.add(*question)
        result = solver.check()
        if result == z3.unknown:
            raise Undecided(f"the solver gave up: {solver.reason_unknown()}")
        return None if result == z3.unsat else self._better(solver, solver.model())

    def _better(self, solver: z3.Solver, model: z3.ModelRef) -> z3.ModelRef:
        """A model with all that is preferred, or as much of it as is soon found."""
        solver.set("rlimit", EFFORT_FIRST)
        solver.push()
        solver.add(*self._preferred)
        if solver.check() == z3.sat:
            return solver.model()
        solver.pop()
        for wish in self._preferred:
            solver.push()
            solver.add(wish)
            if solver.check() == z3.sat:
                model = solver.model()
            else:
                solver.pop()
        return model


def holds_in(model: z3.ModelRef, condition: Term) -> bool:
    """Whether a condition holds in a model."""
    return bool(z3.is_true(model.eval(condition, model_completion=True)))


def packet_bytes(passage: Passage) -> int:
    """How much of a packet the parser can look at."""
    return (int(passage.packet.size()) + 7) // 8
