"""One role under test, as a process, and this process in the place of all others of its group.

A closed loop: so many messages are on their way at once, and what the role answers makes room for
more. Messages are made as arrays, so this process costs less than the role. What a role asks for
besides (phase 1, read indexes) real acceptors answer here, which never see a proposal: they would
cost as much as what is measured.
"""

from __future__ import annotations

import select
import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bench.errors import BenchError
from bench.processes import Child
from p4xos import wire
from p4xos.config import Cluster, RoleName
from p4xos.driver import Directory
from p4xos.effects import COORDINATORS, LEARNERS, Role, To
from p4xos.envelope import ENVELOPE, ENVELOPE_BYTES, open_value, request_rows
from p4xos.errors import BadPacket
from p4xos.net import UdpEndpoint
from p4xos.quorum import make_round
from p4xos.roles.acceptor import Acceptor
from p4xos.wire import HEADER_BYTES, Frame, Rows, Type

BURST = 1024
"""Messages made at once."""
IN_FLIGHT = 6144
"""As in `consensus`: what the buffers of sockets hold."""
SILENCE_S = 0.2
"""Without an answer for so long, what was under way is taken for lost."""
STALL_LIMIT_S = 30.0
"""Without an answer for so long, the run is void: longer than a process needs to start."""
WARM_UP_SHARE = 0.1
ROUND = make_round(1, 0)


class Rate(NamedTuple):
    """What a role did, from the end of its warm-up on."""

    messages_per_s: float
    cpu_us: float  # for each message
    lost: int  # messages that were given up


class StandIn(ABC):
    """Feeds a role; a subclass for each says with what."""

    plays: tuple[tuple[RoleName, int], ...]
    """Whose addresses it takes."""

    def __init__(self, cluster: Cluster, payload_bytes: int) -> None:
        """Takes the addresses.

        Args:
          cluster: with three acceptors, one coordinator, one learner.
          payload_bytes: of each value.
        """
        self.cluster = cluster
        self.next = 1  # the first message that has not left, counted from 1
        self.through = 0  # messages up to it need no more room: answered, or given up
        self.answered = 0  # messages
        self.rows = request_rows(self.frame(0), 1, 0, [payload_bytes] * BURST)
        """A burst: REQUEST of a session that instance 1 opened."""
        self.header = wire.headers(self.rows)
        self._directory = Directory(cluster)
        self._poll = select.poll()
        self._endpoints: dict[tuple[RoleName, int], UdpEndpoint] = {}
        for role, id in self.plays:
            endpoint = UdpEndpoint.bind(cluster.member(role, id).address)
            self._endpoints[role, id] = endpoint
            self._poll.register(endpoint, select.POLLIN)
        self.acceptors = {
            id: Acceptor(
                frame=self.frame(id), acceptors=len(cluster.acceptors), window=cluster.window,
                value_bytes=cluster.value_bytes,
            )
            for role, id in self.plays
            if role == "acceptor"
        }  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for endpoint in self._endpoints.values():
            endpoint.close()

    def frame(self, sender: int) -> Frame:
        """What all messages of a member have in common."""
        return Frame(self.cluster.id, self.cluster.group, sender)

    def post(self, role: RoleName, id: int, to: To, rows: Rows) -> None:
        """Sends what a member that is played here has to say."""
        self._endpoints[role, id].send(rows, self._directory.addresses(to))

    def feed(self, child: Child, messages: int) -> Rate:
        """Keeps the role busy until so many messages were answered.

        Raises:
          BenchError: it ended, or does not answer.
        """
        heard_at = time.perf_counter()
        warm: tuple[int, int, float, float] | None = None
        while self.answered < messages:
            if warm is None and self.answered >= messages * WARM_UP_SHARE:
                # What was sent before the role was there is in `through` too.
                lost = self.through - self.answered
                warm = self.answered, lost, time.perf_counter(), child.cpu_s()
            while self.next - 1 - self.through + BURST <= IN_FLIGHT:
                self.send()
                self.next += BURST
            before = self.answered
            self._receive()
            now = time.perf_counter()
            if self.answered > before:
                heard_at = now
            elif not child.running or now > heard_at + STALL_LIMIT_S:
                raise BenchError(f"{child.name} does not answer:\n{child.last_lines()}")
            elif now > heard_at + SILENCE_S:
                self.again()
        assert warm is not None
        answered, lost, began, cpu_s = warm
        count = self.answered - answered
        return Rate(
            messages_per_s=count / (time.perf_counter() - began),
            cpu_us=(child.cpu_s() - cpu_s) / count * 1e6,
            # Of what was given up before the role served, something may have been answered since.
            lost=max(self.through - self.answered - lost, 0),
        )

    def _receive(self) -> None:
        for ready, _ in self._poll.poll(SILENCE_S * 1000):
            for (role, id), endpoint in self._endpoints.items():
                if endpoint.fileno() != ready:
                    continue
                for rows, _ in endpoint.receive_nowait():
                    rest = self.take(role, id, rows)
                    if role == "acceptor" and len(rest):
                        for to, answer in self.acceptors[id].step(rest, 0.0).send:
                            self.post(role, id, to, answer)

    @abstractmethod
    def send(self) -> None:
        """Sends `BURST` messages from `next` on."""

    @abstractmethod
    def take(self, role: RoleName, id: int, rows: Rows) -> Rows:
        """Takes what a member that is played here was sent; returns what a real one is to answer.

        It counts `answered`, and moves `through`.
        """

    def again(self) -> None:
        """What is under way is given up: later messages show that the role is there."""
        self.through = self.next - 1


