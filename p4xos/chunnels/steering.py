"""Connections whose messages go to shards by themselves, datagram by datagram.

`shard` can be run by something that stands before the server and reads its datagrams, as a program
in the kernel (switch/xdp/sharding.py). The client talks to one address and knows of no shards. What
its messages are, the shards see as the client sent them: they acknowledge them, and answer. So the
server has no part in it, but

- it introduces each connection to every shard (`introductions`), before the client's first message,
  and looks after them: one that is silent is down, and is introduced to again when it is back;
- it does what the plane leaves to it, in the same way: a datagram that the plane does not
  understand is given to its shard, as it is. No message can be run twice because it once went one
  way and once the other: the shard knows it by its number.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol

import msgpack
import trio

from p4xos.chunnels import messages, singly
from p4xos.chunnels.connection import Messages
from p4xos.chunnels.implementations import Carrier, Context, Over, Serving
from p4xos.chunnels.introductions import Introduction, key_of, pack_introduction
from p4xos.chunnels.messages import ID_BYTES
from p4xos.chunnels.negotiation import Address, Admitted
from p4xos.chunnels.reliability import RELIABLE, SINGLY
from p4xos.chunnels.sharding import LOST, Ended, Sharding, relayed, shard_of
from p4xos.chunnels.udp import Datagrams
from p4xos.chunnels.unwrapping import open_plain_nursery
from p4xos.errors import BadPacket

log = logging.getLogger(__name__)

OVER: Over = {
    "serialize": {"codec": "msgpack"},
    RELIABLE: {"format": SINGLY},
    "transport": {"carrier": "udp"},
}
"""What a plane that reads datagrams can read."""
FIRST_WAIT_S = 1.0
"""How long a connection waits for shards that do not answer."""
TRY_AGAIN_S = 0.05
"""An introduction that is not answered is sent again, later and later."""
LOOK_S = 2.0
SILENT_S = 7.0
"""A shard of which nothing was heard for so long is down."""
_HEAD_BYTES = 1 + ID_BYTES


class Plane(Protocol):
    """What gives datagrams to shards before the server sees them."""

    @property
    def behind(self) -> Sequence[bool]:
        """Of each shard: whether it answers the server's address, and the plane passes that on."""
        ...

    def steer(self, id: bytes, client: Address, up: int, *, numbered: bool) -> None:
        """From here on a connection's messages go to those shards whose bits are set."""
        ...

    def forget(self, id: bytes) -> None:
        """A connection has ended."""
        ...

    def check(self) -> str | None:
        """Looks after itself; why it does not work any more, or None: it does."""
        ...

    def counted(self) -> Mapping[str, int]:
        """What became of datagrams since the last call."""
        ...


# Which shard -------------------------------------------------------------------------------------


def shard_untrusted(
    payload: bytes, shards: int, key_of: Callable[[Any], Any], *, numbered: bool
) -> int:
    """The shard that a client's datagram is for.

    Args:
      payload: behind the connection's id.
      shards: how many there are.
      key_of: a message's key, of the message as plain data.
      numbered: whether a layer stands below the messages that numbers them.

    Raises:
      BadPacket: it is for none.
    """
    if numbered:
        seen = singly.seen_untrusted(payload)
        if seen.kind == singly.ACK:
            if not 0 < seen.origin <= shards:
                raise BadPacket("an acknowledgement for no shard")
            return seen.origin - 1
        payload = seen.message
    try:
        return shard_of(key_of(msgpack.unpackb(payload)), shards)
    except Exception as error:  # whatever a peer's bytes make a key's function do
        raise BadPacket(f"a message without a key ({error!r})") from None


# A connection ------------------------------------------------------------------------------------


