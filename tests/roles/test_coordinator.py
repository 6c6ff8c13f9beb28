"""Taking over, serving and following (docs/PROTOCOL.md, section 4)."""

import itertools
from typing import Any

import pytest

from p4xos import wire
from p4xos.effects import ACCEPTORS, COORDINATORS, LEARNERS, Role, To
from p4xos.errors import RoundsExhausted
from p4xos.roles import coordinator as coordinator_module
from p4xos.roles.acceptor import COORDINATOR_ASKS
from p4xos.roles.coordinator import CoordinatorTiming, Phase
from p4xos.wire import Message, Type
from tests.roles.helpers import (
    TIMING,
    VALUE_BYTES,
    WINDOW,
    Group,
    acceptor,
    checkpoint,
    coordinator,
    heartbeat,
    persisted_rounds,
    phase1a,
    phase2a,
    phase2b,
    recover,
    reply,
    request,
    round_of,
    sent,
    summary,
    vote_report,
)


def serving(size: int = 3, **options: Any) -> Group:
    """A group whose coordinator 0 serves."""
    group = Group(
        coordinator(acceptors=size, **options), [acceptor(a, acceptors=size) for a in range(size)]
    )
    group.take_over()
    return group


# Taking over ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("silent", [0, 1])
def test_takeover(size: int, silent: int) -> None:
    """PROTOCOL 4: a quorum promises, and then it serves; one silent acceptor is no matter."""
    group = Group(
        coordinator(acceptors=size), [acceptor(a, acceptors=size) for a in range(size - silent)]
    )
    group.take_over()
    group.give(request(b"first", b"second"))
    assert [group.chosen(i) for i in (1, 2, 3)] == [{b"first"}, {b"second"}, set()]
    assert {m.round for m in group.proposed} == {round_of(1)}


def test_without_a_quorum_nobody_serves() -> None:
    """PROTOCOL 4: f acceptors of 2f + 1 are no quorum."""
    group = Group(coordinator(), [acceptor(0)])
    group.run_until(2000.0)
    assert group.coordinator.phase is Phase.ASKING
    assert group.coordinator.round == 0, "no round is used up by asking"


def test_asks_a_quorum_for_the_highest_round_and_goes_above_it() -> None:
    """PROTOCOL 4: before each attempt READ_INDEX; the counter is above what a quorum told."""
    role = coordinator(id=1)
    asked = role.tick(20.0)
    (question,) = sent(asked, Type.READ_INDEX)
    assert question.instance == COORDINATOR_ASKS
    assert asked.persist == []
    role.step(reply(0, question.vround, round=round_of(7, 2)), 20.1)
    effects = role.step(reply(2, question.vround, round=round_of(4, 0)), 20.2)
    assert {m.round for m in sent(effects, Type.PHASE1A)} == {round_of(8, 1)}


def test_a_round_is_persisted_in_the_step_that_first_uses_it() -> None:
    """PROTOCOL 4: the round goes to the disk, and only then is it used."""
    role = coordinator()
    (question,) = sent(role.tick(10.0), Type.READ_INDEX)
    role.step(reply(0, question.vround), 10.0)
    effects = role.step(reply(1, question.vround), 10.0)
    assert persisted_rounds(effects) == [round_of(1)]
    assert {to for to, _ in effects.send} == {To(Role.ACCEPTOR, a) for a in range(3)}
    (first, *_) = sent(effects, Type.PHASE1A)
    assert (first.round, first.instance, first.low) == (round_of(1), 1, 1)
    assert wire.unpack_end(first.value) == wire.END_OF_LOG


def test_trap_08_a_restarted_coordinator_never_reuses_a_round() -> None:
    """Traps, 8: it starts above the last round on its disk, and finds `next` by phase 1."""
    before = serving()
    before.give(request(b"a", b"b"))
    again = Group(coordinator(last_round=before.coordinator.round), before.acceptors.values())
    again.votes = before.votes
    again.take_over()
    again.give(request(b"c"))
    assert again.coordinator.round > before.coordinator.round
    assert [again.chosen(i) for i in (1, 2, 3)] == [{b"a"}, {b"b"}, {b"c"}]


