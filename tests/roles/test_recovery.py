"""A serving coordinator mends what was lost (docs/PROTOCOL.md, section 4)."""

from p4xos import wire
from p4xos.effects import To
from p4xos.roles.coordinator import Phase
from p4xos.roles.recovery import RESEND_S, RETRY_S, Recoveries
from p4xos.wire import Message, Type
from tests.roles.helpers import (
    WINDOW,
    Group,
    acceptor,
    coordinator,
    make,
    persisted_rounds,
    phase1a,
    phase2a,
    recover,
    request,
    round_of,
    sent,
)


class Losing:
    """Loses messages of the types named just now."""

    def __init__(self) -> None:
        self.types: set[int] = set()

    def __call__(self, to: To, m: Message) -> bool:
        return m.type in self.types


def group_that_loses() -> tuple[Group, Losing]:
    lost = Losing()
    group = Group(coordinator(), [acceptor(a) for a in range(3)], lost)
    group.take_over()
    return group, lost


def assert_one_value_a_round(group: Group) -> None:
    values: dict[tuple[int, int], bytes] = {}
    for m in group.proposed:
        assert values.setdefault((m.instance, m.round), m.value) == m.value


def test_first_it_sends_again_what_it_sent() -> None:
    """PROTOCOL 4: it resends a PHASE2A only with the value it sent."""
    group, lost = group_that_loses()
    lost.types = {Type.PHASE2A}
    group.give(request(b"a", b"b"))
    lost.types = set()
    group.give(recover(1, 3))
    assert [(m.instance, m.round, m.value) for m in group.proposed] == [
        (1, round_of(1), b"a"), (2, round_of(1), b"b"),
    ]  # fmt: skip
    assert [group.chosen(1), group.chosen(2)] == [{b"a"}, {b"b"}]


def test_asked_at_once_again_it_has_patience() -> None:
    """PROTOCOL 4: a RECOVER right behind a resend, from another learner, starts no recovery."""
    group, lost = group_that_loses()
    lost.types = {Type.PHASE2A}
    group.give(request(b"a"))
    for learner in range(3):
        effects = group.coordinator.step(recover(1, 2, learner), group.now)
        assert effects.persist == []
        assert [m.value for m in sent(effects, Type.PHASE2A)] == [b"a"]


def test_then_it_takes_bounded_phase_1_in_the_recovery_round() -> None:
    """PROTOCOL 4: recovery of [i, j]: bounded phase 1, then the found value in that round."""
    group, _ = group_that_loses()
    group.give(request(b"a"))
    group.give(recover(1, 2))
    group.now += RESEND_S
    effects = group.coordinator.step(recover(1, 2), group.now)
    assert persisted_rounds(effects) == [round_of(2)]
    (question, *_) = sent(effects, Type.PHASE1A)
    assert (question.instance, question.round) == (1, round_of(2))
    assert wire.unpack_end(question.value) == 2
    group.settle(effects)
    assert (group.proposed[-1].round, group.proposed[-1].value) == (round_of(2), b"a")
    assert group.chosen(1) == {b"a"}


def test_one_recovery_round_a_term() -> None:
    """PROTOCOL 4: one for each term; other instances share it."""
    group, _ = group_that_loses()
    group.give(request(b"a", b"b"))
    for first in (1, 2):
        group.give(recover(first, first + 1))
        group.now += RESEND_S
        group.give(recover(first, first + 1))
    assert {m.round for m in group.proposed} == {round_of(1), round_of(2)}


def test_a_recovery_round_used_for_the_instance_is_not_used_again() -> None:
    """PROTOCOL 4: a new one when it was already used for that instance."""
    group, _ = group_that_loses()
    group.give(request(b"a"))
    group.give(recover(1, 2))
    for counter in (2, 3):
        group.now += RESEND_S
        group.give(recover(1, 2))
        assert group.proposed[-1].round == round_of(counter)
    assert_one_value_a_round(group)
    assert group.chosen(1) == {b"a"}


def test_a_resend_after_a_recovery_is_in_the_recovery_round() -> None:
    """PROTOCOL 4: never again another round of its own below it for those instances."""
    group, _ = group_that_loses()
    group.give(request(b"a"))
    group.give(recover(1, 2))
    group.now += RESEND_S
    group.give(recover(1, 2))
    group.coordinator._recoveries._resent.clear()
    group.give(recover(1, 2))
    assert group.proposed[-1].round == round_of(2)


