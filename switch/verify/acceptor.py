"""What is claimed of an acceptor (docs/PROTOCOL.md, section 3), of one packet.

The names of the sections' rules are those of its table; `promised(i)` is as there. What holds over
many packets is in `acceptor_histories`.
"""

from __future__ import annotations

import z3

from p4xos import wire
from p4xos.quorum import NO_ROUND
from p4xos.wire import Type
from switch.verify.claims import Claim, Invariant, claim
from switch.verify.step import Cells, Step, same_front, umax
from switch.verify.terms import Term, resized

_SUMMARY = {"highest": (0, 8), "votes": (8, 4), "nonce": (12, 4)}
_GROUP = ("floor", "highest_round", "low", "highest")
_SLOT = ("instance", "round", "vround", "length", "value")
_PHASE1A, _PHASE1B, _PHASE2A, _PHASE2B = Type.PHASE1A, Type.PHASE1B, Type.PHASE2A, Type.PHASE2B


class AcceptorStep(Step):
    """One packet at an acceptor; the terms are the words of section 3."""

    def derive(self) -> None:
        """The words of section 3, from message, registers and `low`."""
        m = self.received
        ahead = z3.UGT(m.low, self.old.low)
        moves = self.is_type(_PHASE1A, _PHASE2A, Type.HEARTBEAT)
        jumps = self.opaque("jumps", z3.UGT(m.low - self.old.low, wire.LOW_JUMP_MAX))
        self.jumps = z3.And(moves, ahead, jumps)
        taken = z3.And(moves, ahead, z3.Not(self.jumps))
        self.low_by_rule = self.opaque("low_by_rule", z3.If(taken, m.low, self.old.low))
        """What `low` has to be, as section 3 says; one claim says that it is."""
        self.end = m.value(8)
        self.first = z3.If(z3.ULT(m.instance, self.low), self.low, m.instance)
        self.asked = z3.If(self.is_type(_PHASE1A, Type.LEARN), self.first, m.instance)
        """The instance whose slot is looked at."""
        self.to_the_end = self.end == wire.END_OF_LOG
        near = self.opaque("near", self.in_window(self.first, self.low))
        inside = z3.And(near, z3.UGT(self.end, self.first))
        self.empty = z3.Not(inside)
        """Nothing of the range [instance, end) lies in the window."""
        last = self.opaque(
            "last", z3.Or(self.end - self.first == 1, self.first - self.low == self.window - 1)
        )
        self.single = z3.And(z3.Not(self.to_the_end), inside, last)
        """Just `first` does."""
        self.whole_range = z3.And(m.length == 8, z3.ULE(m.instance, self.end))
        self.phase1a, self.phase2a = self.is_type(_PHASE1A), self.is_type(_PHASE2A)
        self.is_vote = self.left.type == _PHASE2B
        self.is_summary = z3.And(
            self.left.type == _PHASE1B, self.left.vround == NO_ROUND, self.left.length != 0
        )
        self.is_report = z3.And(self.left.type == _PHASE1B, z3.Not(self.is_summary))

    def promised(self, group: Cells, slot: Cells, instance: Term) -> Term:
        """The round below which an instance takes nothing."""
        return umax(group.floor, z3.If(slot.instance == instance, slot.round, NO_ROUND))

    def summary(self, name: str) -> Term:
        """A field of the summary that leaves."""
        offset, size = _SUMMARY[name]
        return self.left.value(size, offset)

    def changed(self, before: Cells, after: Cells, names: tuple[str, ...]) -> Term:
        """Whether any of these registers has another value."""
        return z3.Or([getattr(before, name) != getattr(after, name) for name in names])


TYPES = (_PHASE1A, _PHASE2A, Type.HEARTBEAT, Type.LEARN, Type.READ_INDEX, Type.RECORD)
CLAIMS: list[Claim[AcceptorStep]] = []


# Silence ---------------------------------------------------------------------------------------


