"""A cluster whose acceptors and coordinators are switches: the P4 programs on the interpreter."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from bench.processes import wait_until
from kvstore.config import endpoints
from p4xos import inquiries
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME
from p4xos.planes import ENTRY_POINTS

ROOT = Path(__file__).resolve().parents[2]
LIMIT_S = 120  # for a hung test, never for a verdict


def environment(folder: Path, base: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Of children that find the data planes of this tree, installed or not."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    metadata = folder / "p4xos_planes-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: p4xos-planes\nVersion: 0\n")
    points = "".join(f"{name} = {value}\n" for name, value in declared[ENTRY_POINTS].items())
    (metadata / "entry_points.txt").write_text(f"[{ENTRY_POINTS}]\n{points}")
    return {**base, "PYTHONPATH": f"{folder}:{ROOT}"}


class SwitchedCluster:
    """A launcher with its nodes."""

    def __init__(
        self, folder: Path, data_plane: str = "p4", base: Mapping[str, str] = os.environ,
        program: str = "kvstore", network: str | None = None,
    ) -> None:
        self.directory = folder / "cluster"
        self.environment = environment(folder / "installed", base)
        self.started = [self._start(
            [sys.executable, "-m", program, "cluster", "--directory", str(self.directory),
             "--base-port", "0", "--data-plane", data_plane,
             *(["--network", network] if network else [])],
        )]  # fmt: skip
        self.output = self.read_until(self.started[0], "Ctrl-C")
        self.cluster = Cluster.load(self.directory / CLUSTER_NAME)

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=self.environment,
            text=True,
        )  # fmt: skip

    @staticmethod
    def read_until(process: subprocess.Popen[str], words: str) -> str:
        output = ""
        assert process.stdout is not None
        hung = threading.Timer(LIMIT_S, process.kill)
        hung.start()
        try:
            for line in process.stdout:
                output += line
                if words in line:
                    return output
        finally:
            hung.cancel()
        raise AssertionError(f"no {words!r} in:\n{output}")

    def votes(self, node: str) -> bool:
        """Whether a switch takes part: one that is killed before has nothing to forget."""
        told = inquiries.status(self.cluster)[node]
        return isinstance(told, dict) and bool(told.get("acceptors"))

    def cli(self, node: str, *words: str) -> str:
        port = str(endpoints(self.cluster)[node].port)
        done = subprocess.run(
            ["redis-cli", "-p", port, *words], capture_output=True, text=True, timeout=LIMIT_S,
            check=True,
        )  # fmt: skip
        return done.stdout.strip()

    def log(self, node: str) -> str:
        return (self.directory / node / "log.txt").read_text()

    def leader(self) -> str:
        """Who came to serve first."""
        return next(node for node in ("c1", "c2", "c3") if "serving" in self.log(node))

    def process(self, node: str) -> int:
        """Of a node that the launcher started."""
        (row,) = re.findall(rf"^  {node} +\S+ +(\d+) ", self.output, re.MULTILINE)
        return int(row)

    def kill(self, node: str) -> None:
        os.kill(self.process(node), signal.SIGKILL)

    def start_again(self, node: str) -> subprocess.Popen[str]:
        (line,) = re.findall(rf"^  (\S+ -m \S+ node .* --name {node})$", self.output, re.MULTILINE)
        self.started.append(self._start(shlex.split(line)))
        return self.started[-1]

    def stop(self) -> None:
        self.started[0].send_signal(signal.SIGINT)
        for process in self.started:
            process.communicate(timeout=LIMIT_S)


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[SwitchedCluster]:
    """Running, and stopped with the test."""
    running = SwitchedCluster(tmp_path)
    yield running
    running.stop()


def test_a_store_on_switches(switched: SwitchedCluster) -> None:
    """docs/PROTOCOL.md, sections 3, 4 and 8: a switch reboots, a coordinator is replaced."""
    assert switched.cluster.data_plane == "p4"
    assert switched.cli("n1", "set", "greeting", "hello") == "OK"
    assert switched.cli("n3", "get", "greeting") == "hello"

    wait_until(lambda: switched.votes("a2"), LIMIT_S, "that a2 takes part")
    switched.kill("a2")  # a switch that is off; back on, it has forgotten everything
    assert switched.cli("n1", "set", "greeting", "without one") == "OK"
    told = switched.read_until(switched.start_again("a2"), "it has joined again")
    assert "acceptor 1 may have forgotten what it voted for" in told
    switched.kill("a1")  # now every vote of the one that came back is needed
    assert switched.cli("n2", "get", "greeting") == "without one"
    assert switched.cli("n2", "set", "greeting", "with the other") == "OK"

    switched.kill(switched.leader())
    assert switched.cli("n1", "set", "greeting", "another leads") == "OK"
    assert switched.cli("n3", "get", "greeting") == "another leads"

    # Values longer than a switch's travel in fragments.
    long = "x" * 5000
    assert switched.cli("n1", "set", "long", long) == "OK"
    assert switched.cli("n2", "get", "long") == long
