"""`serialize(Op)`: messages of a type, as bytes.

The codec and the schema's hash are negotiated: both ends use one codec, and two that mean different
things by a message do not begin to talk. An end that has no type of its own, as one with an empty
stack, sends and receives plain dictionaries.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import types
import typing
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgpack

from p4xos.chunnels.errors import BadMessage
from p4xos.chunnels.implementations import Functions, Implementation, mapping
from p4xos.chunnels.stack import Chunnel, Layer, layer
from p4xos.errors import BadPacket

T = TypeVar("T")
SERIALIZE = "serialize"
_PLAIN = (str, bytes, int, float, bool, type(None))
_BYTES_KEY = "\0bytes"


def serialize(of: type[T]) -> Chunnel[T, bytes]:
    """Messages of a dataclass, a NamedTuple or a plain type.

    Raises:
      ValueError: the type has parts that no codec here knows.
    """
    return layer(SERIALIZE, Schema.of(of), facts={"schema": Schema.of(of).hash})


class Schema:
    """How a type is written as plain data, and read back."""

    def __init__(
        self,
        described: str,
        write: Callable[[Any], Any],
        read_untrusted: Callable[[Any], Any],
    ) -> None:
        """See `of`."""
        self.described = described
        self.hash = hashlib.sha256(described.encode()).hexdigest()[:16]
        """Of the description: equal for types with the same fields, whatever module has them."""
        self.write = write
        self.read_untrusted = read_untrusted
        """Raises BadPacket where data is no such value."""

    @classmethod
    def of(cls, wanted: Any) -> Schema:
        """The schema of a type.

        Raises:
          ValueError: it is not one of those that are known.
        """
        if wanted is Any or wanted is object:
            return ANY
        if wanted in _PLAIN or wanted is None:
            return _plain_schema(wanted or type(None))
        origin, parts = get_origin(wanted), get_args(wanted)
        if origin in (Union, types.UnionType):
            return _union_schema([cls.of(part) for part in parts])
        if origin is typing.Literal:
            return _literal_schema(parts)
        if origin is list:
            return _list_schema(cls.of(parts[0]))
        if origin is tuple and len(parts) == 2 and parts[1] is Ellipsis:
            return _list_schema(cls.of(parts[0]), tuple)
        if origin is dict and parts[0] is str:
            return _map_schema(cls.of(parts[1]))
        fields = _fields(wanted) if isinstance(wanted, type) else None
        if fields is not None:
            return _record_schema(wanted, fields)
        raise ValueError(
            f"{wanted!r} cannot be serialized: give a dataclass or NamedTuple of str, bytes, int, "
            "float, bool, None, and of lists, tuples, dictionaries and unions of them"
        )


def _fields(record: type) -> dict[str, Any] | None:
    if dataclasses.is_dataclass(record):
        hints = get_type_hints(record)
        return {field.name: hints[field.name] for field in dataclasses.fields(record)}
    names: Sequence[str] | None = getattr(record, "_fields", None)
    if issubclass(record, tuple) and names is not None:
        hints = get_type_hints(record)
        return {name: hints[name] for name in names}
    return None


def _same(value: Any) -> Any:
    return value


def _loose_write(value: Any) -> Any:
    """For an end without a type: a record of its own is written by its fields."""
    if isinstance(value, _PLAIN):
        return value
    fields = _fields(type(value))
    if fields is not None:
        return {name: _loose_write(getattr(value, name)) for name in fields}
    if isinstance(value, Mapping):
        return {key: _loose_write(each) for key, each in value.items()}
    return [_loose_write(each) for each in value]


ANY = Schema("any", _loose_write, _same)


def _plain_schema(wanted: Any) -> Schema:
    allowed = (float, int) if wanted is float else (wanted,)

    def read(value: Any) -> Any:
        # bool is an int to Python, and not to anybody who reads a schema.
        if type(value) not in allowed:
            raise BadPacket(f"{type(value).__name__} where {wanted.__name__} belongs")
        return value

    return Schema("none" if wanted is type(None) else wanted.__name__, _same, read)


def _literal_schema(values: tuple[Any, ...]) -> Schema:
    def read(value: Any) -> Any:
        if not isinstance(value, str | int | bytes) or value not in values:
            raise BadPacket(f"none of {values}")
        return value

    return Schema(f"one of {values!r}", _same, read)


def _union_schema(parts: list[Schema]) -> Schema:
    def write(value: Any) -> Any:
        for part in parts:
            try:
                written = part.write(value)
                part.read_untrusted(written)
            except (BadPacket, AttributeError, TypeError):
                continue
            return written
        raise TypeError(f"{value!r} is none of {described}")

    def read(value: Any) -> Any:
        for part in parts:
            try:
                return part.read_untrusted(value)
            except BadPacket:
                continue
        raise BadPacket(f"none of {described}")

    described = " | ".join(part.described for part in parts)
    plain = all(part.write is _same for part in parts)
    return Schema(described, _same if plain else write, read)


def _list_schema(part: Schema, make: Callable[[Any], Any] = list) -> Schema:
    def write(value: Any) -> Any:
        return [part.write(each) for each in value]

    def read(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise BadPacket("no list")
        return make(part.read_untrusted(each) for each in value)

    return Schema(f"list of ({part.described})", write, read)


def _map_schema(part: Schema) -> Schema:
    def write(value: Any) -> Any:
        return {key: part.write(each) for key, each in value.items()}

    def read(value: Any) -> Any:
        if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
            raise BadPacket("no dictionary with text keys")
        return {key: part.read_untrusted(each) for key, each in value.items()}

    return Schema(f"map of ({part.described})", write, read)


def _record_schema(make: Any, fields: dict[str, Any]) -> Schema:
    """A record travels as a map: an end without the type can read it."""
    parts = {name: Schema.of(each) for name, each in fields.items()}
    names = list(parts)
    described = ", ".join(f"{name}: {part.described}" for name, part in parts.items())
    simple = all(part.write is _same for part in parts.values())

    def write(value: Any) -> Any:
        return {name: part.write(getattr(value, name)) for name, part in parts.items()}

    def write_simple(value: Any) -> Any:
        return {name: getattr(value, name) for name in names}

    def read(value: Any) -> Any:
        if not isinstance(value, dict) or value.keys() != parts.keys():
            raise BadPacket(f"not the fields {', '.join(names)}")
        return make(**{name: part.read_untrusted(value[name]) for name, part in parts.items()})

    return Schema(f"record ({described})", write_simple if simple else write, read)


# Codecs ------------------------------------------------------------------------------------------


def _functions(
    layer: Layer, dump: Callable[[Any], bytes], load_untrusted: Callable[[bytes], Any]
) -> Functions:
    schema = layer.arguments if isinstance(layer.arguments, Schema) else ANY
    write, read = schema.write, schema.read_untrusted

    def outgoing(values: Sequence[Any]) -> list[bytes]:
        return [dump(write(value)) for value in values]

    def incoming_untrusted(values: Sequence[bytes]) -> list[Any]:
        try:
            return [read(load_untrusted(value)) for value in values]
        except (ValueError, TypeError, RecursionError, BadPacket, msgpack.UnpackException) as bad:
            raise BadMessage(schema.described, str(bad)) from None

    return outgoing, incoming_untrusted


@mapping(SERIALIZE, "msgpack", priority=20, provides={"codec": "msgpack"})
def packed(layer: Layer) -> Functions:
    """msgpack: small and fast."""
    return _functions(layer, msgpack.Packer(autoreset=True).pack, msgpack.unpackb)


def dump_json(value: Any) -> bytes:
    """Plain data as JSON; bytes as base64 under a key of their own."""
    return json.dumps(_with_bytes(value), separators=(",", ":")).encode()


def load_json_untrusted(data: bytes) -> Any:
    """As `dump_json` wrote it; ValueError or TypeError where it is something else."""
    return json.loads(data, object_hook=_read_bytes)


def _with_bytes(value: Any) -> Any:
    if isinstance(value, bytes):
        return {_BYTES_KEY: b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _with_bytes(each) for key, each in value.items()}
    return [_with_bytes(each) for each in value] if isinstance(value, list | tuple) else value


def _read_bytes(value: dict[str, Any]) -> Any:
    if value.keys() == {_BYTES_KEY}:
        return b64decode(value[_BYTES_KEY], validate=True)
    return value


@mapping(SERIALIZE, "json", priority=10, provides={"codec": "json"})
def text(layer: Layer) -> Functions:
    """JSON: for people and other languages."""
    return _functions(layer, dump_json, load_json_untrusted)


IMPLEMENTATIONS: list[Implementation] = [packed, text]
