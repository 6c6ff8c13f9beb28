"""The clients that people have, against a server on a log of one replica."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable

import pytest
import redis
import trio

from tests.kvstore.serving import Running


async def on_thread(function: Callable[[], None]) -> None:
    with trio.fail_after(60):
        await trio.to_thread.run_sync(function)


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} here (Debian package: redis-tools)")
    return found


@pytest.mark.parametrize("protocol", [2, 3])
async def test_redis_py(running: Running, protocol: int) -> None:
    port = running.server.port

    def use() -> None:
        with redis.Redis(port=port, protocol=protocol, client_name="me", db=2) as client:
            assert client.ping()
            assert client.set("k", "v")
            assert client.get("k") == b"v"
            assert client.set("k", "w", nx=True) is None
            assert client.mset({"a": 1, "b": "x" * 10_000})
            assert client.mget("a", "b", "c") == [b"1", b"x" * 10_000, None]
            assert client.incr("a") == 2
            assert client.exists("a", "b", "c") == 2
            assert client.dbsize() == 3
            assert client.delete("a", "c") == 1
            assert client.client_getname() in ("me", b"me")
            assert client.client_id() >= 1
            assert client.info("keyspace")["db2"]["keys"] == 2
            assert client.config_get("save") == {"save": ""}
            assert client.command_count() > 20
            assert "get" in client.command()
            with pytest.raises(redis.ResponseError, match="not an integer"):
                client.incr("k")
            with client.pipeline(transaction=False) as pipeline:
                for number in range(2000):
                    pipeline.set(f"p{number}", number)
                    pipeline.get(f"p{number}")
                replies = pipeline.execute()
            assert replies[1::2] == [b"%d" % number for number in range(2000)]
            assert client.flushall()
            assert client.dbsize() == 0

    await on_thread(use)


async def test_redis_cli(running: Running) -> None:
    def cli(*words: str, stdin: str = "") -> str:
        return subprocess.run(
            [tool("redis-cli"), "-p", str(running.server.port), *words],
            input=stdin, capture_output=True, text=True, check=True, timeout=30,
        ).stdout

    def use() -> None:
        assert cli("SET", "k", "v") == "OK\n"
        assert cli("-3", "GET", "nothing") == "\n"
        assert cli(stdin="SET k 5\nINCR k\nSELECT 1\nGET k\n").split() == ["OK", "6", "OK"]
        assert cli("--no-raw", "MGET", "k", "x") == '1) "6"\n2) (nil)\n'
        assert cli("-n", "3", "DBSIZE") == "0\n"
        assert cli("COMMAND", "DOCS", "get").splitlines()[:3] == [
            "get", "summary", "Get the value of a key",
        ]  # fmt: skip

    await on_thread(use)


async def test_redis_benchmark(running: Running) -> None:
    def use() -> None:
        for pipeline in ("1", "16"):
            done = subprocess.run(
                [tool("redis-benchmark"), "-p", str(running.server.port), "-n", "2000", "-c", "10",
                 "-P", pipeline, "-q", "-r", "100", "-t", "ping,set,get,incr,mset"],
                capture_output=True, text=True, check=True, timeout=60,
            )  # fmt: skip
            assert done.stdout.count("requests per second") == 6  # inline PING is its own
            assert "Error" not in done.stdout + done.stderr

    await on_thread(use)


async def test_the_shell_runs_what_is_piped_or_given(running: Running) -> None:
    port = str(running.server.port)

    def shell(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kvstore", "shell", *arguments],
            input=stdin, capture_output=True, text=True, check=False, timeout=30,
        )

    def use() -> None:
        done = shell("-p", port, stdin="SET k 'a b'\n\nGET k\nMGET k x\nfoo\n'\nGET k\n")
        assert done.stdout.splitlines() == [
            "OK", "a b", "a b", "",
            "ERR unknown command 'foo', with args beginning with: ", "a b",
        ]  # fmt: skip
        assert done.returncode == 1
        done = shell("--host", "localhost", "--port", port, "GET", "k")
        assert (done.stdout, done.returncode) == ("a b\n", 0)
        done = shell("-p", port, "SET", "-p", "--host")  # a command's words are its own
        assert (done.stdout, done.returncode) == ("OK\n", 0)
        done = shell("-p", port, "get", "-p")
        assert (done.stdout, done.returncode) == ("--host\n", 0)
        done = shell("-p", port, "INCR", "-p")
        assert (done.stdout, done.returncode) == (
            "ERR value is not an integer or out of range\n", 1,
        )  # fmt: skip
        done = shell("-p", "99999", "GET", "k")
        assert done.returncode == 2
        assert "a number from 1 to 65535" in done.stderr
        done = shell("-p", "1", "GET", "k")
        assert done.returncode == 1
        assert "look whether the node runs" in done.stderr

    await on_thread(use)
