"""Runs the layers of a connection that was agreed on, from the wire up."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from p4xos.chunnels.choosing import Choice, Chosen
from p4xos.chunnels.connection import Connection, Messages
from p4xos.chunnels.explanation import Explanation, LayerChoice
from p4xos.chunnels.implementations import Carrier, Context, Implementation, Side
from p4xos.chunnels.metering import LayerMetrics, metered
from p4xos.chunnels.runtime import Runtime
from p4xos.chunnels.stack import Layer


@dataclass
class Agreed:
    """What opening needs to know of a connection."""

    side: Side
    name: str
    """This endpoint."""
    peer: str
    choice: Choice
    notes: tuple[str, ...]
    asked: tuple[Layer, ...]
    """This end's reading of its stack; empty where it was dictated."""
    carrier: Carrier
    registered: Mapping[tuple[str, str], Mapping[str, object]]
    """What the discovery service knows of implementations, by type and name."""
    opened: Mapping[tuple[str, str], Mapping[str, object]]
    """At a server: what `listen` opened, by type and name."""
    round_trips: int = 0
    """At a client: how many were waited for, to the discovery service and the server."""


def owners(runtime: Runtime, choice: Choice, side: Side) -> list[Implementation]:
    """What of a choice takes resources at one end."""
    found = []
    for chosen in choice.layers:
        name = chosen.client if side is Side.CLIENT else chosen.server
        own = runtime.known.get((chosen.type, name or ""))
        if own is not None and own.resources:
            found.append(own)
    return found


def resources_of(implementations: Iterable[Implementation]) -> dict[str, int]:
    """What they take together: it is claimed at once, in one round trip."""
    found: dict[str, int] = {}
    for each in implementations:
        for name, amount in each.resources.items():
            found[name] = found.get(name, 0) + amount
    return found


@asynccontextmanager
async def opened(
    agreed: Agreed, runtime: Runtime, nursery: trio.Nursery
) -> AsyncIterator[Connection[Any]]:
    """The connection; every layer's teardown runs at the end, the uppermost's first."""
    metrics: dict[str, LayerMetrics] = {}
    async with AsyncExitStack() as stack:
        meters = stack.enter_context(runtime.tally.connection(agreed.name, agreed.side.value))
        top: Messages[Any] | None = None
        for at in reversed(range(len(agreed.choice.layers))):
            chosen = agreed.choice.layers[at]
            name = chosen.client if agreed.side is Side.CLIENT else chosen.server
            if name is None:
                continue
            own = runtime.known[chosen.type, name]
            context = Context(
                side=agreed.side, layer=_spec(agreed, chosen), chosen=chosen,
                below=_below(agreed, chosen), runtime=runtime, nursery=nursery,
                carrier=agreed.carrier, peer=agreed.peer,
                registration=agreed.registered.get((chosen.type, name), {}),
                opened=agreed.opened.get((chosen.type, name), {}),
            )  # fmt: skip
            wrapped = await stack.enter_async_context(own.wrap(top, context))
            if runtime.meter:
                top = metered(wrapped, top, partial(meters.layer, chosen.type, name))
                metrics[chosen.type] = top.top
            else:
                top = wrapped
        assert top is not None, "a stack has a lowest layer"
        named = dict(reversed(metrics.items()))
        connection: Connection[Any] = Connection(
            top, explained(agreed), named, agreed.peer, agreed.round_trips
        )
        try:
            yield connection
        finally:
            with trio.CancelScope(shield=True, deadline=trio.current_time() + _PARTING_S):
                await connection.aclose()


_PARTING_S = 2.0  # what a layer may take to tell its peer, though all around it is cancelled


def _spec(agreed: Agreed, chosen: Chosen) -> Layer:
    """A chosen layer, as this end asked for it."""
    own = {each.type: each for each in agreed.asked}
    if chosen.merged:
        return Layer(
            chosen.type, tuple(own[each].arguments if each in own else None
                               for each in chosen.merged)
        )  # fmt: skip
    return own.get(chosen.type, Layer(chosen.type))


def _below(agreed: Agreed, chosen: Chosen) -> tuple[Layer, ...] | None:
    """What this end has asked for below a layer, also what was optimized away."""
    for at, each in enumerate(agreed.asked):
        if each.type in (chosen.type, *chosen.merged[-1:]):
            return agreed.asked[at + 1 :]
    return None


def explained(agreed: Agreed) -> Explanation:
    """A choice for people."""
    rows = []
    for each in agreed.choice.layers:
        names = dict.fromkeys(name for name in (each.client, each.server) if name is not None)
        rows.append(LayerChoice(each.type, " / ".join(names), each.ends, each.reason))
    to = "to" if agreed.side is Side.CLIENT else "from"
    return Explanation(f"{agreed.name} {to} {agreed.peer}", tuple(rows), agreed.notes)
