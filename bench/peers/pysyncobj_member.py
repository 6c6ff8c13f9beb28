"""A member of a pysyncobj cluster, with clients in its process, as pysyncobj's own benchmark has.

python -m bench.peers.pysyncobj_member BATCHING CONTROL_PORT OWN_ADDRESS OTHER_ADDRESS...

BATCHING is 1 (its default) or 0. It takes orders on the control port, each a line of JSON, and
answers each with one:
{"do": "look"} whether it leads; {"do": "load", "clients": n, "seconds": s} figures;
{"do": "get", "keys": [...]} the values in its copy.
"""

from __future__ import annotations

import itertools
import json
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from time import perf_counter
from typing import Any

from pysyncobj import FAIL_REASON, SyncObj, SyncObjConf, replicated

from bench.peers.peer import figures, item

_LOAD_LIMIT_S = 30.0
"""Beyond the length of a load, for its last answers."""


class Store(SyncObj):  # type: ignore[misc]  # the library has no types
    """A dictionary of strings, the same in every member."""

    def __init__(self, own: str, others: Sequence[str], batching: bool) -> None:
        super().__init__(own, list(others), SyncObjConf(appendEntriesUseBatch=batching))
        self.values: dict[str, str] = {}

    @replicated  # type: ignore[untyped-decorator]  # the library has no types
    def put(self, key: str, value: str) -> None:
        """Replicated: returns before it is done, and calls back."""
        self.values[key] = value

    @property
    def leads(self) -> bool:
        """Whether it is the leader, and has the others' votes."""
        return self._isLeader() is True and bool(self.isReady())


class Load:
    """Clients in closed loops: whoever is called back submits the next write."""

    def __init__(self, store: Store, clients: int, seconds: float) -> None:
        self.acknowledged: list[int] = []
        self._latencies_s: list[float] = []
        self._store = store
        self._seconds = seconds
        self._clients = self._under_way = clients
        self._numbers = itertools.count()
        self._error: int | None = None
        self._done = threading.Event()
        self._start = self._last = 0.0

    def run(self) -> dict[str, Any]:
        """Figures, or an error, as the answer to the order."""
        self._start = perf_counter()
        for _ in range(self._clients):
            self._submit()
        if not self._done.wait(self._seconds + _LOAD_LIMIT_S):
            return {"error": "no answer"}
        if self._error is not None:
            return {"error": f"FAIL_REASON {self._error}"}
        found = figures(self._latencies_s, self._last - self._start)
        return {**found._asdict(), "acknowledged": self.acknowledged}

    def _submit(self) -> None:
        number = next(self._numbers)
        key, value = item(number)
        answered = partial(self._answered, number, perf_counter())
        self._store.put(key.decode(), value.decode(), callback=answered)

    def _answered(self, number: int, asked_at_s: float, result: object, error: int) -> None:
        """Called in the library's thread."""
        self._last = perf_counter()
        if error != FAIL_REASON.SUCCESS:
            self._error = error
        else:
            self.acknowledged.append(number)
            self._latencies_s.append(self._last - asked_at_s)
        if self._error is None and self._last - self._start < self._seconds:
            self._submit()
            return
        self._under_way -= 1
        if not self._under_way:
            self._done.set()


def answer(store: Store, order: dict[str, Any]) -> dict[str, Any]:
    """Carries an order out."""
    if order["do"] == "load":
        return Load(store, order["clients"], order["seconds"]).run()
    if order["do"] == "get":
        return {"values": [store.values.get(key) for key in order["keys"]]}
    return {"leads": store.leads}


def main() -> None:
    """Serves until it is killed."""
    batching, port, own, *others = sys.argv[1:]
    store = Store(own, others, batching == "1")
    with socket.create_server(("127.0.0.1", int(port))) as server:
        while True:
            connection, _ = server.accept()
            with connection, connection.makefile("rw") as stream:
                for line in stream:
                    stream.write(f"{json.dumps(answer(store, json.loads(line)))}\n")
                    stream.flush()


if __name__ == "__main__":
    main()
