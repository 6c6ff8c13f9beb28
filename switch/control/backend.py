"""The one interface to every data plane: what a controller may do with it.

    load        the program, its sizes, its tables: as after power-on, its port closed
    open        the port: packets reach the registers from here on
    close       the port: none does from here on, and the registers stay
    read, write one register
    reset       as after power-on: registers 0, the port closed
    statistics  packets by outcome
    teardown    gives back what `load` took

Registers have the names that the P4 programs give them (`REGISTERS`): numbers, an array by slot
where an index is given. A value is a number too, its bytes in network order, zeros behind it.
"""

from __future__ import annotations

from typing import Protocol

from p4xos.effects import To
from p4xos.wire import Rows
from switch.control.plan import Plan, PlaneRole

REGISTERS: dict[PlaneRole, tuple[str, ...]] = {
    "acceptor": ("floor", "highest_round", "low", "highest", "seen"),
    "coordinator": ("round", "next", "low"),
}
SLOT_REGISTERS = ("slot_instance", "slot_round", "slot_vround", "slot_length", "slot_value")


class Backend(Protocol):
    """A data plane, from its controller's side."""

    def load(self, plan: Plan) -> None:
        """Makes it ready for a role of a group, its port closed; ValueError where it cannot be."""

    def open(self, incarnation: int = 0) -> None:
        """Lets packets in, which are answered under this incarnation; again for a later one."""

    def close(self) -> None:
        """Lets no packet in any more, until it is opened again.

        When it returns, none that was let in before is still at work, and what it caused has left:
        what is read from here on is all that was ever promised or voted for.
        """

    def read(self, register: str, index: int = 0) -> int:
        """What a register holds."""

    def write(self, register: str, value: int, index: int = 0) -> None:
        """Makes a register hold a value; by the time it returns packets see it."""

    def reset(self) -> None:
        """Off and on again: it has forgotten everything but what `load` told it."""

    def statistics(self) -> dict[str, int]:
        """Packets by outcome, since it was loaded or reset."""

    def teardown(self) -> None:
        """Gives everything back; nothing is called after it."""


class DataPlane(Backend, Protocol):
    """A data plane inside this process, which is handed its packets."""

    def inject(self, rows: Rows) -> list[tuple[To, Rows]]:
        """Messages in, in order; what leaves, in order, a multicast once.

        Args:
          rows: (n, stride) uint8, valid messages of configured senders; the data plane keeps them.
        """


def pack_seen(seen: tuple[int, ...]) -> int:
    """Incarnations as the register holds them: acceptor 0 on top, 32 bits each."""
    packed = 0
    for incarnation in seen:
        packed = packed << 32 | incarnation
    return packed


def unpack_seen(packed: int, acceptors: int) -> tuple[int, ...]:
    """The inverse of `pack_seen`."""
    return tuple(packed >> 32 * (acceptors - 1 - a) & 0xFFFF_FFFF for a in range(acceptors))
