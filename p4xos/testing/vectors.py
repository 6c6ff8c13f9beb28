"""Vectors: text files of packets in, and packets out or silence, which every data plane runs.

Strategy: the format is for people who write P4 or XDP; tests/vectors/README.md describes it and is
all they need. This module parses it (`parse`, errors with file and line) and runs it (`run`)
against anything that is a `Target`: bytes in, bytes out, registers. It knows no role.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from p4xos import wire
from p4xos.wire import HEADER_BYTES, HEADER_STRUCT, VERSION, Message, Type

CLUSTER = 0xC1057E12
GROUP = 7
"""The cluster and group of every vector where a line names no other."""

Kind = Literal["software", "switch"]
"""A switch sends at most one packet for one: it leaves out what is marked `<software`."""

REGISTERS = {
    "acceptor": ("floor", "highest_round", "low", "highest"),
    "coordinator": ("round", "next", "low"),
}
PARAMETERS = {
    "acceptor": {
        "id": 0, "acceptors": 3, "window": 8, "value_bytes": 32, "incarnation": 0,
        "coordinators": 2, "learners": 3,
    },
    "coordinator": {"id": 0, "window": 8, "value_bytes": 32, "learners": 3},
}  # fmt: skip
"""By role, the parameters and what they are where the `role:` line does not say."""

DESTINATIONS = re.compile(r"acceptors|learners|(?:acceptor|coordinator|learner|proposer)\.\d+")


class VectorError(Exception):
    """A vector file that is wrong, or a target that does not do what the file says."""

    def __init__(self, path: Path, line: int, message: str) -> None:
        super().__init__(f"{path}:{line}: {message}")


class SlotState(NamedTuple):
    """What an acceptor holds of one instance; vround 0 is no vote."""

    instance: int
    round: int
    vround: int
    value: bytes


class Registers(NamedTuple):
    """What can be read from a target between two steps."""

    values: Mapping[str, int]
    """By the names of REGISTERS."""
    slots: Mapping[int, SlotState]
    """By instance."""
    dropped: Mapping[str, int] | None
    """Packets dropped, by reason; None where the target does not count by these reasons."""


class Target(Protocol):
    """A data plane under test."""

    kind: Kind

    def configure(
        self,
        role: str,
        parameters: Mapping[str, int],
        registers: Mapping[str, int],
        slots: Sequence[SlotState],
    ) -> None:
        """Starts afresh as one role; registers that are not given have their first value."""

    def inject(self, packets: list[bytes]) -> list[tuple[str, bytes]]:
        """Packets (UDP payloads) in as one batch; what leaves: destination and UDP payload."""

    def write(self, registers: Mapping[str, int]) -> None:
        """The controller writes registers, in the order given."""

    def registers(self) -> Registers:
        """What is held now."""


# What a file says ------------------------------------------------------------------------------


class Expected(NamedTuple):
    """A packet that must leave; `or_ask` where a switch's summary may count ASK_ONE_BY_ONE."""

    line: int
    destination: str
    message: Message
    software_only: bool
    or_ask: bool


@dataclass
class Step:
    """One batch in, with what it must cause; or what the controller writes."""

    line: int
    packets: list[bytes] = field(default_factory=list)
    writes: dict[str, int] = field(default_factory=dict)
    expected: list[Expected] = field(default_factory=list)
    silent: bool = False
    values: dict[str, int] = field(default_factory=dict)
    slots: dict[int, SlotState | None] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass
class Vector:
    """One `==` section: a role, its state at first, and the steps."""

    path: Path
    line: int
    title: str
    software_only: bool = False
    role: str = ""
    parameters: dict[str, int] = field(default_factory=dict)
    registers: dict[str, int] = field(default_factory=dict)
    slots: list[SlotState] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)

    @property
    def name(self) -> str:
        """File and title, for test reports."""
        return f"{self.path.stem}: {self.title}"


# Parsing ---------------------------------------------------------------------------------------


class BadLine(Exception):
    """What is wrong with a line; `parse` adds the file and the line's number."""


_TOKEN = re.compile(r'(\w+)=("[^"]*"|\S+)\s*')