@claim(CLAIMS, "stale-round", "a PHASE1A or PHASE2A below promised(i) is silence (traps 1, 6)")
def _stale_round(s: AcceptorStep) -> Term:
    round_ = s.received.round
    alone = z3.Or(s.phase2a, z3.And(z3.Not(s.to_the_end), z3.Not(s.empty)))
    promised = s.promised(s.old, s.held, s.asked)
    fresh = z3.And(z3.UGE(round_, s.old.floor), z3.Implies(alone, z3.UGE(round_, promised)))
    return z3.Implies(z3.And(z3.Or(s.phase1a, s.phase2a), s.leaves), fresh)


@claim(CLAIMS, "round-zero", "round 0 is never a round: no answer, no vote, no promise (trap 3)")
def _round_zero(s: AcceptorStep) -> Term:
    zero = z3.And(z3.Or(s.phase1a, s.phase2a), s.received.round == NO_ROUND)
    unchanged = z3.Not(s.changed(s.held, s.kept, _SLOT))
    return z3.Implies(zero, z3.And(z3.Not(s.leaves), unchanged, s.old.floor == s.new.floor))


@claim(CLAIMS, "window", "outside [low, low + window) an instance is no index, and has no vote")
def _window(s: AcceptorStep) -> Term:
    right = z3.And(s.in_window(s.asked, s.low), s.slot == s.slot_of(s.asked))
    looks = [
        z3.Implies(access.guard, z3.And(access.index == s.slot, right))
        for access in s.accesses
        if s.is_slot(access.register)
    ]
    changed = s.changed(s.held, s.kept, _SLOT)
    return z3.And(
        *looks, z3.Implies(z3.And(s.phase2a, s.leaves), right),
        z3.Implies(changed, z3.And(s.heard, right, s.kept.instance == s.asked)),
    )  # fmt: skip


@claim(CLAIMS, "answers-only", "each type is answered by its own type, and others are silence")
def _answers_only(s: AcceptorStep) -> Term:
    answers = {
        _PHASE1A: _PHASE1B, _PHASE2A: _PHASE2B, Type.LEARN: _PHASE2B,
        Type.READ_INDEX: Type.READ_INDEX_REPLY, Type.RECORD: Type.RECORDED,
    }  # fmt: skip
    pairs = [z3.And(s.is_type(asked), s.left.type == told) for asked, told in answers.items()]
    return z3.And(
        z3.Implies(s.leaves, z3.And(s.heard, s.is_type(*answers))), z3.Implies(s.sent, z3.Or(pairs))
    )


# Votes -----------------------------------------------------------------------------------------


@claim(CLAIMS, "vote-stored", "a PHASE2B leaves only with the vote that its slot holds")
def _vote_stored(s: AcceptorStep) -> Term:
    left, slot = s.left, s.kept
    same = z3.And(
        s.slot == s.slot_of(s.asked), s.in_window(s.asked, s.low), left.instance == s.asked,
        slot.instance == s.asked, slot.vround == left.vround, left.round == left.vround,
        left.vround != NO_ROUND, slot.length == left.length,
        slot.value == left.value(s.value_bytes),
    )  # fmt: skip
    return z3.Implies(z3.And(s.sent, s.is_vote), same)


@claim(CLAIMS, "vote-proposed", "a vote is that of the PHASE2A: its instance, round and value")
def _vote_proposed(s: AcceptorStep) -> Term:
    m, slot = s.received, s.kept
    repeated = z3.And(s.held.instance == s.asked, s.held.vround == m.round)
    stored = z3.And(
        slot.instance == s.asked, slot.round == m.round, slot.vround == m.round,
        slot.length == m.length, same_front(slot.value, m.value(s.value_bytes), m.length),
    )  # fmt: skip
    told = z3.Implies(s.sent, s.left.instance == s.asked)
    return z3.Implies(
        z3.And(s.phase2a, s.leaves), z3.And(told, z3.If(repeated, slot.vround == m.round, stored))
    )


