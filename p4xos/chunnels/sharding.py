"""`shard()`: each message to the server that has its key.

A server's stack names the shards and what a message's key is; its clients either send to the right
shard themselves ("push"), or send all to the server, which relays ("relay"). Which of the two, is
negotiated for each connection, so that both kinds of client may be there at once.

A key of any length is hashed whole (CRC-32) and taken modulo the number of shards. Each shard has
a queue and a connection of its own: one that is down or slow holds up nobody else's messages. What
is sent to a shard that is down raises ShardDown at a client that pushes; a relay counts and drops
it, as a network would, and the client's own time limit tells it.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import trio

from p4xos.chunnels.connection import RECEIVE_MANY, Messages
from p4xos.chunnels.implementations import Context, Ends, Implementation, Serving, implementation
from p4xos.chunnels.levels import Level
from p4xos.chunnels.runtime import Runtime
from p4xos.chunnels.stack import Chunnel, Layer, Node, layer
from p4xos.chunnels.unwrapping import open_plain_nursery
from p4xos.errors import P4xosError

log = logging.getLogger(__name__)

T = TypeVar("T")
Address = tuple[str, int]
Key = str | bytes | int
Call = Callable[[T], Awaitable[T]]

SHARD = "shard"
SHARDS_MAX = 64
QUEUE_MESSAGES = 4096
"""For one shard, not yet sent."""
CALLS_MAX = 64
"""Of a target that is called, at once; replies come in the order in which calls end."""
CONNECT_S = 1.0
"""How long a shard may take to be reached."""
DOWN_S = 0.5
"""How long a shard that was lost is not tried again."""
STALL_S = 0.25
"""How long a full queue may hold up whoever sends."""
LOST = (P4xosError, OSError, trio.BrokenResourceError, trio.EndOfChannel)


class ShardDown(P4xosError):
    """The shard of a message does not take it; the others do."""

    def __init__(self, shard: int, why: str) -> None:
        super().__init__(
            f"shard {shard} does not take messages ({why}); what was sent for other shards in the "
            "same call has left: send what belongs to this one again later"
        )
        self.shard = shard


def shard_of(key: Key, shards: int) -> int:
    """Which of so many shards has a key."""
    if isinstance(key, int):
        key = str(key)
    return zlib.crc32(key.encode() if isinstance(key, str) else key) % shards


class Sharding:
    """The arguments of a shard layer."""

    def __init__(self, targets: Sequence[Address | Call[Any]], by: str | Callable[[Any], Key]):
        """See `shard`."""
        self.targets = list(targets)
        self.by = by
        self.key_of = by if callable(by) else field_of(by)

    @property
    def facts(self) -> dict[str, Level]:
        """What must be equal at both ends, where the client pushes."""
        kind = "code" if callable(self.by) else "field"
        facts: dict[str, Level] = {"key": self.described, "key_kind": kind}
        return facts | ({"shards": len(self.targets)} if self.targets else {})

    @property
    def described(self) -> str:
        """What the key is, comparable between programs."""
        if isinstance(self.by, str):
            return self.by
        code = getattr(self.by, "__code__", None)
        if code is None:
            return f"{self.by!r}"[:100]
        parts = code.co_code, repr(code.co_consts), repr(code.co_names)
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    @property
    def requires(self) -> dict[str, Level]:
        """What a client must be able to do, that pushes."""
        here = any(callable(target) for target in self.targets)
        return {"targets": "called here"} if here else {}


def shard(
    of: type[T], targets: Sequence[Address | Call[T]] = (), *, by: str | Callable[[T], Key]
) -> Chunnel[T, T]:
    """Spreads messages over shards by a key; above `serialize`, so that it sees messages.

    Args:
      of: the messages' type, for type checkers.
      targets: at a server, the shards: addresses of servers with the stack below this layer, or
        async functions that are called here, as one that submits to a group. None at a client.
      by: the name of the field that is the key, which every client can use; or a function, which
        only clients with an equal one can use, so that others let the server relay.

    Raises:
      ValueError: too many shards.
    """
    if len(targets) > SHARDS_MAX:
        raise ValueError(f"{len(targets)} shards; the limit is {SHARDS_MAX}")
    sharding = Sharding(targets, by)
    found: Chunnel[T, T] = layer(SHARD, sharding, facts=sharding.facts)
    return found.require(**sharding.requires) if sharding.requires else found


def field_of(name: str) -> Callable[[Any], Key]:
    """The field of a record, or of a dictionary, as its key."""

    def key_of(message: Any) -> Key:
        found = message[name] if isinstance(message, Mapping) else getattr(message, name)
        if not isinstance(found, str | bytes | int):
            raise ValueError(f"the key {name} is {found!r}; give a text, bytes or a number")
        return found

    return key_of


class Router(Messages[Any]):
    """Messages to shards and back; runs in its own nursery's tasks."""

    def __init__(
        self,
        targets: Sequence[Address | Call[Any]],
        key_of: Callable[[Any], Key],
        open_nodes: tuple[Node, ...] | None,
        runtime: Runtime,
        nursery: trio.Nursery,
    ) -> None:
        """Connects to a shard when there is something for it.

        Args:
          targets: the shards.
          key_of: finds a message's key.
          open_nodes: the stack of connections to shards; None: theirs.
          runtime: of those.
          nursery: for tasks, one for each shard.
        """
        self.dropped = 0
        self._key_of = key_of
        self._replies: deque[Any] = deque()
        self._replied = trio.Event()
        self._closed = False
        self._shards = [
            _Called(k, target, self._reply) if callable(target)
            else _Reached(k, target, open_nodes, runtime, self._reply)
            for k, target in enumerate(targets)
        ]  # fmt: skip
        for each in self._shards:
            nursery.start_soon(each.run)

    def _reply(self, values: Sequence[Any]) -> None:
        self._replies.extend(values)
        self._replied.set()

    async def send_many(self, values: Sequence[Any]) -> None:
        """As Messages; ShardDown when one was not taken, after all others were."""
        await trio.lowlevel.checkpoint()
        problem: ShardDown | None = None
        for down in await self.spread(values):
            self.dropped += 1
            problem = down
        if problem is not None:
            raise problem

    async def spread(self, values: Sequence[Any]) -> list[ShardDown]:
        """Gives messages to their shards; one error for each that was not taken."""
        shards = self._shards
        parts: dict[int, list[Any]] = {}
        for value in values:
            parts.setdefault(shard_of(self._key_of(value), len(shards)), []).append(value)
        return await self._give(parts)

    async def spread_untrusted(self, values: Sequence[Any]) -> int:
        """The same for messages of a peer; how many were dropped, those without a key among them.

        A function that finds keys may trip over a message that no honest client sends, and that
        must not end anything for the others.
        """
        shards = self._shards
        parts: dict[int, list[Any]] = {}
        dropped = 0
        for value in values:
            try:
                shard = shard_of(self._key_of(value), len(shards))
            except Exception as error:
                dropped += 1
                log.warning("a message without a key was dropped: %r", error)
            else:
                parts.setdefault(shard, []).append(value)
        return dropped + len(await self._give(parts))

    async def _give(self, parts: Mapping[int, list[Any]]) -> list[ShardDown]:
        shards = self._shards
        return [
            down for k, part in parts.items() for down in await shards[k].give(part)
        ]

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[Any]:
        """As Messages: replies of all shards, those of one in their order."""
        await trio.lowlevel.checkpoint()
        while not self._replies:
            if self._closed:
                raise trio.ClosedResourceError("this connection was closed here")
            self._replied = trio.Event()
            await self._replied.wait()
        return [self._replies.popleft() for _ in range(min(limit, len(self._replies)))]

    async def aclose(self) -> None:
        """As Messages; gives what is queued a little time."""
        with trio.move_on_after(STALL_S):
            for each in self._shards:
                await each.drained()
        self._closed = True
        self._replied.set()


