"""A client of the log for processes without a learner: one TCP connection, many requests on it.

    async with Client.connect(cluster) as client:
        instance = await client.submit(b"command", deadline=5)
        async for instance, value in client.deliver(after=instance):
            ...

Submissions go to one node, whichever answers first of those given; another is tried when connecting
again. What was in flight on a connection that is lost has an unknown outcome and is never sent
again by itself: it could then be delivered twice. A stream of deliveries has a connection of its
own and goes on at another node, since reading twice does no harm. docs/PROTOCOL.md, section 6.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import trio

from p4xos import secret
from p4xos.config import MOVABLE, Cluster, Movable
from p4xos.dialing import (
    ConnectionLost,
    Dialed,
    Unreachable,
    answer_untrusted,
    dial,
)
from p4xos.errors import BadPacket, NoQuorum, Overloaded, P4xosError, SessionLost
from p4xos.framing import BODY_BYTES_MAX, Frame, integer_untrusted
from p4xos.interface import DeliveredBatches, DeliveredValues, Recovered, read_chosen
from p4xos.local import SUBMIT_BYTES, SUBMIT_VALUES
from p4xos.packing import (
    Deliveries,
    pack_payloads,
    split_payloads,
    unpack_delivered_untrusted,
    unpack_instances_untrusted,
)
from p4xos.reconfiguring import Reconfigured, check, reconfigured_untrusted
from p4xos.remote_errors import raise_error_untrusted
from p4xos.tables import Address

OUTCOME_UNKNOWN = (NoQuorum, SessionLost, ConnectionLost)
"""Errors of a submission that may be delivered all the same."""
WINDOW_VALUES = 4096
"""Values that a client has in flight at most; further submissions wait."""
POSTED_BYTES_MAX = 4 << 20
"""Bytes that wait for the node to read them; further submissions wait."""
PATIENCE_S = 10.0
"""How long nodes are tried until `Unreachable`."""
_TRY_AGAIN_S = 0.1
_HEADROOM_BYTES = 1024  # of a frame's body, beside one command


class Client:
    """A `Log` at a node's TCP service; made by `connect`, used inside of `async with`."""

    def __init__(
        self,
        addresses: Sequence[Address],
        cluster: int,
        window: int,
        deadline_s: float,
        shared: secret.Secret | None,
    ) -> None:
        self._addresses = list(addresses)
        self._cluster = cluster
        self._secret = shared
        self._window = window
        self._deadline_s = deadline_s
        self._turn = 0  # which address is tried next
        self._link: _Link | None = None
        self._linking = trio.Lock()
        self._streams: set[_RemoteBatches] = set()
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    @classmethod
    def connect(
        cls,
        to: Cluster | Sequence[tuple[str, int]],
        *,
        cluster_id: int | None = None,
        secret_file: Path | None = None,
        window: int = WINDOW_VALUES,
    ) -> Self:
        """A client that connects when it is entered.

        Args:
          to: the cluster, or its nodes' `peer` addresses, tried in their order.
          cluster_id: with addresses, the cluster that must answer; None takes any.
          secret_file: with addresses, the secret that the cluster and its clients share; with a
            cluster it stands beside the cluster's file.
          window: values in flight at most.

        Raises:
          Unreachable: on entering, when no node serves the log.
          ValueError: no address, a window of nothing, or a secret that is none (ConfigError).
          OSError: the secret cannot be read.
        """
        if isinstance(to, Cluster):
            nodes = {learner.node for learner in to.learners}
            addresses = [node.peer for node in to.nodes if node.name in nodes]
            cluster_id, deadline_s = to.id, to.timing.deadline_s
            shared = secret.of(to)
        else:
            addresses, deadline_s = [Address(*address) for address in to], PATIENCE_S
            shared = None if secret_file is None else secret.read(secret_file)
        if not addresses:
            raise ValueError("no address is given; give the peer address of one node at least")
        if window < 1:
            raise ValueError(f"window is {window}; give at least 1")
        return cls(addresses, cluster_id or 0, window, deadline_s, shared)

    async def __aenter__(self) -> Self:
        # The nursery is entered by hand: an error of the body is then raised as it is, and not
        # inside of an exception group.
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()
        try:
            await self._connected()
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        assert self._nursery is not None
        assert self._manager is not None
        with trio.CancelScope(shield=True):  # nothing in here waits for a peer
            for stream in list(self._streams):
                await stream.aclose()
            if self._link is not None:
                await self._link.dialed.frames.aclose()
            self._nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    # Log -----------------------------------------------------------------------------------------

    async def submit(self, value: bytes, *, deadline: float | None = None) -> int:
        """As `Log.submit`."""
        return (await self.submit_many([value], deadline=deadline))[0]

    async def submit_many(
        self, values: Sequence[bytes], *, deadline: float | None = None
    ) -> list[int]:
        """As `Log.submit_many`."""
        for value in values:
            if len(value) > BODY_BYTES_MAX - _HEADROOM_BYTES:
                limit = BODY_BYTES_MAX - _HEADROOM_BYTES
                raise ValueError(f"a value has {len(value)} bytes, the limit is {limit}; split it")
        wait_s = self._deadline_s if deadline is None else deadline
        replies: list[_Reply] = []
        with trio.move_on_after(wait_s):
            link = await self._connected()
            for part in split_payloads(values, min(SUBMIT_VALUES, self._window), SUBMIT_BYTES):
                await link.wait_room(len(part), self._window)
                replies.append(link.ask({"ask": "submit"}, pack_payloads(part), values=len(part)))
            return [
                instance
                for reply in replies
                for instance in unpack_instances_untrusted((await reply.wait()).body)
            ]
        if not replies:
            in_flight = 0 if self._link is None else self._link.in_flight
            raise Overloaded(in_flight, self._window)
        raise NoQuorum(None, wait_s)

    def deliver(self, after: int = 0) -> DeliveredValues:
        """As `Log.deliver`; closed with the client, or by `aclose`."""
        return DeliveredValues(self.deliver_batches(after))

    def deliver_batches(self, after: int = 0) -> DeliveredBatches:
        """As `Log.deliver_batches`; closed with the client, or by `aclose`."""
        stream = _RemoteBatches(self._dial_any, after + 1, self._streams.discard)
        self._streams.add(stream)
        return stream

    async def recover(self, instance: int) -> Recovered:
        """As `Log.recover`."""
        return (await self.recover_many([instance]))[0]

    async def recover_many(self, instances: Sequence[int]) -> list[Recovered]:
        """As `Log.recover_many`."""
        link = await self._connected()
        replies: list[tuple[int, _Reply]] = []
        for instance in instances:
            await link.wait_room(1, self._window)
            ask = {"ask": "recover", "instance": instance}
            replies.append((instance, link.ask(ask, values=1)))
        return [read_chosen(k, (await reply.wait()).body) for k, reply in replies]

    # Operating -----------------------------------------------------------------------------------

    async def reconfigure(
        self, data_plane: str, *, roles: Sequence[Movable] = MOVABLE
    ) -> Reconfigured:
        """Moves the running group to another data plane, under load; when, and how long it took.

        The node at the other end moves one role after the other, as long as it is waited for here:
        who gives up leaves the group with some of them moved. Calling again moves the rest.

        Args:
          data_plane: its name, as "p4" or "numpy".
          roles: acceptors, coordinators, or both.

        Raises:
          Refused: not all has moved; the message says why, and what has.
          ConnectionLost: the node was lost meanwhile; call again.
          ValueError: no name of a data plane, or no role; nothing was asked.
        """
        check(data_plane, roles)
        link = await self._connected()
        ask: dict[str, object] = {"ask": "reconfigure", "data_plane": data_plane}
        reply = link.ask({**ask, "roles": list(roles)}, values=0)
        return reconfigured_untrusted((await reply.wait()).head)

    # Connections ---------------------------------------------------------------------------------

    async def _connected(self) -> _Link:
        """The connection for submissions; a new one when there is none."""
        async with self._linking:
            if self._link is None or self._link.lost is not None:
                assert self._nursery is not None, "use the client inside of `async with`"
                self._link = _Link(await self._dial_any())
                self._nursery.start_soon(self._link.run)
            return self._link

    async def _dial_any(self) -> Dialed:
        """A node that serves the log: the last one that did first, then the others."""
        until = trio.current_time() + PATIENCE_S
        while True:
            problems: dict[str, str] = {}
            hopeless = True  # every one of them has answered, and says no
            for _ in self._addresses:
                address = self._addresses[self._turn % len(self._addresses)]
                try:
                    dialed = await dial(address, self._cluster, self._secret)
                    if not dialed.no_log:
                        self._cluster = dialed.cluster  # the others must belong to it too
                        return dialed
                    await dialed.frames.aclose()
                    problems[str(address)] = dialed.no_log
                except Unreachable as error:
                    problems |= error.problems
                    hopeless = False
                except P4xosError as error:
                    problems[str(address)] = str(error)
                self._turn += 1
            if hopeless or trio.current_time() >= until:
                raise Unreachable(problems)
            await trio.sleep(_TRY_AGAIN_S)


