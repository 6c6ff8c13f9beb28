"""More than a cluster of real processes can do: it says so, stays bounded, and loses nothing.

Each client keeps an account of what it was promised (`bench.crowd`). Short forms of what
`python -m bench overload` measures; how fast things go is asked there.
"""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager
from itertools import count

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
from bench.processes import python_module
from bench.store_cluster import StoreCluster
from kvstore import burden, comparison
from kvstore.keyspace import MAX_VALUE_BYTES
from p4xos.creation import CLUSTER_NAME
from tests.system.split_cluster import running_split, stopped

LIMIT_S = 120
MIB = 1 << 20
_GROUPS = count()
SPARE_MIB = 160
"""Beside what clients hold: rings and tails that fill with the first large values of a node, and
what Python and the kernel's copies of one value take."""


async def nothing_lost(store: StoreCluster, accounts: Iterable[Account]) -> None:
    """Every node holds all that was acknowledged, and nothing that was not sent."""
    accounts = list(accounts)
    with trio.fail_after(LIMIT_S):
        for name in store.names:
            assert await wrong_accounts(accounts, store.endpoint(name)) == []


@asynccontextmanager
async def others(store: StoreCluster, node: int) -> AsyncIterator[Crowd]:
    """Ordinary clients of one node; when the block ends each must still get on."""
    crowd = Crowd([store.endpoint(store.names[node])], 4, f"others{next(_GROUPS)}:")
    with trio.fail_after(LIMIT_S):
        async with crowd.working():
            await crowd.more(3)
            yield crowd
            await crowd.more(9)
    assert not crowd.errors
    assert crowd.closed == 0
    with trio.fail_after(LIMIT_S):  # at that node: another may be stopped
        assert await wrong_accounts(crowd.accounts, store.endpoint(store.names[node])) == []


async def counters(store: StoreCluster, name: str) -> dict[str, int]:
    """What a node's server has counted."""
    async with connected(store.endpoint(name)) as connection:
        text = await connection.ask("INFO", "stats")
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


async def test_clients_that_do_not_read(shared: StoreCluster) -> None:
    """They may hold so much together; who takes nothing for longest is cut off first."""
    node = shared.names[0]
    address, pid = shared.endpoint(node), shared.children[node].pid
    async with connected(address) as connection:
        assert await connection.ask("SET", "large", b"v" * MIB) == b"OK"
    forget_peak(pid)
    rest, before = memory_mib(pid)[0], await counters(shared, node)
    asked = request("MGET", *["large"] * 8) * 4
    slow = [Sluggard(address, asked) for _ in range(60)]
    slow += [Sluggard(address, asked, trickle_s=0.2) for _ in range(5)]
    slow += [Sluggard(address, request("MONITOR")) for _ in range(3)]
    async with others(shared, 0), trio.open_nursery() as nursery:
        for one in slow:
            nursery.start_soon(one.run)
        await until_counted(shared, node, "outputs_cut_off", before["outputs_cut_off"])
        nursery.cancel_scope.cancel()
    assert memory_mib(pid)[1] < rest + burden.OUTPUT_BYTES / MIB + SPARE_MIB


async def test_half_sent_commands(shared: StoreCluster) -> None:
    """They may hold so much together; beyond it the store reads no more of them."""
    node = shared.names[1]
    address, pid = shared.endpoint(node), shared.children[node].pid
    forget_peak(pid)
    rest, before = memory_mib(pid)[0], await counters(shared, node)
    data = request("SET", "half", b"v" * MAX_VALUE_BYTES)[:-2]
    slow = [Sluggard(address, data) for _ in range(50)]
    async with others(shared, 1), trio.open_nursery() as nursery:
        for one in slow:
            nursery.start_soon(one.run)
        await until_counted(shared, node, "inputs_parked", before["inputs_parked"])
        await until_counted(shared, node, "inputs_cut_off", before["inputs_cut_off"])
        nursery.cancel_scope.cancel()
    assert memory_mib(pid)[1] < rest + burden.INPUT_BYTES / MIB + SPARE_MIB
    async with connected(address) as connection:
        assert await connection.ask("EXISTS", "half") == 0