def test_above_its_own_file_even_where_nobody_knows_the_round() -> None:
    """PROTOCOL 4: a counter above what it was told and above its own file."""
    group = Group(coordinator(last_round=round_of(40)), [acceptor(a) for a in range(3)])
    group.take_over()
    assert group.coordinator.sequencer.round == round_of(41)


def test_rounds_exhausted_stops_loudly() -> None:
    """PROTOCOL 1: a counter about to overflow stops the coordinator."""
    group = Group(coordinator(last_round=round_of((1 << 24) - 2)), [acceptor(a) for a in range(3)])
    with pytest.raises(RoundsExhausted):
        group.take_over()


def test_the_highest_vround_and_no_ops_are_proposed_in_the_new_round() -> None:
    """PROTOCOL 4: from low to the highest seen: the value of the highest vround, else a no-op."""
    acceptors = [acceptor(a) for a in range(3)]
    acceptors[0].step(phase2a(2, round_of(1), b"older"), 0.0)
    acceptors[1].step(phase2a(2, round_of(2, 1), b"newer"), 0.0)
    acceptors[1].step(phase2a(4, round_of(2, 1), b"four"), 0.0)
    group = Group(coordinator(), acceptors)
    group.take_over()
    assert [group.chosen(i) for i in range(1, 6)] == [{b""}, {b"newer"}, {b""}, {b"four"}, set()]
    assert {m.round for m in group.proposed} == {round_of(3)}
    assert group.coordinator.sequencer.next == 5


def test_a_long_report_is_fetched_in_chunks_whatever_is_lost() -> None:
    """PROTOCOL 4: promises are complete only with every vote they count, re-asked until there."""
    window, count = 1024, 400
    values = [b"value %d" % i for i in range(1, count + 1)]
    acceptors = [acceptor(a, window=window) for a in range(3)]
    for role in acceptors[:2]:
        for k in range(0, count, 100):
            role.step(phase2a(1 + k, round_of(1, 1), *values[k : k + 100]), 0.0)
    counted = {"reports": 0}

    def every_third_report(to: To, m: Message) -> bool:
        if m.type != Type.PHASE1B or wire.is_summary(m.vround, m.length):
            return False
        counted["reports"] += 1
        return counted["reports"] % 3 == 0

    group = Group(coordinator(window=window), acceptors, every_third_report)
    group.take_over()
    group.run_until(group.now + 1.0)
    assert counted["reports"] > 400
    assert [group.chosen(i) for i in range(1, count + 1)] == [{v} for v in values]


def test_an_instance_promised_to_a_higher_round_is_not_proposed_in_the_main_round() -> None:
    """PROTOCOL 3, 4: an instance promised higher is taken in a higher round.

    Acceptors 0 and 2 chose `kept`; 0 then promised instance 1 to a recovery. Proposing a no-op in
    the main round, for want of a vote promised to it, would let 1 and 2 choose that too.
    """
    acceptors = [acceptor(a) for a in range(3)]
    for a in (0, 2):
        acceptors[a].step(phase2a(1, round_of(1, 1), b"kept"), 0.0)
    acceptors[0].step(phase1a(round_of(9, 2), 1, 2, sender=2), 0.0)

    group = Group(coordinator(), acceptors, lambda to, m: m.type == Type.PHASE1B and m.sender == 2)
    role = group.coordinator
    (question,) = sent(role.tick(10.0), Type.READ_INDEX)
    role.step(reply(1, question.vround, round=0), 10.0)  # a quorum that has not heard of round 9
    group.settle(role.step(reply(2, question.vround, round=round_of(1, 1)), 10.0))
    group.run_until(12.0)
    assert role.phase is Phase.SERVING
    assert all(m.round > round_of(9, 2) for m in group.proposed if m.instance == 1)
    assert group.chosen(1) == {b"kept"}


def test_low_becomes_the_largest_in_the_quorum() -> None:
    """PROTOCOL 4: below it nothing is proposed, now or in recovery."""
    acceptors = [acceptor(a) for a in range(3)]
    acceptors[1].step(phase2a(9, round_of(1, 1), b"nine", low=8), 0.0)
    group = Group(coordinator(), acceptors[:2])
    group.take_over()
    group.give(recover(3, 5))
    group.give(recover(3, 5))
    group.run_until(group.now + 1)
    assert group.coordinator.low == 8
    assert {m.instance for m in group.proposed} == {8, 9}
    assert group.chosen(8) == {b""}


