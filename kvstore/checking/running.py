"""`kvstore check`: a workload against a running cluster, and the verdict about what it saw."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import trio

from kvstore.checking.connection import PLAIN, Connection
from kvstore.checking.history import History, read_history
from kvstore.checking.judging import Judged, judge
from kvstore.checking.workload import (
    CLIENTS,
    GIVE_UP_S,
    KEYS,
    PATIENCE_S,
    NoNodeAnswers,
    NotAdmitted,
    Workload,
)
from kvstore.client.dialing import Greeting, NotLetIn, NotReached, NotTrusted
from kvstore.config import served_at
from p4xos.config import Cluster
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


def addresses_in(cluster: Cluster, *, tls: bool) -> dict[str, Address]:
    """Where each node of a cluster serves RESP, with TLS or without.

    Raises:
      ValueError: not all do; a check that leaves a node out proves nothing about it.
    """
    every = served_at(cluster)
    if tls:
        found = {node: served.tls_address for node, served in every.items()}
        mend = "leave --tls out, or give --address for each node to be used"
    else:
        found = {node: served.address for node, served in every.items()}
        mend = "give --tls, or --address for each node to be used"
    missing = [node for node, address in found.items() if address is None]
    if missing:
        key = "tls_address" if tls else "address"
        raise ValueError(f"[[kvstore]] of {', '.join(missing)} has no {key}: {mend}")
    return {node: address for node, address in found.items() if address is not None}


def run(
    nodes: Mapping[str, Address],
    wanted: Wanted,
    file: Path | None = None,
    greeting: Greeting = PLAIN,
) -> Report:
    """Drives a cluster, and judges what its clients saw; a signal to stop ends the driving.

    Args:
      nodes: where each serves RESP, with or without TLS as `greeting` says.
      wanted: what to do.
      file: gets the history, a line an attempt.
      greeting: of every connection, in RESP2: its TLS, its user.

    Raises:
      NoNodeAnswers: none can be used; nothing was done.
      NotAdmitted: one refuses this client, which may not write, or has the wrong password or
        certificate; nothing was done.
      OSError: the history cannot be written.
    """
    with History(file) as history:
        facts = trio.run(_run, nodes, wanted, history, greeting)
    return Report(judge(history.attempts), facts)


def replay(files: Sequence[Path]) -> Report:
    """Judges histories that were recorded, as one.

    Raises:
      ValueError, OSError: one cannot be read.
    """
    attempts = [attempt for file in files for attempt in read_history(file)]
    return Report(judge(attempts), {})


async def _run(
    nodes: Mapping[str, Address], wanted: Wanted, history: History, greeting: Greeting
) -> dict[str, object]:
    await _knock(nodes, greeting)
    seed = secrets.randbits(32) if wanted.seed is None else wanted.seed
    workload = Workload(
        nodes, seed=seed, clients=wanted.clients, keys=wanted.keys, history=history,
        patience_s=wanted.patience_s, prefix=wanted.prefix or "", first_client=wanted.first_client,
        greeting=greeting,
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
    if workload.gave_up:
        facts["ended early"] = f"no node could be used for {GIVE_UP_S:g} s"
    if workload.not_admitted is not None:
        facts["ended early"] = str(workload.not_admitted)
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


async def _knock(nodes: Mapping[str, Address], greeting: Greeting) -> None:
    """Returns when all nodes were asked, one has answered, and none has refused this client."""
    problems: dict[str, NotReached] = {}

    async def ask(name: str, address: Address) -> None:
        try:
            connection = await Connection.open(address, greeting)
            try:
                await connection.check_rights()
            finally:
                connection.close()
        except NotReached as error:
            problems[name] = error

    async with trio.open_nursery() as nursery:
        for name, address in nodes.items():
            nursery.start_soon(ask, name, address)
    for name, problem in problems.items():
        if isinstance(problem, NotLetIn | NotTrusted):
            raise NotAdmitted(name, problem)
    if len(problems) == len(nodes):
        raise NoNodeAnswers({name: str(problem) for name, problem in problems.items()})


async def _cancel_on_signal(work: trio.CancelScope) -> None:
    """The first signal ends the work; a second one is for Python itself."""
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            work.cancel()
            return