class Steered:
    """One connection, at its server."""

    def __init__(
        self, steering: Steering, carried: Datagrams, admitted: Admitted, numbered: bool
    ) -> None:
        """Sees what comes for the connection from here on."""
        self.counters = steering.counters
        self.id = carried.id
        self._steering = steering
        self._carried = carried
        self._admitted = admitted
        self._numbered = numbered
        self._heard_at = dict.fromkeys(range(len(steering.shards)), float("-inf"))
        self._up = 0
        self._moved = trio.Event()
        carried.tap = self._see_untrusted

    # What arrives --------------------------------------------------------------------------------

    def _see_untrusted(self, kind: bytes, data: bytes, address: Address) -> bool:
        """As `Datagrams.tap`."""
        steering = self._steering
        if address == self._admitted.address:
            if kind != messages.DATA:
                return False
            self._carried.heard_at = trio.current_time()
            self._give_untrusted(data)
            return True
        number = steering.number_of.get(address)
        if number is None:
            return False
        if kind == messages.DATA:
            steering.send(data, self._admitted.address)
        elif kind in (messages.CLOSE, messages.DENIED):
            self._set(number, up=False)
        else:
            self._heard_at[number] = trio.current_time()
            if kind == messages.PING:
                steering.send(messages.PONG + self.id, address)
            elif kind == messages.CONFIRMED:
                self._set(number, up=True)
        return True

    def _give_untrusted(self, data: bytes) -> None:
        """A message that was left to this process."""
        steering = self._steering
        payload = data[_HEAD_BYTES:]
        try:
            number = shard_untrusted(
                payload, len(steering.shards), steering.key_of, numbered=self._numbered
            )
        except BadPacket as error:
            self.counters["dropped_by_relay"] += 1
            log.warning("a message was dropped: %s", error)
            return
        if self._up >> number & 1:
            steering.send(data, steering.shards[number])
            self.counters["steered_by_process"] += 1
            return
        self.counters["dropped_by_relay"] += 1
        if self._numbered:  # as a relay takes what it then cannot give
            with suppress(BadPacket):
                told = singly.acknowledgement_untrusted(payload)
                steering.send(messages.DATA + self.id + told, self._admitted.address)

    def _set(self, number: int, *, up: bool) -> None:
        bits = self._up | 1 << number if up else self._up & ~(1 << number)
        if bits == self._up:
            return
        if not up:
            log.warning("shard %d is down: it takes no messages", number)
        self._up = bits
        steer = self._steering.plane.steer
        steer(self.id, self._admitted.address, bits, numbered=self._numbered)
        self._moved.set()

    # What it does by itself ----------------------------------------------------------------------

    async def begin(self) -> None:
        """Introduces the connection; returns when all shards know it, or have had their time."""
        everybody = (1 << len(self._steering.shards)) - 1
        pause = TRY_AGAIN_S
        with trio.move_on_after(FIRST_WAIT_S):
            while self._up != everybody:
                self._introduce()
                self._moved = trio.Event()
                with trio.move_on_after(pause):
                    while self._up != everybody:
                        await self._moved.wait()
                        self._moved = trio.Event()
                pause *= 2
        await trio.lowlevel.checkpoint()

    def _introduce(self) -> None:
        """To those that do not know it."""
        steering = self._steering
        for number, address in enumerate(steering.shards):
            if not self._up >> number & 1:
                answers_to = (
                    steering.address if steering.plane.behind[number] else self._admitted.address
                )
                what = Introduction(
                    self.id, self._admitted.client, answers_to, number + 1, self._admitted.choice
                )
                steering.send(pack_introduction(steering.key, what, time.time()), address)

    async def look_after(self) -> None:
        """Notices shards that are gone or back, until cancelled."""
        while True:
            await trio.sleep(LOOK_S)
            now = trio.current_time()
            for number, address in enumerate(self._steering.shards):
                if self._up >> number & 1:
                    if now - self._heard_at[number] > SILENT_S:
                        self._set(number, up=False)
                    self._steering.send(messages.PING + self.id, address)
            self._introduce()

    def give_up(self) -> None:
        """Ends the connection at both ends."""
        self._carried.say(messages.CLOSE)
        self._carried.end("what gave its messages to the shards is gone; connect again")

    def end(self) -> None:
        """Tells the shards."""
        self._steering.plane.forget(self.id)
        self._carried.tap = None
        for address in self._steering.shards:
            self._steering.send(messages.CLOSE + self.id, address)


class Steering:
    """A server's part in all of its steered connections."""

    def __init__(
        self, serving: Serving, sharding: Sharding, shards: Sequence[Address], plane: Plane
    ) -> None:
        """For a server that is about to begin.

        Raises:
          OSError: there is no key.
        """
        self.address = serving.address
        self.shards = list(shards)
        self.number_of = {address: k for k, address in enumerate(self.shards)}
        self.key_of = sharding.key_of
        self.key = key_of(serving.runtime.sockets)
        self.plane = plane
        self.counters = serving.runtime.counters
        self.send: Callable[[bytes, Address], None] = serving.send
        self.connections: dict[bytes, Steered] = {}
        self.failed: str | None = None

    def count(self) -> None:
        """Adds what the plane has counted to the runtime's counters."""
        for name, number in self.plane.counted().items():
            self.counters[name] = self.counters.get(name, 0) + number

    async def watch(self) -> None:
        """Ends the connections of a plane that works no more; their clients connect again."""
        pause = TRY_AGAIN_S  # at first more is to be found out
        while self.failed is None:
            await trio.sleep(pause)
            pause = min(2 * pause, LOOK_S / 2)
            self.count()
            self.failed = self.plane.check()
        log.error("%s: messages are relayed from here on", self.failed)
        for each in list(self.connections.values()):
            each.give_up()


@asynccontextmanager
async def admit(
    carrier: Carrier, admitted: Admitted, opened: Mapping[str, object]
) -> AsyncIterator[None]:
    """`Implementation.admit` of a plane: what `listen` yields has the Steering as "_steering"."""
    steering = opened["_steering"]
    assert isinstance(steering, Steering)
    carried = await carrier.messages()
    if steering.failed is not None or not isinstance(carried, Datagrams):
        yield  # relayed, as by a server without a plane
        return
    layers = [each.type for each in admitted.choice.layers]
    steered = Steered(steering, carried, admitted, RELIABLE in layers)
    steering.connections[carried.id] = steered
    try:
        await steered.begin()
        async with open_plain_nursery() as nursery:
            nursery.start_soon(steered.look_after)
            yield
            nursery.cancel_scope.cancel()
    finally:
        del steering.connections[carried.id]
        steered.end()


@asynccontextmanager
async def wrap(below: Messages[Any], context: Context) -> AsyncIterator[Messages[Any]]:
    """`Implementation.wrap` of a plane: the connection is there, and its messages are elsewhere."""
    steering = context.opened["_steering"]
    assert isinstance(steering, Steering)
    carried = await context.carrier.messages()
    if not isinstance(carried, Datagrams) or carried.id not in steering.connections:
        async with relayed(below, context) as ended:
            yield ended
        return
    ended = Ended(below)

    async def wait() -> None:
        try:
            while True:
                await below.receive_many()
        except (*LOST, trio.ClosedResourceError):
            ended.end()

    context.nursery.start_soon(wait)
    yield ended