def test_requests_queue_during_phase_1_within_the_bound() -> None:
    """PROTOCOL 4: requests queue meanwhile, within the bound; the rest is dropped and counted."""
    role = coordinator(queue_messages=3)
    role.tick(10.0)
    assert role.phase is Phase.ASKING
    role.step(request(b"a", b"b"), 10.0)
    role.step(request(b"c", b"d"), 10.0)
    assert (role.counters["queued"], role.counters["queue_full"]) == (3, 1)
    group = Group(role, [acceptor(a) for a in range(3)])
    group.now = 10.0
    group.take_over()
    assert [group.chosen(i) for i in range(1, 5)] == [{b"a"}, {b"b"}, {b"c"}, set()]


def test_a_queued_request_outlives_its_batch() -> None:
    """PROTOCOL 4: the batch belongs to the driver again after the step."""
    role = coordinator()
    role.tick(10.0)
    rows = request(b"kept")
    role.step(rows, 10.0)
    rows[:] = 0
    group = Group(role, [acceptor(a) for a in range(3)])
    group.now = 10.0
    group.take_over()
    assert group.chosen(1) == {b"kept"}


def test_what_phase_1_found_is_proposed_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """PROTOCOL 4: after a takeover so many at a time, so that no buffer is overrun."""
    monkeypatch.setattr(coordinator_module, "PROPOSE_CHUNK", 4)
    acceptors = [acceptor(a) for a in range(3)]
    for role in acceptors:
        role.step(phase2a(1, round_of(1, 1), *(b"%d" % k for k in range(10))), 0.0)
    group = Group(coordinator(), acceptors)
    sizes = []
    while group.coordinator.phase is not Phase.SERVING:
        at = group.coordinator.deadline()
        assert at is not None
        before = len(group.proposed)
        group.run_until(at)
        sizes.append(len(group.proposed) - before)
    assert [size for size in sizes if size] == [4, 4, 2]
    assert [group.chosen(1 + k) for k in range(10)] == [{b"%d" % k} for k in range(10)]


def test_trap_13_failed_takeovers_back_off_exponentially() -> None:
    """Traps, 13: two candidates do not starve each other; PROTOCOL 4: up to a bound."""
    role = coordinator()
    times: list[float] = []
    now = 0.0
    while len(times) < 6:
        at = role.deadline()
        assert at is not None
        now = at
        attempts = role._attempts
        role.tick(now)
        if role._attempts > attempts:
            times.append(now)
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert waits == [20.0, 40.0, 80.0, 80.0, 80.0]


# Whose turn it is ----------------------------------------------------------------------------


@pytest.mark.parametrize("id", [0, 1, 2])
def test_the_kth_candidate_waits_k_times_longer(id: int) -> None:
    """PROTOCOL 4: the k-th waits `timeout * (1 + k)`; without a leader k is the place among all."""
    assert coordinator(id=id).deadline() == TIMING.takeover_s * (1 + id)


@pytest.mark.parametrize(("id", "rank"), [(2, 0), (0, 1)])
def test_the_candidate_behind_the_last_leader_is_first(id: int, rank: int) -> None:
    """PROTOCOL 4: rank is counted from the coordinator that fell silent."""
    role = coordinator(id=id)
    role.step(heartbeat(1, round_of(1, 1)), 100.0)
    assert role.deadline() == 100.0 + TIMING.takeover_s * (1 + rank)


def test_heartbeats_keep_candidates_waiting() -> None:
    """PROTOCOL 4: candidates watch heartbeats."""
    role = coordinator()
    for now in range(0, 100, 5):
        role.step(heartbeat(1, round_of(1, 1)), float(now))
        assert role.tick(float(now)).send == []
    assert role.phase is Phase.FOLLOWING


def test_jitter_only_lengthens_the_wait() -> None:
    """PROTOCOL 4: plus jitter."""
    role = coordinator(random=lambda: 0.99)
    deadline = role.deadline()
    assert deadline is not None
    assert TIMING.takeover_s < deadline < 2 * TIMING.takeover_s


def test_timing_that_one_lost_heartbeat_breaks_is_refused() -> None:
    """PROTOCOL 4: a mistake of the caller's, named."""
    with pytest.raises(ValueError, match=r"takeover_s = 0\.1.*heartbeat_s = 0\.05"):
        CoordinatorTiming(heartbeat_s=0.05, takeover_s=0.1)


