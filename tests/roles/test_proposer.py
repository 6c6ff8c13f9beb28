"""Submitting, retrying, and reading (docs/PROTOCOL.md, sections 5, 6 and 9)."""

import itertools

import pytest

from p4xos import envelope, wire
from p4xos.effects import (
    ACCEPTORS,
    COORDINATORS,
    Delivered,
    Effects,
    Opened,
    ReadReady,
    Refused,
    Role,
    To,
    Unknown,
)
from p4xos.errors import Overloaded
from p4xos.roles.acceptor import PROPOSER_ASKS
from p4xos.roles.pace import LEAST_BYTES, START_BYTES
from p4xos.roles.proposer import Proposer, ProposerTiming
from p4xos.roles.sessions import Sessions
from p4xos.wire import Message, Rows, Type
from tests.roles.helpers import VALUE_BYTES, chosen, heartbeat, proposer, reply, round_of, sent

TIMING = ProposerTiming()
PIECE = VALUE_BYTES - envelope.ENVELOPE_BYTES


class Side:
    """A proposer, and a log that chooses what it is told to."""

    def __init__(self, **options: object) -> None:
        self.role: Proposer = proposer(2, **options)
        self.table = Sessions(fragments_max=4, counters={})
        self.next = 1
        self.told: list[Delivered] = []

    def submit(self, *payloads: bytes, now: float = 0.0) -> tuple[list[int], Effects]:
        effects = Effects.none()
        return self.role.submit(payloads, now, effects), self.note(effects)

    def note(self, effects: Effects) -> Effects:
        self.told += effects.deliver
        return effects

    def tick(self, now: float) -> Effects:
        return self.note(self.role.tick(now))

    def step(self, rows: Rows, now: float = 0.0) -> Effects:
        return self.note(self.role.step(rows, now))

    def choose(self, *values: bytes, now: float = 0.0) -> Effects:
        """Values are chosen, and its learner delivers them."""
        effects = Effects.none()
        events = self.table.deliver(chosen(self.next, *values))
        self.next += len(values)
        self.role.delivered(events, now, effects)
        return self.note(effects)

    def unknown(self) -> list[Unknown]:
        return [event for event in self.told if isinstance(event, Unknown)]


def requests(effects: Effects) -> list[Message]:
    return sent(effects, Type.REQUEST)


def opened(**options: object) -> Side:
    """Session 1 is open, nothing is in flight."""
    side = Side(**options)
    _, effects = side.submit(b"first")
    (open_request,) = requests(effects)
    (first,) = requests(side.choose(open_request.value))
    side.choose(first.value)
    assert (side.role.session, side.role.in_flight) == (1, 0)
    return side


def sequences(effects: Effects) -> list[int]:
    out = []
    for m in requests(effects):
        head = envelope.open_envelope(m.value)
        assert head is not None
        out.append(head.sequence)
    return out


# Sessions --------------------------------------------------------------------------------------


def test_it_opens_a_session_first_and_keeps_what_is_submitted() -> None:
    """PROTOCOL 5: an OPEN with a fresh nonce to the coordinators; then all that was kept."""
    side = Side()
    _, effects = side.submit(b"a", b"b")
    ((to, rows),) = effects.send
    assert to == COORDINATORS
    open_request = wire.message(rows, 0)
    assert envelope.proposer_of_open(open_request.value) == 2
    _, effects = side.submit(b"c")
    assert effects.send == [], "one OPEN is enough"
    effects = side.choose(open_request.value)
    assert [m.value for m in requests(effects)] == [
        envelope.seal(1, k, payload) for k, payload in ((1, b"a"), (2, b"b"), (3, b"c"))
    ]


def test_a_lost_open_is_sent_again() -> None:
    """PROTOCOL 5: the same OPEN, by its nonce, until it is chosen."""
    side = Side()
    _, effects = side.submit(b"a")
    (first,) = requests(effects)
    assert side.tick(TIMING.retry_s / 2).send == []
    assert requests(side.tick(TIMING.retry_s)) == [first]


def test_anothers_open_is_not_its_own() -> None:
    """PROTOCOL 5: proposer and nonce tell."""
    side = Side()
    side.submit(b"a")
    nonce = side.role._nonce
    for other in (Opened(1, 3, nonce), Opened(2, 2, nonce + 1)):
        effects = Effects.none()
        side.role.delivered([other], 0.0, effects)
        assert (effects.send, side.role.session) == ([], 0)