class _Reply:
    """The answer to one request, for whoever waits for it."""

    def __init__(self) -> None:
        self._outcome: Frame | P4xosError | None = None
        self._settled = trio.Event()

    def settle(self, outcome: Frame | P4xosError) -> None:
        self._outcome = outcome
        self._settled.set()

    async def wait(self) -> Frame:
        """The answer, or the error that it is."""
        await self._settled.wait()
        assert self._outcome is not None
        if isinstance(self._outcome, P4xosError):
            raise self._outcome
        return self._outcome


class _Link:
    """One connection and what was asked on it."""

    def __init__(self, dialed: Dialed) -> None:
        self.dialed = dialed
        self.lost: ConnectionLost | None = None
        self.in_flight = 0
        self._ids = count(1)
        self._asked: dict[int, tuple[_Reply, int]] = {}
        self._answered = trio.Event()

    def ask(self, head: dict[str, object], body: bytes = b"", *, values: int) -> _Reply:
        """Posts a request, which counts as so many values in flight; nobody need wait for it."""
        reply = _Reply()
        if self.lost is not None:
            reply.settle(self.lost)
            return reply
        request = next(self._ids)
        self._asked[request] = (reply, values)
        self.in_flight += values
        self.dialed.frames.post({**head, "id": request}, body)
        return reply

    async def wait_room(self, values: int, window: int) -> None:
        """Waits until so many values more fit the window and the connection takes them."""
        await self.dialed.frames.wait_posted_below(POSTED_BYTES_MAX)
        while self.in_flight and self.in_flight + values > window and self.lost is None:
            await self._answered.wait()

    async def run(self) -> None:
        """Sends and receives until the connection ends; then all outcomes are unknown."""
        async with trio.open_nursery() as nursery:

            async def part(main: Callable[[], Awaitable[None]]) -> None:
                reason = "it was closed"
                try:
                    await main()
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    reason = str(error) or "broken"
                except P4xosError as error:
                    reason = str(error)
                self._lose(reason)
                nursery.cancel_scope.cancel()

            nursery.start_soon(part, self.dialed.frames.run_writer)
            nursery.start_soon(part, self._receive_untrusted)
        await self.dialed.frames.aclose()

    async def _receive_untrusted(self) -> None:
        while (frame := await self.dialed.frames.receive_untrusted()) is not None:
            if "id" not in frame.head:
                raise_error_untrusted(frame.head)  # the node refuses the connection
                raise BadPacket("an answer without id")
            reply, values = self._asked.pop(integer_untrusted(frame.head, "id"), (None, 0))
            self.in_flight -= values
            self._tell()
            if reply is None:
                continue
            try:
                raise_error_untrusted(frame.head)
            except P4xosError as error:
                reply.settle(error)
            else:
                reply.settle(frame)

    def _tell(self) -> None:
        """Wakes whoever waits for room; each looks again."""
        self._answered.set()
        self._answered = trio.Event()

    def _lose(self, reason: str) -> None:
        if self.lost is None:
            self.lost = ConnectionLost(self.dialed.node, reason)
            for reply, _ in self._asked.values():
                reply.settle(self.lost)
            self._asked.clear()
            self.in_flight = 0
            self._tell()


