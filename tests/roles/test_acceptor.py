"""The acceptor's rules (docs/PROTOCOL.md, section 3)."""

import pytest

from p4xos import wire
from p4xos.effects import LEARNERS, Effects, Role, To
from p4xos.roles.acceptor import (
    ANSWER_BYTES_MAX,
    ANSWER_ROWS_MAX,
    COORDINATOR_ASKS,
    PROPOSER_ASKS,
    Acceptor,
)
from p4xos.wire import END_OF_LOG, LOW_JUMP_MAX, Message, Rows, Type, headers, unpack_summary
from tests.roles.helpers import (
    VALUE_BYTES,
    WINDOW,
    acceptor,
    heartbeat,
    learn,
    make,
    persisted,
    phase1a,
    phase2a,
    request,
    round_of,
    sent,
    together,
)

R1, R2, R3 = round_of(1), round_of(2), round_of(3)


def step(role: Acceptor, rows: Rows) -> Effects:
    effects = role.step(rows.copy(), 0.0)
    role.check_invariants()
    return effects


def votes(effects: Effects) -> list[tuple[int, int, bytes]]:
    return [(m.instance, m.round, m.value) for m in sent(effects, Type.PHASE2B)]


def promise(effects: Effects) -> tuple[wire.Summary, list[Message]]:
    summary, *reports = sent(effects, Type.PHASE1B)
    return unpack_summary(summary.value, 3), reports


def silent(effects: Effects) -> bool:
    return effects.send == []


# PHASE2A ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, WINDOW])
def test_a_vote_goes_to_every_learner(count: int) -> None:
    """PROTOCOL 3: PHASE2A in the window, round not stale: vote, PHASE2B to every learner."""
    role = acceptor(1, incarnation=4)
    values = [b"value %d" % k for k in range(count)]
    effects = step(role, phase2a(1, R1, *values, low=1))
    assert {to for to, _ in effects.send} == {LEARNERS}
    answers = sent(effects, Type.PHASE2B)
    assert [(m.instance, m.value) for m in answers] == list(enumerate(values, start=1))
    assert {(m.round, m.vround, m.sender, m.incarnation, m.low) for m in answers} == {
        (R1, R1, 1, 4, 0)
    }
    assert (role.highest, role.highest_round, role.floor) == (count, R1, 0)


def test_a_vote_is_persisted_with_the_answer_that_depends_on_it() -> None:
    """PROTOCOL 3: persisted before any answer that depends on it leaves."""
    effects = step(acceptor(), phase2a(1, R1, b"a", b"b", low=1))
    assert [(m.type, m.instance, m.value) for m in persisted(effects)] == [
        (Type.PHASE2B, 1, b"a"), (Type.PHASE2B, 2, b"b"),
    ]  # fmt: skip


@pytest.mark.parametrize("count", [1, 9])
def test_trap_01_a_stale_round_is_silence(count: int) -> None:
    """Traps, 1: a stale PHASE2A leaves by no port at all, and is counted."""
    role = acceptor()
    step(role, phase1a(R2))
    effects = step(role, phase2a(1, R1, *[b"stale"] * count))
    assert (effects.send, effects.persist) == ([], [])
    assert role.counters["stale_round"] == count
    assert not role.slot_vround.any()


def test_a_round_below_a_slots_promise_is_stale() -> None:
    """PROTOCOL 3: promised(i) is the slot's round where that is above the floor."""
    role = acceptor()
    step(role, phase1a(R3, 2, 3))
    assert votes(step(role, phase2a(1, R2, b"a", b"b", b"c"))) == [(1, R2, b"a"), (3, R2, b"c")]
    assert votes(step(role, phase2a(2, R3, b"b"))) == [(2, R3, b"b")]


def test_the_floor_does_not_move_by_a_vote() -> None:
    """PROTOCOL 3: a vote promises its own instance only."""
    role = acceptor()
    step(role, phase2a(1, R3, b"high"))
    assert votes(step(role, phase2a(2, R1, b"low"))) == [(2, R1, b"low")]


