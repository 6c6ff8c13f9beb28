"""Switches between hosts, in the kernel: coordinators in spines, acceptors in leaves."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from bench.processes import wait_until
from p4xos import inquiries
from p4xos.config import Cluster, Member
from switch.xdp import places, switches
from switch.xdp.namespaces import Namespace
from tests.switch.kernel import held, in_kernel, in_the_kernel
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster
from tests.system.test_xdp import counters, votes_by_itself

PROGRAMS = ("bpftool", "redis-cli", "ip")
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


def test_a_store_between_switches(switched: SwitchedCluster) -> None:
    """No process of a switch is on the way; a controller is killed; all else is forwarded."""
    cluster = switched.cluster
    assert switches.ports_of(cluster, "a2") == ("n2", "c1", "c2", "c3")
    assert switches.ports_of(cluster, "c1") == ("a1", "a2", "a3")
    for node in ("a1", "a2", "a3"):
        wait_until(partial(switched.votes, node), LIMIT_S, f"that {node} takes part")
    assert switched.cli("n1", "set", "greeting", "hello") == "OK"
    assert switched.cli("n3", "get", "greeting") == "hello"
    assert passes(cluster)

    def by_themselves() -> bool:
        for k in range(20):
            switched.cli("n2", "set", "greeting", str(k))
        return all(votes_by_itself(switched, member.node) for member in cluster.acceptors)

    wait_until(by_themselves, LIMIT_S, "that the kernel votes")

    # With every process of every switch standing still, values are chosen and read as before. The
    # one that serves stands still last: nobody is there to take over from it.
    before = {m.node: counters(switched, m.node).get("votes", 0) for m in cluster.acceptors}
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
    after = {m.node: counters(switched, m.node)["votes"] for m in cluster.acceptors}
    assert all(after[node] > before[node] for node in after)

    # A spine without its controller is no coordinator, and forwards on: all hosts' way is by c1.
    left_behind = held(switched.process("c1"))
    switched.kill("c1")
    assert switched.cli("n1", "set", "greeting", "another leads") == "OK"
    assert switched.cli("n3", "get", "greeting") == "another leads"
    assert passes(cluster)
    assert {kind for kind, _ in left_behind} == {"link", "prog", "map"}
    wait_until(lambda: not left_behind & in_kernel(), LIMIT_S, "that its programs are gone")
    assert "following" in switched.read_until(switched.start_again("c1"), "coordinator: following")

    # A leaf without its controller is no acceptor, and its host goes on.
    left_behind = held(switched.process("a1"))
    switched.kill("a1")
    assert switched.cli("n1", "set", "greeting", "without a leaf's") == "OK"
    assert passes(cluster)
    told = switched.read_until(switched.start_again("a1"), "it has joined again")
    assert "acceptor 0 may have forgotten what it voted for" in told

    left_behind |= held(switched.process("a2")) | held(switched.process("c2"))
    switched.started[0].send_signal(signal.SIGINT)
    for started in switched.started:
        started.communicate(timeout=LIMIT_S)
    wait_until(lambda: not left_behind & in_kernel(), LIMIT_S, "that nothing is left")
    assert not (switched.directory / places.FILE).exists()
