"""A running server, and a real Redis to compare with."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from kvstore.logtime import Clock, wall_clock
from p4xos.processes import end_with_parent
from tests.kvstore.conversations import RealRedis
from tests.kvstore.serving import Running, serving


@pytest.fixture
def clock() -> Clock:
    """This machine's; a module that wants to move time says so by a fixture of its own."""
    return wall_clock


@pytest.fixture
async def running(tmp_path: Path, clock: Clock) -> AsyncIterator[Running]:
    async with serving(tmp_path, clock) as everything:
        yield everything


@pytest.fixture(scope="session")
def real_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a real redis-server.

    Debian's redis-check-rdb is the same program, and serves when it is called redis-server.
    """
    directory = tmp_path_factory.mktemp("redis")
    program = shutil.which("redis-server")
    if program is None:
        twin = shutil.which("redis-check-rdb")
        if twin is None:
            pytest.skip("no redis-server here (Debian packages: redis-server, redis-tools)")
        program = str(directory / "redis-server")
        Path(program).symlink_to(twin)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [program, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", directory],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=end_with_parent(signal.SIGKILL),  # a test run that is cut off leaves nothing
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if "Ready to accept connections" in line:
                break
        else:
            pytest.skip(f"{program} did not start")
        yield port
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def redis_connection(real_redis: int) -> Iterator[RealRedis]:
    """A connection to a real redis-server."""
    connection = RealRedis(real_redis)
    yield connection
    connection.close()
