"""A server's connections: answers offers, admits tickets, opens layers, runs the handler."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from typing import Any

import trio

from p4xos.chunnels import messages
from p4xos.chunnels.arrivals import Arrival
from p4xos.chunnels.choosing import Chosen, choose
from p4xos.chunnels.connection import Connection, Messages
from p4xos.chunnels.errors import BadMessage, Busy, NoAgreement, Unable
from p4xos.chunnels.implementations import Begin, Side
from p4xos.chunnels.introductions import Introduced, key_of, take_introduction_untrusted
from p4xos.chunnels.messages import Accept, Asked
from p4xos.chunnels.negotiation import (
    CONNECTIONS_MAX,
    PREPARED_S,
    Address,
    Admitted,
    Answer,
    ServerNegotiation,
    Vouched,
)
from p4xos.chunnels.offers import Offer
from p4xos.chunnels.opening import Agreed, opened, owners, resources_of
from p4xos.chunnels.optimizing import optimize
from p4xos.chunnels.passes import Guard
from p4xos.chunnels.runtime import Forbidden, Runtime
from p4xos.chunnels.stack import Chunnel, Node
from p4xos.chunnels.udp import ServerSocket, open_socket
from p4xos.chunnels.unwrapping import open_plain_nursery
from p4xos.chunnels.view import View

log = logging.getLogger(__name__)

LOOK_S = 0.5
"""How often a server looks whether the discovery service has changed."""

Handler = Callable[[Connection[Any]], Awaitable[object]]
PEER_IS_LOST = (trio.BrokenResourceError, trio.EndOfChannel)
PEER_IS_WRONG = BadMessage
"""What ends a connection, and nothing else, when its handler raises it; a peer that sends what it
did not agree to must not end the others'."""


async def until_closed(connection: Connection[Any]) -> None:
    """The handler of a server whose layers do all."""
    async for _ in connection:
        pass


