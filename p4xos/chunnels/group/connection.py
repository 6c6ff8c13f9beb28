"""Connections to a group: submit, deliver, recover, with messages of the application's type."""

from __future__ import annotations

import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Generic, Literal, NamedTuple, Self, TypeVar

from p4xos import planes
from p4xos.chunnels.choosing import Choice, choose
from p4xos.chunnels.errors import BadMessage, NoAgreement
from p4xos.chunnels.explanation import Explanation, LayerChoice
from p4xos.chunnels.group import members
from p4xos.chunnels.group.layer import ORDERED_MCAST
from p4xos.chunnels.metering import Kind, LayerMetrics, Meters, bytes_of
from p4xos.chunnels.runtime import Runtime, current_runtime
from p4xos.chunnels.stack import Chunnel, Layer
from p4xos.client import Client
from p4xos.config import MOVABLE, Cluster, Movable
from p4xos.interface import Log
from p4xos.local import LocalClient
from p4xos.log import ReplicatedLog
from p4xos.node import Node
from p4xos.packing import Deliveries
from p4xos.planes import Prefer
from p4xos.reconfiguring import Reconfigured

T = TypeVar("T")
Address = tuple[str, int]

_TAG_BYTES = 4
CLIENT, MEMBER = "client", "member"
"""Sides of a group, where its connections are counted."""


class Delivered(NamedTuple, Generic[T]):
    """A message, at its place in the order."""

    instance: int
    value: T


class Recovered(NamedTuple, Generic[T]):
    """What was chosen in an instance."""

    instance: int
    kind: Literal["value", "fragment", "open", "no-op", "malformed"]
    """A message whole or in part, a session's beginning, nothing; or nothing that p4xos makes."""
    value: T | None
    """Of a whole message."""


class _Above(NamedTuple):
    """A layer above the group: two functions, and what it has carried."""

    metrics: LayerMetrics
    outgoing: Callable[[Sequence[Any]], Sequence[Any]]
    incoming: Callable[[Sequence[Any]], Sequence[Any]]


class _Layers(NamedTuple):
    """What the layers above the group make of messages."""

    tag: bytes
    """Before each of them: which layers they were; none: nothing is made of them."""
    described: str
    above: tuple[_Above, ...] = ()
    """The uppermost first."""

    def write(self, values: Sequence[Any]) -> Sequence[bytes]:
        for metrics, make, _ in self.above:
            metrics.sent += len(values)
            metrics.sent_bytes += bytes_of(values)
            values = make(values)
        return [self.tag + value for value in values] if self.tag else values

    def read_untrusted(self, instances: Sequence[int], values: Sequence[bytes]) -> Sequence[Any]:
        """What others wrote; BadMessage where that is not of these layers."""
        if not self.tag:
            return values
        try:
            for instance, value in zip(instances, values, strict=True):
                if value[:_TAG_BYTES] != self.tag:
                    raise BadMessage(
                        f"message of {self.described}",
                        f"instance {instance} was written with other layers, or none",
                    )
            found: Sequence[Any] = [value[_TAG_BYTES:] for value in values]
            for metrics, _, make in reversed(self.above):
                found = make(found)
                metrics.received += len(found)
                metrics.received_bytes += bytes_of(found)
        except BadMessage as error:
            self.above[0].metrics.fail(error)  # no layer passes on what none of them can read
            raise
        return found


class DeliveredBatches(Generic[T]):
    """What is delivered, in lists; ends only by an error."""

    def __init__(
        self, batches: AsyncIterator[Deliveries], layers: _Layers, metrics: LayerMetrics
    ) -> None:
        """Made by `GroupConnection.deliver_batches`."""
        self._batches = batches
        self._layers = layers
        self._metrics = metrics

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> list[Delivered[T]]:
        """The next messages in order, one at least; waits for them."""
        batch = await anext(self._batches)
        instances = [instance for instance, _ in batch]
        payloads = [payload for _, payload in batch]
        self._metrics.received += len(payloads)
        self._metrics.received_bytes += sum(map(len, payloads))
        values = self._layers.read_untrusted(instances, payloads)
        return list(map(Delivered, instances, values))


