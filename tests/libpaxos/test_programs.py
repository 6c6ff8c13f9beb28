"""libpaxos' own programs, unchanged, where a directory with them is named.

LIBPAXOS_BIN is that of its sample programs, as for `bench`; everywhere else the same behaviour is
shown by a peer that speaks as they do (`test_gateway`, `test_launched`).
"""

from __future__ import annotations

import os
import signal
import struct
from pathlib import Path

import pytest
import trio

from p4xos.packing import unpack_delivered_untrusted
from tests.libpaxos.launched import POLL_S, Launched, launched, wait_for
from tests.libpaxos.peers import FrameClient

BIN = Path(os.environ.get("LIBPAXOS_BIN", ""))
pytestmark = pytest.mark.skipif(
    "LIBPAXOS_BIN" not in os.environ,
    reason="LIBPAXOS_BIN is not set: the directory of libpaxos' sample programs",
)
HEADER = struct.Struct("<i4xqqQ")
"""Of what its client submits: id, seconds, microseconds, length."""


def line(value: bytes) -> str:
    """What its learner and its replica print of a value."""
    _, seconds, microseconds, _ = HEADER.unpack_from(value)
    text = value[HEADER.size :][:16].split(b"\0")[0].decode()
    size = HEADER.unpack_from(value)[3]
    return f"{seconds}.{microseconds:06d} [{text}] {size} bytes"


async def own(cluster: Launched, acceptor: int) -> list[bytes]:
    """What our own learner at a gateway has delivered so far."""
    async with FrameClient.connect(cluster.conf.acceptors[acceptor]) as client:
        await client.say({"ask": "status", "id": 1})
        status = (await client.hear())[0]["status"]
        assert isinstance(status, dict)
        await client.say({"ask": "deliver", "first": 1})
        values: list[bytes] = []
        while len(values) < status["next_iid"] - 1:
            _, body = await client.hear()
            values += [value for _, value in unpack_delivered_untrusted(body)]
        return values


async def grown(cluster: Launched, acceptor: int, by: int) -> None:
    """Returns once so many more values are delivered."""
    wanted = len(await own(cluster, acceptor)) + by
    with trio.fail_after(60):
        while len(await own(cluster, acceptor)) < wanted:
            await trio.sleep(10 * POLL_S)


# Each node has two of the six addresses: with one of them and itself lost, a replica still hears
# four of seven acceptors.
async def test_client_learner_and_replica_across_a_killed_coordinator(tmp_path: Path) -> None:
    with launched(tmp_path, replicas=True) as cluster:
        await trio.to_thread.run_sync(cluster.launch, "--nodes", "3")
        alone = tmp_path / "replica.conf"
        free = trio.socket.socket()
        await free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        alone.write_text(cluster.file.read_text() + f"replica 6 127.0.0.1 {port}\n")
        unbuffered = ["stdbuf", "-oL"]
        early, late, replica, client = (
            tmp_path / f"{name}.txt" for name in ("early", "late", "replica", "client")
        )
        cluster.start([*unbuffered, str(BIN / "learner"), str(cluster.file)], early)
        cluster.start([*unbuffered, str(BIN / "replica"), "6", str(alone), "-v"], replica)
        loading = cluster.start(
            [*unbuffered, str(BIN / "client"), str(cluster.file), "-o", "20", "-v", "64", "-p",
             "1"], client,
        )  # fmt: skip
        await grown(cluster, 1, 200)
        os.kill(cluster.node("n1"), signal.SIGKILL)
        await grown(cluster, 1, 200)
        await trio.to_thread.run_sync(wait_for, client, 2)  # it counts whole seconds
        loading.kill()
        await trio.to_thread.run_sync(loading.wait)
        cluster.start([*unbuffered, str(BIN / "learner"), str(cluster.file)], late)
        values = await own(cluster, 1)
        expected = [line(value) for value in values]
        for output in (early, replica, late):
            found = await trio.to_thread.run_sync(wait_for, output, len(expected))
            assert found == expected, output.name
        assert "value/sec" in client.read_text()
