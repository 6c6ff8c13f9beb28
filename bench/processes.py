"""Child processes that never outlive the run, and the CPU time they take.

Each child leads a session of its own: Ctrl-C reaches the bench alone, which then ends its children
in order, with whatever they have started. When the bench itself is killed the kernel kills them
(PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from bench.errors import BenchError
from p4xos.processes import end_with_parent

ROOT = Path(__file__).resolve().parents[1]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
STOP_LIMIT_S = 30.0
"""Far longer than a node needs to stop; after it the child is killed and the run is void."""
POLL_S = 0.02


class Unmet(BenchError):
    """A condition was waited for in vain."""


class Child:
    """A process whose output goes to a file; start it from the main thread."""

    def __init__(self, name: str, command: Sequence[str], log: Path) -> None:
        """Starts it.

        Args:
          name: for messages.
          command: with absolute paths, or a module of this project for Python.
          log: appended to.
        """
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent(signal.SIGKILL),
                env=environment(),
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to it and to what it has started; returns when it is gone."""
        # A group whose leader has been waited for may be another's by now.
        if self.running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to stop; returns its exit status.

        Raises:
          BenchError: it did not stop, and was killed.
        """
        self.process.send_signal(number)
        return self.wait()

    def wait(self, limit_s: float = STOP_LIMIT_S) -> int:
        """Its exit status once it has ended by itself.

        Raises:
          BenchError: it did not end, and was killed.
        """
        try:
            return self.process.wait(limit_s)
        except subprocess.TimeoutExpired:
            self.kill()
            complaint = f"{self.name} did not end within {limit_s:g} s and was killed"
            raise BenchError(f"{complaint}; its last lines:\n{self.last_lines()}") from None

    def log_text(self) -> str:
        """Everything it has said."""
        return self.log.read_text(errors="replace")

    def last_lines(self, count: int = 15) -> str:
        """The end of what it has said."""
        return "\n".join(self.log_text().splitlines()[-count:])

    def cpu_s(self) -> float:
        """CPU seconds that it has taken, of user and system."""
        return process_cpu_s(self.pid)


@contextmanager
def children() -> Iterator[list[Child]]:
    """A list of children that are killed at the end, whatever happens."""
    started: list[Child] = []
    try:
        yield started
    finally:
        kill_all(started)


def kill_all(started: Sequence[Child]) -> None:
    """Kills all of them at once, then waits for each."""
    for child in started:
        if child.running:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
    for child in started:
        child.process.wait()


def process_cpu_s(pid: int) -> float:
    """CPU seconds of a running process, of user and system, in steps of a clock tick."""
    return parse_cpu_ticks(Path(f"/proc/{pid}/stat").read_text()) / TICKS_PER_S


def parse_cpu_ticks(stat: str) -> int:
    """Clock ticks of user and system by the text of /proc/<pid>/stat.

    The second field is the name in parentheses and may hold spaces and parentheses itself.
    """
    fields = stat.rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def environment() -> Mapping[str, str]:
    """Ours, such that a child's Python finds this project and does not keep its words back."""
    path = os.environ.get("PYTHONPATH")
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT) if not path else f"{ROOT}{os.pathsep}{path}",
        "PYTHONUNBUFFERED": "1",
    }


def python_module(module: str, *arguments: str) -> list[str]:
    """The command that runs a module of this project."""
    return [sys.executable, "-m", module, *arguments]


def wait_until(condition: Callable[[], bool], limit_s: float, what: str) -> None:
    """Looks again and again until a condition holds.

    Raises:
      Unmet: it does not within the limit; `what` completes "... did not happen".
    """
    limit = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > limit:
            raise Unmet(f"{what} did not happen within {limit_s:g} s")
        time.sleep(POLL_S)
