"""What a data plane is told before it serves: who it is, who may speak to it, whom it tells.

All of it comes from the cluster file, and none of it changes while the cluster runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from p4xos.config import Cluster
from p4xos.effects import ACCEPTORS, LEARNERS, SENDS, Role, To
from p4xos.tables import Address
from p4xos.wire import Frame, Message, Type

PlaneRole = Literal["acceptor", "coordinator"]

SENDERS: dict[Role, tuple[Type, ...]] = {
    **SENDS,
    Role.PROPOSER: (Type.READ_INDEX,),
    Role.LEARNER: tuple(type for type in SENDS[Role.LEARNER] if type != Type.READ_INDEX),
}
"""What each role sends; a proposer, at its learner's address, asks for the read index."""


class Sender(NamedTuple):
    """What an address may send, and under which id."""

    address: Address
    type: Type
    id: int


@dataclass(frozen=True)
class Plan:
    """One role of one group on a data plane."""

    role: PlaneRole
    frame: Frame
    acceptors: int
    window: int
    value_bytes: int
    addresses: Mapping[To, Address]
    """Of every member, one entry for each `To` that names an id."""

    @classmethod
    def of(cls, cluster: Cluster, role: PlaneRole, frame: Frame) -> Plan:
        """What the cluster file says."""
        members = {
            Role.ACCEPTOR: cluster.acceptors,
            Role.COORDINATOR: cluster.coordinators,
            Role.LEARNER: cluster.learners,
            Role.PROPOSER: cluster.learners,
        }
        return cls(
            role, frame, len(cluster.acceptors), cluster.window, cluster.value_bytes,
            {To(kind, m.id): m.address for kind, of_role in members.items() for m in of_role},
        )  # fmt: skip

    @property
    def own(self) -> Address:
        """Where the data plane is."""
        role = Role.ACCEPTOR if self.role == "acceptor" else Role.COORDINATOR
        return self.addresses[To(role, self.frame.sender)]

    @property
    def audience(self) -> To:
        """Whom it multicasts to: an acceptor the learners, a coordinator the acceptors."""
        return LEARNERS if self.role == "acceptor" else ACCEPTORS

    @property
    def told(self) -> list[To]:
        """The members of the audience, one by one."""
        return [to for to in self.addresses if to.role is self.audience.role]

    def senders(self) -> Iterator[Sender]:
        """Everyone who may speak to it."""
        for to, address in self.addresses.items():
            for type in SENDERS[to.role]:
                assert to.id is not None
                yield Sender(address, type, to.id)

    def sender(self, message: Message) -> To:
        """Who sent a message that was let in: its type says in which role."""
        if message.type == Type.READ_INDEX:
            # Ids of proposers and coordinators overlap (docs/PROTOCOL.md, section 2).
            role = Role.COORDINATOR if message.instance == 1 else Role.PROPOSER
            return To(role, message.sender)
        for role, types in SENDERS.items():
            if message.type in types:
                return To(role, message.sender)
        raise AssertionError(f"nobody sends type {message.type}")

    def receiver(self, address: Address, type: int) -> To:
        """Who is meant by an address: a reply to READ_INDEX is for the proposer there."""
        found = self._by_address[address]
        if type == Type.READ_INDEX_REPLY and found.role is Role.LEARNER:
            return To(Role.PROPOSER, found.id)
        return found

    def __post_init__(self) -> None:
        by_address = {a: to for to, a in self.addresses.items() if to.role is not Role.PROPOSER}
        object.__setattr__(self, "_by_address", by_address)

    _by_address: Mapping[Address, To] = None  # type: ignore[assignment]  # made of `addresses`
