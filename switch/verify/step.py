"""One packet's way as the protocol sees it: message in, registers before and after, message out."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass
from typing import Self

import z3

from p4xos import wire
from switch.lang import ir
from switch.verify.messages import (
    ETHERNET_BYTES,
    IPV4_BYTES,
    UDP_BYTES,
    Message,
    received,
    sent,
)
from switch.verify.pipeline import Passage
from switch.verify.state import INDEX_BITS, both
from switch.verify.terms import Term, resized


class Missing(ValueError):
    """A program that has not what a role needs."""


@dataclass(frozen=True, slots=True)
class Cells:
    """The registers of one group, or of one slot: `cells.round`."""

    read: Callable[[str, Term], Term]
    prefix: str
    index: Term

    def __getattr__(self, name: str) -> Term:
        return self.read(self.prefix + name, self.index)


@dataclass(frozen=True, slots=True)
class Memory:
    """All registers at one time, by the last part of their names."""

    read: Callable[[str, Term], Term]

    def group(self, index: Term) -> Cells:
        """The registers of a group."""
        return Cells(self.read, "", index)

    def slot(self, index: Term) -> Cells:
        """The registers of a slot."""
        return Cells(self.read, "slot_", index)


INSTANCE_BITS = 64
_NO_SLOT = z3.BitVecVal(0, INDEX_BITS)


class Step:
    """What a claim about a role is made of."""

    def __init__(self, passage: Passage) -> None:
        """Missing, when the program lacks the constant WINDOW or the register `low`."""
        self.passage = passage
        self.program = passage.machine.program
        self.names = {name.rpartition(".")[2]: name for name in self.program.registers}
        self.window = self._constant("WINDOW")
        self.groups = self.program.registers[self.register("low")].size
        self.received, self.left = received(passage), sent(passage)
        self.before = Memory(lambda name, index: passage.before(self.register(name), index))
        self.after = Memory(lambda name, index: passage.after(self.register(name), index))
        admitted = [a for a in passage.machine.accesses if a.register == self.register("low")]
        if not admitted:
            raise Missing(f"{self.program.name}: nothing reads the register `low`: no group")
        self.accesses = passage.machine.accesses
        self.group = admitted[0].index
        """Which group's registers the packet is given; means nothing where it is not `heard`."""
        self.heard = admitted[0].guard
        """Whether the packet passes admission."""
        self.tells = both(passage.decided.guard, passage.multicast != 0)
        """Whether ingress sends it to a group of receivers."""
        self.replies = z3.And(passage.multicast == 0, passage.egress_spec != ir.DROP_PORT)
        self.leaves = z3.Or(self.tells, self.replies)
        self.sent = passage.sent
        """Whether the copy that is followed leaves: egress may drop it."""
        self.old, self.new = self.before.group(self.group), self.after.group(self.group)
        slots = [a.index for a in self.accesses if self.is_slot(a.register)]
        self.slot = slots[0] if slots else _NO_SLOT
        """The index of the slot that the packet looks at. There is only this one: claims that name
        it use the program's own term, and one claim says that it is the right one. That is far
        less for the solver than to find out each time that two indices are equal."""
        self.held, self.kept = self.before.slot(self.slot), self.after.slot(self.slot)
        """What that slot holds before and after the packet."""
        self.low = self.written("low")
        """The group's low once this message's has been taken, as the program has it."""
        self.any_slot = z3.BitVec("any.slot", INDEX_BITS)
        """Any slot of any group; what is claimed of it is claimed of all."""
        self.any_group = z3.BitVec("any.group", INDEX_BITS)
        self.elsewhere = Memory(lambda name, _: self._unknown(name))
        """What some slot holds that the packet does not look at, before and after."""
        self.zero = Memory(lambda name, _: z3.BitVecVal(0, self._width(name)))
        """Registers of a switch that was just switched on."""
        self.is_abstract = False
        self.derive()

    def abstract(self) -> Self:
        """The same packet, with anything at all for what the program makes of it.

        What holds here, given some claims, holds of every program of which the claims hold.
        """
        step = copy(self)
        step.is_abstract = True
        step.group = z3.BitVec("abstract.group", INDEX_BITS)
        step.slot = z3.BitVec("abstract.slot", INDEX_BITS)
        before = Memory(lambda name, _: z3.BitVec(f"before.{name}", self._width(name)))
        after = Memory(lambda name, _: z3.BitVec(f"after.{name}", self._width(name)))
        step.old, step.held = before.group(step.group), before.slot(step.slot)
        step.new, step.kept = after.group(step.group), after.slot(step.slot)
        step.left = Message(z3.BitVec("abstract.packet", self.left.bits.size()))
        step.heard, step.tells = z3.Bools("abstract.heard abstract.tells")
        step.replies, passed = z3.Bools("abstract.replies abstract.passed")
        step.leaves = z3.Or(step.tells, step.replies)
        step.sent = z3.And(step.leaves, passed)
        step.low = z3.BitVec("abstract.low", INSTANCE_BITS)
        step.accesses = []
        step.derive()
        return step

    def modest(self) -> list[Term]:
        """What makes a counter-example one that every data plane can be given."""
        registers = [self.old, self.held] if self.slot is not _NO_SLOT else [self.old]
        numbers = [self.received.instance, self.received.low]
        for cells in registers:
            for last in self.names:
                if self.is_slot(last) == (cells is self.held):
                    value = getattr(cells, last.removeprefix("slot_"))
                    numbers += [value] if value.size() == INSTANCE_BITS else []
        return [
            z3.And([z3.ULE(number, wire.LOW_MAX) for number in numbers]),
            self.received.sender == 0,
        ]

    def other_cells(self) -> list[tuple[str, Term]]:
        """Register and index of what a claim may be about besides what the packet looks at."""
        return [(name, self.any_slot) for name in self.names.values()]

    def opaque(self, name: str, term: Term) -> Term:
        """What no proof by claims needs to look into; in an abstract step it is anything.

        Distances and choices, for these are what costs a solver most.
        """
        return z3.Const(f"abstract.{name}", term.sort()) if self.is_abstract else term

    def derive(self) -> None:
        """What a role's own words are, from the terms above."""

    def _width(self, name: str) -> int:
        return self.program.registers[self.register(name)].width

    def _unknown(self, name: str) -> Term:
        return z3.BitVec(f"elsewhere.{name}", self._width(name))

    def written(self, name: str) -> Term:
        """What the packet's last write to a register writes: the program's own term for it."""
        values = [
            write.value
            for write in self.passage.decided.writes
            if write.register == self.register(name)
        ]
        return values[-1] if values else getattr(self.new, name)

    def is_slot(self, register: str) -> bool:
        """Whether there is a cell of it for each slot, by its name."""
        return register.rpartition(".")[2].startswith("slot_")

    def _constant(self, name: str) -> int:
        value = self.program.constants.get(name)
        if value is None:
            raise Missing(f"{self.program.name}: no top-level constant {name}")
        return value

    def register(self, name: str) -> str:
        """A register's full name."""
        if name not in self.names:
            raise Missing(f"{self.program.name}: no register {name}")
        return self.names[name]

    @property
    def value_bytes(self) -> int:
        """The largest value."""
        return self.program.registers[self.register("slot_value")].width // 8

    # Of the message that comes in ----------------------------------------------------------------

    def is_type(self, *types: int) -> Term:
        """Whether the message that comes in is of one of these types."""
        return z3.Or([self.received.type == type_ for type_ in types])

    def fits(self, value_bytes: int) -> Term:
        """The datagram, of whole words as all are, has room for such a value and not for more."""
        size = self.received.udp_length
        return z3.And(z3.ULE(size, UDP_BYTES + wire.HEADER_BYTES + value_bytes), size & 7 == 0)

    def control_plane(self, parameter: str) -> Term:
        """What the control plane gave to the action that has a parameter of this name."""
        for lookup in self.passage.machine.lookups:
            for action, arguments in lookup.arguments.items():
                for known, term in zip(
                    self.program.actions[action].parameters, arguments, strict=True
                ):
                    if known.name == parameter:
                        return term
        raise Missing(f"{self.program.name}: no table gives an action a parameter {parameter}")

    # The ring ------------------------------------------------------------------------------------

    def slot_of(self, instance: Term, group: Term | None = None) -> Term:
        """The index of the slot that an instance is kept in."""
        bits = self.window.bit_length() - 1
        whose = self.group if group is None else group
        return z3.Concat(
            z3.Extract(INDEX_BITS - bits - 1, 0, whose), z3.Extract(bits - 1, 0, instance)
        )

    def group_of(self, slot: Term) -> Term:
        """The group whose slot it is."""
        return z3.LShR(slot, self.window.bit_length() - 1)

    def in_window(self, instance: Term, low: Term) -> Term:
        """Whether low <= instance < low + window, whatever wraps."""
        return z3.And(z3.UGE(instance, low), z3.ULT(instance - low, self.window))

    # What leaves ---------------------------------------------------------------------------------

    def lengths_right(self) -> Term:
        """The lengths of IPv4 and UDP cover just what leaves, and the value lies within."""
        emitted = self.passage.machine.emitted
        headers = self.program.headers
        total = z3.BitVecVal(0, 32)
        for name, condition in emitted:
            total += z3.If(condition, z3.BitVecVal(headers[name].bits // 8, 32), 0)
        udp = resized(self.left.udp_length, 32)
        ip = resized(self.left.total_length, 32)
        value = resized(self.left.length, 32)
        return z3.And(
            total == ip + ETHERNET_BYTES,
            ip == udp + IPV4_BYTES,
            z3.ULE(value + UDP_BYTES + wire.HEADER_BYTES, udp),
        )

    def addressed_to_asker(self) -> Term:
        """It leaves by the port it came from, to the address and port it came from."""
        came, left = self.received, self.left
        return z3.And(
            self.passage.left.values["standard_metadata.egress_port"] == self.passage.port,
            left.ethernet_destination == came.ethernet_source,
            left.ip_destination == came.ip_source, left.port_destination == came.port_source,
            left.ip_source == came.ip_destination, left.port_source == came.port_destination,
        )  # fmt: skip


def umax(left: Term, right: Term) -> Term:
    """The larger one, unsigned."""
    return z3.If(z3.ULT(left, right), right, left)


def same_front(left: Term, right: Term, count: Term) -> Term:
    """Whether the first `count` bytes are equal; a byte at a time, since shifts are dear."""
    size = left.size()
    return z3.And(
        [
            z3.Implies(
                z3.UGT(count, number),
                z3.Extract(size - 8 * number - 1, size - 8 * number - 8, left)
                == z3.Extract(size - 8 * number - 1, size - 8 * number - 8, right),
            )
            for number in range(size // 8)
        ]
    )
