"""Counting, order, gaps and catching up (docs/PROTOCOL.md, sections 5 and 7)."""

import itertools
from collections.abc import Iterator

import pytest

from p4xos import checkpointed, envelope, wire
from p4xos.effects import ACCEPTORS, COORDINATORS, Effects, Opened, Role, To
from p4xos.errors import ConflictingVotes
from p4xos.roles.acceptor import ANSWER_BYTES_MAX, ANSWER_ROWS_MAX
from p4xos.roles.learner import GAPS_AT_ONCE, LEARN_CHUNK, LEARN_CHUNKS_MAX, Learner
from p4xos.wire import LOW_JUMP_MAX, Message, Rows, Type
from tests.roles.helpers import (
    VALUE_BYTES,
    WINDOW,
    chosen,
    heartbeat,
    learner,
    make,
    payloads,
    phase2b,
    raw,
    reply,
    round_of,
    sent,
    together,
    value,
)

R1, R2, R3 = round_of(1), round_of(2), round_of(3)


def step(role: Learner, rows: Rows, now: float = 0.0) -> Effects:
    effects = role.step(rows, now)
    role.check_invariants()
    return effects


def choose(role: Learner, first: int, *values: bytes, round: int = R1, now: float = 0.0) -> Effects:
    step(role, phase2b(0, first, round, *values), now)
    return step(role, phase2b(1, first, round, *values), now)


def ranges(messages: list[Message]) -> list[tuple[int, int]]:
    return [(m.instance, wire.unpack_end(m.value)) for m in messages]


# Counting --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("acceptors", "wanted"), [(1, 1), (3, 2), (5, 3), (15, 8)])
@pytest.mark.parametrize("count", [1, 9])
def test_f_plus_one_distinct_acceptors_choose(acceptors: int, wanted: int, count: int) -> None:
    """PROTOCOL 5: distinct acceptors by (instance, round); one that repeats itself is one."""
    role = learner(acceptors=acceptors)
    values = [b"value %d" % k for k in range(count)]
    for voter in range(wanted):
        assert role.delivered == 0
        effects = step(role, phase2b(voter, 1, R1, *values))
        if voter + 1 < wanted:
            effects = step(role, phase2b(voter, 1, R1, *values))
    assert raw(effects) == values
    assert role.delivered == count


@pytest.mark.parametrize("count", [1, 9])
def test_trap_04_a_new_round_starts_a_new_count(count: int) -> None:
    """Traps, 4: one new vote and old bits are no majority: round and bits change together."""
    role = learner()
    step(role, phase2b(0, 1, R1, *[b"old"] * count))
    assert raw(step(role, phase2b(1, 1, R2, *[b"new"] * count))) == []
    assert raw(step(role, phase2b(2, 1, R2, *[b"new"] * count))) == [b"new"] * count


def test_the_two_latest_rounds_are_counted_apart() -> None:
    """PROTOCOL 5: an older round may still be the one that chooses."""
    role = learner(acceptors=5)
    step(role, phase2b(0, 1, R2, b"older"))
    step(role, phase2b(1, 1, R3, b"newer"))
    step(role, phase2b(2, 1, R2, b"older"))
    step(role, phase2b(3, 1, R3, b"newer"))
    step(role, phase2b(4, 1, R1, b"oldest"))
    assert role.counters["late_votes"] == 1
    assert raw(step(role, phase2b(4, 1, R2, b"older"))) == [b"older"]


def test_a_round_apart_gives_way_to_a_newer_one() -> None:
    """PROTOCOL 5: only the two latest; a third round drops the oldest."""
    role = learner()
    step(role, phase2b(0, 1, R1, b"one"))
    step(role, phase2b(0, 1, R2, b"two"))
    step(role, phase2b(0, 1, R3, b"three"))
    assert raw(step(role, phase2b(1, 1, R1, b"one"))) == []
    assert raw(step(role, phase2b(1, 1, R2, b"two"))) == [b"two"]