class _RemoteBatches(DeliveredBatches):
    """Deliveries over a connection of their own, taken up at another node when it is lost."""

    def __init__(
        self,
        dial_any: Callable[[], Awaitable[Dialed]],
        first: int,
        closed: Callable[[_RemoteBatches], None],
    ) -> None:
        self._dial_any = dial_any
        self._first = first
        self._on_close = closed
        self._dialed: Dialed | None = None

    async def __anext__(self) -> Deliveries:
        """The next batch; Trimmed, or Unreachable when no node can go on."""
        while True:
            if self._dialed is None:
                dialed = await self._dial_any()
                self._dialed = dialed
                dialed.frames.post({"ask": "deliver", "first": self._first})
            try:
                await self._dialed.frames.flush()
                frame = await answer_untrusted(self._dialed.frames, self._dialed.node)
                delivered = unpack_delivered_untrusted(frame.body)
                self._first = integer_untrusted(frame.head, "next", self._first)
            except (trio.BrokenResourceError, ConnectionLost):
                await self._hang_up()
                await trio.sleep(_TRY_AGAIN_S)
                continue
            except P4xosError:
                await self.aclose()
                raise
            if delivered:
                return delivered

    async def _hang_up(self) -> None:
        if self._dialed is not None:
            await self._dialed.frames.aclose()
            self._dialed = None

    async def aclose(self) -> None:
        """Ends the connection."""
        self._on_close(self)
        await self._hang_up()
