"""All acceptors forget at once: the group stops and says so, and an operator goes on from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.store_cluster import StoreCluster
from bench.writers import connect, lost, wait_for_more, writing
from kvstore.cli import main
from p4xos.creation import CLUSTER_NAME


def test_a_group_that_has_forgotten_is_rebuilt(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """docs/PROTOCOL.md, section 8: beyond f, only by an operator's word, and it names the loss."""
    to = tmp_path / "left.tar"
    with StoreCluster(tmp_path / "cluster", storage="memory") as store:
        store.start()
        file = str(store.cluster.directory / CLUSTER_NAME)
        rebuild = ["rebuild", "--cluster", file, "--to", str(to)]
        with writing([store.endpoint(name) for name in store.names]) as writers:
            wait_for_more(writers, 30)
            assert main(rebuild) == 1  # what works is not rebuilt
            assert "that is enough: nothing is lost" in capsys.readouterr().err
            wait_for_more(writers, 30)
            store.kill()
        for name in store.names:
            store.launch(name)
        for name in store.names:
            store.wait_for_answer(name, b"PING\r\n", b"+PONG")
        assert {store.consensus(name)["silent_acceptors"] for name in store.names} == {"1"}

        assert main(rebuild) == 1
        assert "--accept-loss" in capsys.readouterr().err
        assert not to.exists()
        said = caplog.text
        assert "0 acceptors remember what they voted for, 2 are needed" in said
        assert "may be lost: if these machines lost power" in said
        assert main([*rebuild, "--accept-loss"]) == 0
    again = tmp_path / "again"
    with StoreCluster(again) as store:
        file = str(store.cluster.directory / CLUSTER_NAME)
        assert main(["restore", str(to), "--cluster", file]) == 0
        store.start()
        for name in store.names:
            assert lost(writers, store.endpoint(name)) == []
        with connect(store.endpoint(store.names[0])) as client:
            client.set("goes", "on")
