"""Servers of the tests of sharding, each a process: python -m tests.switch.xdp.sharded VERB ...

    shards HOST NUMBER ...     answer who they are, and how often they have seen the message
    server HOST ADDRESS ...    the address in front; a line to it is answered by its counters

Each prints a line when it serves.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import trio

from p4xos.chunnels import (
    Chunnel,
    Connection,
    Endpoint,
    Runtime,
    Wire,
    datagrams,
    endpoint,
    reliable,
    serialize,
    shard,
)
from switch.xdp.sharding import xdp

Address = tuple[str, int]


@dataclass(frozen=True)
class Op:
    """A question with its number, or an answer."""

    tags: list[str] | None
    key: str | bytes | int
    number: int
    value: bytes = b""


STACK: Chunnel[Op, Wire] = serialize(Op) | reliable(ordered=False) | datagrams()


PORT = 7000
"""Of the server; shards have those behind it."""


async def serve_shards(host: str, numbers: list[int]) -> None:
    """Those of one host."""
    async with trio.open_nursery() as nursery:
        for number in numbers:
            own: Endpoint[Op] = endpoint(f"shard {number}", STACK, runtime=Runtime())
            await nursery.start(own.serve, shard_handler(number), (host, PORT + 1 + number))
        print("serving", flush=True)


def shard_handler(number: int) -> Callable[[Connection[Op]], Awaitable[None]]:
    """One shard."""
    seen = Counter[int]()

    async def handle(connection: Connection[Op]) -> None:
        while True:
            ops = await connection.receive_many()
            seen.update(op.number for op in ops)
            told = [f"{number} {seen[op.number]}".encode() for op in ops]
            await connection.send_many(
                [Op(None, op.key, op.number, each + b" " + op.value)
                 for op, each in zip(ops, told, strict=True)]
            )  # fmt: skip

    return handle


async def serve(host: str, shards: list[Address]) -> None:
    """The address in front of them."""
    runtime = Runtime()
    runtime.register(xdp)
    own = endpoint("kv", shard(Op, shards, by="key") | STACK, runtime=runtime)
    async with trio.open_nursery() as nursery:
        await nursery.start(own.serve, None, (host, PORT))
        print("serving", flush=True)
        async for _ in trio.lowlevel.FdStream(0):
            await trio.sleep(1.1)  # the kernel's are added every second
            print(json.dumps(runtime.counters), flush=True)
        nursery.cancel_scope.cancel()


def main(verb: str, *words: str) -> None:
    """One of them, until its input ends, or it is killed."""
    if verb == "shards":
        trio.run(serve_shards, words[0], [int(word) for word in words[1:]])
    else:
        places = [word.rpartition(":") for word in words[1:]]
        trio.run(serve, words[0], [(host, int(port)) for host, _, port in places])


if __name__ == "__main__":
    main(*sys.argv[1:])