class DeliveredMessages(Generic[T]):
    """What is delivered, one by one; ends only by an error."""

    def __init__(self, batches: DeliveredBatches[T]) -> None:
        """Made by `GroupConnection.deliver`."""
        self._batches = batches
        self._left: Iterator[Delivered[T]] = iter(())

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Delivered[T]:
        """The next message; waits for it."""
        while True:
            for delivered in self._left:
                return delivered
            self._left = iter(await anext(self._batches))


class GroupConnection(Generic[T]):
    """A member's, or a client's, way into the order."""

    def __init__(
        self,
        log: Log,
        layers: _Layers,
        explanation: Explanation,
        metrics: Mapping[str, LayerMetrics],
        mover: Client | Node,
    ) -> None:
        """Made by `GroupEndpoint.connect`."""
        self.metrics = metrics
        """What each layer has carried, by its type; from application to wire.

        Sent: submitted; received: delivered by `deliver`.
        """
        self._group = metrics[ORDERED_MCAST]
        self._log = log
        self._layers = layers
        self._explanation = explanation
        self._mover = mover

    def explain(self) -> Explanation:
        """Every layer: the implementation that was chosen, and why."""
        return self._explanation

    async def submit(self, value: T, *, deadline: float | None = None) -> Delivered[T]:
        """Has a message ordered; returns its place once it is delivered. Errors: `Log.submit`."""
        (instance,) = await self.submit_many((value,), deadline=deadline)
        return Delivered(instance, value)

    async def submit_many(
        self, values: Sequence[T], *, deadline: float | None = None
    ) -> list[int]:
        """As `submit` for each, far faster; the instances in the order of the messages.

        The messages need not be ordered as they were given.
        """
        written = self._layers.write(values)
        metrics = self._group
        metrics.sent += len(written)
        metrics.sent_bytes += sum(map(len, written))
        began = time.perf_counter()
        try:
            instances = await self._log.submit_many(written, deadline=deadline)
        except BaseException as error:
            metrics.fail(error)
            raise
        metrics.seconds.observe(time.perf_counter() - began)
        return instances

    def deliver(self, after: int = 0) -> DeliveredMessages[T]:
        """Iterates over messages behind an instance, then over what follows, for ever.

        The iterator raises Trimmed when what is next is no longer kept.
        """
        return DeliveredMessages(self.deliver_batches(after))

    def deliver_batches(self, after: int = 0) -> DeliveredBatches[T]:
        """As `deliver`, in lists."""
        return DeliveredBatches(self._log.deliver_batches(after), self._layers, self._group)

    async def recover(self, instance: int) -> Recovered[T]:
        """What was chosen in an instance; raises as `Log.recover`."""
        found = await self._log.recover(instance)
        if found.kind != "value":
            return Recovered(instance, found.kind, None)
        (value,) = self._layers.read_untrusted([instance], [found.payload])
        return Recovered(instance, "value", value)

    async def reconfigure(
        self, data_plane: str, *, roles: Sequence[Movable] = MOVABLE
    ) -> Reconfigured:
        """Moves the running group to another data plane, under load; when, and how long it took.

        It moves where the registers are, for everybody who uses the group; never its members. Who
        gives up meanwhile leaves some roles moved; the same call goes on from there.

        Raises:
          Refused: not all has moved; the message says why, and what has.
          ConnectionLost: the node that moves was lost; call again.
          ValueError: no name of a data plane, or no role.
        """
        done = await self._mover.reconfigure(data_plane, roles=roles)
        rows = [
            row._replace(implementation=data_plane, reason=f"moved there in {done.pause_s:.3g} s")
            if row.type == ORDERED_MCAST and set(roles) == set(MOVABLE) else row
            for row in self._explanation.layers
        ]  # fmt: skip
        self._explanation = self._explanation._replace(layers=tuple(rows))
        return done


class AttachedGroup(NamedTuple):
    """A group's log for an application that is itself a member's state machine."""

    log: ReplicatedLog
    """The node's own: after the negotiation nothing stands between."""
    explain: Callable[[], Explanation]
    """Every layer: the implementation that runs it now, and why it was chosen."""


