"""Connections whose messages go to shards one by one: all that is the same for every plane.

Here the plane does nothing, so that the server's process gives each datagram to its shard, as it
does with what a plane leaves to it; tests/switch/xdp/test_sharding.py has the kernel do it.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import msgpack
import pytest
import trio

from p4xos.chunnels import (
    Connection,
    Endpoint,
    Ends,
    Implementation,
    Scope,
    datagrams,
    endpoint,
    introductions,
    messages,
    reliable,
    serialize,
    shard,
    shard_of,
    steering,
)
from p4xos.chunnels.choosing import Choice
from p4xos.chunnels.errors import Unable
from p4xos.chunnels.implementations import Serving
from p4xos.chunnels.introductions import Introduction
from p4xos.chunnels.sharding import SHARD, Sharding, field_of
from p4xos.chunnels.singly import ACK, HEADER, MESSAGE, NUMBER, Singly
from p4xos.chunnels.stack import Layer
from p4xos.chunnels.steering import Steering
from p4xos.errors import BadPacket
from tests.chunnels.messages import ANYWHERE, Op, apart, elsewhere, patiently

Address = tuple[str, int]
STACK = serialize(Op) | reliable(ordered=False) | datagrams()
PLAIN = serialize(Op) | datagrams()
ORDERED = serialize(Op) | reliable() | datagrams()
SHARDS = 3
KEYS = ["", "a", "bb", "ccc", *map(str, range(60))]
EXPECTED = {key: shard_of(key, SHARDS) for key in KEYS}


class Idle:
    """A plane that leaves all to the process."""

    def __init__(self, shards: int) -> None:
        self.behind: Sequence[bool] = [True] * shards
        self.up: dict[bytes, int] = {}
        self.broken: str | None = None

    def steer(self, id: bytes, client: Address, up: int, *, numbered: bool) -> None:
        self.up[id] = up

    def forget(self, id: bytes) -> None:
        self.up.pop(id, None)

    def check(self) -> str | None:
        return self.broken

    def counted(self) -> Mapping[str, int]:
        return {"idle_looks": 1}


class Lab:
    """Shards, the server before them, and what its plane was told."""

    def __init__(self) -> None:
        self.shards: list[Address] = []
        self.scopes: list[trio.CancelScope] = []
        self.seen = Counter[tuple[int, str]]()
        self.runtime = apart()
        self.address: Address
        self.steering: Steering
        self.plane: Idle
        self.nursery: trio.Nursery
        self.plain = False
        self.unable = ""
        self.loss = 0.0
        self.runtime.register(
            Implementation(
                SHARD, "by hand", steering.wrap, ends=Ends.SERVER, scope=Scope.HOST, priority=30,
                apart=Scope.LOCAL_NETWORK, over=steering.OVER, listen=self.listen,
                admit=steering.admit,
            )
        )  # fmt: skip

    @asynccontextmanager
    async def listen(self, serving: Serving, layer: Layer) -> AsyncIterator[Mapping[str, object]]:
        if self.unable:
            raise Unable(self.unable)
        assert isinstance(layer.arguments, Sharding)
        self.plane = Idle(SHARDS)
        self.steering = Steering(serving, layer.arguments, self.shards, self.plane)
        send, random = self.steering.send, Random(3)

        def lossy(data: bytes, address: Address) -> None:
            if random.random() >= self.loss:
                send(data, address)

        self.steering.send = lossy
        serving.nursery.start_soon(self.steering.watch)
        yield {"_steering": self.steering}

    async def start(self, number: int, address: Address = ANYWHERE) -> Address:
        started: Address = await self.nursery.start(self.shard, number, address)
        return started

    async def shard(
        self, number: int, address: Address, task_status: trio.TaskStatus[Address]
    ) -> None:
        async def handler(connection: Connection[Op]) -> None:
            async for op in connection:
                self.seen[number, op.key] += 1
                await connection.send(Op("done", op.key, str(number).encode()))

        with trio.CancelScope() as self.scopes[number]:
            stack = PLAIN if self.plain else STACK
            own = endpoint(f"shard {number}", stack, runtime=apart())
            await own.serve(handler, address, task_status=task_status)


@asynccontextmanager
async def lab(*, plain: bool = False, unable: str = "") -> AsyncIterator[Lab]:
    made = Lab()
    made.plain, made.unable = plain, unable
    async with patiently(), trio.open_nursery() as made.nursery:
        for number in range(SHARDS):
            made.scopes.append(trio.CancelScope())
            made.shards.append(await made.start(number))
        stack = shard(Op, made.shards, by="key") | (PLAIN if plain else STACK)
        async with endpoint("kv", stack, runtime=made.runtime).serving(None, ANYWHERE) as address:
            made.address = address
            yield made
        made.nursery.cancel_scope.cancel()


@asynccontextmanager
async def steered(
    *, plain: bool = False, unable: str = ""
) -> AsyncIterator[tuple[Lab, Connection[Op]]]:
    """With a client of another host."""
    stack = PLAIN if plain else STACK
    async with (
        lab(plain=plain, unable=unable) as it,
        endpoint("s", stack, runtime=elsewhere()).connect(it.address) as connection,
    ):
        yield it, connection


async def ask(connection: Connection[Op], keys: list[str]) -> dict[str, int]:
    """Which shard answered for each key."""
    await connection.send_many([Op("put", key) for key in keys])
    found: dict[str, int] = {}
    while len(found) < len(keys):
        for reply in await connection.receive_many():
            found[reply.key] = int(reply.value)
    return found


@pytest.mark.parametrize("plain", [False, True], ids=["reliable", "datagrams"])
async def test_a_client_that_knows_of_no_shards(plain: bool) -> None:
    async with lab(plain=plain) as it:
        client = endpoint("c", PLAIN if plain else STACK, runtime=elsewhere())
        async with client.connect(it.address) as connection:
            told = connection.explain()
            assert told.implementation("shard") == "by hand"
            assert "also possible: relay" in str(told)
            if not plain:
                assert told.implementation("reliable") == "singly"
            assert await ask(connection, KEYS) == EXPECTED
            assert list(it.plane.up.values()) == [0b111]
        while it.plane.up:
            await trio.sleep(0.01)
        assert it.runtime.counters["steered_by_process"] >= len(KEYS)
        assert it.runtime.counters["dropped_by_relay"] == 0
        assert all(it.seen[number, key] == 1 for key, number in EXPECTED.items())


async def test_four_kinds_of_clients_at_once() -> None:
    """Who pushes, whose messages are steered, who wants order and is relayed, who takes all."""
    kinds: dict[str, tuple[Endpoint[Any], str]] = {
        "pushing": (endpoint("p", shard(Op, by="key") | STACK, runtime=elsewhere()), "push"),
        "steered": (endpoint("s", STACK, runtime=elsewhere()), "by hand"),
        "ordered": (endpoint("o", ORDERED, runtime=elsewhere()), "relay"),
        "near": (endpoint("n", STACK, runtime=apart()), "relay"),
    }
    async with lab() as it, trio.open_nursery() as nursery:

        async def use(client: Endpoint[Op], how: str) -> None:
            async with client.connect(it.address) as connection:
                assert connection.explain().implementation("shard") == how
                for _ in range(3):
                    assert await ask(connection, KEYS) == EXPECTED

        for client, how in kinds.values():
            nursery.start_soon(use, client, how)
    assert all(it.seen[number, key] == 12 for key, number in EXPECTED.items())


async def test_why_a_connection_is_relayed() -> None:
    async with lab() as it:
        for client, why in (
            (endpoint("o", ORDERED, runtime=elsewhere()), "it needs reliable with format=singly-1"),
            (endpoint("n", STACK, runtime=apart()), "the ends are within one host"),
            (
                endpoint("j", serialize(Op).require(codec="json") | reliable(ordered=False)
                         | datagrams(), runtime=elsewhere()),
                "it needs serialize with codec=msgpack",
            ),
        ):  # fmt: skip
            async with client.connect(it.address) as connection:
                assert f"not by hand (server): {why}" in str(connection.explain())
                assert await ask(connection, KEYS[:9]) == {k: EXPECTED[k] for k in KEYS[:9]}
    async with steered(unable="there is no clang") as (it, connection):
        told = str(connection.explain())
        assert "relay" in told
        assert "not by hand (server): there is no clang" in told
        assert await ask(connection, KEYS) == EXPECTED


async def test_exactly_once_where_datagrams_are_lost() -> None:
    """Introductions, messages, acknowledgements and answers, all of which pass the server here."""
    async with lab() as it:
        it.loss = 0.2
        async with endpoint("s", STACK, runtime=elsewhere()).connect(it.address) as connection:
            assert connection.explain().implementation("shard") == "by hand"
            for _ in range(3):
                assert await ask(connection, KEYS) == EXPECTED
        assert all(it.seen[number, key] == 3 for key, number in EXPECTED.items())


async def test_one_dead_shard_stalls_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """docs/traps.md, 17; and it is introduced to again when it is back."""
    monkeypatch.setattr(steering, "LOOK_S", 0.05)
    async with steered() as (it, connection):
        assert await ask(connection, KEYS) == EXPECTED
        it.scopes[1].cancel()
        await connection.send_many([Op("put", key) for key in KEYS])  # some for the dead one
        alive = [key for key, number in EXPECTED.items() if number != 1]
        for _ in range(5):
            assert set((await ask(connection, alive)).values()) == {0, 2}
        (id,) = it.plane.up
        while it.plane.up[id] != 0b101 or not it.runtime.counters["dropped_by_relay"]:
            await trio.sleep(0.01)
        await it.start(1, it.shards[1])
        while it.plane.up[id] != 0b111:
            await trio.sleep(0.01)
        assert await ask(connection, KEYS) == EXPECTED


async def test_a_silent_shard_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steering, "LOOK_S", 0.02)
    monkeypatch.setattr(steering, "SILENT_S", 0.3)
    async with steered() as (it, connection):
        assert await ask(connection, KEYS) == EXPECTED
        (id,) = it.plane.up
        it.loss = 1.0
        while it.plane.up[id]:
            await trio.sleep(0.01)
        it.loss = 0.0
        while it.plane.up[id] != 0b111:
            await trio.sleep(0.01)
        assert await ask(connection, KEYS) == EXPECTED


async def test_a_plane_that_breaks_ends_its_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their clients connect again, and are relayed."""
    monkeypatch.setattr(steering, "LOOK_S", 0.02)
    async with lab() as it:
        client = endpoint("s", STACK, runtime=elsewhere())
        async with client.connect(it.address) as connection:
            assert await ask(connection, KEYS) == EXPECTED
            it.plane.broken = "the interface is gone"
            with pytest.raises((trio.EndOfChannel, trio.BrokenResourceError)):
                await connection.receive()
        async with client.connect(it.address) as connection:
            assert await ask(connection, KEYS) == EXPECTED
        assert not it.plane.up


