"""What an end offers, as data and as bytes: the stack it asks for, and what it can run it with.

A tree: a layer holds the implementations for it, a choice holds stacks, which hold layers. An end
that asks for nothing offers all that it can run, and takes the other end's stack. Everything of it
is bounded, and read from a peer only by functions named `*_untrusted`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgpack

from p4xos.chunnels.implementations import Ends, Implementation, Over
from p4xos.chunnels.levels import Level
from p4xos.chunnels.places import Place, Scope
from p4xos.chunnels.stack import ALTERNATIVES_MAX, LAYERS_MAX, Layer
from p4xos.errors import BadPacket

OFFER_BYTES_MAX = 8192
IMPLEMENTATIONS_MAX = 16
"""Of one layer."""
OPTIONS_MAX = 8
"""Of one choice."""
DEPTH_MAX = 4
KEYS_MAX = 16
AMOUNT_MAX = 1 << 40
"""Of a resource: all that a discovery service may hold of one adds up to less than 63 bits."""
TEXT_MAX = 128
_LAYER, _SELECT = 0, 1
_ENDS = tuple(Ends)


class Offered(NamedTuple):
    """An implementation, as the other end sees it."""

    name: str
    ends: Ends
    scope: Scope
    reach: Scope
    priority: int
    provides: Mapping[str, Level]
    resources: Mapping[str, int]
    apart: Scope = Scope.APPLICATION
    """Not told: the server chooses, and knows its own."""
    over: Over | None = None
    """The same."""


class OfferedLayer(NamedTuple):
    """A layer, as the other end sees it."""

    type: str
    facts: Mapping[str, Level]
    requires: Mapping[str, Level]
    scope: Scope | None
    implementations: tuple[Offered, ...]


class OfferedSelect(NamedTuple):
    """A choice, as the other end sees it."""

    options: tuple[tuple[OfferedLayer | OfferedSelect, ...], ...]


OfferedNode = OfferedLayer | OfferedSelect


class Offer(NamedTuple):
    """What an end offers."""

    place: Place
    nodes: tuple[OfferedNode, ...]
    """Of its stack; with `dictated`, one layer for each type that it can run."""
    dictated: bool = False
    """Whether the end has no stack of its own, and takes the other's."""
    merging: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Implementations that run several layers as one: each name, and the layers' types."""

    def alternatives(self) -> list[tuple[OfferedLayer, ...]]:
        """Every way to read it, the best first; cut off where there are too many."""
        return _read(self.nodes)[:ALTERNATIVES_MAX]


def _read(nodes: tuple[OfferedNode, ...]) -> list[tuple[OfferedLayer, ...]]:
    found: list[tuple[OfferedLayer, ...]] = [()]
    for node in nodes:
        if isinstance(node, OfferedLayer):
            ways: list[tuple[OfferedLayer, ...]] = [(node,)]
        else:
            ways = [way for option in node.options for way in _read(option)]
        found = [(*before, *way) for before in found for way in ways][: 4 * ALTERNATIVES_MAX]
    return found


def offered(implementation: Implementation) -> Offered:
    """An implementation, as the other end is told of it."""
    each = implementation
    return Offered(
        each.name, each.ends, each.scope, each.reach, each.priority, each.provides,
        each.resources, each.apart, each.over,
    )  # fmt: skip


def offered_layer(layer: Layer, implementations: Iterable[Implementation]) -> OfferedLayer:
    """A layer with what can run it."""
    able = tuple(offered(each) for each in implementations)[:IMPLEMENTATIONS_MAX]
    return OfferedLayer(layer.type, layer.facts, layer.requires, layer.scope, able)


def pack(offer: Offer) -> bytes:
    """An offer as bytes.

    Raises:
      ValueError: it is longer than a peer would take.
    """
    packed: bytes = msgpack.packb(
        [list(offer.place), offer.dictated, [_plain(node) for node in offer.nodes], offer.merging]
    )
    if len(packed) > OFFER_BYTES_MAX:
        raise ValueError(
            f"the offer has {len(packed)} bytes and the limit is {OFFER_BYTES_MAX}: register fewer "
            "implementations, or ask for fewer alternatives"
        )
    return packed


def _plain(node: OfferedNode) -> list[object]:
    if isinstance(node, OfferedSelect):
        return [_SELECT, [[_plain(each) for each in option] for option in node.options]]
    able = [
        [each.name, _ENDS.index(each.ends), int(each.scope), int(each.reach), each.priority,
         dict(each.provides), dict(each.resources)]
        for each in node.implementations
    ]  # fmt: skip
    scope = None if node.scope is None else int(node.scope)
    return [_LAYER, node.type, dict(node.facts), dict(node.requires), scope, able]


