"""Children end with the run, whatever they do."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.processes import Child, children, python_module, wait_until

# A child that ignores polite signals, and a grandchild that does so too.
_STUBBORN = """
import os, signal, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
grandchild = os.fork()
if grandchild:
    print(grandchild, flush=True)
while True:
    time.sleep(60)
"""


def has_ended(pid: int) -> bool:
    """Gone, or a zombie that some ancestor has not looked at."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def stubborn(log: Path) -> tuple[Child, int]:
    child = Child("stubborn", [sys.executable, "-c", _STUBBORN], log)
    wait_until(lambda: child.log_text().endswith("\n"), 30, "a word of the child")
    return child, int(child.log_text())


def test_a_block_leaves_nothing_running(tmp_path: Path) -> None:
    child, grandchild = stubborn(tmp_path / "log")

    def run() -> None:
        with children() as started:
            started.append(child)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run()
    assert child.process.returncode == -signal.SIGKILL
    wait_until(lambda: has_ended(grandchild), 30, "the grandchild's end")


def test_who_does_not_stop_is_killed_and_named(tmp_path: Path) -> None:
    with children() as started:
        child, _ = stubborn(tmp_path / "log")
        started.append(child)
        with pytest.raises(BenchError, match="stubborn did not end"):
            child.wait(limit_s=0.01)
        assert not child.running


def test_children_end_with_a_killed_parent(tmp_path: Path) -> None:
    """A bench that is killed has no chance to clean up."""
    log = tmp_path / "log"
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    parent = (
        "import os; from pathlib import Path; from bench.processes import Child;"
        f"print(Child('c', {command!r}, Path({str(log)!r})).pid, flush=True);"
        "os.kill(os.getpid(), 9)"
    )
    with children() as started:
        outer = Child("parent", [sys.executable, "-c", parent], tmp_path / "parent")
        started.append(outer)
        assert outer.wait() == -signal.SIGKILL
        pid = int(outer.log_text())
        wait_until(lambda: has_ended(pid), 30, "the child's end")


def test_cpu_time_is_read(tmp_path: Path) -> None:
    with children() as started:
        started.append(Child("busy", python_module("timeit", "-n", "1000000000"), tmp_path / "log"))
        wait_until(lambda: started[0].cpu_s() > 0, 30, "a tick of CPU time")
