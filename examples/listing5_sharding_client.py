"""Listing 5: code for a sharding client. It asks for nothing; the server dictates all layers.

    python examples/listing5_sharding_client.py 127.0.0.1:7000 some-key
"""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager
from typing import Any

import trio

from p4xos.chunnels import Connection, endpoint


def connect(addr: str | tuple[str, int]) -> AbstractAsyncContextManager[Connection[Any]]:
    """A connection whose layers are the server's."""
    return endpoint("client_conn").connect(addr)


async def put_key(k: str, value: bytes, addr: str | tuple[str, int]) -> None:
    """Puts a key into the key-value store."""
    async with connect(addr) as c:
        await c.send({"verb": "put", "key": k, "value": value})
        await c.receive()


async def get_key(k: str, addr: str | tuple[str, int]) -> bytes:
    """Gets a key from the key-value store."""
    async with connect(addr) as c:
        await c.send({"verb": "get", "key": k, "value": b""})
        value: bytes = (await c.receive())["value"]
        return value


async def main(addr: str, key: str) -> None:
    """Puts a value, and gets it."""
    await put_key(key, b"a value", addr)
    print(await get_key(key, addr))
    async with connect(addr) as c:
        print(c.explain())


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    trio.run(main, sys.argv[1], sys.argv[2])
