"""`kvstore check` against clusters of real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import trio

from bench.processes import wait_until
from bench.store_cluster import StoreCluster
from bench.writers import connect
from kvstore.checking import Workload, judge
from kvstore.cli import main
from p4xos.creation import CLUSTER_NAME

LIMIT_S = 120


def command(store: StoreCluster, *flags: str) -> list[str]:
    file = str(store.cluster.directory / CLUSTER_NAME)
    return [sys.executable, "-m", "kvstore", "check", "--cluster", file, "--json", *flags]


def test_a_cluster_is_linearizable_and_left_as_it_was(
    shared: StoreCluster, tmp_path: Path
) -> None:
    shared.wait_until_writable()  # leaves a key of its own
    history = str(tmp_path / "history")
    done = subprocess.run(
        command(shared, "--operations", "400", "--seed", "1", "--history", history),
        capture_output=True, text=True, timeout=LIMIT_S,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["verdict"], told["seed"]) == ("linearizable", 1)
    assert told["reads missing at the end"] == 0
    assert told["outcomes"]["answered"] == told["attempts"] > 400
    with connect(shared.endpoint(shared.names[0])) as client:
        assert client.keys("*") == [b"probe"]
    assert main(["check", "--replay", history]) == 0


def test_an_interrupted_check_judges_what_it_has(shared: StoreCluster, tmp_path: Path) -> None:
    shared.wait_until_writable()
    history = tmp_path / "history"
    process = subprocess.Popen(
        command(shared, "--seconds", "600", "--history", str(history)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        wait_until(
            lambda: process.poll() is not None or (history.exists() and history.stat().st_size > 0),
            LIMIT_S, "that the check has begun",
        )  # fmt: skip
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LIMIT_S)
    finally:
        process.kill()
        process.communicate()
    assert (process.returncode, err) == (0, "")
    told = json.loads(out)
    assert told["verdict"] == "linearizable"
    assert "interrupted" in told
    assert 0 < told["attempts"] == len(history.read_text().splitlines())


async def wait_for_more(workload: Workload, count: int) -> None:
    """Returns when so many more attempts were answered."""
    wanted = workload.history.outcomes["answered"] + count
    with trio.fail_after(LIMIT_S):
        while workload.history.outcomes["answered"] < wanted:
            await trio.sleep(0.05)


async def test_nodes_die_and_return_under_it(store: StoreCluster) -> None:
    """kill -9 of the coordinator, then of a follower: unknown outcomes, and no violation."""
    await trio.to_thread.run_sync(store.wait_until_writable)
    nodes = {name: store.endpoint(name) for name in store.names}
    workload = Workload(nodes, seed=3, clients=6)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workload.run)
        first = await trio.to_thread.run_sync(store.coordinator)
        for victim in (first, next(name for name in store.names if name != first)):
            await wait_for_more(workload, 150)
            store.kill(victim)
            await wait_for_more(workload, 150)
            await trio.to_thread.run_sync(store.start, victim)
        await wait_for_more(workload, 150)
        workload.stop()
    assert await workload.read_all() == 0
    assert await workload.remove() == 0
    judged = judge(workload.history.attempts)
    assert judged.good, "\n".join(judged.lines())
    assert {attempt.node for attempt in workload.history.attempts} == set(store.names)
