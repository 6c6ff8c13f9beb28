"""Connections of real ends: sockets, memory, handlers, errors, teardown."""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
import trio

from p4xos.chunnels import (
    Chunnel,
    Connection,
    Context,
    Messages,
    NoAgreement,
    NoAnswer,
    Runtime,
    UnknownName,
    datagrams,
    endpoint,
    layer,
    local_or_remote,
    mapping,
    messages,
    reliable,
    serialize,
)
from p4xos.chunnels.implementations import Functions
from p4xos.chunnels.serving import Server
from p4xos.chunnels.stack import Layer
from p4xos.chunnels.transport import sweep
from tests.chunnels.messages import ANYWHERE, Op, apart, echo, elsewhere, patiently

STACK = serialize(Op) | reliable() | local_or_remote()
OP = Op("put", "a", b"1")


@pytest.mark.parametrize(
    ("runtime", "carrier", "layers"),
    [
        (None, "memory", ["serialize", "transport"]),
        (apart, "unix", ["serialize", "transport"]),
        (elsewhere, "udp", ["serialize", "reliable", "transport"]),
    ],
)
async def test_the_same_program_by_the_best_way(
    runtime: type[Runtime] | None, carrier: str, layers: list[str]
) -> None:
    own = None if runtime is None else runtime()
    async with (
        patiently(),
        endpoint("kv", STACK).serving(echo, ANYWHERE) as address,
        endpoint("client", STACK, runtime=own).connect(address) as connection,
    ):
        await connection.send(OP)
        assert await connection.receive() == OP
        many = [Op("put", str(k), b"x" * k) for k in range(300)]
        await connection.send_many(many)
        found: list[Op] = []
        while len(found) < len(many):
            found += await connection.receive_many()
        assert found == many
        told = connection.explain()
        assert told.implementation("transport") == carrier
        assert [each.type for each in told.layers] == layers
        assert connection.metrics["serialize"].sent == 301
        assert connection.metrics["serialize"].received == 301
        assert list(connection.metrics) == layers


async def test_an_empty_stack_takes_the_servers() -> None:
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        for runtime in (None, apart(), elsewhere()):
            async with endpoint("thin", runtime=runtime).connect(address) as connection:
                await connection.send({"verb": "put", "key": "a", "value": b"1"})
                assert await connection.receive() == {"verb": "put", "key": "a", "value": b"1"}
                await connection.send(OP)
                assert (await connection.receive())["key"] == "a"


async def test_iteration_ends_with_the_connection() -> None:
    async def three(connection: Connection[Op]) -> None:
        await connection.send_many([OP] * 3)

    for runtime in (None, apart(), elsewhere()):
        async with (
            patiently(),
            endpoint("kv", STACK).serving(three, ANYWHERE) as address,
            endpoint("client", STACK, runtime=runtime).connect(address) as connection,
        ):
            assert [op async for op in connection] == [OP] * 3


# Round trips -------------------------------------------------------------------------------------


class CountedSocket(socket.socket):
    sent: list[bytes] = []  # noqa: RUF012  # of all of them

    def send(self, data: bytes, *flags: int) -> int:  # type: ignore[override]  # of this test
        self.sent.append(bytes(data))
        return super().send(data, *flags)


