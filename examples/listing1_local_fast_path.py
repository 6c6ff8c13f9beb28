"""Listing 1: local fast path. The nearer the two ends are, the shorter the way between them.

    python examples/listing1_local_fast_path.py serve 7000
    python examples/listing1_local_fast_path.py ping 127.0.0.1:7000
"""

from __future__ import annotations

import sys

import trio

from p4xos.chunnels import Connection, Endpoint, endpoint, local_or_remote

container_app: Endpoint[bytes] = endpoint("container-app", local_or_remote())


async def pong(connection: Connection[bytes]) -> None:
    """Answers each message with itself."""
    async for message in connection:
        await connection.send(message)


async def ping(address: str, count: int = 3) -> str:
    """Sends some messages; how they travelled."""
    async with container_app.connect(address) as connection:
        for number in range(count):
            await connection.send(b"ping %d" % number)
            assert await connection.receive() == b"ping %d" % number
        return str(connection.explain())


async def main(verb: str, where: str) -> None:
    """One of both ends."""
    if verb == "serve":
        await container_app.serve(pong, ("0.0.0.0", int(where)))
    else:
        print(await ping(where))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2])
