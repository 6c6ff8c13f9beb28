"""Sends the operations of a plan, and measures what comes back.

Closed loop: each client has `pipeline` operations on the way, and sends the next when one is
answered; latency counts from sending. A store that stalls stalls the load as well, and each client
sees the stall once.

Open loop: operations are sent when the schedule says, to the clients in turn, however many are
unanswered; latency counts from the intended time. A store that stalls delays everything that was
meant to be sent meanwhile, and all of it is measured.

One thread does all. Time comes from the network, which a test may replace.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Protocol

import hiredis

from bench.histogram import Histogram
from bench.load.outcome import Outcome
from bench.load.plan import Plan
from bench.load.schedule import intended
from bench.load.workloads import NAMES, Kind, operations

_KEPT = 1 << 16
"""Latencies kept in a list before they are counted: numpy wants many at a time."""
_LOOK_NS = 100_000_000
"""The longest wait of a closed loop, which has no next time to send."""


class Network(Protocol):
    """The connections of all clients, and the clock."""

    def now_ns(self) -> int:
        """Monotonic."""
        ...

    def send(self, client: int, data: bytes) -> None:
        """Never waits: what cannot leave yet is kept."""
        ...

    def receive(self, until_ns: int) -> Iterable[tuple[int, bytes]]:
        """Waits for data until then at the latest; clients with data that has come.

        A connection's data are taken when the iteration gets to it, so that the time read then is
        when they were seen.
        """
        ...


class _Client:
    __slots__ = ("parser", "sent")

    def __init__(self) -> None:
        self.parser = hiredis.Reader()
        self.sent: deque[tuple[Kind, int, bytes | None]] = deque()
        """Kind, intended time and second request of each operation without an answer."""


class Generator:
    """One run of one plan."""

    def __init__(self, plan: Plan, network: Network) -> None:
        self._plan = plan
        self._network = network
        self._clients = [_Client() for _ in range(plan.clients)]
        self._operations = islice(operations(plan), plan.operations)
        self._unanswered = 0
        self._outcome = Outcome(plan.seconds)
        self._kept: dict[Kind, list[int]] = {kind: [] for kind in Kind}
        self._lags: list[int] = []
        self._start = self._begin = self._end = 0  # ns, as the network's clock has them
        self._times: Iterator[int] = iter(())
        self._due = 0
        """When the next operation of an open loop is meant to be sent."""
        self._turn = 0
        """The client that sends it."""

    def run(self) -> Outcome:
        """Until everything is answered, or for `drain_s` longer than the load."""
        plan = self._plan
        self._start = self._network.now_ns()
        self._begin = self._start + int(plan.warm_up_s * 1e9)
        self._end = self._begin + int(plan.seconds * 1e9)
        if plan.rate is None:
            self._closed_loop()
        else:
            self._open_loop()
        limit = self._end + int(plan.drain_s * 1e9)
        while self._unanswered and self._network.now_ns() < limit:
            for client, data in self._received(limit):
                self._answers(client, data, self._network.now_ns())
        return self._finished()

    def _received(self, until_ns: int) -> Iterator[tuple[int, bytes]]:
        """As the network has it; notes how late it came back from waiting."""
        meant = max(until_ns, self._network.now_ns())
        woken = False
        for client, data in self._network.receive(until_ns):
            if not woken:
                woken = True
                self._overslept(meant)
            yield client, data
        if not woken:
            self._overslept(meant)

    def _overslept(self, meant_ns: int) -> None:
        late = self._network.now_ns() - meant_ns
        self._outcome.overslept_ns = max(self._outcome.overslept_ns, late)

    def _closed_loop(self) -> None:
        network, plan = self._network, self._plan
        for client in range(plan.clients):
            self._send_next(client, plan.pipeline, network.now_ns())
        while (now := network.now_ns()) < self._end:
            if not self._unanswered:  # all operations of a bounded plan are done
                self._end = max(now, self._begin + 1)
                return
            for client, data in self._received(min(now + _LOOK_NS, self._end)):
                now = network.now_ns()
                done = self._answers(client, data, now)
                if done and now < self._end:
                    self._send_next(client, done, now)

    def _send_next(self, client: int, count: int, now: int) -> None:
        """So many more operations of a client, in one piece."""
        sent = self._clients[client].sent
        requests = []
        for operation in islice(self._operations, count):
            sent.append((operation.kind, now, operation.second))
            requests.append(operation.request)
        if requests:
            self._unanswered += len(requests)
            self._network.send(client, b"".join(requests))

    def _open_loop(self) -> None:
        network = self._network
        self._times = intended(self._plan)
        self._due = self._start + next(self._times)
        while self._due < self._end:
            for client, data in self._received(self._due):
                now = network.now_ns()
                self._answers(client, data, now)
                if now >= self._due:  # a send that is due does not wait for other clients' answers
                    self._send_due()
            self._send_due()

    def _send_due(self) -> None:
        while self._due < self._end and (now := self._network.now_ns()) >= self._due:
            operation = next(self._operations)
            if self._due >= self._begin:
                self._lags.append(now - self._due)
            client, self._turn = self._turn, (self._turn + 1) % len(self._clients)
            self._clients[client].sent.append((operation.kind, self._due, operation.second))
            self._unanswered += 1
            self._network.send(client, operation.request)
            self._due = self._start + next(self._times)

    def _answers(self, client: int, data: bytes, now: int) -> int:
        """Books the answers in what a client received; how many operations they ended."""
        parser, sent = self._clients[client].parser, self._clients[client].sent
        parser.feed(data)
        done = 0
        while (reply := parser.gets()) is not False:
            kind, since, second = sent.popleft()
            if isinstance(reply, hiredis.ReplyError):
                self._outcome.errors[str(reply)] += 1
            elif second is not None:
                sent.append((kind, since, None))
                self._network.send(client, second)
                continue
            elif reply is None and since >= self._begin:
                self._outcome.missing += 1
            done += 1
            self._book(kind, since, now)
            if self._begin <= now < self._end:
                self._outcome.answered += 1
        self._unanswered -= done
        return done

    def _book(self, kind: Kind, since: int, now: int) -> None:
        if self._begin <= since < self._end:
            kept = self._kept[kind]
            kept.append(now - since)
            if len(kept) >= _KEPT:
                self._count(kind)

    def _count(self, kind: Kind) -> None:
        if self._kept[kind]:
            histogram = self._outcome.latencies.setdefault(NAMES[kind], Histogram())
            histogram.record(self._kept[kind])
            self._kept[kind].clear()

    def _finished(self) -> Outcome:
        outcome, now = self._outcome, self._network.now_ns()
        for client in self._clients:
            for kind, since, _ in client.sent:
                self._book(kind, since, now)
                outcome.unanswered += self._begin <= since < self._end
        for kind in Kind:
            self._count(kind)
        outcome.lag.record(self._lags)
        outcome.seconds = (self._end - self._begin) / 1e9
        return outcome