def parse(path: Path) -> list[Vector]:
    """The vectors of a file; VectorError names file and line of what is wrong."""
    vectors: list[Vector] = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        line = text.strip()
        if not line or line.startswith("#"):
            continue
        try:
            if line.startswith("=="):
                vectors.append(Vector(path, number, line[2:].strip()))
            elif not vectors:
                raise BadLine("a line before the first `== title`")
            else:
                _parse_line(vectors[-1], number, line)
        except BadLine as error:
            raise VectorError(path, number, str(error)) from None
    for vector in vectors:
        _check_complete(vector)
    return vectors


def _check_complete(vector: Vector) -> None:
    """Every batch says what leaves: a forgotten line must not look like silence."""
    if not vector.role or not vector.steps:
        raise VectorError(vector.path, vector.line, "a vector needs a `role:` line and steps")
    for step in vector.steps:
        if step.packets and not step.expected and not step.silent:
            raise VectorError(vector.path, step.line, "no `<` line: write `< nothing` for silence")


def _parse_line(vector: Vector, number: int, line: str) -> None:
    key, _, rest = line.partition(" ")
    rest = rest.strip()
    if key in _HEAD:
        if vector.steps:
            raise BadLine(f"`{key}` stands before the first step")
        _HEAD[key](vector, rest)
        return
    if not vector.role:
        raise BadLine("the `role:` line comes first")
    if key == ">":
        last = vector.steps[-1] if vector.steps else None
        if last is None or not last.packets or last.expected or last.silent:
            vector.steps.append(last := Step(number))
        last.packets.append(packet(rest))
        return
    if key == "!":
        vector.steps.append(Step(number, writes=_registers(vector.role, fields(rest))))
        return
    if not vector.steps:
        raise BadLine("no `>` or `!` line before this one")
    if key in ("<", "<software"):
        _parse_expected(vector, number, rest, software_only=key == "<software")
    elif key == "=":
        _parse_state(vector.steps[-1], vector.role, rest)
    else:
        raise BadLine(f"unknown line {key!r}: one of == {' '.join(_HEAD)} > ! < <software =")


def _parse_target(vector: Vector, rest: str) -> None:
    if rest not in ("all", "software"):
        raise BadLine("target is `all` or `software`")
    vector.software_only = rest == "software"


def _parse_role(vector: Vector, rest: str) -> None:
    role, _, text = rest.partition(" ")
    if role not in PARAMETERS:
        raise BadLine(f"role is one of {', '.join(PARAMETERS)}")
    given = {name: integer(value) for name, value in fields(text).items()}
    unknown = given.keys() - PARAMETERS[role].keys()
    if unknown:
        raise BadLine(f"{role} has no parameter {', '.join(sorted(unknown))}")
    vector.role, vector.parameters = role, {**PARAMETERS[role], **given}


def _parse_registers(vector: Vector, rest: str) -> None:
    vector.registers.update(_registers(vector.role, fields(rest)))


def _parse_slot(vector: Vector, rest: str) -> None:
    state = _slot(rest)
    if state is None:
        raise BadLine("a slot that is empty needs no line")
    vector.slots.append(state)


_HEAD = {
    "target:": _parse_target,
    "role:": _parse_role,
    "registers:": _parse_registers,
    "slot:": _parse_slot,
}


def _parse_expected(vector: Vector, number: int, rest: str, *, software_only: bool) -> None:
    step = vector.steps[-1]
    if rest == "nothing":
        if step.expected:
            raise BadLine("`< nothing` beside packets")
        step.silent = True
        return
    destination, _, text = rest.partition(" ")
    if not DESTINATIONS.fullmatch(destination):
        raise BadLine(f"{destination!r} is no destination: learners, acceptors, coordinator.0 ...")
    if step.silent:
        raise BadLine("a packet beside `< nothing`")
    own = {"sender": str(vector.parameters["id"])}
    own["incarnation"] = str(vector.parameters.get("incarnation", 0))
    or_ask = "|ask" in text
    message = read(packet(text.replace("|ask", ""), own))
    step.expected.append(Expected(number, destination, message, software_only, or_ask))


def _parse_state(step: Step, role: str, rest: str) -> None:
    what, _, text = rest.partition(" ")
    if what == "slot":
        instance, _, state = text.partition(":")
        step.slots[integer(instance)] = _slot(f"instance={instance} {state.strip()}")
    elif what == "dropped":
        step.dropped.update({name: integer(count) for name, count in fields(text).items()})
    else:
        step.values.update(_registers(role, fields(rest)))


