"""Chunnels, after Bertha: connections of layers that are chosen when the connection is made.

    kv = endpoint("kv-client", serialize(Op) | reliable() | local_or_remote())
    async with kv.connect("kv.prod", timeout=2) as conn:
        await conn.send(Op("put", "a", b"1"))
        print(await conn.receive(), conn.explain())

docs/chunnels.md says how to use them, and how to add one.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from p4xos.chunnels.connection import Connection, Mapped, Messages
    from p4xos.chunnels.endpoints import Endpoint, endpoint
    from p4xos.chunnels.errors import BadMessage, Busy, Denied, NoAgreement, NoAnswer, UnknownName
    from p4xos.chunnels.explanation import Explanation
    from p4xos.chunnels.group.connection import Delivered, GroupConnection, GroupEndpoint
    from p4xos.chunnels.group.layer import ordered_mcast
    from p4xos.chunnels.implementations import (
        Context,
        Ends,
        Implementation,
        Side,
        implementation,
        mapping,
    )
    from p4xos.chunnels.nearest import anycast
    from p4xos.chunnels.places import Scope
    from p4xos.chunnels.reliability import reliable
    from p4xos.chunnels.runtime import Runtime
    from p4xos.chunnels.serialization import serialize
    from p4xos.chunnels.sharding import ShardDown, shard, shard_of
    from p4xos.chunnels.stack import Chunnel, Ordered, Wire, layer, select
    from p4xos.chunnels.transport import datagrams, local_or_remote

__all__ = [
    "BadMessage",
    "Busy",
    "Chunnel",
    "Connection",
    "Context",
    "Delivered",
    "Denied",
    "Endpoint",
    "Ends",
    "Explanation",
    "GroupConnection",
    "GroupEndpoint",
    "Implementation",
    "Mapped",
    "Messages",
    "NoAgreement",
    "NoAnswer",
    "Ordered",
    "Runtime",
    "Scope",
    "ShardDown",
    "Side",
    "UnknownName",
    "Wire",
    "anycast",
    "datagrams",
    "endpoint",
    "implementation",
    "layer",
    "local_or_remote",
    "mapping",
    "ordered_mcast",
    "reliable",
    "select",
    "serialize",
    "shard",
    "shard_of",
]

_HOMES = {
    "connection": "Connection Mapped Messages",
    "endpoints": "Endpoint endpoint",
    "errors": "BadMessage Busy Denied NoAgreement NoAnswer UnknownName",
    "explanation": "Explanation",
    "group.connection": "Delivered GroupConnection GroupEndpoint",
    "group.layer": "ordered_mcast",
    "implementations": "Context Ends Implementation Side implementation mapping",
    "nearest": "anycast",
    "places": "Scope",
    "reliability": "reliable",
    "runtime": "Runtime",
    "serialization": "serialize",
    "sharding": "ShardDown shard shard_of",
    "stack": "Chunnel Ordered Wire layer select",
    "transport": "datagrams local_or_remote",
}
"""Each module with the names that this one gives on.

A module is imported when a name of its is first asked for (PEP 562): what negotiates with a group
alone, as the key-value store does when it starts, need not wait for sockets, windows and codecs.
"""

if not TYPE_CHECKING:  # a checker shall see the names above, and no others

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names.split():
                found = getattr(import_module(f"{__name__}.{module}"), name)
                globals()[name] = found
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
