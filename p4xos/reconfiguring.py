"""A running group moves from one data plane to another, role by role, under load.

    found = await reconfigure(cluster, "p4")   # or client.reconfigure, or p4xos reconfigure
    found.pause_s, [(m.role, m.id, m.pause_s) for m in found.moved]

First every node is asked whether it could: one that cannot, or that is not there, ends it before
anything has changed. Then the acceptors move, one at a time, and then the coordinators, the serving
one last; `moving` has what happens in a node. Before each move all nodes are asked once more: the
next one moves only while every acceptor takes part, so that never more than one is on its way,
whatever happens to it there. What stops halfway leaves a group of two kinds, which is as good a
group as another: the same call goes on from there.

It moves where registers are, not who is a member, and needs no rule of the protocol but those of
sections 4 and 8 (docs/PROTOCOL.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import NamedTuple

import trio

from p4xos import secret
from p4xos.config import DATA_PLANE, MOVABLE, NUMPY, Cluster, Member, Movable
from p4xos.dialing import Dialed, Unreachable, ask_untrusted, dial
from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import integer_untrusted, text_untrusted
from p4xos.placement import plane_untrusted, role_untrusted, roles_untrusted
from p4xos.tables import Address

CHECK_S = 60.0
"""How long all nodes may take to say whether they could: programs are built meanwhile."""
MOVE_S = 60.0
"""How long one role may take; a coordinator that serves again takes some of it."""
DIALS, DIAL_AGAIN_S = 3, 0.1
"""How often a node that does not answer is tried: nothing moves without all of them."""
_COUNT_MAX = 2**40


class Moved(NamedTuple):
    """One role, and what its move was."""

    role: Movable
    id: int
    node: str
    before: str
    after: str
    at: float
    """When it stopped where it was: seconds since 1970, by that node's clock."""
    pause_s: float
    """Until it went on where it is; 0 for a coordinator that did not serve."""
    outstanding: int
    """An acceptor: votes that it took along. A coordinator: instances that it proposed again, since
    they may have been chosen in the round before."""
    waited: int
    """Requests that waited for a coordinator, and were numbered after."""


class Reconfigured(NamedTuple):
    """A group that is on one data plane."""

    data_plane: str
    moved: tuple[Moved, ...]
    """In their order; roles that were there already are not among them."""

    @property
    def pause_s(self) -> float:
        """For how long nobody numbered requests: what clients may have waited longer than else."""
        return sum(m.pause_s for m in self.moved if m.role == "coordinator")

    def data(self) -> dict[str, object]:
        """For scripts."""
        moved = [m._asdict() for m in self.moved]
        return {"data_plane": self.data_plane, "pause_s": self.pause_s, "moved": moved}


class NotReconfigured(P4xosError):
    """A group has not moved, or not all of it."""

    def __init__(self, data_plane: str, reason: str, moved: Sequence[Moved]) -> None:
        done = ", ".join(f"{m.role} {m.id}" for m in moved)
        stands = (
            f"{done} moved, the others did not; the group goes on as it is: the same command "
            "moves the rest" if moved else "nothing has moved"
        )  # fmt: skip
        super().__init__(f"not all is on {data_plane}: {reason}; {stands}")
        self.data_plane = data_plane
        self.moved = tuple(moved)


async def reconfigure(
    cluster: Cluster, data_plane: str, roles: Sequence[Movable] = MOVABLE
) -> Reconfigured:
    """Moves the roles of a running group to another data plane.

    Args:
      cluster: the cluster file.
      data_plane: its name.
      roles: acceptors, coordinators, or both.

    Raises:
      NotReconfigured: a node cannot do it, or did not; it says which roles have moved by then.
      ValueError: no name of a data plane, or no role.
      OSError: the secret of the cluster cannot be read; nobody was asked.
    """
    check(data_plane, roles)
    return await _Reconfiguration(cluster, data_plane, tuple(dict.fromkeys(roles))).run()


def check(data_plane: str, roles: Sequence[str]) -> None:
    """ValueError where no data plane can have this name, or there is no such role."""
    if not DATA_PLANE.fullmatch(data_plane):
        raise ValueError(f"data_plane is {data_plane!r}: give the name of one, as {NUMPY}")
    if not roles or any(role not in MOVABLE for role in roles):
        raise ValueError(f"roles is {list(roles)}: give some of {', '.join(MOVABLE)}")


