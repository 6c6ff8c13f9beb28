"""More than a cluster can do: what it then does, what it holds in memory, and how it is afterwards.

Ordinary clients, in closed loops at all nodes, are there all the time; their commands a second are
taken before, during and after each load. Memory is the most that any node had meanwhile.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bench.crowd import (
    Account,
    Crowd,
    Sluggard,
    burst,
    connected,
    forget_peak,
    memory_mib,
    request,
    wrong_accounts,
)
from bench.errors import BenchError
from bench.results import Metric, Sample
from bench.store_cluster import StoreCluster
from kvstore.keyspace import MAX_VALUE_BYTES

ORDINARY = 30
MANY = 1000
SLOW_READERS, HALF_SENDERS, HUGE, BURSTS, BURST_COMMANDS = 100, 100, 24, 300, 1000
WATCH_S, SETTLE_S = 3.0, 2.0

AT_REST = Metric("overload", "memory of a node at rest", "MiB")
LOST = Metric("overload", "acknowledged writes lost", "accounts", at_most=0)
MANY_RATE = Metric("overload", f"{MANY} clients in closed loops", "commands/s")
MANY_MEMORY = Metric("overload", f"{MANY} clients in closed loops, memory", "MiB")

Load = Callable[[StoreCluster, trio.Nursery, list[Account]], None]


def _slow_readers(cluster: StoreCluster, nursery: trio.Nursery, accounts: list[Account]) -> None:
    asked = request("MGET", *["large"] * 8) * 4
    for _ in range(SLOW_READERS):
        nursery.start_soon(Sluggard(cluster.endpoint(cluster.names[0]), asked).run)


def _half_senders(cluster: StoreCluster, nursery: trio.Nursery, accounts: list[Account]) -> None:
    data = request("SET", "half", b"v" * MAX_VALUE_BYTES)[:-2]
    for _ in range(HALF_SENDERS):
        nursery.start_soon(Sluggard(cluster.endpoint(cluster.names[0]), data).run)


def _huge(cluster: StoreCluster, nursery: trio.Nursery, accounts: list[Account]) -> None:
    data = request("SET", "huge", b"v" * MAX_VALUE_BYTES)
    for number in range(HUGE):
        address = cluster.endpoint(cluster.names[number % len(cluster.names)])
        nursery.start_soon(Sluggard(address, data).run)


def _burst(cluster: StoreCluster, nursery: trio.Nursery, accounts: list[Account]) -> None:
    for number in range(BURSTS):
        account = Account(f"burst{len(accounts)}")
        accounts.append(account)
        address = cluster.endpoint(cluster.names[number % len(cluster.names)])
        nursery.start_soon(burst, account, address, BURST_COMMANDS)


LOADS: dict[str, Load] = {
    f"{SLOW_READERS} clients that do not read": _slow_readers,
    f"{HALF_SENDERS} half-sent commands of 8 MiB": _half_senders,
    f"{HUGE} values of 8 MiB at once": _huge,
    f"{BURSTS} pipelines of {BURST_COMMANDS} at once": _burst,
}


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample]:
    """Yields rates and memory for each load, once a run."""
    for number in range(runs):
        with StoreCluster(scratch / f"overload{number}") as cluster:
            cluster.start()
            cluster.wait_until_writable()
            yield from trio.run(_samples, cluster, scale)


async def _samples(cluster: StoreCluster, scale: float) -> list[Sample]:
    samples = [Sample(AT_REST, _memory(cluster))]
    addresses = [cluster.endpoint(name) for name in cluster.names]
    many = Crowd(addresses, MANY, "many")
    async with _peak(cluster, samples, MANY_MEMORY), many.working():
        await many.more(3)
        samples.append(Sample(MANY_RATE, await many.rate(WATCH_S * scale)))
    async with connected(addresses[0]) as connection:
        answer = await connection.ask("SET", "large", b"v" * (1 << 20))
        if answer != b"OK":
            raise BenchError(f"a value of 1 MiB was answered with {answer}")
    ordinary = Crowd(addresses, ORDINARY, "ordinary")
    accounts = [*many.accounts, *ordinary.accounts]
    async with ordinary.working():
        await ordinary.more(3)
        for name, load in LOADS.items():
            samples += await _under(cluster, ordinary, name, load, accounts, WATCH_S * scale)
    wrong = [await wrong_accounts(accounts, address) for address in addresses]
    samples.append(Sample(LOST, sum(map(len, wrong))))
    return samples


async def _under(
    cluster: StoreCluster, ordinary: Crowd, name: str, load: Load, accounts: list[Account],
    seconds: float,
) -> list[Sample]:  # fmt: skip
    """The ordinary clients' rate before, during and after a load, and the nodes' memory."""

    def metric(what: str, unit: str) -> Metric:
        return Metric("overload", f"{name}, {what}", unit)

    samples = [Sample(metric("others before", "commands/s"), await ordinary.rate(seconds))]
    async with _peak(cluster, samples, metric("memory", "MiB")), trio.open_nursery() as nursery:
        load(cluster, nursery, accounts)
        await trio.sleep(seconds / 3)
        rate = await ordinary.rate(seconds)
        samples.append(Sample(metric("others during", "commands/s"), rate))
        if load is not _burst:  # it ends by itself
            nursery.cancel_scope.cancel()
    await trio.sleep(SETTLE_S)
    samples.append(Sample(metric("others after", "commands/s"), await ordinary.rate(seconds)))
    samples.append(Sample(metric("memory after", "MiB"), _memory(cluster)))
    return samples


@asynccontextmanager
async def _peak(
    cluster: StoreCluster, samples: list[Sample], metric: Metric
) -> AsyncIterator[None]:
    """Adds the most memory that a node had within the block."""
    for pid in cluster.running_pids():
        forget_peak(pid)
    yield
    samples.append(Sample(metric, max(memory_mib(pid)[1] for pid in cluster.running_pids())))


def _memory(cluster: StoreCluster) -> float:
    return max(memory_mib(pid)[0] for pid in cluster.running_pids())
