"""More than a cluster of real processes can do: it says so, stays bounded, and loses nothing.

Each client keeps an account of what it was promised (`bench.crowd`). Short forms of what
`python -m bench overload` measures; how fast things go is asked there.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
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
from bench.store_cluster import StoreCluster
from kvstore import burden, comparison
from kvstore.keyspace import MAX_VALUE_BYTES

LIMIT_S = 120
MIB = 1 << 20
SPARE_MIB = 160
"""Beside what clients hold: rings and tails that fill with the first large values of a node, and
what Python and the kernel's copies of one value take."""


async def nothing_lost(store: StoreCluster, accounts: Iterable[Account]) -> None:
    """Every node holds all that was acknowledged, and nothing that was not sent."""
    accounts = list(accounts)
    for name in store.names:
        assert await wrong_accounts(accounts, store.endpoint(name)) == []


@asynccontextmanager
async def others(store: StoreCluster, node: int) -> AsyncIterator[Crowd]:
    """Ordinary clients of one node; when the block ends each must still get on."""
    crowd = Crowd([store.endpoint(store.names[node])], 4, f"others{node}")
    with trio.fail_after(LIMIT_S):
        async with crowd.working():
            await crowd.more(3)
            yield crowd
            await crowd.more(9)
    assert not crowd.errors
    assert crowd.closed == 0
    await nothing_lost(store, crowd.accounts)


async def counters(store: StoreCluster, name: str) -> dict[str, int]:
    """What a node's server has counted."""
    async with connected(store.endpoint(name)) as connection:
        text = await connection.ask("INFO", "kvstore")
    assert isinstance(text, bytes)
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {key: int(value) for key, _, value in lines if value.isdigit()}


async def until_counted(store: StoreCluster, name: str, counter: str, above: int) -> None:
    while (await counters(store, name))[counter] <= above:
        await trio.sleep(0.05)


async def test_a_thousand_clients_at_once(shared: StoreCluster) -> None:
    addresses = [shared.endpoint(name) for name in shared.names]
    crowd = Crowd(addresses, 1000, "many")
    for name in shared.names:
        forget_peak(shared.children[name].pid)
    rest = {name: memory_mib(shared.children[name].pid)[0] for name in shared.names}
    with trio.fail_after(LIMIT_S):
        async with crowd.working():
            await crowd.more(3)
    assert crowd.closed == 0
    assert not crowd.errors
    await nothing_lost(shared, crowd.accounts)
    for name in shared.names:
        assert memory_mib(shared.children[name].pid)[1] < rest[name] + 64