@pytest.mark.parametrize("runtime", [None, apart, elsewhere])
async def test_connecting_takes_one_round_trip_of_negotiation(
    runtime: type[Runtime] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ticket goes before the first message, and nobody waits for its confirmation."""
    own = None if runtime is None else runtime()
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        monkeypatch.setattr("p4xos.chunnels.connecting.socket.socket", CountedSocket)
        CountedSocket.sent.clear()
        async with endpoint("client", STACK, runtime=own).connect(address):
            kinds = [data[:1] for data in CountedSocket.sent]
            assert kinds.count(messages.OFFER) == 1
            # Beside it only the ticket leaves: as a datagram, or first on the Unix socket.
            assert set(kinds) <= {messages.OFFER, messages.CONFIRM, b"\0"}


class LossySocket(socket.socket):
    """Of whatever is sent by it, a third is lost."""

    random = Random(7)

    def send(self, data: bytes, *flags: int) -> int:  # type: ignore[override]  # of this test
        lost = self.type == socket.SOCK_DGRAM and self.random.random() < 0.3
        return len(data) if lost else super().send(data, *flags)

    def sendto(self, data: bytes, *where: object) -> int:  # type: ignore[override]  # the same
        lost = self.random.random() < 0.3
        return len(data) if lost else super().sendto(data, *where)  # type: ignore[call-overload]


async def test_a_third_of_all_datagrams_may_be_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the handshake, of the messages, in both directions."""
    monkeypatch.setattr("p4xos.chunnels.connecting.socket.socket", LossySocket)
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        for _ in range(2):
            client = endpoint("client", STACK, runtime=elsewhere())
            async with client.connect(address, timeout=20) as connection:
                many = [Op("put", str(k), b"x" * 50 * k) for k in range(20)]
                await connection.send_many(many)
                assert [await connection.receive() for _ in many] == many


# Addresses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("127.0.0.1:99999", "port of 127.0.0.1:99999 is not within 1 and 65535"),
        (("127.0.0.1", 70000), "port of 127.0.0.1:70000 is not within"),
        ([("127.0.0.1", 7000), ("127.0.0.1", 0)], "port of 127.0.0.1:0 is not within"),
        ("127.0.0.1:seven", "neither HOST:PORT .* nor a name"),
        ("[::1]:7000", "neither HOST:PORT"),
        ("", "neither HOST:PORT"),
        ([], "no address is given"),
    ],
)
async def test_what_is_no_address_is_refused_before_anybody_is_asked(
    to: str | tuple[str, int] | list[tuple[str, int]], told: str
) -> None:
    with pytest.raises(ValueError, match=told):
        async with endpoint("c", STACK).connect(to):
            pass


async def test_a_host_that_is_unknown_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """And of several the others are tried."""

    async def found(host: str, *rest: object, **more: object) -> list[tuple[object, ...]]:
        if host == "nobody":
            raise socket.gaierror(-2, "Name or service not known")
        return [(0, 0, 0, "", (host, rest[0]))]

    monkeypatch.setattr("p4xos.chunnels.connecting.trio.socket.getaddrinfo", found)
    with pytest.raises(socket.gaierror, match="nobody: Name or service not known; check the name"):
        async with endpoint("c", STACK).connect("nobody:7000"):
            pass
    async with (
        patiently(),
        endpoint("kv", STACK).serving(echo, ANYWHERE) as address,
        endpoint("c", STACK).connect([("nobody", 7000), address]) as connection,
    ):
        await connection.send(OP)
        assert await connection.receive() == OP


async def test_an_address_in_use_is_named() -> None:
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as (host, port):
        with pytest.raises(OSError, match=rf"in use: '{host}:{port} \(UDP\)'"):
            await endpoint("kv", STACK).serve(echo, (host, port))


# Errors ------------------------------------------------------------------------------------------


async def test_an_applications_error_comes_out_as_it_is() -> None:
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        for runtime in (None, apart(), elsewhere()):
            with pytest.raises(KeyError, match="mine"):
                async with endpoint("client", STACK, runtime=runtime).connect(address):
                    raise KeyError("mine")


async def test_a_handlers_error_comes_out_of_serve_as_it_is() -> None:
    async def failing(connection: Connection[Op]) -> None:
        await connection.receive()
        raise LookupError("of the handler")

    async def use() -> None:
        async with (
            patiently(),
            endpoint("kv", STACK).serving(failing, ANYWHERE) as address,
            endpoint("client", STACK).connect(address) as connection,
        ):
            await connection.send(OP)
            await trio.sleep_forever()

    with pytest.raises(LookupError, match="of the handler"):
        await use()


async def test_a_peer_that_goes_ends_its_connection_only() -> None:
    async with (
        patiently(),
        endpoint("kv", STACK).serving(echo, ANYWHERE) as address,
        endpoint("stays", STACK).connect(address) as stays,
    ):
        async with endpoint("goes", STACK).connect(address) as goes:
            await goes.send_many([OP] * 100)
        await stays.send(OP)
        assert await stays.receive() == OP


async def test_nobody_there_is_told_at_the_deadline(autojump_clock: object) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(ANYWHERE)
        with pytest.raises(NoAnswer, match=r"has not answered within 0\.2 s"):
            async with endpoint("client", STACK).connect(silent.getsockname(), timeout=0.2):
                pass


async def test_what_does_not_fit_is_told_to_the_client() -> None:
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        wrong = serialize(str) | reliable() | local_or_remote()
        with pytest.raises(NoAgreement, match=r"layer serialize: .*schema is") as raised:
            async with endpoint("client", wrong).connect(address):
                pass
        assert raised.value.layer == "serialize"
        assert raised.value.member == f"{address[0]}:{address[1]}"


