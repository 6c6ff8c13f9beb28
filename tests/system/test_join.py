"""A machine that lost its disk: refused, then joined by one command, while clients write."""

from __future__ import annotations

import json
import shutil

import pytest

from bench.processes import python_module
from bench.store_cluster import StoreCluster
from bench.writers import connect, lost, wait_for_more, writing
from kvstore import comparison
from kvstore.cli import main
from p4xos.creation import CLUSTER_NAME


def test_a_lost_node_joins_under_load(
    store: StoreCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/PROTOCOL.md, sections 7 and 8: its store is fetched, its acceptor joins again."""
    store.wait_until_writable()
    *others, victim = store.names
    with connect(store.endpoint(others[0])) as client:
        for first in range(0, 20_000, 500):
            client.mset({f"k{n}": "v" * 100 for n in range(first, first + 500)})
    with writing([store.endpoint(name) for name in others]) as writers:
        wait_for_more(writers, 20)
        store.kill(victim)
        shutil.rmtree(store.data(victim))
        store.launch(victim, "--join")
        wait_for_more(writers, 20)
        store.wait_until_writable(victim)
        under_load = comparison.compare(store.cluster)
        wait_for_more(writers, 20)
    assert under_load.good, under_load
    store.wait_until_alike()
    for name in store.names:
        assert lost(writers, store.endpoint(name)) == []
    said = store.children[victim].log_text()
    assert f"node {victim} joins with an empty directory" in said
    store.wait_until_all_vote()

    file = str(store.cluster.directory / CLUSTER_NAME)
    assert main(["status", "--hash", "--cluster", file]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "states: equal"
    assert len({line.partition(": ")[2] for line in lines[1:]}) == 1

    # It has joined: the next start is an ordinary one, and it is one of the majority.
    store.kill(victim)
    store.start(victim)
    store.wait_until_alike()
    store.kill(others[0])
    store.wait_until_writable(victim)


def test_a_lost_node_that_is_not_told_to_join_does_not_start(store: StoreCluster) -> None:
    store.wait_until_writable()
    victim = store.names[-1]
    store.kill(victim)
    shutil.rmtree(store.data(victim))
    file = str(store.cluster.directory / CLUSTER_NAME)
    start = python_module("kvstore", "node", "--cluster", file, "--name", victim)
    store.application.command = lambda *_: start  # type: ignore[method-assign]  # without --join
    child = store.launch(victim)
    assert child.wait() == 1
    assert "start the node with --join" in child.last_lines()


def test_replicas_that_differ_are_told_apart(
    store: StoreCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    """One replica's store is changed behind its back."""
    from kvstore.store import Store

    store.wait_until_writable()
    store.stop()
    victim = store.names[-1]
    with Store(store.data(victim) / "store", store.cluster.id) as opened:
        opened.keyspaces[0].put(b"probe", b"2")
        opened.commit(opened.applied, {})
    store.start()
    file = str(store.cluster.directory / CLUSTER_NAME)
    assert main(["status", "--hash", "--json", "--cluster", file]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["states"] == "DIFFERENT"
    assert told["n1"]["hash"] == told["n2"]["hash"] != told[victim]["hash"]
    store.kill(victim)
    assert main(["status", "--hash", "--json", "--cluster", file]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["states"] == "equal"
    assert "refused" in told[victim]["problem"]
