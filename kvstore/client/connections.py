"""A client's connections: one that all its tasks share, and a few for transactions that watch."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractAsyncContextManager

import trio

from kvstore.client.dialing import Greeting, NotLetIn, NotReached, dial
from kvstore.client.errors import ErrorReply
from kvstore.client.link import Link
from p4xos.tables import Address

TRY_AGAIN_S = 0.1
"""Between two rounds through all nodes, and behind a refusal."""
TRANSACTIONS_MAX = 16
"""Connections for transactions that watch; further ones wait."""


class Connections:
    """Finds a node that answers, and stays with it while it does."""

    def __init__(
        self, addresses: Iterable[Address], greeting: Greeting, patience_s: float
    ) -> None:
        """Connects to nothing yet."""
        self.addresses = list(addresses)
        self.opened = 0
        """Connections made so far."""
        self._greeting = greeting
        self._patience_s = patience_s
        self._turn = 0
        """The node to try next."""
        self._link: Link | None = None
        self._linking = trio.Lock()
        self._idle: list[Link] = []
        self._leases = trio.Semaphore(TRANSACTIONS_MAX)
        self._manager: AbstractAsyncContextManager[trio.Nursery] | None = None
        self._nursery: trio.Nursery | None = None

    async def open(self) -> None:
        """Before anything else; `close` ends it."""
        # Entered by hand: an error of the client's body is then raised as it is, in no group.
        self._manager = trio.open_nursery()
        self._nursery = await self._manager.__aenter__()

    async def close(self) -> None:
        """Ends all connections."""
        assert self._nursery is not None
        assert self._manager is not None
        nursery, self._nursery = self._nursery, None
        nursery.cancel_scope.cancel()
        await self._manager.__aexit__(None, None, None)

    @property
    def node(self) -> Address | None:
        """Where the shared connection goes now."""
        return self._link.address if self._link is not None and self._link.usable else None

    async def shared(self, problems: dict[str, str]) -> Link:
        """The connection of all tasks; a new one when there is none, tried for ever.

        Args:
          problems: gets why nodes could not be used, by address.

        Raises:
          ErrorReply: no node lets this user in.
        """
        if self._link is not None and self._link.usable:
            return self._link
        async with self._linking:
            if self._link is None or not self._link.usable:
                if self._link is not None:
                    problems[str(self._link.address)] = self._link.lost or "it does not answer"
                    self._avoid(self._link.address)
                self._link = await self._dial_any(problems)
            return self._link

    async def lease(self, problems: dict[str, str]) -> Link:
        """A connection of one's own, to be given back by `release`; as `shared` else."""
        await self._leases.acquire()
        try:
            while self._idle:
                link = self._idle.pop()
                if link.usable:
                    return link
            return await self._dial_any(problems)
        except BaseException:
            self._leases.release()
            raise

    def release(self, link: Link, *, clean: bool) -> None:
        """Takes a connection back; one that is not clean still watches keys, and is closed."""
        self._leases.release()
        if clean and link.usable:
            self._idle.append(link)
            return
        if not link.usable:
            self._avoid(link.address)
        link.close("the transaction ended")

    async def _dial_any(self, problems: dict[str, str]) -> Link:
        if self._nursery is None:
            raise ValueError("this client is closed: use it inside of its `async with`")
        while True:
            refusals: list[NotLetIn] = []
            for _ in self.addresses:
                address = self.addresses[self._turn % len(self.addresses)]
                reached = False
                try:
                    sock = await dial(address, self._greeting)
                    reached = True
                except NotReached as error:
                    problems[str(address)] = str(error)
                    if isinstance(error, NotLetIn):
                        refusals.append(error)
                finally:
                    # Also when the caller gave up: the next one then tries another node.
                    if not reached:
                        self._avoid(address)
                if reached:
                    link = Link(sock, address, self._patience_s)
                    self.opened += 1
                    self._nursery.start_soon(link.run)
                    return link
            if len(refusals) == len(self.addresses):
                raise ErrorReply(str(refusals[0]))  # to try again is to guess
            await trio.sleep(TRY_AGAIN_S)

    def _avoid(self, address: Address) -> None:
        """Tries another node before this one."""
        if self.addresses[self._turn % len(self.addresses)] == address:
            self._turn += 1
