"""The learner: model, scalar path and numpy path deliver alike on random votes."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import envelope, wire
from p4xos.effects import Effects
from p4xos.errors import ConflictingVotes
from p4xos.quorum import NO_ROUND
from p4xos.roles.learner import Learner
from p4xos.testing.model import Event, ModelLearner
from p4xos.testing.model.messages import reply
from p4xos.wire import Frame, Message, Type
from tests.roles.test_differential_sessions import one_by_one
from tests.roles.traffic import CLUSTER, GROUP, WINDOW, flatten

ACCEPTORS = 5
VALUE_BYTES = 40
ROUNDS = st.sampled_from([1 << 8, 1 << 8, 1 << 8, 1 << 8 | 1, 2 << 8, 3 << 8 | 1])
SENDERS = st.integers(min_value=0, max_value=ACCEPTORS - 1)


def value_of(instance: int, round: int) -> bytes:
    """The one value of an instance and round, of several lengths; an OPEN, commands, no-ops."""
    if instance == 1:
        return envelope.open_value(0, 1)
    if (instance + round) % 5 == 0:
        return b""
    return envelope.seal(1, instance - instance % 7 // 4, b"%d" % round * (instance % 4))


def place(batch: list[Message], delivered: int) -> list[Message]:
    """Drawn votes, whose instances count from what is delivered, as votes of the log.

    A vote beyond the window is lost on a role that delivers only at the end of its batch and
    taken by one that delivers at once: both are right, so there are none.
    """
    placed = []
    for message in batch:
        instance = max(message.instance + delivered - 3, 0)
        value = message.value or value_of(instance, message.round)
        if instance <= delivered + WINDOW:
            placed.append(message._replace(instance=instance, value=value, length=len(value)))
    return placed


@st.composite
def runs(draw: st.DrawFn) -> list[Message]:
    """PHASE2B of consecutive instances, as an acceptor sends them."""
    first = draw(st.sampled_from([1, 3, 4, 4, 4, 5, 6, WINDOW]))
    count = draw(st.sampled_from([1, 2, 3, WINDOW, WINDOW + 3]))
    round, sender = draw(ROUNDS), draw(SENDERS)
    return [
        reply(CLUSTER, GROUP, Type.PHASE2B, instance=instance, round=round, vround=round,
              sender=sender)
        for instance in range(first, first + count)
    ]  # fmt: skip


@st.composite
def quorums(draw: st.DrawFn) -> list[Message]:
    """The same instances voted for by several acceptors, in whole runs or interleaved."""
    run = draw(runs())
    senders = draw(st.permutations(range(ACCEPTORS)))[: draw(st.integers(2, 4))]
    votes = [[vote._replace(sender=sender) for vote in run] for sender in senders]
    return flatten(votes) if draw(st.booleans()) else flatten(zip(*votes, strict=True))


@st.composite
def odd(draw: st.DrawFn) -> list[Message]:
    """What is no vote, no possible vote, or one for a value of its own."""
    vote = draw(runs())[0]
    return [
        draw(
            st.sampled_from(
                [
                    vote._replace(sender=ACCEPTORS),
                    vote._replace(sender=2**16 - 1),
                    vote._replace(round=NO_ROUND, vround=NO_ROUND),
                    vote._replace(vround=vote.round - 1),
                    vote._replace(instance=0),
                    vote._replace(value=b"v" * (VALUE_BYTES + 1)),
                    vote._replace(value=b"another value"),
                    vote._replace(type=Type.PHASE2A.value),
                ]
            )
        )
    ]


PARTS = st.one_of(runs(), quorums(), quorums(), odd())
BATCHES = st.lists(st.lists(PARTS, min_size=1, max_size=4).map(flatten), min_size=3, max_size=6)


def learn(model: ModelLearner, batch: list[Message]) -> list[Event] | ConflictingVotes:
    """What the model delivers, or why it stops."""
    try:
        return [event for message in batch for event in model.receive(message)]
    except ConflictingVotes as conflict:
        return conflict


def step(role: Learner, batch: list[Message]) -> Effects | ConflictingVotes:
    """The same of the role."""
    try:
        return role.step(wire.from_messages(batch), now=0.0)
    except ConflictingVotes as conflict:
        return conflict


def check_padding(effects: Effects) -> None:
    """What is handed on is zero behind each value."""
    for chosen in effects.chosen:
        columns = np.arange(chosen.values.shape[1])
        assert not chosen.values[columns >= chosen.lengths[:, np.newaxis]].any()


def make_role(scalar_below: int) -> Learner:
    """A learner on one of its two paths."""
    return Learner(
        frame=Frame(CLUSTER, GROUP, 0),
        acceptors=ACCEPTORS,
        window=WINDOW,
        value_bytes=VALUE_BYTES,
        scalar_below=scalar_below,
    )


DROPS = ("late_votes", "value_too_long", "malformed", "ignored", "duplicates")


def tally(counted: Mapping[str, int]) -> dict[str, int]:
    """Drops by reason; a long vote for what its own batch chose is both late and too long."""
    drops = {reason: counted[reason] for reason in DROPS}
    drops["late_votes"] += drops.pop("value_too_long")
    return drops


def test_model_scalar_and_numpy_learners_agree() -> None:
    """docs/PROTOCOL.md, section 5: same votes, same deliveries in order, same conflicts."""
    happened: Counter[str] = Counter()

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(batches=BATCHES)
    def agree(batches: list[list[Message]]) -> None:
        model = ModelLearner(ACCEPTORS, window=WINDOW, value_bytes=VALUE_BYTES)
        roles = {"scalar": make_role(1 << 30), "numpy": make_role(0)}
        for batch in batches:
            batch = place(batch, model.delivered)
            wanted = learn(model, batch)
            model.check_invariants()
            for path, role in roles.items():
                effects = step(role, batch)
                if isinstance(wanted, ConflictingVotes):
                    assert isinstance(effects, ConflictingVotes), path
                    assert str(effects) == str(wanted)
                    continue
                assert isinstance(effects, Effects), effects
                role.check_invariants()
                check_padding(effects)
                assert one_by_one(effects.deliver) == wanted, path
                assert role.delivered == model.delivered, path
                counted = model.dropped + model.sessions.dropped
                assert tally(role.counters) == tally(counted), path
            if isinstance(wanted, ConflictingVotes):
                happened["conflicts"] += 1
                return
        happened.update(roles["numpy"].counters)

    agree()
    names = ("conflicts", "delivered", *DROPS)
    assert all(happened[name] > 10 for name in names), happened


@pytest.mark.parametrize("scalar_below", [0, 1 << 30])
def test_trap_4_a_new_round_starts_a_new_count(scalar_below: int) -> None:
    """One vote of a new round and two of an old one are no majority of three of five."""
    votes = [
        reply(CLUSTER, GROUP, Type.PHASE2B, instance=1, round=round, vround=round, sender=sender,
              value=value_of(1, round))
        for round, sender in [(1 << 8, 0), (1 << 8, 1), (2 << 8, 2), (1 << 8, 0), (2 << 8, 3)]
    ]  # fmt: skip
    model = ModelLearner(ACCEPTORS, window=WINDOW, value_bytes=VALUE_BYTES)
    role = make_role(scalar_below)
    assert learn(model, votes) == []
    assert role.step(wire.from_messages(votes), now=0.0).deliver == []
    last = votes[-1]._replace(sender=4)
    assert learn(model, [last]) == one_by_one(role.step(wire.from_messages([last]), 0.0).deliver)
    assert model.delivered == role.delivered == 1
