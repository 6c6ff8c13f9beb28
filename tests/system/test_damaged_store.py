"""A node whose store is damaged, at rest and in use: it mends itself from the others."""

from __future__ import annotations

from pathlib import Path

import pytest
import redis

from bench.store_cluster import StoreCluster
from bench.writers import connect, lost, wait_for_more, writing
from kvstore import comparison

KEYS = 2_000
PING = b"*1\r\n$4\r\nPING\r\n"


def live(store: StoreCluster, name: str, pattern: str) -> list[Path]:
    return sorted((store.data(name) / "store").glob(f"generation-*/{pattern}"))


def spoil(path: Path, quarters: range = range(4)) -> None:
    """Changes a bit in every 50th byte of some quarters of a file."""
    content = bytearray(path.read_bytes())
    size = len(content)
    for position in range(size * quarters.start // 4, size * quarters.stop // 4, 50):
        content[position] ^= 4
    path.write_bytes(content)


def test_a_damaged_store_is_set_aside_and_fetched_again(store: StoreCluster) -> None:
    """docs/PROTOCOL.md, sections 7 and 8: its acceptor has kept its votes, and goes on voting."""
    store.wait_until_writable()
    *others, victim = store.names
    with connect(store.endpoint(others[0])) as client:
        client.mset({f"k{n}": f"{n}:".ljust(200, "v") for n in range(KEYS)})
    store.wait_until_alike()
    with writing([store.endpoint(name) for name in others]) as writers:
        wait_for_more(writers, 20)
        # At rest, where RocksDB looks when it is opened.
        store.kill(victim)
        (manifest,) = live(store, victim, "MANIFEST-*")
        spoil(manifest)
        store.launch(victim)
        store.wait_until_writable(victim)
        wait_for_more(writers, 20)

        # In its data, where nobody looks before they are read.
        assert store.children[victim].stop() == 0
        tables = live(store, victim, "*.sst")
        assert tables, "a copy that was installed is tables"
        for table in tables:
            spoil(table, range(1, 2))
        child = store.launch(victim)
        store.wait_for_answer(victim, PING, b"+PONG")
        with connect(store.endpoint(victim)) as client, pytest.raises(redis.ConnectionError):
            client.mget([f"k{n}" for n in range(KEYS)])
        assert child.wait() == 1
        told = [line for line in child.last_lines().splitlines() if line.startswith("kvstore: ")]
        assert len(told) == 1
        assert "damaged (Corruption" in told[0]
        assert "start this node again" in told[0]
        store.launch(victim)
        store.wait_until_writable(victim)
        wait_for_more(writers, 20)
    store.wait_until_alike()
    assert comparison.compare(store.cluster).good
    for name in store.names:
        assert lost(writers, store.endpoint(name)) == []
        with connect(store.endpoint(name)) as client:
            assert client.get("k7") == b"7:".ljust(200, b"v")
    kept = sorted(path.name for path in store.data(victim).glob("store.damaged-*"))
    assert kept == ["store.damaged-1", "store.damaged-2"]
    assert "stays silent" not in store.children[victim].log_text()
