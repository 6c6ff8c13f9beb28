"""Generators as processes, against a server of real sockets."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.load import outcome
from bench.load.plan import Plan
from bench.load.running import run
from p4xos.tables import Address
from tests.bench.load.servers import SlowServer

FOREVER_S = 1000.0


@pytest.fixture(autouse=True)
def on_any_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is shown here holds as well when it stands still now and then."""
    monkeypatch.setattr(outcome, "STOOD_STILL_MS", math.inf)


@pytest.fixture
def slow_server() -> Iterator[SlowServer]:
    server = SlowServer(0.02)
    yield server
    server.close()


def test_closed_loop(tmp_path: Path, slow_server: SlowServer) -> None:
    plan = Plan(
        (slow_server.address,), "A", records=100, value_bytes=10, clients=4, pipeline=3,
        operations=60, seconds=FOREVER_S, warm_up_s=0,
    )  # fmt: skip
    found = run(plan, tmp_path / "load")
    assert found.latency.total == found.answered == len(slow_server.requests) == 60
    assert found.latency.least_ns >= 20_000_000
    # The last of a pipeline waits for those before it.
    assert found.latency.most_ns >= 3 * 20_000_000
    assert 0 < found.seconds < FOREVER_S


def test_open_loop_of_two_generators(tmp_path: Path, slow_server: SlowServer) -> None:
    # Ten times of what one connection does: a closed loop would have waited.
    plan = Plan(
        (slow_server.address,), "C", records=100, clients=1, rate=500, arrivals="constant",
        seconds=0.2, warm_up_s=0, drain_s=60, lag_limit_ms=60_000, parts=2,
    )  # fmt: skip
    found = run([plan._replace(part=part) for part in (0, 1)], tmp_path)
    assert found.latency.total == len(slow_server.requests) == 200
    assert found.latency.least_ns >= 20_000_000
    # The last of a hundred is meant to be sent after 0.198 s, and answered after 2 s.
    assert found.latency.most_ns >= 1_800_000_000
    assert found.lag.total == 200
    assert found.unanswered == 0


def test_a_server_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"127\.0\.0\.1:1 cannot be reached"):
        run(Plan((Address("127.0.0.1", 1),)), tmp_path)


def test_a_server_that_goes_away(tmp_path: Path, slow_server: SlowServer) -> None:
    slow_server.closes = True
    with pytest.raises(BenchError, match=r"closed the connection|cut off"):
        run(Plan((slow_server.address,), clients=1), tmp_path)
