"""Shards: who sends where, mixed clients, any key, and a shard that is dead."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import Any

import pytest
import trio

from p4xos.chunnels import (
    Connection,
    Endpoint,
    ShardDown,
    endpoint,
    local_or_remote,
    reliable,
    serialize,
    shard,
    shard_of,
)
from p4xos.chunnels.sharding import field_of
from tests.chunnels.messages import ANYWHERE, Op, apart, elsewhere, patiently

Address = tuple[str, int]
STACK = serialize(Op) | reliable() | local_or_remote()
SHARDS = 3


def test_a_key_of_any_length_has_a_shard() -> None:
    """docs/traps.md, 17: keys shorter than 4 bytes crashed a shard hash."""
    random = Random(0)
    for length in (0, 1, 2, 3, 4, 100, 100_000):
        assert 0 <= shard_of(random.randbytes(length), 7) < 7
    assert shard_of("", 3) == shard_of(b"", 3)
    assert shard_of("ö", 3) == shard_of("ö".encode(), 3)
    assert shard_of(17, 3) == shard_of("17", 3)
    assert shard_of(b"123456789", 2**32) == 0xCBF43926  # CRC-32, as every language has it
    assert {shard_of(str(k), 3) for k in range(100)} == {0, 1, 2}


def test_a_field_is_found_in_records_and_dictionaries() -> None:
    key = field_of("key")
    assert key(Op("put", "a")) == key({"key": "a"}) == "a"
    with pytest.raises(ValueError, match="give a text, bytes or a number"):
        key({"key": 1.5})


class Shards:
    """Servers of the shards, each of which can be stopped."""

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.seen: list[list[Op]] = []
        self.scopes: list[trio.CancelScope] = []

    async def run(self, number: int, task_status: trio.TaskStatus[Address]) -> None:
        async def handler(connection: Connection[Op]) -> None:
            async for op in connection:
                self.seen[number].append(op)
                await connection.send(Op("done", op.key, str(number).encode()))

        with trio.CancelScope() as scope:
            self.scopes.append(scope)
            # Each as of its own process: else all would be one memory.
            own = endpoint(f"shard {number}", STACK, runtime=elsewhere())
            await own.serve(handler, ANYWHERE, task_status=task_status)


@asynccontextmanager
async def shards(count: int = SHARDS) -> AsyncIterator[Shards]:
    running = Shards()
    async with patiently(), trio.open_nursery() as nursery:
        for number in range(count):
            running.seen.append([])
            running.addresses.append(await nursery.start(running.run, number))
        yield running
        nursery.cancel_scope.cancel()


async def ask(connection: Connection[Op], keys: list[str]) -> dict[str, int]:
    """Which shard answered for each key."""
    await connection.send_many([Op("put", key) for key in keys])
    found: dict[str, int] = {}
    while len(found) < len(keys):
        for reply in await connection.receive_many():
            found[reply.key] = int(reply.value)
    return found


KEYS = ["", "a", "bb", "ccc", *map(str, range(60))]
EXPECTED = {key: shard_of(key, SHARDS) for key in KEYS}


@pytest.mark.parametrize("way", ["push", "relay", "thin"])
async def test_each_message_reaches_its_shard(way: str) -> None:
    async with shards() as running:
        stack = shard(Op, running.addresses, by="key") | STACK
        async with endpoint("kv", stack, runtime=apart()).serving(None, ANYWHERE) as address:
            clients: dict[str, Endpoint[Any]] = {
                "push": endpoint("push", shard(Op, by="key") | STACK, runtime=elsewhere()),
                "relay": endpoint("relay", STACK, runtime=elsewhere()),
                "thin": endpoint("thin", runtime=elsewhere()),
            }
            client = clients[way]
            async with client.connect(address) as connection:
                told = connection.explain()
                assert told.implementation("shard") == ("relay" if way == "relay" else "push")
                if way == "thin":
                    await connection.send({"verb": "put", "key": "a", "value": b""})
                    assert (await connection.receive())["value"] == str(EXPECTED["a"]).encode()
                else:
                    assert await ask(connection, KEYS) == EXPECTED


async def test_clients_of_both_kinds_at_once() -> None:
    pushing = shard(Op, by="key") | STACK
    async with shards() as running:
        stack = shard(Op, running.addresses, by="key") | STACK
        async with (
            endpoint("kv", stack, runtime=apart()).serving(None, ANYWHERE) as address,
            endpoint("p", pushing, runtime=elsewhere()).connect(address) as push,
            endpoint("r", STACK, runtime=elsewhere()).connect(address) as relay,
            trio.open_nursery() as nursery,
        ):

            async def use(connection: Connection[Op]) -> None:
                for _ in range(5):
                    assert await ask(connection, KEYS) == EXPECTED

            nursery.start_soon(use, push)
            nursery.start_soon(use, relay)


def keys_of(number: int, count: int = 20) -> list[str]:
    found = (str(k) for k in range(10_000) if shard_of(str(k), SHARDS) == number)
    return [next(found) for _ in range(count)]


@pytest.mark.parametrize("way", ["push", "relay"])
async def test_one_dead_shard_stalls_nobody_else(way: str) -> None:
    """docs/traps.md, 17: one dead shard stalled all."""
    async with shards() as running:
        stack = shard(Op, running.addresses, by="key") | STACK
        client = shard(Op, by="key") | STACK if way == "push" else STACK
        async with (
            endpoint("kv", stack, runtime=apart()).serving(None, ANYWHERE) as address,
            endpoint("c", client, runtime=elsewhere()).connect(address) as connection,
        ):
            assert await ask(connection, KEYS) == EXPECTED
            running.scopes[1].cancel()
            alive = [*keys_of(0), *keys_of(2)]
            told = 0
            for _ in range(30):
                try:
                    await connection.send_many([Op("put", key) for key in keys_of(1)])
                except ShardDown as down:
                    told += down.shard
                assert set((await ask(connection, alive)).values()) == {0, 2}
                if told and way == "push":
                    break
                await trio.sleep(0.01)
            assert told == (1 if way == "push" else 0)


async def test_a_shard_may_be_a_function() -> None:
    """As one that submits to a group."""
    seen: list[str] = []

    async def first(op: Op) -> Op:
        await trio.lowlevel.checkpoint()
        seen.append(op.key)
        return Op("first", op.key)

    async def second(op: Op) -> Op:
        if op.verb == "fail":
            raise trio.BrokenResourceError("its group is down")
        return Op("second", op.key)

    stack = shard(Op, [first, second], by="key") | STACK
    async with (
        patiently(),
        endpoint("kv", stack).serving(None, ANYWHERE) as address,
        endpoint("thin", shard(Op, by="key") | STACK).connect(address) as connection,
    ):
        assert connection.explain().implementation("shard") == "relay"
        keys = [str(k) for k in range(50)]
        await connection.send_many([Op("fail", key) for key in keys if shard_of(key, 2)])
        await connection.send_many([Op("put", key) for key in keys])
        answers: dict[str, str] = {}
        while len(answers) < len(keys):
            answers |= {reply.key: reply.verb for reply in await connection.receive_many()}
        assert answers == {key: ("first", "second")[shard_of(key, 2)] for key in keys}
        assert sorted(seen) == sorted(key for key in keys if not shard_of(key, 2))


async def test_a_server_must_name_its_shards() -> None:
    async with AsyncExitStack() as stack:
        with pytest.raises(ValueError, match="names the shards"):
            await stack.enter_async_context(
                endpoint("kv", shard(Op, by="key") | STACK).serving(None, ANYWHERE)
            )


async def test_a_message_without_a_key_ends_nothing() -> None:
    """A function that finds keys may trip; who sent such a message is the only one to wait."""

    async def answer(op: Op) -> Op:
        return op

    own = apart()
    stack = shard(Op, [answer], by=lambda op: int(op.key)) | STACK
    async with (
        patiently(),
        endpoint("kv", stack, runtime=own).serving(None, ANYWHERE) as address,
        endpoint("c", STACK, runtime=apart()).connect(address) as connection,
    ):
        await connection.send_many([Op("put", "no number"), Op("put", "17")])
        assert await connection.receive() == Op("put", "17")
        assert own.counters["dropped_by_relay"] == 1
