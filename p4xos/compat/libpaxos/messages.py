"""libpaxos' messages: MessagePack arrays, one behind the other, as bytes and back.

    [0, iid, ballot]                                   PREPARE         to an acceptor
    [1, aid, iid, ballot, value_ballot, value]         PROMISE         from one
    [2, iid, ballot, value]                            ACCEPT          to an acceptor
    [3, aid, iid, ballot, value_ballot, value]         ACCEPTED        from one
    [4, aid, iid, ballot]                              PREEMPTED       from one
    [5, from, to]                                      REPEAT          learner to acceptor
    [6, iid]                                           TRIM            learner to acceptor
    [7, aid, trim_iid]                                 ACCEPTOR_STATE  from an acceptor
    [8, value]                                         CLIENT_VALUE    to a proposer

Numbers are at most 32 bits, values `bin`, or `raw` as an older msgpack wrote them. Clients send
many values of one length in one go, so both directions have a path that works on all of them as one
array; what it does not fit goes message by message.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import NamedTuple

import numpy as np

from p4xos.compat.libpaxos.conf import MEMBERS_MAX
from p4xos.compat.libpaxos.packs import LENGTH_BYTES, Values
from p4xos.errors import BadPacket

IID_MAX = 2**32 - 1
"""libpaxos' instances have 32 bits."""
BALLOT = 1
"""Of every ACCEPTED: only what is chosen is told, so all acceptors always agree."""
BLOCK_VALUES = 8
"""From so many values on an array is faster than a loop."""


class Kind(IntEnum):
    """The first element of a message."""

    PREPARE = 0
    PROMISE = 1
    ACCEPT = 2
    ACCEPTED = 3
    PREEMPTED = 4
    REPEAT = 5
    TRIM = 6
    ACCEPTOR_STATE = 7
    CLIENT_VALUE = 8


_FORMS = {
    Kind.PREPARE: "nn",
    Kind.PROMISE: "annnv",
    Kind.ACCEPT: "nnv",
    Kind.ACCEPTED: "annnv",
    Kind.PREEMPTED: "ann",
    Kind.REPEAT: "nn",
    Kind.TRIM: "n",
    Kind.ACCEPTOR_STATE: "an",
    Kind.CLIENT_VALUE: "v",
}
"""What follows the kind: n a number, a an acceptor's id, v a value."""
_KINDS = {(0x91 + len(form), int(kind)): (kind, form) for kind, form in _FORMS.items()}
assert all(head <= 0x96 for head, _ in _KINDS), "arrays of up to 15 elements have one byte"


class Message(NamedTuple):
    """A message but CLIENT_VALUE."""

    kind: Kind
    numbers: tuple[int, ...]
    """In their order, the acceptor's id among them."""
    value: bytes = b""


class Parsed(NamedTuple):
    """What a piece of a stream holds."""

    lengths: list[int]
    """Of the values of its CLIENT_VALUEs, in order."""
    data: bytes
    """Those values, one behind the other."""
    messages: list[Message]
    """The others, in order."""
    used: int
    """Bytes of whole messages; the rest is the beginning of the next one."""


def parse_untrusted(data: bytes, value_bytes_max: int) -> Parsed:
    """The whole messages at the beginning of what a peer sent.

    Raises:
      BadPacket: what follows them is no message, whatever else comes.
    """
    lengths: list[int] = []
    parts: list[bytes] = []
    messages: list[Message] = []
    start, end = 0, len(data)
    while start < end:
        if data[start] == 0x92 and end - start > 3 and data[start + 1] == Kind.CLIENT_VALUE:
            found = _value_untrusted(data, start + 2, value_bytes_max)
            if found is None:
                break
            first, stop = found
            size = stop - start
            if (end - stop) // size >= BLOCK_VALUES:
                count = _alike(data, start, first - start, size)
                if count > 1:
                    block = np.frombuffer(data, np.uint8, count * size, start).reshape(count, size)
                    parts.append(block[:, first - start :].tobytes())
                    lengths += [stop - first] * count
                    start += count * size
                    continue
            parts.append(data[first:stop])
            lengths.append(stop - first)
            start = stop
            continue
        message = _message_untrusted(data, start, value_bytes_max)
        if message is None:
            break
        if message[0].kind is Kind.CLIENT_VALUE:
            parts.append(message[0].value)
            lengths.append(len(message[0].value))
        else:
            messages.append(message[0])
        start = message[1]
    return Parsed(lengths, b"".join(parts), messages, start)


def _alike(data: bytes, start: int, head_bytes: int, size: int) -> int:
    """How many messages of one size follow one another with the same first bytes."""
    count = (len(data) - start) // size
    heads = np.frombuffer(data, np.uint8, count * size, start).reshape(count, size)[:, :head_bytes]
    same = (heads == heads[0]).all(axis=1)
    return count if same.all() else int(same.argmin())


def _message_untrusted(data: bytes, start: int, value_max: int) -> tuple[Message, int] | None:
    """A message and where it ends; None when it is not complete."""
    if not 0x92 <= data[start] <= 0x96:
        raise BadPacket(f"byte 0x{data[start]:02x} begins no message of libpaxos")
    if start + 1 >= len(data):
        return None
    found = _KINDS.get((data[start], data[start + 1]))
    if found is None:
        raise BadPacket(f"no message of libpaxos has {data[start] - 0x90} elements and this kind")
    kind, form = found
    place = start + 2
    numbers: list[int] = []
    value = b""
    for element in form:
        if element == "v":
            bounds = _value_untrusted(data, place, value_max)
            if bounds is None:
                return None
            place = bounds[1]
            value = data[bounds[0] : place]
            continue
        read = _number_untrusted(data, place)
        if read is None:
            return None
        number, place = read
        if element == "a" and number >= MEMBERS_MAX:
            raise BadPacket(f"{number} is no acceptor's id; libpaxos has {MEMBERS_MAX} at most")
        numbers.append(number)
    return Message(kind, tuple(numbers), value), place


