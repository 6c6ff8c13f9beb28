"""A client's way to a connection: find, offer, agree, claim, open."""

from __future__ import annotations

import re
import secrets
import socket
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from typing import Any, NamedTuple

import trio

from p4xos.chunnels import passes
from p4xos.chunnels.connection import Connection, Messages
from p4xos.chunnels.discovery.client import Claims
from p4xos.chunnels.errors import Busy, Denied, NoAgreement, NoAnswer, UnknownName
from p4xos.chunnels.implementations import Ends, Side
from p4xos.chunnels.messages import DATAGRAM_BYTES_MAX, NONCE_BYTES, Accept
from p4xos.chunnels.negotiation import Address, ClientNegotiation
from p4xos.chunnels.offers import Offer
from p4xos.chunnels.opening import Agreed, opened, owners, resources_of
from p4xos.chunnels.runtime import Forbidden, Runtime
from p4xos.chunnels.stack import Layer, Node, Select
from p4xos.chunnels.udp import SOCKET_BYTES, ClientDatagrams
from p4xos.chunnels.unwrapping import open_plain_nursery
from p4xos.chunnels.view import View

TIMEOUT_S = 5.0
"""Of `connect`, unless the caller says otherwise."""
TRY_AGAIN_S = 0.02
"""After a resource that was offered turned out to be taken; it doubles."""
ONE_OF_SEVERAL_S = 0.5
"""How long one of several addresses is tried before the next."""
RESERVED_S = 0.25
"""How long resources are reserved that a server's answer may need: others may want them."""
_ADDRESS = re.compile(r"([\w.-]+):(\d{1,5})", re.ASCII)


class Wanted(NamedTuple):
    """A connection that is to be made."""

    name: str
    nodes: tuple[Node, ...] | None
    runtime: Runtime
    to: str | Address | Sequence[Address]
    timeout: float


@asynccontextmanager
async def connected(
    name: str,
    nodes: tuple[Node, ...] | None,
    runtime: Runtime,
    to: str | Address | Sequence[Address],
    timeout: float,
) -> AsyncIterator[Connection[Any]]:
    """See `Endpoint.connect`."""
    _check(to)
    wanted = Wanted(name, nodes, runtime, to, timeout)
    until = trio.current_time() + timeout
    pause = TRY_AGAIN_S
    forbidden: Forbidden = frozenset()
    round_trips = 0
    async with AsyncExitStack() as stack:
        while True:
            try:
                attempt = _attempt(wanted, until, forbidden, round_trips)
                connection = await stack.enter_async_context(attempt)
                break
            except _Taken as taken:
                # Somebody was faster. At this end the next offer is without it; what is free at
                # the server is the server's to know, and it looks again.
                forbidden |= taken.forbidden
                round_trips = taken.round_trips
                runtime.counters["retries"] += 1
                if trio.current_time() + pause >= until:
                    raise taken.error from None
                await trio.sleep(pause)
                pause *= 2
        yield connection


class _Taken(Exception):
    """What was agreed on could not begin; another attempt may do."""

    def __init__(self, error: Busy | Denied, forbidden: Forbidden, round_trips: int) -> None:
        super().__init__(str(error))
        self.round_trips = round_trips
        self.error = error
        self.forbidden = forbidden


