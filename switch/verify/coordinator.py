"""What is claimed of a switch that is a coordinator (docs/PROTOCOL.md, section 4)."""

from __future__ import annotations

import z3

from p4xos import wire
from p4xos.quorum import NO_ROUND
from p4xos.wire import Type
from switch.verify.claims import Claim, History, Invariant, claim
from switch.verify.step import Cells, Step, same_front, umax
from switch.verify.terms import Term

_INSTANCE = z3.BitVec("history.instance", 64)
_ROUND = z3.BitVec("history.round", 32)
_REGISTERS = ("round", "next", "low")


class CoordinatorStep(Step):
    """One packet at a coordinator."""

    def derive(self) -> None:
        """The words of section 4."""
        self.next = umax(self.old.next, self.old.low)
        """The instance that a request gets: nothing below low is proposed."""
        self.request = self.is_type(Type.REQUEST)

    def modest(self) -> list[Term]:
        """As everywhere; and next is in the window, where all but a controller leave it."""
        ahead = self.old.next - self.old.low
        return [*super().modest(), z3.And(self.old.low != 0, z3.ULE(ahead, self.window))]

    @property
    def value_bytes(self) -> int:
        """The largest value: what is behind the header of the largest packet that leaves."""
        value = [h for h in self.program.headers.values() if h.path.rpartition(".")[2] == "value"]
        return value[0].bits // 8


CLAIMS: list[Claim[CoordinatorStep]] = []


@claim(CLAIMS, "requests-only", "only a REQUEST is answered, by a PHASE2A to the acceptors")
def _requests_only(s: CoordinatorStep) -> Term:
    audience = s.passage.multicast == s.control_plane("audience")
    allowed = z3.And(s.heard, s.request, s.tells, audience)
    return z3.And(
        z3.Implies(s.leaves, allowed), z3.Implies(s.sent, s.left.type == Type.PHASE2A)
    )


@claim(CLAIMS, "inactive", "without a round, round 0, every REQUEST is silence (trap 8)")
def _inactive(s: CoordinatorStep) -> Term:
    return z3.Implies(s.leaves, s.old.round != NO_ROUND)


@claim(CLAIMS, "next-instance", "a REQUEST gets the next instance, in the register's round")
def _next_instance(s: CoordinatorStep) -> Term:
    left = s.left
    stamped = z3.And(
        left.instance == s.next, left.round == s.old.round, left.vround == 0,
        left.low == s.old.low,
    )  # fmt: skip
    return z3.And(
        z3.Implies(s.leaves, s.new.next == s.next + 1), z3.Implies(s.sent, stamped)
    )


@claim(CLAIMS, "window", "nothing is proposed below low, nor at or above low + window")
def _window(s: CoordinatorStep) -> Term:
    return z3.Implies(s.leaves, s.in_window(s.next, s.old.low))


@claim(CLAIMS, "value", "the value that leaves is the one that came, with its length")
def _value(s: CoordinatorStep) -> Term:
    left, m = s.left, s.received
    same = same_front(left.value(s.value_bytes), m.value(s.value_bytes), m.length)
    fits = z3.ULE(m.length, s.value_bytes)
    return z3.Implies(s.sent, z3.And(left.length == m.length, fits, same))


@claim(CLAIMS, "signed", "what leaves has this coordinator's id, group and right lengths")
def _signed(s: CoordinatorStep) -> Term:
    left, m = s.left, s.received
    own = z3.And(
        left.version == wire.VERSION, left.group == m.group, left.cluster == m.cluster,
        left.sender == s.control_plane("id"), left.incarnation == 0, s.lengths_right(),
    )  # fmt: skip
    return z3.Implies(s.sent, own)


@claim(CLAIMS, "registers", "packets never write round and low; next only grows, by proposing")
def _registers(s: CoordinatorStep) -> Term:
    group = s.any_group
    old, new = s.before.group(group), s.after.group(group)
    moved = old.next != new.next
    own = z3.And(s.heard, s.leaves, group == s.group, z3.UGT(new.next, old.next))
    return z3.And(old.round == new.round, old.low == new.low, z3.Implies(moved, own))


@claim(CLAIMS, "answers", "a REQUEST that fits is proposed while there is room in the window")
def _answers(s: CoordinatorStep) -> Term:
    m = s.received
    fits = z3.And(z3.ULE(m.length, s.value_bytes), s.fits(s.value_bytes))
    good = z3.And(
        s.heard, s.request, fits, s.old.round != NO_ROUND, s.in_window(s.next, s.old.low)
    )
    return z3.Implies(good, s.leaves)


INVARIANTS: list[Invariant[CoordinatorStep]] = [
    Invariant(
        "no-wrap", "low is at most 2^62, and next at most a window above: neither wraps",
        lambda s, g, c, k: z3.And(
            z3.ULE(g.low, wire.LOW_MAX), z3.ULE(g.next, wire.LOW_MAX + s.window)
        ),
    )
]  # fmt: skip


def _proposed(s: CoordinatorStep) -> Term:
    return z3.And(s.sent, s.left.instance == _INSTANCE, s.left.round == _ROUND)


def _is_past(s: CoordinatorStep, group: Cells, slot: Cells) -> Term:
    past = z3.Implies(group.round == _ROUND, z3.ULT(_INSTANCE, group.next))
    return z3.And(past, z3.ULE(_INSTANCE, wire.LOW_MAX + s.window))


HISTORIES: list[History[CoordinatorStep]] = [
    History(
        "one-value-a-round", "no two PHASE2A of one instance and round ever leave (trap 5)",
        _INSTANCE, _proposed, _is_past, _proposed,
    )
]  # fmt: skip

ASSUMPTIONS = (
    "Its controller writes a round only after round 0, low and next (4), never one that was used"
    " before, and gives no other coordinator the same; low only grows and stays below 2^62.",
    "Ingress takes one packet after the other.",
    "The control plane gives no two groups the same registers.",
)
"""What one switch cannot guarantee."""
