"""The sockets of all clients, on one epoll, and the monotonic clock."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator, Sequence
from types import TracebackType
from typing import Self

from bench.errors import BenchError
from p4xos.tables import Address

CONNECT_LIMIT_S = 30.0
RECEIVE_BYTES = 1 << 18
_PING, _PONG = b"*1\r\n$4\r\nPING\r\n", b"+PONG\r\n"
_IN_OUT = select.EPOLLIN | select.EPOLLOUT


class Sockets:
    """`generator.Network` over TCP; close it."""

    def __init__(self, addresses: Sequence[Address], clients: int) -> None:
        """Connects all of them, and each has been answered.

        Raises:
          BenchError: a server cannot be reached, or says something else than PONG.
        """
        self._epoll = select.epoll()
        self._sockets: list[socket.socket] = []
        self._kept: dict[int, bytearray] = {}
        """What the kernel did not take yet, by client."""
        self._by_descriptor: dict[int, int] = {}
        try:
            for client in range(clients):
                self._connect(client, addresses[client % len(addresses)])
            for client, sock in enumerate(self._sockets):
                self._greet(client, sock)
        except BaseException:
            self.close()
            raise

    def _connect(self, client: int, address: Address) -> None:
        try:
            sock = socket.create_connection(address, CONNECT_LIMIT_S)
        except OSError as error:
            raise BenchError(f"{address} cannot be reached: {error}") from None
        self._sockets.append(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(_PING)

    def _greet(self, client: int, sock: socket.socket) -> None:
        said = b""
        try:
            while len(said) < len(_PONG) and (data := sock.recv(len(_PONG) - len(said))):
                said += data
        except OSError as error:
            raise BenchError(f"client {client} got no answer to PING: {error}") from None
        if said != _PONG:
            raise BenchError(f"client {client} was greeted by {said!r} instead of PONG")
        sock.setblocking(False)
        self._by_descriptor[sock.fileno()] = client
        self._epoll.register(sock.fileno(), select.EPOLLIN)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes everything."""
        for sock in self._sockets:
            sock.close()
        self._epoll.close()

    def now_ns(self) -> int:
        """CLOCK_MONOTONIC."""
        return time.monotonic_ns()

    def send(self, client: int, data: bytes) -> None:
        """Never waits: what the kernel does not take leaves when it has room."""
        kept = self._kept.get(client)
        if kept is not None:
            kept += data
            return
        sent = self._sent(client, data)
        if sent < len(data):
            self._kept[client] = bytearray(memoryview(data)[sent:])
            self._epoll.modify(self._sockets[client].fileno(), _IN_OUT)

    def _sent(self, client: int, data: bytes | bytearray) -> int:
        try:
            return self._sockets[client].send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise BenchError(f"client {client} was cut off: {error}") from None

    def receive(self, until_ns: int) -> Iterator[tuple[int, bytes]]:
        """Data that has come; waits for some until then at the latest.

        Raises:
          BenchError: the server closed a connection.
        """
        wait_ns = until_ns - time.monotonic_ns()
        if wait_ns > 0:
            # epoll itself counts in milliseconds; an epoll can be waited for, too.
            select.select([self._epoll.fileno()], (), (), wait_ns / 1e9)
        for descriptor, mask in self._epoll.poll(0):
            client = self._by_descriptor[descriptor]
            if mask & select.EPOLLOUT:
                self._flush(client)
            if mask & ~select.EPOLLOUT:
                yield client, self._data(client)

    def _data(self, client: int) -> bytes:
        try:
            data = self._sockets[client].recv(RECEIVE_BYTES)
        except OSError as error:
            raise BenchError(f"client {client} was cut off: {error}") from None
        if not data:
            raise BenchError(f"the server closed the connection of client {client}")
        return data

    def _flush(self, client: int) -> None:
        kept = self._kept[client]
        del kept[: self._sent(client, kept)]
        if not kept:
            del self._kept[client]
            self._epoll.modify(self._sockets[client].fileno(), select.EPOLLIN)
