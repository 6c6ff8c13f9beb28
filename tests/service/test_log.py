"""The application's interface, over TCP and in a node (docs/PROTOCOL.md, section 6)."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from p4xos.client import Client
from p4xos.dialing import ConnectionLost, Unreachable
from p4xos.errors import NoQuorum, NotDelivered, Overloaded, Trimmed
from p4xos.interface import Log
from p4xos.logstore import Retention
from tests.service.clusters import Nodes, running, until


async def take(log: Log, count: int, after: int = 0) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    async for value in log.deliver(after):
        found.append(value)
        if len(found) == count:
            break
    return found


async def check_log(log: Log, other: Log, long_bytes: int) -> None:
    """All methods of one log, and that another one sees the same."""
    first = await log.submit(b"one", deadline=5)
    many = await log.submit_many([b"value %d" % k for k in range(500)])
    assert len(set(many)) == 500
    assert min(many) > first
    long = b"".join(k.to_bytes(4) for k in range(long_bytes // 4))
    at = await log.submit(long)

    expected = [
        (first, b"one"),
        *sorted(zip(many, (b"value %d" % k for k in range(500)), strict=False)),
        (at, long),
    ]
    assert await take(log, 502) == expected
    assert await take(other, 502) == expected
    assert await take(other, 2, after=first) == expected[1:3]

    batches = []
    async for batch in other.deliver_batches():
        batches += batch
        if len(batches) >= 502:
            break
    assert batches == expected

    assert (await log.recover(first))[:3] == (first, "value", b"one")
    assert (await other.recover(at)).kind == "fragment"
    opened = await log.recover(first - 1)
    assert opened.kind in ("open", "no-op")
    found = await log.recover_many(many[:20])
    assert [value.payload for value in found] == [b"value %d" % k for k in range(20)]
    with pytest.raises(NotDelivered):
        await log.recover(at + 1000)
    assert await log.submit_many([]) == []


async def test_one_node(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes, Client.connect(nodes.cluster) as client:
        await check_log(client, nodes.local("n1"), 100_000)


async def test_three_nodes_and_clients_of_two(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        peers = [node.peer for node in nodes.cluster.nodes]
        async with (
            Client.connect(peers[:1], secret_file=nodes.secret_file) as one,
            Client.connect(peers[1:2], secret_file=nodes.secret_file) as two,
        ):
            await check_log(one, two, 100_000)
        await until(lambda: len({nodes.delivered(name) for name in nodes.running}) == 1)
        await check_same(nodes)


async def check_same(nodes: Nodes) -> None:
    """Every node delivers the same."""
    through = min(nodes.delivered(name) for name in nodes.running)
    logs = []
    for name in nodes.running:
        found: list[tuple[int, bytes]] = []
        stores = nodes.running[name].application
        assert stores is not None
        async for batch in nodes.local(name).deliver_batches():
            found += batch
            break
        logs.append([value for value in found if value[0] <= through])
    assert all(log == logs[0] for log in logs)


async def test_in_a_node(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        await check_log(nodes.local("n1"), nodes.local("n3"), 100_000)


async def test_a_second_client_follows_live(tmp_path: Path) -> None:
    async with (
        running(tmp_path) as nodes,
        Client.connect(nodes.cluster) as writer,
        Client.connect(nodes.cluster) as reader,
    ):
        stream = reader.deliver()
        for k in range(20):
            instance = await writer.submit(b"%d" % k)
            assert await anext(stream) == (instance, b"%d" % k)


async def test_many_tasks_on_one_small_window(tmp_path: Path) -> None:
    """A bounded window with back-pressure: more is submitted than fits, and all of it is taken."""
    async with (
        running(tmp_path, nodes=1) as nodes,
        Client.connect(nodes.cluster, window=8) as client,
    ):
        instances: list[int] = []

        async def write(k: int) -> None:
            instances.append(await client.submit(b"%d" % k))

        async with trio.open_nursery() as nursery:
            for k in range(100):
                nursery.start_soon(write, k)
        instances += await client.submit_many([b"%d" % k for k in range(100)])
        assert len(set(instances)) == 200


async def test_trimmed(tmp_path: Path) -> None:
    """What is no longer retained is refused, with where to go on."""
    async with (
        running(tmp_path, nodes=1, retention=Retention(1 << 30, 64)) as nodes,
        Client.connect(nodes.cluster) as client,
    ):
        for _ in range(10):
            await client.submit_many([b"value"] * 50)
        with pytest.raises(Trimmed) as trimmed:
            await client.recover(1)
        low = trimmed.value.low
        assert low > 400
        with pytest.raises(Trimmed):
            await take(client, 1)
        found = await take(client, 1, after=low - 1)
        assert found[0][0] >= low
        assert (await client.recover(low)).instance == low


async def test_no_quorum(tmp_path: Path) -> None:
    """With two of three nodes down the outcome is unknown, and is decided when they are back."""
    async with running(tmp_path) as nodes:
        peers = [node.peer for node in nodes.cluster.nodes]
        async with Client.connect(peers[:1], secret_file=nodes.secret_file) as client:
            first = await client.submit(b"before")
            await nodes.stop("n2", "n3")
            with pytest.raises(NoQuorum):
                await client.submit(b"unknown", deadline=0.3)
            with pytest.raises(NoQuorum):
                await nodes.local("n1").submit(b"unknown too", deadline=0.3)
            await nodes.start("n2", "n3")
            found = await take(client, 3)
            assert found[0] == (first, b"before")
            assert {value for _, value in found[1:]} == {b"unknown", b"unknown too"}


async def test_a_lost_connection_is_an_unknown_outcome(tmp_path: Path) -> None:
    """It is not submitted again by itself; the next submission goes to another node."""
    async with running(tmp_path) as nodes, Client.connect(nodes.cluster) as client:
        await client.submit(b"before")
        stream = client.deliver()
        assert (await anext(stream))[1] == b"before"
        await nodes.stop("n2", "n3")
        async with trio.open_nursery() as nursery:

            async def submit() -> None:
                with pytest.raises(ConnectionLost):
                    await client.submit(b"unknown")

            nursery.start_soon(submit)
            proposer = nodes.running["n1"].application
            assert proposer is not None
            await until(lambda: proposer.replica.proposer.in_flight > 0)
            await nodes.stop("n1")
        await nodes.start("n2", "n3")
        instance = await client.submit(b"after")
        async for found in stream:  # goes on at another node by itself
            if found == (instance, b"after"):
                break


async def test_overloaded_while_the_window_is_full(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes, Client.connect(nodes.cluster, window=1) as client:
        await client.submit(b"before")
        await nodes.stop(*[name for name in nodes.running if name != "n1"])
        with pytest.raises(NoQuorum):
            await client.submit(b"one", deadline=0.2)
        with pytest.raises(Overloaded):
            await client.submit(b"two", deadline=0.2)


async def test_refused_when_connecting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        peers = [node.peer for node in nodes.cluster.nodes]
        with pytest.raises(Unreachable, match="belongs to cluster"):
            async with Client.connect(
                peers, cluster_id=nodes.cluster.id ^ 1, secret_file=nodes.secret_file
            ):
                pass
        monkeypatch.setattr("p4xos.dialing.SEALED_VERSION", 99)
        with pytest.raises(Unreachable, match="same release"):
            async with Client.connect(peers, secret_file=nodes.secret_file):
                pass
    monkeypatch.setattr("p4xos.client.PATIENCE_S", 0.0)
    with pytest.raises(Unreachable, match="refused"):
        async with Client.connect(peers, secret_file=nodes.secret_file):
            pass
    with pytest.raises(ValueError, match="no address"):
        Client.connect([])


async def test_an_error_inside_is_raised_as_it_is(tmp_path: Path) -> None:
    """Not inside of an exception group, though the client has tasks."""

    async def fail(nodes: Nodes) -> None:
        async with Client.connect(nodes.cluster) as client:
            await client.submit(b"value")
            raise KeyError("mine")

    async with running(tmp_path, nodes=1) as nodes:
        with pytest.raises(KeyError, match="mine"):
            await fail(nodes)
