"""`kvstore node` as a process: what stops it is one message and exit code 1; what INFO tells."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
import redis

from kvstore.cluster import StoreApplication
from kvstore.config import endpoint
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME, Wanted, find_or_create
from p4xos.storage.directory import MARK_NAME

LIMIT_S = 60
"""Far longer than a node takes to give up."""


def new_cluster(directory: Path) -> Cluster:
    directory.mkdir()
    wanted = Wanted(nodes=1, base_port=0, storage="disk")
    return find_or_create(directory, wanted, StoreApplication().complete)


def started(cluster: Cluster) -> subprocess.Popen[str]:
    command = StoreApplication().command(cluster.directory / CLUSTER_NAME, "n1")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def complaint(cluster: Cluster) -> str:
    """The one message of a node that cannot start, or stops by itself."""
    with started(cluster) as process:
        try:
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 1, said
    return message(said)


def message(said: str) -> str:
    assert "Traceback" not in said
    (found,) = [line for line in said.splitlines() if line.startswith("kvstore: ")]
    assert "; " in found  # and what to do
    return found


def connect(cluster: Cluster, process: subprocess.Popen[str]) -> redis.Redis:
    """A client of a node that has begun to serve."""
    assert process.stdout is not None
    lines = []
    while "serves RESP" not in (line := process.stdout.readline()):
        lines.append(line)
        assert line, f"it ended: {lines}"
    return redis.Redis(port=endpoint(cluster, "n1").port, socket_timeout=LIMIT_S)


def stopped(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Cluster, Cluster]:
    """Two clusters of one node, which have run; tests copy them."""
    found = []
    for name in ("ours", "theirs"):
        cluster = new_cluster(tmp_path_factory.mktemp("used") / name)
        with started(cluster) as process:
            try:
                with closing(connect(cluster, process)) as client:
                    client.mset({f"key{number}": f"{number}" * 500 for number in range(300)})
                stopped(process)
            finally:
                process.kill()
        found.append(cluster)
    return found[0], found[1]


@pytest.fixture
def cluster(used: tuple[Cluster, Cluster], tmp_path: Path) -> Cluster:
    shutil.copytree(used[0].directory, tmp_path / "copy")
    return Cluster.load(tmp_path / "copy" / CLUSTER_NAME)


@pytest.mark.parametrize("what", ["clients", "peers", "acceptor"])
def test_a_port_in_use_is_named_and_nothing_is_used_up(tmp_path: Path, what: str) -> None:
    cluster = new_cluster(tmp_path / "new")
    kind = socket.SOCK_DGRAM if what == "acceptor" else socket.SOCK_STREAM
    address = {
        "clients": endpoint(cluster, "n1"),
        "peers": cluster.node("n1").peer,
        "acceptor": cluster.acceptors[0].address,
    }[what]
    with socket.socket(socket.AF_INET, kind) as other:
        other.bind(address)
        if kind == socket.SOCK_STREAM:
            other.listen()
        said = complaint(cluster)
    assert f"{address.port}: " in said
    assert "in use" in said
    # In memory mode an acceptor that once opened has forgotten; so its mark must still be there.
    assert (cluster.member_directory("acceptor", 0) / MARK_NAME).exists()


@pytest.mark.parametrize("part", ["acceptor-0", "coordinator-0", "store"])
def test_data_of_another_cluster_are_refused(
    used: tuple[Cluster, Cluster], cluster: Cluster, part: str
) -> None:
    ours, theirs = (each.data_directory("n1") / part for each in (cluster, used[1]))
    shutil.rmtree(ours)
    shutil.copytree(theirs, ours)
    said = complaint(cluster)
    assert str(ours) in said
    for id_ in (cluster.id, used[1].id):
        assert f"{id_:08x}" in said


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def damage_manifest(data: Path) -> Path:
    (path,) = data.glob("store/generation-*/MANIFEST-*")
    flip(path)
    return data / "store"


def lose_table(data: Path) -> Path:
    for path in data.glob("store/generation-*/*.sst"):
        path.unlink()
    return data / "store"


def lose_generation(data: Path) -> Path:
    for path in data.glob("store/generation-*"):
        shutil.rmtree(path)
    return data / "store"


def damage_round(data: Path) -> Path:
    flip(data / "coordinator-0" / "round")
    return data / "coordinator-0" / "round"


def put_a_file_in_the_way(data: Path) -> Path:
    shutil.rmtree(data / "store")
    (data / "store").write_text("")
    return data / "store"


@pytest.mark.parametrize(
    "damage", [damage_manifest, lose_table, lose_generation, damage_round, put_a_file_in_the_way]
)
def test_damage_found_at_the_start_is_named(
    cluster: Cluster, damage: Callable[[Path], Path]
) -> None:
    path = damage(cluster.data_directory("n1"))
    assert str(path) in complaint(cluster)


def test_damage_found_while_running_stops_the_node(cluster: Cluster) -> None:
    """What cannot be read must not be answered, and not be built upon."""
    (table,) = cluster.data_directory("n1").glob("store/generation-*/*.sst")
    content = bytearray(table.read_bytes())
    for position in range(len(content) // 4, len(content) // 2, 20):
        content[position] ^= 0xFF
    table.write_bytes(content)
    with started(cluster) as process:
        try:
            with (
                closing(connect(cluster, process)) as client,
                pytest.raises(redis.ConnectionError),
            ):
                client.mget([f"key{number}" for number in range(300)])
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 1
    assert str(cluster.data_directory("n1") / "store") in message(said)
    assert "damaged" in message(said)


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from kvstore.cli import main
sys.exit(main(["node", "--cluster", sys.argv[2], "--name", "n1"]))
"""


