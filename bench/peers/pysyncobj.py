"""pysyncobj, the Raft library in Python: its members run in bench/peers/pysyncobj_member.py."""

from __future__ import annotations

import json
import socket
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.peers.peer import REPLICAS, Figures, Kind, wait_for
from bench.processes import Child, children, python_module
from bench.store_cluster import free_base_port
from p4xos.tables import Address

_MEMBER = "bench.peers.pysyncobj_member"
_ANSWER_LIMIT_S = 60.0


class PySyncObj:
    """Three processes, in memory; clients are in the leader's process, as callbacks.

    It has no linearizable read: a member reads its own copy.
    """

    reads = False

    def __init__(self, name: str, batching: bool = True) -> None:
        """Without `batching` it does not collect writes for up to 0.1 s, as it does by default."""
        self.name = name
        self._batching = batching
        self.controls: list[Address] = []
        """Where each member takes orders, once it was started."""
        self._stack = ExitStack()

    def missing(self) -> str | None:
        """The package."""
        return None if find_spec("pysyncobj") else "no package pysyncobj; pip install pysyncobj"

    def start(self, scratch: Path) -> None:
        """Starts the members, and waits until one of them leads."""
        base = free_base_port()
        members = [str(Address("127.0.0.1", base + k)) for k in range(REPLICAS)]
        self.controls = [Address("127.0.0.1", base + REPLICAS + k) for k in range(REPLICAS)]
        started = self._stack.enter_context(children())
        for k, control in enumerate(self.controls):
            others = [*members[:k], *members[k + 1 :]]
            batching = str(int(self._batching))
            command = python_module(_MEMBER, batching, str(control.port), members[k], *others)
            started.append(Child(f"pysyncobj {k}", command, scratch / f"{k}.txt"))
        wait_for(lambda: len(self._leaders()) == 1, started, "that one pysyncobj leads")

    def load(self, clients: int, kind: Kind, seconds: float) -> Figures:
        """Has the leader's process do it."""
        (leader,) = self._leaders()
        told = order(leader, {"do": "load", "clients": clients, "seconds": seconds})
        if "error" in told:
            raise BenchError(f"pysyncobj refused a write: {told['error']}")
        return Figures(told["per_s"], told["p50_ms"], told["p99_ms"])

    def stop(self) -> None:
        """Kills the members."""
        self._stack.close()

    def _leaders(self) -> list[Address]:
        found = []
        for control in self.controls:
            try:
                leads = order(control, {"do": "look"})["leads"]
            except BenchError:
                continue  # not yet started
            found += [control] if leads else []
        return found


def order(control: Address, what: dict[str, Any]) -> dict[str, Any]:
    """Gives a member an order, as pysyncobj_member.py lists them; its answer.

    Raises:
      BenchError: it gave none.
    """
    try:
        with (
            socket.create_connection(control, _ANSWER_LIMIT_S) as connection,
            connection.makefile("rw") as stream,
        ):
            stream.write(f"{json.dumps(what)}\n")
            stream.flush()
            answer: dict[str, Any] = json.loads(stream.readline())
            return answer
    except (OSError, ValueError) as error:
        raise BenchError(f"no answer of pysyncobj at {control}: {error}") from error
