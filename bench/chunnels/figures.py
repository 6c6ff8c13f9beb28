"""Figures 3, 4 and 5 of the paper, on this machine; every server is a process of its own."""

from __future__ import annotations

import os
import random
import socket
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    ExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from pathlib import Path
from typing import NamedTuple

import numpy as np
import trio

from bench.chunnels.network import Host, hosts
from bench.chunnels.servers import ELSEWHERE, MESSAGE_BYTES_MAX, PING, STACK, UNIX_NAME, Op
from bench.errors import BenchError
from bench.processes import Child, children, python_module, wait_until
from bench.results import Figure, Point, Sample
from p4xos.chunnels import Connection, Endpoint, Runtime, endpoint, local_or_remote, shard
from p4xos.chunnels.nearest import anycast
from p4xos.tables import Address
from switch.xdp.errors import XdpUnavailable
from switch.xdp.steering import SteeringProgram

SIZES = (64, 1024, 8192, 32768)
PINGS = 3
"""Requests of a connection, as in the paper."""
CONNECTIONS, CONNECTIONS_LEAST = 300, 5
SECONDS, SECONDS_LEAST = 8.0, 1.0
"""Of Figure 4: the nearer server starts in the middle."""
PAUSE_S = 0.02
BUCKETS = 32
SHARDS = 3
IN_FLIGHT = (1, 4, 16, 64, 256)
ANSWERED_S = 20.0
"""Without any answer for so long a client gives up: what is lost with a connection never comes."""
REQUESTS, REQUESTS_LEAST = 6000, 60
KEYS = 10_000
READS = 0.5
"""YCSB's workload A."""
VALUE = bytes(64)
START_S = 60.0

FAST_PATH = Figure(
    "chunnels", "figure 3, a ping in containers of one host", "bytes", "us", x_log=True, y_log=True
)
CONNECTED = Figure(
    "chunnels", "figure 3, connecting and three pings", "bytes", "us", x_log=True
)
NEARER = Figure("chunnels", "figure 4, a nearer server appears", "seconds", "us, p50")
SHARDED = Figure(
    "chunnels", "figure 5, sharding of YCSB A", "requests/s", "us, p95", x_log=True, y_log=True
)


def _started(running: list[Child], directory: Path, name: str, *words: str) -> list[str]:
    """Starts a server; what it prints when it serves."""
    log = directory / f"{name}.log"
    command = python_module("bench.chunnels.servers", *words)
    running.append(Child(name, command, log))
    wait_until(lambda: log.read_text().endswith("\n"), START_S, f"that {name} serves")
    return log.read_text().split()


# Figure 3 ----------------------------------------------------------------------------------------


def fast_path(directory: Path, scale: float) -> Iterator[Sample | Point]:
    """Latency by request size: the Chunnel, and the Unix socket and the UDP that one would write.

    For each the 5th, 50th and 95th percentile; the paper's boxes have these as their ends.
    """
    count = max(int(CONNECTIONS * scale), CONNECTIONS_LEAST)
    with children() as running:
        host, port, udp_port = _started(running, directory, "ping", "ping", str(directory))
        for size in SIZES:
            ways = {
                "local_or_remote": trio.run(_by_chunnel, (host, int(port)), size, count),
                "Unix socket by hand": _by_hand(directory / UNIX_NAME, size, count),
                "UDP by hand": _by_hand((host, int(udp_port)), size, count),
            }
            for name, (pings_s, all_s) in ways.items():
                for share in (5, 50, 95):
                    ping_us = float(np.percentile(pings_s, share)) * 1e6
                    yield Point(FAST_PATH, f"{name}, p{share}", size, ping_us)
                yield Point(CONNECTED, name, size, float(np.median(all_s)) * 1e6)


Times = tuple[list[float], list[float]]
"""Of each ping, and of each connection as a whole, in seconds."""


async def _by_chunnel(address: tuple[str, int], size: int, count: int) -> Times:
    pings_s: list[float] = []
    all_s: list[float] = []
    client: Endpoint[bytes] = endpoint("pinging", PING)
    message = bytes(size)
    for _ in range(count):
        opened = time.perf_counter()
        async with client.connect(address) as connection:
            assert connection.explain().implementation("transport") == "unix"
            for _ in range(PINGS):
                began = time.perf_counter()
                await connection.send(message)
                await connection.receive()
                pings_s.append(time.perf_counter() - began)
            all_s.append(time.perf_counter() - opened)
    return pings_s, all_s


