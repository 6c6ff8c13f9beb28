"""What a peer is, and what all of them are asked to do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from bench.errors import BenchError
from bench.processes import Child, wait_until

Kind = Literal["write", "read"]

VALUE_BYTES = 64
KEYS = 10_000
"""So few that the writes have met nearly all of them before the reads begin."""
REPLICAS = 3
START_LIMIT_S = 60.0
"""Far longer than any peer needs to serve, on a machine that does much else."""


class Figures(NamedTuple):
    """What one load measured; None where a peer's own client does not tell."""

    per_s: float
    p50_ms: float | None
    p99_ms: float | None


class Peer(Protocol):
    """A program under test; `start`, any number of `load`, `stop`."""

    name: str
    reads: bool
    """Whether it has reads that are linearizable, so that they may be compared."""

    def missing(self) -> str | None:
        """Why it cannot run here, and how to get it; None when it can."""
        ...

    def start(self, scratch: Path) -> None:
        """Starts it, and returns when it serves.

        Args:
          scratch: a directory of its own, for all its data; made when it does not exist.

        Raises:
          BenchError: a process of it ended, or it does not serve in time.
        """
        ...

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """So many clients in closed loops, for about so long.

        Raises:
          BenchError: a request was refused, or got no answer.
        """
        ...

    def stop(self) -> None:
        """Kills its processes, in whatever state it is."""
        ...


def wait_for(condition: Callable[[], bool], started: Sequence[Child], what: str) -> None:
    """Looks again and again until a condition holds.

    Raises:
      BenchError: it does not in time (`what` completes "... did not happen"), or one of the
        processes has ended, with its last lines.
    """

    def met() -> bool:
        for child in started:
            if not child.running:
                status = f"{child.name} ended with status {child.process.returncode}"
                raise BenchError(f"{status}; its last lines:\n{child.last_lines()}")
        return condition()

    wait_until(met, START_LIMIT_S, what)


def item(number: int) -> tuple[bytes, bytes]:
    """Key and value of a write; a key has one value for ever, which can be looked for later."""
    key = b"key:%012d" % (number % KEYS)
    return key, key.ljust(VALUE_BYTES, b".")


def figures(latencies_s: Sequence[float], elapsed_s: float) -> Figures:
    """The rate, and the percentiles by nearest rank.

    Args:
      latencies_s: one for each answered request, at least one, in any order.
      elapsed_s: from the first request to the last answer.
    """
    ordered = sorted(latencies_s)
    p50, p99 = (1e3 * ordered[-(-len(ordered) * share // 100) - 1] for share in (50, 99))
    return Figures(len(ordered) / elapsed_s, p50, p99)