async def test_messages_for_no_shard_are_counted() -> None:
    """What a peer sends against its word ends nothing for the others."""
    async with steered(plain=True) as (it, connection):
        (one,) = it.steering.connections.values()
        client = one._admitted.address
        for payload in (b"", b"\xc1", msgpack.packb({"verb": "put"}), msgpack.packb([1])):
            data = messages.DATA + one.id + payload
            assert one._see_untrusted(messages.DATA, data, client)
        assert it.runtime.counters["dropped_by_relay"] == 4
        assert await ask(connection, KEYS) == EXPECTED


KEY = b"k" * 32
CHOICE = Choice(0, 0, ())
WHAT = Introduction(b"12345678", "c", ("10.0.0.1", 4000), 1, CHOICE)


def test_introductions_are_taken_from_who_has_the_key() -> None:
    now = 1000.0
    data = introductions.pack_introduction(KEY, WHAT, now)[1:]
    assert introductions.introduction_untrusted(KEY, data, now) == WHAT
    for key, other, at in (
        (b"x" * 32, data, now),
        (KEY, data[:20] + b"x" + data[21:], now),
        (KEY, data, now + 2 * introductions.VALID_S),
        (KEY, data, now - 2 * introductions.VALID_S),
        (KEY, b"", now),
    ):
        with pytest.raises(BadPacket):
            introductions.introduction_untrusted(key, other, at)


