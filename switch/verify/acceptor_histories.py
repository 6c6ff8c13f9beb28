"""What an acceptor keeps over any number of packets: of votes and promises that it once sent.

Each History is about one instance and one round of one group, any: unknowns of the formula.
"""

from __future__ import annotations

import z3

from p4xos.quorum import NO_ROUND
from p4xos.wire import Type
from switch.verify.acceptor import AcceptorStep
from switch.verify.claims import History
from switch.verify.step import Cells
from switch.verify.terms import Term

_INSTANCE = z3.BitVec("history.instance", 64)
_ROUND = z3.BitVec("history.round", 32)
_LENGTH = z3.BitVec("history.length", 16)


def _value(s: AcceptorStep) -> Term:
    return z3.BitVec("history.value", 8 * s.value_bytes)


def _vote_leaves(s: AcceptorStep) -> Term:
    """A PHASE2B of the instance in the round."""
    return z3.And(s.sent, s.is_vote, s.left.instance == _INSTANCE, s.left.round == _ROUND)


def _this_vote_leaves(s: AcceptorStep) -> Term:
    same = z3.And(s.left.length == _LENGTH, s.left.value(s.value_bytes) == _value(s))
    return z3.And(_vote_leaves(s), same)


def _other_vote_leaves(s: AcceptorStep) -> Term:
    return z3.And(_vote_leaves(s), z3.Not(_this_vote_leaves(s)))


def _vote_is_held(s: AcceptorStep, group: Cells, slot: Cells) -> Term:
    """Unless forgotten on purpose, the vote is in its slot, or a later round's is."""
    same = z3.And(slot.value == _value(s), slot.length == _LENGTH)
    held = z3.And(
        slot.instance == _INSTANCE, z3.UGE(slot.vround, _ROUND),
        z3.Implies(slot.vround == _ROUND, same),
    )  # fmt: skip
    return z3.And(
        _ROUND != NO_ROUND, z3.UGE(group.highest, _INSTANCE), z3.UGE(group.highest_round, _ROUND),
        z3.Or(z3.ULT(_INSTANCE, group.low), held),
    )  # fmt: skip


def _report_misses_vote(s: AcceptorStep) -> Term:
    """A PHASE1B that hides the vote: a lower vround, its round with another value, no instance."""
    left = s.left
    other = z3.Or(left.length != _LENGTH, left.value(s.value_bytes) != _value(s))
    hidden = z3.Or(z3.ULT(left.vround, _ROUND), z3.And(left.vround == _ROUND, other))
    report = z3.And(s.is_report, left.instance == _INSTANCE, hidden)
    summary = z3.And(s.is_summary, z3.ULT(s.summary("highest"), _INSTANCE))
    return z3.And(s.sent, z3.Or(report, summary))


def _promise_leaves(s: AcceptorStep) -> Term:
    """A PHASE1B in the round that speaks for the instance."""
    report = z3.And(s.is_report, s.left.instance == _INSTANCE)
    summary = z3.And(s.is_summary, s.to_the_end)
    return z3.And(s.sent, s.left.round == _ROUND, z3.Or(report, summary))


def _promise_is_held(s: AcceptorStep, group: Cells, slot: Cells) -> Term:
    by_slot = z3.And(slot.instance == _INSTANCE, z3.UGE(slot.round, _ROUND))
    held = z3.Or(z3.UGE(group.floor, _ROUND), z3.ULT(_INSTANCE, group.low), by_slot)
    return z3.And(z3.UGE(group.highest_round, _ROUND), held)


def _vote_below(s: AcceptorStep) -> Term:
    """A PHASE2A of the instance in a lower round is voted for, or answered."""
    m, held, kept = s.received, s.held, s.kept
    moved = z3.Or(held.vround != kept.vround, held.instance != kept.instance)
    cast = z3.And(moved, kept.instance == _INSTANCE, kept.vround != NO_ROUND)
    answered = z3.And(s.phase2a, s.leaves, m.instance == _INSTANCE)
    return z3.Or(
        z3.And(cast, z3.ULT(kept.vround, _ROUND)), z3.And(answered, z3.ULT(m.round, _ROUND))
    )


def _reply_below(s: AcceptorStep) -> Term:
    """A READ_INDEX_REPLY that knows less than what was sent before."""
    less = z3.Or(z3.ULT(s.left.instance, _INSTANCE), z3.ULT(s.left.round, _ROUND))
    return z3.And(s.sent, s.left.type == Type.READ_INDEX_REPLY, less)


_VOTE_STORED, _VOTE_KEPT = ("vote-stored",), ("group-grows", "rounds-grow", "vote-kept")

HISTORIES: list[History[AcceptorStep]] = [
    History(
        "one-vote-a-round", "two PHASE2B of one instance and round are equal, however far apart",
        _INSTANCE, _this_vote_leaves, _vote_is_held, _other_vote_leaves,
        _VOTE_STORED, _VOTE_KEPT,
        ("low", "group-grows", "rounds-grow", "answers-only", "vote-stored", "vote-kept"),
    ),
    History(
        "reports-tell-votes", "once voted, every PHASE1B tells the vote, or one of a later round",
        _INSTANCE, _this_vote_leaves, _vote_is_held, _report_misses_vote,
        _VOTE_STORED, _VOTE_KEPT,
        ("low", "group-grows", "answers-only", "report-exact", "summary-exact"),
    ),
    History(
        "promise-kept", "once promised, no lower round is ever voted in for that instance",
        _INSTANCE, _promise_leaves, _promise_is_held, _vote_below,
        ("report-exact", "summary-exact"), ("group-grows", "rounds-grow", "window"),
        ("low", "group-grows", "answers-only", "vote-promised", "stale-round", "window"),
    ),
    History(
        "reads-see-votes", "once voted, every READ_INDEX_REPLY covers the instance and the round",
        _INSTANCE, _this_vote_leaves, _vote_is_held, _reply_below,
        _VOTE_STORED, _VOTE_KEPT, ("group-grows", "answers-only", "read-index"),
    ),
]  # fmt: skip

ASSUMPTIONS = (
    "One round has one coordinator, and that proposes one value for an instance in it (4): one"
    " acceptor cannot see what another is sent; the simulator checks it.",
    "Registers are all 0, or what section 8 says, when the control plane opens a group's port;"
    " while it is open, nobody else writes them.",
    "Ingress takes one packet after the other.",
    "The control plane gives no two groups the same registers.",
)
"""What one switch cannot guarantee."""
