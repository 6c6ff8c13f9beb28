"""The XDP programs as a data plane (switch.control.backend.DataPlane).

A plane is loaded with or without an interface. With one, packets of the wire reach the program in
the driver; what the process hands it (`inject`) is run through the same program, on the same
registers, by the kernel's BPF_PROG_TEST_RUN.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from pathlib import Path

import numpy as np

from p4xos import wire
from p4xos.effects import To
from p4xos.tables import Address
from p4xos.wire import Rows
from switch.control.backend import REGISTERS, SLOT_REGISTERS, pack_seen, unpack_seen
from switch.control.packets import Datagram, frame, host_text, unframe
from switch.control.plan import Plan
from switch.xdp import layouts, libbpf, outcomes
from switch.xdp.build import build
from switch.xdp.layouts import Endpoint
from switch.xdp.outcomes import Outcome

_DESTINATION = struct.Struct(">I2xH")  # the source's port is in between
_DESTINATION_AT, _CHECKSUM_AT, _PAYLOAD_AT = 30, 40, 42


class XdpPlane:
    """A program in the kernel, with its maps."""

    def __init__(self, source: str = "", program: str = "") -> None:
        """Nothing is loaded.

        Args:
          source, program: another source around the role's, and what is run of it.
        """
        self._source, self._name = source, program
        self._plan: Plan | None = None
        self._loaded: libbpf.Loaded | None = None

    @staticmethod
    def build(plan: Plan, source: str = "") -> Path:
        """The object file of a role's program; ValueError, XdpUnavailable where there is none."""
        if plan.value_bytes % 8 or plan.value_bytes > wire.VALUE_BYTES_MAX:
            raise ValueError(
                f"value_bytes is {plan.value_bytes}: the XDP programs can have a multiple of 8 up "
                f"to {wire.VALUE_BYTES_MAX}"
            )
        defines = {
            "ACCEPTORS": plan.acceptors,
            "SLOT_BITS": plan.window.bit_length() - 1,
            "VALUE_BYTES": plan.value_bytes,
        }
        return build(source or plan.role, defines)

    # Backend -------------------------------------------------------------------------------------

    def load(self, plan: Plan) -> None:
        """As Backend.

        Raises:
          XdpUnavailable: no clang, no rights, or a kernel that refuses the program.
        """
        self._plan = plan
        self._loaded = loaded = libbpf.Loaded(self.build(plan, self._source))
        self._program = loaded.program(self._name or plan.role)
        self.copies = loaded.program("copies")
        self._processors = libbpf.processors()
        self._endpoints = loaded.map("endpoints", layouts.ENDPOINT_BYTES)
        self._outcomes = loaded.map("outcomes", 8 * outcomes.COUNT * self._processors)
        self.receivers = loaded.map("receivers", layouts.RECEIVER.size)
        self.audience = loaded.map("audience", layouts.DEVICE.size)
        self.interfaces_told = loaded.map("interfaces", layouts.BEHIND.size)
        if plan.role == "acceptor":
            self._group = loaded.map("group", layouts.REGISTERS.size)
            self._slots = loaded.map("slots", layouts.SLOT.size + plan.value_bytes)
        else:
            self._control = loaded.map("control", layouts.SETTINGS.size)
            self._numbers = loaded.map("numbers", layouts.SEQUENCE.size)
        self._endpoint = Endpoint(
            plan.own, plan.frame.group, plan.frame.cluster, 0, plan.frame.sender,
            open=False, ready=False,
        )  # fmt: skip
        self._endpoints.write(self._endpoint.pack())
        senders = loaded.map("senders", 1)
        for sender in plan.senders():
            senders.write(b"\1", layouts.pack_sender(*sender))

    def open(self, incarnation: int = 0) -> None:
        """As Backend."""
        self.set_endpoint(self._endpoint._replace(incarnation=incarnation, open=True))

    def close(self) -> None:
        """As Backend; no packet is on its way through the program when it returns."""
        self.set_endpoint(self._endpoint._replace(open=False))
        libbpf.wait_for_programs()

    def read(self, register: str, index: int = 0) -> int:
        """As Backend."""
        if self._known(register).role == "coordinator":
            return self._read_coordinator(register)
        if register in SLOT_REGISTERS:
            return self._read_slot(register, index)
        _, floor, highest_round, _, low, highest, *seen = layouts.REGISTERS.unpack(
            self._group.read(locked=True)
        )
        held = {"floor": floor, "highest_round": highest_round, "low": low, "highest": highest}
        if register == "seen":
            return pack_seen(tuple(seen[: self._known(register).acceptors]))
        return int(held[register])

    def write(self, register: str, value: int, index: int = 0) -> None:
        """As Backend; of an acceptor only while its port is closed, or nothing arrives."""
        plan = self._known(register)
        if plan.role == "coordinator":
            self._write_coordinator(register, value)
        elif register in SLOT_REGISTERS:
            self._write_slot(register, value, index)
        else:
            fields = [*layouts.REGISTERS.unpack(self._group.read(locked=True))]
            if register == "seen":
                fields[6 : 6 + plan.acceptors] = unpack_seen(value, plan.acceptors)
            else:
                fields[_FIELDS[register]] = value
            self._group.write(layouts.REGISTERS.pack(*fields), locked=True)

    def reset(self) -> None:
        """As Backend."""
        plan = self._known(None)
        self.set_endpoint(self._endpoint._replace(open=False))
        self._outcomes.write(bytes(8 * outcomes.COUNT * self._processors))
        if plan.role == "coordinator":
            self._control.write(bytes(layouts.SETTINGS.size))
            self._numbers.write(bytes(layouts.SEQUENCE.size), locked=True)
            return
        self._group.write(bytes(layouts.REGISTERS.size), locked=True)
        empty = bytes(layouts.SLOT.size + plan.value_bytes)
        for slot in range(plan.window):
            self._slots.write(empty, slot)

    def statistics(self) -> dict[str, int]:
        """As Backend: packets by outcome, in the words of the numpy roles."""
        cells = np.frombuffer(self._outcomes.read(), np.uint64)
        summed = cells.reshape(self._processors, outcomes.COUNT).sum(axis=0)
        return {
            outcome.name.lower(): int(summed[outcome])
            for outcome in Outcome
            if outcome is not Outcome.PASSED
        }

    def teardown(self) -> None:
        """As Backend; whoever attached the program detaches it first."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def inject(self, rows: Rows) -> list[tuple[To, Rows]]:
        """As DataPlane."""
        plan = self._known(None)
        sent: list[tuple[To, Rows]] = []
        for row in range(len(rows)):
            source = plan.addresses.get(plan.sender(wire.message(rows, row)))
            if source is None:
                continue  # nobody: the kernel would find no entry
            payload = rows[row].tobytes()
            sent += self._sent(self.run(_headers(source, plan.own, len(payload)) + payload))
        return sent

    def receive(self, source: Address, payload: bytes) -> list[tuple[To, Rows]]:
        """One datagram, from whoever it is and whatever is in it."""
        plan = self._known(None)
        verdict, packet = self.run(frame(Datagram(source, plan.own, payload)))
        if verdict == libbpf.XDP_REDIRECT:
            assert unframe(packet).source == plan.own, "a program answers from its own address"
        return self._sent((verdict, packet))

    def _sent(self, ran: tuple[int, bytes]) -> list[tuple[To, Rows]]:
        """What leaves, of what the program did to a packet."""
        plan = self._known(None)
        verdict, packet = ran
        if verdict != libbpf.XDP_REDIRECT:
            return []
        host, port = _DESTINATION.unpack_from(packet, _DESTINATION_AT)
        to = plan.audience  # each copy gets its own when it is made
        if host:
            to = plan.receiver(Address(host_text(host), port), packet[_PAYLOAD_AT + 1])
        payload = np.frombuffer(packet, np.uint8, offset=_PAYLOAD_AT)
        return [(to, payload.reshape(1, -1).copy())]

    # The kernel's side ---------------------------------------------------------------------------

    @property
    def endpoint(self) -> Endpoint:
        """As the program has it."""
        return self._endpoint

    def set_endpoint(self, endpoint: Endpoint) -> None:
        """From here on the program has this one."""
        if endpoint != self._endpoint:
            self._endpoint = endpoint
            self._endpoints.write(endpoint.pack())

    def run(self, packet: bytes) -> tuple[int, bytes]:
        """What the program says of a packet (XDP_PASS ...), and the packet afterwards."""
        self._known(None)
        return self._program.run(packet)

    def repeat(self, packet: bytes, times: int) -> int:
        """The nanoseconds that a run of the program takes on average, for figures."""
        self._program.run(packet, times)
        return self._program.duration_ns

    def map(self, name: str, value_bytes: int) -> libbpf.Map:
        """A map that is the source's own."""
        assert self._loaded is not None
        return self._loaded.map(name, value_bytes)

    # Registers -----------------------------------------------------------------------------------

    def _read_coordinator(self, register: str) -> int:
        if register == "next":
            return int(layouts.SEQUENCE.unpack(self._numbers.read(locked=True))[2])
        round, low = layouts.SETTINGS.unpack(self._control.read())
        return int(round if register == "round" else low)

    def _write_coordinator(self, register: str, value: int) -> None:
        if register == "next":
            self._numbers.write(layouts.SEQUENCE.pack(0, 0, value), locked=True)
            return
        round, low = layouts.SETTINGS.unpack(self._control.read())
        held = {"round": round, "low": low, register: value}
        self._control.write(layouts.SETTINGS.pack(held["round"], held["low"]))

    def _read_slot(self, register: str, index: int) -> int:
        data = self._slots.read(index)
        fields = layouts.SLOT.unpack_from(data)
        if register != "slot_value":
            return int(fields[SLOT_REGISTERS.index(register)])
        value = data[layouts.SLOT.size :][: fields[3]]
        return int.from_bytes(value.ljust(self._known(None).value_bytes, b"\0"), "big")

    def _write_slot(self, register: str, value: int, index: int) -> None:
        data = self._slots.read(index)
        fields, held = [*layouts.SLOT.unpack_from(data)], data[layouts.SLOT.size :]
        if register == "slot_value":
            held = value.to_bytes(len(held), "big")
        else:
            fields[SLOT_REGISTERS.index(register)] = value
        self._slots.write(layouts.SLOT.pack(*fields) + held, index)

    def _known(self, register: str | None) -> Plan:
        """The plan of what is loaded; ValueError where it has no such register."""
        assert self._plan is not None
        assert self._loaded is not None, "nothing is loaded"
        known = REGISTERS[self._plan.role]
        known += SLOT_REGISTERS if self._plan.role == "acceptor" else ()
        if register is not None and register not in known:
            raise ValueError(f"no register {register}: there is {', '.join(known)}")
        return self._plan


@lru_cache(maxsize=4096)
def _headers(source: Address, destination: Address, payload_bytes: int) -> bytes:
    """Of a packet from the process itself: without a UDP checksum, which nothing could damage."""
    packet = frame(Datagram(source, destination, bytes(payload_bytes)))
    return packet[:_CHECKSUM_AT] + bytes(_PAYLOAD_AT - _CHECKSUM_AT)


_FIELDS = {"floor": 1, "highest_round": 2, "low": 4, "highest": 5}
"""Of layouts.REGISTERS."""