def _registers(role: str, given: dict[str, str]) -> dict[str, int]:
    unknown = given.keys() - set(REGISTERS.get(role, ()))
    if unknown:
        raise BadLine(f"no register {', '.join(sorted(unknown))}: after `role:`, its own only")
    return {name: integer(value) for name, value in given.items()}


def _slot(text: str) -> SlotState | None:
    if text.endswith("empty"):
        return None
    given = fields(text)
    if given.keys() - {"instance", "round", "vround", "value"} or "instance" not in given:
        raise BadLine("a slot has instance, round, vround, value")
    return SlotState(
        integer(given["instance"]),
        integer(given.get("round", "0")),
        integer(given.get("vround", "0")),
        octets(given.get("value", '""')),
    )


# Fields and packets ----------------------------------------------------------------------------


def fields(text: str) -> dict[str, str]:
    """`name=value` pairs, a value with blanks in double quotes."""
    found, position = {}, 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise BadLine(f"expected name=value at {text[position:]!r}")
        if token[1] in found:
            raise BadLine(f"{token[1]} is given twice")
        found[token[1]] = token[2]
        position = token.end()
    return found


def integer(text: str) -> int:
    """12, 0xff, a round as counter.id, `log` for the end of the log, `ask` for ask one by one."""
    words = {"log": wire.END_OF_LOG, "ask": wire.ASK_ONE_BY_ONE}
    if text in words:
        return words[text]
    counter, dot, coordinator = text.partition(".")
    try:
        return int(counter, 0) << 8 | int(coordinator) if dot else int(text, 0)
    except ValueError:
        raise BadLine(f"{text!r} is no number (12, 0xff), round (counter.id) or `log`") from None


def octets(text: str) -> bytes:
    """A value: "text" in quotes, or hex as 0x0102."""
    if len(text) >= 2 and text[0] == text[-1] == '"':
        return text[1:-1].encode("ascii")
    try:
        return bytes.fromhex(text.removeprefix("0x")) if text.startswith("0x") else _no_octets(text)
    except ValueError:
        return _no_octets(text)


def _no_octets(text: str) -> bytes:
    raise BadLine(f'{text!r} is no value: write "text" or 0x0102')


_HEADER_FIELDS = {
    "version", "type", "group", "cluster", "instance", "round", "vround", "sender", "length",
    "incarnation", "low",
}  # fmt: skip
_NONCE_IS_VROUND = {
    "PHASE1A", "READ_INDEX", "READ_INDEX_REPLY", "RECORD", "RECORDED", "ASK_CHECKPOINT",
}  # fmt: skip


def packet(text: str, defaults: Mapping[str, str] | None = None) -> bytes:
    """A packet from its line: `TYPE name=value ...`, or `raw` and hex.

    Args:
      text: what stands behind `>`, or behind the destination of `<`.
      defaults: header fields where the line does not name them; all others are 0.

    Returns:
      The UDP payload: header, value, zeros up to a multiple of 8 bytes; `raw` as it stands.
    """
    name, _, rest = text.partition(" ")
    if name == "raw":
        return octets("0x" + rest.replace(" ", ""))
    if name not in Type.__members__:
        raise BadLine(f"{name!r} is no type: {' '.join(Type.__members__)}, or raw")
    given = {**(defaults or {}), **fields(rest)}
    if name in _NONCE_IS_VROUND and "nonce" in given:
        given["vround"] = given.pop("nonce")
    value = _value(name, given)
    unknown = given.keys() - _HEADER_FIELDS
    if unknown:
        raise BadLine(f"{name} has no field {', '.join(sorted(unknown))}")
    header = {
        "version": VERSION, "type": Type[name].value, "group": GROUP, "cluster": CLUSTER,
        "length": len(value), **{field: integer(value) for field, value in given.items()},
    }  # fmt: skip
    order = wire.HEADER.names
    assert order is not None
    data = HEADER_STRUCT.pack(*(header.get(field, 0) for field in order)) + value
    return data + bytes(-len(data) % 8)


def _value(name: str, given: dict[str, str]) -> bytes:
    """The value, from `value` or from the fields of one with a layout, which are taken out."""
    if "end" in given:
        return wire.pack_end(integer(given.pop("end")))
    if "again" in given:
        return wire.pack_incarnation(integer(given.pop("again")))
    if "seen" in given:
        seen = tuple(integer(part) for part in given.pop("seen").split(","))
        if name == "RECORDED":
            return wire.pack_seen(seen)
        highest, count, nonce = (
            integer(given.pop(name, "0")) for name in ("highest", "count", "nonce")
        )
        return wire.pack_summary(wire.Summary(highest, count, nonce, seen))
    return octets(given.pop("value", '""'))


