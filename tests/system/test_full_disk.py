"""A disk that fills up under one node: one message, exit status 1, and the others go on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store_cluster import StoreCluster
from bench.writers import connect, lost, wait_for_more, writing

FREE_BYTES = 256 << 10
"""What is left beside the space that the node has reserved already."""
DISK_BYTES = 160 << 20
VALUE = b"v" * 50_000
VALUES_MAX = 2 * DISK_BYTES // len(VALUE)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreCluster]:
    """A cluster whose last node has a small disk of its own; nothing runs yet.

    A file system, since a limit by other means would not say "no space left".
    """
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    with StoreCluster(tmp_path / "cluster") as cluster:
        place = cluster.data(cluster.names[-1])
        aside = place.rename(tmp_path / "aside")
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "small", str(place)]
        done = subprocess.run(mount, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"mounting is not permitted here: {done.stderr.strip()}")
        try:
            shutil.copytree(aside, place, dirs_exist_ok=True)
            yield cluster
        finally:
            cluster.kill(*cluster.children)
            subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(place: Path) -> Path:
    """A file that leaves FREE_BYTES."""
    state = os.statvfs(place)
    filler = place / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, state.f_bavail * state.f_frsize - FREE_BYTES)
    return filler


def test_one_node_stops_with_a_message_and_the_others_go_on(store: StoreCluster) -> None:
    """docs/traps.md, 10."""
    *others, victim = store.names
    store.start()
    store.wait_until_writable()
    filler = fill(store.data(victim))
    child = store.children[victim]
    with writing([store.endpoint(name) for name in others]) as writers:
        with connect(store.endpoint(others[0])) as client:
            written = 0
            while child.running and written < VALUES_MAX:
                client.set(f"large:{written}", VALUE)
                written += 1
        assert child.wait() == 1
        wait_for_more(writers, 20)
    said = child.log_text()
    assert "Traceback" not in said
    messages = [line for line in said.splitlines() if line.startswith("kvstore: ")]
    assert len(messages) == 1, said
    assert "No space left" in messages[0]
    assert str(store.data(victim)) in messages[0]

    filler.unlink()
    store.start(victim)
    store.wait_until_alike()
    for name in store.names:
        assert lost(writers, store.endpoint(name)) == []
        with connect(store.endpoint(name)) as client:
            assert client.get(f"large:{written - 1}") == VALUE
