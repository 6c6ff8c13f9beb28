"""What layers, connecting, and the way to the log by `ordered_mcast` cost."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from statistics import median

import trio

from bench.processes import Child, children
from bench.results import Metric, Sample
from p4xos.chunnels import (
    Chunnel,
    Connection,
    Context,
    Messages,
    Runtime,
    datagrams,
    endpoint,
    layer,
    local_or_remote,
    ordered_mcast,
    reliable,
)
from p4xos.chunnels.connection import RECEIVE_MANY, Mapped
from p4xos.chunnels.discovery.service import Service
from p4xos.chunnels.implementations import Ends
from p4xos.chunnels.metering import Meters, Tally, metered
from p4xos.chunnels.serving import until_closed
from p4xos.client import Client
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME, Wanted, find_or_create
from p4xos.launcher import LogApplication

LAYERS = 10
BATCH = 1024
BATCHES, SINGLES = 500, 20_000
CONNECTIONS, CONNECTIONS_LEAST = 300, 5
SETTLED_S = 0.01
"""Until it is looked again whether a connection's resources are free."""
VALUES, VALUES_LEAST = 12_000, 2_000
"""Of a turn: short ones, so that a slower second meets both ways."""
VALUE = bytes(64)
TASKS = 4
"""That submit at once: while one waits for its answers, others are packed."""
TURNS = 8
"""Of a stack with the layer and without it, in turn."""
RATE_TURNS = 32
"""Of the direct way and the Chunnel's, in turn."""


class Nothing(Messages[bytes]):
    """A layer that does nothing, as a program would write it."""

    def __init__(self, below: Messages[bytes]) -> None:
        """On top of another one."""
        self._below = below

    async def send_many(self, values: Sequence[bytes]) -> None:
        """Hands them on."""
        await self._below.send_many(values)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        """Hands them on."""
        return await self._below.receive_many(limit)

    async def aclose(self) -> None:
        """Closes what is below."""
        await self._below.aclose()


class Sink(Messages[bytes]):
    """Takes all, gives the same batch again and again."""

    def __init__(self) -> None:
        """Ready."""
        self._batch = [VALUE] * BATCH

    async def send_many(self, values: Sequence[bytes]) -> None:
        """Forgets them."""

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[bytes]:
        """The batch."""
        return self._batch[:limit]

    async def aclose(self) -> None:
        """Nothing is open."""


def _same(values: Sequence[bytes]) -> list[bytes]:
    return values  # type: ignore[return-value]  # as they came: a copy would be this layer's work


Layer = Callable[[Messages[bytes]], Messages[bytes]]
KINDS: dict[str, Layer] = {
    "that hands on": lambda below: below,
    "of two functions": lambda below: Mapped(below, _same, _same),
    "with code of its own": Nothing,
}
"""The ways to write a layer that does nothing."""


def layers(scale: float) -> Iterator[Sample]:
    """A no-op layer's CPU time, counted as each layer is, there and back."""
    batches, singles = max(int(BATCHES * scale), 20), max(int(SINGLES * scale), 200)

    async def in_batches(top: Messages[bytes]) -> float:
        batch = [VALUE] * BATCH
        began = time.process_time()
        for _ in range(batches):
            await top.send_many(batch)
            await top.receive_many(BATCH)
        return (time.process_time() - began) / (2 * batches * BATCH)

    async def one_by_one(top: Messages[bytes]) -> float:
        began = time.process_time()
        for _ in range(singles):
            await top.send(VALUE)
            await top.receive()
        return (time.process_time() - began) / (2 * singles)

    async def cost(
        way: Callable[[Messages[bytes]], Awaitable[float]], kind: Layer, count: bool = True
    ) -> float:
        """The cheapest of some turns: others that run meanwhile only add."""
        with_, without = [], []
        for _ in range(TURNS):
            with_.append(await way(stacked(kind, LAYERS, count)))
            without.append(await way(stacked(kind, 0, count)))
        return max(min(with_) - min(without), 0.0) / LAYERS * 1e6

    for name, kind in KINDS.items():
        # Layers with frames of their own cost what Python's calls do; they are told, not bound.
        most = None if kind is Nothing else 0.3
        for how, way in (("in batches", in_batches), ("one by one", one_by_one)):
            bound = 0.3 if way is in_batches else most
            metric = Metric(
                "chunnels", f"a no-op layer {name}, {how}", "us of CPU/message", at_most=bound
            )
            yield Sample(metric, trio.run(cost, way, kind))
    # Python's own part of it: as with Runtime(meter=False), one `await` a layer and nothing else.
    name = "a no-op layer with code of its own that is not counted, one by one"
    metric = Metric("chunnels", name, "us of CPU/message", at_most=0.3)
    yield Sample(metric, trio.run(cost, one_by_one, Nothing, False))


def stacked(kind: Layer, layers: int, count: bool) -> Messages[bytes]:
    """So many layers as a connection has them, on one that takes all."""
    meters = Meters(Tally(), "bench", "client")
    top: Messages[bytes] = Sink()
    if count:
        top = metered(top, None, partial(meters.layer, "sink", "bench"))
    for k in range(layers):
        wrapped = kind(top)
        top = metered(wrapped, top, partial(meters.layer, str(k), "bench")) if count else wrapped
    return top