@claim(CLAIMS, "vote-kept", "a vote is never overwritten in its round (trap 5)")
def _vote_kept(s: AcceptorStep) -> Term:
    held, kept = s.held, s.kept
    same_vote = z3.And(
        held.instance == kept.instance, held.vround == kept.vround, kept.vround != NO_ROUND
    )
    return z3.Implies(same_vote, z3.And(held.value == kept.value, held.length == kept.length))


@claim(CLAIMS, "vote-promised", "no vote is cast below a promise, nor in silence")
def _vote_promised(s: AcceptorStep) -> Term:
    held, kept, m = s.held, s.kept, s.received
    same = z3.And(held.instance == kept.instance, held.vround == kept.vround)
    cast = z3.And(z3.Not(same), kept.vround != NO_ROUND)
    lawful = z3.And(
        s.phase2a, s.leaves, kept.vround == m.round, kept.instance == s.asked,
        z3.UGE(kept.vround, s.promised(s.old, held, s.asked)),
    )  # fmt: skip
    return z3.Implies(cast, lawful)


# Promises --------------------------------------------------------------------------------------


@claim(CLAIMS, "report-exact", "a PHASE1B for one instance tells its promise and vote, no other")
def _report_exact(s: AcceptorStep) -> Term:
    left, m, slot = s.left, s.received, s.held
    own = slot.instance == s.asked
    exact = z3.And(
        s.phase1a, s.single, left.instance == s.asked, s.slot == s.slot_of(s.asked),
        left.round == m.round, s.kept.instance == s.asked, s.kept.round == m.round,
        z3.UGE(m.round, s.new.floor),
        left.vround == z3.If(own, slot.vround, NO_ROUND),
        left.length == z3.If(own, slot.length, 0),
        left.value(s.value_bytes) == z3.If(own, slot.value, 0),
    )  # fmt: skip
    return z3.Implies(z3.And(s.sent, s.is_report), exact)


