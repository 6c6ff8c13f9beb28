"""A cluster of XDP programs under faults, judged by what its clients saw."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import trio

from bench.processes import wait_until
from kvstore.checking import Workload, judge
from kvstore.config import endpoints
from p4xos import inquiries
from p4xos.creation import CLUSTER_NAME
from switch.xdp import fabric, places
from tests.switch.kernel import held, in_kernel, in_the_kernel
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster

PROGRAMS = ("bpftool", "nft", "redis-cli", "ip")
MISSING = ", ".join(program for program in PROGRAMS if shutil.which(program) is None)
pytestmark = [
    in_the_kernel,
    pytest.mark.skipif(bool(MISSING), reason=f"there is no {MISSING} (deploy/setup test)"),
]
LOSS = "numgen random mod 100 < 3 drop"


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[SwitchedCluster]:
    """Running, and stopped with the test."""
    running = SwitchedCluster(tmp_path, "xdp")
    yield running
    running.stop()


@contextmanager
def rules(switched: SwitchedCluster, *lines: str) -> Iterator[None]:
    """Rules of nft on what passes the cluster's bridge."""
    namespace = fabric.found(switched.cluster)
    hooks = "\n".join(
        f"chain {hook} {{ type filter hook {hook} priority 0; policy accept;\n"
        + "\n".join(lines) + "\n}"
        for hook in ("input", "forward", "output")
    )  # fmt: skip

    def nft(text: str) -> None:
        with namespace.entered():
            subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)

    try:
        nft(f"table bridge faults {{\n{hooks}\n}}\n")
        try:
            yield
        finally:
            nft("delete table bridge faults\n")
    finally:
        namespace.close()


def counters(switched: SwitchedCluster, node: str) -> dict[str, int]:
    """Everything counted by the role of a switch."""
    told = inquiries.status(switched.cluster)[node]
    assert isinstance(told, dict)
    (of_role,) = (c for name, c in told["counters"].items() if name[-1].isdigit())
    counted: dict[str, int] = of_role
    return counted


def votes_by_itself(switched: SwitchedCluster, node: str) -> bool:
    """Whether next to nothing of what an acceptor does is left to its process."""
    counted = counters(switched, node)
    return counted["votes"] > max(50, 8 * counted["handed_up"])


def moved(switched: SwitchedCluster, data_plane: str) -> None:
    """All acceptors and coordinators go to another data plane."""
    command = [
        sys.executable, "-m", "p4xos", "reconfigure", "--data-plane", data_plane,
        "--cluster", str(switched.directory / CLUSTER_NAME),
    ]  # fmt: skip

    def done() -> bool:  # a node that has just started may not answer yet
        told = subprocess.run(
            command, env=switched.environment, capture_output=True, timeout=LIMIT_S
        )
        return told.returncode == 0

    wait_until(done, LIMIT_S, f"that the group has moved to {data_plane}")


async def more(workload: Workload, count: int) -> None:
    """Returns when so many more attempts were answered."""
    wanted = workload.history.outcomes["answered"] + count
    with trio.fail_after(LIMIT_S):
        while workload.history.outcomes["answered"] < wanted:
            await trio.sleep(0.02)


async def test_a_store_in_the_kernel(switched: SwitchedCluster) -> None:
    """docs/PROTOCOL.md, sections 3, 4, 8 and 10: loss, kills, a partition; nothing is left."""
    cluster = switched.cluster
    assert (cluster.data_plane, cluster.storage) == ("xdp", "memory")
    for node in ("a1", "a2", "a3"):
        await trio.to_thread.run_sync(
            wait_until, partial(switched.votes, node), LIMIT_S, f"that {node} takes part"
        )
    workload = Workload(endpoints(cluster), seed=9, clients=6)
    left_behind = set()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workload.run)
        await more(workload, 150)

        # These packets pass no process: it hears what is said while the cluster starts.
        await trio.to_thread.run_sync(
            wait_until, partial(votes_by_itself, switched, "a1"), LIMIT_S, "that the kernel votes"
        )

        with rules(switched, LOSS):
            await more(workload, 150)

        left_behind |= held(switched.process("a2"))
        switched.kill("a2")  # its registers are gone with it
        await more(workload, 150)
        again = switched.start_again("a2")
        told = await trio.to_thread.run_sync(
            switched.read_until, again, "it has joined again"
        )
        assert "acceptor 1 may have forgotten what it voted for" in told

        leader = switched.leader()
        left_behind |= held(switched.process(leader))
        switched.kill(leader)
        await more(workload, 150)

        alone = cluster.acceptors[0].address.host
        with rules(switched, f"ip saddr {alone} drop", f"ip daddr {alone} drop"):
            await more(workload, 150)  # every vote of the one that came back is needed
        await more(workload, 50)

        # Out of the kernel, and back into it.
        switched.start_again(leader)
        for data_plane in ("numpy", "xdp"):
            await trio.to_thread.run_sync(moved, switched, data_plane)
            await more(workload, 50)
        workload.stop()
    assert {kind for kind, _ in left_behind} == {"link", "prog", "map"}
    wait_until(lambda: not left_behind & in_kernel(), LIMIT_S, "that the killed ones are gone")
    assert await workload.read_all() == 0
    assert await workload.remove() == 0
    judged = judge(workload.history.attempts)
    assert judged.good, "\n".join(judged.lines())

    # Values longer than a frame's travel in fragments.
    long = "x" * 50_000
    assert switched.cli("n1", "set", "long", long) == "OK"
    assert switched.cli("n2", "get", "long") == long

    left_behind |= held(switched.process("a1"))
    switched.started[0].send_signal(signal.SIGINT)
    for process in switched.started:
        process.communicate(timeout=LIMIT_S)
    wait_until(lambda: not left_behind & in_kernel(), LIMIT_S, "that nothing is left")
    assert not (switched.directory / places.FILE).exists()
