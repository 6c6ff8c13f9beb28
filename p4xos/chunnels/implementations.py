"""Implementations of layers: what they declare, and what they are given when they run.

    @implementation("mirror", "plain", provides={"order": "fifo"})
    @asynccontextmanager
    async def plain(below, context):
        ...                       # initialisation, at each connection
        yield Mapped(below, ...)  # until the connection ends, however it ends
        ...                       # teardown

They are found in a runtime (`Runtime.register`), among the entry points of the group ENTRY_POINTS,
and those with `when_registered` only while somebody holds a registration of theirs in the discovery
service.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import trio

from p4xos.chunnels.connection import Mapped, Messages
from p4xos.chunnels.levels import Level
from p4xos.chunnels.places import Scope
from p4xos.chunnels.stack import Layer

if TYPE_CHECKING:
    from p4xos.chunnels.choosing import Chosen
    from p4xos.chunnels.negotiation import Admitted
    from p4xos.chunnels.runtime import Runtime
    from p4xos.chunnels.view import View

log = logging.getLogger(__name__)

ENTRY_POINTS = "p4xos.chunnels"
"""Each is an Implementation, or a list of them."""


class Side(Enum):
    """Which end of a connection."""

    CLIENT = "client"
    SERVER = "server"


class Ends(Enum):
    """Which ends an implementation must run at."""

    BOTH = "both"
    CLIENT = "client"
    SERVER = "server"
    EITHER = "either"
    """One of them, whichever has it."""


class Carrier(Protocol):
    """How a connection reaches its peer, as far as negotiation has come; for lowest layers."""

    ticket: bytes
    """At a client: what the server takes for the connection that was agreed on."""
    wait: bool
    """At a client: whether to wait until the server has taken it."""
    origin: int
    """Which of several servers behind one address this is, from 1; 0: the only one, or a client."""

    async def messages(self) -> Messages[bytes]:
        """At a server those by which the client came, at a client those of its socket.

        A client waits here until the server has the ticket, where that is to be waited for.
        """
        ...


@dataclass
class Context:
    """What an implementation is given for one connection."""

    side: Side
    layer: Layer
    """As this end asked for it, with its arguments."""
    chosen: Chosen
    """What was agreed: names, levels, and the server's parameters."""
    below: tuple[Layer, ...] | None
    """The layers below, as this end asks for them; None: it takes the server's stack."""
    runtime: Runtime
    nursery: trio.Nursery
    """For tasks that live as long as the connection."""
    carrier: Carrier
    peer: str
    registration: Mapping[str, object] = field(default_factory=dict)
    """What the owner of a registered implementation tells of it."""
    opened: Mapping[str, object] = field(default_factory=dict)
    """At a server: what `listen` opened for this layer."""


Begin = Callable[[str], object]


class Serving(Protocol):
    """What `listen` of an implementation is given: a server that is about to begin."""

    runtime: Runtime
    @property
    def nursery(self) -> trio.Nursery:
        """For tasks that live as long as the server."""
        ...

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        ...

    name: str
    """Of this server in its runtime."""

    def send(self, data: bytes, address: tuple[str, int]) -> None:
        """A datagram from its address; it is lost where the kernel does not take it now."""
        ...

    def admit_untrusted(self, ticket: bytes, messages: Messages[bytes], begin: Begin) -> None:
        """Starts the connection of a ticket, if it is one.

        Args:
          ticket: what the client was given.
          messages: from and to that client; they are closed when the connection has ended.
          begin: called once, before any message is sent, with nothing where the connection begins,
            or with the reason why it does not.
        """
        ...


Over = Mapping[str, Mapping[str, Level]]
"""By the types of layers, what they must provide."""
Functions = tuple[Callable[[Sequence[Any]], Sequence[Any]], Callable[[Sequence[Any]], list[Any]]]
"""Messages as they travel, and back; see `Mapped`."""
Wrap = Callable[[Any, Context], AbstractAsyncContextManager[Messages[Any]]]
Listen = Callable[[Serving, Layer], AbstractAsyncContextManager[Mapping[str, object]]]
Admit = Callable[["Carrier", "Admitted", Mapping[str, object]], AbstractAsyncContextManager[None]]
"""Gets the carrier, what was agreed on, and what `listen` opened."""
Resolve = Callable[["Runtime", "View", str], list[tuple[str, int]]]