@claim(CLAIMS, "summary-exact", "a summary tells highest, low and seen, and promises its round")
def _summary_exact(s: AcceptorStep) -> Term:
    left, m = s.left, s.received
    seen = s.old.seen
    told = z3.And(
        left.round == m.round, left.instance == s.first, left.low == s.new.low,
        s.summary("highest") == s.new.highest, s.summary("nonce") == m.vround,
        left.value(seen.size() // 8, 16) == seen, left.length == 16 + seen.size() // 8,
    )  # fmt: skip
    promise = z3.If(
        s.to_the_end,
        z3.And(s.new.floor == m.round, s.summary("votes") == wire.ASK_ONE_BY_ONE),
        z3.And(s.empty, s.summary("votes") == 0),
    )
    return z3.Implies(z3.And(s.sent, s.is_summary), z3.And(told, promise))


@claim(CLAIMS, "promise-moves", "floor and slot rounds become only the round of what is answered")
def _promise_moves(s: AcceptorStep) -> Term:
    m, held, kept = s.received, s.held, s.kept
    to_all = z3.And(
        s.phase1a, s.leaves, s.to_the_end, s.whole_range, s.new.floor == m.round
    )
    to_one = z3.And(
        z3.Or(z3.And(s.phase1a, s.single), s.phase2a), s.leaves, kept.round == m.round,
        kept.instance == s.asked,
    )  # fmt: skip
    moved = z3.Or(held.instance != kept.instance, held.round != kept.round)
    return z3.And(
        z3.Implies(s.old.floor != s.new.floor, to_all),
        z3.Implies(z3.And(moved, kept.round != NO_ROUND), to_one),
    )


@claim(CLAIMS, "rounds-grow", "in a slot no promise and no vote's round ever becomes less")
def _rounds_grow(s: AcceptorStep) -> Term:
    held, kept = s.held, s.kept
    same = held.instance == kept.instance
    grow = z3.And(z3.UGE(kept.round, held.round), z3.UGE(kept.vround, held.vround))
    forgotten = z3.Or(z3.ULT(held.instance, s.new.low), held.round == NO_ROUND)
    return z3.If(same, grow, forgotten)


# The group's registers -------------------------------------------------------------------------


@claim(CLAIMS, "group-grows", "floor, highest_round, low and highest never become less")
def _group_grows(s: AcceptorStep) -> Term:
    return z3.And([z3.UGE(getattr(s.new, name), getattr(s.old, name)) for name in _GROUP])


@claim(CLAIMS, "low", "only PHASE1A, PHASE2A and HEARTBEAT move low, only up, never by a jump")
def _low(s: AcceptorStep) -> Term:
    moved = z3.And(s.low == s.low_by_rule, s.new.low == s.low_by_rule)
    return z3.If(s.heard, moved, s.new.low == s.old.low)


@claim(CLAIMS, "highest", "highest is the largest of itself, low - 1 and the instance voted for")
def _highest(s: AcceptorStep) -> Term:
    raised = z3.UGT(s.low_by_rule, s.old.low)
    floor = z3.If(raised, umax(s.old.highest, s.low_by_rule - 1), s.old.highest)
    voted = z3.And(s.phase2a, s.leaves)
    expected = z3.If(voted, umax(floor, s.asked), floor)
    return s.new.highest == z3.If(s.heard, expected, s.old.highest)


@claim(CLAIMS, "highest-round", "highest_round is the largest round promised or voted in")
def _highest_round(s: AcceptorStep) -> Term:
    promises = z3.And(s.phase1a, s.leaves, z3.Or(s.to_the_end, z3.Not(s.empty)))
    promised = z3.Or(promises, z3.And(s.phase2a, s.leaves))
    old = s.old.highest_round
    expected = z3.If(promised, umax(old, s.received.round), old)
    return z3.Implies(s.heard, s.new.highest_round == expected)


@claim(CLAIMS, "others-unchanged", "one packet writes to one slot of one group, if it is heard")
def _others_unchanged(s: AcceptorStep) -> Term:
    rules = z3.Or(s.phase1a, s.phase2a)
    return z3.And(
        [
            z3.Implies(
                write.guard,
                z3.And(s.heard, rules, write.index == s.slot)
                if s.is_slot(write.register)
                else z3.And(s.heard, write.index == s.group),
            )
            for write in s.passage.decided.writes
        ]
    )


# Other questions -------------------------------------------------------------------------------


@claim(CLAIMS, "read-index", "READ_INDEX_REPLY tells highest, highest_round, low and the nonce")
def _read_index(s: AcceptorStep) -> Term:
    left = s.left
    told = z3.And(
        left.instance == s.new.highest, left.round == s.new.highest_round,
        left.low == s.new.low, left.vround == s.received.vround, left.length == 0,
    )  # fmt: skip
    return z3.Implies(z3.And(s.sent, s.is_type(Type.READ_INDEX)), told)


@claim(CLAIMS, "record", "RECORD raises seen of its sender alone; RECORDED tells the new seen")
def _record(s: AcceptorStep) -> Term:
    m, left = s.received, s.left
    old, new = s.old.seen, s.new.seen
    count = old.size() // 32
    told = m.value(4)
    kept = []
    for acceptor in range(count):
        low = 32 * (count - 1 - acceptor)
        was, now = z3.Extract(low + 31, low, old), z3.Extract(low + 31, low, new)
        raised = z3.And(s.is_type(Type.RECORD), s.leaves, m.sender == acceptor)
        kept.append(now == z3.If(raised, umax(was, told), was))
    answer = z3.And(
        left.value(old.size() // 8) == new, left.length == old.size() // 8,
        left.round == s.new.highest_round, left.low == s.new.low,
        left.instance == resized(m.sender, 64), left.vround == m.vround,
        m.sender != s.control_plane("id"),
    )  # fmt: skip
    return z3.And(
        z3.Implies(s.heard, z3.And(kept)),
        z3.Implies(z3.And(s.sent, s.is_type(Type.RECORD)), answer),
    )


# What leaves -----------------------------------------------------------------------------------


@claim(CLAIMS, "addressed", "PHASE2B of a PHASE2A goes to the learners, all else to who asked")
def _addressed(s: AcceptorStep) -> Term:
    told = z3.And(s.tells, s.passage.multicast == s.control_plane("audience"))
    return z3.And(
        z3.Implies(s.leaves, z3.If(s.phase2a, told, z3.Not(s.tells))),
        z3.Implies(z3.And(s.sent, z3.Not(s.tells)), s.addressed_to_asker()),
    )


@claim(CLAIMS, "signed", "what leaves has this acceptor's id and incarnation, and right lengths")
def _signed(s: AcceptorStep) -> Term:
    left, m = s.left, s.received
    own = z3.And(
        left.version == wire.VERSION, left.group == m.group, left.cluster == m.cluster,
        left.sender == s.control_plane("id"),
        left.incarnation == s.control_plane("incarnation"), s.lengths_right(),
    )  # fmt: skip
    return z3.Implies(s.sent, own)


@claim(CLAIMS, "answers", "what the rules answer is answered: silence is not always safe enough")
def _answers(s: AcceptorStep) -> Term:
    m = s.received
    fits = s.fits(s.value_bytes)
    good = z3.And(s.heard, fits, z3.Not(s.jumps), m.round != NO_ROUND)
    vote = z3.And(
        s.phase2a, s.in_window(s.asked, s.low), z3.ULE(m.length, s.value_bytes),
        z3.UGE(m.round, s.promised(s.old, s.held, s.asked)),
    )  # fmt: skip
    promise_all = z3.And(
        s.phase1a, s.whole_range, s.to_the_end, z3.UGE(m.round, s.old.floor)
    )
    promise_one = z3.And(
        s.phase1a, s.whole_range, s.single, z3.UGE(m.round, s.promised(s.old, s.held, s.asked))
    )
    asked = z3.And(s.heard, fits, s.is_type(Type.READ_INDEX), z3.ULE(m.instance, 1))
    learn = z3.And(
        s.heard, fits, s.is_type(Type.LEARN), s.whole_range, z3.Not(s.empty),
        s.held.instance == s.asked, s.held.vround != NO_ROUND,
    )  # fmt: skip
    answered = z3.And(good, z3.Or(vote, promise_all, promise_one))
    return z3.Implies(z3.Or(answered, asked, learn), s.leaves)


# Between packets -------------------------------------------------------------------------------


INVARIANTS: list[Invariant[AcceptorStep]] = [
    Invariant(
        "vote-below-promise", "slot.vround <= slot.round <= highest_round, floor <= highest_round",
        lambda s, g, c, k: z3.And(
            z3.ULE(c.vround, c.round), z3.ULE(c.round, g.highest_round),
            z3.ULE(g.floor, g.highest_round),
        ),
        (
            "answers-only", "highest-round", "promise-moves", "group-grows", "rounds-grow",
            "vote-promised", "vote-proposed",
        ),
    ),
    Invariant(
        "slot-holds-its-own", "a slot holds instances of its own place, none above the window",
        lambda s, g, c, k: z3.Implies(
            z3.Or(c.instance != 0, c.round != NO_ROUND),
            z3.And(
                s.slot_of(c.instance, s.group_of(k)) == k,
                z3.Or(z3.ULT(c.instance, g.low), z3.ULT(c.instance - g.low, s.window)),
            ),
        ),
        ("window", "low", "group-grows"),
    ),
    Invariant(
        "highest-of-votes", "no vote is above highest, and highest is never below low - 1",
        lambda s, g, c, k: z3.And(
            z3.Implies(c.vround != NO_ROUND, z3.ULE(c.instance, g.highest)),
            z3.Or(g.low == 0, z3.UGE(g.highest, g.low - 1)),
        ),
        ("highest", "low", "group-grows", "vote-promised", "answers-only"),
    ),
    Invariant(
        "value-fits", "a slot's value is at most VALUE_BYTES long; without a vote there is none",
        lambda s, g, c, k: z3.And(
            z3.ULE(c.length, s.value_bytes),
            z3.Implies(c.vround == NO_ROUND, z3.And(c.length == 0, c.value == 0)),
        ),
    ),
]  # fmt: skip
