"""A switch as bmv2 shows itself: its JSON, its Thrift port, frames; behind them the interpreter.

It is as strict as bmv2: a key or an argument has exactly its bytes, a register goes through as 64
bits with a sign, an entry is there once. What it decodes, it decodes by itself.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from switch.bmv2 import thrift
from switch.bmv2.process import PORT
from switch.control.plan import PlaneRole
from switch.lang import ir, load
from switch.lang.interpreter import Copy, Interpreter
from switch.p4 import FOLDER

_BAD_INDEX = 2
_BAD_KEY, _BAD_DATA, _DUPLICATE = 18, 26, 17


def described(program: ir.Program) -> dict[str, Any]:
    """What p4c would say of a program, as far as anything reads it."""
    actions = {
        name: {
            "name": name, "id": number,
            "runtime_data": [
                {"name": each.name, "bitwidth": _width(each.type)} for each in action.parameters
            ],
        }
        for number, (name, action) in enumerate(program.actions.items())
    }  # fmt: skip
    fields: list[list[object]] = []
    tables = []
    for name, table in program.tables.items():
        keys = []
        for key in table.keys:
            fields.append([f"f{len(fields)}", _width(key.expression.type), False])
            keys.append({"match_type": key.kind, "target": ["all", fields[-1][0]]})
        ids = [actions[action]["id"] for action in table.actions]
        tables.append({"name": name, "key": keys, "action_ids": ids})
    return {
        "header_types": [{"name": "all_t", "fields": fields}],
        "headers": [{"name": "all", "header_type": "all_t"}],
        "actions": list(actions.values()),
        "pipelines": [{"name": "ingress", "tables": tables}],
        "register_arrays": [
            {"name": name, "bitwidth": each.width, "size": each.size}
            for name, each in program.registers.items()
        ],
        "counter_arrays": [
            {"name": name, "size": each.size} for name, each in program.counters.items()
        ],
    }


def _width(type: ir.Type) -> int:
    assert isinstance(type, ir.Bits)
    return type.width


class FakeSwitch:
    """One of them, between two sockets; ends with either of them."""

    def __init__(self, program: ir.Program, frames: socket.socket, calls: socket.socket) -> None:
        self.interpreter = Interpreter(program)
        self.loses: set[int] = set()
        """Frames that never arrive, by number."""
        self._frames = frames
        self._calls = calls
        self._seen = 0
        self._copies: dict[int, list[Copy]] = {}  # by handle of a multicast group
        self._groups: dict[int, int] = {}
        self._nodes: dict[int, Copy] = {}

    def run(self) -> None:
        poll = select.poll()
        poll.register(self._frames, select.POLLIN)
        poll.register(self._calls, select.POLLIN)
        while True:
            for fileno, _ in poll.poll():
                if not (self._frame() if fileno == self._frames.fileno() else self._call()):
                    return

    def _frame(self) -> bool:
        packet = self._frames.recv(4096)
        if not packet:
            return False
        self._seen += 1
        if self._seen not in self.loses:
            for port, frame in self.interpreter.process(PORT, packet):
                assert port == PORT
                self._frames.send(frame)
        return True

    # The control plane ---------------------------------------------------------------------------

    def _call(self) -> bool:
        head = self._exactly(4)
        if not head:
            return False
        assert head == b"\x80\x01\x00\x01"
        service, _, name = self._text().decode().partition(":")
        sequence = self._number(">i")
        arguments = self._struct()
        assert arguments[1] == 0, "context 0"
        del arguments[1]
        if not hasattr(self, name):
            told = thrift.text(1, f"Unknown function {name}") + thrift.i32(2, 1)
            self._reply(3, name, sequence, told)
            return True
        assert service == ("simple_pre_lag" if name.startswith("bm_mc_") else "standard")
        try:
            fields = getattr(self, name)(*(arguments[key] for key in sorted(arguments)))
        except _Refused as refused:
            fields = thrift.record(1, thrift.i32(1, refused.args[0]))
        self._reply(2, name, sequence, fields)
        return True

    def _reply(self, type: int, name: str, sequence: int, fields: bytes) -> None:
        head = struct.pack(">Ii", 0x8001_0000 | type, len(name)) + name.encode()
        self._calls.sendall(head + struct.pack(">i", sequence) + thrift.body(fields))

    def _exactly(self, size: int) -> bytes:
        return self._calls.recv(size, socket.MSG_WAITALL)

    def _number(self, form: str) -> int:
        number: int = struct.unpack(form, self._exactly(struct.calcsize(form)))[0]
        return number

    def _text(self) -> bytes:
        size = self._number(">i")
        return self._exactly(size) if size else b""

    def _struct(self) -> dict[int, Any]:
        fields = {}
        while (kind := self._number(">b")) != 0:
            number = self._number(">h")
            fields[number] = self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind == 15:
            of, count = self._number(">b"), self._number(">i")
            return [self._value(of) for _ in range(count)]
        if kind in (11, 12):
            return self._text() if kind == 11 else self._struct()
        return self._number({2: ">?", 8: ">i", 10: ">q"}[kind])

    # Calls, by their names -----------------------------------------------------------------------

    def bm_mt_add_entry(
        self, table: bytes, keys: list[Any], action: bytes, data: list[bytes], _: object
    ) -> bytes:
        name = table.decode()
        of = self.interpreter.program.tables[name]
        values = [key[2][1] for key in keys]
        if [len(each) for each in values] != [_bytes(key.expression.type) for key in of.keys]:
            raise _Refused(_BAD_KEY)
        taken = self.interpreter.program.actions[action.decode()]
        assert taken.name in of.actions
        if [len(each) for each in data] != [_bytes(each.type) for each in taken.parameters]:
            raise _Refused(_BAD_DATA)
        matches = tuple(ir.Match("exact", int.from_bytes(each)) for each in values)
        if any(matches == held for held, _ in self.interpreter.tables[name].entries):
            raise _Refused(_DUPLICATE)
        call = ir.ActionCall(taken.name, tuple(map(int.from_bytes, data)))
        self.interpreter.tables[name].add(matches, call)
        return thrift.i64(0, 1)

    def bm_mt_clear_entries(self, table: bytes, default: bool) -> bytes:
        assert not default
        held = self.interpreter.tables[table.decode()]
        for matches, _ in list(held.entries):
            held.remove(matches)
        return b""

    def bm_mc_mgrp_create(self, group: int) -> bytes:
        handle = len(self._groups)
        self._groups[handle] = group
        self._copies[handle] = []
        return thrift.i32(0, handle)

    def bm_mc_node_create(self, rid: int, ports: bytes, links: bytes) -> bytes:
        assert not links.strip(b"0")
        (port,) = [number for number, digit in enumerate(reversed(ports.decode())) if digit == "1"]
        self._nodes[len(self._nodes)] = Copy(port, rid)
        return thrift.i32(0, len(self._nodes) - 1)

    def bm_mc_node_associate(self, handle: int, node: int) -> bytes:
        # bmv2 copies the node that came last first.
        self._copies[handle].insert(0, self._nodes[node])
        self.interpreter.set_group(self._groups[handle], self._copies[handle])
        return b""

    def bm_register_read(self, register: bytes, index: int) -> bytes:
        cells = self._cells(register, index)
        return thrift.i64(0, min(cells[index], (1 << 63) - 1))  # as GMP's numbers become C's

    def bm_register_write(self, register: bytes, index: int, value: int) -> bytes:
        cells = self._cells(register, index)
        cells[index] = value % (1 << self.interpreter.program.registers[register.decode()].width)
        return b""

    def bm_register_reset(self, register: bytes) -> bytes:
        cells = self._cells(register, 0)
        cells[:] = [0] * len(cells)
        return b""

    def bm_counter_read(self, counter: bytes, index: int) -> bytes:
        found = self.interpreter.counters[counter.decode()].packets[index]
        return thrift.record(0, thrift.i64(1, 0), thrift.i64(2, found))

    def _cells(self, register: bytes, index: int) -> list[int]:
        cells = self.interpreter.registers[register.decode()]
        if not 0 <= index < len(cells):
            raise _Refused(_BAD_INDEX)
        return cells


class _Refused(Exception):
    """With bmv2's code."""


