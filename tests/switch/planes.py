"""Data planes as targets of the vectors, and the plan that they are loaded with."""

from collections.abc import Callable, Mapping, Sequence

from p4xos import wire
from p4xos.effects import Role, To
from p4xos.tables import Address
from p4xos.testing.vectors import CLUSTER, GROUP, Kind, Registers, SlotState
from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, Frame, Message, Rows, Type
from switch.bmv2.plane import Bmv2Plane
from switch.control.backend import REGISTERS, DataPlane
from switch.control.p4_plane import P4Plane
from switch.control.packets import Datagram
from switch.control.plan import Plan, PlaneRole
from switch.xdp.plane import XdpPlane
from tests.vectors.targets import Receiver, destination

STRANGER = Address("10.9.9.9", 9)


def plan(
    role: PlaneRole,
    id: int,
    *,
    window: int,
    value_bytes: int,
    acceptors: int = 3,
    coordinators: int = 3,
    learners: int = 3,
    cluster: int = CLUSTER,
    group: int = GROUP,
) -> Plan:
    """A cluster with an address of its own for each member."""
    counts = {
        Role.ACCEPTOR: acceptors, Role.COORDINATOR: coordinators,
        Role.LEARNER: learners, Role.PROPOSER: learners,
    }  # fmt: skip
    addresses = {
        To(kind, k): Address(f"10.0.{min(kind, Role.LEARNER)}.{k + 1}", 7000 + k)
        for kind, count in counts.items()
        for k in range(count)
    }
    return Plan(role, Frame(cluster, group, id), acceptors, window, value_bytes, addresses)


class PlaneTarget:
    """A data plane under test (p4xos.testing.vectors.Target)."""

    def __init__(self, make: Callable[[], DataPlane], kind: Kind) -> None:
        self.make = make
        self.kind = kind

    def configure(
        self,
        role: str,
        parameters: Mapping[str, int],
        registers: Mapping[str, int],
        slots: Sequence[SlotState],
    ) -> None:
        kind: PlaneRole = "acceptor" if role == "acceptor" else "coordinator"
        coordinators = parameters.get("coordinators", parameters["id"] + 1)
        self.plan = plan(
            kind, parameters["id"], window=parameters["window"],
            value_bytes=parameters["value_bytes"], acceptors=parameters.get("acceptors", 3),
            coordinators=coordinators, learners=parameters["learners"],
        )  # fmt: skip
        self.receiver = Receiver(parameters)
        self.plane = self.make()
        self.plane.load(self.plan)
        self.write({"low": 1, **({} if role == "acceptor" else {"next": 1}), **registers})
        for slot in slots:
            write_slot(self.plane, self.plan, slot)
        self.plane.open(parameters.get("incarnation", 0))

    def inject(self, packets: list[bytes]) -> list[tuple[str, bytes]]:
        sent: list[tuple[To, Rows]] = []
        if isinstance(self.plane, (P4Plane, XdpPlane)):
            for packet in packets:
                sent += self.plane.receive(self.source(packet), packet)
        elif isinstance(self.plane, Bmv2Plane):
            for packet in packets:
                datagram = Datagram(self.source(packet), self.plan.own, packet)
                sent += self.plane.carry([datagram], replies_only=packet[1:2] == b"%c" % Type.LEARN)
        else:
            sent = self.plane.inject(self.receiver.decode(packets))
        return [
            (destination(to), bytes(wire.from_messages([message])[0]))
            for to, rows in sent
            for message in wire.messages(rows)
        ]

    def source(self, packet: bytes) -> Address:
        """The configured address that a packet claims to be from; else a stranger's."""
        anybody = self.plan.addresses[To(Role.LEARNER, 0)]
        if len(packet) < HEADER_BYTES:
            return anybody
        header = HEADER_STRUCT.unpack_from(packet)
        if header[1] not in Type._value2member_map_:
            return anybody
        claimed = self.plan.sender(Message._make((*header, b"")))
        return self.plan.addresses.get(claimed, STRANGER)

    def write(self, registers: Mapping[str, int]) -> None:
        for register, value in registers.items():
            self.plane.write(register, value)

    def registers(self) -> Registers:
        role = self.plan.role
        values = {name: self.plane.read(name) for name in REGISTERS[role] if name != "seen"}
        slots = read_slots(self.plane, self.plan) if role == "acceptor" else {}
        dropped = {**self.plane.statistics(), **self.receiver.counters}
        return Registers(values, slots, dropped)


def write_slot(plane: DataPlane, plan: Plan, slot: SlotState) -> None:
    """Makes a slot hold an instance."""
    index = slot.instance % plan.window
    value = int.from_bytes(slot.value.ljust(plan.value_bytes, b"\0"), "big")
    plane.write("slot_instance", slot.instance, index)
    plane.write("slot_round", slot.round, index)
    plane.write("slot_vround", slot.vround, index)
    plane.write("slot_length", len(slot.value), index)
    plane.write("slot_value", value, index)


def read_slots(plane: DataPlane, plan: Plan) -> dict[int, SlotState]:
    """What is held, by instance."""
    slots = {}
    for index in range(plan.window):
        instance = plane.read("slot_instance", index)
        if instance:
            value = plane.read("slot_value", index).to_bytes(plan.value_bytes, "big")
            slots[instance] = SlotState(
                instance, plane.read("slot_round", index), plane.read("slot_vround", index),
                value[: plane.read("slot_length", index)],
            )  # fmt: skip
    return slots
