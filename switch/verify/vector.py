"""A counter-example as a vector (tests/vectors/README.md), for every data plane to run.

A vector says what must happen, so what leaves and what is held afterwards is what the numpy role
does with the same packet: the broken program fails the vector, a right one passes it. Cluster and
group become those of all vectors, and the sender the first that is configured.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from p4xos import wire
from p4xos.effects import Effects, To
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, Frame, Message, Rows, Type
from switch.verify.counterexample import Counterexample
from switch.verify.messages import MESSAGE_OFFSET, UDP_BYTES

CLUSTER, GROUP = 0xC1057E12, 7
_GROUP_REGISTERS = ("floor", "highest_round", "low", "highest")
_INSTANCES = {"low", "highest", "next", "slot_instance"}
_SLOT_REGISTERS = ("instance", "round", "vround", "length", "value")


class NoVector(ValueError):
    """What no vector can say: they know messages of a role alone, no damaged frames."""


class _State:
    """The registers of one group before the packet, by the last part of their names."""

    def __init__(self, found: Counterexample, group: int) -> None:
        self.cells = {
            (name.rpartition(".")[2], index): value
            for (name, index), value in found.registers.items()
        }
        self.group, self.window = group, found.program.constants["WINDOW"]

    def register(self, name: str, default: int = 0) -> int:
        return self.cells.get((name, self.group), default)

    def slots(self) -> Iterator[dict[str, int]]:
        """Those that hold anything."""
        begin = self.group * self.window
        for index in sorted({index for name, index in self.cells if name == "slot_instance"}):
            if begin <= index < begin + self.window:
                slot = {n: self.cells.get((f"slot_{n}", index), 0) for n in _SLOT_REGISTERS}
                if slot["instance"] or slot["round"]:
                    yield slot


def vector(found: Counterexample, role: str, group: int, title: str) -> str:
    """The text of a vector file.

    Args:
      found: the counter-example.
      role: acceptor or coordinator.
      group: the index of the registers that the packet is for.
      title: what is broken.
    """
    message = _message(found)
    state = _State(found, group)
    instances = [v for (name, _), v in state.cells.items() if name in _INSTANCES]
    if max([message.instance, message.low, *instances]) > wire.LOW_MAX + state.window:
        raise NoVector("the counter-example has instances that no role ever meets")
    own = _arguments(found)
    lines = [f"== {title}", "target: all"]
    if role == "acceptor":
        lines += _acceptor(found, message, state, own)
    else:
        lines += _coordinator(found, message, state, own)
    return "\n".join(lines) + "\n"


def _message(found: Counterexample) -> Message:
    data = found.packet[MESSAGE_OFFSET:]
    if len(data) < HEADER_BYTES or found.packet[23] != 17:
        raise NoVector("the counter-example is not a message")
    bytes_ = int.from_bytes(found.packet[38:40], "big") - UDP_BYTES
    fields = list(HEADER_STRUCT.unpack_from(data))
    if fields[8] > max(bytes_ - HEADER_BYTES, 0) or fields[1] not in set(Type):
        raise NoVector("the counter-example is a damaged message")
    fields[2], fields[3] = GROUP, CLUSTER
    if fields[1] != Type.RECORD:
        fields[7] = 0
    value = data[HEADER_BYTES : HEADER_BYTES + fields[8]]
    return Message._make((*fields, value))


def _arguments(found: Counterexample) -> dict[str, int]:
    """What the control plane gave to actions, by the names of their parameters."""
    given: dict[str, int] = {}
    for rule in found.rules:
        parameters = found.program.actions[rule.call.action].parameters
        for parameter, argument in zip(parameters, rule.call.arguments, strict=True):
            given.setdefault(parameter.name, argument)
    return given


def _text(message: Message, *, sender: bool = False) -> str:
    """A packet's line."""
    parts = [Type(message.type).name]
    for name in ("instance", "round", "vround", "low"):
        if number := getattr(message, name):
            parts.append(f"{name}={number}")
    if sender:
        parts.append(f"sender={message.sender}")
    if message.value:
        parts.append(f"value=0x{message.value.hex()}")
    return " ".join(parts)


