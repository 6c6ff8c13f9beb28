"""Listing 4: sharding server. Three shards behind one address.

    python examples/listing4_sharding_server.py 7000

Who routes is negotiated for each connection: a client that can hash sends to the shards itself.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import trio

from p4xos.chunnels import (
    Chunnel,
    Connection,
    Endpoint,
    Runtime,
    Wire,
    datagrams,
    endpoint,
    reliable,
    serialize,
    shard,
)


@dataclass(frozen=True)
class Op:
    """A request, and its answer."""

    verb: str
    key: str
    value: bytes = b""


SHARDS = 3
STACK: Chunnel[Op, Wire] = serialize(Op) | reliable() | datagrams()
Address = tuple[str, int]


async def serve_shard(
    number: int, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """One shard: a map, and who asks it."""
    pairs: dict[str, bytes] = {}

    async def answer(connection: Connection[Op]) -> None:
        async for op in connection:
            if op.verb == "put":
                pairs[op.key] = op.value
            await connection.send(Op(f"shard {number}", op.key, pairs.get(op.key, b"")))

    own: Endpoint[Op] = endpoint(f"shard {number}", STACK, runtime=Runtime())
    await own.serve(answer, ("127.0.0.1", 0), task_status=task_status)


async def serve(
    address: Address, task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED
) -> None:
    """The shards and the address in front of them, until cancelled."""
    async with trio.open_nursery() as nursery:
        choices = [await nursery.start(serve_shard, number) for number in range(SHARDS)]
        srv: Endpoint[Op] = endpoint(
            "my-kv-srv", shard(Op, choices, by="key") | STACK, runtime=Runtime()
        )
        await srv.serve(None, address, task_status=task_status)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    trio.run(serve, ("127.0.0.1", int(sys.argv[1])))
