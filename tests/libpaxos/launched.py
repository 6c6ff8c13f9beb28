"""`p4xos libpaxos` as a user starts it, in processes of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from p4xos.compat.libpaxos.conf import PaxosConf
from tests.libpaxos.peers import new_conf, release

PATIENCE_S = 60.0
POLL_S = 0.02


class Launched:
    """A running cluster for one paxos.conf."""

    def __init__(self, conf: PaxosConf, file: Path, directory: Path) -> None:
        self.conf, self.file, self.directory = conf, file, directory
        self.said = directory / "said.txt"
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, command: Sequence[str], output: Path) -> subprocess.Popen[bytes]:
        """A process that is ended with the others."""
        with output.open("ab") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, cwd=self.directory)
        self.processes.append(process)
        return process

    def launch(self, *flags: str) -> subprocess.Popen[bytes]:
        """The command itself; returns once the cluster runs."""
        self.said.write_bytes(b"")
        command = [sys.executable, "-m", "p4xos", "libpaxos", "--config", str(self.file), *flags]
        launcher = self.start(command, self.said)
        while "Ctrl-C stops" not in self.text():
            assert launcher.poll() is None, self.text()
            time.sleep(POLL_S)
        return launcher

    def text(self) -> str:
        return self.said.read_text()

    def node(self, name: str) -> int:
        """The process of a node."""
        found = re.search(rf"^  {name} +\S+ +(\d+)", self.text(), flags=re.MULTILINE)
        assert found is not None, self.text()
        return int(found[1])

    def stop(self) -> None:
        for process in reversed(self.processes):
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGINT if process is self.processes[0] else 9)
        for process in self.processes:
            process.wait(PATIENCE_S)


@contextmanager
def launched(
    directory: Path, options: str = "", *, replicas: bool = False, nodes: int = 3
) -> Iterator[Launched]:
    """The files of a cluster; whatever is started is ended."""
    conf = new_conf(6, 0) if replicas else new_conf(nodes, nodes)
    if replicas:
        lines = [f"replica {k} {a.host} {a.port}" for k, a in enumerate(conf.acceptors)]
    else:
        lines = [f"acceptor {k} {a.host} {a.port}" for k, a in enumerate(conf.acceptors)]
        lines += [f"proposer {k} {a.host} {a.port}" for k, a in enumerate(conf.proposers)]
    file = directory / "paxos.conf"
    file.write_text("\n".join([*lines, "verbosity quiet", options]) + "\n")
    found = Launched(PaxosConf.load(file), file, directory)
    try:
        yield found
    finally:
        found.stop()
        release(conf)


def wait_for(output: Path, count: int) -> list[str]:
    """The first lines that a program has printed, so many of them."""
    until = time.monotonic() + PATIENCE_S
    while True:
        lines = output.read_text(errors="replace").splitlines()
        if len(lines) >= count:
            return lines[:count]
        assert time.monotonic() < until, f"{output} has {len(lines)} lines, not {count}"
        time.sleep(POLL_S)


