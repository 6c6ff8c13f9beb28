"""The command: one line for a user of libpaxos."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import trio

from p4xos import cli, inquiries
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME
from tests.libpaxos.launched import launched
from tests.libpaxos.peers import FrameClient, Learner, Peer
from tests.service.clusters import PATIENCE_S, POLL_S


async def submitted(learner: Learner, peer: Peer, values: list[bytes]) -> None:
    """Submits values, and returns when they are delivered."""
    wanted = len(learner.delivered) + len(values)
    await peer.submit(*values)
    await learner.wait(wanted)


async def next_iid(client: FrameClient) -> int:
    await client.say({"ask": "status", "id": 1})
    status = (await client.hear())[0]["status"]
    assert isinstance(status, dict)
    return int(status["next_iid"])


async def test_one_command_runs_all_and_outlives_its_coordinator(tmp_path: Path) -> None:
    with launched(tmp_path) as cluster:
        launcher = await trio.to_thread.run_sync(cluster.launch)
        conf = cluster.conf
        async with trio.open_nursery() as nursery:
            learner = Learner(conf.acceptors)
            nursery.start_soon(learner.run)
            async with Peer.connect(conf.proposers[1]) as peer:
                await submitted(learner, peer, [b"%d" % k for k in range(100)])
                os.kill(cluster.node("n1"), signal.SIGKILL)
                await submitted(learner, peer, [b"%d" % k for k in range(100, 200)])
            assert [iid for iid, _ in learner.delivered] == list(range(1, 201))
            values = sorted(int(value) for _, value in learner.delivered)
            assert values == list(range(200))
            async with FrameClient.connect(conf.proposers[2]) as client:
                with trio.fail_after(PATIENCE_S):  # nobody waits for what this one learns
                    while await next_iid(client) < 201:
                        await trio.sleep(POLL_S)
                assert await next_iid(client) == 201
            nursery.cancel_scope.cancel()
        directory = tmp_path / "paxos-data"
        told = await trio.to_thread.run_sync(
            inquiries.status, Cluster.load(directory / CLUSTER_NAME)
        )
        assert told["n2"]["libpaxos"]["next_iid"] == 201  # type: ignore[index]  # of a node
        launcher.send_signal(signal.SIGINT)
        await trio.to_thread.run_sync(launcher.wait)
        # Acceptors in memory have forgotten: a start is a beginning.
        await trio.to_thread.run_sync(cluster.launch)
        async with Peer.connect(conf.acceptors[0]) as peer:
            await peer.submit(b"anew")
            assert await peer.accepted() == (0, 1, b"anew")


async def test_on_disk_everything_is_there_after_a_start(tmp_path: Path) -> None:
    options = f"storage-backend lmdb\nlmdb-env-path {tmp_path}/log\nlmdb-mapsize 2mb"
    with launched(tmp_path, options) as cluster:
        for number, iid in ((b"one", 1), (b"two", 2)):
            launcher = await trio.to_thread.run_sync(cluster.launch)
            async with trio.open_nursery() as nursery:
                learner = Learner(cluster.conf.acceptors)
                nursery.start_soon(learner.run)
                async with Peer.connect(cluster.conf.proposers[0]) as peer:
                    await peer.submit(number)
                    assert await learner.wait(iid) == [(1, b"one"), (2, b"two")][:iid]
                nursery.cancel_scope.cancel()
            launcher.send_signal(signal.SIGINT)
            await trio.to_thread.run_sync(launcher.wait)
        found = Cluster.load(tmp_path / "log" / CLUSTER_NAME)
        assert found.storage == "disk"
        assert found.extensions["log"] == {"retain_bytes": 2 << 20}


@pytest.mark.parametrize(
    ("conf", "flags", "code", "words"),
    [
        ("a 0 127.0.0.1 1", ["--node", "n1"], 2, "--cluster"),
        ("a 0 127.0.0.1 x", [], 2, "line 1, column 15"),
        ("a 0 127.0.0.1 1", ["--cluster", "c.toml"], 2, "--node NAME"),
        ("a 0 127.0.0.1 1", ["--cluster", "c.toml", "--nodes", "3"], 2, "--nodes"),
        ("a 0 127.0.0.1 1\nacceptor-trash-files yes", ["--cluster", "c.toml", "--node", "n1"], 2,
         "line 2, column 22: acceptor-trash-files"),
        ("a 0 127.0.0.1 1\nstorage-backend lmdb", ["--cluster", "c.toml", "--node", "n1"], 2,
         "storage-backend: lmdb is found"),
        ("a 0 127.0.0.1 1", ["--cluster", "c.toml", "--node", "n1", "--ids", "3"], 2,
         "there is no id 3"),
    ],
)  # fmt: skip
def test_what_is_misused_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    conf: str, flags: list[str], code: int, words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    Path("paxos.conf").write_text(conf)
    cluster = Cluster.template(1, 7101, "memory", directory=tmp_path)
    Path("c.toml").write_text(cluster.to_toml())
    assert cli.main(["libpaxos", "--config", "paxos.conf", *flags]) == code
    assert words in capsys.readouterr().err