async def test_a_name_needs_a_discovery_service() -> None:
    with pytest.raises(UnknownName, match="P4XOS_DISCOVERY"):
        async with endpoint("client", STACK).connect("kv.prod"):
            pass


async def test_a_server_needs_a_stack() -> None:
    with pytest.raises(ValueError, match="has no stack"):
        await endpoint("kv").serve(echo, ANYWHERE)


async def test_one_of_several_addresses_is_enough() -> None:
    async with patiently(), endpoint("kv", STACK).serving(echo, ANYWHERE) as address:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
            silent.bind(ANYWHERE)
            both = [silent.getsockname(), address]
            async with endpoint("client", STACK).connect(both) as connection:
                await connection.send(OP)
                assert await connection.receive() == OP


# Initialisation and teardown ---------------------------------------------------------------------


def recording(name: str, seen: list[str], runtime: Runtime) -> Chunnel[bytes, bytes]:
    """A layer that tells when it begins and ends."""

    @runtime.implementation(name, "recording")
    @asynccontextmanager
    async def wrap(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
        seen.append(f"{context.side.value} {name} begins")
        try:
            yield below
        finally:
            seen.append(f"{context.side.value} {name} ends")

    return layer(name)


@pytest.mark.parametrize("way", ["close", "error", "cancel"])
async def test_every_layer_is_torn_down_however_it_ends(way: str) -> None:
    runtime, seen = Runtime(), list[str]()
    stack = recording("upper", seen, runtime) | recording("lower", seen, runtime) | datagrams()
    over = trio.Event()

    async def handler(connection: Connection[bytes]) -> None:
        try:
            await echo(connection)
        finally:
            over.set()

    async with (
        patiently(),
        endpoint("kv", stack, runtime=runtime).serving(handler, ANYWHERE) as address,
    ):
        try:
            with trio.CancelScope() as scope:
                async with endpoint("c", stack, runtime=runtime).connect(address) as connection:
                    await connection.send(b"x")
                    await connection.receive()
                    if way == "error":
                        raise ZeroDivisionError
                    if way == "cancel":
                        scope.cancel()
                        await trio.sleep_forever()
        except ZeroDivisionError:
            assert way == "error"
        await over.wait()
    for side in ("client", "server"):
        mine = [each.removeprefix(f"{side} ") for each in seen if each.startswith(side)]
        assert mine == ["lower begins", "upper begins", "upper ends", "lower ends"]


async def test_a_layer_that_cannot_begin_leaves_nothing() -> None:
    runtime, seen = Runtime(), list[str]()

    @runtime.implementation("broken", "broken")
    @asynccontextmanager
    async def broken(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
        raise OSError("no such device")
        yield below

    broken_layer: Chunnel[bytes, bytes] = layer("broken")
    stack = broken_layer | recording("lower", seen, runtime) | datagrams()
    with pytest.raises(OSError, match="no such device"):
        async with (
            patiently(),
            endpoint("kv", stack, runtime=runtime).serving(echo, ANYWHERE) as address,
            endpoint("c", stack, runtime=runtime).connect(address),
        ):
            await trio.sleep_forever()
    assert seen.count("client lower begins") == seen.count("client lower ends") == 1


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


SHORT_CONNECTIONS = int(os.environ.get("SHORT_CONNECTIONS", "300"))
"""`make connections` takes 10,000."""


async def test_short_connections_leave_nothing_behind() -> None:
    server = apart()
    runtimes = [apart(), elsewhere(), server]

    async def run(count: int, address: tuple[str, int]) -> None:
        for k in range(count):
            runtime = runtimes[k % len(runtimes)]
            async with endpoint("c", STACK, runtime=runtime).connect(address) as connection:
                await connection.send(OP)
                assert await connection.receive() == OP

    async with endpoint("kv", STACK, runtime=server).serving(echo, ANYWHERE) as address:
        await run(30, address)
        gc.collect()
        before = descriptors(), trio.lowlevel.current_statistics().tasks_living
        await run(SHORT_CONNECTIONS, address)
        with trio.fail_after(30):
            while trio.lowlevel.current_statistics().tasks_living > before[1]:
                await trio.sleep(0.01)  # the server has not seen the last of them end
        gc.collect()
        assert descriptors() <= before[0]
    assert server.sockets is not None
    assert not list(server.listening)


# What strangers send -----------------------------------------------------------------------------


async def test_strangers_change_nothing_for_those_who_are_connected() -> None:
    """Garbage, forged tickets, and datagrams with the right id from a wrong address."""
    server = Server("kv", STACK.nodes, apart(), echo)
    async with patiently(), trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[tuple[str, int]]) -> None:
            await server.run(ANYWHERE, None, task_status)

        address = await nursery.start(serve)
        client = endpoint("client", STACK, runtime=elsewhere())
        async with client.connect(address) as connection:
            await connection.send(OP)
            assert await connection.receive() == OP
            (id,) = server._socket.connections
            random = Random(3)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                for kind in (messages.CLOSE, messages.DATA, messages.PING, messages.DENIED):
                    stranger.sendto(kind + id + b"x", address)
                for kind in (messages.OFFER, messages.CONFIRM, messages.CLOSE, b"", b"\xc1"):
                    for _ in range(20):
                        stranger.sendto(kind + random.randbytes(random.randint(0, 60)), address)
                stranger.sendto(messages.CONFIRM + bytes(8000), address)
            (path,) = [yielded["path"] for yielded in server._opened.values() if "path" in yielded]
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
                stranger.connect(str(path))
                stranger.send(b"\0" + bytes(100))
                assert b"connect again" in await trio.to_thread.run_sync(stranger.recv, 1000)
            await connection.send(OP)
            assert await connection.receive() == OP
            assert server.live == 1
            assert server._socket.counters["foreign_address"] == 3
            assert server.negotiation.counters["forged"] >= 21
            assert server.negotiation.counters["malformed"] >= 20
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("nursery_of_its_own", [False, True])
async def test_a_client_that_breaks_its_word_ends_its_connection_only(
    nursery_of_its_own: bool,
) -> None:
    """It agrees on msgpack and the schema, and sends something else."""
    liar, server = elsewhere(), apart()

    @mapping("serialize", "msgpack", priority=99, provides={"codec": "msgpack"})
    def lies(layer: Layer) -> Functions:
        return (lambda values: [b"\xc1 garbage"] * len(values)), list

    async def handler(connection: Connection[Op]) -> None:
        if not nursery_of_its_own:
            return await echo(connection)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(echo, connection)

    liar.register(lies)
    async with (
        patiently(),
        endpoint("kv", STACK, runtime=server).serving(handler, ANYWHERE) as address,
        endpoint("honest", STACK, runtime=elsewhere()).connect(address) as honest,
    ):
        async with endpoint("liar", STACK, runtime=liar).connect(address) as connection:
            await connection.send(OP)
            with pytest.raises(trio.EndOfChannel):
                await connection.receive()
        await honest.send(OP)
        assert await honest.receive() == OP
        assert server.counters["bad_messages"] == 1


async def test_a_signal_tears_layers_down(tmp_path: Path) -> None:
    """SIGTERM ends a server as cancellation does: what its layers set up is undone."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    command = [sys.executable, "-c", SIGNALLED, str(begun), str(ended)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            await trio.to_thread.run_sync(process.stdout.readline)
            assert begun.exists()
            assert not ended.exists()
            process.terminate()
            await trio.to_thread.run_sync(process.wait)
        finally:
            process.kill()
    assert ended.exists()


SIGNALLED = """
import sys, trio
from contextlib import asynccontextmanager
from pathlib import Path
from p4xos.chunnels import Runtime, datagrams, endpoint, layer
from p4xos.node import until_signalled

runtime = Runtime()

@runtime.implementation("device", "card")
@asynccontextmanager
async def card(below, context):
    if context.side.value == "client":
        yield below
        return
    Path(sys.argv[1]).touch()
    try:
        yield below
    finally:
        Path(sys.argv[2]).touch()

async def main():
    stack = layer("device") | datagrams()
    own = endpoint("kv", stack, runtime=runtime)
    async def echo(connection):
        async for message in connection:
            await connection.send(message)
    async with own.serving(echo, ("127.0.0.1", 0)) as address:
        async with own.connect(address) as connection:
            await connection.send(b"x")
            await connection.receive()
            print("begun", flush=True)
            await trio.sleep_forever()

trio.run(until_signalled, main)
"""


def test_sockets_of_killed_servers_are_removed(tmp_path: Path) -> None:
    dead, alive = tmp_path / "dead.sock", tmp_path / "alive.sock"
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as first,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as second,
    ):
        first.bind(str(dead))
        second.bind(str(alive))
        second.listen()
        first.close()
        sweep(tmp_path)
        assert dead.exists()  # it is young, and may be about to listen
        sweep(tmp_path, older_s=-60.0)
        assert not dead.exists()
        assert alive.exists()
