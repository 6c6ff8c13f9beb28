"""What an acceptor that forgot, a learner that lost its store, and their helpers do, rule by rule.

Schedules of whole groups are in tests/simulator/test_forgetting.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from p4xos import wire
from p4xos.effects import ACCEPTORS, COORDINATORS, LEARNERS, Effects, Role, To
from p4xos.roles.promises import Promises
from p4xos.roles.rejoining import ASK_EVERY_S, ForgetfulAcceptor, Stage
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Message, Type
from tests.roles.helpers import (
    VALUE_BYTES,
    WINDOW,
    acceptor,
    checkpoint,
    heartbeat,
    learner,
    make,
    phase1a,
    request,
    round_of,
    summary,
    vote_report,
)
from tests.roles.test_coordinator import serving

NONCE = 2**31


def forgetful(id: int = 0, acceptors: int = 3, learners: int = 3) -> ForgetfulAcceptor:
    return ForgetfulAcceptor(
        acceptor(id, acceptors), learners=learners, random=lambda: 0.5, now=0.0
    )


def recorded(
    sender: int, seen: tuple[int, ...], *, round: int = 0, low: int = 1, nonce: int = NONCE
) -> wire.Rows:
    return make(
        Type.RECORDED, instance=0, sender=sender, round=round, vround=nonce, low=low,
        value=wire.pack_seen(seen),
    )  # fmt: skip


def answer(sender: int, through: int, nonce: int = NONCE) -> wire.Rows:
    return make(Type.CHECKPOINT, instance=through, sender=sender, vround=nonce)


def sent(effects: Effects) -> list[tuple[To, Message]]:
    return [(to, m) for to, rows in effects.send for m in wire.messages(rows)]


def take(role: ForgetfulAcceptor, messages: Iterable[wire.Rows]) -> list[tuple[To, Message]]:
    return [one for rows in messages for one in sent(role.step(rows, 0.0))]


def test_it_asks_until_it_is_answered() -> None:
    role = forgetful()
    for now in (0.0, ASK_EVERY_S, 2 * ASK_EVERY_S):
        assert role.deadline() == now
        asked = sent(role.tick(now))
        assert [(to, m.type, m.vround) for to, m in asked] == [
            (ACCEPTORS, Type.RECORD, NONCE), (LEARNERS, Type.ASK_CHECKPOINT, NONCE),
        ]  # fmt: skip
        assert wire.unpack_incarnation(asked[0][1].value) == 0


def test_it_takes_the_incarnation_after_the_last_that_was_seen() -> None:
    role = forgetful()
    assert take(role, [recorded(1, (4, 0, 0))]) == []  # f + 1 = 2 others are needed
    ((_, told), *_) = take(role, [recorded(2, (6, 0, 1))])
    assert (told.type, wire.unpack_incarnation(told.value)) == (Type.RECORD, 7)


def test_only_who_has_recorded_it_counts() -> None:
    """An answer to the first question says nothing of what was promised since."""
    role = forgetful()
    take(role, [recorded(1, (0, 0, 0)), recorded(2, (0, 0, 0)), answer(0, 0), answer(1, 0)])
    take(role, [recorded(1, (0, 0, 0), round=9), recorded(2, (0, 0, 0), round=9)])
    assert role.stage is Stage.RECORDING
    take(role, [recorded(1, (1, 0, 0), round=5), recorded(1, (1, 0, 0), round=7)])
    assert role.stage is Stage.RECORDING
    take(role, [recorded(2, (1, 3, 0), round=6)])
    assert (role.stage, role.round, role.seen) == (Stage.SILENT, 7, (1, 3, 0))


def test_it_gives_way_to_a_later_life_of_its_own_that_was_seen() -> None:
    role = forgetful()
    take(role, [recorded(1, (0, 0, 0)), recorded(2, (0, 0, 0))])
    take(role, [recorded(1, (8, 0, 0))])
    assert role.incarnation == 9
    take(role, [recorded(2, (1, 0, 0))])
    assert role.stage is Stage.RECORDING


def test_answers_under_another_nonce_are_of_another_life() -> None:
    role = forgetful()
    assert take(role, [recorded(n, (0, 0, 0), nonce=3) for n in (1, 2)]) == []
    take(role, [recorded(1, (0, 0, 0)), recorded(2, (0, 0, 0))])
    take(role, [recorded(1, (1, 0, 0)), recorded(2, (1, 0, 0))])
    # A checkpoint that was sent before this one forgot would end the silence too soon.
    take(role, [answer(0, 5, nonce=0), answer(1, 5, nonce=NONCE - 1)])
    assert role.stage is Stage.RECORDING
    take(role, [answer(0, 5), answer(0, 9)])
    assert role.stage is Stage.RECORDING
    take(role, [answer(2, 40)])
    assert (role.stage, role.silent_until) == (Stage.SILENT, 41 + WINDOW)


def joining(low: int = 30) -> ForgetfulAcceptor:
    role = forgetful()
    take(role, [recorded(1, (0, 0, 0)), recorded(2, (0, 0, 0))])
    take(role, [recorded(1, (1, 0, 0), round=round_of(3), low=low), recorded(2, (1, 2, 0))])
    take(role, [answer(1, 20), answer(2, low - 1)])
    return role


def test_it_joins_when_low_has_passed_all_that_it_may_have_voted_for() -> None:
    role = joining(low=30)
    assert sent(role.tick(ASK_EVERY_S))[0][0] == COORDINATORS
    assert (role.silent_until, role.low) == (30 + WINDOW, 30)
    before = role.step(heartbeat(0, round_of(3), low=29 + WINDOW), 0.0)
    assert before == Effects.none()
    joined = role.step(heartbeat(0, round_of(3), low=31 + WINDOW), 0.0)
    (record,) = (m for rows in joined.persist for m in wire.messages(rows))
    assert joined.send == []
    assert role.deadline() is None
    now = role.acceptor
    assert (now.floor, now.highest_round) == (round_of(3), round_of(3))
    assert (now.low, now.highest) == (31 + WINDOW, 30 + WINDOW)
    assert (now.incarnation, now.seen) == (1, (1, 2, 0))
    again = acceptor(0)
    again.restore([*joined.persist])
    assert record.incarnation == again.incarnation == 1
    assert (again.floor, again.low, again.highest, again.seen) == (
        now.floor, now.low, now.highest, now.seen,
    )  # fmt: skip
    ((_, told), *_) = sent(role.step(phase1a(round_of(4)), 0.0))
    assert (told.type, told.incarnation) == (Type.PHASE1B, 1)


def test_the_first_low_is_taken_however_high() -> None:
    """A log beyond 2^40 is one whose acceptors forget, too; a later jump is damage."""
    role = forgetful()
    take(role, [heartbeat(0, round_of(1), low=2**50)])
    assert role.low == 2**50
    take(role, [heartbeat(0, round_of(1), low=2**60)])
    assert (role.low, role.counters["low_jump"]) == (2**50, 1)


@pytest.mark.parametrize("value", [b"", b"\0\0\0\1", bytes(16)])
def test_a_malformed_answer_is_counted(value: bytes) -> None:
    role = forgetful()
    take(role, [make(Type.RECORDED, sender=1, vround=NONCE, value=value)])
    assert role.counters["malformed"] == 1


def test_what_it_waits_for_is_said() -> None:
    role = forgetful()
    assert "0 of the 2 other acceptors needed have answered" in role.status()
    take(role, [recorded(1, (0, 0, 0)), recorded(2, (0, 0, 0))])
    assert "0 of the 2 learners needed" in role.status()
    role = joining(low=30)
    assert f"below {30 + WINDOW} are checkpointed; that has come to 30" in role.status()
    take(role, [heartbeat(0, round_of(3), low=90)])
    assert "incarnation 1" in role.status()


# Phase 1 -----------------------------------------------------------------------------------------


def test_a_report_of_another_incarnation_completes_no_summary() -> None:
    """Section 4: who forgot names other instances than the one before it counted."""
    promises = Promises(
        acceptors=3, round=round_of(2), nonce=1, first=1, window=WINDOW, value_bytes=VALUE_BYTES
    )
    promises.add(summary(0, round_of(2), 1, highest=2, votes=2, seen=(0, 0, 0)))
    promises.add(summary(1, round_of(2), 1, seen=(0, 0, 0)))
    promises.add(vote_report(0, 1, round_of(2), round_of(1), b"one"))
    late = vote_report(0, 9, round_of(2), round_of(1), b"nine")
    wire.headers(late)["incarnation"] = 1
    promises.add(late)
    assert promises.quorum() is None
    promises.add(vote_report(0, 2, round_of(2), round_of(1), b"two"))
    assert promises.quorum() == (0, 1)
    # The later incarnation's summary takes the place of the earlier one's, and what it counts.
    promises.add(summary(0, round_of(2), 1, highest=9, votes=1, low=1, incarnation=1))
    assert promises.quorum() == (0, 1)
    promises.add(summary(0, round_of(2), 1, highest=9, votes=2, low=1, incarnation=2))
    assert promises.quorum() is None


def test_the_answer_to_a_chunk_is_no_promise_of_the_whole_log() -> None:
    """Section 4: below its window an acceptor that forgot answers a chunk, and promises nothing."""
    promises = Promises(
        acceptors=3, round=round_of(2), nonce=1, first=1, window=WINDOW, value_bytes=VALUE_BYTES
    )
    promises.add(summary(0, round_of(2), 1, highest=9, votes=9))
    promises.add(summary(1, round_of(2), 1, seen=(1, 0, 0)))
    chunk = summary(0, round_of(2), promises.chunk_nonce, low=30, incarnation=1, seen=(1, 0, 0))
    promises.add(chunk)
    assert promises.quorum() is None
    assert promises.low == 30
    assert promises.silent() == [0, 2]  # it is asked to the end of the log, as it is today
    promises.add(summary(0, round_of(2), 1, low=30, highest=29, incarnation=1, seen=(1, 0, 0)))
    assert set(promises.quorum() or ()) == {0, 1}


# Filling -----------------------------------------------------------------------------------------


def test_an_idle_coordinator_fills_up_to_where_silence_ends() -> None:
    role = serving().coordinator
    first = role.sequencer.next
    wanted = make(Type.RECOVERING, instance=first + 5, sender=1)
    role.step(wanted, 100.0)
    proposed = [m for to, m in sent(role.tick(100.0)) if m.type == Type.PHASE2A]
    assert [m.instance for m in proposed] == list(range(first, first + 5))
    assert all(m.length == 0 for m in proposed)
    assert role.counters["filled"] == 5
    role.step(wanted, 101.0)  # it repeats itself until it has joined
    assert role.sequencer.next == first + 5


def test_filling_waits_for_the_window_and_for_requests() -> None:
    assert Sequencer.fill_chunk > WINDOW
    role = serving().coordinator
    first = role.sequencer.next
    role.step(make(Type.RECOVERING, instance=first + WINDOW, sender=1), 100.0)
    role.tick(100.0)
    assert role.sequencer.room == 0
    role.step(request(b"mine"), 100.0)
    room_from = role.sequencer.next
    for one in range(2):
        role.step(checkpoint(one, first + 3), 100.0)
    assert role.sequencer.next > room_from  # the request came first
    role.tick(100.0 + Sequencer.fill_every_s + role.timing.retry_s)
    assert role.sequencer.next >= first + WINDOW


def test_a_silence_beyond_all_that_was_proposed_is_none() -> None:
    role = serving().coordinator
    role.step(make(Type.RECOVERING, instance=2**40, sender=1), 100.0)
    assert role.counters["low_jump"] == 1
    assert role.counters["filled"] == 0


# A learner that may have lost its store ----------------------------------------------------------


def test_nothing_is_reported_before_it_holds_what_a_former_life_may_have_reported() -> None:
    """Section 7: its store may be another one now, or an older one."""
    role = learner(0, former=None)
    assert role.checkpoint(80) == Effects.none()
    role.former = 90  # a read index that was asked for since it started
    assert role.checkpoint(80) == Effects.none()
    assert sent(role.step(ask(), 0.0)) == []
    ((to, told),) = sent(role.checkpoint(90))
    assert (to, told.type, told.instance) == (COORDINATORS, Type.CHECKPOINT, 90)


def ask(sender: int = 1) -> wire.Rows:
    return make(Type.ASK_CHECKPOINT, sender=sender, vround=77)


def test_checkpoints_are_told_as_reported() -> None:
    role = learner(0)
    assert sent(role.step(ask(), 0.0)) == []  # nothing reported in this life
    role.checkpoint(12)
    ((to, told),) = sent(role.step(ask(), 0.0))
    assert (to, told.instance, told.vround) == (To(Role.ACCEPTOR, 1), 12, 77)
