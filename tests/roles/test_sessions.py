"""Once, and whole (docs/PROTOCOL.md, sections 2 and 5)."""

import pytest

from p4xos import checkpointed, envelope
from p4xos.effects import Delivered, Delivery, Opened, Pieces, Refused
from p4xos.roles import sessions as sessions_module
from p4xos.roles.sessions import SESSION_AHEAD, Sessions
from tests.roles.helpers import chosen, value

OPEN = envelope.open_value(proposer=4, nonce=77)


class Log:
    """Chosen values, one stretch after the other, through a table."""

    def __init__(self, fragments_max: int = 4) -> None:
        self.sessions = Sessions(fragments_max=fragments_max, counters={})
        self.next = 1

    def choose(self, *values: bytes) -> list[Delivered]:
        events = self.sessions.deliver(chosen(self.next, *values))
        self.next += len(values)
        return events

    @property
    def counters(self) -> dict[str, int]:
        return self.sessions.counters


def opened() -> Log:
    """Session 1 of proposer 4 is open."""
    log = Log()
    assert log.choose(OPEN) == [Opened(1, 4, 77)]
    return log


def applied(events: list[Delivered]) -> list[tuple[int, int, bytes]]:
    """(instance, sequence, payload) of all that is delivered."""
    return [
        (event.instance + k, event.sequence + k, payload)
        for event in events
        if isinstance(event, Delivery)
        for k, payload in enumerate(event.payloads())
    ]


def pieces(base: int, *parts: bytes) -> list[bytes]:
    return [
        envelope.seal(1, base + k, part, fragment=k, fragments=len(parts))
        for k, part in enumerate(parts)
    ]


def test_a_session_is_the_instance_that_chose_its_open() -> None:
    """PROTOCOL 5: values of it carry sequences from 1; a stretch is one delivery."""
    log = Log()
    assert log.choose(b"", b"", OPEN) == [Opened(3, 4, 77)]
    events = log.choose(*(value(k, b"%d" % k, session=3) for k in (1, 2, 3)))
    assert len(events) == 1
    assert applied(events) == [(4, 1, b"1"), (5, 2, b"2"), (6, 3, b"3")]


def test_trap_15_a_value_chosen_twice_is_delivered_once() -> None:
    """Traps, 15: a retry, next to the first copy, overlapping it, or long after it."""
    log = opened()
    assert applied(log.choose(value(1, b"a"), value(1, b"a"))) == [(2, 1, b"a")]
    assert applied(log.choose(value(1, b"a"), value(2, b"b"), value(3, b"c"))) == [
        (5, 2, b"b"), (6, 3, b"c"),
    ]  # fmt: skip
    assert log.choose(value(2, b"b")) == []
    assert log.counters["duplicates"] == 3


def test_sequences_may_be_chosen_out_of_order() -> None:
    """PROTOCOL 5: contiguous through, and a bounded set above."""
    log = opened()
    assert [s for _, s, _ in applied(log.choose(value(5, b"5"), value(3, b"3")))] == [5, 3]
    events = log.choose(*(value(k, b"%d" % k) for k in range(1, 7)))
    assert [s for _, s, _ in applied(events)] == [1, 2, 4, 6]
    (row,) = log.sessions.table()[0]
    assert row[4:] == [6, []]


def test_sequences_too_far_ahead_are_refused() -> None:
    """PROTOCOL 5: the set above is bounded; what is refused may be sent again later."""
    log = opened()
    far = 1 + SESSION_AHEAD
    assert log.choose(value(far, b"far")) == [Refused(2, 1, far, False)]
    assert applied(log.choose(value(far - 1, b"at the bound"))) == [(3, far - 1, b"at the bound")]
    log.choose(value(1, b"one"))
    assert applied(log.choose(value(far, b"far"))) == [(5, far, b"far")]


def test_a_value_of_an_unknown_session_is_refused() -> None:
    """PROTOCOL 5: never applied, and its submitter learns that the outcome is unknown."""
    log = opened()
    assert log.choose(value(1, b"x", session=9), value(2, b"y", session=9)) == [
        Refused(2, 9, 1, True), Refused(3, 9, 2, True),
    ]  # fmt: skip


def test_a_retried_open_is_no_new_session() -> None:
    """PROTOCOL 5: the same OPEN chosen twice, by its nonce."""
    log = opened()
    log.choose(value(1, b"a"))
    assert log.choose(OPEN) == []
    assert applied(log.choose(value(1, b"a"), value(2, b"b"))) == [(5, 2, b"b")]


def test_a_newer_open_drops_the_proposers_old_session() -> None:
    """PROTOCOL 5: and what it had half received; other proposers keep theirs."""
    log = opened()
    log.choose(envelope.open_value(5, 1), *pieces(1, b"a", b"b")[:1])
    assert log.choose(envelope.open_value(4, 78)) == [Opened(4, 4, 78)]
    assert log.choose(*pieces(1, b"a", b"b")[1:]) == [Refused(5, 1, 2, True)]
    assert applied(log.choose(value(1, b"x", session=4), value(1, b"y", session=2))) == [
        (6, 1, b"x"), (7, 1, b"y"),
    ]  # fmt: skip
    assert log.sessions.table()[1] == []