@pytest.mark.parametrize(
    "instance", [0, WINDOW + 1, 2**31, 2**32 + 1, 2**63, 2**64 - 1, 5 * WINDOW + 1]
)
def test_trap_02_an_instance_outside_the_window_is_never_an_index(instance: int) -> None:
    """Traps, 2: bounded first: nothing is answered, nothing is stored."""
    role = acceptor()
    step(role, phase2a(1, R1, b"one"))
    effects = step(role, make(Type.PHASE2A, instance=instance, round=R2, value=b"far"))
    assert (effects.send, effects.persist) == ([], [])
    assert role.counters["out_of_window"] == 1
    assert votes(step(role, learn(1, 2))) == [(1, R1, b"one")]


def test_a_batch_across_the_windows_end_is_taken_in_part() -> None:
    """PROTOCOL 3: what lies in [low, low + window) is voted for."""
    role = acceptor()
    effects = step(role, phase2a(WINDOW - 3, R1, *(b"%d" % k for k in range(10))))
    assert [v[0] for v in votes(effects)] == list(range(WINDOW - 3, WINDOW + 1))


@pytest.mark.parametrize("count", [1, 9])
def test_a_vote_is_repeated_from_the_slot(count: int) -> None:
    """PROTOCOL 3: a vote cast in that round is never overwritten, whatever value comes."""
    role = acceptor()
    step(role, phase2a(1, R1, *[b"first"] * count))
    effects = step(role, phase2a(1, R1, *[b"second"] * count))
    assert votes(effects) == [(1 + k, R1, b"first") for k in range(count)]
    assert effects.persist == []
    assert role.counters["repeated_votes"] == count


def test_two_proposals_for_one_instance_in_one_batch_act_in_order() -> None:
    """PROTOCOL 3: one value a round, also within a batch; a higher round takes its own."""
    role = acceptor()
    effects = step(role, together(phase2a(1, R1, b"a"), phase2a(1, R1, b"b"), phase2a(1, R2, b"c")))
    assert votes(effects) == [(1, R1, b"a"), (1, R1, b"a"), (1, R2, b"c")]


def test_a_repeated_vote_has_no_rest_of_a_longer_one() -> None:
    """PROTOCOL 2: what is behind a value's length is zero."""
    role = acceptor()
    step(role, phase2a(1, R1, b"long value"))
    step(role, phase2a(1, R2, b"ab"))
    ((_, rows),) = step(role, learn(1, 2)).send
    assert not rows[0, wire.HEADER_BYTES + 2 :].any()


def test_trap_03_round_zero_is_never_a_round() -> None:
    """Traps, 3: so vround 0 says "no vote" and nothing else."""
    role = acceptor()
    assert silent(step(role, phase2a(1, 0, b"zero")))
    assert silent(step(role, phase1a(0)))
    assert role.counters["round_zero"] == 2
    _, reports = promise(step(role, phase1a(R1, 1, 2)))
    assert [(m.instance, m.round, m.vround, m.value) for m in reports] == [(1, R1, 0, b"")]


def test_a_value_that_does_not_fit_is_dropped() -> None:
    """PROTOCOL 3: silence and a counter, for that message alone."""
    role = acceptor()
    effects = step(role, phase2a(1, R1, b"a", b"v" * (VALUE_BYTES + 1), b"c"))
    assert [v[0] for v in votes(effects)] == [1, 3]
    assert role.counters["value_too_long"] == 1


# PHASE1A ---------------------------------------------------------------------------------------


def test_batched_phase_1_promises_the_whole_log() -> None:
    """PROTOCOL 3: to the end of the log: floor = round; the summary, and the votes."""
    role = acceptor(1)
    step(role, phase2a(2, R1, b"two", b"three"))
    effects = step(role, phase1a(R2, vround=99, sender=2))
    assert {to for to, _ in effects.send} == {To(Role.COORDINATOR, 2)}
    summary, reports = promise(effects)
    assert summary == wire.Summary(highest=3, votes=2, nonce=99, seen=(0, 0, 0))
    assert [(m.instance, m.round, m.vround, m.value) for m in reports] == [
        (2, R2, R1, b"two"), (3, R2, R1, b"three"),
    ]  # fmt: skip
    assert (role.floor, role.highest_round) == (R2, R2)
    assert [(m.type, m.vround) for m in persisted(effects)] == [(Type.RECORDED, R2)]