def test_its_own_heartbeats_are_ignored() -> None:
    """PROTOCOL 4: it steps down for another id; heartbeats come back to their sender."""
    group = serving()
    group.give(heartbeat(0, round_of(99, 0), low=5))
    assert group.coordinator.phase is Phase.SERVING


def test_steps_down_for_a_higher_round_of_another() -> None:
    """PROTOCOL 4: then requests are dropped and nothing is proposed."""
    group = serving()
    group.give(heartbeat(1, round_of(2, 1), next=6))
    assert group.coordinator.phase is Phase.FOLLOWING
    assert group.coordinator.counters["stepped_down"] == 1
    group.give(request(b"late"))
    assert group.proposed == []
    assert group.coordinator.counters["inactive"] == 1


def test_a_lower_round_does_not_depose_it() -> None:
    """PROTOCOL 4: only a higher one."""
    group = serving(last_round=round_of(5))
    group.give(heartbeat(1, round_of(3, 1)))
    assert group.coordinator.phase is Phase.SERVING


def test_a_recovery_round_does_not_hide_a_higher_main_round() -> None:
    """PROTOCOL 4: what counts is the round it serves in, not that of its recoveries."""
    group = serving()
    group.give(request(b"a"))
    for _ in range(2):
        group.give(recover(1, 2))
        group.now += 0.1
    assert group.coordinator.round == round_of(2)
    group.give(heartbeat(1, round_of(1, 1)))
    assert group.coordinator.phase is Phase.FOLLOWING


def test_a_candidate_follows_who_serves_in_a_higher_round() -> None:
    """PROTOCOL 4: and ignores a serving coordinator whose round is lower than its own attempt."""
    role = coordinator()
    (question,) = sent(role.tick(10.0), Type.READ_INDEX)
    role.step(reply(0, question.vround, round=round_of(4, 1)), 10.0)
    role.step(reply(1, question.vround), 10.0)
    assert (role.phase, role.round) == (Phase.PREPARING, round_of(5))
    phases = []
    for counter in (4, 6):
        role.step(heartbeat(1, round_of(counter, 1)), 10.1)
        phases.append(role.phase)
    assert phases == [Phase.PREPARING, Phase.FOLLOWING]


def test_later_promises_are_ignored_once_it_serves() -> None:
    """PROTOCOL 4: later PHASE1B are ignored."""
    late: list[Message] = []

    def keep_one_back(to: To, m: Message) -> bool:
        if m.type == Type.PHASE1B and m.sender == 2:
            late.append(m)
        return m.type == Type.PHASE1B and m.sender == 2

    acceptors = [acceptor(a) for a in range(3)]
    acceptors[2].step(phase2a(1, round_of(1, 1), b"minority"), 0.0)
    group = Group(coordinator(last_round=round_of(1)), acceptors, keep_one_back)
    group.take_over()
    group.give(request(b"mine"))
    group.give(wire.from_messages(late))
    assert group.chosen(1) == {b"mine"}
    assert [m.value for m in group.proposed] == [b"mine"]


def test_a_long_phase_1_is_begun_once() -> None:
    """PROTOCOL 4: as long as acceptors tell more, neither it nor another candidate begins anew."""
    role, other = coordinator(id=1), coordinator(id=0, coordinators=(0, 1))
    now = 20.0
    (question,) = sent(role.tick(now), Type.READ_INDEX)
    for acceptor_id in (0, 1):
        effects = role.step(reply(acceptor_id, question.vround), now)
    nonce = sent(effects, Type.PHASE1A)[0].vround
    prepared = role.round
    for acceptor_id in (0, 1):
        role.step(summary(acceptor_id, prepared, nonce, highest=12, votes=12), now)
    for instance in range(1, 12):
        now += 0.9 * role.timing.takeover_s
        role.tick(now)
        for acceptor_id in (0, 1):
            told = role.step(vote_report(acceptor_id, instance, prepared, 1 << 8, b"v"), now)
            for to, rows in told.send:
                if to == COORDINATORS:
                    other.step(rows, now)
        assert sent(other.tick(now), Type.READ_INDEX) == []
    assert (role.phase, role.round) == (Phase.PREPARING, prepared)
    assert other.leader_round == prepared
    patience = 10 * role.timing.backoff_max_s
    assert sent(other.tick(now + patience), Type.READ_INDEX), "it is told nothing more"
    assert sent(role.tick(now + patience), Type.READ_INDEX)


