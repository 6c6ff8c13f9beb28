"""The acceptor's model, its scalar path and its numpy path agree on random traffic."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from p4xos import wire
from p4xos.effects import Role, To
from p4xos.roles.acceptor import Acceptor
from p4xos.testing.model import ModelAcceptor
from p4xos.testing.model.messages import reply
from p4xos.wire import END_OF_LOG, Frame, Message, Type
from tests.roles.traffic import (
    ACCEPTORS,
    BATCHES,
    CLUSTER,
    GROUP,
    VALUE_BYTES,
    WINDOW,
    by_destination,
    sent_messages,
)

ID = 1
INCARNATION = 4
ALWAYS_NUMPY = 0
ALWAYS_SCALAR = 1 << 30
Registers = dict[str, object]


def make_role(scalar_below: int) -> Acceptor:
    """An acceptor on one of its two paths."""
    return Acceptor(
        frame=Frame(CLUSTER, GROUP, ID),
        acceptors=ACCEPTORS,
        window=WINDOW,
        value_bytes=VALUE_BYTES,
        incarnation=INCARNATION,
        scalar_below=scalar_below,
    )


def make_model() -> ModelAcceptor:
    """The same acceptor, slow and obvious."""
    return ModelAcceptor(
        ID,
        ACCEPTORS,
        window=WINDOW,
        value_bytes=VALUE_BYTES,
        incarnation=INCARNATION,
        cluster=CLUSTER,
        group=GROUP,
    )


def role_registers(role: Acceptor) -> Registers:
    """Registers and the slots of the window, as far as a message can ever read them."""
    slots = {}
    for number in np.flatnonzero(role.slot_instance).tolist():
        instance = int(role.slot_instance[number])
        if role.low <= instance < role.low + role.window:
            length = int(role.slot_length[number])
            slots[instance] = (
                max(int(role.slot_round[number]), role.floor),
                int(role.slot_vround[number]),
                role.slot_value[number, :length].tobytes(),
            )
    return {
        "floor": role.floor,
        "highest_round": role.highest_round,
        "low": role.low,
        "highest": role.highest,
        "seen": tuple(role.seen),
        "slots": slots,
    }


def model_registers(model: ModelAcceptor) -> Registers:
    """The same of the model."""
    slots = {
        slot.instance: (model.promised(slot.instance), slot.vround, slot.value)
        for slot in model.slots.values()
        if model.in_window(slot.instance)
    }
    return {
        "floor": model.floor,
        "highest_round": model.highest_round,
        "low": model.low,
        "highest": model.highest,
        "seen": tuple(model.seen),
        "slots": slots,
    }


DROPS = (
    "stale_round", "out_of_window", "round_zero", "low_jump", "value_too_long", "malformed",
    "ignored",
)  # fmt: skip


def test_model_scalar_and_numpy_acceptors_agree() -> None:
    """docs/PROTOCOL.md, section 3: same messages, same answers, same registers, same counts."""
    happened: Counter[str] = Counter()

    @settings(max_examples=250, deadline=None, derandomize=True, database=None)
    @given(batches=BATCHES)
    def agree(batches: list[list[Message]]) -> None:
        model = make_model()
        roles = {"scalar": make_role(ALWAYS_SCALAR), "numpy": make_role(ALWAYS_NUMPY)}
        for batch in batches:
            answers = [answer for message in batch for answer in model.receive(message)]
            model.check_invariants()
            for path, role in roles.items():
                effects = role.step(wire.from_messages(batch), now=0.0)
                role.check_invariants()
                assert effects.deliver == []
                assert by_destination(sent_messages(effects.send)) == by_destination(answers), path
                assert role_registers(role) == model_registers(model), path
                assert {k: role.counters[k] for k in DROPS} == {k: model.dropped[k] for k in DROPS}
        happened.update(roles["numpy"].counters)

    agree()
    # The traffic is worth something only if every rule was met, many times.
    names = (*DROPS, "votes", "repeated_votes", "promises")
    assert all(happened[name] > 20 for name in names), happened


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(batches=BATCHES)
def test_a_restored_acceptor_is_the_one_that_persisted(batches: list[list[Message]]) -> None:
    """Durability, docs/PROTOCOL.md, section 10: what was persisted makes the same registers."""
    for scalar_below in (ALWAYS_SCALAR, ALWAYS_NUMPY):
        role, log = make_role(scalar_below), []
        for batch in batches:
            effects = role.step(wire.from_messages(batch), now=0.0)
            log += [rows.copy() for rows in effects.persist]
        restored = make_role(scalar_below)
        restored.restore(log)
        restored.check_invariants()
        assert role_registers(restored) == role_registers(role)


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(batches=BATCHES, data=st.data())
def test_a_log_that_was_cut_off_restores_a_sound_acceptor(
    batches: list[list[Message]], data: st.DataObject
) -> None:
    """A crash may keep any prefix of the records that were not yet synced."""
    role = make_role(ALWAYS_NUMPY)
    log = []
    for batch in batches:
        effects = role.step(wire.from_messages(batch), now=0.0)
        log += [rows[k : k + 1].copy() for rows in effects.persist for k in range(len(rows))]
    restored = make_role(ALWAYS_NUMPY)
    restored.restore(log[: data.draw(st.integers(min_value=0, max_value=len(log)))])
    restored.check_invariants()


@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(batches=BATCHES)
def test_votes_and_what_is_carried_over_make_the_same_acceptor(
    batches: list[list[Message]],
) -> None:
    """A new segment begins with what still matters of the old ones besides their votes."""
    role, votes = make_role(ALWAYS_NUMPY), []
    for batch in batches:
        for rows in role.step(wire.from_messages(batch), now=0.0).persist:
            if wire.headers(rows)["type"][0] == wire.Type.PHASE2B:
                votes.append(rows.copy())
    restored = make_role(ALWAYS_NUMPY)
    restored.restore([*votes, *(rows.copy() for rows in role.carry_over())])
    restored.check_invariants()
    assert role_registers(restored) == role_registers(role)


@pytest.mark.parametrize(("value_bytes", "rows"), [(8, 128), (600, 102), (1400, 45)])
def test_model_and_acceptor_bound_their_answers_alike(value_bytes: int, rows: int) -> None:
    """At most 128 rows and 65,536 bytes follow one question; the summary counts all."""
    window = 256
    model = ModelAcceptor(
        ID, ACCEPTORS, window=window, value_bytes=value_bytes, cluster=CLUSTER, group=GROUP
    )
    role = Acceptor(
        frame=Frame(CLUSTER, GROUP, ID), acceptors=ACCEPTORS, window=window, value_bytes=value_bytes
    )
    fill = [
        reply(CLUSTER, GROUP, Type.PHASE2A, instance=i, round=1 << 8, value=b"v" * value_bytes)
        for i in range(1, 201)
    ]
    ask = [
        reply(CLUSTER, GROUP, Type.LEARN, instance=3, value=wire.pack_end(END_OF_LOG)),
        reply(CLUSTER, GROUP, Type.PHASE1A, instance=1, round=2 << 8, value=wire.pack_end(250)),
        reply(CLUSTER, GROUP, Type.PHASE1A, round=3 << 8, value=wire.pack_end(END_OF_LOG)),
    ]
    for batch in (fill, ask):
        sent = sent_messages(role.step(wire.from_messages(batch), now=0.0).send)
        wanted = by_destination([answer for message in batch for answer in model.receive(message)])
        assert by_destination(sent) == wanted
    assert len(wanted[To(Role.LEARNER, 0)]) == rows
    assert len(wanted[To(Role.COORDINATOR, 0)]) == 2 * (1 + rows)
