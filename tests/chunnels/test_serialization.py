"""Codecs and schemas: what is written is read, what is something else is refused."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Any, Literal, NamedTuple

import msgpack
import pytest

from p4xos.chunnels import BadMessage, serialize
from p4xos.chunnels.serialization import (
    ANY,
    SERIALIZE,
    Schema,
    dump_json,
    packed,
    text,
)
from p4xos.chunnels.stack import Layer
from p4xos.errors import BadPacket
from tests.chunnels.messages import Op


class Point(NamedTuple):
    x: int
    y: float


@dataclass
class Everything:
    text: str
    data: bytes
    number: int
    real: float
    flag: bool
    nothing: None
    maybe: str | None
    many: list[Point]
    pair: tuple[int, ...]
    named: dict[str, bytes]
    kind: Literal["a", "b"]
    either: int | Point


VALUE = Everything(
    "ö", b"\xff", -1, 0.5, True, None, None, [Point(1, 2.0)], (1, 2), {"k": b"v"}, "a", Point(3, 4)
)


@pytest.mark.parametrize("codec", [packed, text])
def test_what_is_written_is_read(codec: Any) -> None:
    layer = Layer(SERIALIZE, Schema.of(Everything))
    outgoing, incoming = codec.functions(layer)
    assert incoming(outgoing([VALUE, VALUE])) == [VALUE, VALUE]


def test_the_hash_is_of_the_shape_alone() -> None:
    @dataclass
    class Other:
        verb: str
        key: str
        value: bytes

    @dataclass
    class Longer(Other):
        more: int

    assert Schema.of(Other).hash == Schema.of(Op).hash
    assert Schema.of(Longer).hash != Schema.of(Op).hash
    assert Schema.of(Everything).hash != Schema.of(Op).hash


@pytest.mark.parametrize(
    "data",
    [
        {}, {"verb": "a", "key": "b"}, {"verb": "a", "key": "b", "value": "text"}, [], 3, None,
        {"verb": 1, "key": "b", "value": b""}, {"verb": "a", "key": "b", "value": b"", "more": 1},
    ],
)  # fmt: skip
def test_another_shape_is_refused(data: object) -> None:
    with pytest.raises(BadPacket):
        Schema.of(Op).read_untrusted(data)
    _, incoming = packed.functions(Layer(SERIALIZE, Schema.of(Op)))  # type: ignore[misc]  # has
    with pytest.raises(BadMessage, match="look which program runs there"):
        incoming([msgpack.packb(data)])


@pytest.mark.parametrize("codec", [packed, text])
def test_garbage_is_refused(codec: Any) -> None:
    random = Random(1)
    _, incoming = codec.functions(Layer(SERIALIZE, Schema.of(Op)))
    for _ in range(300):
        with pytest.raises(BadMessage):
            incoming([random.randbytes(random.randint(0, 40))])
    with pytest.raises(BadMessage):
        incoming([b"\x91" * 100_000])  # lists in lists: no stack of Python holds them
    with pytest.raises(BadMessage):
        incoming([b"[" * 100_000])


def test_an_end_without_a_type_speaks_in_dictionaries() -> None:
    assert ANY.write(Op("put", "a", b"1")) == {"verb": "put", "key": "a", "value": b"1"}
    assert ANY.write([Point(1, 2.0), {"a": (1, 2)}]) == [{"x": 1, "y": 2.0}, {"a": [1, 2]}]
    assert dump_json({"a": b"\xff"}) == b'{"a":{"\\u0000bytes":"/w=="}}'


def test_types_that_no_codec_knows_are_refused_at_once() -> None:
    for unknown in (set, object(), dict[int, str], complex):
        with pytest.raises(ValueError, match="cannot be serialized"):
            serialize(unknown)  # type: ignore[arg-type]  # they are none
