"""What faults of processes, disks and clocks do to real nodes, and that these come back."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.chaos import faults
from bench.chaos.cluster import ChaosCluster, Violation
from bench.processes import wait_until
from bench.writers import Writer, connect, wait_for_more, writing

VALUE = b"v" * 50_000
LIMIT_S = 60.0


@contextmanager
def load(cluster: ChaosCluster, prefix: str, *names: str) -> Iterator[list[Writer]]:
    """Clients of these nodes, on the clients' host."""
    addresses = [cluster.endpoints[name] for name in names or cluster.endpoints]
    # A thread stays on the host that its creator was on.
    with cluster.network.clients.entered(), writing(addresses, prefix) as writers:
        yield writers


def others(cluster: ChaosCluster, name: str) -> list[str]:
    return [other for other in cluster.names if other != name]


def state(cluster: ChaosCluster, name: str) -> str:
    """R, S, T ...: of /proc/<pid>/stat."""
    return Path(f"/proc/{cluster.children[name].pid}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_kill(running: ChaosCluster, chance: random.Random) -> None:
    fault, before = faults.Kill(running, chance), running.kills
    told = fault.begin()
    name = told.split()[-1]
    assert running.children[name].process.returncode == -9
    assert running.kills == before + 1
    assert name not in running.free()
    running.check_running()
    fault.end()
    running.wait_until_alike()
    assert running.free() == running.names


def test_kill_all(running: ChaosCluster, chance: random.Random) -> None:
    fault = faults.KillAll(running, chance)
    with load(running, "all") as writers:
        wait_for_more(writers, 5)
        fault.begin()
        assert fault.bites == len(running.names)
    fault.end()
    running.wait_until_alike()
    running.compare()


def test_pause(running: ChaosCluster, chance: random.Random) -> None:
    fault = faults.Pause(running, chance)
    told = fault.begin()
    name = told.split()[2]
    with load(running, "pause", *others(running, name)) as writers:
        wait_until(lambda: state(running, name) == "T", LIMIT_S, "stopping")
        assert running.statuses(running.names).keys() == set(others(running, name))
        wait_for_more(writers, 5)  # another one has taken over, if it coordinated
    assert fault.lasts_s > running.cluster.timing.takeover_timeout_s
    fault.end()
    assert state(running, name) != "T"
    running.wait_until_alike()


def test_a_node_whose_syncs_fail_stops_loudly(running: ChaosCluster, chance: random.Random) -> None:
    fault = faults.SyncError(running, chance)
    with load(running, "sync") as writers:
        wait_for_more(writers, 5)
        told = fault.begin()
        name = told.split()[3]
        child = running.children[name]
        assert child.wait() == 1
        assert running.pages[name].failed_syncs > 0
        messages = [line for line in child.log_text().splitlines() if line.startswith("kvstore: ")]
        assert "Input/output error" in messages[-1]
        assert "Traceback" not in child.log_text()
        wait_for_more([w for w, n in zip(writers, running.endpoints, strict=True) if n != name], 5)
    fault.end()
    assert fault.bites == 1
    running.wait_until_alike()


def test_a_node_whose_disk_is_full_stops_loudly(
    running: ChaosCluster, chance: random.Random
) -> None:
    fault = faults.FullDisk(running, chance)
    fault.begin()
    name = running.small
    assert name is not None
    with (
        load(running, "full", *others(running, name)) as writers,
        running.network.clients.entered(),
        connect(running.endpoints[others(running, name)[0]]) as client,
    ):
        for number in range(4000):
            if not running.children[name].running:
                break
            client.set(f"large:{number % 10}", VALUE)
        wait_for_more(writers, 5)
    fault.end()
    assert fault.bites == 1
    running.wait_until_alike()
    running.compare()


def test_a_lost_disk(running: ChaosCluster, chance: random.Random) -> None:
    """docs/PROTOCOL.md, section 8."""
    with load(running, "lost") as writers:
        wait_for_more(writers, 5)
        fault = faults.EmptyDisk(running, chance)
        told = fault.begin()
        name = told.split()[0]
        assert list(running.data(name).iterdir()) == []
        with pytest.raises(faults.NotNow):
            faults.EmptyDisk(running, chance).begin()
        fault.end()
        running.wait_until_serving()
        assert running.all_have_joined()
        wait_for_more(writers, 5)
    assert f"node {name} joins with an empty directory" in running.children[name].log_text()
    running.wait_until_alike()
    running.compare()


def test_a_node_whose_clock_is_wrong_serves(running: ChaosCluster, chance: random.Random) -> None:
    fault = faults.Clock(running, chance)
    fault.begin()
    with load(running, "clock") as writers:
        wait_for_more(writers, 5)
        wait_until(lambda: fault.shifted() > 0, LIMIT_S, "reading the clock")
    fault.end()
    assert fault.bites > 0
    running.wait_until_alike()


def test_a_node_that_ends_by_itself_is_noticed(running: ChaosCluster) -> None:
    name = running.names[0]
    running.children[name].kill()
    with pytest.raises(Violation, match=f"node {name} ended by itself with status -9"):
        running.check_running()
    running.launch(name)
    running.wait_until_alike()


def test_a_store_that_does_not_heal_is_noticed(
    running: ChaosCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A short limit: the question is whether it is told, and with which words."""
    name = running.names[0]
    running.out.add(name)
    running.children[name].kill()
    with monkeypatch.context() as patch:
        patch.setattr(running, "heal_limit_s", 0.5)
        with pytest.raises(Violation, match=f"node {name}: its page /readyz does not answer"):
            running.wait_until_serving()
    running.launch(name)
    running.out.clear()
    running.wait_until_alike()
