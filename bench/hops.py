"""One round trip of a 64-byte message over each thing that messages of the project may travel by.

    memory channel     trio: two tasks of one process
    Unix sockets       a socket pair, another process answers
    loopback UDP       two sockets, another process answers
    veth UDP           the same over a veth pair between two network namespaces; needs root

Each is measured by itself with plain blocking calls, one message at a time: the floor on which the
latencies of the whole stand.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import trio
from numpy.typing import NDArray

from bench.chaos.hosts import Host
from bench.errors import BenchError
from bench.processes import children
from bench.results import Figure, Metric, Point, Sample
from p4xos.processes import end_with_parent

MESSAGE = bytes(64)
TRIPS, TRIPS_LEAST = 20_000, 200
WARM_UP_SHARE = 0.1
ANSWER_LIMIT_S = 10.0
NEAR, FAR = "10.77.0.1", "10.77.0.2"
"""In namespaces of their own, so they clash with nothing."""

SPREAD = Figure("hops", "round trip by percentile", "percentile", "us", y_log=True)
PERCENTILES = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 99.0, 99.9)

Trips = Callable[[int], NDArray[np.float64]]
"""Makes so many round trips; seconds of each."""


def run(scratch: Path, runs: int, scale: float) -> Iterator[Sample | Point]:
    """Yields p50 and p99 of each hop."""
    trips = max(int(TRIPS * scale), TRIPS_LEAST)
    hops: dict[str, Callable[[], AbstractContextManager[Trips]]] = {
        "memory channel": _memory_channel,
        "Unix sockets": _unix_sockets,
        "loopback UDP": _loopback,
    }
    missing = _missing_for_veth()
    if missing:
        print(f"hops: veth UDP is skipped: {missing}", file=sys.stderr)
    else:
        hops["veth UDP"] = lambda: _veth(scratch)
    for _ in range(runs):
        for name, hop in hops.items():
            with hop() as make:
                taken_us = make(trips)[int(trips * WARM_UP_SHARE) :] * 1e6
            for share in (50.0, 99.0):
                metric = Metric("hops", f"{name}, round trip, p{share:g}", "us")
                yield Sample(metric, float(np.percentile(taken_us, share)))
            for share in PERCENTILES:
                yield Point(SPREAD, name, share, float(np.percentile(taken_us, share)))


def _missing_for_veth() -> str:
    """What two namespaces need and is not there; empty when nothing is missing."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it as root"
    needed = (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux"))
    for program, package in needed:
        if shutil.which(program) is None:
            return f"{program} is missing; install it: sudo apt-get install {package}"
    return ""


@contextmanager
def _memory_channel() -> Iterator[Trips]:
    async def trips(count: int) -> NDArray[np.float64]:
        taken_s = np.zeros(count)
        to, at = trio.open_memory_channel[bytes](1)
        back, answers = trio.open_memory_channel[bytes](1)

        async def answer() -> None:
            async for message in at:
                await back.send(message)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(answer)
            for number in range(count):
                began = time.perf_counter()
                await to.send(MESSAGE)
                await answers.receive()
                taken_s[number] = time.perf_counter() - began
            nursery.cancel_scope.cancel()
        return taken_s

    yield lambda count: trio.run(trips, count)


@contextmanager
def _unix_sockets() -> Iterator[Trips]:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, _answering(far):
        yield lambda count: _over(near, count)


@contextmanager
def _loopback() -> Iterator[Trips]:
    far = _bound("127.0.0.1")
    address = far.getsockname()
    with _bound("127.0.0.1") as near, _answering(far):
        near.connect(address)
        yield lambda count: _over(near, count)


@contextmanager
def _veth(directory: Path) -> Iterator[Trips]:
    with children() as holders:
        hosts = [Host(name, "", directory) for name in ("near", "far")]
        holders += [host.holder for host in hosts]
        for host in hosts:
            host.wait()
        near_host, far_host = hosts
        pair = f"link add name eth0 type veth peer name eth0 netns {far_host.holder.pid}"
        near_host.run(["ip", "-batch", "-"], pair)
        for host, address in zip(hosts, (NEAR, FAR), strict=True):
            lines = f"address add {address}/24 dev eth0\nlink set dev eth0 up"
            host.run(["ip", "-batch", "-"], lines)
        with far_host.entered():
            far = _bound(FAR)
        address = far.getsockname()
        with near_host.entered():
            near = _bound(NEAR)
        with near, _answering(far):
            near.connect(address)
            yield lambda count: _over(near, count)


def _bound(host: str) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((host, 0))
    return made


@contextmanager
def _answering(far: socket.socket) -> Iterator[BaseProcess]:
    """Another process sends back whatever comes to this socket, which is closed here."""
    end_with_us = end_with_parent(signal.SIGKILL)
    fork = multiprocessing.get_context("fork")
    other = fork.Process(target=_answer, args=(far, end_with_us), daemon=True)
    other.start()
    far.close()
    try:
        yield other
    finally:
        other.kill()
        other.join()


def _answer(far: socket.socket, end_with_us: Callable[[], None]) -> None:
    """A peer of a socket pair sees its end; one of UDP ends with `_answering`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this
    end_with_us()
    connected = far.family == socket.AF_UNIX
    while True:
        message, address = far.recvfrom(2048)
        if connected:
            if not message:
                return
            far.send(message)
        else:
            far.sendto(message, address)


def _over(near: socket.socket, count: int) -> NDArray[np.float64]:
    """Round trips over a connected socket.

    Raises:
      BenchError: an answer did not come.
    """
    near.settimeout(ANSWER_LIMIT_S)
    taken_s = np.zeros(count)
    for number in range(count):
        began = time.perf_counter()
        near.send(MESSAGE)
        try:
            answer = near.recv(2048)
        except TimeoutError:
            raise BenchError(f"no answer within {ANSWER_LIMIT_S:g} s") from None
        taken_s[number] = time.perf_counter() - began
        assert answer == MESSAGE
    return taken_s