def _by_hand(where: Path | tuple[str, int], size: int, count: int) -> Times:
    """In trio as well: what is compared is the way, not the event loop."""
    return trio.run(_by_hand_in_trio, where, size, count)


async def _by_hand_in_trio(where: Path | tuple[str, int], size: int, count: int) -> Times:
    pings_s: list[float] = []
    all_s: list[float] = []
    message = bytes(size)
    for _ in range(count):
        opened = time.perf_counter()
        async with _connected(where) as sock:
            for _ in range(PINGS):
                began = time.perf_counter()
                await sock.send(message)
                left = size
                while left:
                    left -= len(await sock.recv(MESSAGE_BYTES_MAX))
                pings_s.append(time.perf_counter() - began)
            all_s.append(time.perf_counter() - opened)
    return pings_s, all_s


@asynccontextmanager
async def _connected(where: Path | tuple[str, int]) -> AsyncIterator[trio.socket.SocketType]:
    unix = isinstance(where, Path)
    family = socket.AF_UNIX if unix else socket.AF_INET
    kind = socket.SOCK_STREAM if unix else socket.SOCK_DGRAM
    with trio.socket.socket(family, kind) as sock:
        await sock.connect(str(where) if isinstance(where, Path) else where)
        yield sock


# Figure 4 ----------------------------------------------------------------------------------------


def nearer_server(directory: Path, scale: float) -> Iterator[Sample | Point]:
    """Latency over time: one connection after the other, by name; a local server starts half-way.

    The first server is on this machine too, and announced as of another: messages to it take the
    network's way, by UDP. How far the network is, is not what is measured.
    """
    seconds = max(SECONDS * scale, SECONDS_LEAST)
    path = directory / "discovery.sock"
    (directory / "near").mkdir()
    with children() as running, _discovery(running, directory, path):
        _started(running, directory, "far", "ping", str(directory), f"kv@{ELSEWHERE}")

        def start_near() -> None:
            _started(running, directory, "near", "ping", str(directory / "near"), "kv@here")

        seen = trio.run(_by_name, path, seconds, start_near)
    width = seen[-1][0] / BUCKETS
    for carrier in ("udp", "unix"):
        for bucket in range(BUCKETS + 1):
            here = [us for at, us, by in seen if by == carrier and int(at / width) == bucket]
            if here:
                name = {"udp": "the remote server", "unix": "the local server"}[carrier]
                yield Point(NEARER, name, round((bucket + 0.5) * width, 3), float(np.median(here)))


