"""The P4 programs on the interpreter as a data plane: what a switch does, packet by packet."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from p4xos import wire
from p4xos.effects import To
from p4xos.tables import Address
from p4xos.wire import Rows
from switch.control import entries
from switch.control.entries import Entry
from switch.control.packets import Datagram, frame, unframe
from switch.control.plan import Plan, PlaneRole
from switch.lang import ir, load
from switch.lang.interpreter import Copy, Interpreter
from switch.p4 import FOLDER

_PORT = 1  # where packets come in, and all leave: hosts are told apart by their addresses


@lru_cache(maxsize=8)
def program(role: PlaneRole, *, value_bytes: int, window: int, acceptors: int) -> ir.Program:
    """A program built for these sizes; ValueError where it cannot be."""
    defines = entries.sizes(value_bytes=value_bytes, window=window, acceptors=acceptors)
    return load(FOLDER / f"{role}.p4", defines)


class P4Plane:
    """A switch in this process (switch.control.backend.DataPlane)."""

    def __init__(self) -> None:
        """Nothing is loaded."""
        self._plan: Plan | None = None
        self._switch: Interpreter | None = None
        self._names: dict[str, str] = {}  # of registers, tables, actions: by their last part

    def load(self, plan: Plan) -> None:
        """As Backend."""
        built = program(
            plan.role, value_bytes=plan.value_bytes, window=plan.window, acceptors=plan.acceptors
        )
        self._plan, self._switch = plan, Interpreter(built)
        self._names = {
            **_by_last_part(built.tables),
            **_by_last_part(built.actions),
            **_by_last_part(built.registers),
            **_by_last_part(built.counters),
        }
        self._fill()

    def open(self, incarnation: int = 0) -> None:
        """As Backend."""
        plan, _ = self._loaded()
        self.close()
        self._add(entries.endpoint(plan, incarnation))

    def close(self) -> None:
        """As Backend."""
        _, switch = self._loaded()
        table = switch.tables[self._names["endpoint"]]
        for matches, _ in list(table.entries):
            table.remove(matches)

    def read(self, register: str, index: int = 0) -> int:
        """As Backend."""
        _, switch = self._loaded()
        return switch.read_register(self._register(register), index)

    def write(self, register: str, value: int, index: int = 0) -> None:
        """As Backend."""
        _, switch = self._loaded()
        switch.write_register(self._register(register), index, value)

    def reset(self) -> None:
        """As Backend."""
        self._loaded()[1].reset()
        self._fill()

    def statistics(self) -> dict[str, int]:
        """As Backend: packets by outcome, in the words of the numpy roles."""
        _, switch = self._loaded()
        cells = switch.counters[self._names["outcomes"]]
        named = entries.outcomes(switch.program)
        return {name: cells.packets[index] for name, index in named.items()}

    def teardown(self) -> None:
        """As Backend."""
        self._switch = None

    def inject(self, rows: Rows) -> list[tuple[To, Rows]]:
        """As DataPlane."""
        plan, _ = self._loaded()
        sent: list[tuple[To, Rows]] = []
        for row in range(len(rows)):
            source = plan.addresses.get(plan.sender(wire.message(rows, row)))
            if source is None:
                continue  # nobody: a switch would find no entry
            sent += self.receive(source, rows[row].tobytes())
        return sent

    def receive(self, source: Address, payload: bytes) -> list[tuple[To, Rows]]:
        """One datagram, from whoever it is and whatever is in it."""
        plan, switch = self._loaded()
        packet = frame(Datagram(source, plan.own, payload))
        sent: dict[To, bytes] = {}
        for _, copy in switch.process(_PORT, packet):
            answer = unframe(copy)
            assert answer.source == plan.own, "a switch answers from its own address"
            sent[plan.receiver(answer.destination, answer.payload[1])] = answer.payload
        if list(sent) == plan.told and len(set(sent.values())) == 1:
            sent = {plan.audience: answer.payload}  # a copy for each of them: as one send
        return [
            (to, np.frombuffer(data, np.uint8).reshape(1, -1).copy()) for to, data in sent.items()
        ]

    # Tables --------------------------------------------------------------------------------------

    def _fill(self) -> None:
        """Everything but the entry that opens the port."""
        plan, switch = self._loaded()
        switch.set_group(entries.AUDIENCE, [Copy(_PORT, rid) for rid in entries.rids(plan)])
        for entry in entries.standing(plan):
            self._add(entry)

    def _add(self, entry: Entry) -> None:
        _, switch = self._loaded()
        matches = tuple(ir.Match("exact", key) for key in entry.keys)
        call = ir.ActionCall(self._names[entry.action], entry.arguments)
        switch.tables[self._names[entry.table]].add(matches, call)

    def _register(self, name: str) -> str:
        if name not in self._names:
            raise ValueError(f"no register {name}: the program has none of that name")
        return self._names[name]

    def _loaded(self) -> tuple[Plan, Interpreter]:
        assert self._plan is not None
        assert self._switch is not None, "nothing is loaded"
        return self._plan, self._switch


def _by_last_part(names: Mapping[str, object]) -> dict[str, str]:
    """Full names by what stands behind the last dot."""
    return {name.rpartition(".")[2]: name for name in names}
