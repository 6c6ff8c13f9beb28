"""Chunnels, after Bertha: connections of layers that are chosen when the connection is made.

    kv = endpoint("kv-client", serialize(Op) | reliable() | local_or_remote())
    async with kv.connect("kv.prod", timeout=2) as conn:
        await conn.send(Op("put", "a", b"1"))
        print(await conn.receive(), conn.explain())

docs/chunnels.md says how to use them, and how to add one.
"""

from p4xos.chunnels.connection import Connection, Mapped, Messages
from p4xos.chunnels.endpoints import Endpoint, endpoint
from p4xos.chunnels.errors import Busy, Denied, NoAgreement, NoAnswer, UnknownName
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
