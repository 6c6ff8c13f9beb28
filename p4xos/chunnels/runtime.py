"""A runtime: what a program can run layers with, and what its operator allows.

There is no global one. Endpoints that are given none share one that lives as long as their
`trio.run`; a program that registers implementations of its own, has a policy, or wants a fresh
picture of the discovery service at hand makes its own:

    async with Runtime(policy=mine, discovery="/run/p4xos/discovery.sock") as runtime:
        runtime.register(my_implementation)
        async with endpoint("kv-client", stack, runtime=runtime).connect("kv.prod") as conn: ...
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import trio

from p4xos.chunnels import implementations as declaring
from p4xos.chunnels.choosing import Policy
from p4xos.chunnels.connection import Messages
from p4xos.chunnels.discovery.client import TTL_S, Claims, Discovery
from p4xos.chunnels.implementations import Begin, Ends, Implementation, Wrap, installed
from p4xos.chunnels.metering import Tally
from p4xos.chunnels.offers import Offer, OfferedNode, OfferedSelect, offered_layer
from p4xos.chunnels.places import Place, host_name, new_process_name, socket_directory
from p4xos.chunnels.policies import operators_policy
from p4xos.chunnels.stack import Layer, Node
from p4xos.chunnels.view import NO_DISCOVERY, View

log = logging.getLogger(__name__)

DISCOVERY_VARIABLE = "P4XOS_DISCOVERY"
"""Of the environment: the socket of the discovery service."""

RESERVED_MAX = 16
"""Implementations for whose resources room is kept while a server chooses among them."""

Forbidden = frozenset[tuple[str, str]]
Knock = Callable[[bytes, Messages[bytes], Begin], None]


class Runtime:
    """See the module's text; all of it may be used without entering it."""

    def __init__(
        self,
        *,
        policy: Policy | None = None,
        discovery: str | Path | None = None,
        site: str = "",
        optimize: bool = True,
        meter: bool = True,
        builtin: bool = True,
    ) -> None:
        """A runtime with what is built in and installed.

        Args:
          policy: the operator's choice among what fits; None: see `policies`.
          discovery: the socket of the discovery service; None: what DISCOVERY_VARIABLE names.
          site: a name that machines of one local network share.
          optimize: whether stacks are made cheaper where nothing is lost by it.
          meter: whether messages are counted at each layer.
          builtin: whether the implementations of this package, and of installed ones, are there.

        Raises:
          ValueError: the environment names a policy that is none.
        """
        self.policy = policy or operators_policy()
        self.optimize = optimize
        self.meter = meter
        self.sockets: Path | None = None
        """Where Unix sockets of connections may be."""
        try:
            self.sockets = socket_directory()
        except OSError as error:
            log.warning("no Unix sockets: programs on this host are reached by UDP: %s", error)
        host = "" if self.sockets is None else host_name(self.sockets)
        self.place = Place(new_process_name(), host, site)
        self.known: dict[tuple[str, str], Implementation] = {}
        """Implementations by type and name."""
        self.listening: dict[str, Knock] = {}
        """Servers of this runtime, for clients of it: by a name of their own."""
        self.tally = Tally()
        """What connections carry, and what servers count; `metrics.families` tells it."""
        self.counters = dict.fromkeys(
            (
                "failed", "retries", "bad_messages", "dropped_by_relay",
                "broken_packages", "steered_by_process",
            ),
            0,
        )  # fmt: skip
        """What happened, by what it was."""
        where = discovery or os.environ.get(DISCOVERY_VARIABLE)
        self.discovery = None if not where else Discovery(Path(where))
        self._stack = AsyncExitStack()
        if builtin:
            from p4xos.chunnels.builtin import IMPLEMENTATIONS

            others = installed()
            self.counters["broken_packages"] = others.broken
            self.register(*IMPLEMENTATIONS, *others.implementations)

    async def __aenter__(self) -> Self:
        """Keeps the picture of the discovery service fresh, so that connecting does not ask it."""
        if self.discovery is not None:
            await self._stack.enter_async_context(self.discovery.watched())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    # Implementations -----------------------------------------------------------------------------

    def register(self, *implementations: Implementation) -> None:
        """Adds implementations; one of the same type and name is replaced."""
        for each in implementations:
            self.known[each.type, each.name] = each

    def implementation(self, type: str, name: str, **declared: Any) -> Callable[[Wrap], Wrap]:
        """A decorator that registers here; see `Implementation` for what is declared."""

        def add(wrap: Wrap) -> Wrap:
            self.register(declaring.implementation(type, name, **declared)(wrap))
            return wrap

        return add

    def able(
        self, type: str, view: View, forbidden: Forbidden = frozenset()
    ) -> list[Implementation]:
        """What can run layers of a type now, by priority."""
        found = [
            each
            for each in self.known.values()
            if each.type == type and not each.merges and (type, each.name) not in forbidden
            and (not each.when_registered or (type, each.name) in view.registered)
        ]  # fmt: skip
        return sorted(found, key=lambda each: (-each.priority, each.name))

    def runs(self, types: frozenset[str] | None) -> Iterator[Implementation]:
        """What could run layers of some types, registered or not; None: of any."""
        for each in self.known.values():
            if types is None or types.issuperset(each.merges or (each.type,)):
                yield each

    def wanted(
        self, types: frozenset[str] | None, forbidden: Forbidden
    ) -> list[Mapping[str, int]]:
        """What a client may take for layers of these types, the likeliest first."""
        takes = [
            each for each in self.runs(types)
            if each.resources and each.ends is not Ends.SERVER
            and (each.type, each.name) not in forbidden
        ]  # fmt: skip
        takes.sort(key=lambda each: -each.priority)
        return [each.resources for each in takes[:RESERVED_MAX]]

    def offer(
        self, nodes: Iterable[Node] | None, view: View, forbidden: Forbidden = frozenset()
    ) -> Offer:
        """What this end can do about a stack; None: about whatever the other end asks for."""
        merging = tuple((each.name, each.merges) for each in self.known.values() if each.merges)
        if nodes is None:
            types = dict.fromkeys(each.type for each in self.known.values() if not each.merges)
            all_known = tuple(
                offered_layer(Layer(type), self.able(type, view, forbidden)) for type in types
            )
            return Offer(self.place, all_known, dictated=True, merging=merging)

        def tell(node: Node) -> OfferedNode:
            if isinstance(node, Layer):
                return offered_layer(node, self.able(node.type, view, forbidden))
            return OfferedSelect(tuple(tuple(map(tell, option)) for option in node.options))

        return Offer(self.place, tuple(map(tell, nodes)), merging=merging)

    # The world -----------------------------------------------------------------------------------

    async def look(self) -> View:
        """The newest picture of the discovery service; an empty one where it is down."""
        if self.discovery is None:
            return NO_DISCOVERY
        return await self.discovery.look()

    def at_hand(self) -> View:
        """The newest picture, if somebody watches; an empty one otherwise: nobody is asked."""
        if self.discovery is None or self.discovery.newest is None:
            return NO_DISCOVERY
        return self.discovery.newest

    @asynccontextmanager
    async def announced(self, name: str, address: tuple[str, int]) -> AsyncIterator[None]:
        """Lets a server be found by a name, while the `async with` lasts.

        Raises:
          ValueError: there is no discovery service that could know of it, or it is no name.
        """
        if ":" in name or not name:
            raise ValueError(f'"{name}" cannot be announced: a name has no colon, and is not empty')
        if self.discovery is None:
            raise ValueError(
                f"{name} cannot be announced: {NO_DISCOVERY.note}, or give Runtime(discovery=...)"
            )
        data = {"name": name, "address": list(address), "place": list(self.place)}
        async with self.discovery.held("instance", data):
            yield

    @asynccontextmanager
    async def registered(
        self,
        type: str,
        name: str,
        *,
        parameters: Mapping[str, str | int] | None = None,
        capacities: Mapping[str, int] | None = None,
        teardown: Sequence[str] = (),
        ttl_s: float = TTL_S,
    ) -> AsyncIterator[None]:
        """Tells all runtimes that an implementation with `when_registered` is set up.

        Args:
          type: of the layers that it runs.
          name: of the implementation, as each runtime that is to use it knows it.
          parameters: for its `wrap`, in `context.registration`.
          capacities: how much there is of the resources that its connections take.
          teardown: a command that undoes the set-up, should this process be killed; whoever leaves
            the `async with` has undone it by himself.
          ttl_s: how long after the kill.

        Raises:
          ValueError: there is no discovery service that could know of it.
        """
        if self.discovery is None:
            raise ValueError(
                f"{type}/{name} cannot be registered: {NO_DISCOVERY.note}, or give "
                "Runtime(discovery=...)"
            )
        data = {
            "type": type, "name": name, "parameters": dict(parameters or {}),
            "capacities": dict(capacities or {}),
        }  # fmt: skip
        async with self.discovery.held(
            "implementation", data, ttl_s=ttl_s, teardown=teardown
        ):
            yield

    def claims(self) -> Claims:
        """For resources that one connection takes."""
        return Claims(self.discovery)


_current: trio.lowlevel.RunVar[Runtime | None] = trio.lowlevel.RunVar("p4xos.chunnels", None)


def current_runtime() -> Runtime:
    """The one that endpoints without a runtime share; it ends with `trio.run`."""
    found = _current.get()
    if found is None:
        found = Runtime()
        _current.set(found)
    return found
