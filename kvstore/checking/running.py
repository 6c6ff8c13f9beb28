"""`kvstore check`: a workload against a running cluster, and the verdict about what it saw."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from kvstore.checking.connection import Connection
from kvstore.checking.history import History, read_history
from kvstore.checking.judging import Judged, judge
from kvstore.checking.workload import CLIENTS, KEYS, PATIENCE_S, NoNodeAnswers, Workload
from kvstore.client.dialing import NotReached
from p4xos.tables import Address

SECONDS = 10.0
"""How long clients run when nothing else is said."""
CLIENTS_MAX = 1000
KEYS_MAX = 100_000
LEAVING_S = 5.0
"""For removing the keys of a run that was interrupted."""


@dataclass(frozen=True)
class Wanted:
    """What a run is to do; None: as usual."""

    seconds: float | None = None
    operations: int | None = None
    clients: int = CLIENTS
    keys: int = KEYS
    seed: int | None = None
    patience_s: float = PATIENCE_S
    prefix: str | None = None
    """Given: keys are shared with other runs, and are not removed."""
    first_client: int = 0

    def __post_init__(self) -> None:
        if self.operations is not None and self.operations < 1:
            raise ValueError(f"--operations {self.operations}: give 1 at least")
        if not 1 <= self.clients <= CLIENTS_MAX:
            raise ValueError(f"--clients {self.clients}: give 1 to {CLIENTS_MAX}")
        if not 1 <= self.keys <= KEYS_MAX:
            raise ValueError(f"--keys {self.keys}: give 1 to {KEYS_MAX}")
        if self.first_client < 0:
            raise ValueError(f"--first-client {self.first_client}: give 0 or more")
        if self.prefix is not None and (not self.prefix or self.prefix.split() != [self.prefix]):
            raise ValueError(f"--prefix {self.prefix!r}: give a word without spaces")


@dataclass(frozen=True)
class Report:
    """The verdict, and what went on beside it."""

    judged: Judged
    facts: dict[str, object]
    """Of the run: seed, prefix, nodes that could not be used, ..."""

    def data(self) -> dict[str, object]:
        """For scripts."""
        return {**self.judged.data(), **self.facts}

    def lines(self) -> list[str]:
        """For people."""
        told = [f"{name}: {_told(fact)}" for name, fact in self.facts.items() if fact or fact == 0]
        return [*told, *self.judged.lines()]


def _told(fact: object) -> str:
    if isinstance(fact, dict):
        return "; ".join(f"{key}: {value}" for key, value in fact.items())
    return str(fact)


def parse_addresses(texts: Sequence[str]) -> dict[str, Address]:
    """Nodes by their address.

    Raises:
      ValueError: one is no address.
    """
    found: dict[str, Address] = {}
    for text in texts:
        host, _, port = text.rpartition(":")
        if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 1 << 16:
            raise ValueError(f"--address {text!r}: write it as HOST:PORT")
        found[text] = Address(host, int(port))
    return found


def run(nodes: Mapping[str, Address], wanted: Wanted, file: Path | None = None) -> Report:
    """Drives a cluster, and judges what its clients saw; a signal to stop ends the driving.

    Args:
      nodes: where each serves RESP.
      wanted: what to do.
      file: gets the history, a line an attempt.

    Raises:
      NoNodeAnswers: none can be used; nothing was done.
      OSError: the history cannot be written.
    """
    with History(file) as history:
        facts = trio.run(_run, nodes, wanted, history)
    return Report(judge(history.attempts), facts)


def replay(files: Sequence[Path]) -> Report:
    """Judges histories that were recorded, as one.

    Raises:
      ValueError, OSError: one cannot be read.
    """
    attempts = [attempt for file in files for attempt in read_history(file)]
    return Report(judge(attempts), {})


async def _run(nodes: Mapping[str, Address], wanted: Wanted, history: History) -> dict[str, object]:
    await _find_one(nodes)
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    workload = Workload(
        nodes, seed=seed, clients=wanted.clients, keys=wanted.keys, history=history,
        patience_s=wanted.patience_s, prefix=wanted.prefix or "", first_client=wanted.first_client,
    )  # fmt: skip
    seconds = wanted.seconds
    if seconds is None and wanted.operations is None:
        seconds = SECONDS
    facts: dict[str, object] = {"seed": seed}
    async with trio.open_nursery() as nursery:
        work = trio.CancelScope()
        nursery.start_soon(_cancel_on_signal, work)
        with work:
            await workload.run(seconds=seconds, operations=wanted.operations)
            facts["reads missing at the end"] = await workload.read_all()
        interrupted = work.cancelled_caught
        nursery.cancel_scope.cancel()
    if interrupted:
        facts["interrupted"] = "judged is what was recorded until then"
    if wanted.prefix is None:
        left = -1
        with trio.move_on_after(LEAVING_S) if interrupted else trio.CancelScope():
            left = await workload.remove()
        if left:
            facts["keys left behind"] = f"{workload.prefix.decode()}*"
    if workload.problems:
        facts["not reached"] = workload.problems
    return facts


async def _find_one(nodes: Mapping[str, Address]) -> None:
    """Returns when a node has answered."""
    problems: dict[str, str] = {}
    for name, address in nodes.items():
        try:
            (await Connection.open(address)).close()
        except NotReached as error:
            problems[name] = str(error)
        else:
            return
    raise NoNodeAnswers(problems)


async def _cancel_on_signal(work: trio.CancelScope) -> None:
    """The first signal ends the work; a second one is for Python itself."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            work.cancel()
            return