class _Shard:
    """A queue, and a task that empties it."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.down: str | None = None
        self.queue: deque[Any] = deque()
        self.more = trio.Event()
        self.less = trio.Event()

    async def give(self, values: list[Any]) -> list[ShardDown]:
        """Queues messages; those that are not taken come back as errors."""
        for k, value in enumerate(values):
            if self.down is None and len(self.queue) >= QUEUE_MESSAGES:
                with trio.move_on_after(STALL_S):
                    while len(self.queue) >= QUEUE_MESSAGES and self.down is None:
                        await self.less.wait()
            if self.down is not None or len(self.queue) >= QUEUE_MESSAGES:
                why = self.down or "its queue is full"
                return [ShardDown(self.number, why) for _ in values[k:]]
            self.queue.append(value)
            self.more.set()
        return []

    def take(self, count: int) -> list[Any]:
        taken = [self.queue.popleft() for _ in range(min(count, len(self.queue)))]
        self.less.set()
        self.less = trio.Event()
        return taken

    async def wait(self) -> None:
        while not self.queue:
            self.more = trio.Event()
            await self.more.wait()

    async def drained(self) -> None:
        while self.queue and self.down is None:
            await self.less.wait()

    async def run(self) -> None:
        raise NotImplementedError


class _Reached(_Shard):
    """A shard with a server of its own."""

    def __init__(
        self,
        number: int,
        address: Address,
        nodes: tuple[Node, ...] | None,
        runtime: Runtime,
        reply: Callable[[Sequence[Any]], None],
    ) -> None:
        super().__init__(number)
        self.address = address
        self._nodes = nodes
        self._runtime = runtime
        self._reply = reply

    async def run(self) -> None:
        from p4xos.chunnels.connecting import connected

        while True:
            await self.wait()
            try:
                async with connected(
                    f"shard {self.number}", self._nodes, self._runtime, self.address, CONNECT_S
                ) as connection:
                    await self._serve(connection)
                why = "it has closed the connection"
            except LOST as error:
                why = str(error) or "the connection is lost"
            # What is queued would be old when it comes back: who sent it is told by silence, who
            # sends more by an error.
            self.down = why
            self.take(len(self.queue))
            log.warning("shard %d at %s:%d is down: %s", self.number, *self.address, why)
            await trio.sleep(DOWN_S)
            self.down = None

    async def _serve(self, connection: Messages[Any]) -> None:
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                try:
                    while True:
                        self._reply(await connection.receive_many())
                except LOST:
                    nursery.cancel_scope.cancel()

            nursery.start_soon(receive)
            try:
                while True:
                    await self.wait()
                    await connection.send_many(self.take(RECEIVE_MANY))
            except LOST:
                nursery.cancel_scope.cancel()


class _Called(_Shard):
    """A shard that is a function of this program."""

    def __init__(
        self, number: int, call: Call[Any], reply: Callable[[Sequence[Any]], None]
    ) -> None:
        super().__init__(number)
        self._call = call
        self._reply = reply

    async def run(self) -> None:
        limit = trio.Semaphore(CALLS_MAX)
        async with trio.open_nursery() as nursery:
            while True:
                await self.wait()
                await limit.acquire()
                for value in self.take(1):
                    nursery.start_soon(self._one, value, limit)

    async def _one(self, value: Any, limit: trio.Semaphore) -> None:
        try:
            self._reply([await self._call(value)])
        except LOST as error:
            log.warning("shard %d has not answered: %s", self.number, error)
        finally:
            limit.release()


# Implementations ---------------------------------------------------------------------------------


def _sharding(context: Context) -> Sharding:
    """The client's own arguments; else what the server tells."""
    parameters = context.chosen.parameters
    own = context.layer.arguments
    shards = parameters.get("shards")
    if not isinstance(shards, list) or not 0 < len(shards) <= SHARDS_MAX:
        raise ShardDown(0, "the server names no shards")
    targets = [(str(host), int(port)) for host, port in shards]
    by = own.by if isinstance(own, Sharding) else str(parameters.get("by"))
    return Sharding(targets, by)


