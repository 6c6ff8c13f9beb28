"""Stacks of Chunnels: what an application asks for, from itself down to the wire.

    serialize(Op) | reliable() | local_or_remote()

A `Chunnel[Up, Down]` gives messages of type Up to what is above it and needs messages of type Down
from what is below: `|` joins two that fit, and a type checker refuses those that do not. It is a
description only; who runs a layer, and how, is chosen when a connection is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Generic, TypeVar

from p4xos.chunnels.levels import Level, checked
from p4xos.chunnels.places import Scope

Up = TypeVar("Up")
Down = TypeVar("Down")
Low = TypeVar("Low")

LAYERS_MAX = 16
"""Of a stack."""
ALTERNATIVES_MAX = 32
"""Ways in which a stack with `select` can be read."""


class Wire:
    """What is below a layer that carries the messages of a connection itself."""


class Ordered:
    """What is below a layer that carries messages to a group, in one order for all."""


@dataclass(frozen=True)
class Layer:
    """One layer of a stack, as its end asks for it."""

    type: str
    arguments: object = None
    """For the implementations at this end; they never travel."""
    facts: Mapping[str, Level] = field(default_factory=dict)
    """What follows from the arguments and must fit the other end's: the hash of a schema."""
    requires: Mapping[str, Level] = field(default_factory=dict)
    scope: Scope | None = None
    """Where it must be implemented, at the widest."""


@dataclass(frozen=True)
class Select:
    """Several stacks of which one is used; the first is liked best."""

    options: tuple[tuple[Layer | Select, ...], ...]


Node = Layer | Select
Alternative = tuple[Layer, ...]


class Chunnel(Generic[Up, Down]):
    """One layer, or several that were joined; immutable."""

    def __init__(self, *nodes: Node) -> None:
        """See `layer` for one layer, and `|`."""
        self.nodes = nodes

    def __or__(self, below: Chunnel[Down, Low]) -> Chunnel[Up, Low]:
        if not isinstance(below, Chunnel):
            return NotImplemented
        return Chunnel(*self.nodes, *below.nodes)

    def at(self, scope: Scope) -> Chunnel[Up, Down]:
        """Each of its layers must be implemented within a scope."""
        return Chunnel(*(_within(node, scope) for node in self.nodes))

    def require(self, **levels: Level) -> Chunnel[Up, Down]:
        """What the layer must provide: `reliable().require(order="fifo")`.

        Raises:
          ValueError: an unknown level, or this is not one layer.
        """
        asked = checked(levels)
        if len(self.nodes) != 1 or not isinstance(self.nodes[0], Layer):
            raise ValueError(
                "require() is about one layer; call it on that layer, before it is joined to others"
            )
        (only,) = self.nodes
        assert isinstance(only, Layer)
        return Chunnel(replace(only, requires={**only.requires, **asked}))

    def alternatives(self) -> list[Alternative]:
        """Every way to read it, the one that is liked best first.

        Raises:
          ValueError: too many, or too many layers.
        """
        found = _read(self.nodes)
        if any(len(stack) > LAYERS_MAX for stack in found):
            raise ValueError(f"a stack has more than {LAYERS_MAX} layers; join some into one")
        return found

    def __repr__(self) -> str:
        return " | ".join(_name(node) for node in self.nodes) or "(empty)"


def layer(
    type: str, arguments: object = None, *, facts: Mapping[str, Level] | None = None
) -> Chunnel[Up, Down]:
    """One layer of a type; what defines a Chunnel returns it with its own types."""
    return Chunnel(Layer(type, arguments, checked(facts or {})))


def select(first: Chunnel[Up, Down], *others: Chunnel[Up, Down]) -> Chunnel[Up, Down]:
    """One of several stacks: the first that both ends can run."""
    return Chunnel(Select(tuple(option.nodes for option in (first, *others))))


def _within(node: Node, scope: Scope) -> Node:
    if isinstance(node, Layer):
        return replace(node, scope=scope if node.scope is None else min(scope, node.scope))
    return Select(tuple(tuple(_within(each, scope) for each in option) for option in node.options))


def _read(nodes: tuple[Node, ...]) -> list[Alternative]:
    readings: list[list[Alternative]] = []
    count = 1
    for node in nodes:
        if isinstance(node, Layer):
            readings.append([(node,)])
        else:
            readings.append([found for option in node.options for found in _read(option)])
        count *= len(readings[-1])
        if count > ALTERNATIVES_MAX:
            raise ValueError(f"select() leaves more than {ALTERNATIVES_MAX} ways; offer fewer")
    return [sum(parts, ()) for parts in product(*readings)]


def _name(node: Node) -> str:
    if isinstance(node, Layer):
        return node.type
    return f"select({', '.join(' | '.join(map(_name, option)) for option in node.options)})"
