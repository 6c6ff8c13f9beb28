"""Endpoints: a name and a stack, from which connections are made.

    kv = endpoint("kv-client", serialize(Op) | reliable() | local_or_remote())
    async with kv.connect("kv.prod", timeout=2) as conn:
        await conn.send(Op("put", "a", b"1"))
        print(await conn.receive(), conn.explain())

    async with trio.open_nursery() as nursery:
        address = await nursery.start(endpoint("kv", stack).serve, handler, ("127.0.0.1", 7000))

An endpoint without a stack takes the server's.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Generic, TypeVar, overload

import trio

from p4xos.chunnels.connecting import TIMEOUT_S, connected
from p4xos.chunnels.connection import Connection
from p4xos.chunnels.group.connection import GroupEndpoint
from p4xos.chunnels.runtime import Runtime, current_runtime
from p4xos.chunnels.serving import Server, until_closed
from p4xos.chunnels.stack import Chunnel, Node, Ordered, Select, Wire
from p4xos.chunnels.transport import TRANSPORT, datagrams

T = TypeVar("T")
Address = tuple[str, int]
Handler = Callable[[Connection[T]], Awaitable[object]]
GROUP = "ordered_mcast"


class Endpoint(Generic[T]):
    """Makes connections of messages of one type; see `endpoint`."""

    def __init__(
        self, name: str, nodes: tuple[Node, ...] | None, runtime: Runtime | None = None
    ) -> None:
        """Does nothing yet; `nodes` is a stack with a lowest layer, or None: the server's."""
        self.name = name
        self.nodes = nodes
        self._runtime = runtime

    @property
    def runtime(self) -> Runtime:
        """What its connections use."""
        return self._runtime or current_runtime()

    def connect(
        self, to: str | Address | Sequence[Address], *, timeout: float = TIMEOUT_S
    ) -> AbstractAsyncContextManager[Connection[T]]:
        """A connection, while the `async with` lasts; errors of its body come out as they are.

        Args:
          to: a name in the discovery service, an address, or several that serve the same.
          timeout: seconds until it is given up.

        Raises:
          NoAgreement: the server cannot do what is asked; the message names the layer.
          NoAnswer: nobody has answered in time.
          UnknownName: nobody has announced the name.
        """
        return connected(self.name, self.nodes, self.runtime, to, timeout)

    async def serve(
        self,
        handler: Handler[T] | None,
        address: Address,
        *,
        announce: str | None = None,
        task_status: trio.TaskStatus[Address] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serves until cancelled; `started` gets the address.

        Args:
          handler: gets each connection, which ends when it returns. A peer that is lost ends it
            too; any other exception ends the server, and comes out of here as it is. None: the
            layers do all, as `shard` does.
          address: to listen at; port 0 is any free one.
          announce: a name to be found by, while it serves.
          task_status: for `nursery.start`.

        Raises:
          OSError: the address is in use, or not one of this machine.
        """
        if self.nodes is None:
            raise ValueError(
                f"endpoint {self.name} has no stack; a server says what its clients take"
            )
        server = Server(self.name, self.nodes, self.runtime, handler or until_closed)
        await server.run(address, announce, task_status)

    @asynccontextmanager
    async def serving(
        self, handler: Handler[T] | None, address: Address, *, announce: str | None = None
    ) -> AsyncIterator[Address]:
        """As `serve`, while the `async with` lasts; for tests and programs with no nursery."""
        from p4xos.chunnels.unwrapping import open_plain_nursery

        async with open_plain_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[Address]) -> None:
                await self.serve(handler, address, announce=announce, task_status=task_status)

            yield await nursery.start(run)
            nursery.cancel_scope.cancel()


@overload
def endpoint(name: str, *, runtime: Runtime | None = None) -> Endpoint[Any]: ...
@overload
def endpoint(
    name: str, stack: Chunnel[T, Ordered], *, runtime: Runtime | None = None
) -> GroupEndpoint[T]: ...
@overload
def endpoint(
    name: str, stack: Chunnel[T, bytes], *, runtime: Runtime | None = None
) -> Endpoint[T]: ...
@overload
def endpoint(
    name: str, stack: Chunnel[T, Wire], *, runtime: Runtime | None = None
) -> Endpoint[T]: ...
def endpoint(
    name: str, stack: Chunnel[Any, Any] | None = None, *, runtime: Runtime | None = None
) -> Endpoint[Any] | GroupEndpoint[Any]:
    """An endpoint.

    Args:
      name: for people: it is in `explain()`, and in what the other end logs.
      stack: what is asked for, down to the wire; where it has no lowest layer its messages travel
        as datagrams. With `ordered_mcast` at its lower end its connections are to a group. None:
        whatever the server asks for.
      runtime: None: the one that is shared in this `trio.run`.

    Raises:
      ValueError: a stack that nothing can run.
    """
    if stack is None:
        return Endpoint(name, None, runtime)
    if not stack.nodes:
        raise ValueError("an empty stack; leave it out to take the server's")
    bottoms = {way[-1].type for way in stack.alternatives()}
    if GROUP in bottoms:
        if len(bottoms) > 1:
            raise ValueError("select() cannot choose between a group and a connection")
        return GroupEndpoint(name, stack, runtime)
    if TRANSPORT not in bottoms:
        stack = stack | datagrams()
    elif len(bottoms) > 1:
        raise ValueError(
            "some ways to read the stack have a lowest layer and some have none: put it behind "
            "select(), or into each of its options"
        )
    for node in stack.nodes:
        assert not isinstance(node, Select) or node.options
    return Endpoint(name, stack.nodes, runtime)