def connecting(scale: float) -> Iterator[Sample]:
    """How long a connection takes to open, by how its messages travel; and its round trips."""
    count = max(int(CONNECTIONS * scale), CONNECTIONS_LEAST)

    async def echo(connection: Connection[bytes]) -> None:
        async for message in connection:
            await connection.send(message)

    async def main() -> dict[str, list[float]]:
        found: dict[str, list[float]] = {}
        stack = reliable() | local_or_remote()
        server = Runtime()
        elsewhere = Runtime()
        elsewhere.place = elsewhere.place._replace(host="elsewhere")
        ways = {"memory": server, "a Unix socket": Runtime(), "UDP": elsewhere}
        async with endpoint("s", stack, runtime=server).serving(echo, ("127.0.0.1", 0)) as address:
            for name, runtime in ways.items():
                client = endpoint("c", stack, runtime=runtime)
                for _ in range(count):
                    began = time.perf_counter()
                    async with client.connect(address):
                        found.setdefault(name, []).append(time.perf_counter() - began)
        return found

    for name, taken_s in trio.run(main).items():
        metric = Metric("chunnels", f"connecting by {name}, both ends in one process, p50", "us")
        yield Sample(metric, median(taken_s) * 1e6)


def round_trips(directory: Path) -> Iterator[Sample]:
    """How many connecting waits for at most, whoever claims resources and however it is found."""

    @asynccontextmanager
    async def plain(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
        yield below

    def able(path: Path, claiming: Sequence[str]) -> Runtime:
        runtime = Runtime(discovery=path)
        for type, ends in (("one", Ends.CLIENT), ("two", Ends.SERVER)):
            taken = {f"{type}.slots": 1} if type in claiming else {}
            runtime.implementation(type, "bench", ends=ends, resources=taken)(plain)
        return runtime

    async def main() -> list[int]:
        path = directory / "discovery.sock"
        service = Service(path, capacities={"one.slots": 1, "two.slots": 1})
        one: Chunnel[bytes, bytes] = layer("one")
        two: Chunnel[bytes, bytes] = layer("two")
        stack = one | two | datagrams()
        found = []
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run)
            for claiming in ((), ("one",), ("two",), ("one", "two")):
                server = endpoint("s", stack, runtime=able(path, claiming))
                async with server.serving(
                    until_closed, ("127.0.0.1", 0), announce="bench"
                ) as address:
                    for to in (address, "bench"):
                        client = endpoint("c", stack, runtime=able(path, claiming))
                        async with client.connect(to) as connection:
                            found.append(connection.round_trips)
                        while set(service.book.free().values()) != {1}:
                            await trio.sleep(SETTLED_S)  # the server has not noticed it yet
            nursery.cancel_scope.cancel()
        return found

    metric = Metric("chunnels", "round trips of connecting, by far", "round trips", at_most=2)
    yield Sample(metric, max(trio.run(main)))


def ordered(directory: Path, scale: float) -> Iterator[Sample]:
    """Values a second into a group: by the client of the log, and by the Chunnel on it."""
    directory.mkdir()
    application = LogApplication()
    cluster = find_or_create(directory, Wanted(3, 0, "memory"), application.complete)
    values = max(int(VALUES * scale), VALUES_LEAST)
    with children() as started:
        for node in cluster.nodes:
            command = application.command(directory / CLUSTER_NAME, node.name)
            started.append(Child(node.name, command, directory / f"{node.name}.log"))
        turns = trio.run(_in_turn, cluster, values)
    direct, chunnel = (median(rates) for rates in zip(*turns, strict=True))
    yield Sample(Metric("chunnels", "submitted by the client of the log", "values/s"), direct)
    yield Sample(Metric("chunnels", "submitted by ordered_mcast", "values/s"), chunnel)
    metric = Metric("chunnels", "ordered_mcast beside the client", "of its rate", at_least=0.95)
    yield Sample(metric, median(by_chunnel / by_client for by_client, by_chunnel in turns))


async def _in_turn(cluster: Cluster, values: int) -> list[tuple[float, float]]:
    """Values a second of each turn, by the client and by the Chunnel; who begins, alternates."""
    found: list[tuple[float, float]] = []
    async with Client.connect(cluster) as client:
        group = endpoint("bench", ordered_mcast())
        async with group.connect(cluster) as rsm:
            await client.submit(b"the group serves, and has seen both")
            await rsm.submit(b"the same")
            for turn in range(RATE_TURNS):
                ways = [client.submit_many, rsm.submit_many]
                rates = [await _rate(way, values) for way in ways[:: -1 if turn % 2 else 1]]
                first, second = rates[:: -1 if turn % 2 else 1]
                found.append((first, second))
    return found


async def _rate(submit_many: Callable[[list[bytes]], Awaitable[object]], values: int) -> float:
    left = values // BATCH

    async def submit() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            await submit_many([VALUE] * BATCH)

    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for _ in range(TASKS):
            nursery.start_soon(submit)
    return values // BATCH * BATCH / (time.perf_counter() - began)