@contextmanager
def _discovery(running: list[Child], directory: Path, path: Path) -> Iterator[None]:
    with ExitStack() as stack:
        command = python_module("p4xos", "discovery", "--socket", str(path))
        running.append(Child("discovery", command, directory / "discovery.log"))
        wait_until(path.exists, START_S, "that discovery serves")
        stack.enter_context(_variable("P4XOS_DISCOVERY", str(path)))
        yield


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """Of the environment, for the servers that are started."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


async def _by_name(
    path: Path, seconds: float, start_near: Callable[[], None]
) -> list[tuple[float, float, str]]:
    """(seconds since the start, us of a ping, how it travelled) of each ping."""
    found: list[tuple[float, float, str]] = []
    async with Runtime(discovery=path) as runtime, trio.open_nursery() as nursery:
        stack = anycast() | local_or_remote()
        client: Endpoint[bytes] = endpoint("pinging", stack, runtime=runtime)
        began = trio.current_time()

        async def start_later() -> None:
            await trio.sleep(seconds / 2)
            await trio.to_thread.run_sync(start_near)

        nursery.start_soon(start_later)
        near = 0.0
        # As long after the nearer one is there as before it was asked for, whenever that is.
        while not near or trio.current_time() - near < seconds / 2:
            async with client.connect("kv") as connection:
                for _ in range(PINGS):
                    at = time.perf_counter()
                    await connection.send(VALUE)
                    await connection.receive()
                    us = (time.perf_counter() - at) * 1e6
                    by = connection.explain().implementation("transport")
                    found.append((trio.current_time() - began, us, by))
                    near = near or (trio.current_time() if by == "unix" else 0.0)
            await trio.sleep(PAUSE_S)
    return found


# Figure 5 ----------------------------------------------------------------------------------------


class Way(NamedTuple):
    """A scenario of sharding."""

    server: str
    clients: tuple[str, str]
    """Of each client, what runs the layer `shard`."""


WAYS = {
    "client push": Way("kv", ("push", "push")),
    "server fallback": Way("kv-process", ("relay", "relay")),
    "server accelerated": Way("kv", ("xdp", "xdp")),
    "mixed": Way("kv", ("push", "xdp")),
}
ON_LOOPBACK = {
    "client push": Way("kv-process", ("push", "push")),
    "server fallback": Way("kv-process", ("relay", "relay")),
    "mixed": Way("kv-process", ("push", "relay")),
}


def sharding(directory: Path, scale: float) -> Iterator[Sample | Point]:
    """p95 latency by rate, two clients: both push, both are relayed, both are steered, one of each.

    Server and shards are on one host and the clients on another, so that packets pass the hook that
    the kernel's program is at; where that cannot be, all is on the loopback and nothing is steered.
    """
    with children() as running, ExitStack() as stack:
        serving: Host | Here = Here()
        asking: Host | Here = serving
        ways = ON_LOOPBACK
        try:
            net = stack.enter_context(hosts(("server", "client")))
            SteeringProgram(Address(Here.address, 1), "key", [Address(Here.address, 2)]).close()
            serving, asking, ways = net["server"], net["client"], WAYS
        except XdpUnavailable as refusal:
            print(f"chunnels: no server is accelerated: {refusal.reason}", file=sys.stderr)
        with serving.entered():
            shards = [
                ":".join(_started(running, directory, f"shard-{k}", "shard", str(k),
                                  serving.address))
                for k in range(SHARDS)
            ]  # fmt: skip
            servers = {
                name: _started(running, directory, name, name, serving.address, *shards)
                for name in dict.fromkeys(way.server for way in ways.values())
            }
        for name, way in ways.items():
            host, port = servers[way.server]
            for in_flight in IN_FLIGHT:
                requests = max(int(REQUESTS * scale), REQUESTS_LEAST, in_flight)
                with asking.entered():
                    rate, p95_us = trio.run(
                        _load, (host, int(port)), way.clients, in_flight, requests
                    )
                yield Point(SHARDED, name, rate, p95_us)


class Here:
    """This machine, as a host."""

    address = "127.0.0.1"

    @staticmethod
    def entered() -> AbstractContextManager[None]:
        """Changes nothing."""
        return nullcontext()


async def _load(
    address: tuple[str, int], ways: tuple[str, ...], in_flight: int, requests: int
) -> tuple[float, float]:
    """Requests a second of all clients together, and the latency that 95 % are within."""
    taken_us: list[float] = []
    each = max(in_flight // len(ways), 1)
    began = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for seed, way in enumerate(ways):
            stack = shard(Op, by="key") | STACK if way == "push" else STACK
            runtime = Runtime()
            runtime.place = runtime.place._replace(host=ELSEWHERE)
            client: Endpoint[Op] = endpoint("client", stack, runtime=runtime)
            nursery.start_soon(_client, client, way, address, each, requests, seed, taken_us)
    return len(taken_us) / (time.perf_counter() - began), float(np.percentile(taken_us, 95))


async def _client(
    client: Endpoint[Op],
    way: str,
    address: tuple[str, int],
    in_flight: int,
    requests: int,
    seed: int,
    taken_us: list[float],
) -> None:
    drawn = random.Random(seed)
    sent_at: dict[str, list[float]] = {}

    async def ask(connection: Connection[Op], count: int) -> None:
        ops = []
        for _ in range(count):
            verb = "get" if drawn.random() < READS else "put"
            ops.append(Op(verb, str(drawn.randrange(KEYS)), b"" if verb == "get" else VALUE))
        now = time.perf_counter()
        for op in ops:
            sent_at.setdefault(op.key, []).append(now)
        await connection.send_many(ops)

    async with client.connect(address) as connection:
        told = connection.explain()
        if told.implementation("shard") != way:
            raise BenchError(f"this was to be {way}: {told}")
        await ask(connection, in_flight)
        asked, answered = in_flight, 0
        while answered < requests:
            with trio.move_on_after(ANSWERED_S) as waiting:
                replies = await connection.receive_many()
            if waiting.cancelled_caught:  # as when all processes were stopped for longer than that
                raise BenchError(
                    f"no answer for {ANSWERED_S:g} s: {asked - answered} requests are lost; "
                    "run again"
                )
            now = time.perf_counter()
            for reply in replies:  # of one key they come in the order of their requests
                taken_us.append((now - sent_at[reply.key].pop(0)) * 1e6)
            answered += len(replies)
            more = min(len(replies), requests - asked)
            if more > 0:
                await ask(connection, more)
                asked += more
