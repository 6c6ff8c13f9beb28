"""Switches between hosts, in the kernel: coordinators in spines, acceptors in leaves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import trio

from bench.processes import wait_until
from kvstore.checking import Workload, judge
from kvstore.config import endpoints
from p4xos import inquiries
from p4xos.config import Cluster, Member
from switch.xdp import places, switches
from switch.xdp.namespaces import Namespace
from tests.switch.kernel import held, in_kernel, in_the_kernel
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster
from tests.system.test_xdp import LOSS, counters, more, votes_by_itself

PROGRAMS = ("bpftool", "nft", "redis-cli", "ip")
MISSING = ", ".join(program for program in PROGRAMS if shutil.which(program) is None)
pytestmark = [
    in_the_kernel,
    pytest.mark.skipif(bool(MISSING), reason=f"there is no {MISSING} (deploy/setup test)"),
]
SENT = bytes(range(256)) * 4096


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[SwitchedCluster]:
    """Running, and stopped with the test."""
    running = SwitchedCluster(tmp_path, "xdp", network="leaf-spine")
    yield running
    running.stop()


@contextmanager
def on(cluster: Cluster, member: Member) -> Iterator[Namespace]:
    """In the block this thread is on the machine of a member."""
    namespace = places.found(cluster, member.node)
    try:
        with namespace.entered():
            yield namespace
    finally:
        namespace.close()


def passes(cluster: Cluster) -> bool:
    """Whether a connection of somebody else's, from host to host, carries what is sent."""
    one, other = cluster.learners[0], cluster.learners[2]
    with on(cluster, other), socket.create_server((other.address.host, 0)) as server:
        server.settimeout(LIMIT_S)
        with on(cluster, one), socket.create_connection(server.getsockname(), LIMIT_S) as sender:
            receiver, source = server.accept()
            with receiver:
                assert source[0] == one.address.host
                receiver.settimeout(LIMIT_S)
                received = b""
                for at in range(0, len(SENT), 1 << 15):
                    sender.sendall(SENT[at : at + (1 << 15)])
                    while len(received) < at + (1 << 15):
                        received += receiver.recv(1 << 16)
                return received == SENT


def serves(cluster: Cluster, node: str) -> bool:
    """Whether a node's coordinator does, as it says itself."""
    told = inquiries.status(replace(cluster, nodes=(cluster.node(node),)))[node]
    assert isinstance(told, dict)
    return bool(told["coordinator"]["phase"] == "serving")


def leader(cluster: Cluster) -> str:
    """The node whose coordinator serves."""
    found: list[str] = []

    def one() -> bool:
        found[:] = [m.node for m in cluster.coordinators if serves(cluster, m.node)]
        return len(found) == 1

    wait_until(one, LIMIT_S, "that one serves")
    return found[0]


@contextmanager
def loss(cluster: Cluster, *members: Member) -> Iterator[None]:
    """These switches lose some of what they forward."""

    def nft(text: str) -> None:
        for member in members:
            with on(cluster, member):
                subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True)

    hook = "type filter hook forward priority 0"
    nft(f"table ip faults {{\nchain lose {{\n{hook}\n{LOSS}\n}}\n}}\n")
    try:
        yield
    finally:
        nft("delete table ip faults\n")


def in_the_kernel_alone(switched: SwitchedCluster) -> None:
    """With every process of every switch standing still, values are chosen and read as before."""
    cluster = switched.cluster

    def by_themselves() -> bool:
        for k in range(20):
            switched.cli("n2", "set", "greeting", str(k))
        return all(votes_by_itself(switched, member.node) for member in cluster.acceptors)

    wait_until(by_themselves, LIMIT_S, "that the kernel votes")
    before = {m.node: counters(switched, m.node)["votes"] for m in cluster.acceptors}
    # The one that serves stands still last: nobody is there to take over from it.
    serving = leader(cluster)
    others = [m.node for m in cluster.coordinators if m.node != serving]
    processes = [switched.process(node) for node in (*others, serving, *before)]
    for process in processes[: len(others)]:
        os.kill(process, signal.SIGSTOP)
    try:
        assert switched.cli("n1", "set", "greeting", "nobody else may lead") == "OK"
        assert serves(cluster, serving)
        for process in processes[len(others) :]:
            os.kill(process, signal.SIGSTOP)
        for node in ("n1", "n2", "n3"):
            assert switched.cli(node, "set", "greeting", f"by {node}") == "OK"
            assert switched.cli(node, "get", "greeting") == f"by {node}"
        assert passes(cluster)
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    assert all(counters(switched, node)["votes"] > count for node, count in before.items())


async def test_a_store_between_switches(switched: SwitchedCluster) -> None:
    """docs/PROTOCOL.md, sections 3, 4, 8 and 10; nothing is left."""
    cluster = switched.cluster
    in_thread = trio.to_thread.run_sync
    assert switches.ports_of(cluster, "a2") == ("n2", "c1", "c2", "c3")
    assert switches.ports_of(cluster, "c1") == ("a1", "a2", "a3")
    for node in ("a1", "a2", "a3"):
        await in_thread(
            wait_until, partial(switched.votes, node), LIMIT_S, f"that {node} takes part"
        )
    assert switched.cli("n1", "set", "greeting", "hello") == "OK"
    assert switched.cli("n3", "get", "greeting") == "hello"
    assert passes(cluster)
    await in_thread(in_the_kernel_alone, switched)

    workload = Workload(endpoints(cluster), seed=11, clients=4)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(workload.run)
        await more(workload, 60)
        with loss(cluster, cluster.acceptors[1], cluster.coordinators[0]):
            await more(workload, 60)

        # A spine without its process is no coordinator, and forwards on: all hosts' way is by c1.
        gone = held(switched.process("c1"))
        switched.kill("c1")
        await more(workload, 60)
        assert await in_thread(passes, cluster)
        assert {kind for kind, _ in gone} == {"link", "prog", "map"}
        await in_thread(
            wait_until, lambda: not gone & in_kernel(), LIMIT_S, "that its programs are gone"
        )
        await in_thread(switched.read_until, switched.start_again("c1"), "coordinator: following")

        # A leaf without its process is no acceptor, and its host goes on.
        gone |= held(switched.process("a1"))
        switched.kill("a1")
        await more(workload, 60)
        assert await in_thread(passes, cluster)
        told = await in_thread(
            switched.read_until, switched.start_again("a1"), "it has joined again"
        )
        assert "acceptor 0 may have forgotten what it voted for" in told
        await more(workload, 50)
        workload.stop()
    assert await workload.read_all() == 0
    assert await workload.remove() == 0
    judged = judge(workload.history.attempts)
    assert judged.good, "\n".join(judged.lines())

    gone |= held(switched.process("a2")) | held(switched.process("c2"))
    switched.started[0].send_signal(signal.SIGINT)
    for started in switched.started:
        started.communicate(timeout=LIMIT_S)
    wait_until(lambda: not gone & in_kernel(), LIMIT_S, "that nothing is left")
    assert not (switched.directory / places.FILE).exists()
