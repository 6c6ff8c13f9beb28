"""kvstore.Client at clusters of real processes, which are killed under it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from bench.store_cluster import StoreCluster
from kvstore.client import Client, OutcomeUnknown, Transaction, Unavailable

TASKS = 8


def client_of(store: StoreCluster, first: str | None = None, **options: float) -> Client:
    """A client that prefers one node."""
    names = sorted(store.names, key=lambda name: name != first)
    return Client([store.endpoint(name) for name in names], **options)  # type: ignore[arg-type]  # only numbers are given


class Counted:
    """Tasks that each count up a key of its own until they are told to stop."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.acknowledged = [0] * TASKS
        self.unknown = [0] * TASKS
        self.stopped = False
        self.progress = trio.Condition()

    async def run(self, number: int) -> None:
        while not self.stopped:
            try:
                await self.client.incr(f"count{number}")
            except OutcomeUnknown:
                self.unknown[number] += 1
            else:
                async with self.progress:
                    self.acknowledged[number] += 1
                    self.progress.notify_all()

    async def wait_for_more(self, count: int) -> None:
        """Returns when every task got so many more acknowledgements."""
        wanted = [found + count for found in self.acknowledged]
        async with self.progress:
            while any(a < w for a, w in zip(self.acknowledged, wanted, strict=True)):
                await self.progress.wait()

    async def check(self) -> None:
        """Nothing acknowledged is lost, and nothing was done twice."""
        for number in range(TASKS):
            found = int(await self.client.get(f"count{number}") or 0)
            acknowledged = self.acknowledged[number]
            assert acknowledged <= found <= acknowledged + self.unknown[number]


async def test_the_main_commands(shared: StoreCluster) -> None:
    async with client_of(shared) as client:
        await client.flushdb()
        assert await client.set("a", 1)
        assert not await client.set("a", 2, only="NX")
        assert await client.incr("a", 4) == 5
        assert await client.append("a", "x") == 2
        assert await client.mget("a", "b") == [b"5x", None]
        assert await client.expire("a", 1000)
        assert 990 <= await client.ttl("a") <= 1000
        assert await client.persist("a")
        await client.mset({f"k{n}": n for n in range(25)})
        assert {key async for key in client.all_keys("k*", page=10)} == {
            b"k%d" % n for n in range(25)
        }
        assert await client.delete("a", "b") == 1
        assert await client.dbsize() == 25
        assert (await client.info("server"))["redis_version"]
        async with client.pipeline() as pipeline:
            numbers = [pipeline.incr("n") for _ in range(100)]
        assert [number.value for number in numbers] == list(range(1, 101))
    async with Client(shared.cluster, database=1) as other:
        assert await other.get("n") is None


async def test_transactions_of_many_tasks_lose_no_update(shared: StoreCluster) -> None:
    async def take(transaction: Transaction) -> None:
        left = int(await transaction.now.get("stock") or 0)
        transaction.set("stock", left - 1)

    async def work(client: Client) -> None:
        for _ in range(5):
            await client.transact(take, "stock")

    async with client_of(shared, limit_s=60) as client:
        await client.set("stock", 100)
        async with trio.open_nursery() as nursery:
            for _ in range(4):
                nursery.start_soon(work, client)
        assert await client.get("stock") == b"80"


async def test_each_node_is_killed_in_turn_under_one_client(store: StoreCluster) -> None:
    store.wait_until_writable()
    async with client_of(store, store.coordinator(), limit_s=60) as client:
        counted = Counted(client)
        async with trio.open_nursery() as nursery:
            for number in range(TASKS):
                nursery.start_soon(counted.run, number)
            for _ in store.names:
                await counted.wait_for_more(10)
                assert client.node is not None
                (victim,) = (n for n in store.names if store.endpoint(n) == client.node)
                store.kill(victim)
                await counted.wait_for_more(10)
                assert client.node != store.endpoint(victim)
                await trio.to_thread.run_sync(store.start, victim)
            counted.stopped = True
        # In flight at a kill: at most one write of each task.
        assert all(unknown <= len(store.names) for unknown in counted.unknown)
        await counted.check()


@contextmanager
def stopped(store: StoreCluster, name: str) -> Iterator[None]:
    """A node that is there, and does nothing."""
    process = store.children[name].process
    process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        process.send_signal(signal.SIGCONT)


async def test_a_node_that_hangs_is_left(store: StoreCluster) -> None:
    store.wait_until_writable()
    leader = store.coordinator()
    follower = next(name for name in store.names if name != leader)
    async with client_of(store, follower, limit_s=60, patience_s=0.5) as client:
        await client.set("a", 1)
        assert client.node == store.endpoint(follower)
        with stopped(store, follower):
            assert await client.get("a") == b"1"
            assert client.node != store.endpoint(follower)
            assert await client.set("a", 2)
        assert await client.get("a") == b"2"


async def test_without_a_majority_it_says_what_is_known(store: StoreCluster) -> None:
    store.wait_until_writable()
    async with client_of(store) as client:
        await client.set("a", 1)
        assert client.node is not None
        store.kill()
        with pytest.raises(Unavailable, match="nothing was changed"):
            await client.get("a").within(1)
        with pytest.raises((Unavailable, OutcomeUnknown)):
            await client.set("a", 2).within(1)
        await trio.to_thread.run_sync(store.start)
        assert await client.get("a").within(60) in (b"1", b"2")
