"""`kvstore cluster` as a user runs it, with real nodes."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import Child, children, python_module, wait_until
from bench.store_cluster import StoreCluster, free_base_port
from bench.writers import connect
from p4xos.processes import NODE_LOCK, running_process

LIMIT_S = 90


@pytest.fixture
def started() -> Iterator[list[Child]]:
    with children() as all_started:
        yield all_started


def launch(started: list[Child], directory: Path, *flags: str) -> Child:
    command = python_module("kvstore", "cluster", "--directory", str(directory / "data"), *flags)
    child = Child("the launcher", command, directory / f"launcher-{len(started)}.txt")
    started.append(child)
    return child


def wait_until_ready(child: Child) -> None:
    def ready() -> bool:
        assert child.running, child.log_text()
        return "Ctrl-C" in child.log_text()

    wait_until(ready, LIMIT_S, "the launcher's greeting")


def running_nodes(store: StoreCluster) -> list[int]:
    pids = [running_process(store.data(name) / NODE_LOCK) for name in store.names]
    return [pid for pid in pids if pid is not None]


def test_start_stop_and_second_start(tmp_path: Path, started: list[Child]) -> None:
    """Ctrl-C leaves nothing running; the next start finds what was written."""
    first = launch(started, tmp_path, "--base-port", str(free_base_port()))
    wait_until_ready(first)
    store = StoreCluster(tmp_path / "data")  # looks only; the launcher runs the nodes
    pids = running_nodes(store)
    assert len(pids) == 3
    for name in store.names:
        with connect(store.endpoint(name)) as client:
            assert client.set(f"at:{name}", name)
    assert first.stop(signal.SIGINT) == 0, first.log_text()
    assert running_nodes(store) == []
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)

    second = launch(started, tmp_path)
    wait_until_ready(second)
    for reader in store.names:
        with connect(store.endpoint(reader)) as client:
            for name in store.names:
                assert client.get(f"at:{name}") == name.encode()
    assert second.stop(signal.SIGINT) == 0, second.log_text()
    assert running_nodes(store) == []


def test_a_port_in_use_is_named_and_nothing_starts(tmp_path: Path, started: list[Child]) -> None:
    base = free_base_port()
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", base + 1))
        holder.listen()
        child = launch(started, tmp_path, "--base-port", str(base))
        assert child.wait() == 1
    said = child.log_text()
    assert f"127.0.0.1:{base + 1}" in said
    assert len(said.splitlines()) == 1, said
    assert running_nodes(StoreCluster(tmp_path / "data")) == []


@pytest.mark.parametrize("transport", ["TCP", "UDP"])
def test_a_node_alone_names_the_port_that_is_in_use(tmp_path: Path, transport: str) -> None:
    with StoreCluster(tmp_path / "cluster") as store:
        name = store.names[0]
        kind = socket.SOCK_STREAM if transport == "TCP" else socket.SOCK_DGRAM
        address = store.endpoint(name) if transport == "TCP" else store.cluster.acceptors[0].address
        with socket.socket(socket.AF_INET, kind) as holder:
            holder.bind(address)
            child = store.launch(name)
            assert child.wait() == 1
        said = child.log_text()
        assert len(said.splitlines()) == 1, said
        assert f"port {address.port}: the port is in use" in said
