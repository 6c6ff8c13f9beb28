"""What users type, at every node of a cluster of real processes."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.redis_benchmark import PROGRAM
from bench.store_cluster import StoreCluster
from bench.writers import connect


def run_program(*command: str) -> str:
    """What a program says; it must not complain."""
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is missing (Debian package redis-tools)")
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert not any(line.startswith(("Error", "ERR", "WARN")) for line in done.stdout.splitlines())
    return done.stdout


def test_set_get_and_del_at_every_node(shared: StoreCluster) -> None:
    for name in shared.names:
        with connect(shared.endpoint(name)) as client:
            assert client.set(f"greeting:{name}", "hello")
            assert client.get(f"greeting:{name}") == b"hello"
            assert client.delete(f"greeting:{name}") == 1
            assert client.get(f"greeting:{name}") is None


def test_an_acknowledged_write_is_read_at_every_node(shared: StoreCluster) -> None:
    """docs/PROTOCOL.md, section 9."""
    clients = [connect(shared.endpoint(name)) for name in shared.names]
    try:
        for number in range(60):
            assert clients[number % 3].set("same", number)
            for reader in clients:
                assert reader.get("same") == str(number).encode()
            assert clients[(number + 1) % 3].delete("same") == 1
            assert [reader.exists("same") for reader in clients] == [0, 0, 0]
    finally:
        for client in clients:
            client.close()


def test_concurrent_increments_are_applied_once(shared: StoreCluster) -> None:
    """docs/traps.md, 15."""

    def increment(name: str) -> list[int]:
        with connect(shared.endpoint(name)) as client:
            return [int(client.incr("counter")) for _ in range(50)]

    with ThreadPoolExecutor() as pool:
        answers = [n for each in pool.map(increment, shared.names * 2) for n in each]
    assert sorted(answers) == list(range(1, 301))


def test_redis_cli_at_every_node(shared: StoreCluster) -> None:
    for name in shared.names:
        cli = ("redis-cli", "-p", str(shared.endpoint(name).port))
        assert run_program(*cli, "set", "typed", name) == "OK\n"
        assert run_program(*cli, "get", "typed") == f"{name}\n"
        assert run_program(*cli, "-3", "mget", "typed", "nothing") == f"{name}\n\n"
        assert run_program(*cli, "del", "typed") == "1\n"
        assert "redis_version" in run_program(*cli, "info")


def test_redis_benchmark_at_every_node(shared: StoreCluster) -> None:
    for name in shared.names:
        port = str(shared.endpoint(name).port)
        load = ("-c", "20", "-n", "1000", "-r", "100", "-P", "4", "-d", "64", "--csv")
        said = run_program(PROGRAM, "-p", port, "-t", "ping,set,get,incr,mset", *load)
        tests = [line.split('"')[1] for line in said.splitlines()]
        assert tests == ["test", "PING_INLINE", "PING_MBULK", "SET", "GET", "INCR",
                         "MSET (10 keys)"]  # fmt: skip