@pytest.mark.parametrize("count", [1, 9])
def test_two_values_in_one_round_stop_the_learner(count: int) -> None:
    """PROTOCOL 5: loudly, and nothing is delivered."""
    role = learner()
    step(role, phase2b(0, 1, R1, *[b"a"] * count))
    with pytest.raises(ConflictingVotes) as stopped:
        role.step(phase2b(1, 1, R1, *[b"a"] * (count - 1), b"b"), 0.0)
    assert (stopped.value.instance, stopped.value.round) == (count, R1)


def test_two_values_in_a_round_apart_stop_the_learner() -> None:
    """PROTOCOL 5: also in the round that is not the latest."""
    role = learner(acceptors=5)
    step(role, phase2b(0, 1, R1, b"a"))
    step(role, phase2b(1, 1, R2, b"c"))
    with pytest.raises(ConflictingVotes):
        role.step(phase2b(2, 1, R1, b"b"), 0.0)


def test_two_lengths_of_zeros_are_two_values() -> None:
    """PROTOCOL 5: padding is no part of a value."""
    role = learner()
    step(role, phase2b(0, 1, R1, b"\0"))
    with pytest.raises(ConflictingVotes):
        role.step(phase2b(1, 1, R1, b"\0\0"), 0.0)


def test_a_chosen_value_is_never_overwritten() -> None:
    """PROTOCOL 5: chosen behind a gap, then voted for otherwise in later rounds."""
    role = learner()
    choose(role, 2, b"chosen")
    choose(role, 2, b"other", round=R3)
    assert raw(choose(role, 1, b"first")) == [b"first", b"chosen"]


def test_third_votes_after_delivery_are_late() -> None:
    """PROTOCOL 5: counted, and nothing else."""
    role = learner()
    choose(role, 1, b"a", b"b")
    assert raw(step(role, phase2b(2, 1, R1, b"a", b"b", b"c"))) == []
    assert role.counters["late_votes"] == 2
    assert raw(step(role, phase2b(1, 3, R1, b"c"))) == [b"c"]


def test_a_batch_of_late_votes_is_told_by_its_ends() -> None:
    role = learner()
    choose(role, 1, *[b"v"] * 6)
    late = phase2b(2, 1, R1, *[b"v"] * 6)
    assert role.takes_late_votes(late)
    assert role.takes_late_votes(late[3:4])
    assert role.counters["late_votes"] == 7


def test_what_is_not_late_as_a_whole_is_acted_on() -> None:
    role = learner()
    choose(role, 1, *[b"v"] * 6)
    ahead = phase2b(2, 3, R1, *[b"v"] * 5)
    mixed = together(phase2b(2, 1, R1, b"v"), heartbeat(0, R1), phase2b(2, 3, R1, b"v"))
    gap = together(phase2b(2, 1, R1, b"v"), phase2b(2, 4, R1, b"v"))
    for rows in (ahead, mixed, gap, heartbeat(0, R1)):
        assert not role.takes_late_votes(rows)
    assert role.counters["late_votes"] == 0


@pytest.mark.parametrize("instance", [WINDOW + 1, 2**40, 2**63, 2**64 - 2])
def test_votes_beyond_the_window_are_dropped(instance: int) -> None:
    """PROTOCOL 5: never an index; it is heard of, unless it is out of all bounds."""
    role = learner()
    step(role, phase2b(0, instance, R1, b"far"))
    assert role.counters["beyond_window"] == 1
    assert role.heard == (instance if instance <= LOW_JUMP_MAX else 0)


def test_trap_11_a_bad_acceptor_id_is_counted() -> None:
    """Traps, 11: ids are bounds-checked; so are rounds and lengths."""
    role = learner()
    step(role, phase2b(3, 1, R1, b"x"))
    step(role, phase2b(65_535, 1, R1, b"x"))
    step(role, phase2b(0, 1, 0, b"x"))
    step(role, make(Type.PHASE2B, instance=1, round=R2, vround=R1, value=b"x"))
    step(role, phase2b(0, 1, R1, b"v" * (VALUE_BYTES + 1)))
    assert (role.counters["malformed"], role.counters["value_too_long"]) == (4, 1)
    assert not role.slot_voters.any()


# Order -----------------------------------------------------------------------------------------


