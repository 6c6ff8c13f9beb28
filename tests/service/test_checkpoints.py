"""Checkpoints: the state is made durable beside the loop, and reported when it is."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kvstore.packing import join_value, pack_commands
from p4xos.effects import Effects
from p4xos.write_ahead import WriteAhead
from tests.service.clusters import PATIENCE_S, running, until


@pytest.mark.parametrize("retained_bytes", [None, 1 << 20], ids=["log", "key-value store"])
async def test_a_disk_that_is_waited_for_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, retained_bytes: int | None
) -> None:
    """What is reported meanwhile is what was durable before, however much is applied."""
    held, release = threading.Event(), threading.Event()
    sync = WriteAhead.sync

    def waiting(log: WriteAhead) -> None:
        if threading.current_thread() is not loop and Path(log._database.path()).is_relative_to(
            slow
        ):
            held.set()
            assert release.wait(PATIENCE_S)
        sync(log)

    loop = threading.current_thread()
    try:
        async with running(tmp_path, retained_bytes=retained_bytes) as nodes:
            slow = nodes.store_directory("n3")
            application = nodes.running["n3"].application
            assert application is not None
            reported: list[int] = []
            checkpoint = application.replica.learner.checkpoint

            def note(durable_through: int) -> Effects:
                reported.append(durable_through)
                return checkpoint(durable_through)

            monkeypatch.setattr(application.replica.learner, "checkpoint", note)
            monkeypatch.setattr(WriteAhead, "sync", waiting)
            value = join_value(pack_commands([[b"INCR", b"n"]], 0), 0, 1)
            writer = nodes.running["n1"].application
            assert writer is not None
            writer.propose([value])
            await until(held.is_set)
            before, durable = application.applied, application.durable_through
            for _ in range(20):
                writer.propose([value])
            await until(lambda: application.applied >= before + 20)
            assert application.durable_through == durable
            assert max(reported, default=0) <= durable
            release.set()
            await until(lambda: max(reported, default=0) >= before + 20)
    finally:
        release.set()
