"""A learner that missed more than a window (docs/PROTOCOL.md, section 7)."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

from kvstore.packing import join_value, pack_commands
from p4xos import catchup, fetching
from p4xos.client import Client
from p4xos.effects import Effects
from p4xos.logstore import Retention
from p4xos.transfers import Copies
from tests.service.clusters import Nodes, running, until

WINDOW = 64
SHORT = Retention(1 << 30, WINDOW)


@asynccontextmanager
async def writing(nodes: Nodes) -> AsyncIterator[list[int]]:
    """Values are submitted all the while; yields the instances of those acknowledged."""
    acknowledged: list[int] = []

    async def write(client: Client) -> None:
        while True:
            acknowledged.extend(await client.submit_many([b"x" * 100] * 20))

    running_peers = [node.peer for node in nodes.cluster.nodes if node.name in nodes.running]
    async with Client.connect(running_peers) as client, trio.open_nursery() as nursery:
        nursery.start_soon(write, client)
        yield acknowledged
        nursery.cancel_scope.cancel()


async def let_pass(nodes: Nodes, values: int) -> None:
    """Waits until so many more values are delivered at n1."""
    target = nodes.delivered("n1") + values
    await until(lambda: nodes.delivered("n1") >= target)


async def check_caught_up(nodes: Nodes, name: str) -> None:
    """It delivers what is written now, and what it retains is what the others do."""
    await until(lambda: nodes.delivered(name) >= nodes.delivered("n1") - WINDOW)
    target = nodes.delivered("n1") + 200
    await until(lambda: nodes.delivered(name) >= target)
    for _ in range(100):
        store = nodes.running[name].application
        other = nodes.running["n1"].application
        assert store is not None
        assert other is not None
        instance = max(store.retained.low, other.retained.low) + 1
        if instance <= min(store.applied, other.applied):
            assert store.recover(instance) == other.recover(instance)
            return
        await trio.sleep(0)
    raise AssertionError("no instance is retained by both")


def counters(nodes: Nodes, name: str) -> dict[str, int]:
    catch_up = nodes.running[name].catch_up
    assert catch_up is not None
    return catch_up.counters


async def test_by_the_tail_while_writes_go_on(tmp_path: Path) -> None:
    async with running(tmp_path, window=WINDOW) as nodes, writing(nodes):
        await let_pass(nodes, 50)
        await nodes.stop("n3")
        await let_pass(nodes, 10 * WINDOW)
        await nodes.start("n3")
        await check_caught_up(nodes, "n3")
        assert counters(nodes, "n3")["tail_values"] > 0
        assert counters(nodes, "n3")["copies_installed"] == 0


async def test_by_a_copy_and_the_tail_while_writes_go_on(tmp_path: Path) -> None:
    async with running(tmp_path, window=WINDOW, retention=SHORT) as nodes, writing(nodes):
        await let_pass(nodes, 50)
        await nodes.stop("n3")
        await let_pass(nodes, 10 * WINDOW)
        await nodes.start("n3")
        await check_caught_up(nodes, "n3")
        assert counters(nodes, "n3")["copies_installed"] > 0
        assert not (nodes.cluster.data_directory("n3") / "incoming").exists()


async def test_a_lost_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The acceptor keeps its log, the learner begins with nothing."""
    async with running(tmp_path, window=WINDOW, retention=SHORT) as nodes, writing(nodes):
        await let_pass(nodes, 3 * WINDOW)
        await nodes.stop("n3")
        shutil.rmtree(nodes.store_directory("n3"))
        await nodes.start("n3")
        application = nodes.running["n3"].application
        assert application is not None
        sent: list[int] = []
        checkpoint = application.replica.learner.checkpoint

        def note(durable_through: int) -> Effects:
            effects = checkpoint(durable_through)
            if effects.send:
                sent.append(durable_through)
            return effects

        monkeypatch.setattr(application.replica.learner, "checkpoint", note)
        await check_caught_up(nodes, "n3")
        await until(lambda: bool(sent))
        assert min(sent) > 2 * WINDOW  # nothing was reported until it was back


async def test_a_peer_that_fails_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pieces of the first copy come damaged, then the copy is gone: another is fetched."""
    monkeypatch.setattr(fetching, "RESUMES_MAX", 2)
    monkeypatch.setattr(catchup, "PAUSE_S", 0.01)
    asked = 0
    piece = Copies.piece

    async def bad(self: Copies, number: int, name: str, offset: int) -> tuple[int, bytes]:
        nonlocal asked
        asked += 1
        check, data = await piece(self, number, name, offset)
        if asked <= 4:
            return check ^ 1, data
        if asked == 5:
            self.drop()
        return check, data

    monkeypatch.setattr(Copies, "piece", bad)
    async with running(tmp_path, window=WINDOW, retention=SHORT) as nodes, writing(nodes):
        await let_pass(nodes, 50)
        await nodes.stop("n3")
        await let_pass(nodes, 10 * WINDOW)
        await nodes.start("n3")
        await check_caught_up(nodes, "n3")
        assert counters(nodes, "n3")["peer_failures"] > 0
        assert asked > 5


async def test_one_peer_is_down(tmp_path: Path) -> None:
    """With n1 gone the third node must find n2, without which nothing goes on at all."""
    async with running(tmp_path, window=WINDOW) as nodes:
        async with writing(nodes):
            await let_pass(nodes, 50)
            await nodes.stop("n3")
            await let_pass(nodes, 10 * WINDOW)
        await nodes.stop("n1")
        await nodes.start("n3")
        target = nodes.delivered("n2")
        await until(lambda: nodes.delivered("n3") >= target)
        async with writing(nodes) as acknowledged:
            await until(lambda: len(acknowledged) >= 200)


async def test_the_store_by_a_copy_while_writes_go_on(tmp_path: Path) -> None:
    """A node of the key-value store, whose values stay in memory for a while only."""
    async with (
        running(tmp_path, window=WINDOW, retained_bytes=50_000) as nodes,
        trio.open_nursery() as nursery,
    ):

        async def write() -> None:
            application = nodes.running["n1"].application
            assert application is not None
            written = 0
            while True:
                keys = [b"%d" % ((written + k) % 100) for k in range(20)]
                commands = [[b"SET", key, b"x" * 100] for key in keys]
                values = [join_value([packed], 0, 0) for packed in pack_commands(commands, 0)]
                application.propose(values)
                written += 20
                await until(lambda: application.replica.proposer.in_flight == 0)

        nursery.start_soon(write)
        await let_pass(nodes, 50)
        await nodes.stop("n3")
        await let_pass(nodes, 10 * WINDOW)
        await nodes.start("n3")
        await until(lambda: nodes.delivered("n3") >= nodes.delivered("n1") - WINDOW)
        target = nodes.delivered("n1") + 200
        await until(lambda: nodes.delivered("n3") >= target)
        assert counters(nodes, "n3")["copies_installed"] > 0
        nursery.cancel_scope.cancel()
