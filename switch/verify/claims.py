"""What is claimed of a role: of one packet, of the registers, of all packets to come.

A Claim is about one packet, whatever the registers hold, as long as the invariants hold of them.
An Invariant is about the registers of a group and one slot of it: it holds of registers that are
all 0, and every packet keeps it, so it holds always. A History is about what was once sent: it
says what the registers then keep of it, that every packet keeps that, and what can therefore never
be sent again. Together these are proofs by induction over any number of packets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

import z3

from switch.verify.pipeline import Passage
from switch.verify.step import Cells, Step
from switch.verify.terms import Term

S = TypeVar("S", bound=Step)


@dataclass(frozen=True, slots=True)
class Claim(Generic[S]):
    """Of one packet."""

    name: str
    text: str
    holds: Callable[[S], Term]


@dataclass(frozen=True, slots=True)
class Invariant(Generic[S]):
    """Of the registers of a group and of a slot of it, between packets."""

    name: str
    text: str
    holds: Callable[[S, Cells, Cells, Term], Term]
    """Of step, group, slot and the slot's index."""
    follows: tuple[str, ...] = ()
    """From which claims; without them it is proved of the program."""


@dataclass(frozen=True, slots=True)
class History(Generic[S]):
    """Something was sent once, of one group and instance; the unknowns say what."""

    name: str
    text: str
    instance: Term
    """Which one: an unknown."""
    event: Callable[[S], Term]
    """This packet causes it to be sent."""
    keeps: Callable[[S, Cells, Cells], Term]
    """What group and slot hold ever since."""
    never: Callable[[S], Term]
    """What no later packet can cause."""
    event_follows: tuple[str, ...] = ()
    """From which claims, and the invariants, it follows that the event leaves what is kept."""
    keeps_follows: tuple[str, ...] = ()
    """From which, and the invariants, that it is kept."""
    never_follows: tuple[str, ...] = ()
    """From which alone, that the rest never happens. What is not needed only costs time."""

    @property
    def follows(self) -> tuple[str, ...]:
        """All these claims; none: it is proved of the program."""
        return (*self.event_follows, *self.keeps_follows, *self.never_follows)


class Way(NamedTuple):
    """A way in which an induction can fail."""

    violated: Term
    follows: tuple[str, ...]
    """From which claims it follows that this never comes about."""
    before: bool = False
    """Whether that takes the invariants too, of the registers before the packet."""
    after: bool = False
    """And behind it. An invariant must not follow from itself."""


def claim(
    into: list[Claim[S]], name: str, text: str
) -> Callable[[Callable[[S], Term]], Callable[[S], Term]]:
    """Adds a function of a step to a role's claims."""

    def add(holds: Callable[[S], Term]) -> Callable[[S], Term]:
        into.append(Claim(name, text, holds))
        return holds

    return add


@dataclass(frozen=True, slots=True)
class Role(Generic[S]):
    """All that is claimed of one role, and what is taken for granted."""

    name: str
    step: Callable[[Passage], S]
    claims: Sequence[Claim[S]]
    invariants: Sequence[Invariant[S]]
    histories: Sequence[History[S]]
    types: Sequence[int]
    """Of messages that have rules; all others are one case."""
    assumptions: Sequence[str]
    """In words: what the switch alone cannot guarantee."""

    def known(self, step: S, group: Cells, slot: Cells, index: Term) -> Term:
        """All invariants, of a slot and its group."""
        return z3.And([each.holds(step, group, slot, index) for each in self.invariants])

    def invariant(self, step: S) -> Term:
        """All invariants, of the registers that the packet looks at, before it."""
        return self.known(step, step.old, step.held, step.slot)

    def cases(self, step: S) -> list[Term]:
        """The types of messages; one of these always holds."""
        own = [step.received.type == type_ for type_ in self.types]
        return [*own, z3.Not(z3.Or(own))]

    def broken_claims(self, step: S) -> list[tuple[str, str, Term]]:
        """By name and text: what no packet may do."""
        return [(each.name, each.text, z3.Not(each.holds(step))) for each in self.claims]

    def inductions(self) -> list[Invariant[S] | History[S]]:
        """All that is claimed of more than one packet; invariants first."""
        return [*self.invariants, *self.histories]

    def broken(self, step: S, induction: Invariant[S] | History[S]) -> list[Way]:
        """The ways in which a step of an induction can fail."""
        if isinstance(induction, Invariant):
            return self._broken(step, induction)
        return self._forgotten(step, induction)

    def invariant_after(self, step: S) -> Term:
        """All invariants, of the registers that the packet looks at, after it."""
        return self.known(step, step.new, step.kept, step.slot)

    def _broken(self, step: S, invariant: Invariant[S]) -> list[Way]:
        """At first, in the packet's slot, or in another one of its group.

        That other groups do not change is a claim of its own; so is that no other slot does.
        """
        zero = step.zero.group(step.group), step.zero.slot(step.slot), step.slot
        other, at = step.elsewhere.slot(step.any_slot), step.any_slot
        untouched = z3.And(at != step.slot, step.group_of(at) == step.group)
        lost = z3.Not(invariant.holds(step, step.new, other, at))
        return [
            Way(z3.Not(invariant.holds(step, *zero)), ()),
            Way(
                z3.Not(invariant.holds(step, step.new, step.kept, step.slot)), invariant.follows,
                before=True,
            ),
            Way(
                z3.And(untouched, self.known(step, step.old, other, at), lost), invariant.follows
            ),
        ]  # fmt: skip

    def _forgotten(self, step: S, history: History[S]) -> list[Way]:
        """The instance's slot is the packet's, or another one of its group, left as it is."""
        at = step.slot_of(history.instance)
        other = step.elsewhere.slot(at)
        elsewhere = z3.And(at != step.slot, self.known(step, step.old, other, at))
        ways: list[Way] = []
        for case, held, kept in (
            (at == step.slot, step.held, step.kept),
            (elsewhere, other, other),
        ):
            lost = z3.Not(history.keeps(step, step.new, kept))
            then = history.keeps(step, step.old, held)
            ways += [
                Way(z3.And(case, history.event(step), lost), history.event_follows, after=True),
                Way(z3.And(case, then, lost), history.keeps_follows, before=True),
                Way(z3.And(case, then, history.never(step)), history.never_follows),
            ]
        return ways