class Server:
    """One `serve`; see `Endpoint.serve`."""

    def __init__(
        self, endpoint: str, nodes: tuple[Node, ...], runtime: Runtime, handler: Handler
    ) -> None:
        """Nothing is open yet."""
        self.runtime = runtime
        self.name = secrets.token_hex(8)
        self._endpoint = endpoint
        self._nodes = nodes
        self._ways = Chunnel[Any, Any](*nodes).alternatives()
        self._handler = handler
        self._view = View()
        self._opened: dict[tuple[str, str], Mapping[str, object]] = {}
        self._unable: dict[tuple[str, str], str] = {}
        self._guard = Guard()
        self._arriving: dict[bytes, Arrival] = {}
        self.negotiation = ServerNegotiation(
            secrets.token_bytes(32), self._choose, self._vouch, self._prepare
        )
        self.live = 0
        """Connections that have not ended."""

    @property
    def nursery(self) -> trio.Nursery:
        """For tasks that live as long as the server."""
        return self._nursery

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._socket.address

    async def run(
        self, address: Address, announce: str | None, task_status: trio.TaskStatus[Address]
    ) -> None:
        """Until cancelled, or a handler's error."""
        runtime = self.runtime
        async with AsyncExitStack() as stack:
            self._socket = ServerSocket(open_socket(address))
            stack.callback(self._socket.close)
            self._socket.on_offer = self._offer_untrusted
            self._socket.on_confirm = self._confirm_untrusted
            self._socket.on_introduce = self._introduce_untrusted
            self._socket.was_closed = self.negotiation.was_closed
            counters = self.negotiation.counters, self._guard.counters, self._socket.counters
            stack.enter_context(runtime.tally.telling(self._endpoint, *counters))
            if runtime.discovery is not None:
                await stack.enter_async_context(runtime.discovery.watched())
            self._view = await runtime.look()
            # What listens is closed first, and the tasks of its connections end after it.
            async with open_plain_nursery() as self._nursery, AsyncExitStack() as listening:
                await self._listen(listening)
                if announce is not None:
                    announced = runtime.announced(announce, self.address)
                    await listening.enter_async_context(announced)
                self._nursery.start_soon(self._socket.run)
                self._nursery.start_soon(self._look)
                log.info("endpoint %s serves at %s:%d", self._endpoint, *self.address)
                task_status.started(self.address)
                await trio.sleep_forever()

    async def _listen(self, stack: AsyncExitStack) -> None:
        """What implementations need before the first connection."""
        done: set[tuple[str, str]] = set()
        for way in self._ways:
            for layer in way:
                for own in self.runtime.able(layer.type, self._view):
                    key = own.type, own.name
                    if own.listen is not None and key not in done:
                        done.add(key)
                        try:
                            self._opened[key] = await stack.enter_async_context(
                                own.listen(self, layer)
                            )
                        except Unable as error:
                            self._unable[key] = error.why
                            log.info("%s/%s is not offered: %s", *key, error.why)

    async def _look(self) -> None:
        """Keeps the picture of the world that offers are answered from."""
        if self.runtime.discovery is None:
            return
        while True:
            await trio.sleep(LOOK_S)
            await self._refresh()

    async def _refresh(self) -> None:
        self._see(await self.runtime.look())

    def _see(self, view: View) -> None:
        if view != self._view:
            self._view = view
            self.negotiation.choose_anew()

    # Offers --------------------------------------------------------------------------------------

    def _offer_untrusted(self, data: bytes, address: Address) -> bytes | None:
        if self.runtime.discovery is not None and self.runtime.discovery.newest is not None:
            self._see(self.runtime.discovery.newest)
        return self.negotiation.offer_untrusted(data, address, trio.current_time())

    def _choose(self, offer: Offer, forbidden: Forbidden = frozenset()) -> Answer:
        """As `negotiation.Chooser`."""
        runtime = self.runtime
        ours = runtime.offer(self._nodes, self._view)  # all of it: what is forbidden is told
        choice = choose(
            offer, ours, policy=runtime.policy, free=self._view.free, forbidden=forbidden,
            unable=self._unable,
        )  # fmt: skip
        notes: tuple[str, ...] = ()
        if runtime.optimize:
            choice, notes = optimize(choice, runtime.known, offer.merging)
        layers = tuple(
            replace_parameters(each, self._parameters(each)) for each in choice.layers
        )
        servers = [runtime.known[each.type, each.server] for each in layers if each.server]
        wait = any(own.resources or own.admit is not None for own in servers)
        return Answer(choice._replace(layers=layers), notes, wait)

    def _parameters(self, chosen: Chosen) -> dict[str, object]:
        """What a client is told: of the one that was chosen here, or of all for the layer."""
        found: dict[str, object] = {}
        for (type, name), yielded in self._opened.items():
            if type == chosen.type and chosen.server in (name, None):
                found |= {key: value for key, value in yielded.items() if key[:1] != "_"}
        return found

    # Offers with a pass --------------------------------------------------------------------------

    def _vouch(self, asked: Asked) -> bool:
        """As `negotiation.Vouch`."""
        return self._guard.take_untrusted(
            asked.made, self._view.key, asked.nonce, asked.offer, time.time()
        )

    def _prepare(self, vouched: Vouched) -> None:
        """As `negotiation.Prepare`."""
        self._nursery.start_soon(self._run_vouched, vouched)

    async def _run_vouched(self, vouched: Vouched) -> None:
        """Makes ready for a connection, then answers; chooses again where others were faster."""
        negotiation = self.negotiation
        forbidden: Forbidden = frozenset()
        try:
            while True:
                accept = negotiation.ticket_for(vouched, trio.current_time())
                choice, address = accept.choice, vouched.address

                def answer(wait: bool, vouched: Vouched = vouched, accept: Accept = accept) -> None:
                    told = negotiation.grant(vouched, accept, wait=wait)
                    self.send(told, vouched.address)

                by_udp = choice.layers[-1].levels.get("carrier") == "udp"
                carried = self._socket.open(accept.id, address) if by_udp else None
                arrival = self._arriving[accept.id] = Arrival(answer, carried)
                self._nursery.start_soon(arrival.answer_if_long)
                admitted = Admitted(accept.id, vouched.client, address, choice, accept.notes)
                busy = await self._run(admitted, arrival)
                if busy is None:
                    return
                own = owners(self.runtime, choice, Side.SERVER)
                forbidden |= {(e.type, e.name) for e in own if busy.resource in e.resources}
                vouched = vouched._replace(answer=self._choose(vouched.offer, forbidden))
        except NoAgreement as error:
            self.send(negotiation.refuse(vouched, error), vouched.address)
        finally:
            negotiation.forget(vouched)

    # Connections ---------------------------------------------------------------------------------

    def _confirm_untrusted(self, ticket: bytes, address: Address) -> bytes | None:
        """The ticket of a connection whose messages are the datagrams of this socket."""
        admitted = self.negotiation.admit_untrusted(ticket, address, trio.current_time())
        if isinstance(admitted, str):
            id = self.negotiation.id_of(ticket)
            return messages.DENIED + id + admitted.encode()
        if isinstance(admitted, bytes):
            connection = self._socket.connections.get(admitted)
            begun = connection is not None and connection.begun
            return messages.CONFIRMED + admitted if begun else None
        carried = self._socket.connections.get(admitted.id)  # made ready, where it had a pass
        if carried is None:
            carried = self._socket.open(admitted.id, address)

        def begin(why: str) -> None:
            carried.begun = not why
            carried.say(messages.DENIED if why else messages.CONFIRMED, why.encode())

        self._start(admitted, carried, begin)
        return None

    def admit_untrusted(self, ticket: bytes, carried: Messages[bytes], begin: Begin) -> None:
        """As Serving."""
        admitted = self.negotiation.admit_untrusted(ticket, None, trio.current_time())
        if isinstance(admitted, bytes):
            admitted = "the ticket is in use; connect again"
        if isinstance(admitted, str):
            begin(admitted)
        else:
            self._start(admitted, carried, begin)

    def _introduce_untrusted(self, data: bytes, address: Address) -> bytes | None:
        """A client that its server wants to send to this one as to a shard of it."""
        try:
            key = key_of(self.runtime.sockets)
        except OSError as error:
            log.debug("an introduction was dropped: %s", error)
            return None
        found = take_introduction_untrusted(data, address, key, self._socket)
        if not isinstance(found, Introduced):
            return found
        admitted, carried = found
        types = [each.type for each in admitted.choice.layers]
        ways = [[layer.type for layer in way] for way in self._ways]
        able = all((each.type, each.server) in self.runtime.known
                   for each in admitted.choice.layers)  # fmt: skip
        if types not in ways or not able or self.live >= CONNECTIONS_MAX:
            self._socket.forget(admitted.id)
            why = f"it does not run {' | '.join(types)}, or has too many connections"
            return messages.DENIED + admitted.id + why.encode()
        choice = admitted.choice._replace(server_alternative=ways.index(types))

        def begin(why: str) -> None:
            carried.begun = not why
            carried.say(messages.DENIED if why else messages.CONFIRMED, why.encode())

        self._start(admitted._replace(choice=choice), carried, begin)
        return None

    def send(self, data: bytes, address: Address) -> None:
        """As Serving."""
        self._socket.send(data, address)

    def _start(self, admitted: Admitted, carried: Messages[bytes], begin: Begin) -> None:
        arrival = self._arriving.get(admitted.id)
        if arrival is not None:
            arrival.come(carried, begin)
            return
        arrival = Arrival(lambda wait: None)
        arrival.come(carried, begin)
        self._nursery.start_soon(self._run, admitted, arrival)

    async def _run(self, admitted: Admitted, arrival: Arrival) -> Busy | None:
        """One connection, until its handler returns or its peer is lost.

        Returns:
          What is not free, where the offer was not answered yet; else None.
        """
        runtime = self.runtime
        choice = admitted.choice
        host, port = admitted.address
        claims = runtime.claims()
        carrier = ServerCarrier(arrival, admitted.origin)
        self.live += 1
        agreed = Agreed(
            Side.SERVER, self._endpoint, f"{admitted.client} at {host}:{port}", choice,
            admitted.notes, self._ways[choice.server_alternative], carrier,
            self._view.registered, self._opened,
        )  # fmt: skip
        try:
            try:
                await claims.take(resources_of(owners(runtime, choice, Side.SERVER)))
            except Busy as busy:
                await self._refresh()
                if not arrival.answered:
                    return busy
                arrival.begin(str(busy))
                return None
            async with AsyncExitStack() as prepared:
                for chosen in choice.layers:
                    key = chosen.type, chosen.server or ""
                    own = runtime.known.get(key)
                    if own is not None and own.admit is not None:
                        admit = own.admit(carrier, admitted, self._opened[key])
                        await prepared.enter_async_context(admit)
                arrival.answer(wait=False)
                if not await arrival.wait(PREPARED_S):
                    self.negotiation.counters["unused"] += 1
                    return None
                arrival.begin("")
                async with (
                    open_plain_nursery() as nursery,
                    opened(agreed, runtime, nursery) as connection,
                ):
                    await self._handle(connection)
                    nursery.cancel_scope.cancel()
            return None
        finally:
            self.live -= 1
            self._arriving.pop(admitted.id, None)
            self.negotiation.close(admitted.id, trio.current_time())
            if arrival.carried is not None:
                with trio.CancelScope(shield=True):
                    await arrival.carried.aclose()
            self._socket.forget(admitted.id)
            await claims.give_back()

    async def _handle(self, connection: Connection[Any]) -> None:
        try:
            await self._handler(connection)
        except PEER_IS_LOST as error:
            log.info("%s: the connection of %s ended: %s", self._endpoint, connection.peer, error)
        except PEER_IS_WRONG as error:
            self._note_wrong(connection, error)
        except BaseExceptionGroup as group:
            # Of a handler's own nursery; the same, if that is all.
            wrong, rest = group.split((*PEER_IS_LOST, PEER_IS_WRONG))
            if rest is not None:
                raise
            if wrong is not None and wrong.subgroup(PEER_IS_WRONG) is not None:
                self._note_wrong(connection, wrong)

    def _note_wrong(self, connection: Connection[Any], error: BaseException) -> None:
        self.runtime.counters["bad_messages"] += 1
        log.warning("%s: the connection of %s ends: %s", self._endpoint, connection.peer, error)


class ServerCarrier:
    """The `Carrier` of a server."""

    ticket = b""
    wait = False

    def __init__(self, arrival: Arrival, origin: int = 0) -> None:
        """Those by which the client comes; see Carrier."""
        self.origin = origin
        self._arrival = arrival

    async def messages(self) -> Messages[bytes]:
        """As Carrier."""
        return await self._arrival.messages()


def replace_parameters(chosen: Chosen, parameters: Mapping[str, object]) -> Chosen:
    """The same layer with what its client is told."""
    return chosen._replace(parameters={**chosen.parameters, **parameters})