class ForAcceptor(StandIn):
    """PHASE2A in, PHASE2B out: acceptor 0; a message is an instance."""

    plays = (("coordinator", 0), ("learner", 0))

    def send(self) -> None:
        """Proposals; what was answered is below `low`."""
        header = self.header
        header["type"], header["round"], header["low"] = Type.PHASE2A, ROUND, self.through + 1
        header["instance"] = np.arange(self.next, self.next + BURST)
        self.post("coordinator", 0, To(Role.ACCEPTOR, 0), self.rows)

    def take(self, role: RoleName, id: int, rows: Rows) -> Rows:
        """Votes."""
        header = wire.headers(rows)
        votes = header["type"] == Type.PHASE2B
        if votes.any():
            self.answered += int(votes.sum())
            self.through = max(self.through, int(header["instance"][votes].max()))
        return _others(rows, votes)


class ForCoordinator(StandIn):
    """REQUEST in, PHASE2A out to three acceptors, of which the first one's are counted."""

    plays = (("acceptor", 0), ("acceptor", 1), ("acceptor", 2), ("learner", 0))

    def __init__(self, cluster: Cluster, payload_bytes: int) -> None:
        super().__init__(cluster, payload_bytes)
        self._checkpointed = 0

    def send(self) -> None:
        """Requests: they need no number."""
        self.post("learner", 0, COORDINATORS, self.rows)

    def take(self, role: RoleName, id: int, rows: Rows) -> Rows:
        """Proposals, for which the acceptor is made to tell that it voted."""
        header = wire.headers(rows)
        proposals = header["type"] == Type.PHASE2A
        if role != "acceptor" or not proposals.any():
            return _others(rows, proposals)
        acceptor = self.acceptors[id]
        acceptor.highest = max(acceptor.highest, int(header["instance"][proposals].max()))
        if id == 0:
            count = int(proposals.sum())
            self.answered += count
            self.through = min(self.through + count, self.next - 1)
            if acceptor.highest - self._checkpointed >= self.cluster.window // 8:
                self._checkpoint(acceptor.highest)
        return _others(rows, proposals)

    def _checkpoint(self, through: int) -> None:
        """The window moves on."""
        self._checkpointed = through
        report = wire.encode(
            self.cluster.id, self.cluster.group, Type.CHECKPOINT, instance=through
        )
        self.post("learner", 0, COORDINATORS, report)


class ForLearner(StandIn):
    """PHASE2B of three acceptors in; what is delivered shows by checkpoints.

    A message is an instance here, of which the learner hears three times.
    """

    plays = (("acceptor", 0), ("acceptor", 1), ("acceptor", 2), ("coordinator", 0))

    def send(self) -> None:
        """Votes of all three; the first instance opens the session."""
        if self.next == 1:
            for id in self.acceptors:
                self._open(id)
            self.next = 2
        self._vote(self.next, BURST, tuple(self.acceptors))

    def _open(self, id: int) -> None:
        vote = wire.encode(
            self.cluster.id, self.cluster.group, Type.PHASE2B, instance=1, round=ROUND,
            vround=ROUND, sender=id, value=open_value(0, 1),
        )  # fmt: skip
        self.post("acceptor", id, LEARNERS, vote)

    def _vote(self, first: int, count: int, ids: tuple[int, ...]) -> None:
        header, rows = self.header[:count], self.rows[:count]
        header["type"], header["round"], header["vround"] = Type.PHASE2B, ROUND, ROUND
        header["instance"] = np.arange(first, first + count)
        envelope = rows[:, HEADER_BYTES : HEADER_BYTES + ENVELOPE_BYTES].view(ENVELOPE)[:, 0]
        envelope["sequence"] = np.arange(first - 1, first - 1 + count)
        for id in ids:
            header["sender"] = id
            self.post("acceptor", id, LEARNERS, rows)

    def take(self, role: RoleName, id: int, rows: Rows) -> Rows:
        """Checkpoints, and LEARN for what was lost."""
        types = wire.headers(rows)["type"]
        own = (types == Type.CHECKPOINT) | (types == Type.LEARN)
        for m in wire.messages(rows[own]):
            if m.type == Type.CHECKPOINT:
                self.answered = self.through = max(self.through, m.instance)
            else:
                self._repeat(id, m)
        return _others(rows, own)

    def _repeat(self, id: int, learn: wire.Message) -> None:
        try:
            end = min(wire.unpack_end(learn.value), self.next)
        except BadPacket:
            return
        first = learn.instance
        if first == 1:
            self._open(id)
            first = 2
        if first < end:
            self._vote(first, min(end - first, BURST), (id,))

    def again(self) -> None:
        """Nothing is ever given up: the votes are sent again, and LEARN asks for the rest."""
        first = max(self.through + 1, 2)
        for id in self.acceptors:
            self._open(id)
        for start in range(first, self.next, BURST):
            self._vote(start, min(self.next - start, BURST), tuple(self.acceptors))


def _others(rows: Rows, taken: NDArray[np.bool_]) -> Rows:
    rest: Rows = rows[~taken]
    return rest