def test_a_lost_session_makes_what_is_in_flight_unknown() -> None:
    """PROTOCOL 5: and a new session is opened; sequences begin at 1 again."""
    side = opened()
    tickets, _ = side.submit(b"a", b"b")
    effects = Effects.none()
    side.role._random = lambda: 0.25
    side.role.delivered([Refused(9, 1, 2, True)], 0.0, effects)
    side.note(effects)
    assert side.unknown() == [Unknown(tickets, 1)]
    (open_request,) = requests(effects)
    _, kept = side.submit(b"c")
    assert kept.send == []
    side.next = 10
    effects = side.choose(open_request.value)
    assert [m.value for m in requests(effects)] == [envelope.seal(10, 1, b"c")]


def test_after_a_snapshot_it_opens_a_new_session() -> None:
    """PROTOCOL 7: deliveries that the learner jumped over are unknown outcomes here."""
    side = opened()
    tickets, _ = side.submit(b"a")
    effects = Effects.none()
    side.role.installed(0.0, effects)
    assert effects.deliver == [Unknown(tickets, 1)]
    (first,) = requests(effects)
    assert side.role.in_flight == 0
    side.role._random = lambda: 0.25
    side.submit(b"b")
    effects = Effects.none()
    side.role.installed(0.0, effects)  # again, with the OPEN under way: it may be behind us too
    (second,) = requests(effects)
    assert first.value != second.value


# Submitting ------------------------------------------------------------------------------------


def test_tickets_count_up_and_deliveries_settle_them() -> None:
    """PROTOCOL 6: each submission is settled once."""
    side = opened()
    tickets, effects = side.submit(b"a", b"b", b"c")
    assert tickets == list(range(tickets[0], tickets[0] + 3))
    values = [m.value for m in requests(effects)]
    events = side.table.deliver(chosen(50, *values))
    out = Effects.none()
    assert side.role.delivered(events, 0.0, out) == [tickets[0]]
    assert side.role.in_flight == 0
    assert side.tick(1e3).send == []
    assert side.unknown() == []


def test_requests_go_to_the_coordinator_last_heard_of() -> None:
    """PROTOCOL 4: the owner of the highest round in a HEARTBEAT; all before one is heard."""
    side = opened()
    _, effects = side.submit(b"a")
    assert [to for to, _ in effects.send] == [COORDINATORS]
    side.step(heartbeat(1, round_of(3, 1)))
    side.step(heartbeat(0, round_of(2, 0)))
    _, effects = side.submit(b"b")
    assert [to for to, _ in effects.send] == [To(Role.COORDINATOR, 1)]


def test_retries_back_off_and_then_go_to_all() -> None:
    """PROTOCOL 6: retries by deadline with back-off; traps, 13: first the leader, then all."""
    side = opened(timing=ProposerTiming(deadline_s=100.0))
    side.step(heartbeat(1, round_of(3, 1)))
    side.tick(0.0)
    side.submit(b"a")
    times: list[float] = []
    destinations: list[To] = []
    while len(times) < 6:
        at = side.role.deadline()
        assert at is not None
        for to, _ in side.tick(at).send:
            times.append(at)
            destinations.append(to)
    waits = [b - a for a, b in itertools.pairwise(times)]
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(TIMING.retry_max_s)
    assert destinations == [To(Role.COORDINATOR, 1)] + [COORDINATORS] * 5


def test_a_long_queue_is_not_made_longer_by_retries() -> None:
    """PROTOCOL 6: a value waits as long as deliveries lately take before it is sent again."""
    side = opened()
    for turn in range(60):  # each delivery takes twice the shortest wait before a retry
        now = turn * 10.0
        _, effects = side.submit(b"v", now=now)
        side.choose(requests(effects)[0].value, now=now + 2 * TIMING.retry_s)
    _, effects = side.submit(b"w", now=1000.0)
    assert side.tick(1000.0 + 4 * TIMING.retry_s).send == []
    assert len(requests(side.tick(1000.0 + TIMING.retry_max_s))) == 1


def test_only_what_is_not_delivered_is_sent_again() -> None:
    """PROTOCOL 6: a part of a call may be settled."""
    side = opened()
    _, effects = side.submit(b"a", b"b", b"c")
    side.choose([m.value for m in requests(effects)][1])
    assert sequences(side.tick(TIMING.retry_s)) == [2, 4]


def test_trap_13_a_new_leader_gets_what_is_in_flight_at_once() -> None:
    """Traps, 13: the new coordinator may never have heard of it; no timeout is waited for."""
    side = opened()
    side.submit(b"a", b"b")
    side.step(heartbeat(0, round_of(4, 0)), 0.001)
    deadline = side.role.deadline()
    assert deadline is not None
    assert deadline <= 0.001
    effects = side.tick(0.001)
    assert [to for to, _ in effects.send] == [To(Role.COORDINATOR, 0)]
    assert len(requests(effects)) == 2