def test_delivers_in_order_without_gaps() -> None:
    """PROTOCOL 5: no-ops take their place and deliver nothing."""
    role = learner()
    assert raw(choose(role, 3, b"three")) == []
    assert raw(choose(role, 1, b"one")) == [b"one"]
    assert raw(choose(role, 2, b"")) == [b"", b"three"]
    assert role.delivered == 3


def test_delivers_across_the_rings_end() -> None:
    """PROTOCOL 5: windows come and go."""
    role = learner()
    for first in range(1, 5 * WINDOW, 7):
        values = [b"%d" % i for i in range(first, first + 7)]
        assert raw(choose(role, first, *values)) == values


def test_behind_a_shorter_value_is_zero() -> None:
    """PROTOCOL 2: what is behind a value's length is zero, whatever the slot held before."""
    role = learner()
    choose(role, 1, *[b"long value"] * WINDOW)
    (part,) = choose(role, WINDOW + 1, b"long value", b"ab").chosen
    assert part.values[1].tobytes() == b"ab".ljust(part.values.shape[1], b"\0")


# Gaps ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "told",
    [phase2b(0, 3, R1, b"x"), heartbeat(0, R1, next=4), reply(0, 0, highest=3)],
    ids=["vote", "HEARTBEAT", "READ_INDEX_REPLY"],
)
def test_trap_12_what_it_has_heard_of_it_asks_for(told: Rows) -> None:
    """PROTOCOL 5: highest heard of: votes, HEARTBEAT next - 1, READ_INDEX_REPLY.

    Traps, 12: a learner that starts in an idle cluster learns from heartbeats what it lacks.
    """
    role = learner()
    assert role.deadline() is None
    step(role, told, 5.0)
    assert role.heard == 3
    deadline = role.deadline()
    assert deadline is not None
    assert deadline > 5.0
    assert role.tick(5.0).send == []
    effects = role.tick(deadline)
    assert {to for to, _ in effects.send} == {ACCEPTORS}
    assert ranges(sent(effects, Type.LEARN)) == [(1, 4)]


def test_first_learn_then_recover_ever_more_patiently() -> None:
    """PROTOCOL 5: LEARN needs no new round; then RECOVER to the coordinators."""
    role = learner()
    step(role, heartbeat(0, R1, next=3))
    types, times = [], []
    for _ in range(6):
        at = role.deadline()
        assert at is not None
        ((to, rows),) = role.tick(at).send
        types.append((to, wire.message(rows, 0).type))
        times.append(at)
    assert types == [(ACCEPTORS, Type.LEARN), (COORDINATORS, Type.RECOVER)] * 3
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert waits == sorted(waits)
    assert waits[-1] >= 8 * waits[0]


def test_only_what_is_missing_is_asked_for() -> None:
    """PROTOCOL 5: undelivered and not chosen; stretches, a bounded number at once."""
    role = learner(window=128)
    for instance in range(2, 100, 2):
        choose(role, instance, b"even")
    at = role.deadline()
    assert at is not None
    asked = ranges(sent(role.tick(at), Type.LEARN))
    assert asked == [(i, i + 1) for i in range(1, 2 * GAPS_AT_ONCE, 2)]


def test_nothing_is_asked_for_once_it_is_there() -> None:
    """PROTOCOL 5: the timer goes with the gap."""
    role = learner()
    choose(role, 2, b"two")
    choose(role, 1, b"one")
    assert role.deadline() is None


def test_trap_12_catching_up_is_not_paced_by_the_clock() -> None:
    """Traps, 12: as answers come the burst doubles, and the next is asked for at once."""
    count = 8 * ANSWER_ROWS_MAX * LEARN_CHUNKS_MAX
    role = learner(window=1 << 16)
    exchanges = catch_up(role, count, b"v")
    assert role.delivered == count
    assert max(len(asked) for asked in exchanges) == LEARN_CHUNKS_MAX
    assert len(exchanges) < 8 + LEARN_CHUNKS_MAX.bit_length() + 2