@asynccontextmanager
async def _attempt(
    wanted: Wanted, until: float, forbidden: Forbidden, round_trips: int
) -> AsyncIterator[Connection[Any]]:
    runtime = wanted.runtime
    types = _types(wanted)
    claims = runtime.claims()
    with _sockets() as sockets:
        async with open_plain_nursery() as nursery:
            try:
                if _asks(wanted, types):
                    view = await claims.look(runtime.wanted(types, forbidden))
                else:
                    view = runtime.at_hand()
                addresses = await _addresses(wanted, view)
                offer = runtime.offer(wanted.nodes, view, forbidden)
                async with _not_for_long(claims):
                    accept, peer = await _agree(
                        wanted, offer, view.key, addresses, until, sockets
                    )
                carrier = ClientCarrier(sockets[-1], accept, nursery, until)
                owning = owners(runtime, accept.choice, Side.CLIENT)
                round_trips += 1 + accept.wait
                try:
                    await claims.take(resources_of(owning))
                except Busy as busy:
                    without = frozenset(
                        (own.type, own.name) for own in owning if busy.resource in own.resources
                    )
                    raise _Taken(busy, without, round_trips + claims.waited) from None
                agreed = Agreed(
                    Side.CLIENT, wanted.name, peer, accept.choice, accept.notes,
                    _asked(wanted.nodes, accept), carrier, view.registered, {},
                    round_trips + claims.waited,
                )  # fmt: skip
                async with AsyncExitStack() as stack:
                    try:
                        connection = await stack.enter_async_context(
                            opened(agreed, runtime, nursery)
                        )
                    except Denied as denied:
                        raise _Taken(denied, frozenset(), agreed.round_trips) from None
                    yield connection
                nursery.cancel_scope.cancel()
            finally:
                await claims.give_back()


@asynccontextmanager
async def _not_for_long(claims: Claims) -> AsyncIterator[None]:
    """Ends a reservation that is not settled soon."""
    async with open_plain_nursery() as nursery:

        async def end() -> None:
            await trio.sleep(RESERVED_S)
            await claims.give_back()

        if claims.reserved:
            nursery.start_soon(end)
        yield
        nursery.cancel_scope.cancel()


@contextmanager
def _sockets() -> Iterator[list[socket.socket]]:
    """A list of sockets that are closed at the end."""
    held: list[socket.socket] = []
    try:
        yield held
    finally:
        for each in held:
            each.close()


class ClientCarrier:
    """The `Carrier` of a client."""

    origin = 0

    def __init__(
        self, sock: socket.socket, accept: Accept, nursery: trio.Nursery, until: float
    ) -> None:
        """Leaves the socket to whoever made it."""
        self.ticket = accept.ticket
        self.wait = accept.wait
        self._id = accept.id
        self._socket = sock
        self._nursery = nursery
        self._until = until

    async def messages(self) -> Messages[bytes]:
        """As Carrier."""
        taken = ClientDatagrams(self._id, self._socket, self.ticket)
        taken.confirm()
        self._nursery.start_soon(taken.run)
        if self.wait:
            with trio.move_on_at(self._until):
                await taken.wait_confirmed()
                return taken
            raise Denied("it has not confirmed it in time")
        return taken


def _types(wanted: Wanted) -> frozenset[str] | None:
    """Of the layers that this connection may have; None: any."""
    if wanted.nodes is None:
        return None
    return frozenset(each.type for each in _all_layers(wanted.nodes))


def _asks(wanted: Wanted, types: frozenset[str] | None) -> bool:
    """Whether the discovery service knows anything that this connection depends on."""
    if isinstance(wanted.to, str) and _ADDRESS.fullmatch(wanted.to) is None:
        return True
    return any(
        own.when_registered or (own.resources and own.ends is not Ends.SERVER)
        for own in wanted.runtime.runs(types)
    )


async def _addresses(wanted: Wanted, view: View) -> list[Address]:
    """Where to try, the best first."""
    to = wanted.to
    if isinstance(to, str):
        literal = _ADDRESS.fullmatch(to)
        if literal is None:
            return _resolved(wanted, to, view)
        to = (literal[1], int(literal[2]))
    found: list[Address] = []
    problem: OSError | None = None
    for host, port in _pairs(to):
        try:
            for *_, address in await trio.socket.getaddrinfo(
                host, port, family=socket.AF_INET, type=socket.SOCK_DGRAM
            ):
                found.append((str(address[0]), int(address[1])))
                break
        except socket.gaierror as error:
            problem = socket.gaierror(error.errno, f"{host}: {error.strerror}; check the name")
    if not found and problem is not None:
        raise problem
    return found


