"""Proves a program, or shows what breaks it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cached_property, partial
from pathlib import PurePath
from typing import Any

from p4xos.wire import Type
from switch.lang import ir
from switch.verify import acceptor, acceptor_histories, coordinator
from switch.verify.claims import Role
from switch.verify.counterexample import Counterexample, counterexample
from switch.verify.deciding import Claimed, General
from switch.verify.pipeline import passage
from switch.verify.processes import results
from switch.verify.proof import Verdict
from switch.verify.vector import NoVector, vector

ROLES: dict[str, Role[Any]] = {
    "acceptor": Role(
        "acceptor", acceptor.AcceptorStep, acceptor.CLAIMS, acceptor.INVARIANTS,
        acceptor_histories.HISTORIES, acceptor.TYPES, acceptor_histories.ASSUMPTIONS,
    ),
    "coordinator": Role(
        "coordinator", coordinator.CoordinatorStep, coordinator.CLAIMS, coordinator.INVARIANTS,
        coordinator.HISTORIES, (Type.REQUEST,), coordinator.ASSUMPTIONS,
    ),
}  # fmt: skip
"""By the name of the program's file, without its suffix."""

GENERAL = {
    "header": "no field of a header that is not valid is read or written",
    "unset": "no variable is read before it is set",
    "index": "every index of a register or counter is in range",
    "stage": "registers are used in ingress alone",
    "fate": "every packet is dropped, sent to a port or sent to a group: one of them, on purpose",
    "assert": "every assert in the program's text holds",
}
"""Of every program."""
LONGEST = ("vote-proposed", "highest", "rounds-grow", "record")
"""What takes the solver longest comes first, and what takes it no time last, so that no core waits
for another one at the end. Consequences of claims come between."""
PARTLY = (
    "All other properties of the program: claims take the invariants for granted, inductions that"
    " nothing else is written, and whether that holds is decided where all properties are."
)
"""What holds alone holds under a condition."""


@dataclass(slots=True)
class Finding:
    """One property, or one place where it is broken."""

    name: str
    """The property's."""
    text: str
    where: ir.Where
    counterexample: Counterexample | None = None
    differences: list[str] = field(default_factory=list)
    """Where the interpreter, given the counter-example, does otherwise than the formulas say."""
    vector: str | None = None
    """The counter-example as the text of a vector file, where one can say it."""
    undecided: bool = False
    """The solver gave up; with neither this nor a counter-example it is proved."""

    @property
    def holds(self) -> bool:
        """Whether it is proved."""
        return self.counterexample is None and not self.undecided


_Answer = list[Finding] | bool


@dataclass(slots=True)
class Report:
    """What is known of a program."""

    program: str
    findings: list[Finding]
    assumptions: list[str]
    seconds: float

    @property
    def broken(self) -> list[Finding]:
        """What does not hold."""
        return [finding for finding in self.findings if finding.counterexample is not None]

    @property
    def undecided(self) -> list[Finding]:
        """What the solver gave up on."""
        return [finding for finding in self.findings if finding.undecided]


def role_of(program: ir.Program) -> Role[Any] | None:
    """The role that a program's name promises, if any."""
    return ROLES.get(PurePath(program.name).stem)


def property_names(program: ir.Program) -> dict[str, str]:
    """All that can be asked of a program: names, and what they say."""
    role = role_of(program)
    if role is None:
        return dict(GENERAL)
    return (
        GENERAL
        | {each.name: each.text for each in role.claims}
        | {each.name: each.text for each in role.invariants}
        | {each.name: each.text for each in role.histories}
    )


def verify(
    program: ir.Program, properties: Collection[str] = (), processes: int | None = None
) -> Report:
    """Decides all properties of a program, or some.

    Args:
      program: whose file's name says whether it is an acceptor or a coordinator.
      properties: names of `property_names`; ValueError for any other. Empty: all.
      processes: how many at once; as many as there are cores, if not told.
    """
    began = time.monotonic()
    names = property_names(program)
    for unknown in set(properties) - names.keys():
        close = get_close_matches(unknown, names, n=1)
        hint = f"; did you mean {close[0]}?" if close else f": one of {', '.join(names)}"
        raise ValueError(f"no property {unknown} of {program.name}{hint}")
    wanted = [name for name in names if not properties or name in properties]
    found = _Questions(program, names).decide(wanted, processes)
    role = role_of(program)
    assumptions = list(role.assumptions) if role is not None else []
    if role is not None and len(wanted) < len(names) and not GENERAL.keys() >= set(wanted):
        assumptions.insert(0, PARTLY)
    return Report(program.name, found, assumptions, time.monotonic() - began)