def catch_up(role: Learner, count: int, value: bytes) -> list[list[tuple[int, int]]]:
    """What is asked for, a list an exchange; each question is answered whole, by acceptors 1, 2."""
    step(role, heartbeat(0, R1, next=count + 1))
    at = role.deadline()
    assert at is not None
    asked = ranges(sent(role.tick(at), Type.LEARN))
    exchanges = []
    while asked:
        exchanges.append(asked)
        answers: list[tuple[int, int]] = []
        for first, end in asked:
            effects = choose(role, first, *[value] * (end - first), now=at)
            told = [to for to, _ in effects.send]
            assert told in ([], [To(Role.ACCEPTOR, 0), To(Role.ACCEPTOR, 1)])
            if told:  # the same to both
                questions = ranges(sent(effects, Type.LEARN))
                answers += questions[: len(questions) // 2]
        asked = answers
    return exchanges


def test_a_question_asks_for_what_one_answer_holds() -> None:
    """PROTOCOL 5: a bound that holds at any length first; then the length of what has come."""
    exchanges = catch_up(learner(window=1 << 12), 1000, b"v")
    assert [end - first for first, end in exchanges[0]] == [LEARN_CHUNK]
    asked = [end - first for asked in exchanges[1:-1] for first, end in asked]
    assert set(asked) == {ANSWER_ROWS_MAX}


def test_long_values_are_asked_for_in_smaller_questions() -> None:
    """PROTOCOL 5: one long value among those that came is enough."""
    role = learner(window=1 << 12, value_bytes=1408)
    exchanges = catch_up(role, 1000, b"v" * 1400)
    most = ANSWER_BYTES_MAX // wire.stride_for(1400)
    assert most < ANSWER_ROWS_MAX
    assert {end - first for asked in exchanges[1:-1] for first, end in asked} == {most}


def test_when_too_few_answer_all_are_asked_again() -> None:
    """PROTOCOL 5: a majority that answers is asked on; one that falls silent does not stall it."""
    role = learner(window=1 << 12)
    step(role, heartbeat(0, R1, next=2000))
    at = role.deadline()
    assert at is not None
    effects = role.tick(at)
    assert [to for to, _ in effects.send] == [ACCEPTORS]
    effects = choose(role, 1, *[b"v"] * LEARN_CHUNK, now=at)
    assert [to for to, _ in effects.send] == [To(Role.ACCEPTOR, 0), To(Role.ACCEPTOR, 1)]
    asked = [role.tick(at) for at in deadlines(role, 4)]
    assert [to for effects in asked for to, _ in effects.send] == [
        ACCEPTORS, COORDINATORS, ACCEPTORS, COORDINATORS,
    ]  # fmt: skip


def deadlines(role: Learner, count: int) -> Iterator[float]:
    for _ in range(count):
        at = role.deadline()
        assert at is not None
        yield at


def test_unanswered_the_burst_halves() -> None:
    """PROTOCOL 5: an overrun socket is not asked for as much again."""
    role = learner(window=1 << 12)
    step(role, heartbeat(0, R1, next=2000))
    role._burst = 8
    sizes = []
    for _ in range(6):
        at = role.deadline()
        assert at is not None
        sizes.append(len(sent(role.tick(at), Type.LEARN)))
    assert [size for size in sizes if size] == [8, 4, 2]


def test_a_mended_gap_is_the_end_of_asking_though_votes_are_always_under_way() -> None:
    """PROTOCOL 5: under load `heard` is always ahead of `delivered`; that is not a gap."""
    role = learner(window=64)
    step(role, phase2b(0, 2, R1, b"2"))
    at = role.deadline()
    assert at is not None
    assert len(sent(role.tick(at), Type.LEARN)) == 1
    learns = 0
    for instance in range(1, 30):  # each time the next one has one vote already
        step(role, phase2b(0, instance + 1, R1, b"%d" % (instance + 1)), at)
        for voter in (1, 2):
            votes = phase2b(voter, instance, R1, b"%d" % instance)
            learns += len(sent(step(role, votes, at), Type.LEARN))
    assert role.delivered == 29
    assert learns <= 1


# Behind the window -----------------------------------------------------------------------------


def test_below_low_it_is_behind() -> None:
    """PROTOCOL 7: what it needs next is forgotten: it must take a snapshot."""
    role = learner()
    step(role, heartbeat(0, R1, next=9, low=1))
    assert not role.behind
    step(role, heartbeat(0, R1, next=9, low=5))
    assert role.behind
    step(role, heartbeat(0, R1, next=9, low=2))
    assert role.low == 5


def test_a_low_that_jumps_is_dropped() -> None:
    """PROTOCOL 2: and nothing else of that heartbeat is believed."""
    role = learner(delivered=4)
    step(role, heartbeat(0, R1, next=5, low=3))
    step(role, heartbeat(0, R1, next=9, low=4 + LOW_JUMP_MAX))
    assert (role.low, role.heard, role.counters["low_jump"]) == (3, 4, 1)


def test_the_first_low_is_taken_however_high() -> None:
    """PROTOCOL 2: a group in use for long is beyond any jump, and a new learner must know it."""
    role = learner()
    step(role, heartbeat(0, R1, next=9 + (1 << 50), low=1 << 50))
    assert (role.low, role.behind, role.counters["low_jump"]) == (1 << 50, True, 0)


def test_a_snapshot_is_installed() -> None:
    """PROTOCOL 7: applied instance and session table jump; live votes go on."""
    source = learner()
    choose(source, 1, envelope.open_value(7, 99), value(1, b"a"))
    choose(source, 3, value(2, b"b"))
    records: dict[bytes, bytes] = {}
    checkpointed.merge(records, checkpointed.changes_of(source.sessions))
    role = learner()
    step(role, phase2b(0, 2, R1, b"half counted"))
    step(role, heartbeat(0, R1, next=4, low=4))
    role.install(3, checkpointed.unpack(records))
    role.check_invariants()
    assert (role.delivered, role.behind) == (3, False)
    assert role.tick(1e6).send == []
    assert payloads(choose(role, 4, value(2, b"b"), value(3, b"c"))) == [b"c"]


def test_the_learned_tail_joins_live_votes() -> None:
    """PROTOCOL 7: the tail of delivered values, then the votes that were buffered meanwhile."""
    role = learner()
    choose(role, 5, b"five")
    assert raw(role.learned(chosen(1, b"one", b"two"), 0.0)) == [b"one", b"two"]
    effects = role.learned(chosen(2, b"two", b"three", b"four"), 0.0)
    role.check_invariants()
    assert raw(effects) == [b"three", b"four", b"five"]
    assert raw(role.learned(chosen(1, b"one"), 0.0)) == []
    assert raw(role.learned(chosen(9, b"nine"), 0.0)) == [], "a gap is not jumped over"


@pytest.mark.parametrize("length", [5, WINDOW + 3])
def test_votes_for_what_was_learned_count_for_nothing_later(length: int) -> None:
    """PROTOCOL 5: a slot's count is of one instance; learned ones leave none behind."""
    role = learner()
    step(role, phase2b(0, 1, R1, *[b"one of three"] * 5))
    step(role, phase2b(1, 1, R2, b"apart"))
    role.learned(chosen(1, *[b"learned"] * length), 0.0)
    role.check_invariants()
    assert raw(choose(role, 1 + length, *[b"new"] * WINDOW)) == [b"new"] * WINDOW


def test_an_opened_session_is_told() -> None:
    """PROTOCOL 5: its id is the instance that chose it."""
    role = learner()
    effects = choose(role, 1, b"", envelope.open_value(7, 99))
    assert effects.deliver == [Opened(2, 7, 99)]


def test_checkpoint_goes_to_the_coordinators() -> None:
    """PROTOCOL 7: CHECKPOINT(i): state through i is durable."""
    ((to, rows),) = learner(2).checkpoint(41).send
    assert to == COORDINATORS
    m = wire.message(rows, 0)
    assert (m.type, m.instance, m.sender) == (Type.CHECKPOINT, 41, 2)


def test_other_types_are_counted() -> None:
    """PROTOCOL 5: the default action."""
    role = learner()
    step(role, make(Type.REQUEST, value=b"x"))
    assert role.counters["ignored"] == 1
