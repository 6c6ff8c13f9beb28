"""One connection over UDP, at its client's end: nobody waits for what is already there."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from p4xos.chunnels import messages
from p4xos.chunnels.udp import ClientDatagrams, open_socket
from tests.chunnels.messages import ANYWHERE, patiently

ID = bytes(range(messages.ID_BYTES))


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[ClientDatagrams, socket.socket]]:
    """The client's end, and the socket of its server."""
    with open_socket(ANYWHERE) as client, open_socket(ANYWHERE) as server:
        client.connect(server.getsockname())
        server.connect(client.getsockname())
        async with patiently():
            yield ClientDatagrams(ID, client, b"ticket"), server


async def test_who_waits_gets_what_another_task_took() -> None:
    got: list[bytes] = []

    async def receive() -> None:
        got.extend(await client.receive_many())

    async with connected() as (client, server), trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        server.send(messages.DATA + ID + b"here")
        assert client.drain()  # as the task beside does, before the loop looks at the socket again
    assert got == [b"here"]


@pytest.mark.parametrize("give_up", [True, False], ids=["given up", "closed"])
async def test_who_waits_is_told_of_the_end(*, give_up: bool) -> None:
    async def receive() -> None:
        error = trio.BrokenResourceError if give_up else trio.ClosedResourceError
        with pytest.raises(error, match="nothing was heard" if give_up else "closed here"):
            await client.receive_many()

    async with connected() as (client, _), trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        if give_up:
            client.end("nothing was heard")
        else:
            await client.aclose()
