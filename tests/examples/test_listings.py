"""The paper's listings, as programs that run: each does what the paper says of it."""

from __future__ import annotations

from pathlib import Path

import trio

from examples import (
    listing1_local_fast_path,
    listing2_ordered_multicast,
    listing3_request_routing,
    listing4_sharding_server,
    listing5_sharding_client,
)
from p4xos.chunnels import Runtime, endpoint, local_or_remote, shard_of
from tests.service.clusters import PATIENCE_S, running

ANYWHERE = ("127.0.0.1", 0)


async def test_listing_1_local_fast_path() -> None:
    app = listing1_local_fast_path
    with trio.fail_after(PATIENCE_S):
        async with app.container_app.serving(app.pong, ANYWHERE) as (host, port):
            assert "memory" in await app.ping(f"{host}:{port}")
        # A server in another process of this host.
        far = endpoint("container-app", local_or_remote(), runtime=Runtime())
        async with far.serving(app.pong, ANYWHERE) as (host, port):
            assert "unix" in await app.ping(f"{host}:{port}")


async def test_listing_2_ordered_multicast(tmp_path: Path) -> None:
    app = listing2_ordered_multicast
    ops = [app.Op("put", str(k)) for k in range(5)]
    async with running(tmp_path) as nodes:
        endpoints = [(node.peer.host, node.peer.port) for node in nodes.cluster.nodes]
        first = await app.append(endpoints, nodes.secret_file, ops)
        assert sorted(op.key for op in first) == sorted(op.key for op in ops)
        second = await app.append(endpoints[::-1], nodes.secret_file, ops[:2])
        assert second[:5] == first


async def test_listing_3_request_routing(tmp_path: Path) -> None:
    app = listing3_request_routing
    keys = [str(k) for k in range(12)]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    async with (
        running(tmp_path / "one", nodes=1) as one,
        running(tmp_path / "two", nodes=1) as two,
        trio.open_nursery() as nursery,
    ):
        groups = one.cluster, two.cluster
        address = await nursery.start(app.serve, groups, ANYWHERE)
        async with endpoint("client", app.STACK).connect(address) as connection:
            assert connection.explain().implementation("shard") == "relay"
            for number, key in enumerate(keys):
                await connection.send(app.Op("put", key, key.encode(), number))
                assert await connection.receive() == app.Op("is", key, key.encode(), number)
            for number, key in enumerate(keys):
                await connection.send(app.Op("get", key, number=number))
            found = {(await connection.receive()).key for _ in keys}
            assert found == set(keys)
        nursery.cancel_scope.cancel()
        # Each group has its own keys, and they survive the server: another one finds them.
        assert {shard_of(key, 2) for key in keys} == {0, 1}
        for number, rsm, nodes in ((0, app.rsm1, one), (1, app.rsm2, two)):
            async with rsm.connect(nodes.cluster) as connected:
                mine = {key for key in keys if shard_of(key, 2) == number}
                seen: set[str] = set()
                async for delivered in connected.deliver():
                    seen.add(delivered.value.key)
                    if seen == mine:
                        break


async def test_listings_4_and_5_sharding_server_and_client() -> None:
    server, client = listing4_sharding_server, listing5_sharding_client
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            address = await nursery.start(server.serve, ANYWHERE)
            for key in ("", "a", "key", "a longer key"):
                await client.put_key(key, key.encode() * 2, address)
                assert await client.get_key(key, address) == key.encode() * 2
            async with client.connect(address) as connection:
                told = connection.explain()
                assert told.implementation("shard") == "push"
                assert [each.type for each in told.layers] == [
                    "shard", "serialize", "reliable", "transport",
                ]  # fmt: skip
                await connection.send({"verb": "get", "key": "a", "value": b""})
                number = shard_of("a", server.SHARDS)
                assert (await connection.receive())["verb"] == f"shard {number}"
            nursery.cancel_scope.cancel()