def _bytes(type: ir.Type) -> int:
    return (_width(type) + 7) // 8


class RunningSwitch:
    """A FakeSwitch in a thread (switch.bmv2.process.Switch)."""

    def __init__(self, program: ir.Program) -> None:
        self.port, self._frames = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.thrift, self._calls = socket.socketpair()
        self.fake = FakeSwitch(program, self._frames, self._calls)
        self._thread = threading.Thread(target=self.fake.run)
        self._thread.start()

    def fate(self) -> str:
        return "the pretended switch was switched off"

    def switch_off(self) -> None:
        """As if its process were killed."""
        for each in (self._frames, self._calls):
            if each.fileno() >= 0:
                each.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._frames.close()
        self._calls.close()

    def stop(self) -> None:
        self.switch_off()
        self.port.close()
        self.thrift.close()


class FakeBmv2:
    """Compiles, and starts switches."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.programs: dict[Path, ir.Program] = {}
        self.started: list[RunningSwitch] = []

    def compile(self, role: PlaneRole, defines: Mapping[str, str]) -> Path:
        path = self.folder / f"{role}-{'-'.join(defines.values())}.json"
        if path not in self.programs:
            self.programs[path] = load(FOLDER / f"{role}.p4", defines)
            path.write_text(json.dumps(described(self.programs[path])))
        return path

    def start(self, path: Path) -> RunningSwitch:
        self.started.append(RunningSwitch(self.programs[path]))
        return self.started[-1]