# What a peer sent --------------------------------------------------------------------------------


def unpack_untrusted(data: bytes) -> Offer:
    """An offer of a peer; BadPacket whatever else the bytes are."""
    if len(data) > OFFER_BYTES_MAX:
        raise BadPacket(f"an offer of {len(data)} bytes; the limit is {OFFER_BYTES_MAX}")
    try:
        place, dictated, nodes, merging = _list(msgpack.unpackb(data, strict_map_key=False), 4)
        process, host, site = (text_untrusted(each) for each in _list(place, 3))
        if not isinstance(dictated, bool):
            raise BadPacket("an offer says whether it is dictated")
        most = 64 if dictated else LAYERS_MAX
        return Offer(
            Place(process, host, site), _nodes_untrusted(nodes, DEPTH_MAX, most), dictated,
            tuple(_merging_untrusted(each) for each in _list(merging, None, OPTIONS_MAX)),
        )  # fmt: skip
    except (ValueError, TypeError, msgpack.UnpackException, RecursionError) as error:
        raise BadPacket(f"not an offer ({error})") from None


def _nodes_untrusted(value: object, depth: int, most: int = LAYERS_MAX) -> tuple[OfferedNode, ...]:
    if depth == 0:
        raise BadPacket("an offer's choices stand too deep in one another")
    return tuple(_node_untrusted(each, depth) for each in _list(value, None, most))


def _node_untrusted(value: object, depth: int) -> OfferedNode:
    match value:
        case [0, type, facts, requires, scope, able]:
            return OfferedLayer(
                text_untrusted(type), levels_untrusted(facts), levels_untrusted(requires),
                None if scope is None else _scope_untrusted(scope),
                tuple(
                    _offered_untrusted(each) for each in _list(able, None, IMPLEMENTATIONS_MAX)
                ),
            )  # fmt: skip
        case [1, options]:
            listed = _list(options, None, OPTIONS_MAX)
            return OfferedSelect(tuple(_nodes_untrusted(each, depth - 1) for each in listed))
    raise BadPacket("neither a layer nor a choice")


def _offered_untrusted(value: object) -> Offered:
    name, ends, scope, reach, priority, provides, resources = _list(value, 7)
    if not isinstance(ends, int) or not 0 <= ends < len(_ENDS):
        raise BadPacket("unknown ends")
    amounts = levels_untrusted(resources)
    counted = {key: each for key, each in amounts.items() if isinstance(each, int)}
    return Offered(
        text_untrusted(name), _ENDS[ends], _scope_untrusted(scope), _scope_untrusted(reach),
        integer_untrusted(priority), levels_untrusted(provides), counted,
    )  # fmt: skip


def _merging_untrusted(value: object) -> tuple[str, tuple[str, ...]]:
    name, types = _list(value, 2)
    listed = _list(types, None, LAYERS_MAX)
    return text_untrusted(name), tuple(text_untrusted(each) for each in listed)


def _list(value: object, count: int | None, most: int = 64) -> list[object]:
    if not isinstance(value, list) or len(value) > most:
        raise BadPacket("no list, or too long a one")
    if count is not None and len(value) != count:
        raise BadPacket(f"a list of {len(value)} where {count} belong")
    return value


def _scope_untrusted(value: object) -> Scope:
    if not isinstance(value, int) or not 0 <= value < len(Scope):
        raise BadPacket("no scope")
    return Scope(value)


def text_untrusted(value: object, most: int = TEXT_MAX) -> str:
    """A text of so many characters at most."""
    if not isinstance(value, str) or len(value) > most:
        raise BadPacket("no text, or too long a one")
    return value


def integer_untrusted(value: object) -> int:
    """A whole number of 63 bits."""
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**63:
        raise BadPacket("no whole number")
    return value


def levels_untrusted(value: object) -> dict[str, Level]:
    """A map of levels."""
    if not isinstance(value, dict) or len(value) > KEYS_MAX:
        raise BadPacket("no map, or too large a one")
    return {
        text_untrusted(key): text_untrusted(each) if isinstance(each, str) else
        integer_untrusted(each)
        for key, each in value.items()
    }  # fmt: skip


def amounts_untrusted(value: object) -> dict[str, int]:
    """How much of each resource."""
    if not isinstance(value, dict) or len(value) > KEYS_MAX:
        raise BadPacket("amounts are a small map")
    found = {text_untrusted(key): integer_untrusted(each) for key, each in value.items()}
    if not all(0 <= each <= AMOUNT_MAX for each in found.values()):
        raise BadPacket(f"an amount is not within 0 and {AMOUNT_MAX}")
    return found
