"""Sessions and fragments: the model, value by value, and the role, by stretches, deliver alike.

The role is given the same chosen values in stretches of any size: every learner cuts the log
into other stretches, and all must deliver the same.
"""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import checkpointed, envelope
from p4xos.effects import Chosen, Delivered, Delivery, Pieces
from p4xos.roles import sessions
from p4xos.roles.sessions import Sessions
from p4xos.testing.model import Delivered as ModelDelivered
from p4xos.testing.model import Event, ModelSessions

WINDOW = 16
SESSIONS_MAX = 3
AHEAD = 6
HALF_RECEIVED_BYTES = 7

PROPOSERS = st.sampled_from([0, 1, 2, 3, 3, 4, 4])
NONCES = st.integers(min_value=1, max_value=2)
SESSION_IDS = st.sampled_from([1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3])
SEQUENCES = st.one_of(
    st.integers(min_value=0, max_value=2 * AHEAD),
    st.integers(min_value=0, max_value=2 * AHEAD),
    st.sampled_from([50, 2**64 - 1]),
)


@st.composite
def whole(draw: st.DrawFn) -> list[bytes]:
    """Commands in sequence, as a proposer sends them."""
    session, first = draw(SESSION_IDS), draw(st.integers(min_value=0, max_value=2 * AHEAD))
    count = draw(st.sampled_from([1, 2, 3, AHEAD + 2]))
    return [envelope.seal(session, first + k, b"%d" % (first + k)) for k in range(count)]


@st.composite
def fragments(draw: st.DrawFn) -> list[bytes]:
    """The fragments of one command, in any order, some missing, some twice."""
    session, base = draw(SESSION_IDS), draw(st.integers(min_value=1, max_value=AHEAD))
    count = draw(st.integers(min_value=2, max_value=WINDOW // 4))
    sent = draw(st.permutations(range(count)))
    sent = sent[: draw(st.integers(min_value=1, max_value=count))] + sent[: draw(st.integers(0, 1))]
    size = draw(st.sampled_from([0, 2, 5]))
    return [envelope.seal(session, base + k, b"%d" % k * size, k, count) for k in sent]


@st.composite
def odd(draw: st.DrawFn) -> list[bytes]:
    """No-ops, short values and envelopes that no proposer makes."""
    index = st.integers(min_value=0, max_value=WINDOW // 4 + 1)
    anything = envelope.seal(draw(SESSION_IDS), draw(SEQUENCES), b"odd", draw(index), draw(index))
    return [draw(st.sampled_from([b"", b"short", anything, anything, anything]))]


OPENS = st.builds(lambda proposer, nonce: [envelope.open_value(proposer, nonce)], PROPOSERS, NONCES)
PARTS = st.one_of(whole(), whole(), fragments(), fragments(), fragments(), odd(), OPENS)
LOGS = st.lists(PARTS, min_size=4, max_size=10).map(
    lambda parts: [envelope.open_value(0, 1), *(value for part in parts for value in part)]
)


def chosen(instance: int, values: list[bytes]) -> Chosen:
    """Values as the learner hands them on."""
    width = max((len(value) for value in values), default=0) + 7 & ~7
    rows = np.zeros((len(values), width), dtype=np.uint8)
    for row, value in enumerate(values):
        rows[row, : len(value)] = np.frombuffer(value, np.uint8)
    return Chosen(instance, rows, np.array([len(value) for value in values], dtype=np.int64))


def one_by_one(delivered: list[Delivered]) -> list[Event]:
    """Deliveries in the model's terms."""
    events: list[Event] = []
    for event in delivered:
        if isinstance(event, Delivery):
            events += [
                ModelDelivered(event.instance + k, event.session, event.sequence + k, payload)
                for k, payload in enumerate(event.payloads())
            ]
        elif not isinstance(event, Pieces):  # a hint to a proposer, which the model has none of
            events.append(event)  # type: ignore[arg-type]  # sessions give no other events
    return events


def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that a short log meets all of them."""
    monkeypatch.setattr(sessions, "SESSIONS_MAX", SESSIONS_MAX)
    monkeypatch.setattr(sessions, "SESSION_AHEAD", AHEAD)
    monkeypatch.setattr(sessions, "HALF_RECEIVED_BYTES", HALF_RECEIVED_BYTES)


def test_model_and_sessions_deliver_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/PROTOCOL.md, section 5: once or refused, however the log is cut into stretches."""
    small_bounds(monkeypatch)
    happened: Counter[str] = Counter()

    @settings(max_examples=400, deadline=None, derandomize=True, database=None)
    @given(log=LOGS, data=st.data())
    def agree(log: list[bytes], data: st.DataObject) -> None:
        model = ModelSessions(
            window=WINDOW,
            sessions_max=SESSIONS_MAX,
            ahead=AHEAD,
            half_received_bytes=HALF_RECEIVED_BYTES,
        )
        wanted = [event for i, value in enumerate(log, start=1) for event in model.apply(i, value)]
        cuts = data.draw(st.sets(st.integers(min_value=1, max_value=len(log)), max_size=6))
        role = Sessions(fragments_max=WINDOW // 4, counters={})
        got: list[Event] = []
        records: dict[bytes, bytes] = {}
        for start, stop in zip([0, *sorted(cuts)], [*sorted(cuts), len(log)], strict=True):
            if start < stop:
                got += one_by_one(role.deliver(chosen(start + 1, log[start:stop])))
            checkpointed.merge(records, checkpointed.changes_of(role))
            role = Sessions(fragments_max=WINDOW // 4, counters=role.counters)
            role.load(*checkpointed.unpack(records))
        assert got == wanted
        happened.update(model.dropped)
        happened.update(type(event).__name__ for event in wanted)
        happened["joined"] += sum(
            len(e.payload) > 3 for e in wanted if isinstance(e, ModelDelivered)
        )

    agree()
    names = ("malformed_value", "duplicates", "refused", "half_received_evicted", "joined")
    assert all(happened[name] > 20 for name in names), happened


def test_a_refusal_does_not_depend_on_the_stretch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values within the bound are delivered though others of the same stretch are beyond it."""
    small_bounds(monkeypatch)
    log = [envelope.open_value(0, 1), *(envelope.seal(1, 3 + k, b"v") for k in range(AHEAD))]
    at_once = Sessions(fragments_max=4, counters={}).deliver(chosen(1, log))
    role = Sessions(fragments_max=4, counters={})
    singly = [event for k, v in enumerate(log) for event in role.deliver(chosen(k + 1, [v]))]
    assert one_by_one(at_once) == one_by_one(singly)


def test_fragments_of_two_counts_do_not_depend_on_the_stretch() -> None:
    """No proposer sends these: a piece of one command, then another at the same sequence."""
    log = [
        envelope.open_value(0, 1),
        envelope.seal(1, 3, b"c", 2, 4),
        envelope.seal(1, 1, b"a", 0, 2),
        envelope.seal(1, 2, b"b", 1, 2),
    ]
    at_once = Sessions(fragments_max=4, counters={})
    apart = Sessions(fragments_max=4, counters={})
    got = at_once.deliver(chosen(1, log))
    cut = [event for k, v in enumerate(log, 1) for event in apart.deliver(chosen(k, [v]))]
    assert one_by_one(got) == one_by_one(cut)
    assert at_once.table() == apart.table()
    assert at_once.piece_changes() == apart.piece_changes()
    assert at_once.counters == apart.counters
