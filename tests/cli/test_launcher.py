"""The launcher with stand-in nodes, as a user sees it: in a process of its own."""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kvstore.cluster import StoreApplication
from kvstore.config import endpoints
from p4xos import launcher
from p4xos.config import UNFINISHED_SUFFIX, Cluster
from p4xos.creation import CLUSTER_NAME, DirectoryRefused, Wanted, find_or_create
from p4xos.processes import NODE_LOCK, AlreadyRunning, claimed, open_process, running_process
from p4xos.storage.disk import StorageError

ROOT = Path(__file__).resolve().parents[2]
STANDIN = ROOT / "tests" / "cli" / "standin.py"
FREE_PORTS = Wanted(base_port=0)
LIMIT_S = 60  # for a hung test, never for a verdict


class Running:
    """A launcher in a process; its output is read line by line."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(STANDIN), "cluster", "--directory", str(directory), *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
        )
        self.directory = directory
        self.output = ""

    def read_until(self, words: str) -> str:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if words in line:
                return line
        raise AssertionError(f"no {words!r} in:\n{self.output}\n{self.finish()[2]}")

    def pids(self) -> dict[str, int]:
        rows = re.findall(r"^  (n\d+) +127\.0\.0\.1:\d+ +(\d+) ", self.output, re.MULTILINE)
        return {name: int(pid) for name, pid in rows}

    def finish(self) -> tuple[int, str, str]:
        rest, errors = self.process.communicate(timeout=LIMIT_S)
        self.output += rest
        return self.process.returncode, self.output, errors

    def stop(self, number: signal.Signals = signal.SIGINT) -> tuple[int, str, str]:
        self.process.send_signal(number)
        return self.finish()


@pytest.fixture
def started() -> Iterator[list[Running]]:
    """Launchers of a test, ended with it."""
    all_started: list[Running] = []
    yield all_started
    for running in all_started:
        if running.process.poll() is None:
            running.stop()
        for stream in (running.process.stdout, running.process.stderr):
            assert stream is not None
            stream.close()


def start(started: list[Running], directory: Path, *flags: str) -> Running:
    started.append(Running(directory, *flags))
    return started[-1]


def start_ready(started: list[Running], directory: Path, *flags: str) -> Running:
    running = start(started, directory, *flags)
    running.read_until("Ctrl-C")
    return running


def wait_for_end(pid_file: Path) -> None:
    """Blocks until the process of a lock file has ended (or has ended already)."""
    handle = open_process(pid_file)
    if handle is not None:
        poller = select.poll()
        poller.register(handle)
        assert poller.poll(LIMIT_S * 1000)
        os.close(handle)


def create(directory: Path, wanted: Wanted = FREE_PORTS) -> Cluster:
    directory.mkdir(exist_ok=True)
    return find_or_create(directory, wanted, StoreApplication().complete)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_starts_prints_and_stops(
    tmp_path: Path, started: list[Running], number: signal.Signals
) -> None:
    running = start_ready(started, tmp_path / "data", "--base-port", "0")
    pids = running.pids()
    assert list(pids) == ["n1", "n2", "n3"]
    cluster = Cluster.load(tmp_path / "data" / CLUSTER_NAME)
    for name, address in endpoints(cluster).items():
        assert str(address) in running.output
        assert f"--cluster {tmp_path}/data/{CLUSTER_NAME} --name {name}\n" in running.output
        assert running_process(cluster.data_directory(name) / NODE_LOCK) == pids[name]
    code, output, errors = running.stop(number)
    assert (code, errors) == (0, "")
    assert output.endswith("All nodes have stopped.\n")
    assert all(running_process(cluster.data_directory(n) / NODE_LOCK) is None for n in pids)


def test_second_start_finds_its_data(tmp_path: Path, started: list[Running]) -> None:
    start_ready(started, tmp_path, "--base-port", "0").stop()
    before = (tmp_path / CLUSTER_NAME).read_text()
    # A mark is used up by the acceptor's first start; no later start may make another.
    for mark in tmp_path.glob("n*/acceptor-*/fresh.mark"):
        mark.unlink()
    start_ready(started, tmp_path).stop()
    assert (tmp_path / CLUSTER_NAME).read_text() == before
    assert not list(tmp_path.glob("n*/acceptor-*/fresh.mark"))


def test_killed_node_is_reported_and_restarted_by_hand(
    tmp_path: Path, started: list[Running]
) -> None:
    running = start_ready(started, tmp_path, "--base-port", "0")
    pids = running.pids()
    os.kill(pids["n2"], signal.SIGKILL)
    assert "signal 9 (SIGKILL); the others go on" in running.read_until("Node n2")
    running.read_until("Start it again")
    command = shlex.split(running.read_until("--name n2"))
    by_hand = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)})
    lock = tmp_path / "n2" / NODE_LOCK
    while running_process(lock) != by_hand.pid:
        assert by_hand.poll() is None
    code, output, errors = running.stop()
    assert (code, errors) == (0, ""), output
    assert by_hand.wait(LIMIT_S) == 0  # stopped with the others
    assert all(not Path(f"/proc/{pid}").exists() for pid in pids.values())


def test_killed_launcher_leaves_nothing_running(tmp_path: Path, started: list[Running]) -> None:
    running = start_ready(started, tmp_path, "--base-port", "0")
    locks = [tmp_path / name / NODE_LOCK for name in running.pids()]
    running.stop(signal.SIGKILL)
    for lock in locks:
        wait_for_end(lock)
        assert running_process(lock) is None


def test_child_that_dies_at_start_shows_its_last_words(
    tmp_path: Path, started: list[Running]
) -> None:
    cluster = create(tmp_path)
    (cluster.data_directory("n3") / "behaviour").write_text("refuse")
    code, _, errors = start(started, tmp_path).finish()
    assert code == 1
    assert "node n3 ended with exit status 3 while it started" in errors
    assert "| the last words of this node" in errors
    assert "Traceback" not in errors
    assert running_process(tmp_path / "n1" / NODE_LOCK) is None


def test_deaf_node_is_killed_with_a_message(tmp_path: Path, started: list[Running]) -> None:
    cluster = create(tmp_path)
    (cluster.data_directory("n1") / "behaviour").write_text("deaf")
    running = start_ready(started, tmp_path)
    running.process.send_signal(signal.SIGINT)
    wait_for_end(tmp_path / "n2" / NODE_LOCK)
    wait_for_end(tmp_path / "n3" / NODE_LOCK)
    code, _, errors = running.stop(signal.SIGINT)  # the second one: wait no longer
    assert code == 1
    # One whose lock is free may still be ending, and then it is named as well.
    assert re.search(r"standin: n1\b.* did not stop", errors)
    assert running_process(tmp_path / "n1" / NODE_LOCK) is None


def test_port_in_use_names_port_and_process(tmp_path: Path, started: list[Running]) -> None:
    cluster = create(tmp_path)
    with socket.create_server(cluster.nodes[1].peer):
        code, output, errors = start(started, tmp_path).finish()
    assert (code, output) == (1, "")
    assert f"node n2 (peers) cannot have TCP {cluster.nodes[1].peer}: it is in use by" in errors
    assert f"pid {os.getpid()}" in errors
    assert "--base-port" in errors
    assert errors.count("\n") == 1


def test_one_launcher_a_directory(tmp_path: Path, started: list[Running]) -> None:
    first = start_ready(started, tmp_path, "--base-port", "0")
    code, _, errors = start(started, tmp_path).finish()
    assert code == 1
    assert f"is running already, as process {first.process.pid}" in errors


def test_node_started_by_hand_is_not_started_twice(tmp_path: Path, started: list[Running]) -> None:
    create(tmp_path)
    with claimed(tmp_path / "n1" / NODE_LOCK, "node n1"):
        code, _, errors = start(started, tmp_path).finish()
    assert code == 1
    assert f"node n1 of this cluster is running already, as process {os.getpid()}" in errors


@pytest.mark.parametrize(
    ("flag", "value", "existing"),
    [("--nodes", "5", "3"), ("--storage", "memory", "disk"), ("--base-port", "9", r"\d+")],
)
def test_contradicting_flag_is_refused(
    tmp_path: Path, started: list[Running], flag: str, value: str, existing: str
) -> None:
    create(tmp_path)
    code, _, errors = start(started, tmp_path, flag, value).finish()
    assert code == 1
    assert re.search(f"was created with {flag} {existing}, not {value}; leave {flag} out", errors)


def test_creation_makes_each_mark_once(tmp_path: Path) -> None:
    cluster = create(tmp_path)
    marks = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.glob("*/*/fresh.mark"))
    assert marks == [f"n{k + 1}/acceptor-{k}/fresh.mark" for k in range(3)]
    assert not list(tmp_path.glob(f"*{UNFINISHED_SUFFIX}"))
    assert create(tmp_path) == cluster


@pytest.mark.parametrize("marks_before", [0, 1, 3])
def test_interrupted_creation_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, marks_before: int
) -> None:
    """Whatever was done before the crash, the id stays and each acceptor has one mark."""
    from p4xos import creation
    from p4xos.storage import directory

    made = 0
    create_mark = directory.create_mark

    def create_until_crash(*args: object, **options: object) -> None:
        nonlocal made
        if made == marks_before:
            raise KeyboardInterrupt
        made += 1
        create_mark(*args, **options)  # type: ignore[arg-type]  # handed through

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(creation, "create_mark", create_until_crash)
        patch.setattr(Path, "rename", crash)
        with pytest.raises(KeyboardInterrupt):
            create(tmp_path)
    assert not (tmp_path / CLUSTER_NAME).exists()
    unfinished = tmp_path / (CLUSTER_NAME + UNFINISHED_SUFFIX)
    begun = Cluster.parse(unfinished.read_text(), "text")
    assert create(tmp_path, Wanted()) == begun
    assert len(list(tmp_path.glob("*/*/fresh.mark"))) == 3


def test_resumed_creation_refuses_an_acceptor_with_a_log(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / CLUSTER_NAME).rename(tmp_path / (CLUSTER_NAME + UNFINISHED_SUFFIX))
    acceptor = tmp_path / "n1" / "acceptor-0"
    (acceptor / "fresh.mark").rename(acceptor / "segment-0000000001.log")
    with pytest.raises(StorageError, match="already holds"):
        create(tmp_path)


def test_directory_without_cluster_file_is_refused(tmp_path: Path) -> None:
    create(tmp_path)
    (tmp_path / CLUSTER_NAME).unlink()
    with pytest.raises(DirectoryRefused, match=r"holds cluster\.secret, .* but no cluster\.toml"):
        create(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["cluster.secret", "n1", "n2", "n3"]


def test_claim_is_exclusive_and_ends_with_its_holder(tmp_path: Path) -> None:
    lock = tmp_path / "deep" / NODE_LOCK
    assert running_process(lock) is None
    with claimed(lock, "node n1"):
        named = pytest.raises(AlreadyRunning, match=f"as process {os.getpid()}")
        with named, claimed(lock, "node n1"):
            pass
        assert running_process(lock) == os.getpid()
    assert running_process(lock) is None  # the number in the file is not believed
    assert open_process(lock) is None


def test_long_log_is_put_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launcher, "LOG_BYTES_MAX", 10)
    (tmp_path / "log.txt").write_text("more than ten bytes")
    child = launcher._Child("n1", [sys.executable, "-c", "print('fresh')"], tmp_path)
    child.close()
    assert child.last_lines() == "  | fresh"
    assert (tmp_path / "log.old.txt").read_text() == "more than ten bytes"
