"""Servers of the figures, each a process: python -m bench.chunnels.servers VERB ...

    ping DIRECTORY [NAME]   messages come back: by local_or_remote, and by a Unix socket and UDP as
                            somebody would write them by hand; with NAME also announced
    shard NUMBER HOST       a shard of the key-value store
    kv HOST ADDRESS ...     the address in front of shards; in the kernel where that can be
    kv-process HOST ADDRESS ...    the same, never in the kernel

Each prints one line when it serves: the address, and for `ping` that of UDP.
"""

from __future__ import annotations

import socket
import sys
from dataclasses import dataclass
from pathlib import Path

import trio

from p4xos.chunnels import (
    Chunnel,
    Connection,
    Endpoint,
    Implementation,
    Runtime,
    Wire,
    datagrams,
    endpoint,
    local_or_remote,
    reliable,
    serialize,
    shard,
)
from switch.xdp.sharding import xdp

UNIX_NAME = "by-hand.sock"
ELSEWHERE = "elsewhere"
"""A name that is announced as of another host, so that messages take the network's way."""
ANYWHERE = ("127.0.0.1", 0)
MESSAGE_BYTES_MAX = 1 << 16


@dataclass(frozen=True)
class Op:
    """A request of YCSB's workload A, and its answer."""

    verb: str
    key: str
    value: bytes = b""


PING: Chunnel[bytes, Wire] = local_or_remote()
STACK: Chunnel[Op, Wire] = serialize(Op) | reliable(ordered=False) | datagrams()


async def answer(connection: Connection[bytes]) -> None:
    """Sends each message back."""
    async for message in connection:
        await connection.send(message)


async def answer_unix(stream: trio.SocketStream) -> None:
    """The same, as it would be written by hand."""
    while data := await stream.receive_some(MESSAGE_BYTES_MAX):
        await stream.send_all(data)


async def answer_udp(sock: trio.socket.SocketType) -> None:
    """The same again."""
    while True:
        data, address = await sock.recvfrom(MESSAGE_BYTES_MAX)
        await sock.sendto(data, address)


async def ping(directory: Path, name: str | None) -> None:
    """All three."""
    runtime = Runtime()
    announced = None
    if name is not None:
        announced, _, where = name.partition("@")
        if where == ELSEWHERE:
            runtime.place = runtime.place._replace(host=ELSEWHERE)
    own: Endpoint[bytes] = endpoint("ping", PING, runtime=runtime)
    async with trio.open_nursery() as nursery:
        by_hand = trio.socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        await by_hand.bind(ANYWHERE)
        nursery.start_soon(answer_udp, by_hand)
        listening = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        path = directory / UNIX_NAME
        path.unlink(missing_ok=True)
        await listening.bind(str(path))
        listening.listen(128)
        nursery.start_soon(
            trio.serve_listeners, answer_unix, [trio.SocketListener(listening)]
        )

        async def serve(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            await own.serve(answer, ANYWHERE, announce=announced, task_status=task_status)

        host, port = await nursery.start(serve)
        print(host, port, by_hand.getsockname()[1], flush=True)


async def serve_shard(number: int, host: str) -> None:
    """A map; what it answers says who it is."""
    pairs: dict[str, bytes] = {}

    async def handle(connection: Connection[Op]) -> None:
        while True:
            replies = []
            for op in await connection.receive_many():
                if op.verb == "put":
                    pairs[op.key] = op.value
                replies.append(Op(f"is {number}", op.key, pairs.get(op.key, b"")))
            await connection.send_many(replies)

    await _serve(endpoint(f"shard {number}", STACK, runtime=Runtime()), handle, host)


async def serve_kv(host: str, addresses: list[tuple[str, int]], *in_front: Implementation) -> None:
    """The address in front of shards."""
    stack = shard(Op, addresses, by="key") | STACK
    runtime = Runtime()
    runtime.known.pop((xdp.type, xdp.name), None)  # an entry point has it where this is installed
    runtime.register(*in_front)
    await _serve(endpoint("kv", stack, runtime=runtime), None, host)


async def _serve(own: Endpoint[Op], handle: object, host: str) -> None:
    async with trio.open_nursery() as nursery:
        host, port = await nursery.start(own.serve, handle, (host, 0))
        print(host, port, flush=True)


def main(verb: str, *words: str) -> None:
    """One of them, until it is killed."""
    if verb == "ping":
        trio.run(ping, Path(words[0]), words[1] if len(words) > 1 else None)
    elif verb == "shard":
        trio.run(serve_shard, int(words[0]), words[1])
    else:
        hosts = [word.rpartition(":") for word in words[1:]]
        addresses = [(host, int(port)) for host, _, port in hosts]
        trio.run(serve_kv, words[0], addresses, *((xdp,) if verb == "kv" else ()))


if __name__ == "__main__":
    main(*sys.argv[1:])