def test_the_session_used_least_lately_is_evicted(monkeypatch: pytest.MonkeyPatch) -> None:
    """PROTOCOL 5: rows are evicted by instance, never by clock."""
    monkeypatch.setattr(sessions_module, "SESSIONS_MAX", 2)
    log = opened()
    log.choose(envelope.open_value(5, 1), value(1, b"used again"))
    assert log.choose(envelope.open_value(6, 1)) == [Opened(4, 6, 1)]
    assert log.choose(value(2, b"x"), value(1, b"y", session=2))[1:] == [Refused(6, 2, 1, True)]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 1, 0, 1, 2)])
def test_fragments_in_any_order_are_joined(order: tuple[int, ...]) -> None:
    """PROTOCOL 2: delivered at the instance that completes it; duplicates go one by one."""
    log = opened()
    parts = pieces(1, b"ab", b"cd", b"e")
    events = log.choose(*(parts[k] for k in order))
    assert applied(events) == [(1 + len(order), 1, b"abcde")]
    assert applied(log.choose(*parts, value(4, b"next"))) == [(5 + len(order), 4, b"next")]


def test_half_received_commands_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """PROTOCOL 2: evicted by instance, the command begun first; it is refused for good."""
    monkeypatch.setattr(sessions_module, "HALF_RECEIVED_BYTES", 8)
    log = opened()
    first, second = pieces(1, b"aaaaa", b"b"), pieces(3, b"ccccc", b"d")
    assert log.choose(first[0]) == [Pieces(2, 1, 1, 1)]
    assert log.choose(second[0]) == [Pieces(3, 1, 3, 1), Refused(3, 1, 1, False)]
    assert log.choose(first[1]) == []
    assert applied(log.choose(second[1])) == [(5, 3, b"cccccd")]
    assert applied(log.choose(value(5, b"on"))) == [(6, 5, b"on")]


def test_pieces_of_an_incomplete_command_are_told_once() -> None:
    """PROTOCOL 5: its proposer need not send them again."""
    log = opened()
    parts = pieces(1, b"a", b"b", b"c", b"d")
    assert log.choose(parts[1], parts[2]) == [Pieces(2, 1, 2, 2)]
    assert log.choose(parts[2], parts[0]) == [Pieces(5, 1, 1, 1)]
    assert applied(log.choose(parts[3])) == [(6, 1, b"abcd")]


@pytest.mark.parametrize(
    ("fragment", "fragments"), [(0, 0), (2, 2), (1, 1), (0, 5), (2**32 - 1, 2**32 - 1)]
)
def test_impossible_fragments_are_counted(fragment: int, fragments: int) -> None:
    """PROTOCOL 2: index below count, count at most a quarter of the window."""
    log = opened()
    assert log.choose(envelope.seal(1, 9, b"x", fragment, fragments)) == []
    assert log.counters["malformed_value"] == 1


@pytest.mark.parametrize("bad", [b"\xc1", b"short", OPEN + b"x", OPEN[:-1]])
def test_trap_11_a_malformed_value_is_counted(bad: bytes) -> None:
    """Traps, 11: a chosen value that no proposer makes stops nobody."""
    log = opened()
    assert log.choose(bad, value(1, b"a"))[:-1] == []
    assert log.choose(bad) == []
    assert log.counters["malformed_value"] == 2


def test_the_table_survives_a_round_trip() -> None:
    """PROTOCOL 5: it is part of the checkpointed state, half-received commands included."""
    log = opened()
    parts = pieces(2, b"ab", b"cd")
    log.choose(value(7, b"ahead"), parts[1])
    again = Log()
    again.next = log.next
    records: dict[bytes, bytes] = {}
    checkpointed.merge(records, checkpointed.changes_of(log.sessions))
    again.sessions.load(*checkpointed.unpack(records))
    for later in ([value(7, b"ahead")], [parts[0]], [value(1, b"one"), value(4, b"four")], [OPEN]):
        assert applied(again.choose(*later)) == applied(log.choose(*later))
    checkpointed.merge(records, checkpointed.changes_of(again.sessions))
    assert list(records) == [checkpointed.TABLE], "the pieces went with their command"
    assert again.sessions.table() == log.sessions.table()


def test_each_batch_keeps_the_pieces_that_it_brought_and_no_others() -> None:
    """PROTOCOL 7: a value of megabytes is written once, not with every batch of its fragments."""
    log = opened()
    records: dict[bytes, bytes] = {}
    payload = bytes(200)
    parts = [payload[k : k + 50] for k in range(0, 200, 50)]
    written = 0
    for part in pieces(1, *parts)[:-1]:
        log.choose(part)
        changes = checkpointed.changes_of(log.sessions)
        written += sum(len(value or b"") for key, value in changes.items() if b"pieces" in key)
        checkpointed.merge(records, changes)
    assert written < 2 * len(payload)
    assert len(records) == 1 + 3
    log.choose(pieces(1, *parts)[-1])
    checkpointed.merge(records, checkpointed.changes_of(log.sessions))
    assert list(records) == [checkpointed.TABLE]
