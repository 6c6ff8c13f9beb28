"""Random traffic for the differential tests, biased to where rules meet.

The window is 8, so that batches of some tens of messages wrap around it, collide in slots and
leave it at both ends; rounds are few, so that equal, stale and newer ones all happen.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from hypothesis import strategies as st

from p4xos import wire
from p4xos.effects import To
from p4xos.testing.model.messages import reply
from p4xos.wire import END_OF_LOG, Message, Rows, Type

WINDOW = 8
ACCEPTORS = 3
VALUE_BYTES = 24
CLUSTER = 0xC1051234
GROUP = 2

ROUNDS = st.sampled_from([1 << 8, 1 << 8 | 1, 2 << 8, 2 << 8, 2 << 8 | 1, 3 << 8, 0, 0xFFFFFFFF])
NEAR = st.integers(min_value=1, max_value=WINDOW + 2)
FAR = st.sampled_from([0, 3 * WINDOW, 2**31, 2**32 + 3, 2**63 - 1, 2**63, 2**64 - 2, END_OF_LOG])
INSTANCES = st.one_of(*[NEAR] * 9, FAR)
LOWS = st.sampled_from([0, 0, 0, 0, 1, 1, 2, 3, 5, WINDOW + 1, WINDOW + 4, 2**40 + 20, END_OF_LOG])
VALUES = st.sampled_from(
    [b"", b"a", b"b", b"abcd", b"01234567", b"v" * VALUE_BYTES, b"v" * (VALUE_BYTES + 1)]
)
SENDERS = st.integers(min_value=0, max_value=2)
NONCES = st.sampled_from([0, 7, 2**32 - 1])


@st.composite
def ranges(draw: st.DrawFn) -> tuple[int, bytes]:
    """First and value of a message that asks for a range, sometimes a malformed one."""
    first = draw(INSTANCES)
    end = draw(
        st.one_of(
            st.just(END_OF_LOG),
            st.just(min(first + 1, END_OF_LOG)),
            st.integers(min_value=0, max_value=2 * WINDOW).map(
                lambda k: min(first + k, END_OF_LOG)
            ),
            INSTANCES,
        )
    )
    value = wire.pack_end(end)
    return first, draw(st.sampled_from([value] * 12 + [value[:7]]))


@st.composite
def runs(draw: st.DrawFn) -> list[Message]:
    """PHASE2A of consecutive instances, as a coordinator sends them."""
    first, round = draw(INSTANCES), draw(ROUNDS)
    count = draw(st.integers(min_value=1, max_value=WINDOW + 4))
    low, sender = draw(LOWS), draw(SENDERS)
    values = draw(st.lists(VALUES, min_size=count, max_size=count))
    return [
        reply(CLUSTER, GROUP, Type.PHASE2A, instance=first + k, round=round, sender=sender,
              low=low, value=value)
        for k, value in enumerate(values)
        if first + k <= END_OF_LOG
    ]  # fmt: skip


@st.composite
def questions(draw: st.DrawFn) -> list[Message]:
    """One message of a type that does not come in runs."""
    type = draw(
        st.sampled_from(
            [Type.PHASE1A] * 5
            + [Type.LEARN, Type.RECORD] * 2
            + [Type.READ_INDEX, Type.HEARTBEAT]
            + list(Type)
        )
    )
    sender, low, round = draw(SENDERS), draw(LOWS), draw(ROUNDS)
    if type in (Type.PHASE1A, Type.LEARN):
        first, value = draw(ranges())
        return [
            reply(CLUSTER, GROUP, type, instance=first, round=round, vround=draw(NONCES),
                  sender=sender, low=low, value=value)
        ]  # fmt: skip
    if type == Type.RECORD:
        value = wire.pack_incarnation(draw(st.integers(min_value=0, max_value=3)))
        return [
            reply(CLUSTER, GROUP, type, instance=draw(st.sampled_from([sender] * 9 + [7])),
                  vround=draw(NONCES), sender=sender, low=low,
                  value=draw(st.sampled_from([value] * 9 + [value[1:]])))
        ]  # fmt: skip
    instance = draw(st.integers(min_value=0, max_value=2) if type == Type.READ_INDEX else INSTANCES)
    return [
        reply(CLUSTER, GROUP, type, instance=instance, round=round, vround=draw(NONCES),
              sender=sender, low=low, value=draw(VALUES))
    ]  # fmt: skip


def flatten(parts: Iterable[Sequence[Message]]) -> list[Message]:
    """The messages of all parts, in order."""
    return [message for part in parts for message in part]


BATCHES = st.lists(
    st.lists(st.one_of(runs(), questions()), min_size=2, max_size=8).map(flatten),
    min_size=1,
    max_size=6,
)
"""Batches for an acceptor."""


def by_destination(sent: Iterable[tuple[To, Message]]) -> dict[To, list[Message]]:
    """What each destination gets, in order; order between destinations means nothing."""
    inbox: dict[To, list[Message]] = defaultdict(list)
    for to, message in sent:
        inbox[to].append(message)
    return dict(inbox)


def sent_messages(sent: Iterable[tuple[To, Rows]]) -> list[tuple[To, Message]]:
    """What a role sends, message by message; asserts that what is behind a value is zero."""
    flat = []
    for to, rows in sent:
        for row, message in zip(rows, wire.messages(rows), strict=True):
            assert not row[wire.HEADER_BYTES + message.length :].any(), "padding is not zero"
            flat.append((to, message))
    return flat
