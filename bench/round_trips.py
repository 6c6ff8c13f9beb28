"""One round trip of a 64-byte message over each thing that messages of the project may travel by.

    memory channel      trio: two tasks of one process
    Unix sockets        a socket pair, another process answers
    loopback UDP, TCP   two sockets, another process answers
    veth UDP            the same over a veth pair between two network namespaces; needs root

Plain blocking calls, one message at a time: what is measured is the way there and back. Each is a
context that gives a function: so many round trips, how long each took.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import trio
from numpy.typing import NDArray

from bench.chaos.hosts import Host
from bench.errors import BenchError
from bench.processes import children
from p4xos.processes import end_with_parent

MESSAGE = bytes(64)
ANSWER_LIMIT_S = 10.0
NEAR, FAR = "10.77.0.1", "10.77.0.2"
"""In namespaces of their own, so they clash with nothing."""

Trips = Callable[[int], NDArray[np.float64]]
"""Makes so many round trips; seconds of each."""


def missing_for_veth() -> str:
    """What two namespaces need and is not there; empty when nothing is missing."""
    if os.geteuid() != 0:
        return "network namespaces need root: run it as root"
    needed = (("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux"))
    for program, package in needed:
        if shutil.which(program) is None:
            return f"{program} is missing; install it: sudo apt-get install {package}"
    return ""


@contextmanager
def memory_channel() -> Iterator[Trips]:
    """Over two channels."""
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
def unix_sockets() -> Iterator[Trips]:
    """Over a pair that keeps messages apart."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with near, _answering(far):
        yield lambda count: _over(near, count)


@contextmanager
def loopback_udp() -> Iterator[Trips]:
    """Over 127.0.0.1."""
    far = _bound("127.0.0.1")
    address = far.getsockname()
    with _bound("127.0.0.1") as near, _answering(far):
        near.connect(address)
        yield lambda count: _over(near, count)


@contextmanager
def loopback_tcp() -> Iterator[Trips]:
    """Over a connection on 127.0.0.1 that sends at once."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        near = socket.create_connection(listener.getsockname()[:2], ANSWER_LIMIT_S)
        far, _ = listener.accept()
    for end in (near, far):
        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with near, _answering(far):
        yield lambda count: _over(near, count)


@contextmanager
def veth(directory: Path) -> Iterator[Trips]:
    """Between two hosts made for it; files of theirs go to the directory."""
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
    """A connected peer sees its end; one of UDP ends with `_answering`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the run, which ends this
    end_with_us()
    connected = far.type != socket.SOCK_DGRAM
    while True:
        message, address = far.recvfrom(2048)
        if connected:
            if not message:
                return
            far.sendall(message)
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
        near.sendall(MESSAGE)
        try:
            answer = near.recv(2048)
            while 0 < len(answer) < len(MESSAGE):  # a stream may give it in pieces
                answer += near.recv(2048)
        except TimeoutError:
            raise BenchError(f"no answer within {ANSWER_LIMIT_S:g} s") from None
        taken_s[number] = time.perf_counter() - began
        assert answer == MESSAGE
    return taken_s