class GroupEndpoint(Generic[T]):
    """Makes connections to groups; see `endpoint`."""

    def __init__(
        self, name: str, stack: Chunnel[T, Any], runtime: Runtime | None = None
    ) -> None:
        """Does nothing yet.

        Raises:
          ValueError: a layer above the group cannot work there.
        """
        self.name = name
        self._stack = stack
        self._runtime = runtime
        self._reasons: dict[str, str] = {}  # of data planes that `prefer` has put in order

    @property
    def runtime(self) -> Runtime:
        """What its connections use."""
        return self._runtime or current_runtime()

    @asynccontextmanager
    async def connect(
        self,
        to: Cluster | Sequence[Address] | Node,
        *,
        secret_file: Path | None = None,
        timeout: float = members.PATIENCE_S,
        move: bool = False,
    ) -> AsyncIterator[GroupConnection[T]]:
        """A connection, while the `async with` lasts.

        Args:
          to: the group: its cluster file, the `peer` addresses of its nodes, or the node that runs
            in this process.
          secret_file: with addresses, the secret that the cluster and its clients share.
          timeout: seconds until members that do not answer are done without; a majority must.
          move: whether the group may be moved to another data plane that all members have, should
            what it runs on not be what is required, or what the policy prefers.

        Raises:
          NoAgreement: a member cannot do what is asked; the message names it, and the layer.
          Unreachable: no majority of the members answers.
          Refused: it was to be moved, and cannot be.
        """
        if isinstance(to, Node):
            if move:
                raise ValueError("move=True is for the whole group; give its cluster file")
            choice, _ = self._agree([members.described(to)])
            assert to.application is not None, "a member has a learner"
            peer = f"node {to.name}"
            with self.runtime.tally.connection(self.name, MEMBER) as meters:
                yield self._connection(LocalClient(to.application), choice, peer, to, meters)
            return
        found = await members.ask(to, secret_file, timeout)
        choice, move_to = self._agree(found, move=move)
        client = Client.connect(to, secret_file=secret_file)
        with self.runtime.tally.connection(self.name, CLIENT) as meters:
            async with client:
                peer = ", ".join(each.name for each in found)
                connection = self._connection(client, choice, peer, client, meters)
                if move_to is not None:
                    await connection.reconfigure(move_to)
                yield connection

    def prefer(self, cluster: Cluster) -> Prefer:
        """For a node that has yet to start: which data plane it tries first, where that is open.

        By what this endpoint asks for, and by the operator's policy, as when it connects. The
        function raises NoAgreement where none of those that are left open will do.
        """

        def ordered(names: Sequence[str]) -> list[str]:
            found: list[str] = []
            offer = members.client_offer(self.runtime, self._stack)
            while left := [name for name in names if name not in found]:
                theirs = members.planned(cluster, left)
                try:
                    choice = choose(offer, theirs, policy=self.runtime.policy)
                except NoAgreement:
                    if not found:
                        raise
                    break  # the policy forbids the others
                (chosen,) = [each for each in choice.layers if each.type == ORDERED_MCAST]
                assert chosen.server is not None, "members alone run it"
                found.append(chosen.server)
                self._reasons[chosen.server] = chosen.reason
            return found

        return ordered

    def attach(self, node: Node) -> AttachedGroup:
        """The log of a node in this process, for the state machine that it runs.

        Raises:
          NoAgreement: the node cannot do what is asked.
        """
        assert node.application is not None, "a member has a learner"
        replica = node.application.replica
        explain = self.explaining(node)

        def carried() -> tuple[Kind, LayerMetrics]:
            """As the node counts it anyway: nothing stands between that could."""
            running = members.described(node).running
            found = LayerMetrics()
            found.sent = replica.proposer.counters["submitted"]
            found.errors = replica.proposer.counters["gave_up"]
            found.received = replica.learner.counters["delivered"]
            return Kind(self.name, MEMBER, ORDERED_MCAST, running), found

        self.runtime.tally.attach(carried)
        return AttachedGroup(node.application, explain)

    def explaining(self, node: Node) -> Callable[[], Explanation]:
        """What runs the group now, and why, as a node of this process has it that is open.

        Raises:
          NoAgreement: the node cannot do what is asked.
        """

        def explain() -> Explanation:
            choice, _ = self._agree([members.described(node)])
            return self._explained(choice, f"node {node.name}", node.moves.declined)

        name = node.cluster.data_plane
        left_open = () if node.moves.planes else planes.among(name)
        if left_open:  # the roles are in other processes, and each chooses for itself
            first = f"the first of {', '.join(left_open)} that it can have"
            self._reasons[name] = f"it leaves open what runs it: each role takes {first}"
        explain()  # which raises where it will not do
        return explain

    # Negotiation ---------------------------------------------------------------------------------

    def _agree(
        self, found: Sequence[members.Member], *, move: bool = False
    ) -> tuple[Choice, str | None]:
        """What all members can do, and where they must move for it.

        Raises:
          NoAgreement: it names the first that cannot.
        """
        runtime = self.runtime
        offer = members.client_offer(runtime, self._stack)
        for member in found:
            try:
                choose(offer, member.offer(move=move), policy=runtime.policy)
            except NoAgreement as error:
                told = str(error).removeprefix(f"layer {error.layer}: ")
                raise NoAgreement(error.layer, told, f"member {member.name}") from None
        common = members.common(found)
        choice = choose(offer, common.offer(move=move), policy=runtime.policy)
        chosen = next(each.server for each in choice.layers if each.type == ORDERED_MCAST)
        return choice, None if chosen == common.running else chosen

    def _asked(self, choice: Choice) -> tuple[Layer, ...]:
        return self._stack.alternatives()[choice.client_alternative]

    def _connection(
        self, log: Log, choice: Choice, peer: str, mover: Client | Node, meters: Meters
    ) -> GroupConnection[T]:
        explanation = self._explained(choice, peer)
        layers = self._layers(choice, meters)
        meters.layer(ORDERED_MCAST, explanation.implementation(ORDERED_MCAST))
        metrics = {kind.layer: counted for kind, counted in meters.layers}
        return GroupConnection(log, layers, explanation, metrics, mover)

    def _layers(self, choice: Choice, meters: Meters) -> _Layers:
        runtime = self.runtime
        above: list[_Above] = []
        names: list[str] = []
        asked = {each.type: each for each in self._asked(choice)}
        for chosen in choice.layers:
            if chosen.type == ORDERED_MCAST or chosen.client is None:
                continue
            own = runtime.known[chosen.type, chosen.client]
            if own.functions is None:
                assert own.removable, "nothing else is offered above a group"
                continue
            metrics = meters.layer(chosen.type, chosen.client)
            above.append(_Above(metrics, *own.functions(asked[chosen.type])))
            facts = ",".join(f"{k}={v}" for k, v in sorted(asked[chosen.type].facts.items()))
            names.append(f"{chosen.type}/{chosen.client}({facts})")
        described = " | ".join(names)
        tag = zlib.crc32(described.encode()).to_bytes(_TAG_BYTES, "big") if names else b""
        return _Layers(tag, described, tuple(above))

    def _explained(
        self, choice: Choice, peer: str, declined: Mapping[str, str] | None = None
    ) -> Explanation:
        rows: list[LayerChoice] = []
        notes: list[str] = []
        for chosen in choice.layers:
            own = self.runtime.known.get((chosen.type, chosen.client or ""))
            if own is not None and own.removable:
                notes.append(f"{chosen.type} is left out: {ORDERED_MCAST} provides as much")
                continue
            name, ends, reason = chosen.client or chosen.server or "", "this end", chosen.reason
            if chosen.type == ORDERED_MCAST:
                ends = "all members"
                told = [f"not {plane}: {why}" for plane, why in (declined or {}).items()]
                reason = "; ".join([self._reasons.get(name, reason), *told])
            rows.append(LayerChoice(chosen.type, name, ends, reason))
        return Explanation(f"{self.name} to the group of {peer}", tuple(rows), tuple(notes))
