"""Decides the properties of one program, each by itself.

What is general is asked of the program, and so is a claim. An induction over many packets is asked
of the claims that it follows from: such a question knows nothing of the program, and is small.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import z3

from switch.lang import ir
from switch.verify.claims import Invariant, Role, Way
from switch.verify.machine import Obligation
from switch.verify.pipeline import Passage
from switch.verify.proof import Prover, Verdict
from switch.verify.solving import EFFORT_FIRST, EFFORT_MAX, is_impossible
from switch.verify.terms import Term


class General:
    """What is asked of every program."""

    def __init__(self, whole: Passage) -> None:
        self._obligations = whole.machine.obligations
        self._where = _whole_of(whole.machine.program)
        self._prover = Prover(whole)

    def decide(self, name: str) -> list[Verdict]:
        """All obligations of a property."""
        group = [each for each in self._obligations if each.property == name]
        if not group:  # nothing in the program could break it
            return [Verdict(name, self._where, "", None)]
        return self._prover.decide(name, group)


class Claimed:
    """What is claimed of a program's role."""

    def __init__(self, whole: Passage, role: Role[Any]) -> None:
        """Missing, when the program has not what the role needs."""
        self.role, self.step = role, role.step(whole)
        self._where = _whole_of(whole.machine.program)
        self._assumed = len(whole.machine.assumptions)
        self._prover = Prover(
            whole, [role.invariant(self.step)], role.cases(self.step), self.step.modest()
        )
        self._claims = {
            name: (text, violated) for name, text, violated in role.broken_claims(self.step)
        }
        self._inductions = {each.name: each for each in role.inductions()}
        self._abstract = self.step.abstract()

    def decide(self, name: str, effort: int = EFFORT_MAX) -> list[Verdict]:
        """A claim or an induction, of the program itself."""
        if name in self._claims:
            return self._direct(name, *self._claims[name], effort)
        induction = self._inductions[name]
        verdicts: list[Verdict] = []
        for way in self.role.broken(self.step, induction):
            verdicts = self._direct(name, induction.text, way.violated, effort)
            if not verdicts[0].holds:
                break
        return verdicts

    def refutation(self, name: str) -> list[Verdict]:
        """A counter-example, if a short look finds one."""
        return [each for each in self.decide(name, EFFORT_FIRST) if each.model is not None]

    def premises(self, name: str) -> tuple[str, ...]:
        """The claims and invariants that a property follows from; none: it needs the program."""
        induction = self._inductions.get(name)
        if induction is None or not induction.follows:
            return ()
        if isinstance(induction, Invariant):
            return induction.follows
        return (*induction.follows, *(each.name for each in self.role.invariants))

    def closure(self, names: Iterable[str]) -> list[str]:
        """Properties and all that they follow from; what another one follows from comes first."""
        ordered: dict[str, None] = {}
        for name in names:
            ordered |= dict.fromkeys((*self.closure(self.premises(name)), name))
        return list(ordered)

    def consequences(self, name: str) -> dict[object, Way]:
        """What must be impossible for an induction to follow from its premises.

        By a key that is the same for what is the same: several inductions share some.
        """
        ways = self.role.broken(self._abstract, self._inductions[name])
        return {(way.follows, way.violated.get_id()): way for way in ways}

    def is_impossible(self, way: Way) -> bool:
        """Whether it follows from its claims that a way is; no is also "not decided"."""
        role, step = self.role, self._abstract
        broken = {name: violated for name, _, violated in role.broken_claims(step)}
        premises = [z3.Not(broken[name]) for name in way.follows]
        if way.before:
            premises.append(role.invariant(step))
        if way.after:
            premises.append(role.invariant_after(step))
        return is_impossible([*premises, way.violated], with_laws=True)

    def proved(self, name: str) -> Verdict:
        """The verdict on an induction that follows from what holds."""
        return Verdict(name, self._where, self._inductions[name].text, None)

    def _direct(
        self, name: str, text: str, violated: Term, effort: int
    ) -> list[Verdict]:
        obligation = Obligation(name, self._where, text, violated, self._assumed)
        return self._prover.decide(name, [obligation], effort)


def _whole_of(program: ir.Program) -> ir.Where:
    """For what is of no one place."""
    return ir.Where(program.name, 1, 1)