def test_the_same_promise_is_given_again() -> None:
    """PROTOCOL 3: `round >= floor`: a question that was lost, or its answer, is asked again."""
    role = acceptor()
    first = step(role, phase1a(R2))
    again = step(role, phase1a(R2))
    assert promise(first) == promise(again)
    assert again.persist == []


def test_bounded_phase_1_promises_its_range() -> None:
    """PROTOCOL 3: for each i with round >= promised(i): slot.round = round; the floor stays."""
    role = acceptor()
    step(role, phase2a(3, R1, b"three"))
    effects = step(role, phase1a(R2, 2, 5))
    _, reports = promise(effects)
    assert [(m.instance, m.round, m.vround) for m in reports] == [
        (2, R2, 0),
        (3, R2, R1),
        (4, R2, 0),
    ]
    assert {(m.type, m.instance, m.round) for m in persisted(effects)} >= {
        (Type.PHASE1B, i, R2) for i in (2, 3, 4)
    }
    assert role.floor == 0
    assert votes(step(role, phase2a(1, R1, b"1", b"2", b"3", b"4", b"5"))) == [
        (1, R1, b"1"), (5, R1, b"5"),
    ]  # fmt: skip


def test_each_reports_round_is_what_its_instance_is_promised_to() -> None:
    """PROTOCOL 3: a higher one makes the coordinator take that instance in a higher round."""
    role = acceptor()
    step(role, phase2a(1, R3, b"high"))
    _, reports = promise(step(role, phase1a(R2)))
    assert [(m.instance, m.round, m.vround) for m in reports] == [(1, R3, R3)]
    _, reports = promise(step(role, phase1a(R2, 1, 3)))
    assert [(m.instance, m.round, m.vround) for m in reports] == [(1, R3, R3), (2, R2, 0)]


@pytest.mark.parametrize("end", [END_OF_LOG, 2])
def test_trap_06_a_refused_phase_1_is_not_answered_as_if_promised(end: int) -> None:
    """Traps, 6: silence and a counter, batched and bounded."""
    role = acceptor()
    step(role, phase1a(R2))
    effects = step(role, phase1a(R1, 1, end))
    assert (effects.send, effects.persist) == ([], [])
    assert role.counters["stale_round"] == 1


def test_a_bounded_phase_1_with_nothing_to_promise_is_silent() -> None:
    """PROTOCOL 3: every instance of the range is promised to a higher round."""
    role = acceptor()
    step(role, phase1a(R3, 1, 3))
    assert silent(step(role, phase1a(R2, 1, 3)))
    assert role.counters["stale_round"] == 1


def test_phase_1_is_clipped_to_the_window() -> None:
    """PROTOCOL 3: the summary names the first of the clipped range, and always low."""
    role = acceptor()
    step(role, heartbeat(0, R1, low=5))
    (summary, *reports) = sent(step(role, phase1a(R2, 1, 100)), Type.PHASE1B)
    assert (summary.instance, summary.low) == (5, 5)
    assert [m.instance for m in reports] == list(range(5, 5 + WINDOW))
    (summary, *reports) = sent(step(role, phase1a(R2, 1, 4)), Type.PHASE1B)
    assert (summary.instance, reports) == (5, [])