# Serving -------------------------------------------------------------------------------------


def test_requests_get_consecutive_instances_in_its_round() -> None:
    """PROTOCOL 4: REQUEST: next instance, round, PHASE2A to all acceptors."""
    group = serving()
    effects = group.coordinator.step(request(b"a", b"b", b"c"), group.now)
    assert {to for to, _ in effects.send} == {ACCEPTORS}
    proposals = sent(effects, Type.PHASE2A)
    assert [(m.instance, m.round, m.vround, m.value) for m in proposals] == [
        (1, round_of(1), 0, b"a"), (2, round_of(1), 0, b"b"), (3, round_of(1), 0, b"c"),
    ]  # fmt: skip


def test_a_full_window_makes_requests_wait_until_low_moves() -> None:
    """PROTOCOL 4: no instance at or above low + window; requests wait in a bounded queue."""
    group = serving(queue_messages=2)
    group.give(request(*(b"%d" % k for k in range(WINDOW + 4))))
    assert {m.instance for m in group.proposed} == set(range(1, WINDOW + 1))
    counters = group.coordinator.counters
    assert (counters["queued"], counters["queue_full"]) == (2, 2)
    assert "window full" in str(group.coordinator.status()["blocked"])
    group.give(checkpoint(0, 3))
    assert len(group.proposed) == WINDOW, "one of three learners is no learner quorum"
    group.give(checkpoint(1, 1))
    assert group.coordinator.low == 2
    assert [m.value for m in group.proposed[WINDOW:]] == [b"%d" % WINDOW]
    group.give(checkpoint(1, 2))
    assert [m.value for m in group.proposed[WINDOW:]] == [b"%d" % WINDOW, b"%d" % (WINDOW + 1)]


def test_the_queue_keeps_its_order() -> None:
    """PROTOCOL 4: a request does not overtake those that wait."""
    group = serving()
    group.give(request(*(b"%d" % k for k in range(WINDOW + 1))))
    group.give(request(b"last"))
    for learner in (0, 1):
        group.give(checkpoint(learner, 8))
    assert [m.value for m in group.proposed[WINDOW:]] == [b"%d" % WINDOW, b"last"]


def test_trap_07_low_follows_the_quorum_of_learners_not_the_first() -> None:
    """Traps, 7: `low - 1` is the (g+1)-th highest checkpoint, and never moves down."""
    group = serving(learners=5)
    for learner, through in enumerate((9, 7, 5, 3)):
        group.give(checkpoint(learner, through))
        assert group.coordinator.low == (1, 1, 6, 6)[learner]
    group.give(checkpoint(0, 2))
    assert group.coordinator.low == 6


def test_a_checkpoint_out_of_all_bounds_is_dropped() -> None:
    """PROTOCOL 2: a `low` that jumps by more than 2^40 is dropped and counted."""
    group = serving()
    for learner in (0, 1):
        group.give(checkpoint(learner, 3))
    for learner in (0, 1):
        group.give(checkpoint(learner, 1 << 50))
    assert group.coordinator.low == 4
    assert group.coordinator.counters["low_jump"] == 2
    for learner in (0, 1):
        group.give(checkpoint(learner, 5))
    assert group.coordinator.low == 6


def test_the_first_low_is_taken_however_high() -> None:
    """PROTOCOL 2: a coordinator that restarts has no memory of a log that is far ahead."""
    role = coordinator(id=1)
    role.step(heartbeat(0, round_of(1), next=9 + (1 << 50), low=1 << 50), 0.0)
    assert (role.low, role.counters["low_jump"]) == (1 << 50, 0)


def test_a_first_low_that_no_register_holds_is_dropped() -> None:
    """PROTOCOL 2: above 2^62 what was sent for an instance could not be kept, and sent again."""
    role = coordinator(id=1)
    role.step(heartbeat(0, round_of(1), next=9, low=1 << 63), 0.0)
    for learner in (0, 1):
        role.step(checkpoint(learner, (1 << 64) - 2), 0.0)
    assert (role.low, role.counters["low_jump"]) == (1, 3)


