"""Backups of a running cluster, and clusters that begin with one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.processes import Child, python_module
from bench.store_cluster import StoreCluster
from bench.writers import connect, lost, wait_for_more, writing
from kvstore import comparison
from kvstore.archive import check
from p4xos.creation import CLUSTER_NAME

DONE, FAILED = 0, 1


def run_kvstore(directory: Path, *arguments: str) -> tuple[int, str]:
    """Runs `kvstore` to its end: exit status, and what it said."""
    child = Child("kvstore", python_module("kvstore", *arguments), directory / "said.txt")
    status = child.wait()
    said = child.log_text()
    child.log.unlink()
    return status, said


def cluster_file(store: StoreCluster) -> str:
    return str(store.cluster.directory / CLUSTER_NAME)


@pytest.mark.parametrize("nodes", [1, 5])
def test_a_backup_under_load_becomes_another_cluster(
    store: StoreCluster, tmp_path: Path, nodes: int
) -> None:
    """What was acknowledged before the backup began is in it, on each replica restored from it."""
    store.wait_until_writable()
    addresses = [store.endpoint(name) for name in store.names]
    with writing(addresses, "before") as before:
        wait_for_more(before, 30)
    with connect(addresses[0]) as client:
        client.set("lasting", "x", ex=100_000)
    with writing(addresses, "during") as during:
        wait_for_more(during, 10)
        to = str(tmp_path / "backup")
        status, said = run_kvstore(
            tmp_path, "backup", "--cluster", cluster_file(store), "--to", to
        )
        wait_for_more(during, 10)
    assert status == DONE, said
    assert not any(writer.unknown for writer in during)
    status, said = run_kvstore(tmp_path, "verify", to)
    assert (status, "is good" in said) == (DONE, True), said
    store.stop()

    new = tmp_path / "new"
    with StoreCluster(new, nodes=nodes) as restored:
        status, said = run_kvstore(tmp_path, "restore", to, "--cluster", cluster_file(restored))
        assert status == DONE, said
        restored.start()
        restored.wait_until_writable()
        with writing([restored.endpoint(name) for name in restored.names], "after") as after:
            wait_for_more(after, 20)
        for name in restored.names:
            assert lost(before, restored.endpoint(name)) == []
            assert lost(after, restored.endpoint(name)) == []
        with connect(restored.endpoint(restored.names[0])) as client:
            assert 90_000 < client.ttl("lasting") <= 100_000
        compared = comparison.compare(restored.cluster)
        assert compared.good, compared


def test_a_restored_node_that_loses_its_disk_gets_the_state_and_not_the_log(
    store: StoreCluster, tmp_path: Path
) -> None:
    """The log of the new cluster is short and all there, and must not be applied to nothing."""
    with connect(store.endpoint(store.names[0])) as client:
        client.mset({f"k{n}": "old" for n in range(500)})
    to = tmp_path / "backup.tar"
    status, said = run_kvstore(
        tmp_path, "backup", "--cluster", cluster_file(store), "--to", str(to), "--node", "n2"
    )
    assert status == DONE, said
    store.stop()
    status, said = run_kvstore(
        tmp_path, "restore", str(to), "--directory", str(tmp_path / "new"), "--base-port", "0"
    )
    assert status == DONE, said
    with StoreCluster(tmp_path / "new") as restored:
        restored.start("n1", "n2")
        restored.wait_until_writable("n1")
        shutil.rmtree(restored.data("n3"))
        restored.launch("n3", "--join")
        restored.wait_until_alike()
        with connect(restored.endpoint("n3")) as client:
            assert client.dbsize() == 501
            assert client.mget("k0", "k499") == [b"old", b"old"]
        assert comparison.compare(restored.cluster).good


def test_a_running_cluster_is_not_restored_into(store: StoreCluster, tmp_path: Path) -> None:
    store.wait_until_writable()
    to = str(tmp_path / "backup")
    file = cluster_file(store)
    assert run_kvstore(tmp_path, "backup", "--cluster", file, "--to", to)[0] == DONE
    assert check(Path(to)).keys == 1
    status, said = run_kvstore(tmp_path, "restore", to, "--cluster", file)
    assert status == FAILED
    assert "runs: a state is put in before the first start" in said
    store.stop()
    status, said = run_kvstore(tmp_path, "restore", to, "--cluster", file)
    assert status == FAILED
    assert "is not new" in said