@implementation(
    SHARD, "push", ends=Ends.CLIENT, priority=20,
    provides={"key_kind": "field", "targets": "addresses"},
)  # fmt: skip
@asynccontextmanager
async def push(below: Messages[Any], context: Context) -> AsyncIterator[Messages[Any]]:
    """The client sends to the shards; the connection to the server stays, and is idle."""
    sharding = _sharding(context)
    async with open_plain_nursery() as nursery:
        yield Router(
            sharding.targets, sharding.key_of, context.below, context.runtime, nursery
        )
        nursery.cancel_scope.cancel()
    await below.aclose()


@asynccontextmanager
async def _listen(serving: Serving, layer: Layer) -> AsyncIterator[Mapping[str, object]]:
    sharding = layer.arguments
    assert isinstance(sharding, Sharding)
    if not sharding.targets:
        raise ValueError("a server's shard() names the shards: shard(Op, [address, ...], by=...)")
    told = [list(target) for target in sharding.targets if not callable(target)]
    yield {"shards": told, "by": sharding.by if isinstance(sharding.by, str) else ""}


@asynccontextmanager
async def relayed(below: Messages[Any], context: Context) -> AsyncIterator[Messages[Any]]:
    """The server receives all messages, and sends each to its shard."""
    sharding = context.layer.arguments
    assert isinstance(sharding, Sharding)
    async with open_plain_nursery() as nursery:
        router = Router(
            sharding.targets, sharding.key_of, context.below, context.runtime, nursery
        )
        ended = Ended(below)
        nursery.start_soon(_to_shards, below, router, ended, context)
        nursery.start_soon(_from_shards, below, router, ended)
        yield ended
        nursery.cancel_scope.cancel()
    await below.aclose()


class Ended(Messages[Any]):
    """What is above a layer that does all: nothing arrives but the end."""

    def __init__(self, below: Messages[Any]) -> None:
        """Ends when `end` is called."""
        self._below = below
        self._over = trio.Event()

    def end(self) -> None:
        """The peer has gone."""
        self._over.set()

    async def send_many(self, values: Sequence[Any]) -> None:
        """As Messages: beside what the shards answer."""
        await self._below.send_many(values)

    async def receive_many(self, limit: int = RECEIVE_MANY) -> list[Any]:
        """As Messages."""
        await self._over.wait()
        raise trio.EndOfChannel

    async def aclose(self) -> None:
        """As Messages."""
        await self._below.aclose()


async def _to_shards(
    below: Messages[Any], router: Router, ended: Ended, context: Context
) -> None:
    try:
        while True:
            dropped = await router.spread_untrusted(await below.receive_many())
            router.dropped += dropped
            context.runtime.counters["dropped_by_relay"] += dropped
    except (*LOST, trio.ClosedResourceError):
        ended.end()


async def _from_shards(below: Messages[Any], router: Router, ended: Ended) -> None:
    try:
        while True:
            await below.send_many(await router.receive_many())
    except (*LOST, trio.ClosedResourceError):
        ended.end()


relay = Implementation(SHARD, "relay", relayed, ends=Ends.SERVER, priority=10, listen=_listen)
IMPLEMENTATIONS: list[Implementation] = [push, relay]
