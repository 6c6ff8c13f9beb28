"""kill -9 of real nodes: what was acknowledged stays, and the others go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bench.store_cluster import StoreCluster
from bench.writers import Writer, connect, lost, wait_for_more, writing
from p4xos.storage.frames import FRAME_MAGIC

SILENT = "may have forgotten what it voted for"


def serves_without(store: StoreCluster, acceptor_of: str, another: str) -> list[Writer]:
    """Writers at `acceptor_of`, while `another` is down: the votes of the former are needed."""
    others = [name for name in store.names if name != another]
    with writing([store.endpoint(name) for name in others], f"without-{another}") as writers:
        wait_for_more(writers, 5)
        store.kill(another)
        wait_for_more(writers, 20)
    assert acceptor_of in others
    store.start(another)
    return writers


def assert_nothing_lost(store: StoreCluster, writers: list[Writer]) -> None:
    for name in store.names:
        assert lost(writers, store.endpoint(name)) == [], f"at node {name}"


def test_each_node_is_killed_in_turn(store: StoreCluster) -> None:
    """The coordinator's first; the node that comes back catches up while clients write."""
    store.wait_until_writable()
    first = store.coordinator()
    for turn, victim in enumerate([first, *(name for name in store.names if name != first)]):
        addresses = [store.endpoint(name) for name in store.names]
        with writing(addresses * 2, f"turn{turn}-") as writers:
            of_victim = writers[store.names.index(victim) :: len(store.names)]
            of_others = [writer for writer in writers if writer not in of_victim]
            wait_for_more(writers, 20)
            store.kill(victim)
            wait_for_more(of_others, 50)
            store.start(victim)
            wait_for_more(of_others, 50)
            wait_for_more(of_victim, 5)  # it writes, and so has joined again, under load
        assert all(not writer.unknown for writer in of_others), of_others[0].unknown[:3]
        store.wait_until_alike()
        assert_nothing_lost(store, writers)


def test_trap_14_the_whole_cluster_is_killed(store: StoreCluster) -> None:
    all_writers: list[Writer] = []
    for turn in range(2):
        with writing([store.endpoint(name) for name in store.names], f"turn{turn}-") as writers:
            wait_for_more(writers, 50)
            store.kill()
        all_writers += writers
        store.start()
        assert_nothing_lost(store, all_writers)


def damage_first_record(directory: Path) -> Path:
    """Changes a byte of the first record of an acceptor's log, with good ones behind it."""
    segment = min(directory.glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    first = data.index(FRAME_MAGIC)
    assert data.index(FRAME_MAGIC, first + 1) > first, "there must be a second record"
    data[first + 60] ^= 0xFF
    segment.write_bytes(data)
    return segment


def damage_last_record(directory: Path) -> Path:
    """Changes a byte of the last record, which no power cut would leave so."""
    segment = max(directory.glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    data[data.rindex(FRAME_MAGIC) + 10] ^= 0xFF
    segment.write_bytes(data)
    return segment


@pytest.mark.parametrize("damage", [damage_first_record, damage_last_record])
def test_a_damaged_record_is_forgotten_and_made_up_for(
    store: StoreCluster, damage: Callable[[Path], Path]
) -> None:
    """docs/PROTOCOL.md, sections 3 and 8: it may have forgotten a vote, so it joins anew."""
    victim = store.names[2]
    with writing([store.endpoint(name) for name in store.names], "before") as before:
        wait_for_more(before, 20)
    store.kill(victim)
    segment = damage(store.data(victim) / "acceptor-2")
    damaged = segment.read_bytes()
    store.start(victim)
    with writing([store.endpoint(name) for name in store.names], "after") as after:
        wait_for_more(after, 20)
    store.wait_until_all_vote()
    said = store.children[victim].log_text()
    assert f"acceptor 2 {SILENT}" in said
    assert str(segment) in said
    aside = segment.parent.with_name("acceptor-2.forgotten-1") / segment.name
    assert aside.read_bytes() == damaged, "evidence is kept as it is"
    more = serves_without(store, victim, store.names[0])
    assert_nothing_lost(store, before + after + more)

    # It remembers again: the next start is an ordinary one.
    store.kill(victim)
    store.start(victim)
    assert store.children[victim].log_text().count(f"acceptor 2 {SILENT}") == 1


def test_memory_acceptors_that_restart_join_again(tmp_path: Path) -> None:
    """docs/traps.md, 9: each in turn forgets; the votes of those that did are needed by the end."""
    with StoreCluster(tmp_path / "cluster", storage="memory") as store:
        store.start()
        addresses = [store.endpoint(name) for name in store.names]
        everything: list[Writer] = []
        for turn, victim in enumerate(store.names):
            with writing(addresses, f"turn{turn}-") as writers:
                wait_for_more(writers, 20)
                store.kill(victim)
                wait_for_more([w for n, w in enumerate(writers) if n != turn], 20)
                store.start(victim)
                wait_for_more(writers, 20)
            everything += writers
            store.wait_until_all_vote()
            assert f"acceptor {turn} {SILENT}" in store.children[victim].log_text()
        store.wait_until_alike()
        assert_nothing_lost(store, everything)


def test_values_and_keys_are_alike_after_a_restart(store: StoreCluster) -> None:
    """Deletes, overwritten values and other databases reach a node that was down."""
    down, *up = store.names
    with connect(store.endpoint(down)) as client:
        client.mset({f"k{n}": "old" for n in range(300)})
    store.kill(down)
    with connect(store.endpoint(up[0])) as client:
        client.mset({f"k{n}": "new" for n in range(0, 300, 2)})
        client.delete(*(f"k{n}" for n in range(0, 300, 3)))
        client.execute_command("SELECT", 3)
        client.set("elsewhere", "yes")
    store.start(down)
    keys = [f"k{n}" for n in range(300)]
    found = []
    for name in store.names:
        with connect(store.endpoint(name)) as client:
            values = [client.dbsize(), client.mget(keys)]
            client.execute_command("SELECT", 3)
            found.append([*values, client.get("elsewhere")])
    assert found[0] == found[1] == found[2]
    assert found[0][0] == 200
