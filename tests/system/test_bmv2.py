"""A cluster whose acceptors and coordinators are switches of bmv2, which are switched off.

Where p4c and bmv2 are missing, stand-ins of ours take their command lines: what is tested then is
everything but them.
"""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.processes import wait_until
from tests.switch.bmv2 import standin
from tests.switch.bmv2.needed import why_not
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster

SWITCHES = ("a1", "a2", "a3", "c1", "c2", "c3")


def of_a_switch(cluster: SwitchedCluster, node: str) -> int:
    """The process that is the node's switch, the last that it started."""

    def told() -> list[str]:
        return re.findall(r"runs on simple_switch, process (\d+)", cluster.log(node))

    wait_until(lambda: bool(told()), LIMIT_S, f"that {node} has a switch")
    return int(told()[-1])


def processes_of(network: str) -> list[str]:
    """Processes whose network it is."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/net") == network:
                found.append(entry.name)
        except OSError:  # it has ended
            continue
    return found


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[SwitchedCluster]:
    """Running, and stopped with the test; of its networks nothing is left."""
    if os.geteuid() != 0:
        pytest.skip("a switch needs a network namespace of its own: run as root")
    base = os.environ if why_not() is None else standin.install(tmp_path / "programs")
    running = SwitchedCluster(tmp_path, "bmv2", base)
    try:
        networks = [os.readlink(f"/proc/{of_a_switch(running, node)}/ns/net") for node in SWITCHES]
        assert len({*networks, os.readlink("/proc/self/ns/net")}) == len(SWITCHES) + 1
        yield running
    finally:
        running.stop()
    wait_until(lambda: not any(map(processes_of, networks)), LIMIT_S, "the switches' end")


def test_a_store_on_bmv2(switched: SwitchedCluster) -> None:
    """docs/PROTOCOL.md, sections 3, 4 and 8: a switch reboots, a coordinator's is replaced."""
    assert switched.cluster.data_plane == "bmv2"
    assert switched.cli("n1", "set", "greeting", "hello") == "OK"
    assert switched.cli("n3", "get", "greeting") == "hello"

    wait_until(lambda: switched.votes("a2"), LIMIT_S, "that a2 takes part")
    os.kill(of_a_switch(switched, "a2"), signal.SIGKILL)  # its registers are gone, its node is not
    assert switched.cli("n1", "set", "greeting", "without one") == "OK"
    ended = r"simple_switch, process \d+, was killed by SIGKILL .* its registers are lost"
    wait_until(lambda: bool(re.search(ended, switched.log("a2"))), LIMIT_S, "that a2's node ends")
    switched.read_until(switched.start_again("a2"), "it has joined again")
    switched.kill("a1")  # now every vote of the one that came back is needed
    assert switched.cli("n2", "get", "greeting") == "without one"
    assert switched.cli("n2", "set", "greeting", "with the other") == "OK"

    os.kill(of_a_switch(switched, switched.leader()), signal.SIGKILL)
    assert switched.cli("n1", "set", "greeting", "another leads") == "OK"
    assert switched.cli("n3", "get", "greeting") == "another leads"