@dataclass(frozen=True)
class Implementation:
    """One way to run a layer."""

    type: str
    """Of the layers that it runs."""
    name: str
    wrap: Wrap
    """Gets the messages of the layer below and a Context; the messages it yields are its own."""
    scope: Scope = Scope.APPLICATION
    """Where it runs."""
    reach: Scope = Scope.GLOBAL
    """How far apart the ends may be."""
    apart: Scope = Scope.APPLICATION
    """How near the ends may be; counts at a server."""
    over: Over | None = None
    """The types of all layers that it may stand on, and what they must provide, as one that reads
    messages on the wire needs to know it; None: any. Counts at a server."""
    ends: Ends = Ends.BOTH
    priority: int = 0
    """The highest is taken, unless the operator's policy says otherwise."""
    provides: Mapping[str, Level] = field(default_factory=dict)
    resources: Mapping[str, int] = field(default_factory=dict)
    """What a connection takes of the capacities that discovery knows."""
    when_registered: bool = False
    """Whether it works only while its owner holds a registration in discovery."""
    commutes: frozenset[str] = frozenset()
    """Types of layers that it may change places with: the result is the same."""
    removable: bool = False
    """Whether it adds nothing but what it provides: needless above layers that provide as much."""
    merges: tuple[str, ...] = ()
    """Types of consecutive layers, from the top, that it runs as one."""
    functions: Callable[[Layer], Functions] | None = None
    """Of a layer that makes each message into another: so it also works above a group."""
    listen: Listen | None = None
    """Runs while a server does, before its first connection; yields parameters for its clients.
    Keys that begin with "_" are for `wrap` and `admit` at this server alone. Raises Unable where
    this server cannot run it; what is left is taken then, and `explain` tells why."""
    admit: Admit | None = None
    """At a server: runs while a connection does, before its first message: the client waits."""
    resolve: Resolve | None = None
    """Finds the addresses behind a name, the best first; for layers of clients."""


def implementation(type: str, name: str, **declared: Any) -> Callable[[Wrap], Implementation]:
    """Makes an async context manager into an Implementation; see there for what is declared."""

    def make(wrap: Wrap) -> Implementation:
        return Implementation(type, name, wrap, **declared)

    return make


def mapping(
    type: str, name: str, **declared: Any
) -> Callable[[Callable[[Layer], Functions]], Implementation]:
    """Makes a function that yields two functions into an Implementation.

        @mapping("shout", "plain")
        def shout(layer):
            return (lambda values: [value.upper() for value in values]), list
    """

    def make(functions: Callable[[Layer], Functions]) -> Implementation:
        @asynccontextmanager
        async def wrap(below: Messages[Any], context: Context) -> AsyncIterator[Messages[Any]]:
            yield Mapped(below, *functions(context.layer))

        return Implementation(type, name, wrap, functions=functions, **declared)

    return make


class Installed(NamedTuple):
    """What installed packages register."""

    implementations: tuple[Implementation, ...]
    broken: int
    """Entry points that were left out; a log line names each."""


def installed() -> Installed:
    """The implementations of installed packages; one that is broken hinders none of the others."""
    found: list[Implementation] = []
    broken = 0
    for point in entry_points(group=ENTRY_POINTS):
        try:
            loaded = point.load()
            listed = [loaded] if isinstance(loaded, Implementation) else list(loaded)
            for each in listed:
                if not isinstance(each, Implementation):
                    raise TypeError(f"{each!r} is no Implementation")
        except Exception as error:  # whatever somebody else's module does when it is imported
            broken += 1
            package = "a package" if point.dist is None else point.dist.name
            log.warning(
                "%s registers %s = %s under %s, which is left out: %s: %s; upgrade the package, or "
                "remove it",
                package, point.name, point.value, ENTRY_POINTS, type(error).__name__, error,
            )  # fmt: skip
        else:
            found += listed
    return Installed(tuple(found), broken)