def _check(to: str | Address | Sequence[Address]) -> None:
    """Refuses what can be no address, before anybody is asked.

    Raises:
      ValueError: it names it.
    """
    if not isinstance(to, str):
        pairs = _pairs(to)
    elif (literal := _ADDRESS.fullmatch(to)) is not None:
        pairs = [(literal[1], int(literal[2]))]
    elif ":" in to or not to:
        raise ValueError(
            f'"{to}" is neither HOST:PORT (IPv4, or a host\'s name) nor a name that was announced: '
            "those have no colon"
        )
    else:
        return
    for host, port in pairs:
        if not 0 < port < 1 << 16:
            raise ValueError(f"the port of {host}:{port} is not within 1 and 65535")


def _pairs(to: Address | Sequence[Address]) -> Sequence[Address]:
    match to:
        case (str(host), int(port)):
            return [(host, port)]
        case []:
            raise ValueError("no address is given; give one at least")
    return to


def _resolved(wanted: Wanted, name: str, view: View) -> list[Address]:
    """The addresses behind a name: as a layer of the stack says, else the first that came."""
    runtime = wanted.runtime
    for layer in _all_layers(wanted.nodes or ()):
        for own in runtime.able(layer.type, view):
            if own.resolve is not None:
                found = own.resolve(runtime, view, name)
                if found:
                    return found
    instances = view.names.get(name, ())
    if not instances:
        raise UnknownName(name, view.note or "the discovery service knows of none")
    return [each.address for each in instances]


def _all_layers(nodes: Sequence[Node]) -> Iterator[Layer]:
    for node in nodes:
        if isinstance(node, Select):
            for option in node.options:
                yield from _all_layers(option)
        else:
            yield node


def _asked(nodes: tuple[Node, ...] | None, accept: Accept) -> tuple[Layer, ...]:
    """This end's reading of its stack that was agreed on."""
    if nodes is None:
        return ()
    from p4xos.chunnels.stack import Chunnel

    ways = Chunnel[Any, Any](*nodes).alternatives()
    return ways[accept.choice.client_alternative]


async def _agree(
    wanted: Wanted,
    offer: Offer,
    key: bytes,
    addresses: list[Address],
    until: float,
    sockets: list[socket.socket],
) -> tuple[Accept, str]:
    """What a server accepts; its socket is the last one."""
    problem: NoAnswer | NoAgreement | None = None
    for k, address in enumerate(addresses):
        now = trio.current_time()
        last = k == len(addresses) - 1
        soon = until if last else min(until, now + ONE_OF_SEVERAL_S)
        peer = f"{address[0]}:{address[1]}"
        negotiation = ClientNegotiation(
            offer, wanted.name, secrets.token_bytes(NONCE_BYTES), peer, now, soon,
            lambda nonce, packed: passes.make(key, nonce, packed, time.time()),
        )  # fmt: skip
        opened_socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sockets.append(opened_socket)
        opened_socket.setblocking(False)
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            opened_socket.setsockopt(socket.SOL_SOCKET, option, SOCKET_BYTES)
        opened_socket.connect(address)  # UDP: it only says from whom datagrams are taken
        try:
            return await _negotiate(negotiation, opened_socket), peer
        except (NoAnswer, NoAgreement) as error:
            problem = problem if isinstance(problem, NoAgreement) else error
    assert problem is not None
    wanted.runtime.counters["failed"] += 1
    raise problem


async def _negotiate(negotiation: ClientNegotiation, sock: socket.socket) -> Accept:
    """Runs a negotiation over a socket."""
    while True:
        for datagram in negotiation.tick(trio.current_time()):
            with suppress(OSError):  # nobody is there yet, or no room now: it is sent again
                sock.send(datagram)
        if negotiation.failure is not None:
            raise negotiation.failure
        with trio.move_on_at(negotiation.deadline()):
            await trio.lowlevel.wait_readable(sock)
        try:
            while not negotiation.over:
                negotiation.receive_untrusted(sock.recv(DATAGRAM_BYTES_MAX + 1))
        except OSError:
            await trio.lowlevel.checkpoint()  # nothing more, or an error that came back
        if negotiation.accepted is not None:
            return negotiation.accepted