@pytest.mark.parametrize("value_bytes", [16, wire.VALUE_BYTES_MAX])
def test_an_answer_is_at_most_what_one_call_sends(value_bytes: int) -> None:
    """PROTOCOL 3: the count is of all; the rest is asked for again."""
    window = 256
    role = acceptor(window=window, value_bytes=value_bytes)
    for first in range(1, 201, 20):
        step(role, phase2a(first, R1, *[b"v" * value_bytes] * 20))
    effects = step(role, phase1a(R2))
    summary, reports = promise(effects)
    assert summary.votes == 200
    stride = wire.stride_for(value_bytes)
    assert len(reports) == min(ANSWER_ROWS_MAX, ANSWER_BYTES_MAX // stride)
    assert [m.instance for m in reports] == list(range(1, len(reports) + 1))


@pytest.mark.parametrize("value", [b"", b"short", bytes(9)])
def test_a_malformed_range_is_counted(value: bytes) -> None:
    """PROTOCOL 2: never raises on input."""
    role = acceptor()
    for type in (Type.PHASE1A, Type.LEARN):
        assert silent(step(role, make(type, instance=1, round=R1, value=value)))
    assert silent(step(role, phase1a(R1, 5, 4)))
    assert role.counters["malformed"] == 3


# The window ------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 9])
def test_a_slot_taken_over_is_first_emptied(count: int) -> None:
    """PROTOCOL 3: instance = i, round = vround = NO_ROUND: the old one's promise does not bind."""
    role = acceptor()
    step(role, phase1a(R3, 1, 1 + count))
    step(role, phase2a(1, R3, *[b"old"] * count))
    effects = step(role, phase2a(1 + WINDOW, R1, *[b"new"] * count, low=1 + WINDOW))
    assert votes(effects) == [(1 + WINDOW + k, R1, b"new") for k in range(count)]
    assert silent(step(role, learn(1, 1 + count)))


def test_a_promise_of_an_old_instance_is_not_reported_for_the_new_one() -> None:
    """PROTOCOL 3: only slots whose instance matches."""
    role = acceptor()
    step(role, phase2a(1, R1, b"old"))
    step(role, heartbeat(0, R1, low=2))
    _, reports = promise(step(role, phase1a(R2, 1 + WINDOW, 2 + WINDOW)))
    assert [(m.instance, m.vround, m.value) for m in reports] == [(1 + WINDOW, 0, b"")]


@pytest.mark.parametrize(
    "carrier",
    [phase1a(R1, low=7), phase2a(9, R1, b"x", low=7), heartbeat(0, R1, low=7)],
    ids=["PHASE1A", "PHASE2A", "HEARTBEAT"],
)
def test_low_moves_up_only(carrier: Rows) -> None:
    """PROTOCOL 3: PHASE1A, PHASE2A and HEARTBEAT move low, and only up; highest follows."""
    role = acceptor()
    effects = step(role, carrier)
    assert role.low == 7
    assert role.highest >= 6
    assert 7 in {m.low for m in persisted(effects) if m.type == Type.RECORDED}
    step(role, heartbeat(0, R1, low=3))
    assert role.low == 7


@pytest.mark.parametrize(
    "type", [Type.LEARN, Type.READ_INDEX, Type.REQUEST, Type.CHECKPOINT, Type.PHASE2B]
)
def test_nothing_else_moves_low(type: Type) -> None:
    """PROTOCOL 3: only messages of a coordinator do."""
    role = acceptor()
    step(role, make(type, instance=1, low=7, value=wire.pack_end(9)))
    assert role.low == 1


def test_a_low_that_jumps_is_dropped() -> None:
    """PROTOCOL 2: by more than 2^40: dropped and counted, the whole message."""
    role = acceptor()
    for rows in (
        heartbeat(0, R1, low=2 + LOW_JUMP_MAX),
        phase1a(R1, low=2 + LOW_JUMP_MAX),
        phase2a(1, R1, b"x", low=2 + LOW_JUMP_MAX),
    ):
        effects = step(role, rows)
        assert (effects.send, effects.persist) == ([], [])
    assert role.counters["low_jump"] == 3
    step(role, heartbeat(0, R1, low=1 + LOW_JUMP_MAX))
    assert role.low == 1 + LOW_JUMP_MAX


def test_low_moves_even_with_a_stale_round() -> None:
    """PROTOCOL 3: what is forgotten is forgotten, whoever tells it."""
    role = acceptor()
    step(role, phase1a(R3))
    assert silent(step(role, phase2a(9, R1, b"x", low=4)))
    assert role.low == 4


# Questions -------------------------------------------------------------------------------------


def test_learn_sends_votes_again_to_who_asks() -> None:
    """PROTOCOL 3: the PHASE2B of votes held in the range; promises without a vote are not votes."""
    role = acceptor()
    step(role, phase2a(2, R1, b"two", b"three"))
    step(role, phase1a(R2, 1, 5))
    effects = step(role, learn(1, 3, learner=2))
    assert {to for to, _ in effects.send} == {To(Role.LEARNER, 2)}
    assert votes(effects) == [(2, R1, b"two")]
    assert effects.persist == []
    assert silent(step(role, learn(4, 2**64 - 1)))


@pytest.mark.parametrize(
    ("asks_as", "role_asking"),
    [(PROPOSER_ASKS, Role.PROPOSER), (COORDINATOR_ASKS, Role.COORDINATOR)],
)
def test_read_index(asks_as: int, role_asking: Role) -> None:
    """PROTOCOL 2, 9: highest, the highest round promised, low, nonce; to the role that asks."""
    role = acceptor()
    step(role, phase1a(R3, 4, 5))
    step(role, phase2a(2, R1, b"two"))
    effects = step(role, make(Type.READ_INDEX, instance=asks_as, vround=55, sender=1))
    assert [to for to, _ in effects.send] == [To(role_asking, 1)]
    (answer,) = sent(effects, Type.READ_INDEX_REPLY)
    assert (answer.instance, answer.round, answer.vround, answer.low) == (2, R3, 55, 1)


def test_anything_else_is_silence_and_a_counter() -> None:
    """PROTOCOL 3: the default action."""
    role = acceptor()
    assert silent(step(role, request(b"a", b"b")))
    assert silent(step(role, make(Type.READ_INDEX, instance=2)))
    assert (role.counters["ignored"], role.counters["malformed"]) == (2, 1)
    assert (role.deadline(), role.tick(1e9)) == (None, Effects.none())


# What is persisted -----------------------------------------------------------------------------


def replayed(role: Acceptor, log: list[Rows]) -> Acceptor:
    again = acceptor(role.id)
    again.restore(log)
    again.check_invariants()
    return again


def test_trap_09_a_restarted_acceptor_keeps_votes_and_promises() -> None:
    """Traps, 9: what left before the crash binds it afterwards."""
    role, log = acceptor(), []
    for rows in (
        phase2a(1, R1, b"one", b"two"), phase1a(R2), phase1a(R3, 2, 3),
        phase2a(4, R2, b"four", low=2), phase2a(1 + WINDOW, R2, b"over", low=2),
        heartbeat(0, R2, low=3),
    ):  # fmt: skip
        log += [part.copy() for part in step(role, rows).persist]
    again = replayed(role, log)
    for name in ("floor", "low", "highest", "highest_round", "seen", "incarnation"):
        assert getattr(again, name) == getattr(role, name), name
    assert promise(step(again, phase1a(R3))) == promise(step(role, phase1a(R3)))
    assert silent(step(again, phase2a(3, R1, b"stale")))


def test_a_vote_on_disk_implies_a_window_that_reached_it() -> None:
    """PROTOCOL 3: on restart low is at least the largest stored instance - window + 1."""
    role = acceptor()
    step(role, heartbeat(0, R1, low=10))
    log = step(role, phase2a(20, R1, b"x")).persist
    assert replayed(role, [part.copy() for part in log]).low == 20 - WINDOW + 1


def test_carried_over_promises_outlive_their_segment() -> None:
    """PROTOCOL 3: segments wholly below low are deleted with what still matters carried over."""
    role = acceptor()
    step(role, phase1a(R1))
    step(role, phase2a(2, R1, b"two"))
    step(role, phase1a(R3, 2, 4))
    again = replayed(role, [part.copy() for part in role.carry_over()])
    assert (again.floor, again.highest, again.highest_round) == (R1, 2, R3)
    assert silent(step(again, phase2a(2, R2, b"x", b"y")))
    assert votes(step(again, phase2a(4, R2, b"z"))) == [(4, R2, b"z")]


def test_trap_11_a_wrong_sender_id_hurts_nothing() -> None:
    """Traps, 11: ids are bounds-checked; a role takes any u16 without an index error."""
    role = acceptor()
    for type in (*Type, 99):
        rows = make(Type.REQUEST, instance=1, round=R1, sender=65_535, value=wire.pack_end(2))
        headers(rows)["type"] = type
        step(role, rows)