def test_heartbeats_carry_round_next_and_low_to_all() -> None:
    """PROTOCOL 4: HEARTBEAT: round, next, low; from a coordinator to all."""
    group = serving()
    group.give(request(b"a", b"b"))
    for learner in (0, 1):
        group.give(checkpoint(learner, 1))
    at = group.coordinator.deadline()
    assert at is not None
    effects = group.coordinator.tick(at)
    beats = [(to, m) for to, rows in effects.send for m in wire.messages(rows)]
    assert [to for to, _ in beats] == [COORDINATORS, ACCEPTORS, LEARNERS]
    assert {(m.instance, m.round, m.low) for _, m in beats} == {(3, round_of(1), 2)}


def test_heartbeats_without_news_are_for_candidates_alone() -> None:
    """PROTOCOL 4: acceptors and learners hear one of eight, and the next change at once."""
    group = serving()
    role = group.coordinator  # told all of its round when it won it

    def heard() -> set[To]:
        at = role._heartbeat_at
        assert at is not None
        beats = [
            to for to, rows in role.tick(at).send for m in wire.messages(rows)
            if m.type == Type.HEARTBEAT
        ]  # fmt: skip
        return set(beats)

    everybody = {ACCEPTORS, COORDINATORS, LEARNERS}
    assert [heard() for _ in range(10)] == [
        *[everybody] * 3, *[{COORDINATORS}] * 4, everybody, *[{COORDINATORS}] * 2,
    ]  # fmt: skip
    for learner in (0, 1):
        group.give(checkpoint(learner, 1))
    assert heard() == everybody


def test_requests_outstanding_and_no_progress_means_phase_1_again() -> None:
    """PROTOCOL 4: acceptors that refuse in silence are noticed by what is not chosen."""
    lost = {Type.PHASE2A}
    group = Group(coordinator(), [acceptor(a) for a in range(3)], lambda to, m: m.type in lost)
    group.take_over()
    group.give(request(b"a"))
    lost.clear()
    group.run_until(group.now + 4 * TIMING.stall_s)
    assert group.coordinator.counters["stalls"] >= 1
    assert group.coordinator.sequencer.round > round_of(1)


def test_a_stall_is_noticed_though_its_own_recovery_round_is_the_highest() -> None:
    """PROTOCOL 4: a higher foreign floor may hide behind a recovery round of its own."""
    group = serving()
    group.give(request(b"a"))
    for _ in range(2):
        group.give(recover(1, 2))
        group.now += 0.1
    foreign = round_of(1, 1)
    assert group.coordinator.sequencer.round < foreign < group.coordinator.round
    for role in group.acceptors.values():
        role.step(phase1a(foreign, sender=1), group.now)  # and its sender dies
    group.give(request(b"b"))
    group.run_until(group.now + 4 * TIMING.stall_s)
    group.give(request(b"c"))
    assert group.chosen(1) == {b"a"}
    assert b"c" in group.chosen(2) | group.chosen(3)


def test_an_idle_coordinator_stays() -> None:
    """PROTOCOL 4: no requests outstanding, no stall."""
    group = serving()
    group.give(request(b"a"))
    group.run_until(group.now + 20 * TIMING.stall_s)
    assert group.coordinator.counters["takeovers"] == 1


def test_the_learners_progress_counts() -> None:
    """PROTOCOL 4: it hears the learners' progress: a checkpoint of all that is proposed."""
    group = serving()
    group.give(request(b"a"))
    group.give(checkpoint(0, 1))
    asked = group.coordinator.tick(group.now + TIMING.stall_s)
    assert sent(asked, Type.READ_INDEX) == []


def test_a_value_longer_than_the_acceptors_hold_is_dropped() -> None:
    """PROTOCOL 4: before it gets an instance."""
    group = serving()
    group.give(request(b"v" * (VALUE_BYTES + 1), b"ok"))
    assert [m.value for m in group.proposed] == [b"ok"]
    assert group.coordinator.counters["value_too_long"] == 1


def test_other_messages_are_counted() -> None:
    """PROTOCOL 4: PHASE2B and foreign types are silence and a counter."""
    group = serving()
    group.give(phase2b(0, 1, round_of(9, 1), b"x"))
    assert group.coordinator.counters["ignored"] == 1
    assert group.coordinator.phase is Phase.SERVING