def test_trap_05_a_no_op_goes_only_into_a_round_with_promises() -> None:
    """Traps, 5: each coordinator has its own rounds, recovery takes phase 1, one value a round."""
    group, lost = group_that_loses()
    lost.types = {Type.PHASE2A}
    group.give(request(b"a"))
    group.give(recover(1, 2))
    group.now += RESEND_S
    lost.types = set()
    effects = group.coordinator.step(recover(1, 2), group.now)
    assert sent(effects, Type.PHASE2A) == [], "nothing is proposed before the promises are there"
    group.settle(effects)
    assert group.chosen(1) == {b""}
    assert_one_value_a_round(group)
    late = phase2a(1, round_of(1), b"a", low=1)
    group.settle(group.acceptors[0].step(late, group.now))
    assert group.chosen(1) == {b""}, "the first PHASE2A arrives, late: it is stale"


def test_refused_it_takes_a_higher_round() -> None:
    """PROTOCOL 4: a new round when refused; that is silence, so it asks how high rounds are."""
    group, lost = group_that_loses()
    lost.types = {Type.PHASE2A}
    group.give(request(b"a", b"b"))
    lost.types = set()
    deposed = round_of(9, 2)
    for role in group.acceptors.values():  # a deposed coordinator recovers, and dies half way
        role.step(phase1a(deposed, 1, 2, sender=2), group.now)
    group.settle(group.acceptors[0].step(phase2a(2, round_of(1), b"b"), group.now))
    group.settle(group.acceptors[1].step(phase2a(2, round_of(1), b"b"), group.now))
    for _ in range(40):
        group.give(recover(1, 2))
        group.run_until(group.now + RETRY_S)
    assert len(group.chosen(1)) == 1
    assert group.proposed[-1].round > deposed
    assert_one_value_a_round(group)


def test_a_lost_question_is_asked_again() -> None:
    """PROTOCOL 4: the same question in the same round, until it is answered."""
    group, lost = group_that_loses()
    group.give(request(b"a"))
    group.give(recover(1, 2))
    group.now += RESEND_S
    lost.types = {Type.PHASE1A}
    group.give(recover(1, 2))
    lost.types = set()
    group.run_until(group.now + RETRY_S)
    assert group.proposed[-1].round == round_of(2)
    assert group.chosen(1) == {b"a"}


def test_at_or_above_next_it_fills_with_no_ops_in_the_main_round() -> None:
    """PROTOCOL 4: up to what a learner has heard of, within the window."""
    group, _ = group_that_loses()
    group.give(recover(1, 4))
    assert [(m.instance, m.round, m.value) for m in group.proposed] == [
        (i, round_of(1), b"") for i in (1, 2, 3)
    ]
    group.give(recover(4, 10 * WINDOW))
    assert max(m.instance for m in group.proposed) == WINDOW


def test_below_low_nothing_is_recovered() -> None:
    """PROTOCOL 4: below low nothing is proposed, now or in recovery."""
    group, _ = group_that_loses()
    group.give(request(b"a", b"b", b"c"))
    for learner in (0, 1):
        group.give(make(Type.CHECKPOINT, instance=2, sender=learner))
    before = len(group.proposed)
    group.give(recover(1, 4))
    assert [m.instance for m in group.proposed[before:]] == [3]


def test_who_does_not_serve_does_not_recover() -> None:
    """PROTOCOL 4: recovery is the serving coordinator's."""
    role = coordinator()
    assert role.phase is Phase.FOLLOWING
    assert role.step(recover(1, 4), 0.0).send == []
    assert role.counters["inactive"] == 1


def test_a_malformed_range_is_counted() -> None:
    """PROTOCOL 2: never raises on input."""
    group, _ = group_that_loses()
    group.give(make(Type.RECOVER, instance=1, value=b"short"))
    assert group.coordinator.counters["malformed"] == 1


def test_what_is_forgotten_is_not_recovered() -> None:
    """PROTOCOL 4: below `low` nothing is proposed in recovery; nor is it ever due again."""
    recoveries = Recoveries(acceptors=3)
    recoveries.use_round(round_of(2))
    recoveries.begin(5, now=0.0)
    recoveries.begin(9, now=0.0)
    assert recoveries.due(now=100.0, low=6) == [9]
    assert recoveries.due(now=0.0, low=10) == []
    assert recoveries.deadline() is None