async def test_a_burst_far_above_what_can_be_done(shared: StoreCluster) -> None:
    """Pipelines of hundreds from many clients: all are answered, in time or with an error."""
    accounts = [Account(f"burst{number}") for number in range(150)]
    for name in shared.names:
        forget_peak(shared.children[name].pid)
    rest = {name: memory_mib(shared.children[name].pid)[0] for name in shared.names}
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            for number, account in enumerate(accounts):
                address = shared.endpoint(shared.names[number % 3])
                nursery.start_soon(burst, account, address, 200)
    for account in accounts:
        assert account.acknowledged["INCR"] + account.errors.total() == account.sent["INCR"]
        assert all(error.startswith("NOQUORUM") for error in account.errors)
    await nothing_lost(shared, accounts)
    for name in shared.names:
        assert memory_mib(shared.children[name].pid)[1] < rest[name] + SPARE_MIB
    async with others(shared, 2):
        pass


async def test_huge_values_at_once(shared: StoreCluster) -> None:
    """They go one after the other; an answer is OK, or that the outcome is unknown."""
    answers: dict[str, object] = {}

    async def put(key: str, address_of: str) -> None:
        async with connected(shared.endpoint(address_of)) as connection:
            answers[key] = await connection.ask("SET", key, key.encode() * (MIB // 4))

    for name in shared.names:
        forget_peak(shared.children[name].pid)
    rest = {name: memory_mib(shared.children[name].pid)[0] for name in shared.names}
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            for number in range(6):
                nursery.start_soon(put, f"huge{number}", shared.names[number % 3])
    for name in shared.names:
        async with connected(shared.endpoint(name)) as connection:
            for key, answer in answers.items():
                length = await connection.ask("STRLEN", key)
                if answer == b"OK":
                    assert length == len(key) * MIB // 4
                else:
                    assert str(answer).startswith(("NOQUORUM", "UNKNOWN"))
        assert memory_mib(shared.children[name].pid)[1] < rest[name] + 400


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreCluster]:
    """Stores and acceptors in processes of their own, with a window of 1,024 instances."""
    with running_split(tmp_path_factory.mktemp("split") / "cluster") as store:
        yield store


WINDOWFUL = [request("SET", f"fill{number}", b"v" * 300_000) for number in range(8)]
"""More than a window of instances."""


async def equal_states(store: StoreCluster) -> None:
    with trio.fail_after(LIMIT_S):
        await trio.to_thread.run_sync(store.wait_until_alike)
        told = await trio.to_thread.run_sync(comparison.compare, store.cluster)
    assert told.good, told


async def test_a_stopped_learner_is_left_behind_and_catches_up(split: StoreCluster) -> None:
    with stopped(split, "n3"):
        async with others(split, 0), connected(split.endpoint("n1")) as connection:
            for data in WINDOWFUL:
                await connection.send(data)
                assert await connection.reply() == b"OK"
    await equal_states(split)


async def test_a_stopped_acceptor_holds_nobody_up(split: StoreCluster) -> None:
    with stopped(split, "a3"):
        async with others(split, 1), connected(split.endpoint("n2")) as connection:
            for data in WINDOWFUL:
                await connection.send(data)
                assert await connection.reply() == b"OK"
    async with others(split, 1):
        pass
    await equal_states(split)


async def test_a_full_window_is_told_and_mends_itself(split: StoreCluster) -> None:
    """A majority of the learners is stopped: `low` stands, and writes stop. Reads go on."""
    account = Account("window")
    with trio.fail_after(LIMIT_S):
        async with connected(split.endpoint("n1")) as connection:
            with stopped(split, "n2", "n3"):
                answers: list[object] = []
                while not answers or answers[-1] == b"OK":
                    await connection.send(WINDOWFUL[len(answers) % len(WINDOWFUL)])
                    answers.append(await connection.reply())
                assert str(answers[-1]).startswith("NOQUORUM")
                account.take("INCR", await connection.ask(*account.words("INCR")))
                assert account.errors.total() == 1, "nothing is acknowledged that is not chosen"
                assert await connection.ask("STRLEN", "fill0") == 300_000
                told = await trio.to_thread.run_sync(status, split)
                assert "window full" in told
            while not account.acknowledged["INCR"]:
                account.take("INCR", await connection.ask(*account.words("INCR")))
    await nothing_lost(split, [account])
    await equal_states(split)


def status(store: StoreCluster) -> str:
    """What `kvstore status` prints."""
    file = str(store.cluster.directory / CLUSTER_NAME)
    command = python_module("kvstore", "status", "--cluster", file)
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S).stdout