def test_trap_13_a_new_leader_gets_the_open_at_once() -> None:
    """Traps, 13: also where the session is still to be opened."""
    side = Side()
    side.submit(b"a")
    assert len(requests(side.step(heartbeat(0, round_of(4, 0)), 0.001))) == 1


def test_trap_16_past_its_deadline_the_outcome_is_unknown_and_the_value_goes_on() -> None:
    """Traps, 16: no failure; and the session's sequences keep no hole."""
    side = opened()
    tickets, effects = side.submit(b"a", b"b")
    value_a, value_b = (m.value for m in requests(effects))
    side.choose(value_a)
    now = 0.0
    while not side.unknown():
        at = side.role.deadline()
        assert at is not None
        now = at
        side.tick(now)
    assert now == TIMING.deadline_s
    assert side.unknown() == [Unknown(tickets[1:], None)]
    assert sequences(side.tick(now + 60)) == [3]
    side.choose(value_b)
    assert (side.role.in_flight, len(side.unknown())) == (0, 1)


def test_a_deadline_passes_without_a_session_too() -> None:
    """PROTOCOL 6: nobody serves, so no session is opened: unknown all the same."""
    side = Side()
    tickets, _ = side.submit(b"a")
    for _ in range(200):
        at = side.role.deadline()
        assert at is not None
        side.tick(at)
        if side.unknown():
            break
    assert side.unknown() == [Unknown(tickets, None)]


def test_overloaded_takes_nothing() -> None:
    """PROTOCOL 6: bounded window with back-pressure: all of a call or none of it."""
    side = opened(in_flight_max=8)
    side.submit(*[b"x"] * 5)
    assert side.role.room == 3
    with pytest.raises(Overloaded) as refused:
        side.submit(*[b"y"] * 4)
    assert (refused.value.in_flight, refused.value.limit) == (5, 8)
    assert side.role.in_flight == 5
    side.submit(*[b"z"] * 3)
    assert side.role.room == 0


def test_a_command_too_long_names_both_sizes() -> None:
    """PROTOCOL 2: over the largest command the caller gets an error that names both sizes."""
    side = opened()
    limit = side.role.command_bytes_max
    with pytest.raises(ValueError, match=rf"{limit + 1} bytes.*{limit} bytes"):
        side.submit(b"fits", b"x" * (limit + 1))
    assert side.role.in_flight == 0


