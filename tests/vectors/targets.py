"""The targets that run everywhere: the model, and the roles on their scalar and numpy paths."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from p4xos import wire
from p4xos.effects import SENDS, Role, To
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.sequencer import Sequencer
from p4xos.testing.model import ModelAcceptor, ModelSequencer, Slot
from p4xos.testing.vectors import CLUSTER, GROUP, Kind, Registers, SlotState
from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, Frame, Message, Peer, Rows, Type

# READ_INDEX and ASK_CHECKPOINT have several kinds of senders: ids of learners are the most.
_SENT_BY_COORDINATORS = set(SENDS[Role.COORDINATOR]) - {Type.READ_INDEX}
_SENT_BY_ACCEPTORS = set(SENDS[Role.ACCEPTOR]) - {Type.ASK_CHECKPOINT}


class Receiver:
    """What stands between the wire and a role: foreign and damaged packets end here."""

    def __init__(self, parameters: Mapping[str, int]) -> None:
        self.parameters = parameters
        self.counters: dict[str, int] = {}

    def decode(self, packets: list[bytes]) -> Rows:
        """The good packets as rows of one stride."""
        good: list[Message] = []
        for data in packets:
            if len(data) < HEADER_BYTES:
                self.counters["short"] = self.counters.get("short", 0) + 1
                continue
            rows = np.zeros((1, len(data) + 7 & ~7), dtype=np.uint8)
            rows[0, : len(data)] = np.frombuffer(data, np.uint8)
            good += wire.messages(wire.decode_untrusted(rows, self.peer(data), self.counters))
        return wire.from_messages(good)

    def peer(self, data: bytes) -> Peer:
        """The configured sender that the packet claims to be from; nobody for an unknown id."""
        header = HEADER_STRUCT.unpack_from(data)
        type, sender = header[1], header[7]
        if type in _SENT_BY_COORDINATORS:
            configured = self.parameters.get("coordinators", 1)
        elif type in _SENT_BY_ACCEPTORS:
            configured = self.parameters.get("acceptors", 3)
        else:
            configured = self.parameters["learners"]
        known = type in set(Type) and sender < configured
        return Peer(CLUSTER, GROUP, {type: sender} if known else {})


def destination(to: To) -> str:
    """`learners`, or `coordinator.0`."""
    name = Role(to.role).name.lower()
    return f"{name}s" if to.id is None else f"{name}.{to.id}"


def to_packet(message: Message) -> bytes:
    """A message as it leaves."""
    return bytes(wire.from_messages([message])[0])


class ModelTarget:
    """The slow, obvious model."""

    kind: Kind = "software"

    def configure(
        self,
        role: str,
        parameters: Mapping[str, int],
        registers: Mapping[str, int],
        slots: Sequence[SlotState],
    ) -> None:
        self.receiver = Receiver(parameters)
        self.role: ModelAcceptor | ModelSequencer
        window, value_bytes = parameters["window"], parameters["value_bytes"]
        if role == "acceptor":
            self.role = acceptor = ModelAcceptor(
                parameters["id"],
                parameters["acceptors"],
                window=window,
                value_bytes=value_bytes,
                incarnation=parameters["incarnation"],
                cluster=CLUSTER,
                group=GROUP,
            )
            for slot in slots:
                acceptor.slots[slot.instance % window] = Slot(*slot)
        else:
            self.role = ModelSequencer(
                parameters["id"],
                window=window,
                value_bytes=value_bytes,
                cluster=CLUSTER,
                group=GROUP,
            )
        self.write(registers)

    def inject(self, packets: list[bytes]) -> list[tuple[str, bytes]]:
        received = wire.messages(self.receiver.decode(packets))
        sent = [answer for message in received for answer in self.role.receive(message)]
        self.role.check_invariants()
        return [(destination(to), to_packet(message)) for to, message in sent]

    def write(self, registers: Mapping[str, int]) -> None:
        for name, value in registers.items():
            setattr(self.role, name, value)

    def registers(self) -> Registers:
        dropped = dict(Counter(self.receiver.counters) + self.role.dropped)
        if isinstance(self.role, ModelSequencer):
            values = {name: getattr(self.role, name) for name in ("round", "next", "low")}
            return Registers(values, {}, dropped)
        names = ("floor", "highest_round", "low", "highest")
        slots = {
            slot.instance: SlotState(slot.instance, slot.round, slot.vround, slot.value)
            for slot in self.role.slots.values()
        }
        return Registers({name: getattr(self.role, name) for name in names}, slots, dropped)


class RoleTarget:
    """The real role; `scalar_below` chooses its path."""

    kind: Kind = "software"

    def __init__(self, scalar_below: int) -> None:
        self.scalar_below = scalar_below

    def configure(
        self,
        role: str,
        parameters: Mapping[str, int],
        registers: Mapping[str, int],
        slots: Sequence[SlotState],
    ) -> None:
        self.receiver = Receiver(parameters)
        self.role: Acceptor | Sequencer
        frame = Frame(CLUSTER, GROUP, parameters["id"])
        window, value_bytes = parameters["window"], parameters["value_bytes"]
        if role == "acceptor":
            self.role = acceptor = Acceptor(
                frame=frame,
                acceptors=parameters["acceptors"],
                window=window,
                value_bytes=value_bytes,
                incarnation=parameters["incarnation"],
                scalar_below=self.scalar_below,
            )
            acceptor.restore(self.records(parameters, registers, slots))
        else:
            self.role = Sequencer(
                frame=frame,
                window=window,
                value_bytes=value_bytes,
                scalar_below=self.scalar_below,
            )
            self.write(registers)

    def records(
        self,
        parameters: Mapping[str, int],
        registers: Mapping[str, int],
        slots: Sequence[SlotState],
    ) -> list[Rows]:
        """An acceptor's state as the log records that it restores from."""
        records = [
            wire.encode(
                CLUSTER, GROUP, Type.RECORDED, instance=registers.get("highest", 0),
                round=registers.get("highest_round", 0), vround=registers.get("floor", 0),
                low=registers.get("low", 1), sender=parameters["id"],
                incarnation=parameters["incarnation"],
                value=wire.pack_seen((0,) * parameters["acceptors"]),
            )
        ]  # fmt: skip
        for slot in slots:
            if slot.vround:
                records.append(
                    wire.encode(CLUSTER, GROUP, Type.PHASE2B, instance=slot.instance,
                                round=slot.vround, vround=slot.vround, value=slot.value)
                )  # fmt: skip
            records.append(
                wire.encode(CLUSTER, GROUP, Type.PHASE1B, instance=slot.instance, round=slot.round)
            )
        return records

    def inject(self, packets: list[bytes]) -> list[tuple[str, bytes]]:
        effects = self.role.step(self.receiver.decode(packets), now=0.0)
        self.role.check_invariants()
        return [
            (destination(to), to_packet(message))
            for to, rows in effects.send
            for message in wire.messages(rows)
        ]

    def write(self, registers: Mapping[str, int]) -> None:
        for name, value in registers.items():
            setattr(self.role, name, value)

    def registers(self) -> Registers:
        dropped = {**self.role.counters, **self.receiver.counters}
        role = self.role
        if isinstance(role, Sequencer):
            values = {"round": role.round, "next": role.next, "low": role.low}
            return Registers(values, {}, dropped)
        values = {
            "floor": role.floor,
            "highest_round": role.highest_round,
            "low": role.low,
            "highest": role.highest,
        }
        slots = {}
        for number in np.flatnonzero(role.slot_instance).tolist():
            instance, length = int(role.slot_instance[number]), int(role.slot_length[number])
            value = role.slot_value[number, :length].tobytes()
            round, vround = int(role.slot_round[number]), int(role.slot_vround[number])
            slots[instance] = SlotState(instance, round, vround, value)
        return Registers(values, slots, dropped)
