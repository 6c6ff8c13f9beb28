"""The types of P4-16 that programs here have, and what each is made of below."""

from __future__ import annotations

from dataclasses import dataclass

from switch.lang.ir import Bits, Bool


@dataclass(frozen=True, slots=True)
class Integer:
    """int: of numbers without a width, known when the program is read."""

    def __str__(self) -> str:
        return "int"


@dataclass(frozen=True, slots=True)
class String:
    """string: of messages and annotations only."""

    def __str__(self) -> str:
        return "string"


@dataclass(frozen=True, slots=True)
class Error:
    """error: its names are numbered in the order of the text, NoError is 0."""

    def __str__(self) -> str:
        return "error"


@dataclass(frozen=True, slots=True)
class Enumeration:
    """An enum; `carrier` is the type written in front of its name, if there is one."""

    name: str
    members: tuple[tuple[str, int], ...]
    carrier: Bits | None

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Distinct:
    """type: the same values as another type, but not to be mixed up with it."""

    name: str
    base: Bits | Bool

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Record:
    """A header or a struct."""

    name: str
    is_header: bool
    fields: tuple[tuple[str, Type], ...]

    def __str__(self) -> str:
        return f"{'header' if self.is_header else 'struct'} {self.name}"


@dataclass(frozen=True, slots=True)
class Extern:
    """An object that v1model brings: packet_in, packet_out, register, counter, direct_counter."""

    name: str

    def __str__(self) -> str:
        return self.name


Scalar = Bits | Bool | Error | Enumeration | Distinct
Type = Scalar | Integer | String | Record | Extern

PLAIN_ENUM_BITS = Bits(16)
"""What carries an enum without a type: nothing outside sees it."""
ERROR_BITS = Bits(32)
"""What carries an error; `standard_metadata.parser_error` has as many bits."""


def carrier(type_: Scalar) -> Bits | Bool:
    """The type that a value has in the intermediate representation."""
    match type_:
        case Bits() | Bool():
            return type_
        case Error():
            return ERROR_BITS
        case Enumeration():
            return type_.carrier or PLAIN_ENUM_BITS
        case Distinct():
            return type_.base


def _plain_enum(name: str, *members: str) -> Enumeration:
    return Enumeration(name, tuple((each, i) for i, each in enumerate(members)), None)


HASH_ALGORITHM = _plain_enum(
    "HashAlgorithm", "crc32", "crc32_custom", "crc16", "crc16_custom", "random", "identity",
    "csum16", "xor16",
)  # fmt: skip
COUNTER_TYPE = _plain_enum("CounterType", "packets", "bytes", "packets_and_bytes")

_FIELDS: dict[str, Type] = {
    "ingress_port": Bits(9),
    "egress_spec": Bits(9),
    "egress_port": Bits(9),
    "instance_type": Bits(32),
    "packet_length": Bits(32),
    "enq_timestamp": Bits(32),
    "enq_qdepth": Bits(19),
    "deq_timedelta": Bits(32),
    "deq_qdepth": Bits(19),
    "ingress_global_timestamp": Bits(48),
    "egress_global_timestamp": Bits(48),
    "mcast_grp": Bits(16),
    "egress_rid": Bits(16),
    "checksum_error": Bits(1),
    "parser_error": Error(),
    "priority": Bits(3),
}
STANDARD_METADATA = Record("standard_metadata_t", False, tuple(_FIELDS.items()))
"""As v1model.p4 declares it."""