def read(data: bytes) -> Message:
    """A packet as fields; ValueError when it is cut short or not zero behind its value."""
    if len(data) < HEADER_BYTES:
        raise ValueError(f"a packet of {len(data)} bytes is shorter than a header")
    header = HEADER_STRUCT.unpack_from(data)
    end = HEADER_BYTES + header[8]
    if len(data) < end or any(data[end:]):
        raise ValueError("a packet is cut short, or not zero behind its value")
    return Message._make((*header, data[HEADER_BYTES:end]))


# Running ---------------------------------------------------------------------------------------


def run(vector: Vector, target: Target, *, one_by_one: bool = False) -> None:
    """Runs a vector on a target; VectorError names the first line that does not hold.

    Args:
      one_by_one: give the packets of a batch singly; the result must be the same.
    """
    target.configure(vector.role, vector.parameters, vector.registers, vector.slots)
    for step in vector.steps:
        if step.writes:
            target.write(step.writes)
        batches = [[packet] for packet in step.packets] if one_by_one else [step.packets]
        sent = [sent for batch in batches if batch for sent in target.inject(batch)]
        _compare_sent(vector, step, sent, target.kind)
        _compare_state(vector, step, target.registers())


def _by_destination(sent: Iterable[tuple[str, object]]) -> dict[str, list[object]]:
    inbox: dict[str, list[object]] = defaultdict(list)
    for destination, message in sent:
        inbox[destination].append(message)
    return dict(inbox)


def _compare_sent(vector: Vector, step: Step, sent: list[tuple[str, bytes]], kind: Kind) -> None:
    """To each destination the same packets in the same order; between destinations, any order."""
    wanted = []
    for expected in step.expected:
        if kind == "switch" and expected.software_only:
            continue
        message = expected.message
        if kind == "switch" and expected.or_ask:
            summary = wire.unpack_summary(message.value, (message.length - 16) // 4)
            summary = summary._replace(votes=wire.ASK_ONE_BY_ONE)
            message = message._replace(value=wire.pack_summary(summary))
        wanted.append((expected.destination, message))
    try:
        got = [(destination, read(data)) for destination, data in sent]
    except ValueError as error:
        raise VectorError(vector.path, step.line, str(error)) from None
    if _by_destination(got) != _by_destination(wanted):
        shown = "\n".join(
            f"  {what} {destination} {describe(message)}"
            for what, pairs in (("expected", wanted), ("sent    ", got))
            for destination, message in pairs
        )
        shown += "" if wanted else "\n  expected nothing"
        shown += "" if got else "\n  sent     nothing"
        raise VectorError(vector.path, step.line, f"other packets than expected\n{shown}")


def _compare_state(vector: Vector, step: Step, held: Registers) -> None:
    for name, value in step.values.items():
        if held.values[name] != value:
            message = f"register {name} is {held.values[name]:#x}, expected {value:#x}"
            raise VectorError(vector.path, step.line, message)
    for instance, slot in step.slots.items():
        if held.slots.get(instance) != slot:
            message = f"slot {instance} is {held.slots.get(instance)}, expected {slot}"
            raise VectorError(vector.path, step.line, message)
    for reason, count in step.dropped.items():
        if held.dropped is not None and held.dropped.get(reason, 0) != count:
            message = f"{held.dropped.get(reason, 0)} dropped as {reason}, expected {count}"
            raise VectorError(vector.path, step.line, message)


def describe(message: Message) -> str:
    """A message in the words of a vector file, fields that are 0 left out."""
    name = Type(message.type).name if message.type in Type._value2member_map_ else message.type
    shown = [
        f"{field}={getattr(message, field)}"
        for field in ("instance", "sender", "length", "incarnation", "low")
        if getattr(message, field)
    ]
    rounds = [
        f"{field}={value >> 8}.{value & 0xFF}"
        for field, value in (("round", message.round), ("vround", message.vround))
    ]
    return " ".join([str(name), *rounds, *shown, f"value=0x{message.value.hex()}"])
