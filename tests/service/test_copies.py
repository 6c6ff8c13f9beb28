"""Giving and fetching copies: what is told meanwhile, and what is asked of a node besides."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import trio

from p4xos import fetching, secret
from p4xos.client import Client
from p4xos.dialing import ask_untrusted, dial
from p4xos.errors import BadPacket, NotDelivered, P4xosError
from p4xos.fetching import DiskTooSmall, Fetch, Progress, in_words
from p4xos.inquiries import described
from p4xos.logstore import LogStore, Retention
from p4xos.transfers import Copies
from tests.service.clusters import Nodes, running, until

WINDOW = 64


async def write(nodes: Nodes, values: int) -> None:
    peers = [node.peer for node in nodes.cluster.nodes if node.name in nodes.running]
    async with Client.connect(peers, secret_file=nodes.secret_file) as client:
        await client.submit_many([b"x" * 100] * values)


def status(nodes: Nodes, name: str) -> dict[str, Any]:
    return nodes.running[name].status()


async def test_how_far_a_copy_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held, first_is_there = trio.Event(), trio.Event()
    piece = Copies.piece

    async def slow(self: Copies, number: int, name: str, offset: int) -> tuple[int, bytes]:
        if first_is_there.is_set():
            await held.wait()
        first_is_there.set()
        return await piece(self, number, name, offset)

    monkeypatch.setattr(Copies, "piece", slow)
    async with running(tmp_path, window=WINDOW, retention=Retention(1 << 30, WINDOW)) as nodes:
        await write(nodes, 20)
        await nodes.stop("n3")
        await write(nodes, 10 * WINDOW)
        await nodes.start("n3")
        await until(lambda: bool(status(nodes, "n3").get("catching_up", {}).get("bytes")))
        told = status(nodes, "n3")["catching_up"]
        assert told["from"] in ("n1", "n2")
        assert 0 < told["bytes"] < told["bytes_total"]
        assert told["percent"] == 100 * told["bytes"] // told["bytes_total"]
        assert told["instances_missing"] >= 8 * WINDOW
        line = described({"n3": status(nodes, "n3")})["n3"]
        assert f"from {told['from']}, copied {told['percent']} % of" in line
        held.set()
        await until(lambda: "catching_up" not in status(nodes, "n3"))
        assert nodes.delivered("n3") >= 8 * WINDOW


async def test_what_is_in_memory_is_written_out_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a worker thread: a copy must hold up nobody; and peers that ask at once share one."""
    order: list[str] = []
    write_out, snapshot = LogStore.write_out, LogStore.snapshot

    def note_write_out(self: LogStore) -> None:
        with pytest.raises(RuntimeError):
            trio.lowlevel.current_task()  # so this is not the loop's thread
        order.append("write out")
        write_out(self)

    def note_snapshot(self: LogStore, directory: Path) -> int:
        order.append("snapshot")
        return snapshot(self, directory)

    monkeypatch.setattr(LogStore, "write_out", note_write_out)
    monkeypatch.setattr(LogStore, "snapshot", note_snapshot)
    async with running(tmp_path, nodes=1) as nodes:
        await write(nodes, 20)
        cluster, fetched = nodes.cluster, []

        async def fetch(place: Path) -> None:
            address = cluster.nodes[0].peer
            fetched.append(
                await Fetch(cluster.id, secret.of(cluster), address, place, peer=False).run(1)
            )

        async with trio.open_nursery() as nursery:
            nursery.start_soon(fetch, tmp_path / "one")
            nursery.start_soon(fetch, tmp_path / "two")
        assert order == ["write out", "write out", "snapshot"]
        assert fetched[0] == fetched[1] == nodes.delivered("n1")
        one, two = sorted((tmp_path / "one").iterdir()), sorted((tmp_path / "two").iterdir())
        assert [path.name for path in one] == [path.name for path in two]
        assert [path.read_bytes() for path in one] == [path.read_bytes() for path in two]


async def test_a_disk_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "DISK_RESERVE_BYTES", 1 << 60)
    async with running(tmp_path, nodes=1) as nodes:
        await write(nodes, 20)
        fetch = Fetch(
            nodes.cluster.id,
            secret.of(nodes.cluster),
            nodes.cluster.nodes[0].peer,
            tmp_path / "copy",
            peer=False,
        )
        with pytest.raises(DiskTooSmall, match="make room on that disk"):
            await fetch.run(1)
        assert list((tmp_path / "copy").iterdir()) == []


async def test_questions_of_the_application(tmp_path: Path) -> None:
    async def answer(head: Mapping[str, object]) -> Mapping[str, object]:
        if head.get("n") == 0:
            raise NotDelivered(7, 3)
        if not isinstance(head.get("n"), int):
            raise BadPacket("n is no number")
        return {"n": head["n"]}

    async with running(tmp_path, nodes=1) as nodes:
        service = nodes.running["n1"].service
        assert service is not None
        service.questions["echo"] = answer
        dialed = await dial(nodes.cluster.nodes[0].peer, nodes.cluster.id, secret.of(nodes.cluster))
        try:
            frame = await ask_untrusted(dialed, {"ask": "echo", "id": 5, "n": 9})
            assert frame.head == {"id": 5, "n": 9}
            with pytest.raises(NotDelivered):
                await ask_untrusted(dialed, {"ask": "echo", "id": 6, "n": 0})
            assert (await ask_untrusted(dialed, {"ask": "echo", "id": 7, "n": 1})).head["n"] == 1
            with pytest.raises(P4xosError, match="n is no number"):
                await ask_untrusted(dialed, {"ask": "echo", "id": 8})
        finally:
            await dialed.frames.aclose()


def test_progress_in_words() -> None:
    progress = Progress(4_000_000, now=10.0)
    progress.done = 1_000_000
    assert progress.told(12.0) == "1 MB of 4 MB (25 %), 500 kB/s"
    assert not progress.is_due(14.9)
    assert progress.is_due(15.0)
    assert not progress.is_due(19.9)
    assert Progress(0, now=0.0).percent == 100
    assert [in_words(size) for size in (0, 999, 1000, 12_345_678, 5e12, 5e15)] == [
        "0 B", "999 B", "1 kB", "12.3 MB", "5 TB", "5e+03 TB"
    ]  # fmt: skip