async def test_a_forged_introduction_opens_nothing() -> None:
    async with lab() as it:
        data = introductions.pack_introduction(b"x" * 32, WHAT, time.time())
        with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as stranger:
            await stranger.sendto(data, it.shards[0])
            ping = messages.PING + WHAT.id
            await stranger.sendto(ping, it.shards[0])
        async with endpoint("s", STACK, runtime=elsewhere()).connect(it.address) as connection:
            assert await ask(connection, KEYS) == EXPECTED
            assert list(it.plane.up.values()) == [0b111]


def test_the_key_is_made_once_and_nobody_else_reads_it(tmp_path: Path) -> None:
    key = introductions.key_of(tmp_path)
    assert introductions.key_of(tmp_path) == key
    assert os.listdir(tmp_path) == [introductions.KEY_FILE]
    assert (tmp_path / introductions.KEY_FILE).stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError, match="no directory"):
        introductions.key_of(None)


def test_which_shard() -> None:
    key_of = field_of("key")
    packed = msgpack.packb({"verb": "put", "key": "k", "value": b""})
    assert steering.shard_untrusted(packed, 3, key_of, numbered=False) == shard_of("k", 3)
    end = Singly(client=True)
    end.write([packed])
    (datagram,) = end.transmit(0.0)
    assert steering.shard_untrusted(datagram, 3, key_of, numbered=True) == shard_of("k", 3)
    ack = HEADER.pack(ACK, 2, 0, 0, 0, 1) + NUMBER.pack(7)
    assert steering.shard_untrusted(ack, 3, key_of, numbered=True) == 1
    for payload in (HEADER.pack(ACK, 4, 0, 0, 0, 0), HEADER.pack(ACK, 0, 0, 0, 0, 0),
                    HEADER.pack(MESSAGE, 0, 1, 1, 0, 0) + b"\xc1", b"x"):  # fmt: skip
        with pytest.raises(BadPacket):
            steering.shard_untrusted(payload, 3, key_of, numbered=True)


