"""What the members of a group offer, and what all of them do.

A group runs on one data plane, the same for all of its members: what each has, where it keeps what
was chosen, and how long a value may be, its node tells with its status.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import trio

from p4xos import secret, watching
from p4xos.chunnels.errors import NoAgreement
from p4xos.chunnels.group.layer import ORDERED_MCAST, PROVIDES
from p4xos.chunnels.implementations import Ends
from p4xos.chunnels.levels import Level, together
from p4xos.chunnels.offers import Offer, Offered, OfferedLayer, offered
from p4xos.chunnels.offers import text_untrusted as name_untrusted
from p4xos.chunnels.places import Place, Scope
from p4xos.chunnels.runtime import Runtime
from p4xos.chunnels.stack import Chunnel, Layer, Select
from p4xos.chunnels.view import View
from p4xos.config import NUMPY, Cluster
from p4xos.dialing import Unreachable, answer_untrusted, dial
from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import integer_untrusted, text_untrusted
from p4xos.node import Node
from p4xos.quorum import majority
from p4xos.tables import Address
from p4xos.watching import WORDS_MAX

PATIENCE_S = 5.0
"""How long members may take to tell what they offer."""
STRAGGLERS_S = 0.25
"""How long the others are waited for, once so many have answered as must."""
TRY_AGAIN_S = 0.1
PLANES_MAX = 16
ANYWHERE = Place("", "")
ABOVE = Ends.EITHER
"""Layers above a group are run by whoever submits and by whoever reads, each for itself."""


class Member(NamedTuple):
    """One member, or what all of them provide together."""

    name: str
    planes: tuple[str, ...]
    """On which its roles are; two, where some of them have moved and others have not. Of one that
    only learns, those of all others."""
    provides: Mapping[str, Level]
    movable_to: tuple[str, ...] = ()
    """Data planes that are installed there."""
    declined: Mapping[str, str] = {}
    """Those that were left open and could not be had when it started, and why."""
    created_on: str = NUMPY
    """What the cluster file says; it counts while nobody is there who knows better."""

    @property
    def running(self) -> str:
        """The data planes that it is on, as one name."""
        return "+".join(self.planes)

    def offer(self, *, move: bool = False) -> Offer:
        """What it offers: what it runs on, and where it could move to, if it is let to.

        Moving takes a moment for everybody, so that what runs goes first; a policy or a requirement
        may say otherwise.
        """
        names = [self.running, *(self.movable_to if move else ())]
        able = tuple(
            Offered(
                name, Ends.SERVER, Scope.GLOBAL, Scope.GLOBAL, 0 if name == self.running else -1,
                {**PROVIDES, **self.provides, "plane": name}, {},
            )
            for name in dict.fromkeys(names)
        )  # fmt: skip
        return Offer(ANYWHERE, (OfferedLayer(ORDERED_MCAST, {}, {}, None, able),))


def client_offer(runtime: Runtime, stack: Chunnel[Any, Any]) -> Offer:
    """This end's offer: what can work above a group, each layer run here alone.

    Raises:
      ValueError: a layer cannot.
    """
    view = View()

    def tell(layer: Layer) -> OfferedLayer:
        if layer.type == ORDERED_MCAST:
            return OfferedLayer(layer.type, layer.facts, layer.requires, layer.scope, ())
        able = [
            offered(replace(own, ends=ABOVE))
            for own in runtime.able(layer.type, view)
            if own.functions is not None or own.removable
        ]
        if not able:
            raise ValueError(
                f"{layer.type} cannot stand above {ORDERED_MCAST}: only layers that make each "
                "message into another one can, as serialize()"
            )
        return OfferedLayer(layer.type, layer.facts, layer.requires, layer.scope, tuple(able))

    if any(isinstance(node, Select) for node in stack.nodes):
        raise ValueError(f"select() cannot stand above {ORDERED_MCAST}: say what is wanted")
    return Offer(ANYWHERE, tuple(tell(layer) for (layer,) in _single(stack)))


def _single(stack: Chunnel[Any, Any]) -> list[tuple[Layer]]:
    return [(node,) for node in stack.nodes if isinstance(node, Layer)]


def described(node: Node) -> Member:
    """The member that runs in this process."""
    (own,) = _placed([_member_untrusted(node.name, {"group": watching.group(node)})], [])
    return own


def planned(cluster: Cluster, names: Sequence[str]) -> Offer:
    """What a member offers that has not started: each data plane that is left open to it."""
    provides = {**PROVIDES, **watching.provided(cluster)}
    able = tuple(
        Offered(
            name, Ends.SERVER, Scope.GLOBAL, Scope.GLOBAL, len(names) - k,
            {**provides, "plane": name}, {},
        )
        for k, name in enumerate(names)
    )  # fmt: skip
    return Offer(ANYWHERE, (OfferedLayer(ORDERED_MCAST, {}, {}, None, able),))


def _placed(found: Sequence[Member], others: Sequence[Member]) -> list[Member]:
    """The same members; those that have no roles on data planes are where the group is."""
    known = sorted({plane for each in (*found, *others) for plane in each.planes})
    return [
        each if each.planes else each._replace(planes=tuple(known) or (each.created_on,))
        for each in found
    ]


def common(found: Sequence[Member]) -> Member:
    """What all of them provide: the weaker of each, on whatever data planes they are."""
    provides = dict(found[0].provides)
    for other in found[1:]:
        provides = together(provides, other.provides)
    planes = sorted({plane for each in found for plane in each.planes})
    everywhere = set(found[0].movable_to).intersection(*(each.movable_to for each in found))
    return Member("all", tuple(planes), provides, tuple(sorted(everywhere)))


async def ask(
    to: Cluster | Sequence[tuple[str, int]], secret_file: Path | None, patience_s: float
) -> list[Member]:
    """What each member offers, in the order of the addresses; those that are down are left out.

    Raises:
      NoAgreement: a member refuses to talk.
      Unreachable: no majority answers.
    """
    if isinstance(to, Cluster):
        nodes = {learner.node for learner in to.learners}
        addresses = [node.peer for node in to.nodes if node.name in nodes]
        others = [node.peer for node in to.nodes if node.name not in nodes]
        shared = secret.of(to)
        cluster = to.id
    else:
        addresses, others = [Address(*address) for address in to], []
        shared = None if secret_file is None else secret.read(secret_file)
        cluster = 0
    if not addresses:
        raise ValueError("no address is given; give the peer address of one node at least")
    needed = majority(len(addresses)) if isinstance(to, Cluster) else 1
    most_of_others = majority(len(others)) if others else 0
    found: dict[int, Member] = {}
    beside: list[Member] = []
    problems: dict[str, str] = {}
    refused: list[NoAgreement] = []

    async def one(at: int, address: Address) -> None:
        while True:
            try:
                found[at] = await _ask_one(address, cluster, shared)
                break
            except Unreachable as error:  # it may be starting
                problems.update(error.problems)
                await trio.sleep(TRY_AGAIN_S)
            except P4xosError as error:
                refused.append(NoAgreement("", str(error), f"member {address}"))
                nursery.cancel_scope.cancel()
        look()

    async def other(address: Address) -> None:
        """One that has roles, and learns nothing: it knows where those are."""
        while True:
            try:
                beside.append(await _ask_one(address, cluster, shared, learns=False))
                break
            except (P4xosError, OSError):
                await trio.sleep(TRY_AGAIN_S)
        look()

    def look() -> None:
        if len(found) == len(addresses) and len(beside) == len(others):
            nursery.cancel_scope.cancel()
        elif len(found) >= needed and len(beside) >= most_of_others:
            soon = trio.current_time() + STRAGGLERS_S
            nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, soon)

    with trio.move_on_after(patience_s):
        async with trio.open_nursery() as nursery:
            for at, address in enumerate(addresses):
                nursery.start_soon(one, at, address)
            for address in others:
                nursery.start_soon(other, address)
    if refused:
        raise refused[0]
    if len(found) < needed:
        for at, address in enumerate(addresses):
            if at not in found:
                problems.setdefault(str(address), f"no answer within {patience_s:g} s")
        raise Unreachable(problems)
    return _placed([found[at] for at in sorted(found)], beside)


async def _ask_one(
    address: Address, cluster: int, shared: secret.Secret | None, *, learns: bool = True
) -> Member:
    dialed = await dial(address, cluster, shared)
    try:
        if learns and dialed.no_log:
            raise NoAgreement(ORDERED_MCAST, dialed.no_log, f"member {dialed.node}")
        dialed.frames.post({"ask": "status", "id": 1})
        await dialed.frames.flush()
        status = (await answer_untrusted(dialed.frames, dialed.node)).head.get("status")
        if not isinstance(status, dict):
            raise BadPacket("no status")
        return _member_untrusted(dialed.node, status)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        raise Unreachable({str(address): str(error) or "the connection is lost"}) from error
    finally:
        await dialed.frames.aclose()


def _member_untrusted(name: str, status: Mapping[str, object]) -> Member:
    """What a node's status tells of its group."""
    told = status.get("group")
    if not isinstance(told, dict):
        raise BadPacket("it tells nothing of its group; upgrade the node there")
    planes, others = told.get("data_planes"), told.get("movable_to", [])
    for names in (planes, others):
        if not isinstance(names, list) or len(names) > PLANES_MAX:
            raise BadPacket("it tells no data planes, or too many")
    assert isinstance(planes, list)
    assert isinstance(others, list)
    provides: dict[str, Level] = {
        "durability": text_untrusted(told, "durability"),
        "value_bytes": integer_untrusted(told, "value_bytes"),
    }
    declined = told.get("declined", {})
    if not isinstance(declined, dict) or len(declined) > PLANES_MAX:
        raise BadPacket("what it tells of data planes that it could not have is no small map")
    return Member(
        name, tuple(map(name_untrusted, planes)), provides, tuple(map(name_untrusted, others)),
        {name_untrusted(plane): str(why)[:WORDS_MAX] for plane, why in declined.items()},
        name_untrusted(told.get("created_on", NUMPY)),
    )  # fmt: skip