class _Reconfiguration:
    """One of them."""

    def __init__(self, cluster: Cluster, data_plane: str, roles: tuple[Movable, ...]) -> None:
        self._cluster = cluster
        self._data_plane = data_plane
        self._roles = roles
        self._secret = secret.of(cluster)
        self._moved: list[Moved] = []

    async def run(self) -> Reconfigured:
        """All of it."""
        try:
            for role in MOVABLE:
                if role in self._roles:
                    for member in await self._in_order(role):
                        await self._move(role, member)
        except P4xosError as error:
            raise NotReconfigured(self._data_plane, str(error), self._moved) from error
        return Reconfigured(self._data_plane, tuple(self._moved))

    async def _in_order(self, role: Movable) -> list[Member]:
        """The members of a role: a coordinator that serves last, so that it stops only once."""
        await self._check()
        members = list(self._cluster.members(role))
        if role == "acceptor":
            return members
        serving = await self._serving()
        return sorted(members, key=lambda member: member.id == serving)

    async def _check(self) -> dict[tuple[Movable, int], str]:
        """Where each role is; raises where a node cannot do it, or an acceptor does not take part.

        Every node with an acceptor is asked, also where only coordinators move.
        """
        problems: dict[str, str] = {}
        places: dict[tuple[Movable, int], str] = {}
        nodes = dict.fromkeys(
            m.node for m in (*self._cluster.acceptors, *self._cluster.coordinators)
        )
        ask = {"ask": "planes", "data_plane": self._data_plane, "roles": list(self._roles)}

        async def check(node: str) -> None:
            try:
                places.update(places_untrusted(await self._ask(node, ask, CHECK_S)))
            except P4xosError as error:
                problems[node] = _reason(error)

        async with trio.open_nursery() as nursery:
            for node in nodes:
                nursery.start_soon(check, node)
        if problems:
            same: dict[str, list[str]] = {}
            for node in nodes:
                if node in problems:
                    same.setdefault(problems[node], []).append(node)
            raise P4xosError("; ".join(f"{', '.join(who)}: {why}" for why, who in same.items()))
        return places

    async def _move(self, role: Movable, member: Member) -> None:
        places = await self._check()
        if places.get((role, member.id)) == self._data_plane:
            return
        ask = {
            "ask": "move", "data_plane": self._data_plane, "role": role, "member": member.id
        }  # fmt: skip
        try:
            head = await self._ask(member.node, ask, MOVE_S)
        except P4xosError as error:
            raise P4xosError(f"{role} {member.id} of {member.node}: {_reason(error)}") from error
        if "at_ms" in head:
            self._moved.append(_moved_untrusted(head, role, member.id, member.node))

    async def _serving(self) -> int | None:
        """Which coordinator serves, as far as one of them tells."""
        for member in self._cluster.coordinators:
            head = await self._ask(member.node, {"ask": "status"}, MOVE_S)
            status = head.get("status")
            told = status.get("coordinator") if isinstance(status, dict) else None
            if isinstance(told, dict) and told.get("phase") == "serving":
                leader = told.get("leader")
                return leader if isinstance(leader, int) else None
        return None

    async def _dial(self, address: Address) -> Dialed:
        """A node that is busy may be slow to answer; one that is gone refuses at once."""
        for _ in range(DIALS - 1):
            with suppress(Unreachable):
                return await dial(address, self._cluster.id, self._secret)
            await trio.sleep(DIAL_AGAIN_S)
        return await dial(address, self._cluster.id, self._secret)

    async def _ask(
        self, node: str, head: Mapping[str, object], patience_s: float
    ) -> dict[str, object]:
        """One question to a node, on a connection of its own."""
        dialed = await self._dial(self._cluster.node(node).peer)
        try:
            with trio.move_on_after(patience_s):
                return (await ask_untrusted(dialed, {"id": 1, **head})).head
            raise P4xosError(f"no answer within {patience_s:g} s")
        finally:
            await dialed.frames.aclose()


class Answers:
    """What a node answers to a client who wants the group to move."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def reconfigure_untrusted(self, head: Mapping[str, object]) -> Mapping[str, object]:
        """Moves the group, as long as the client waits for it."""
        found = await reconfigure(self._cluster, plane_untrusted(head), roles_untrusted(head))
        return {
            "data_plane": found.data_plane,
            "moved": [
                {
                    "role": m.role, "member": m.id, "node": m.node, "from": m.before,
                    "to": m.after, "at_ms": round(m.at * 1e3),
                    "pause_us": round(m.pause_s * 1e6), "outstanding": m.outstanding,
                    "waited": m.waited,
                }
                for m in found.moved
            ],
        }  # fmt: skip


def reconfigured_untrusted(head: Mapping[str, object]) -> Reconfigured:
    """What a node answered; BadPacket where it is something else."""
    moved = head.get("moved")
    if not isinstance(moved, list):
        raise BadPacket('"moved" is no list')
    return Reconfigured(
        plane_untrusted(head),
        tuple(
            _moved_untrusted(
                told, role_untrusted(told.get("role")),
                integer_untrusted(told, "member", 0, 0xFFFF), text_untrusted(told, "node"),
            )
            for told in map(_map_untrusted, moved)
        ),
    )  # fmt: skip


def _map_untrusted(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        raise BadPacket("what moved is no map")
    return value


def _moved_untrusted(head: Mapping[str, object], role: Movable, member: int, node: str) -> Moved:
    return Moved(
        role, member, node, text_untrusted(head, "from"), text_untrusted(head, "to"),
        integer_untrusted(head, "at_ms", 0, 2**62) / 1e3,
        integer_untrusted(head, "pause_us", 0, _COUNT_MAX) / 1e6,
        integer_untrusted(head, "outstanding", 0, _COUNT_MAX),
        integer_untrusted(head, "waited", 0, _COUNT_MAX),
    )  # fmt: skip


def places_untrusted(head: Mapping[str, object]) -> dict[tuple[Movable, int], str]:
    """Which data plane each role of a node is on."""
    told = head.get("roles")
    places: dict[tuple[Movable, int], str] = {}
    for row in told if isinstance(told, list) else [None]:
        if not isinstance(row, list) or len(row) != 3:
            raise BadPacket('"roles" is no list of roles, ids and data planes')
        role, member, name = row
        if not isinstance(member, int) or not isinstance(name, str):
            raise BadPacket('"roles" is no list of roles, ids and data planes')
        places[role_untrusted(role), member] = name
    return places


def _reason(error: P4xosError) -> str:
    """Of a node that cannot be reached, why, without what a client of the log would do then."""
    return "; ".join(error.problems.values()) if isinstance(error, Unreachable) else str(error)