@pytest.mark.parametrize("size", [0, 1, PIECE, PIECE + 1, 3 * PIECE])
def test_a_long_command_travels_in_fragments(size: int) -> None:
    """PROTOCOL 2: several instances, a sequence for each; one ticket, one delivery."""
    side = opened()
    payload = bytes(k % 251 for k in range(size))
    tickets, effects = side.submit(payload, b"short")
    values = [m.value for m in requests(effects)]
    assert len(values) == max(1, -(-size // PIECE)) + 1
    assert all(len(value) <= VALUE_BYTES for value in values)
    assert len(tickets) == 2
    events = side.table.deliver(chosen(50, *values))
    assert b"".join(p for e in events for p in e.payloads()) == payload + b"short"  # type: ignore[union-attr]
    assert side.role.delivered(events, 0.0, Effects.none())[0] == tickets[0]
    assert side.role.in_flight == 0


def test_an_unknown_command_in_fragments_is_told_by_its_one_ticket() -> None:
    """PROTOCOL 6: tickets of fragments are nobody's."""
    side = opened()
    tickets, _ = side.submit(b"x" * (3 * PIECE), b"short")
    side.tick(TIMING.deadline_s)
    assert [ticket for event in side.unknown() for ticket in event.tickets] == tickets


def test_a_command_refused_for_good_is_over() -> None:
    """PROTOCOL 2, 6: its half was evicted: unknown once, not sent again, no room taken for ever."""
    side = opened(in_flight_max=8)
    tickets, _ = side.submit(b"x" * (3 * PIECE))
    for _ in range(2):
        effects = Effects.none()
        side.role.delivered([Refused(9, 1, 2, False)], 0.0, effects)
        side.note(effects)
    assert side.unknown() == [Unknown(tickets, None)]
    assert (side.role.in_flight, side.role.room) == (0, 8)
    assert side.tick(1e3).send == []


# Reads -----------------------------------------------------------------------------------------


def read(side: Side, token: object, now: float = 0.0) -> list[Message]:
    effects = Effects.none()
    side.role.read(token, now, effects)
    return sent(side.note(effects), Type.READ_INDEX)


def test_a_read_waits_for_f_plus_one_distinct_replies() -> None:
    """PROTOCOL 9: the largest of their highest and low - 1."""
    side = Side()
    (question,) = read(side, "r")
    assert question.instance == PROPOSER_ASKS
    side.step(reply(0, question.vround, highest=7))
    side.step(reply(0, question.vround, highest=7))
    assert side.told == []
    side.step(reply(1, question.vround, highest=3, low=12))
    assert side.told == [ReadReady(11, ["r"])]


def test_replies_of_another_exchange_do_not_count() -> None:
    """PROTOCOL 9: a fresh nonce for each; bad ids neither."""
    side = Side()
    (question,) = read(side, "r")
    side.step(reply(0, question.vround, highest=7))
    side.step(reply(1, question.vround - 1, highest=9))
    side.step(reply(3, question.vround, highest=9))
    assert side.told == []


def test_trap_15_an_exchange_serves_only_reads_that_came_before_it() -> None:
    """Traps, 15: a later read waits for the next exchange, or it could miss a write."""
    side = Side()
    (first,) = read(side, "early")
    assert read(side, "late") == []
    assert read(side, "later") == []
    side.step(reply(0, first.vround, highest=5))
    effects = side.step(reply(1, first.vround, highest=5))
    assert side.told == [ReadReady(5, ["early"])]
    second, same = sent(effects, Type.READ_INDEX)
    assert second == same, "to each of a majority"
    assert second.vround != first.vround
    side.step(reply(2, first.vround, highest=5))
    side.step(reply(0, second.vround, highest=8))
    side.step(reply(1, second.vround, highest=6))
    assert side.told[1:] == [ReadReady(8, ["late", "later"])]


def test_an_unanswered_exchange_is_asked_again() -> None:
    """PROTOCOL 9: under the same nonce: replies to either count."""
    side = Side()
    (question,) = read(side, "r")
    assert sent(side.tick(TIMING.read_retry_s), Type.READ_INDEX) == [question]


def test_those_that_answered_first_are_asked_first_the_next_time() -> None:
    """PROTOCOL 9: any f + 1 will do; when those do not answer, all are asked, and remembered."""
    side = Side()
    effects = Effects.none()
    side.role.read("a", 0.0, effects)
    ((everybody, _),) = effects.send
    assert everybody == ACCEPTORS
    (first,) = sent(effects, Type.READ_INDEX)
    side.step(reply(2, first.vround, highest=7))
    side.step(reply(0, first.vround, highest=7))
    effects = Effects.none()
    side.role.read("b", 0.0, effects)
    assert [to for to, _ in effects.send] == [To(Role.ACCEPTOR, 2), To(Role.ACCEPTOR, 0)]
    second = sent(effects, Type.READ_INDEX)[0]
    side.step(reply(0, second.vround, highest=7))
    effects = side.tick(TIMING.read_retry_s)
    assert [to for to, _ in effects.send] == [ACCEPTORS]
    assert sent(effects, Type.READ_INDEX) == [second], "the same exchange: replies to either count"
    side.step(reply(1, second.vround, highest=9))
    assert side.told[-1] == ReadReady(9, ["b"])
    effects = Effects.none()
    side.role.read("c", 0.0, effects)
    assert [to for to, _ in effects.send] == [To(Role.ACCEPTOR, 0), To(Role.ACCEPTOR, 1)]


def test_trap_16_a_read_past_its_deadline_fails() -> None:
    """Traps, 16: nothing is read then; those that waited behind it get an exchange of their own."""
    side = Side()
    read(side, "early")
    read(side, "late")
    effects = side.tick(TIMING.deadline_s)
    assert side.told == [ReadReady(None, ["early"])]
    assert sent(effects, Type.READ_INDEX) != []
    side.tick(2 * TIMING.deadline_s)
    assert side.told[1:] == [ReadReady(None, ["late"])]
    assert side.role.deadline() is None


# Pace --------------------------------------------------------------------------------------------

LARGE = {"value_bytes": 1432, "window": 4096, "in_flight_max": 1024}
STRIDE = wire.stride_for(1432)


def large() -> Side:
    """A side whose values are large, with session 1 open."""
    side = Side(**LARGE)
    side.table = Sessions(fragments_max=1024, counters={})
    _, effects = side.submit(b"first")
    (open_request,) = requests(effects)
    (first,) = requests(side.choose(open_request.value))
    side.choose(first.value)
    return side


def bytes_of(effects: Effects) -> int:
    return sum(rows.nbytes for _, rows in effects.send)


def test_a_large_command_leaves_as_fast_as_its_pieces_come_back() -> None:
    """PROTOCOL 5: it does not overrun the sockets on its way."""
    side = large()
    (ticket,), effects = side.submit(bytes(1408 * 500))
    left = requests(effects)
    assert bytes_of(effects) <= START_BYTES < bytes_of(effects) + STRIDE
    rounds = 0
    while len(left) < 500:
        effects = side.choose(*[m.value for m in left[-len(requests(effects)) or None :]])
        left += requests(effects)
        side.role.check_invariants()
        rounds += 1
    assert rounds <= 3, "what comes back doubles the budget"
    assert sequences_of(left) == list(range(2, 502))
    assert side.role.in_flight == 500
    side.choose(*[m.value for m in left[-len(requests(effects)) :]])
    assert side.role.in_flight == 0
    assert ticket == 2


def test_only_the_pieces_that_did_not_come_back_are_sent_again() -> None:
    """PROTOCOL 5."""
    side = large()
    _, effects = side.submit(bytes(1408 * 40))
    left = requests(effects)
    assert len(left) == 40
    side.choose(*[m.value for k, m in enumerate(left) if k not in (7, 30)], now=0.01)
    again = requests(side.tick(1.0))
    assert [m.value for m in again] == [left[7].value, left[30].value]
    assert side.role._pace.budget == START_BYTES // 2
    side.choose(*[m.value for m in again], now=1.1)
    assert side.role.in_flight == 0
    side.role.check_invariants()


def test_when_nothing_comes_back_less_is_sent_again_and_nothing_new() -> None:
    """PROTOCOL 5: a full socket is not made fuller."""
    side = large()
    _, effects = side.submit(bytes(1408 * 200))
    first = requests(effects)
    sizes = []
    for second in range(1, 5):
        again = side.tick(float(2 * second))
        assert requests(again)[0] == first[0]
        sizes.append(bytes_of(again))
    assert all(size <= START_BYTES // 2 for size in sizes)
    assert sizes[-1] <= LEAST_BYTES
    side.role.check_invariants()


def test_a_command_refused_half_way_takes_no_room() -> None:
    """PROTOCOL 2: evicted by others' pieces, the rest of it stays here."""
    side = large()
    (ticket,), effects = side.submit(bytes(1408 * 400))
    side.choose(*[m.value for m in requests(effects)][:5])
    effects = Effects.none()
    side.role.delivered([Refused(99, 1, 2, False)], 0.0, effects)
    assert effects.deliver == [Unknown([ticket], None)]
    assert (side.role.in_flight, side.role._pace.on_the_way) == (0, 0)
    _, effects = side.submit(b"next")
    assert [m.length for m in requests(effects)] == [envelope.ENVELOPE_BYTES + 4]
    side.role.check_invariants()


def test_a_command_refused_half_way_behind_another_is_over_with_it() -> None:
    """PROTOCOL 2, 5: the one before it, not yet delivered, comes to its end as ever."""
    side = large()
    _, effects = side.submit(b"before")
    (before,) = requests(effects)
    tickets, _ = side.submit(bytes(1408 * 400))
    effects = Effects.none()
    side.role.delivered([Refused(99, 1, 3, False)], 0.0, effects)
    assert effects.deliver == [Unknown(tickets, None)]
    side.choose(before.value)
    assert (side.role.in_flight, side.role.room) == (0, 1024)
    side.role.check_invariants()


def test_a_lost_session_takes_no_room() -> None:
    """PROTOCOL 5."""
    side = large()
    side.submit(bytes(1408 * 400))
    effects = Effects.none()
    side.role.delivered([Refused(99, 1, 2, True)], 0.0, effects)
    assert (side.role.in_flight, side.role._pace.on_the_way) == (0, 0)
    assert side.role._pace.budget == START_BYTES, "nothing came back"
    side.role.check_invariants()


def test_what_its_learner_had_to_ask_for_slows_it_down_once() -> None:
    """PROTOCOL 5: a repaired loss is one too."""
    side = large()
    for _ in range(3):
        side.role.slow_down(1.0)
    assert side.role._pace.budget == START_BYTES // 2


def sequences_of(messages: list[Message]) -> list[int]:
    heads = [envelope.open_envelope(m.value) for m in messages]
    return [head.sequence for head in heads if head is not None]
