"""A backup on a disk, and what becomes of it; real clusters are in tests/system/test_backup.py."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from kvstore import restore as restore_module
from kvstore.archive import (
    MANIFEST,
    STATE,
    BackupError,
    _checksum,
    check,
    describe,
    pack,
    unpacked,
    write_manifest,
)
from kvstore.cli import main
from kvstore.cluster import StoreApplication
from kvstore.digest import digest_of
from kvstore.restore import UNFINISHED, create, restore
from kvstore.store import Store, StoreError
from p4xos.config import Cluster
from p4xos.creation import Wanted, find_or_create
from p4xos.founding import FoundingRefused
from p4xos.roles.acceptor import Acceptor
from p4xos.storage import AcceptorLog, Forgetful
from p4xos.wire import Frame

CLUSTER = 0xC0FFEE
APPLIED = 4321


@pytest.fixture
def backup(tmp_path: Path) -> Path:
    """A backup as `kvstore backup` leaves it."""
    directory = tmp_path / "backup"
    directory.mkdir()
    with Store(tmp_path / "source", CLUSTER) as store:
        store.begin(APPLIED, 1_700_000_000_000, 0, 64)
        for number in range(1000):
            store.keyspaces[number % 3].put(b"k%d" % number, b"v" * 50)
        store.keyspaces[0].put(b"later", b"x", 1_800_000_000_000)
        store.swap(1, 2)
        store.commit(APPLIED, {b"table": b"sessions of another cluster"})
        store.snapshot(directory / STATE)
    write_manifest(directory, describe(directory / STATE, "n1", "2026-01-01T00:00:00+00:00"))
    return directory


def new_cluster(directory: Path, nodes: int = 3) -> Cluster:
    directory.mkdir()
    return find_or_create(directory, Wanted(nodes, 0), StoreApplication().complete)


def test_a_good_one(backup: Path) -> None:
    before = {path.name: path.read_bytes() for path in (backup / STATE).iterdir()}
    manifest = check(backup)
    assert (manifest.applied, manifest.keys, manifest.cluster) == (APPLIED, 1001, "00c0ffee")
    assert manifest.databases == {"0": 335, "1": 333, "2": 333}
    assert {path.name: path.read_bytes() for path in (backup / STATE).iterdir()} == before


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def largest(backup: Path) -> Path:
    return max((backup / STATE).iterdir(), key=lambda path: path.stat().st_size)


def change_key_count(backup: Path) -> None:
    data = json.loads((backup / MANIFEST).read_text())
    (backup / MANIFEST).write_text(json.dumps({**data, "keys": 1}))


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda backup: flip(largest(backup), 100), "is damaged: its checksum"),
        (lambda backup: flip(largest(backup), -1), "is damaged: its checksum"),
        (lambda backup: largest(backup).unlink(), "is missing"),
        (lambda backup: (backup / STATE / "more").touch(), "does not belong to it"),
        (lambda backup: os.truncate(largest(backup), 10), "is damaged"),
        (lambda backup: shutil.rmtree(backup / STATE), "is missing"),
        (lambda backup: (backup / MANIFEST).unlink(), "has no manifest.json"),
        (lambda backup: (backup / MANIFEST).write_text("{"), "manifest.json is damaged"),
        (lambda backup: (backup / MANIFEST).write_text("[1]"), "manifest.json is damaged"),
        (change_key_count, "manifest.json is damaged"),
    ],
)
def test_a_damaged_one(
    backup: Path, harm: Callable[[Path], object], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    harm(backup)
    with pytest.raises(BackupError, match=said):
        check(backup)
    assert main(["verify", str(backup)]) == 1
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    "harm", [{"more": 1}, {"applied": None}, {"files": 7}, {"files": {"a": {}}}]
)
def test_a_manifest_with_other_fields(backup: Path, harm: dict[str, object | None]) -> None:
    """Its checksum is right: it was made so."""
    data = {**asdict(check(backup)), **harm}
    data = {name: value for name, value in data.items() if value is not None}
    data["checksum"] = _checksum(data)
    (backup / MANIFEST).write_text(json.dumps(data))
    with pytest.raises(BackupError, match="is damaged"):
        check(backup)


def test_counts_that_are_not_those_of_the_keys(tmp_path: Path) -> None:
    """No checksum tells what a faulty program wrote; counting does."""
    with Store(tmp_path / "source", CLUSTER) as store:
        store.keyspaces[0].put(b"k", b"v")
        store.counts[0] += 1
        store.commit(1, {})
        store.snapshot(tmp_path / "state")
    with pytest.raises(StoreError, match="count of 2 keys and has 1"):
        describe(tmp_path / "state", "n1", "")


def test_a_manifest_of_another_release(backup: Path) -> None:
    manifest = check(backup)
    write_manifest(backup, replace(manifest, store_format=99))
    with pytest.raises(BackupError, match="use the release that wrote it"):
        check(backup)


def test_as_one_file(backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "backup.tar"
    pack(backup, file)
    assert main(["verify", str(file)]) == 0
    assert "1001 keys" in capsys.readouterr().out
    assert [path.name for path in tmp_path.glob("backup.tar?*")] == []
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert main(["verify", str(file)]) == 1


@pytest.mark.parametrize("name", ["../escaped", "/tmp/escaped", "state/../escaped", "state/.x"])
def test_a_file_that_would_write_elsewhere(tmp_path: Path, name: str) -> None:
    file = tmp_path / "bad.tar"
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(BackupError, match="not a backup"), unpacked(file):
        pass


@pytest.mark.parametrize("nodes", [1, 3, 5])
def test_restored_nodes_are_alike_and_behind_the_instance(
    backup: Path, tmp_path: Path, nodes: int
) -> None:
    """Data, time and versions are kept, sessions are not; no acceptor takes what lies below."""
    cluster = new_cluster(tmp_path / "new", nodes)
    manifest = restore(backup, cluster)
    for node in cluster.nodes:
        with Store(cluster.data_directory(node.name) / "store", cluster.id) as store:
            assert store.applied == APPLIED
            assert store.learner_state() == {}
            assert digest_of(store.view(APPLIED)).hash == manifest.state_hash
            assert store.keyspaces[2].version(b"k1") == APPLIED
    for member in cluster.acceptors:
        acceptor = Acceptor(
            frame=Frame(cluster.id, cluster.group, member.id), acceptors=nodes,
            window=cluster.window, value_bytes=cluster.value_bytes,
        )  # fmt: skip
        opened = AcceptorLog.open(
            cluster.member_directory("acceptor", member.id), cluster=cluster.id,
            group=cluster.group, acceptor=member.id, window=cluster.window,
            carry_over=acceptor.carry_over,
        )  # fmt: skip
        assert not isinstance(opened, Forgetful)
        acceptor.restore(opened.records)
        opened.log.close()
        assert (acceptor.low, acceptor.highest) == (APPLIED + 1, APPLIED)
        acceptor.check_invariants()


def test_node_by_node(backup: Path, tmp_path: Path) -> None:
    """As on several machines, with cluster files and no marks."""
    created = new_cluster(tmp_path / "new")
    for node in created.nodes:
        shutil.rmtree(created.data_directory(node.name))
    for node in created.nodes:
        restore(backup, created, [node.name])
    with pytest.raises(FoundingRefused, match="n2 is not new"):
        restore(backup, created, ["n2"])


def test_a_cluster_that_has_run_is_refused(backup: Path, tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path / "new")
    with Store(cluster.data_directory("n2") / "store", cluster.id):
        pass
    with pytest.raises(FoundingRefused, match="node n2 is not new"):
        restore(backup, cluster)
    assert not (cluster.data_directory("n1") / "store").exists()


def test_the_cluster_that_was_backed_up_is_refused(backup: Path, tmp_path: Path) -> None:
    cluster = replace(new_cluster(tmp_path / "new"), id=CLUSTER)
    with pytest.raises(FoundingRefused, match="the id of the cluster that was backed up"):
        restore(backup, cluster)


def test_acceptors_in_memory_are_refused(backup: Path, tmp_path: Path) -> None:
    cluster = replace(new_cluster(tmp_path / "new"), storage="memory")
    with pytest.raises(FoundingRefused, match="disk"):
        restore(backup, cluster)


def test_a_damaged_backup_changes_nothing(backup: Path, tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path / "new")
    flip(largest(backup), 50)
    with pytest.raises(BackupError):
        restore(backup, cluster)
    flip(largest(backup), 50)
    restore(backup, cluster)


def test_a_restore_that_breaks_off_can_be_done_again(
    backup: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = new_cluster(tmp_path / "new")
    copy = restore_module._copy
    copied: list[Path] = []

    def full(state: Path, target: Path, cluster_id: int) -> None:
        copy(state, target, cluster_id)
        copied.append(target)
        if len(copied) == 2:
            raise OSError(28, "No space left on device", str(target))

    with monkeypatch.context() as patched:
        patched.setattr(restore_module, "_copy", full)
        with pytest.raises(OSError, match="No space left"):
            restore(backup, cluster)
    assert not any(path.exists() for path in copied)
    (cluster.data_directory("n1") / "store" / UNFINISHED).mkdir()  # as a kill would leave it
    restore(backup, cluster)


def test_a_half_restored_node_does_not_start(backup: Path, tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path / "new")
    (cluster.data_directory("n1") / "store" / UNFINISHED).mkdir(parents=True)
    with pytest.raises(StoreError, match="not empty"):
        Store(cluster.data_directory("n1") / "store", cluster.id)


def test_into_a_directory(backup: Path, tmp_path: Path) -> None:
    cluster = create(tmp_path / "made", Wanted(5, 0))
    assert len(cluster.nodes) == 5
    restore(backup, cluster)
    with pytest.raises(FoundingRefused, match="holds a cluster already"):
        create(tmp_path / "made", Wanted())


def test_a_backup_is_never_overwritten(
    backup: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new_cluster(tmp_path / "new")
    file = str(tmp_path / "new" / "cluster.toml")
    assert main(["backup", "--cluster", file, "--to", str(backup)]) == 1
    assert "is not overwritten" in capsys.readouterr().err
    assert main(["backup", "--cluster", file, "--to", str(tmp_path / "b2")]) == 1
    assert "start a node" in capsys.readouterr().err
    assert not (tmp_path / "b2.unfinished").exists()
