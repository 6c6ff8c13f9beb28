"""A role on bmv2 as a data plane: this process is the wire that leads to its switch.

Messages go to the switch as frames and come back as frames; what it multicasts comes back once for
each of its audience. What a message brings is known when the next one is looked at:

    a reply, or a copy for each of the audience     the answer is whole
    nothing for a moment                            the switch's counters tell: every packet has
                                                    one outcome, and that says how many leave

Never more are under way than bmv2's queues hold, so none is lost on the way.
"""

from __future__ import annotations

import select
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

from p4xos import wire
from p4xos.effects import Role, To
from p4xos.quorum import NO_ROUND
from p4xos.wire import Rows, Type
from switch.bmv2 import programs
from switch.bmv2.answers import Answers
from switch.bmv2.layout import Layout
from switch.bmv2.process import PORT, SimpleSwitch, Switch
from switch.bmv2.runtime import PATIENCE, WAIT_S, Runtime
from switch.control import entries
from switch.control.backend import SLOT_REGISTERS, pack_seen, unpack_seen
from switch.control.p4_plane import program
from switch.control.packets import Datagram, frame
from switch.control.plan import Plan, PlaneRole

UNDER_WAY = 16
"""Messages in the switch at once: bmv2 loses the 33rd that waits to be received."""
COPIES_UNDER_WAY = 48
"""Packets that they may leave as: bmv2 has room for 64."""
SILENCE_S = 0.002
"""Without an answer for so long, the counters are asked; an answer takes a tenth of that."""
_NOBODY = 0xFFFF  # no acceptor's id
_FRAME_BYTES_MAX = 2048
_MOVED_BY_A_VOTE = ("floor", "highest_round", "low", "highest")
_SLOT = SLOT_REGISTERS[:-1]  # without the value
_TOLD = ("votes", "repeated_votes", "proposed")  # outcomes after which the audience is told
_REPLIED = ("promises", "answers")

Compile = Callable[[PlaneRole, Mapping[str, str]], Path]
Start = Callable[[Path], Switch]


