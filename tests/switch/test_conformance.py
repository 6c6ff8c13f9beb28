"""One suite for every data plane: the vectors, and random traffic beside the model.

A switch sends one packet for one message, so of what the model answers it leaves out what
docs/PROTOCOL.md, section 3, lets it: `as_a_switch` says which. All else is equal: answers byte by
byte, registers, slots, and what is counted.
"""

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given, seed, settings

from p4xos import wire
from p4xos.effects import ACCEPTORS, LEARNERS, To
from p4xos.quorum import NO_ROUND
from p4xos.testing import vectors
from p4xos.testing.model import ModelAcceptor, ModelSequencer
from p4xos.testing.model.messages import end_of_range
from p4xos.testing.vectors import SlotState, Vector
from p4xos.wire import ASK_ONE_BY_ONE, END_OF_LOG, Message, Type
from switch.control.backend import DataPlane, pack_seen
from switch.control.p4_plane import P4Plane
from switch.control.packets import Datagram, frame
from tests.roles.test_differential_sequencer import STEPS, Raise, Serve
from tests.roles.traffic import BATCHES, CLUSTER, GROUP, WINDOW
from tests.switch.conftest import EXAMPLES, SWITCHES, MakePlane
from tests.switch.planes import PlaneTarget, plan, read_slots
from tests.vectors.test_vectors import VECTORS

FOR_SWITCHES = [vector for vector in VECTORS if not vector.software_only]
VALUE_BYTES = 32
SEED = 1
"""One with which the random traffic meets every rule."""
TOO_LONG = b"v" * (VALUE_BYTES + 1)
ID, INCARNATION = 1, 4
DROPS = (
    "stale_round", "out_of_window", "round_zero", "low_jump", "value_too_long", "malformed",
    "ignored",
)  # fmt: skip


@pytest.mark.parametrize("make", ["numpy"], indirect=True)
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector, make: MakePlane) -> None:
    vectors.run(vector, PlaneTarget(make, "software"))


@pytest.mark.parametrize("make", SWITCHES, indirect=True)
@pytest.mark.parametrize("vector", FOR_SWITCHES, ids=lambda vector: vector.name)
def test_vector_on_a_switch(vector: Vector, make: MakePlane) -> None:
    vectors.run(vector, PlaneTarget(make, "switch"))


# The acceptor ----------------------------------------------------------------------------------


@dataclass
class Expected:
    """What a switch does with a message."""

    seen: Message
    """What the model is given: a heartbeat in place of what a switch cannot do."""
    first: int
    """The first instance asked for, in the window."""
    beyond: bool = False
    """Whether it asks for a promise of several instances."""


def as_a_switch(model: ModelAcceptor, m: Message) -> Expected:
    """A bounded PHASE1A of several instances of the window moves low, and that is all."""
    low = model.low
    if m.type in (Type.PHASE1A, Type.PHASE2A, Type.HEARTBEAT) and m.low <= low + (1 << 40):
        low = max(low, m.low)
    first = max(m.instance, low)
    end = end_of_range(m) if m.type == Type.PHASE1A else None
    if end is None or end == END_OF_LOG or m.round in range(max(model.floor, 1)):
        return Expected(m, first)
    if m.low > low or min(end, low + model.window) - first < 2:
        return Expected(m, first)
    return Expected(m._replace(type=int(Type.HEARTBEAT)), first, beyond=True)


def of_a_switch(
    expected: Expected, answers: list[tuple[To, Message]]
) -> list[tuple[To, Message]]:
    """The one packet of the model's answers."""
    m = expected.seen
    if m.type == Type.PHASE1A and answers:
        to, summary = answers[0]
        if end_of_range(m) != END_OF_LOG:
            return answers[-1:]  # the summary of no instance, or the report of one
        told = wire.unpack_summary(summary.value, 3)._replace(votes=ASK_ONE_BY_ONE)
        return [(to, summary._replace(value=wire.pack_summary(told)))]
    if m.type == Type.LEARN:
        return [answer for answer in answers if answer[1].instance == expected.first]
    return answers


