"""The one driver, which runs any role: drain, step, persist, send, deliver.

There is no await between draining the socket and having sent what followed from it, so a role is
never seen half-way, and load makes its own batches: whatever has arrived by the time the driver
comes round is one step and one fdatasync (docs/PROTOCOL.md, section 3). `loop` says when.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from p4xos import wire
from p4xos.batching import joined
from p4xos.config import Cluster
from p4xos.effects import SENDS, Effects, Role, To
from p4xos.net import Address, Network
from p4xos.storage import RoundFile
from p4xos.wire import Peer, Rows

log = logging.getLogger(__name__)

class RoleMachine(Protocol):
    """A pure role, as in `p4xos.roles`."""

    @property
    def counters(self) -> dict[str, int]:
        """Everything counted, by name."""
        ...


    def step(self, rows: Rows, now: float) -> Effects:
        """Messages in, effects out."""
        ...

    def tick(self, now: float) -> Effects:
        """What time demands."""
        ...

    def deadline(self) -> float | None:
        """When `tick` next matters."""
        ...


class Storage(Protocol):
    """Where a role's records become durable."""

    def append(self, records: list[Rows]) -> None:
        """All are durable when this returns."""
        ...

    def close(self) -> None:
        """Gives the files back."""
        ...


class RoundStorage:
    """A coordinator's records are its rounds."""

    def __init__(self, file: RoundFile) -> None:
        self._file = file

    def append(self, records: list[Rows]) -> None:
        """Writes the last round."""
        self._file.write(wire.message(records[-1], -1).round)

    def close(self) -> None:
        """Nothing stays open."""


class Directory:
    """Who is where: destinations to addresses, and source addresses to what they may send."""

    def __init__(self, cluster: Cluster) -> None:
        members = {
            Role.ACCEPTOR: cluster.acceptors,
            Role.COORDINATOR: cluster.coordinators,
            Role.LEARNER: cluster.learners,
            Role.PROPOSER: cluster.learners,
        }
        self._addresses: dict[To, list[Address]] = {}
        self.peers: dict[Address, Peer] = {}
        for role, of_role in members.items():
            addresses: list[Address] = [member.address for member in of_role]
            self._addresses[To(role)] = addresses
            for member, address in zip(of_role, addresses, strict=True):
                self._addresses[To(role, member.id)] = [address]
                if role in SENDS:
                    senders = dict.fromkeys(map(int, SENDS[role]), member.id)
                    self.peers[address] = Peer(cluster.id, cluster.group, senders)

    def addresses(self, to: To) -> list[Address]:
        """Where a destination is; nowhere when no such member is configured."""
        return self._addresses.get(to, [])


class Post(Protocol):
    """What carries a driver's messages: its loop."""

    def send(self, driver: Driver, to: To, rows: Rows) -> None:
        """Sends a batch; the rows are the driver's again when this returns."""
        ...

    def submitted(self) -> None:
        """Something was paid outside a turn."""
        ...

    def fail(self, error: BaseException) -> None:
        """Something could not be paid: nothing more may leave this process."""
        ...


class Driver:
    """Runs one role on one endpoint, whenever its loop says so."""

    def __init__(
        self,
        name: str,
        role: RoleMachine,
        network: Network,
        directory: Directory,
        *,
        storage: Storage | None = None,
        handle: Callable[[Effects, float], Effects | None] | None = None,
        unhurried: Callable[[], bool] | None = None,
        look: Callable[[], None] | None = None,
    ) -> None:
        """Idle until it is added to a loop.

        Args:
          name: for log lines.
          storage: where `Effects.persist` goes; None for roles that keep nothing.
          handle: takes what was delivered, and may owe more effects for it.
          unhurried: whether what arrives may wait a little; None: it never may.
          look: called behind each turn, whatever came of it.
        """
        self.name = name
        self.role = role
        self.network = network
        self.address: Address = network.address
        self.directory = directory
        self.drops = dict.fromkeys(wire.DROP_REASONS, 0)
        self.inbox: deque[Rows] = deque()  # batches from roles of this process, the driver's own
        self.readable = False  # the socket had something when the loop looked
        self.timed = False  # something was due when the loop looked
        self.taken_bytes = 0  # of messages, by the last turn
        self.unhurried = unhurried
        self.defer_s = 0.0  # how long the loop lets messages wait; its own to set, as is
        self.defer_bytes = 0  # how many at most
        self.waiting = False  # in the loop's list of drivers that have something to do
        self._storage = storage
        self._handle = handle
        self._look = look
        self._post: Post | None = None

    def attach(self, post: Post) -> None:
        """The loop that carries what this role sends and delivers."""
        self._post = post

    def due(self, now: float) -> bool:
        """Whether `tick` matters now."""
        deadline = self.role.deadline()
        return deadline is not None and now >= deadline

    def pump(self, now: float) -> None:
        """One turn: everything that has arrived and everything that is due."""
        effects = Effects.none()
        self.taken_bytes = 0
        if self.inbox:
            near = list(self.inbox)
            self.inbox.clear()
            for rows in joined(near):
                self.taken_bytes += rows.nbytes
                effects.extend(self.role.step(rows, now))
        # What has come is acted on before what is due: while another role of this process synced,
        # an answer or a heartbeat may have come, and is not to be taken for one that did not.
        timed, self.timed = self.timed, False
        if self.readable or timed:
            self.readable = False
            # By source, as datagrams of two may come in any order: what one of them has sent in
            # many pieces is then one step.
            arrived: dict[Address, list[Rows]] = {}
            for rows, source in self.network.receive_nowait():
                arrived.setdefault(source, []).append(rows)
            for source, batches in arrived.items():
                peer = self.directory.peers.get(source)
                for rows in joined(batches):
                    self.taken_bytes += rows.nbytes
                    if peer is None:
                        self.drops["foreign_address"] += len(rows)
                        continue
                    rows = wire.decode_untrusted(rows, peer, self.drops)
                    if len(rows):
                        effects.extend(self.role.step(rows, now))
        if timed and self.due(now):
            effects.extend(self.role.tick(now))
        self._pay(effects, now)
        if self._look is not None:
            self._look()

    def perform(self, effects: Effects, now: float) -> None:
        """Pays what a call from outside the loop owes, and lets the loop go on from there."""
        assert self._post is not None
        try:
            self._pay(effects, now)
        except BaseException as error:
            self._post.fail(error)
            raise
        self._post.submitted()

    def fail(self, error: BaseException) -> None:
        """What its role answers is not known any more: nothing leaves this process again."""
        assert self._post is not None
        self._post.fail(error)

    def _pay(self, effects: Effects, now: float) -> None:
        """Persist, send, deliver, in that order."""
        assert self._post is not None
        if effects.persist:
            assert self._storage is not None
            self._storage.append(effects.persist)
        for to, rows in effects.send:
            self._post.send(self, to, rows)
        if self._handle is not None and (effects.deliver or effects.chosen):
            more = self._handle(effects, now)
            if more is not None:
                self._pay(more, now)

    @property
    def calls_back(self) -> bool:
        """Whether a turn of this driver may call the application."""
        return self._handle is not None

    def close(self) -> None:
        """Gives the address and the files back."""
        self.network.close()
        if self._storage is not None:
            self._storage.close()

    def counters(self) -> Mapping[str, int]:
        """Everything counted here: by the role, by reason of a drop, by the endpoint."""
        dropped = {f"dropped_{reason}": count for reason, count in self.drops.items()}
        endpoint = {f"network_{name}": count for name, count in self.network.counters.items()}
        return {**self.role.counters, **dropped, **endpoint}