class _Questions:
    """All that may be asked about one program, and what was found out."""

    def __init__(self, program: ir.Program, names: dict[str, str]) -> None:
        self._names = names
        self._whole = passage(program)
        self._general = General(self._whole)
        self._role = role_of(program)
        self._found: dict[str, list[Finding]] = {}

    def decide(self, wanted: list[str], processes: int | None) -> list[Finding]:
        """One finding for a property that holds, and one for each place where one is broken."""
        if self._claimed is None or GENERAL.keys() >= set(wanted):
            self._ask({name: partial(self._of_program, name) for name in wanted}, processes)
        else:
            self._derive(self._claimed, wanted, processes)
        return [finding for name in wanted for finding in self._found[name]]

    @cached_property
    def _claimed(self) -> Claimed | None:
        return None if self._role is None else Claimed(self._whole, self._role)

    def _derive(self, claimed: Claimed, wanted: list[str], processes: int | None) -> None:
        """Inductions follow from claims where they can, and are asked of the program if not."""
        if len(wanted) < len(self._names):  # what they follow from is not asked for: look first
            self._look(claimed, wanted)
        needed = claimed.closure(name for name in wanted if name not in self._found)
        derived = [name for name in needed if claimed.premises(name)]
        consequences = {name: claimed.consequences(name) for name in derived}
        questions = {key: each for name in derived for key, each in consequences[name].items()}
        direct = {name: partial(self._of_program, name) for name in needed if name not in derived}
        tasks: dict[object, Callable[[], _Answer]] = {
            name: direct[name] for name in LONGEST if name in direct
        }
        tasks |= {key: partial(claimed.is_impossible, each) for key, each in questions.items()}
        tasks |= {name: task for name, task in direct.items() if name not in tasks}
        impossible = {key for key, answer in self._ask(tasks, processes).items() if answer is True}
        again = [name for name in derived if not impossible >= consequences[name].keys()]
        self._ask({name: partial(self._of_program, name) for name in again}, processes)
        # What another one follows from stands before it.
        for name in (name for name in derived if name not in again):
            if all(each.holds for known in claimed.premises(name) for each in self._found[known]):
                self._found[name] = self._told([claimed.proved(name)])
            else:
                self._found[name] = self._of_program(name)

    def _look(self, claimed: Claimed, wanted: list[str]) -> None:
        """Takes a short look at inductions: often that is enough to refute one."""
        for name in wanted:
            if name not in GENERAL and claimed.premises(name):
                refuted = claimed.refutation(name)
                if refuted:
                    self._found[name] = self._told(refuted)

    def _ask(
        self, tasks: Mapping[object, Callable[[], _Answer]], processes: int | None
    ) -> dict[object, _Answer]:
        """Asks in several processes; keeps the findings."""
        answers = dict(zip(tasks, results(list(tasks.values()), processes), strict=True))
        for name, answer in answers.items():
            if isinstance(name, str) and not isinstance(answer, bool):
                self._found[name] = answer
        return answers

    def _of_program(self, name: str) -> list[Finding]:
        """A property, of the program itself."""
        if name in GENERAL:
            return self._told(self._general.decide(name))
        assert self._claimed is not None
        return self._told(self._claimed.decide(name))

    def _told(self, verdicts: list[Verdict]) -> list[Finding]:
        return [self._finding(verdict, self._names[verdict.name]) for verdict in verdicts]

    def _finding(self, verdict: Verdict, text: str) -> Finding:
        if verdict.model is None:
            undecided = verdict.undecided
            return Finding(verdict.name, text, verdict.where, undecided=undecided)
        claimed = None if verdict.name in GENERAL else self._claimed
        cells = [] if claimed is None else claimed.step.other_cells()
        found = counterexample(self._whole, verdict.model, cells)
        # A value that P4 leaves open is one of the formula's choice, and 0 at the interpreter.
        open_value = verdict.name in ("header", "unset")
        differences = [] if open_value else found.replay()
        finding = Finding(verdict.name, verdict.text, verdict.where, found, differences)
        if claimed is not None:
            group = verdict.model.eval(claimed.step.group, model_completion=True).as_long()
            title = f"{verdict.name}: {verdict.text}"
            with suppress(NoVector):
                finding.vector = vector(found, claimed.role.name, group, title)
        return finding