def injected(plane: DataPlane, m: Message) -> list[tuple[To, Message]]:
    """What a data plane answers; asserts that what is behind a value is zero."""
    sent = []
    for to, rows in plane.inject(wire.from_messages([m])):
        for row, answer in zip(rows, wire.messages(rows), strict=True):
            assert not row[wire.HEADER_BYTES + answer.length :].any(), "padding is not zero"
            sent.append((to, answer))
    return sent


def held(model: ModelAcceptor) -> dict[str, object]:
    """The model's registers, and the slots that a message can still read."""
    return {
        "floor": model.floor, "highest_round": model.highest_round, "low": model.low,
        "highest": model.highest, "seen": pack_seen(tuple(model.seen)),
        "slots": {
            slot.instance: SlotState(slot.instance, slot.round, slot.vround, slot.value)
            for slot in model.slots.values()
            if model.in_window(slot.instance)
        },
    }  # fmt: skip


@pytest.mark.parametrize("make", SWITCHES, indirect=True)
def test_model_and_switched_acceptors_agree(make: MakePlane, examples: int) -> None:
    """docs/PROTOCOL.md, section 3: same messages, same answers, same registers, same counts."""
    happened: Counter[str] = Counter()
    plane = make()
    loaded = plan("acceptor", ID, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER,
                  group=GROUP)  # fmt: skip
    plane.load(loaded)

    @seed(SEED)
    @settings(max_examples=examples, deadline=None, database=None)
    @given(batches=BATCHES)
    def agree(batches: list[list[Message]]) -> None:
        model = ModelAcceptor(
            ID, 3, window=WINDOW, value_bytes=VALUE_BYTES, incarnation=INCARNATION,
            cluster=CLUSTER, group=GROUP,
        )  # fmt: skip
        plane.reset()
        plane.write("low", 1)
        plane.open(INCARNATION)
        for m in (m for batch in batches for m in batch):
            if m.type == Type.PHASE2A and len(m.value) > 24:
                m = m._replace(value=TOO_LONG, length=len(TOO_LONG))
            expected = as_a_switch(model, m)
            happened["beyond"] += expected.beyond
            answers = of_a_switch(expected, model.receive(expected.seen))
            assert injected(plane, m) == answers
            happened["answers"] += len(answers)
        names = ("floor", "highest_round", "low", "highest", "seen")
        registers: dict[str, object] = {name: plane.read(name) for name in names}
        live = {i: s for i, s in read_slots(plane, loaded).items() if model.in_window(i)}
        assert {**registers, "slots": live} == held(model)
        counted = plane.statistics()
        assert {k: counted[k] for k in DROPS} == {k: model.dropped[k] for k in DROPS}
        happened.update(counted)

    agree()
    # The traffic is worth something only if every rule was met, many times.
    names = (*DROPS, "beyond", "answers", "votes", "repeated_votes", "promises", "range")
    assert examples < EXAMPLES or all(happened[name] > 5 for name in names), happened


