"""Nodes restarted one after the other, and one replaced, while clients with retries go on."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import redis
import trio
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from bench.processes import wait_until
from bench.store_cluster import StoreCluster
from bench.writers import lost, wait_for_more, writing
from kvstore import comparison
from kvstore.client import Client
from tests.system.test_kv_client import TASKS, Counted
from tests.system.test_watching import page

LIMIT_S = 120.0


def ready(store: StoreCluster, name: str) -> bool:
    """What an operator asks between two restarts."""
    return page(store, name, "/readyz")[0] == 200


def restart(store: StoreCluster, name: str) -> None:
    """As docs/operating.md says: SIGTERM, start, wait until it is ready."""
    assert store.children[name].stop() == 0
    store.start(name)
    wait_until(lambda: ready(store, name), LIMIT_S, f"node {name} ready again")


class Reader(threading.Thread):
    """redis-py with retries as docs/client.md has them for reads, at one node after the other."""

    def __init__(self, store: StoreCluster) -> None:
        super().__init__(daemon=True)
        retry = Retry(ConstantBackoff(0.02), 2)
        self.clients = [
            redis.Redis(*store.endpoint(name), retry=retry, socket_timeout=15)
            for name in store.names
        ]
        self.failed: list[str] = []
        self.done = 0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.is_set():
            for _ in self.clients:
                try:
                    self.clients[0].get("count0")
                    self.done += 1
                    break
                except (redis.ConnectionError, redis.TimeoutError):
                    self.clients.append(self.clients.pop(0))
            else:
                self.failed.append("no node answers")
        for client in self.clients:
            client.close()


@contextmanager
def reading(store: StoreCluster) -> Iterator[Reader]:
    reader = Reader(store)
    reader.start()
    try:
        yield reader
    finally:
        reader.over.set()
        reader.join()


class Counting(threading.Thread):
    """Tasks of one `kvstore.Client` that count up; nodes are started from the main thread."""

    def __init__(self, store: StoreCluster) -> None:
        super().__init__(daemon=True)
        self._addresses = [store.endpoint(name) for name in store.names]
        self.counted: Counted | None = None

    def run(self) -> None:
        trio.run(self._count)

    async def _count(self) -> None:
        async with Client(self._addresses, patience_s=30.0, limit_s=60.0) as client:
            self.counted = Counted(client)
            async with trio.open_nursery() as nursery:
                for number in range(TASKS):
                    nursery.start_soon(self.counted.run, number)
            await self.counted.check()

    def wait_for_more(self, count: int) -> None:
        """Returns when each task got so many more acknowledgements."""
        wait_until(lambda: self.counted is not None, LIMIT_S, "a client")
        assert self.counted is not None
        found = self.counted.acknowledged
        wanted = [n + count for n in found]
        wait_until(
            lambda: not self.is_alive() or all(n >= w for n, w in zip(found, wanted, strict=True)),
            LIMIT_S, "progress of each task",
        )  # fmt: skip
        assert self.is_alive()


def test_a_rolling_restart_fails_no_request(store: StoreCluster) -> None:
    """Not even an INCR, which no client may send twice.

    What a node has begun it answers, and what it has not begun it refuses in words.
    """
    store.wait_until_writable()
    counting = Counting(store)
    with reading(store) as reader:
        counting.start()
        for name in store.names:
            counting.wait_for_more(5)
            restart(store, name)
        counting.wait_for_more(5)
        assert counting.counted is not None
        counting.counted.stopped = True
        counting.join(LIMIT_S)
    assert not counting.is_alive()
    assert counting.counted.unknown == [0] * TASKS
    assert reader.failed == []
    assert reader.done
    assert comparison.compare(store.cluster).good


def test_a_dead_machine_is_replaced(store: StoreCluster) -> None:
    """By the words of docs/operating.md; the cluster bears the loss of another node afterwards."""
    store.wait_until_writable()
    gone, other, last = store.names
    with writing([store.endpoint(other), store.endpoint(last)]) as writers:
        wait_for_more(writers, 5)
        store.kill(gone)
        shutil.rmtree(store.data(gone))
        wait_for_more(writers, 5)
        store.launch(gone, "--join")
        store.wait_until_writable(gone)
        wait_until(lambda: ready(store, gone), LIMIT_S, "the new machine ready")
        wait_for_more(writers, 5)
    assert store.consensus(gone)["silent_acceptors"] == "0"
    assert comparison.compare(store.cluster).good
    store.kill(other)
    store.wait_until_writable(gone, last)
    for name in (gone, last):
        assert lost(writers, store.endpoint(name)) == []
