"""A store whose group moves from switches to numpy and back, while it is used and judged.

docs/PROTOCOL.md, section 8: one that is killed on the way has forgotten, wherever it was going.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from bench.processes import wait_until
from p4xos import inquiries
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster

ROLES = [f"{role} {id}" for role in ("acceptor", "coordinator") for id in range(3)]


class MovedCluster(SwitchedCluster):
    """A cluster of switches, and the commands of its operator."""

    @property
    def file(self) -> str:
        return str(self.directory / "cluster.toml")

    def begin(self, *command: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", *command, "--cluster", self.file], env=self.environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def reconfigure(self, data_plane: str, *flags: str) -> tuple[int, str, str]:
        process = self.begin("p4xos", "reconfigure", "--data-plane", data_plane, *flags)
        output, complaint = process.communicate(timeout=LIMIT_S)
        return process.returncode, output, complaint

    def planes(self) -> dict[str, str]:
        """Where each role of a node that answers is."""
        found: dict[str, str] = {}
        for told in inquiries.status(self.cluster).values():
            if isinstance(told, dict):
                found |= told.get("data_planes", {})
        return found

    def all_take_part(self) -> bool:
        return all(self.votes(node) for node in ("a1", "a2", "a3"))

    def takes_part(self, node: str) -> bool:
        told = inquiries.status(self.cluster)[node]
        return isinstance(told, dict) and told.get("silent") == []


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[MovedCluster]:
    """Running, and stopped with the test."""
    running = MovedCluster(tmp_path)
    yield running
    running.stop()


def moved(output: str) -> Sequence[str]:
    return [f"{m['role']} {m['id']}" for m in json.loads(output)["moved"]]


class Judge(threading.Thread):
    """Clients that check linearizability, again and again until they are told to stop."""

    def __init__(self, cluster: MovedCluster) -> None:
        super().__init__()
        self.verdicts: list[tuple[int, str, str]] = []
        self._cluster = cluster
        self._stop_asked = threading.Event()

    def run(self) -> None:
        check = ("check", "--operations", "200", "--clients", "3", "--keys", "3", "--json")
        while not self._stop_asked.is_set():
            process = self._cluster.begin("kvstore", *check)
            told = process.communicate(timeout=LIMIT_S)
            self.verdicts.append((process.returncode, *told))

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()


def test_a_store_moves_while_it_is_judged(cluster: MovedCluster) -> None:
    wait_until(cluster.all_take_part, LIMIT_S, "that all acceptors take part")
    judge = Judge(cluster)
    judge.start()
    try:
        code, output, complaint = cluster.reconfigure("numpy", "--json")
        assert code == 0, complaint
        assert sorted(moved(output)) == ROLES
        assert set(cluster.planes().values()) == {"numpy"}

        # Killed while others move: it comes up where its file says, having forgotten.
        moving = cluster.begin("p4xos", "reconfigure", "--data-plane", "p4")
        wait_until(lambda: "p4" in cluster.planes().values(), LIMIT_S, "that one has moved")
        cluster.kill("a2")
        moving.communicate(timeout=LIMIT_S)
        assert moving.returncode in (0, 1)  # 0: it was quicker than this test
        cluster.read_until(cluster.start_again("a2"), "it has joined again")
        wait_until(lambda: cluster.takes_part("a2"), LIMIT_S, "that a2 takes part")
        kept = cluster.directory / "a2" / "acceptor-1.plane"
        assert cluster.planes()["acceptor 1"] == tomllib.loads(kept.read_text())["data_plane"]

        code, _, complaint = cluster.reconfigure("p4")
        assert code == 0, complaint
        assert set(cluster.planes().values()) == {"p4"}
        assert cluster.reconfigure("p4")[:2] == (0, "nothing to do: all is on p4\n")
    finally:
        judge.stop()
    assert all(code == 0 for code, _, _ in judge.verdicts), judge.verdicts


def test_what_the_command_refuses(tmp_path: Path) -> None:
    """Exit status 2 for what nobody was asked about."""
    command = [sys.executable, "-m", "p4xos", "reconfigure", "--cluster", str(tmp_path / "none")]
    for flags, words in (
        (["--data-plane", "numpy"], "none: No such file"),
        (["--data-plane", "numpy", "--role", "learner"], "invalid choice"),
        ([], "the following arguments are required: --data-plane"),
    ):
        done = subprocess.run([*command, *flags], capture_output=True, text=True, check=False)
        assert done.returncode == (1 if "No such" in words else 2)
        assert words in done.stderr
