"""A node's part in moving to another data plane: its acceptors and coordinators, one at a time.

    asked                                    answered
    planes  id, data_plane, roles            roles: [role, id, data plane now] of each there
    move    id, data_plane, role, member     what became of it (`reconfiguring.Moved`)

`planes` says whether the node could, and does beforehand what takes long; it changes nothing. A
`move` is between two steps of the role's driver. The new place is loaded and what is to be kept
is on disk before the old one stops; what fails until then leaves everything as it was.

- **An acceptor takes its memory along** (docs/PROTOCOL.md, section 8): its port is closed, its
  registers are read, written to the new place, and opened there under the incarnation that it has.
  If the new place cannot take them it is torn down, and the old one goes on. If that fails too the
  process stops: an acceptor of which nobody knows what it answers must not answer, and it comes
  back as one that forgot.
- **A coordinator that serves takes over from itself** (section 4), in a fresh round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

import trio

from p4xos import placement, planes
from p4xos.config import Cluster, ConfigError, Member, Movable, RoleName
from p4xos.driver import Driver
from p4xos.errors import P4xosError
from p4xos.framing import integer_untrusted
from p4xos.placement import plane_untrusted, role_untrusted, roles_untrusted
from p4xos.planes import DataPlanes, NoDataPlane, NumpyPlanes, Prefer, in_order
from p4xos.remote_errors import Refused
from p4xos.roles.acceptor import Acceptor
from p4xos.roles.coordinator import Coordinator, Phase
from p4xos.roles.rejoining import Voter
from p4xos.roles.sequencer import Sequencer
from p4xos.wire import Frame

if TYPE_CHECKING:
    from p4xos.node import Node

log = logging.getLogger(__name__)
Part = TypeVar("Part", Voter, Sequencer)

SERVES_S = 20.0
"""How long a coordinator may take to serve again: several attempts at a takeover."""
_LOOK_S = 0.001


class Moves:
    """Where the roles of a node have their registers, and how they get elsewhere."""

    def __init__(self, node: Node, prefer: Prefer = in_order) -> None:
        """Of a node that has opened nothing yet; `prefer` is asked where a choice is left."""
        self.counters = {"moved": 0, "failed": 0}
        self.planes: dict[tuple[Movable, int], str] = {}
        """Which data plane each role is on."""
        self.declined: dict[str, str] = {}
        """Data planes that were left out when a role was opened, and why."""
        self.movable_to = planes.names()
        """Data planes that are installed here; to look takes milliseconds, and status is asked for
        again and again."""
        self._node = node
        self._prefer = prefer
        self._drivers: dict[tuple[Movable, int], Driver] = {}
        self._parts: dict[tuple[Movable, int], Voter | Sequencer] = {}  # what a data plane runs
        self._turn = trio.Lock()

    # Opening and closing -------------------------------------------------------------------------

    def acceptor(self, member: Member) -> Voter:
        """An empty one, on the data plane on which it is to be."""
        return self._opened("acceptor", member, lambda found: found.acceptor)

    def logged_acceptor(self, member: Member) -> Acceptor:
        """An empty one that has a log; ConfigError where it is to be where there is none."""
        self.planes["acceptor", member.id] = placement.read(
            self._node.cluster, "acceptor", member.id
        )
        acceptor = NumpyPlanes().acceptor(self._node.cluster, self._frame(member.id))
        self._parts["acceptor", member.id] = acceptor
        return acceptor

    def sequencer(self, member: Member) -> Sequencer:
        """That of a coordinator, on the data plane on which it is to be."""
        return self._opened("coordinator", member, lambda found: found.sequencer)

    def _opened(
        self,
        role: Movable,
        member: Member,
        make: Callable[[DataPlanes], Callable[[Cluster, Frame], Part]],
    ) -> Part:
        cluster = self._node.cluster
        name = placement.read(cluster, role, member.id)
        file = placement.plane_file(cluster, role, member.id)
        where = (str(file), "") if file.exists() else (cluster.source, "[cluster]")
        try:
            left_open = planes.among(name)
            if left_open:
                name, part = self._first_of(self._prefer(left_open), role, member, make)
            else:
                part = make(planes.find(name))(cluster, self._frame(member.id))
        except (ValueError, NoDataPlane) as error:
            raise ConfigError(*where, f'data_plane = "{name}": {error}') from None
        self.planes[role, member.id], self._parts[role, member.id] = name, part
        return part

    def _first_of(
        self,
        names: Sequence[str],
        role: Movable,
        member: Member,
        make: Callable[[DataPlanes], Callable[[Cluster, Frame], Part]],
    ) -> tuple[str, Part]:
        """The first data plane that the role can have, and the role on it."""
        refused: dict[str, str] = {}
        for name in names:
            try:
                part = make(planes.find(name))(self._node.cluster, self._frame(member.id))
            except (ValueError, P4xosError) as error:
                refused[name] = str(error)
                log.warning("%s %d cannot be on %s: %s", role, member.id, name, error)
            else:
                self.declined |= refused
                return name, part
        told = "; ".join(f"not {name}: {why}" for name, why in refused.items())
        raise ValueError(f"none of what it leaves open can run {role} {member.id}: {told}")

    def drive(self, role: RoleName, member: Member, driver: Driver) -> None:
        """Takes the driver of a role that may move."""
        if role != "learner":
            self._drivers[role, member.id] = driver

    def close(self) -> None:
        """Gives back what the data planes took; no role is stepped any more."""
        for part in self._parts.values():
            part.close()
        self._parts.clear()

    def _frame(self, member_id: int) -> Frame:
        return Frame(self._node.cluster.id, self._node.cluster.group, member_id)

    # Answers -------------------------------------------------------------------------------------

    async def planes_untrusted(self, head: Mapping[str, object]) -> Mapping[str, object]:
        """Whether the roles named here could move, and where they are; raises why they cannot."""
        name, roles = plane_untrusted(head), roles_untrusted(head)
        found = await self._prepared(name, roles)
        silent = self._node.silent
        if silent:
            raise Refused(f"{silent[0]}; wait until it takes part again")
        return {"roles": [[role, id, self.planes[role, id]] for role, id in found]}

    async def move_untrusted(self, head: Mapping[str, object]) -> Mapping[str, object]:
        """Moves one role; raises why it could not, and it is where it was."""
        name, member = plane_untrusted(head), integer_untrusted(head, "member", 0, 0xFFFF)
        role = role_untrusted(head.get("role"))
        if (role, member) not in self._drivers:
            raise Refused(f"{role} {member} does not run in this process of node {self._node.name}")
        await self._prepared(name, (role,))
        async with self._turn:
            before = self.planes[role, member]
            told: dict[str, object] = {"from": before, "to": name}
            if before == name:
                return told
            if role == "acceptor":
                return told | await self._move_acceptor(member, name)
            return told | await self._move_coordinator(member, name)

    async def _prepared(
        self, name: str, roles: tuple[Movable, ...]
    ) -> list[tuple[Movable, int]]:
        """The roles of these kinds here, once all that can be known says that they could move."""
        cluster, node = self._node.cluster, self._node
        here = [key for key in self._drivers if key[0] in roles]
        wanted = [(role, m.id) for role, m in cluster.members_of(node.name) if role in roles]
        if sorted(here) != sorted(wanted):
            raise Refused(
                f"roles of node {node.name} run in processes of their own (p4xos role): they can "
                "be moved where one process has all of them"
            )
        try:
            for role in {role for role, _ in here}:
                obstacle = placement.no_log(cluster, role, name)
                if obstacle:
                    raise Refused(f"{obstacle}; coordinators can move (--role coordinator)")
            await trio.to_thread.run_sync(planes.find(name).prepare, cluster)
        except (ValueError, OSError) as error:
            raise Refused(f"{name} cannot run here: {error}") from None
        return here

    # Moving --------------------------------------------------------------------------------------

    async def _move_acceptor(self, member: int, name: str) -> dict[str, object]:
        """From where it stops all in one go: what arrives meanwhile waits in the socket."""
        node, driver = self._node, self._drivers["acceptor", member]
        if member in node.forgetful and not node.forgetful[member][0].joined:
            raise Refused(f"acceptor {member} has forgotten and has not joined again; wait for it")
        new = await self._loaded("acceptor", member, name, planes.find(name).acceptor)
        old, storage = node.acceptors[member]
        at, began = time.time(), trio.current_time()
        try:
            memory = old.leave()
            new.take(memory)
        except Exception as error:  # whatever a data plane raises: nobody else may answer
            try:
                new.close()
                old.stay()
            except Exception as worse:
                driver.fail(worse)
                raise
            raise self._stays("acceptor", member, name, error) from error
        node.acceptors[member] = new, storage
        driver.role = new
        pause_s = trio.current_time() - began
        self._arrived("acceptor", member, name, new)
        old.close()
        log.info("acceptor %d took %d votes along, in %.1f ms", member, memory.votes, pause_s * 1e3)
        return _told(at, pause_s, memory.votes, 0)

    async def _move_coordinator(self, member: int, name: str) -> dict[str, object]:
        driver = self._drivers["coordinator", member]
        coordinator = driver.role
        assert isinstance(coordinator, Coordinator)
        new = await self._loaded("coordinator", member, name, planes.find(name).sequencer)
        at, began = time.time(), trio.current_time()
        old = coordinator.sequencer
        served = coordinator.phase in (Phase.PROPOSING, Phase.SERVING)
        try:
            effects = coordinator.move(new, began)
        except Exception as error:  # a data plane that cannot be told to stop
            new.close()
            raise self._stays("coordinator", member, name, error) from error
        self._arrived("coordinator", member, name, new)
        driver.perform(effects, began)
        old.close()
        if not served:
            return _told(at, 0.0, 0, 0)
        with trio.move_on_after(SERVES_S):
            return await self._served(coordinator, at, began)
        raise Refused(
            f"coordinator {member} is on {name} and has not served for {SERVES_S:g} s: it is "
            f"{coordinator.phase.value}; are a majority of the acceptors there (p4xos status)?"
        )

    @staticmethod
    async def _served(coordinator: Coordinator, at: float, began: float) -> dict[str, object]:
        """Waits until it serves again, or another one does."""
        while coordinator.phase is not Phase.FOLLOWING:
            if coordinator.phase is Phase.SERVING:
                term = coordinator.term
                return _told(at, max(term.since - began, 0.0), term.found, term.waited)
            await trio.sleep(_LOOK_S)
        return _told(at, trio.current_time() - began, 0, 0)

    async def _loaded(
        self, role: Movable, member: int, name: str, make: Callable[[Cluster, Frame], Part]
    ) -> Part:
        """The new place, empty, and on disk that the role is there when the node starts again."""
        cluster = self._node.cluster
        try:
            part = await trio.to_thread.run_sync(make, cluster, self._frame(member))
        except (ValueError, OSError) as error:
            raise Refused(f"{name} cannot run {role} {member}: {error}") from None
        try:
            placement.write(cluster, role, member, name)
        except P4xosError:
            part.close()
            raise
        return part

    def _stays(self, role: Movable, member: int, name: str, error: Exception) -> Refused:
        """The role goes on where it was, also when the node starts again."""
        before = self.planes[role, member]
        self.counters["failed"] += 1
        log.error("%s %d stays on %s: %s failed", role, member, before, name, exc_info=error)
        placement.write(self._node.cluster, role, member, before)
        return Refused(f"{name} could not take {role} {member}, which stays on {before}: {error}")

    def _arrived(self, role: Movable, member: int, name: str, part: Voter | Sequencer) -> None:
        key = role, member
        self.counters["moved"] += 1
        log.info("%s %d moved from %s to %s", role, member, self.planes[key], name)
        self.planes[key], self._parts[key] = name, part


def _told(at: float, pause_s: float, outstanding: int, waited: int) -> dict[str, object]:
    return {
        "at_ms": round(at * 1e3), "pause_us": round(pause_s * 1e6), "outstanding": outstanding,
        "waited": waited,
    }  # fmt: skip
