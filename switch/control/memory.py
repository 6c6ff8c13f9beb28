"""An acceptor's memory, out of a data plane's registers and into them.

What it is and why all of it moves: docs/PROTOCOL.md, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from p4xos.quorum import NO_ROUND
from p4xos.roles.memory import Memory
from switch.control.backend import Backend, pack_seen, unpack_seen
from switch.control.plan import Plan


def read_memory(
    plane: Backend, plan: Plan, incarnation: int, counters: Mapping[str, int]
) -> Memory:
    """All that the acceptor there must remember; its port is closed."""
    low = plane.read("low")
    held: list[tuple[int, int]] = []  # instance and slot
    for slot in range(plan.window):
        instance = plane.read("slot_instance", slot)
        if low <= instance < low + plan.window:
            held.append((instance, slot))
    held.sort()
    slots = [slot for _, slot in held]
    vround = [plane.read("slot_vround", slot) for slot in slots]
    value = np.zeros((len(held), plan.value_bytes), dtype=np.uint8)
    for row, slot in enumerate(slots):
        if vround[row] == NO_ROUND:
            continue  # no value, and reading one may cost a switch several packets
        data = plane.read("slot_value", slot).to_bytes(plan.value_bytes, "big")
        value[row] = np.frombuffer(data, np.uint8)
    return Memory(
        incarnation, plane.read("floor"), plane.read("highest_round"), low, plane.read("highest"),
        unpack_seen(plane.read("seen"), plan.acceptors),
        np.array([instance for instance, _ in held], dtype=np.int64),
        np.array([plane.read("slot_round", slot) for slot in slots], dtype=np.uint32),
        np.array(vround, dtype=np.uint32),
        np.array([plane.read("slot_length", slot) for slot in slots], dtype=np.uint16),
        value, dict(counters),
    )  # fmt: skip


def write_memory(plane: Backend, plan: Plan, memory: Memory) -> None:
    """Makes an empty acceptor's registers hold a memory; its port stays closed."""
    for row, instance in enumerate(memory.instance.tolist()):
        slot = instance & (plan.window - 1)
        length = int(memory.length[row])
        data = memory.value[row, :length].tobytes().ljust(plan.value_bytes, b"\0")
        plane.write("slot_instance", instance, slot)
        plane.write("slot_round", int(memory.round[row]), slot)
        plane.write("slot_vround", int(memory.vround[row]), slot)
        plane.write("slot_length", length, slot)
        if memory.vround[row] != NO_ROUND:
            plane.write("slot_value", int.from_bytes(data, "big"), slot)
    for register, value in (
        ("floor", memory.floor), ("highest_round", memory.highest_round),
        ("highest", memory.highest), ("seen", pack_seen(memory.seen)), ("low", memory.low),
    ):  # fmt: skip
        plane.write(register, value)
