"""Listing 3: request routing. A key-value store that is sharded over two replicated groups.

    python examples/listing3_request_routing.py one/cluster.toml two/cluster.toml

Clients send to one address; which group has a key is nothing they know of.
"""

from __future__ import annotations

import secrets
import sys
from dataclasses import dataclass, replace

import trio

from p4xos.chunnels import (
    Endpoint,
    GroupConnection,
    GroupEndpoint,
    endpoint,
    local_or_remote,
    ordered_mcast,
    reliable,
    serialize,
    shard,
)
from p4xos.config import Cluster


@dataclass(frozen=True)
class Op:
    """A request, and its answer."""

    verb: str
    key: str
    value: bytes = b""
    number: int = 0
    """The client's, since answers of two shards may come in another order."""
    token: str = ""
    """The server's, by which it knows its own requests in the log."""


rsm1: GroupEndpoint[Op] = endpoint("rsm1", serialize(Op) | ordered_mcast())
rsm2: GroupEndpoint[Op] = endpoint("rsm2", serialize(Op) | ordered_mcast())
STACK = serialize(Op) | reliable() | local_or_remote()


class Store:
    """The state machine over one group: a replica of its map, and requests to it."""

    def __init__(self, rsm: GroupConnection[Op]) -> None:
        """Empty until `run` has applied what the group has."""
        self._rsm = rsm
        self._map: dict[str, bytes] = {}
        self._asked: dict[str, tuple[trio.Event, list[Op]]] = {}

    async def run(self) -> None:
        """Applies what is delivered, in its order, until cancelled."""
        async for _, op in self._rsm.deliver():
            if op.verb == "put":
                self._map[op.key] = op.value
            if op.token in self._asked:
                answered, answer = self._asked.pop(op.token)
                answer.append(Op("is", op.key, self._map.get(op.key, b""), op.number))
                answered.set()

    async def execute(self, op: Op) -> Op:
        """Runs a request: reads go through the log too, so that they see all before them."""
        token = secrets.token_hex(8)
        answered, answer = self._asked[token] = trio.Event(), []
        try:
            await self._rsm.submit(replace(op, token=token))
            await answered.wait()
        finally:
            self._asked.pop(token, None)
        return answer[0]


async def serve(
    groups: tuple[Cluster, Cluster],
    address: tuple[str, int],
    task_status: trio.TaskStatus[tuple[str, int]] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serves both groups at one address, until cancelled."""
    async with (
        rsm1.connect(groups[0]) as first,
        rsm2.connect(groups[1]) as second,
        trio.open_nursery() as nursery,
    ):
        stores = Store(first), Store(second)
        for store in stores:
            nursery.start_soon(store.run)
        srv: Endpoint[Op] = endpoint(
            "service", shard(Op, [store.execute for store in stores], by="key") | STACK
        )
        await srv.serve(None, address, task_status=task_status)


async def main(one: str, two: str) -> None:
    """On two running clusters of the plain log."""
    async with trio.open_nursery() as nursery:
        groups = Cluster.load(one), Cluster.load(two)
        address = await nursery.start(serve, groups, ("127.0.0.1", 7000))
        async with endpoint("client", STACK).connect(address) as connection:
            print(connection.explain())
            for number, key in enumerate("abcd"):
                await connection.send(Op("put", key, key.encode() * 3, number))
                print(await connection.receive())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2])
