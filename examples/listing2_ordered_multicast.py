"""Listing 2: network-assisted consensus. Messages in one order for all, whatever orders them.

    python examples/listing2_ordered_multicast.py one/cluster.toml
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from p4xos.chunnels import GroupEndpoint, endpoint, ordered_mcast, serialize
from p4xos.config import Cluster


@dataclass(frozen=True)
class Op:
    """One operation of a replicated state machine."""

    verb: str
    key: str
    value: bytes = b""


client: GroupEndpoint[Op] = endpoint("ordered-multicast-client", serialize(Op) | ordered_mcast())


async def append(
    endpoints: Sequence[tuple[str, int]], secret_file: Path | None, ops: Sequence[Op]
) -> list[Op]:
    """Has operations ordered; then all of the group's up to there, in that order."""
    async with client.connect(endpoints, secret_file=secret_file) as rsm:
        print(rsm.explain())
        last = max(await rsm.submit_many(ops))
        ordered: list[Op] = []
        async for delivered in rsm.deliver():
            ordered.append(delivered.value)
            if delivered.instance == last:
                break
        return ordered


async def main(file: str) -> None:
    """On a running cluster of the plain log."""
    cluster = Cluster.load(file)
    endpoints = [(node.peer.host, node.peer.port) for node in cluster.nodes]
    secret_file = cluster.directory / "cluster.secret"
    ops = [Op("put", "a", b"1"), Op("put", "b", b"2"), Op("del", "a")]
    for op in await append(endpoints, secret_file if secret_file.exists() else None, ops):
        print(op)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1])