def _acceptor(
    found: Counterexample, message: Message, state: _State, own: dict[str, int]
) -> list[str]:
    sizes = {name.rpartition(".")[2]: r.width for name, r in found.program.registers.items()}
    acceptors, value_bytes = sizes["seen"] // 32, sizes["slot_value"] // 8
    id_, incarnation = own.get("id", 0) % acceptors, own.get("incarnation", 0)
    frame = Frame(CLUSTER, GROUP, id_)
    role = Acceptor(
        frame=frame, acceptors=acceptors, window=state.window, value_bytes=value_bytes,
        incarnation=incarnation,
    )  # fmt: skip
    role.restore(_records(state, frame, incarnation, acceptors, value_bytes))
    effects = role.step(wire.from_messages([message]), now=0.0)
    lines = [
        f"role: acceptor id={id_} acceptors={acceptors} window={state.window}"
        f" value_bytes={value_bytes} incarnation={incarnation}"
    ]
    lines += [
        "registers: " + " ".join(f"{name}={state.register(name)}" for name in _GROUP_REGISTERS)
    ]
    lines += [
        f"slot: instance={s['instance']} round={s['round']} vround={s['vround']}"
        f" value=0x{_value(s, value_bytes).hex()}"
        for s in state.slots()
    ]
    lines += [f"> {_text(message, sender=True)}", *_sent(message, effects, acceptors)]
    after = {name: getattr(role, name) for name in _GROUP_REGISTERS}
    lines.append("= " + " ".join(f"{name}={value}" for name, value in after.items()))
    for number in np.flatnonzero(role.slot_instance).tolist():
        length = int(role.slot_length[number])
        value = role.slot_value[number, :length].tobytes()
        lines.append(
            f"= slot {role.slot_instance[number]}: round={role.slot_round[number]}"
            f" vround={role.slot_vround[number]} value=0x{value.hex()}"
        )
    return lines


def _value(slot: dict[str, int], value_bytes: int) -> bytes:
    return slot["value"].to_bytes(value_bytes, "big")[: slot["length"]]


def _records(
    state: _State, frame: Frame, incarnation: int, acceptors: int, value_bytes: int
) -> list[Rows]:
    """The state as the log records that an acceptor restores from."""
    stamp = (frame.cluster, frame.group)
    records = [
        wire.encode(
            *stamp, Type.RECORDED, instance=state.register("highest"),
            round=state.register("highest_round"), vround=state.register("floor"),
            low=state.register("low"), sender=frame.sender, incarnation=incarnation,
            value=wire.pack_seen((0,) * acceptors),
        )
    ]  # fmt: skip
    for slot in state.slots():
        instance, vround = slot["instance"], slot["vround"]
        if vround:
            vote = wire.encode(
                *stamp, Type.PHASE2B, instance=instance, round=vround, vround=vround,
                value=_value(slot, value_bytes),
            )  # fmt: skip
            records.append(vote)
        promise = wire.encode(*stamp, Type.PHASE1B, instance=instance, round=slot["round"])
        records.append(promise)
    return records


def _sent(asked: Message, effects: Effects, acceptors: int) -> list[str]:
    """What leaves; of several packets for one, a switch sends the one that it has room for."""
    sent = [(to, m) for to, rows in effects.send for m in wire.messages(rows)]
    if not sent:
        return ["< nothing"]
    one_instance = asked.type == Type.PHASE1A and wire.unpack_end(asked.value) != wire.END_OF_LOG
    by_switch = len(sent) - 1 if one_instance else 0
    return [
        f"{'<' if number == by_switch else '<software'} {_destination(to)}"
        f" {_answer(m, acceptors)}"
        for number, (to, m) in enumerate(sent)
    ]


def _answer(message: Message, acceptors: int) -> str:
    if message.type != Type.PHASE1B or not wire.is_summary(message.vround, message.length):
        return _text(message)
    summary = wire.unpack_summary(message.value, acceptors)
    count = f"{summary.votes}|ask"
    seen = ",".join(map(str, summary.seen))
    return (
        f"{_text(message._replace(value=b''))} highest={summary.highest} count={count}"
        f" nonce={summary.nonce} seen={seen}"
    )


def _destination(to: To) -> str:
    name = to.role.name.lower()
    return f"{name}s" if to.id is None else f"{name}.{to.id}"


def _coordinator(
    found: Counterexample, message: Message, state: _State, own: dict[str, int]
) -> list[str]:
    headers = found.program.headers.values()
    value_bytes = next(h.bits // 8 for h in headers if h.path.rpartition(".")[2] == "value")
    low, ahead = state.register("low"), state.register("next") - state.register("low")
    if low < 1 or not 0 <= ahead <= state.window:
        raise NoVector("the counter-example has registers that a controller alone leaves so")
    id_ = own.get("id", 0)
    frame = Frame(CLUSTER, GROUP, id_)
    role = Sequencer(frame=frame, window=state.window, value_bytes=value_bytes)
    for name in ("round", "next", "low"):
        setattr(role, name, state.register(name))
    effects = role.step(wire.from_messages([message]), now=0.0)
    before = " ".join(f"{name}={state.register(name)}" for name in ("round", "next", "low"))
    after = " ".join(f"{name}={getattr(role, name)}" for name in ("round", "next", "low"))
    return [
        f"role: coordinator id={id_} window={state.window} value_bytes={value_bytes}",
        f"registers: {before}",
        f"> {_text(message, sender=True)}",
        *_sent(message, effects, 1),
        f"= {after}",
    ]
