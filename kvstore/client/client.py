"""`Client`: the store from a trio program, at whichever node answers.

    async with Client(["127.0.0.1:7101", "127.0.0.1:7102", "127.0.0.1:7103"]) as client:
        await client.set("greeting", "hello")
        print(await client.get("greeting"))

All tasks share one connection, on which their commands follow one another without waiting
(`link`). Every node serves every key, so any node will do; when one is lost, refuses, or is silent,
the client goes to the next. What may then be sent again is decided in `outcomes`.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from itertools import count
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import trio

from kvstore.client.call import Call, Word
from kvstore.client.commands import Commands, Key
from kvstore.client.connections import TRY_AGAIN_S, Connections
from kvstore.client.dialing import Greeting
from kvstore.client.errors import Aborted, Unavailable, says_refused
from kvstore.client.link import Group
from kvstore.client.outcomes import sort_out
from kvstore.client.pipeline import Pipeline
from kvstore.client.transaction import Transaction
from kvstore.config import endpoints, tls_endpoints
from p4xos.config import Cluster
from p4xos.tables import Address

T = TypeVar("T")

LIMIT_S = 15.0
"""For one call with its retries: longer than a node waits for a majority before it says so."""
PATIENCE_S = 3.0
"""A node that owes a reply and says nothing for so long is left for another one."""
WINDOW_COMMANDS = 4096
"""Commands in flight; further ones wait."""


class Client(Commands):
    """A client of the store for all tasks of a program; used inside of `async with`."""

    def __init__(
        self,
        to: Cluster | Iterable[str | tuple[str, int]],
        *,
        database: int = 0,
        name: str = "",
        protocol: Literal[2, 3] = 3,
        username: str = "",
        password: str | None = None,
        tls: ssl.SSLContext | None = None,
        limit_s: float = LIMIT_S,
        patience_s: float = PATIENCE_S,
        window: int = WINDOW_COMMANDS,
    ) -> None:
        """A client that connects when it is entered.

        Args:
          to: the cluster, or the nodes' addresses, `("host", port)` or `"host:port"`; the first
            that answers is used while it does, so put the nearest one first.
          database: 0 to 15, for all calls.
          name: shown by CLIENT LIST.
          protocol: RESP2 or RESP3; replies of the typed methods are the same in both.
          username: with `password`, who this is; left out: the user `default`.
          password: of it; None: the nodes ask for none.
          tls: connects behind TLS (`kvstore.tls.client_context`); the addresses are then those.
          limit_s: for a call with its retries; `call.within(seconds)` sets that of one call.
          patience_s: how long a node may owe a reply and be silent.
          window: commands in flight at most; further ones wait.

        Raises:
          ValueError: something of it makes no sense.
        """
        if isinstance(to, Cluster):
            given: Iterable[str | tuple[str, int]] = (
                endpoints(to) if tls is None else tls_endpoints(to)
            ).values()
        else:
            given = to
        addresses = [_address(address) for address in given]
        if not addresses:
            raise ValueError("no address is given; give that of one node at least")
        if window < 1 or limit_s <= 0 or patience_s <= 0:
            raise ValueError("window, limit_s and patience_s must be more than nothing")
        if username and password is None:
            raise ValueError("username without a password; give both")
        greeting = Greeting(protocol, database, name, username, password, tls)
        self._connections = Connections(addresses, greeting, patience_s)
        self._limit_s = limit_s
        self._window = window

    async def __aenter__(self) -> Self:
        await self._connections.open()
        problems: dict[str, str] = {}
        try:
            with trio.move_on_after(self._limit_s):
                await self._connections.shared(problems)
                return self
            reason = f"no node answered within {self._limit_s:g} s"
            raise Unavailable("connecting", reason, problems)
        except BaseException:
            await self._connections.close()
            raise

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._connections.close()

    @property
    def node(self) -> Address | None:
        """The node that is used now; None while there is none."""
        return self._connections.node

    def _call(self, decode: Callable[[str, object], T], *words: Word) -> Call[T]:
        return Call(words, decode, self)

    def pipeline(self) -> Pipeline:
        """Calls that are sent together, and answered in order; not atomic.

            async with client.pipeline() as pipeline:
                visits = pipeline.incr("visits")
                pipeline.expire("visits", 3600)
            print(visits.value)
        """
        return Pipeline(self)

    def transaction(self, *watched: Key) -> Transaction:
        """Calls that are done as one, if no watched key has changed since the block was entered.

            async with client.transaction("stock") as transaction:
                stock = int(await transaction.now.get("stock") or 0)
                transaction.set("stock", stock - 1)

        Leaving the block raises Aborted when one has. `transact` then tries again.
        """
        return Transaction(self._connections, watched, self._limit_s, self._window)

    async def transact(
        self, body: Callable[[Transaction], Awaitable[T]], *watched: Key
    ) -> T:
        """Runs `body` in a transaction, again whenever it is aborted, within `limit_s`.

        Returns:
          What `body` returned the last time.
        """
        until = trio.current_time() + self._limit_s
        pause_s = 0.001
        while True:
            try:
                async with self.transaction(*watched) as transaction:
                    result = await body(transaction)
                return result
            except Aborted:
                if trio.current_time() >= until:
                    raise
            await trio.sleep(pause_s)
            pause_s = min(2 * pause_s, TRY_AGAIN_S)

    async def all_keys(self, match: Key | None = None, page: int = 1000) -> AsyncIterator[bytes]:
        """All keys (SCAN): each that was there all the time, at least once."""
        cursor = b"0"
        while True:
            cursor, found = await self.scan(cursor, match=match, count=page)
            for key in found:
                yield key
            if cursor == b"0":
                return

    async def perform(self, calls: Sequence[Call[Any]], limit_s: float | None) -> None:
        """Runs calls in order, next to one another; each is settled on return (`Performer`)."""
        limit = self._limit_s if limit_s is None else limit_s
        rest = list(calls)
        problems: dict[str, str] = {}
        with trio.move_on_after(limit):
            for attempt in count(1):
                await self._attempt(rest, problems, limit)
                if not rest:
                    return
                if attempt >= len(self._connections.addresses):
                    await trio.sleep(TRY_AGAIN_S)  # every node had its chance
        for call in rest:
            reason = f"no node ran it within {limit:g} s"
            call.settle(Unavailable(call.name, reason, problems))

    async def _attempt(
        self, rest: list[Call[Any]], problems: dict[str, str], limit: float
    ) -> None:
        """Runs calls at one node; leaves those in `rest` that may be tried again."""
        link = await self._connections.shared(problems)
        if link.full(self._window):
            await link.wait_room(self._window)
        group = Group([call.data for call in rest], reads=all(call.reads for call in rest))
        link.post(group)
        node = str(link.address)
        try:
            await group.wait()
        finally:
            # Also when this task gave up: the calls then say what is known of them.
            left = link.leave(group) if group.missing else group.count
            reason = link.lost or f"no answer within {limit:g} s"
            rest[:] = sort_out(rest, group.replies, left, node, reason)
        if rest and group.replies:
            refusal = next((r for r in group.replies if says_refused(r, reads=True)), None)
            if refusal is not None:
                problems[node] = refusal.text
                link.retire()


def _address(given: str | tuple[str, int]) -> Address:
    if not isinstance(given, str):
        return Address(*given)
    host, colon, port = given.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()):
        raise ValueError(f'{given!r} is no address: write it as "host:port"')
    return Address(host.removeprefix("[").removesuffix("]"), int(port))
