"""Simulated clusters whose acceptors and sequencers are programs of a data plane.

An acceptor keeps the numpy one beside it, in step: the simulator's checkers look into that, its
records are what the simulated disk keeps, and its registers are compared with the switch's. What
is sent is what the switch sends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from p4xos import wire
from p4xos.effects import Effects
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator, CoordinatorTiming
from p4xos.roles.memory import Memory
from p4xos.roles.sequencer import Sequencer
from p4xos.testing.simulator.processes import Classes
from p4xos.testing.simulator.scenario import Scenario, draw
from p4xos.wire import Frame, Rows, Type
from switch.control.acceptor import SwitchAcceptor
from switch.control.backend import SLOT_REGISTERS, DataPlane, pack_seen
from switch.control.p4_plane import P4Plane
from switch.control.plan import Plan
from switch.control.sequencer import SwitchSequencer
from tests.switch.planes import plan

VALUE_BYTES = 64
GROUP_REGISTERS = ("floor", "highest_round", "low", "highest", "seen")
COMPARE_SLOTS_EVERY = 64


class SwitchedAcceptor(Acceptor):
    """Sends what a switch sends; here the P4 program on the interpreter."""

    @staticmethod
    def controlled(loaded: Plan) -> tuple[DataPlane, SwitchAcceptor]:
        """A data plane with its controller."""
        plane = P4Plane()
        return plane, SwitchAcceptor(plane, loaded)

    def __init__(
        self, *, frame: Frame, acceptors: int, window: int, value_bytes: int,
        incarnation: int = 0, scalar_below: int = 8,
    ) -> None:  # fmt: skip
        super().__init__(
            frame=frame, acceptors=acceptors, window=window, value_bytes=value_bytes,
            incarnation=incarnation, scalar_below=scalar_below,
        )  # fmt: skip
        self.plane, self.switch = self.controlled(
            plan("acceptor", frame.sender, window=window, value_bytes=value_bytes,
                 acceptors=acceptors, cluster=frame.cluster, group=frame.group)
        )  # fmt: skip
        self.steps = 0

    def restore(self, records: Sequence[Rows]) -> None:
        """A switch has no disk: here it gets from the simulated one what it held."""
        super().restore(records)
        self.switch.begin()
        self.plane.write("seen", pack_seen(self.seen))
        for name in ("floor", "highest_round", "low", "highest"):
            self.plane.write(name, getattr(self, name))
        for index in np.flatnonzero(self.slot_instance).tolist():
            length = int(self.slot_length[index])
            value = self.slot_value[index, :length].tobytes().ljust(self.value_bytes, b"\0")
            self.plane.write("slot_value", int.from_bytes(value, "big"), index)
            for name in SLOT_REGISTERS[:-1]:
                self.plane.write(name, int(getattr(self, name)[index]), index)
        self.plane.open(self.incarnation)
        self.switch.incarnation = self.incarnation

    def join(self, *, incarnation: int, round: int, low: int, seen: tuple[int, ...]) -> Rows:
        record = super().join(incarnation=incarnation, round=round, low=low, seen=seen)
        told = self.switch.join(incarnation=incarnation, round=round, low=low, seen=seen)
        assert np.array_equal(record, told)
        return record

    def leave(self) -> Memory:
        """What the switch gives, which is what the numpy one beside it would."""
        memory = self.switch.leave()
        same_memory(memory, super().leave())
        return memory

    def take(self, memory: Memory) -> None:
        super().take(memory)
        self.switch.take(memory)
        self.compare()

    def close(self) -> None:
        self.switch.close()

    def step(self, rows: Rows, now: float) -> Effects:
        effects = Effects.none()
        for row in range(len(rows)):
            effects.extend(super().step(self._as_a_switch(rows[row : row + 1].copy()), now))
        sent = self.switch.step(rows, now).send
        self.compare()
        return effects._replace(send=sent)

    def _as_a_switch(self, rows: Rows) -> Rows:
        """One message; of a PHASE1A of several instances a switch takes low alone.

        One who asked while this acceptor was elsewhere may send it.
        """
        m = wire.message(rows, 0)
        if m.type == Type.PHASE1A:
            end = wire.unpack_end(m.value)
            low = max(self.low, m.low)
            if end != wire.END_OF_LOG and min(end, low + self.window) - max(m.instance, low) > 1:
                wire.headers(rows)["type"] = Type.HEARTBEAT
        return rows

    def compare(self) -> None:
        """The switch holds what the numpy acceptor holds."""
        held = {name: self.plane.read(name) for name in GROUP_REGISTERS}
        assert held == {
            "floor": self.floor, "highest_round": self.highest_round, "low": self.low,
            "highest": self.highest, "seen": pack_seen(self.seen),
        }  # fmt: skip
        self.steps += 1
        if self.steps % COMPARE_SLOTS_EVERY == 0:
            for name in SLOT_REGISTERS[:-1]:
                slots = [self.plane.read(name, index) for index in range(self.window)]
                assert slots == getattr(self, name).tolist(), name


def same_memory(one: Memory, other: Memory) -> None:
    """All of it is equal but counters, and what lies behind values."""
    assert one[:6] == other[:6]
    for name in ("instance", "round", "vround", "length"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    for row, length in enumerate(one.length.tolist()):
        assert np.array_equal(one.value[row, :length], other.value[row, :length])


class SwitchedCoordinator(Coordinator):
    """Its sequencer is a switch; here the P4 program on the interpreter."""

    @staticmethod
    def sequencing(loaded: Plan) -> SwitchSequencer:
        """One on a data plane."""
        return SwitchSequencer(P4Plane(), loaded)

    def __init__(
        self, *, frame: Frame, coordinators: tuple[int, ...], acceptors: int, learners: int,
        window: int, value_bytes: int, random: Callable[[], float], now: float,
        last_round: int = 0, timing: CoordinatorTiming | None = None,
        queue_messages: int = 65_536, scalar_below: int = 8,
    ) -> None:  # fmt: skip
        loaded = plan(
            "coordinator", frame.sender, window=window, value_bytes=value_bytes,
            acceptors=acceptors, cluster=frame.cluster, group=frame.group,
        )  # fmt: skip
        super().__init__(
            frame=frame, coordinators=coordinators, acceptors=acceptors, learners=learners,
            window=window, value_bytes=value_bytes, random=random, now=now, last_round=last_round,
            timing=timing, queue_messages=queue_messages, scalar_below=scalar_below,
            sequencer=self.sequencing(loaded),
        )  # fmt: skip


@dataclass(frozen=True)
class SwitchedClasses(Classes):
    """Those of `Classes` that a switch replaces."""

    acceptor: type[Acceptor] = SwitchedAcceptor
    coordinator: type[Coordinator] = SwitchedCoordinator


def sequencer_plan(scenario: Scenario, frame: Frame) -> Plan:
    """Of one that moves to a data plane."""
    return plan(
        "coordinator", frame.sender, window=scenario.window, value_bytes=scenario.value_bytes,
        acceptors=scenario.acceptors, cluster=frame.cluster, group=frame.group,
    )  # fmt: skip


def switch_sequencer(scenario: Scenario, frame: Frame) -> SwitchSequencer:
    """One on a switch."""
    return SwitchedCoordinator.sequencing(sequencer_plan(scenario, frame))


@dataclass(frozen=True)
class MovingClasses(Classes):
    """Between numpy and switches."""

    acceptor_elsewhere: type[Acceptor] | None = SwitchedAcceptor
    sequencer_elsewhere: Callable[[Scenario, Frame], Sequencer] = switch_sequencer


def scenario(seed: int) -> Scenario:
    """The seed's, small enough for an interpreter, every crash taking what was held with it."""
    drawn = draw(seed)
    return replace(
        drawn, value_bytes=VALUE_BYTES, window=min(drawn.window, 64), real_log=False,
        bursts=min(drawn.bursts, 12), burst_commands=min(drawn.burst_commands, 4), forgets=1.0,
    )  # fmt: skip