_SIZES = {0xCC: 1, 0xCD: 2, 0xCE: 4}
_VALUE_SIZES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}


def _number_untrusted(data: bytes, place: int) -> tuple[int, int] | None:
    """A number and where it ends."""
    if place >= len(data):
        return None
    byte = data[place]
    if byte < 0x80:
        return byte, place + 1
    size = _SIZES.get(byte)
    if size is None:
        raise BadPacket(f"byte 0x{byte:02x} begins no number of at most 32 bits")
    end = place + 1 + size
    if end > len(data):
        return None
    return int.from_bytes(data[place + 1 : end], "big"), end


def _value_untrusted(data: bytes, place: int, value_max: int) -> tuple[int, int] | None:
    """Where a value's bytes begin and end; None when they are not all there."""
    if place >= len(data):
        return None
    byte = data[place]
    if 0xA0 <= byte < 0xC0:
        first, length = place + 1, byte - 0xA0
    else:
        size = _VALUE_SIZES.get(byte)
        if size is None:
            raise BadPacket(f"byte 0x{byte:02x} begins no value")
        first = place + 1 + size
        if first > len(data):
            return None
        length = int.from_bytes(data[place + 1 : first], "big")
    if length > value_max:
        raise BadPacket(f"a value has {length} bytes, the limit here is {value_max}")
    return (first, first + length) if first + length <= len(data) else None


def encode_number(number: int) -> bytes:
    """A number of at most 32 bits, in as few bytes as it takes."""
    if number < 0x80:
        return bytes((number,))
    if number < 0x100:
        return bytes((0xCC, number))
    if number < 0x10000:
        return struct.pack(">BH", 0xCD, number)
    return struct.pack(">BI", 0xCE, number)


def encode_value(value: bytes) -> bytes:
    """A value with its length in front."""
    return _value_head(len(value)) + value


def _value_head(length: int) -> bytes:
    if length < 0x100:
        return bytes((0xC4, length))
    if length < 0x10000:
        return struct.pack(">BH", 0xC5, length)
    return struct.pack(">BI", 0xC6, length)


def encode(message: Message) -> bytes:
    """A message but ACCEPTED, of which there are many: see `encode_accepted`."""
    parts = [bytes((0x91 + len(_FORMS[message.kind]), message.kind))]
    numbers = iter(message.numbers)
    for element in _FORMS[message.kind]:
        number = element != "v"
        parts.append(encode_number(next(numbers)) if number else encode_value(message.value))
    return b"".join(parts)


def encode_accepted(acceptors: Sequence[int], values: Values) -> bytes:
    """ACCEPTED of each of these acceptors for each value; their instances are at most IID_MAX."""
    return b"".join(_parts_of_accepted(acceptors, values))


_NUMBER_FORMS: tuple[tuple[int, bytes, str], ...] = (
    (0x80, b"", ">u1"), (0x100, b"\xcc", ">u1"), (0x10000, b"\xcd", ">u2"), (2**32, b"\xce", ">u4"),
)  # fmt: skip
"""(Behind the last number, what stands in front of it, how it is written)."""


def _parts_of_accepted(acceptors: Sequence[int], values: Values) -> Iterator[bytes]:
    ballots = bytes((BALLOT, BALLOT))
    for stop, prefix, form in _NUMBER_FORMS:
        if values.first >= stop:
            continue
        some = values.before(stop)
        length, count = some.lengths[:LENGTH_BYTES], some.size
        if count >= BLOCK_VALUES and some.lengths == length * count:
            yield from _blocks_of_accepted(acceptors, prefix, form, ballots, some)
        else:
            for iid, value in some.each():
                tail = b"".join((encode_number(iid), ballots, encode_value(value)))
                for acceptor in acceptors:
                    yield bytes((0x96, Kind.ACCEPTED, acceptor)) + tail
        if some.next == values.next:
            return
        values = values.since(some.next)


def _blocks_of_accepted(
    acceptors: Sequence[int], prefix: bytes, form: str, ballots: bytes, values: Values
) -> Iterator[bytes]:
    """Messages that differ in instance and value only, acceptor by acceptor."""
    head = bytes((0x96, Kind.ACCEPTED, acceptors[0])) + prefix
    count, length = values.size, int.from_bytes(values.lengths[:LENGTH_BYTES], "big")
    number_bytes = np.dtype(form).itemsize
    tail = ballots + _value_head(length)
    behind_number = len(head) + number_bytes
    behind_tail = behind_number + len(tail)
    rows = np.empty((count, behind_tail + length), np.uint8)
    rows[:, : len(head)] = np.frombuffer(head, np.uint8)
    numbers = np.arange(values.first, values.next, dtype=np.uint64).astype(form)
    rows[:, len(head) : behind_number] = numbers.view(np.uint8).reshape(count, number_bytes)
    rows[:, behind_number:behind_tail] = np.frombuffer(tail, np.uint8)
    rows[:, behind_tail:] = np.frombuffer(values.data, np.uint8).reshape(count, length)
    for acceptor in acceptors:
        rows[:, 2] = acceptor
        yield rows.tobytes()


Encode = Callable[[Values], bytes]
"""How a learner is told of values: as ACCEPTED of an acceptor, or as a frame."""

__all__ = [
    "BALLOT", "IID_MAX", "Encode", "Kind", "Message", "Parsed", "encode",
    "encode_accepted", "encode_number", "encode_value", "parse_untrusted",
]  # fmt: skip