@pytest.mark.parametrize("size", [0, 100, 8 << 20])
def test_a_disk_that_takes_no_more_at_the_start_is_named(tmp_path: Path, size: int) -> None:
    """A limit on the size of files, since every user may set one."""
    cluster = new_cluster(tmp_path / "new")
    arguments = [str(size), str(cluster.directory / CLUSTER_NAME)]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert str(cluster.data_directory("n1")) in message(done.stdout)


def test_what_was_acknowledged_before_the_disk_took_no_more_is_kept(tmp_path: Path) -> None:
    """docs/PROTOCOL.md, section 3. The acceptor's segments fit the limit, the store's log grows."""
    cluster = new_cluster(tmp_path / "new")
    arguments = [str(20 << 20), str(cluster.directory / CLUSTER_NAME)]
    acknowledged = 0
    with subprocess.Popen(
        [sys.executable, "-c", LIMITED, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as process:  # fmt: skip
        try:
            with closing(connect(cluster, process)) as client:

                def write() -> None:
                    nonlocal acknowledged
                    while acknowledged < 1000:
                        client.set(f"key{acknowledged}", bytes(100_000))
                        acknowledged += 1

                with pytest.raises(redis.ConnectionError):
                    write()
            said, _ = process.communicate(timeout=LIMIT_S)
        finally:
            process.kill()
    assert process.returncode == 1
    assert str(cluster.data_directory("n1")) in message(said)
    assert "File too large" in message(said)
    assert acknowledged > 50
    with started(cluster) as process:
        try:
            with closing(connect(cluster, process)) as client:
                keys = [f"key{number}" for number in range(acknowledged)]
                assert client.exists(*keys) == acknowledged
            stopped(process)
        finally:
            process.kill()


def test_info_tells_of_consensus(cluster: Cluster) -> None:
    with started(cluster) as process:
        try:
            with closing(connect(cluster, process)) as client:
                client.set("a", "b")
                info = client.info("consensus")
                assert info["node"] == "n1"
                assert info["coordinator"] == "serving"
                assert (info["leader"], info["silent_acceptors"], info["blocked"]) == (0, 0, "no")
                assert info["next"] >= info["low"] > 0  # equal once all is checkpointed
                assert info["round"] > 0
                replica = client.info("replica")
                assert replica["delivered"] == replica["heard"]
                assert (replica["lag"], replica["behind"]) == (0, 0)
                assert client.info("drops")["dropped_cluster"] == 0
            stopped(process)
        finally:
            process.kill()