class Bmv2Plane:
    """A switch in a process of its own (switch.control.backend.DataPlane)."""

    def __init__(
        self, compile: Compile = programs.compiled, start: Start = SimpleSwitch.start
    ) -> None:
        """Nothing is loaded."""
        self._compile, self._start = compile, start
        self._plan: Plan | None = None
        self._switch: Switch | None = None
        self._forget()

    def _forget(self) -> None:
        """What is known of a switch that was just switched on."""
        self._taken = self._left = 0  # packets in, and frames out
        self._own: Counter[str] = Counter()  # outcomes of what nobody sent
        self._counts: dict[str, int] = {}  # by outcome
        self._counted_at = -1  # packets in
        self._cells: dict[tuple[str, int], int] = {}  # read since the last packet
        self._incarnation: int | None = None  # the port is closed

    # The Backend ---------------------------------------------------------------------------------

    def load(self, plan: Plan) -> None:
        """As Backend."""
        built = entries.sizes(
            value_bytes=plan.value_bytes, window=plan.window, acceptors=plan.acceptors
        )
        self._outcomes = entries.outcomes(
            program(plan.role, value_bytes=plan.value_bytes, window=plan.window,
                    acceptors=plan.acceptors)
        )  # fmt: skip
        self._layout = Layout.read(self._compile(plan.role, built))
        self._plan = plan
        self._batch = min(UNDER_WAY, COPIES_UNDER_WAY // len(plan.told))
        self._switch_on()

    def open(self, incarnation: int = 0) -> None:
        """As Backend."""
        self._open_as(None, incarnation)
        self._incarnation = incarnation

    def close(self) -> None:
        """As Backend."""
        self._runtime.clear(self._layout.table("endpoint").name)
        self._incarnation = None

    def read(self, register: str, index: int = 0) -> int:
        """As Backend."""
        cell = self._layout.register(register)
        where = cell.name, index
        if where not in self._cells:
            if cell.readable:
                self._cells[where] = self._runtime.read(cell.name, index)
            elif register == "seen":
                self._cells[where] = pack_seen(self._ask_seen())
            else:
                self._cells[where] = self._ask_value(index)
        return self._cells[where]

    def write(self, register: str, value: int, index: int = 0) -> None:
        """As Backend."""
        cell = self._layout.register(register)
        if cell.readable:
            self._runtime.write(cell.name, index, value)
        elif register == "seen":
            self._tell_seen(unpack_seen(value, self._loaded().acceptors))
        else:
            self._tell_value(index, value)
        self._cells[cell.name, index] = value

    def reset(self) -> None:
        """As Backend: another process."""
        self.teardown()
        self._switch_on()

    def statistics(self) -> dict[str, int]:
        """As Backend: packets by outcome, in the words of the numpy roles."""
        return {name: count - self._own[name] for name, count in self._count().items()}

    def teardown(self) -> None:
        """As Backend."""
        if self._switch is not None:
            self._switch.stop()
            self._switch = None

    # The DataPlane -------------------------------------------------------------------------------

    def inject(self, rows: Rows) -> list[tuple[To, Rows]]:
        """As DataPlane."""
        plan = self._loaded()
        sent: list[tuple[To, Rows]] = []
        messages = [
            (m.type == Type.LEARN, Datagram(plan.addresses[sender], plan.own, row.tobytes()))
            for m, row in zip(wire.messages(rows), rows, strict=True)
            if (sender := plan.sender(m)) in plan.addresses  # else nobody, in no entry of a switch
        ]
        for learn, some in groupby(messages, key=lambda message: message[0]):
            sent += self.carry([datagram for _, datagram in some], replies_only=learn)
        return sent

    def carry(
        self, datagrams: list[Datagram], *, replies_only: bool = False
    ) -> list[tuple[To, Rows]]:
        """Datagrams of whoever they are and whatever is in them; what leaves, in order.

        Args:
          replies_only: those that bring an answer bring one to who asked, and to nobody else.
        """
        self._cells.clear()
        return self._through_the_switch(datagrams, replies_only)

    def _through_the_switch(
        self, datagrams: list[Datagram], replies_only: bool
    ) -> list[tuple[To, Rows]]:
        sent: list[tuple[To, Rows]] = []
        for start in range(0, len(datagrams), self._batch):
            batch = datagrams[start : start + self._batch]
            sent += self._exchange([frame(each) for each in batch], replies_only)
        return sent

    def _exchange(self, frames: list[bytes], replies_only: bool) -> list[tuple[To, Rows]]:
        """A batch through the switch."""
        port = self._running().port
        for packet in frames:
            port.send(packet)
        self._taken += len(frames)
        answers = Answers(self._loaded(), replies_only=replies_only)
        silent = 0
        while answers.count < len(frames):
            ready = self._poll.poll(1000 * min(SILENCE_S * 2**silent, WAIT_S))
            if ready:
                answers.add(port.recv(_FRAME_BYTES_MAX))
                silent = 0
            elif self._done(answers.frames):
                break
            else:
                silent += 1
                if silent > PATIENCE:
                    raise self._runtime.gone("a packet went in, and neither out nor away")
        self._left += answers.frames
        return answers.sends()

    def _done(self, frames: int) -> bool:
        """Whether the switch is done with all that went in, and all that left is here."""
        counts = self._count(fresh=True)
        leaving = sum(counts[name] for name in _REPLIED)
        leaving += len(self._loaded().told) * sum(counts[name] for name in _TOLD)
        return sum(counts.values()) == self._taken and leaving == self._left + frames

    def _count(self, *, fresh: bool = False) -> dict[str, int]:
        """All outcomes; those of before where nothing has gone in since."""
        if fresh or self._counted_at != self._taken:
            name, _ = self._layout.counter("outcomes")
            found = self._runtime.packets(name, list(self._outcomes.values()))
            self._counts = dict(zip(self._outcomes, found, strict=True))
            self._counted_at = self._taken
        return self._counts

    # Coming up -----------------------------------------------------------------------------------

    def _switch_on(self) -> None:
        plan = self._loaded()
        self._switch = self._start(self._layout.path)
        self._runtime = Runtime(self._switch.thrift, self._switch.fate)
        self._poll = select.poll()
        self._poll.register(self._switch.port, select.POLLIN)
        self._forget()
        self._runtime.multicast(entries.AUDIENCE, [(rid, PORT) for rid in entries.rids(plan)])
        for entry in entries.standing(plan):
            self._runtime.add_entry(*self._layout.entry(*entry))

    def _open_as(self, id: int | None, incarnation: int) -> None:
        entry = self._layout.entry(*entries.endpoint(self._loaded(), incarnation, id=id))
        self._runtime.clear(entry[0])
        self._runtime.add_entry(*entry)

    # What is wider than 64 bits has no way through the control plane, but the programs move it: a
    # vote is cast and asked for, an incarnation is told and asked for. The switch is nobody then,
    # as an acceptor does not answer its own RECORD, and what the packets do beside is undone.

    def _ask_seen(self) -> tuple[int, ...]:
        acceptors = self._loaded().acceptors
        told = self._as_nobody(Role.ACCEPTOR, Type.RECORD, wire.pack_incarnation(0))
        return wire.unpack_seen(told, acceptors)

    def _tell_seen(self, seen: tuple[int, ...]) -> None:
        self._runtime.clear_register(self._layout.register("seen").name)
        for acceptor, incarnation in enumerate(seen):
            value = wire.pack_incarnation(incarnation)
            self._as_nobody(Role.ACCEPTOR, Type.RECORD, value, instance=acceptor, id=acceptor)

    def _ask_value(self, slot: int) -> int:
        """Of the vote in a slot, wherever the window is; 0 where there is none."""
        instance, low = self.read("slot_instance", slot), self.read("low")
        if self.read("slot_vround", slot) == NO_ROUND:
            return 0
        outside = not low <= instance < low + self._loaded().window
        if outside:
            self.write("low", instance)
        told = self._as_nobody(
            Role.LEARNER, Type.LEARN, wire.pack_end(instance + 1), instance=instance
        )
        if outside:
            self.write("low", low)
        return int.from_bytes(told.ljust(self._loaded().value_bytes, b"\0"), "big")

    def _tell_value(self, slot: int, value: int) -> None:
        """As the value of a vote for the slot's instance; all else is as it was."""
        held = {name: self.read(name) for name in _MOVED_BY_A_VOTE}
        of_slot = {name: self.read(name, slot) for name in _SLOT}
        instance = of_slot["slot_instance"]
        for name in ("floor", "slot_round", "slot_vround"):
            self.write(name, NO_ROUND, slot if name in _SLOT else 0)
        self.write("low", instance)
        data = value.to_bytes(self._loaded().value_bytes, "big")
        self._as_nobody(Role.COORDINATOR, Type.PHASE2A, data, instance=instance, round=1)
        for name, before in held.items():
            self.write(name, before)
        for name, before in of_slot.items():
            self.write(name, before, slot)

    def _as_nobody(
        self, role: Role, type: Type, value: bytes, *, instance: int = 0, round: int = NO_ROUND,
        id: int = 0,
    ) -> bytes:  # fmt: skip
        """Asks what is answered, open or not; the value of the answer."""
        plan = self._loaded()
        question = wire.encode(
            plan.frame.cluster, plan.frame.group, type, instance=instance, round=round, sender=id,
            value=value,
        )  # fmt: skip
        datagram = Datagram(plan.addresses[To(role, id)], plan.own, question[0].tobytes())
        self._open_as(_NOBODY, 0)
        ((_, told),) = self._through_the_switch([datagram], type == Type.LEARN)
        self._own["votes" if type == Type.PHASE2A else "answers"] += 1
        if self._incarnation is None:
            self.close()
        else:
            self.open(self._incarnation)
        return wire.message(told, 0).value

    def _loaded(self) -> Plan:
        assert self._plan is not None, "nothing is loaded"
        return self._plan

    def _running(self) -> Switch:
        assert self._switch is not None, "it is switched off"
        return self._switch
