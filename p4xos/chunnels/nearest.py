"""`anycast()`: of several servers of one name, the nearest.

It acts when a connection is made: one that is opened after a nearer server was announced uses that
one. A server that does not answer is passed over for the next.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

from p4xos.chunnels.connection import Messages
from p4xos.chunnels.implementations import Context, Ends, Implementation, implementation
from p4xos.chunnels.places import distance
from p4xos.chunnels.runtime import Runtime
from p4xos.chunnels.stack import Chunnel, layer
from p4xos.chunnels.view import View

T = TypeVar("T")
ANYCAST = "anycast"


def anycast() -> Chunnel[bytes, bytes]:
    """The nearest server of a name; for clients' stacks."""
    return layer(ANYCAST)


def nearest(runtime: Runtime, view: View, name: str) -> list[tuple[str, int]]:
    """The addresses behind a name, the nearest first, then in the order of their announcement."""
    instances = view.names.get(name, ())
    ranked = sorted(instances, key=lambda each: distance(runtime.place, each.place))
    return [each.address for each in ranked]


@implementation(ANYCAST, "discovery", ends=Ends.CLIENT, priority=10)
@asynccontextmanager
async def by_discovery(
    below: Messages[bytes], context: Context
) -> AsyncIterator[Messages[bytes]]:
    """Asks the discovery service; messages pass as they are."""
    yield below


IMPLEMENTATIONS: list[Implementation] = [replace(by_discovery, resolve=nearest)]
