"""The wire to a switch: how much is on it at once, and what becomes of what is lost on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from p4xos import wire
from p4xos.effects import ACCEPTORS, LEARNERS
from p4xos.errors import BadPacket
from p4xos.tables import Address
from p4xos.testing import vectors
from p4xos.wire import Rows, Type
from switch.bmv2 import plane as plane_module
from switch.bmv2.answers import Answers
from switch.bmv2.plane import UNDER_WAY, Bmv2Plane
from switch.bmv2.runtime import SwitchGone
from switch.control.acceptor import SwitchAcceptor
from switch.control.backend import pack_seen
from switch.control.p4_plane import P4Plane
from switch.control.packets import Datagram, frame
from switch.control.plan import PlaneRole
from tests.switch.bmv2.fake_switch import FakeBmv2, FakeSwitch
from tests.switch.planes import plan

WINDOW, VALUE_BYTES = 128, 32


class Bench:
    """A plane with the pretended switch behind it."""

    def __init__(self, folder: Path, role: PlaneRole, *, others: int = 3) -> None:
        self.bmv2 = FakeBmv2(folder)
        self.plan = plan(role, 1 % others, window=WINDOW, value_bytes=VALUE_BYTES,
                         acceptors=others, learners=others)  # fmt: skip
        self.plane = Bmv2Plane(self.bmv2.compile, self.bmv2.start)
        self.plane.load(self.plan)

    @property
    def switch(self) -> FakeSwitch:
        return self.bmv2.started[-1].fake


@pytest.fixture
def acceptor(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, "acceptor")
    yield made
    made.plane.teardown()


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path, "coordinator")
    yield made
    made.plane.teardown()


def rows(*texts: str) -> Rows:
    return wire.from_messages([vectors.read(vectors.packet(text)) for text in texts])


def votes(count: int) -> Rows:
    return rows(*(f'PHASE2A instance={k + 1} round=1.0 low=1 value="v"' for k in range(count)))


def test_answers_come_in_the_order_of_what_was_sent(acceptor: Bench) -> None:
    acceptor.plane.write("low", 1)
    acceptor.plane.open()
    sent = acceptor.plane.inject(votes(100))
    assert [to for to, _ in sent] == [LEARNERS] * 100
    told = [wire.message(row, 0) for _, row in sent]
    assert [m.instance for m in told] == list(range(1, 101))
    assert acceptor.plane.statistics()["votes"] == 100


def test_never_more_is_under_way_than_the_queues_hold(
    acceptor: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = []
    exchange = Bmv2Plane._exchange

    def watched(self: Bmv2Plane, frames: list[bytes], replies_only: bool) -> object:
        batches.append(len(frames))
        return exchange(self, frames, replies_only)

    monkeypatch.setattr(Bmv2Plane, "_exchange", watched)
    acceptor.plane.write("low", 1)
    acceptor.plane.open()
    acceptor.plane.inject(votes(100))
    assert sum(batches) == 100
    assert max(batches) == UNDER_WAY
    assert UNDER_WAY * len(acceptor.plan.told) <= plane_module.COPIES_UNDER_WAY


def test_silence_is_known_to_be_one(acceptor: Bench) -> None:
    """Between what is answered and at the end, without waiting for what never comes."""
    acceptor.plane.write("low", 1)
    acceptor.plane.open()
    mixed = rows(
        "HEARTBEAT low=1", "READ_INDEX", 'PHASE2A instance=1 round=1.0 value="v"',
        "HEARTBEAT low=1", "PHASE2A instance=1 round=0", "HEARTBEAT low=1",
    )  # fmt: skip
    sent = acceptor.plane.inject(mixed)
    assert [wire.message(row, 0).type for _, row in sent] == [Type.READ_INDEX_REPLY, Type.PHASE2B]
    counted = acceptor.plane.statistics()
    assert (counted["heartbeats"], counted["round_zero"]) == (3, 1)
    learned = acceptor.plane.inject(
        wire.from_messages([
            vectors.read(vectors.packet("LEARN instance=1"))._replace(
                value=wire.pack_end(k), length=8
            )
            for k in (1, 2, 2)
        ])
    )  # fmt: skip
    assert [wire.message(row, 0).type for _, row in learned] == [Type.PHASE2B] * 2
    assert all(to != LEARNERS for to, _ in learned), "who asked is answered, and nobody else"


def test_an_audience_of_one_is_still_an_audience(tmp_path: Path) -> None:
    alone = Bench(tmp_path, "coordinator", others=1)
    for register, value in (("low", 1), ("next", 1), ("round", 1 << 8)):
        alone.plane.write(register, value)
    alone.plane.open()
    ((to, _),) = alone.plane.inject(rows('REQUEST value="a"'))
    assert to == ACCEPTORS
    alone.plane.teardown()


def test_a_lost_packet_is_no_silence(acceptor: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plane_module, "SILENCE_S", 0.0001)
    monkeypatch.setattr(plane_module, "WAIT_S", 0.0001)
    acceptor.plane.write("low", 1)
    acceptor.plane.open()
    acceptor.switch.loses.add(2)
    with pytest.raises(SwitchGone, match="a packet went in, and neither out nor away"):
        acceptor.plane.inject(votes(3))


def test_a_switch_that_is_off_is_gone(acceptor: Bench) -> None:
    """docs/PROTOCOL.md, section 8: nobody goes on as if its registers were still there."""
    acceptor.plane.write("low", 1)
    acceptor.plane.open()
    acceptor.plane.inject(votes(2))
    acceptor.bmv2.started[-1].switch_off()
    with pytest.raises((SwitchGone, OSError)):
        acceptor.plane.inject(votes(2))


def test_incarnations_have_a_way_of_their_own(acceptor: Bench) -> None:
    """96 bits do not fit the control plane: the program moves them, open or closed."""
    seen = (3, 0, 0xFFFF_FFFF)
    acceptor.plane.write("low", 5)
    acceptor.plane.write("seen", pack_seen(seen))
    assert acceptor.plane.read("seen") == pack_seen(seen)
    assert acceptor.plane.inject(votes(1)) == [], "the port stays closed"
    acceptor.plane.open(9)
    acceptor.plane.write("seen", pack_seen((1, 2, 3)))
    assert acceptor.plane.read("seen") == pack_seen((1, 2, 3))
    ((_, told),) = acceptor.plane.inject(rows("RECORD instance=0 value=0x00000004"))
    assert wire.unpack_seen(wire.message(told, 0).value, 3) == (4, 2, 3)
    assert wire.message(told, 0).incarnation == 9
    counted = acceptor.plane.statistics()
    assert {k: n for k, n in counted.items() if n} == {"answers": 1, "foreign": 1}


def test_values_have_a_way_of_their_own(acceptor: Bench) -> None:
    """Whatever was promised, wherever the window is: nothing but the value changes."""
    held = {"floor": 0x500, "highest_round": 0x700, "low": 1000, "highest": 1003}
    slot = {"slot_instance": 131, "slot_round": 0x600, "slot_vround": 0x200, "slot_length": 5}
    for register, number in held.items():
        acceptor.plane.write(register, number)
    for register, number in slot.items():
        acceptor.plane.write(register, number, 3)
    value = int.from_bytes(b"hello".ljust(VALUE_BYTES, b"\0"), "big")
    acceptor.plane.write("slot_value", value, 3)
    cells = acceptor.switch.interpreter.registers
    found = {name.rpartition(".")[2]: held for name, held in cells.items()}
    assert {name: found[name][3] for name in slot} == slot
    assert found["slot_value"][3] == value
    assert {name: found[name][0] for name in held} == held
    acceptor.plane._cells.clear()
    assert acceptor.plane.read("slot_value", 3) == value
    assert {name: found[name][0] for name in held} == held
    assert acceptor.plane.read("slot_value", 4) == 0, "no vote, no value"
    assert not any(acceptor.plane.statistics().values())


def test_an_acceptor_joins_again(tmp_path: Path) -> None:
    """docs/PROTOCOL.md, section 8: what the controller seeds is what the switch answers with."""
    bmv2 = FakeBmv2(tmp_path)
    plane = Bmv2Plane(bmv2.compile, bmv2.start)
    made = plan("acceptor", 1, window=WINDOW, value_bytes=VALUE_BYTES)
    acceptor = SwitchAcceptor(plane, made)
    assert acceptor.empty
    acceptor.join(incarnation=2, round=0x300, low=40, seen=(1, 0, 5))
    assert (acceptor.floor, acceptor.highest_round, acceptor.low) == (0x300, 0x300, 40)
    assert (acceptor.highest, acceptor.seen) == (39, (1, 2, 5))
    told = acceptor.step(rows("READ_INDEX", "HEARTBEAT low=41"), 0.0).send
    m = wire.message(told[0][1], 0)
    assert (m.incarnation, m.instance, m.round, m.low) == (2, 39, 0x300, 40)
    assert (acceptor.low, acceptor.counters["heartbeats"]) == (41, 1)
    acceptor.check_invariants()
    learned = acceptor.step(votes(50)[41:], 0.0)
    assert not learned.send, "a stale round"
    plane.teardown()


def test_an_acceptor_moves_to_bmv2_and_away(acceptor: Bench) -> None:
    """docs/PROTOCOL.md, section 8: it is the same acceptor, whatever its registers are made of."""
    before = SwitchAcceptor(P4Plane(), acceptor.plan)
    before.join(incarnation=3, round=0x100, low=7, seen=(1, 3, 0))
    before.step(votes(30), 0.0)
    memory = before.leave()
    assert memory.votes == 24
    acceptor.plane.teardown()
    there = SwitchAcceptor(acceptor.plane, acceptor.plan)
    there.take(memory)
    there.step(votes(32)[30:], 0.0)
    again = there.leave()
    assert again.votes == 26
    assert again.counters["votes"] == memory.counters["votes"] + 2
    assert again.value[:24].tobytes() == memory.value.tobytes()
    for name in ("incarnation", "floor", "highest_round", "low", "seen"):
        assert getattr(again, name) == getattr(memory, name), name
    for name in ("instance", "round", "vround", "length"):
        assert getattr(again, name)[:24].tolist() == getattr(memory, name).tolist(), name


def test_frames_that_no_program_sends_are_refused(acceptor: Bench) -> None:
    own, learner = acceptor.plan.own, acceptor.plan.addresses[acceptor.plan.told[0]]
    told = votes(1)[0].tobytes()  # a PHASE2A, as if it were told
    for packet, message in (
        (b"short", "no UDP header"),
        (frame(Datagram(learner, learner, told)), f"answers from {learner.host}"),
        (frame(Datagram(own, learner, told[:8])), "sends 8 bytes"),
        (frame(Datagram(own, Address("10.9.9.9", 9), told[:1] + b"\x02" + told[2:])), "no member"),
        (frame(Datagram(own, own, told)), "differs, or misses one"),
    ):
        answers = Answers(acceptor.plan, replies_only=False)
        with pytest.raises(BadPacket, match=message):
            list(map(answers.add, [packet] * len(acceptor.plan.told)))