# The coordinator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", SWITCHES, indirect=True)
def test_model_and_switched_sequencers_agree(make: MakePlane, examples: int) -> None:
    """docs/PROTOCOL.md, section 4: same requests, same PHASE2A, same registers, same counts."""
    happened: Counter[str] = Counter()
    plane = make()
    plane.load(
        plan("coordinator", ID, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER,
             group=GROUP)
    )  # fmt: skip

    @seed(SEED)
    @settings(max_examples=examples // 2, deadline=None, database=None)
    @given(steps=STEPS)
    def agree(steps: list[list[Message] | Serve | Raise]) -> None:
        model = ModelSequencer(
            ID, window=WINDOW, value_bytes=VALUE_BYTES, cluster=CLUSTER, group=GROUP
        )
        plane.reset()
        plane.open()
        for step in [Serve((1 << 8, 0)), *steps]:
            if isinstance(step, Serve):
                round, ahead = step
                model.serve(round, next=model.next + ahead, low=model.next + ahead)
                plane.write("round", NO_ROUND)
                plane.write("low", model.low)
                plane.write("next", model.next)
                plane.write("round", model.round)
                continue
            if isinstance(step, Raise):
                model.raise_low(model.next - step)
                plane.write("low", model.low)
                continue
            for m in step:
                if len(m.value) > 24:
                    m = m._replace(value=TOO_LONG, length=len(TOO_LONG))
                assert injected(plane, m) == model.receive(m)
            registers = {name: plane.read(name) for name in ("round", "next", "low")}
            assert registers == {"round": model.round, "next": model.next, "low": model.low}
        counted = plane.statistics()
        for name in ("inactive", "window_full", "value_too_long", "ignored"):
            assert counted[name] == model.dropped[name], name
        happened.update(counted)

    agree()
    names = ("inactive", "window_full", "value_too_long", "ignored", "proposed")
    assert examples < EXAMPLES or all(happened[name] > 5 for name in names), happened


@pytest.mark.parametrize("make", SWITCHES, indirect=True)
def test_low_above_next_takes_next_with_it(make: MakePlane) -> None:
    """docs/PROTOCOL.md, section 4: below low nothing is proposed."""
    plane = make()
    plane.load(plan("coordinator", ID, window=WINDOW, value_bytes=VALUE_BYTES))
    plane.open()
    for register, value in (("low", 1), ("next", 3), ("round", 1 << 8), ("low", 7)):
        plane.write(register, value)
    request = wire.from_messages([vectors.read(vectors.packet('REQUEST value="a"'))])
    ((to, rows),) = plane.inject(request)
    assert to == ACCEPTORS
    assert wire.message(rows, 0).instance == 7
    assert plane.read("next") == 8


@pytest.mark.parametrize("make", SWITCHES, indirect=True)
def test_a_checksum_that_comes_out_as_0_is_sent_as_all_ones(make: MakePlane) -> None:
    """RFC 768; a switch that took it for wrong would drop the same packet again and again."""
    plane = make()
    loaded = plan("acceptor", ID, window=WINDOW, value_bytes=VALUE_BYTES)
    plane.load(loaded)
    plane.write("low", 1)
    plane.open()
    rows = wire.from_messages(
        [vectors.read(vectors.packet("PHASE2A instance=1 round=1.0 low=1 value=0x0000"))]
    )
    source = loaded.addresses[loaded.sender(wire.message(rows, 0))]
    sum = frame(Datagram(source, loaded.own, rows[0].tobytes()))[40:42]
    rows[0, wire.HEADER_BYTES : wire.HEADER_BYTES + 2] = list(sum)  # makes the sum all ones
    packet = frame(Datagram(source, loaded.own, rows[0].tobytes()))
    assert packet[40:42] == b"\xff\xff"
    assert [to for to, _ in plane.inject(rows)] == [LEARNERS]
    assert plane.statistics()["checksum"] == 0


@pytest.mark.parametrize("make", ["numpy", *SWITCHES], indirect=True)
def test_a_closed_port_answers_nothing_and_forgets_on_reset(make: MakePlane) -> None:
    """docs/PROTOCOL.md, section 8: whoever has forgotten is silent until it is let in."""
    plane = make()
    plane.load(plan("acceptor", ID, window=WINDOW, value_bytes=VALUE_BYTES))
    plane.write("low", 1)
    vote = vectors.packet('PHASE2A instance=1 round=1.0 low=1 value="a"')

    def answers() -> list[To]:
        return [to for to, _ in plane.inject(wire.from_messages([vectors.read(vote)]))]

    assert answers() == []
    plane.open()
    assert answers() == [LEARNERS]
    assert plane.read("highest") == 1
    plane.reset()
    assert answers() == []
    assert plane.read("highest") == plane.read("low") == 0
    plane.teardown()


@pytest.mark.parametrize("make", ["numpy", *SWITCHES], indirect=True)
def test_what_is_not_there_is_named(make: MakePlane) -> None:
    plane = make()
    plane.load(plan("coordinator", ID, window=WINDOW, value_bytes=VALUE_BYTES))
    with pytest.raises(ValueError, match="no register floor"):
        plane.read("floor")


def test_a_size_that_no_program_has_is_named() -> None:
    with pytest.raises(ValueError, match=r"value_bytes is 40: .* 8, 16, 32, 64, 128"):
        P4Plane().load(plan("acceptor", ID, window=WINDOW, value_bytes=40))
