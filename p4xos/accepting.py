"""Taking the connections of many clients, on one epoll object that a node waits for.

A server that turns by itself (`Waits`) has all its sockets on one epoll object, and that among the
descriptors of the loop that turns the roles: no task is woken for a client.
"""

from __future__ import annotations

import errno
import select
import socket
from collections.abc import Callable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")

ACCEPTS = 128
"""Connections taken at once from one listener, until other clients have their turn."""
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


class Waits(Protocol):
    """Calls when a descriptor is readable, between two turns of the log: a node."""

    def watch(self, descriptor: int, ready: Callable[[], None]) -> None:
        """From now on."""
        ...

    def unwatch(self, descriptor: int) -> None:
        """No more."""
        ...


class Listeners(dict[int, tuple[socket.socket, T]]):
    """Listening sockets by their descriptors, each with what its owner has to know of it."""

    def __init__(self, counters: dict[str, int]) -> None:
        """Without any.

        Args:
          counters: where "accept_errors" is counted.
        """
        super().__init__()
        self.shortage: str | None = None
        """What the process has run out of, so that nobody is accepted until `resume`."""
        self._counters = counters
        self._epoll: select.epoll | None = None

    def add(self, listener: socket.socket, known: T) -> None:
        """One more; before `watch`."""
        self[listener.fileno()] = listener, known

    def watch(self, epoll: select.epoll) -> None:
        """Has all of them waited for."""
        self._epoll = epoll
        self._mask(epoll.register, select.EPOLLIN)

    def accept(self, descriptor: int) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
        """Sockets and addresses of those who wait to be taken, of some of them."""
        assert self._epoll is not None
        listener, _ = self[descriptor]
        for _ in range(ACCEPTS):
            try:
                sock, address = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                self._counters["accept_errors"] += 1
                if error.errno in _SHORT:
                    # The listener stays ready: wait a little rather than spin.
                    self.shortage = error.strerror or str(error)
                    self._mask(self._epoll.modify, 0)
                    return
                continue
            sock.setblocking(False)
            yield sock, address

    def resume(self) -> None:
        """Takes connections again."""
        assert self._epoll is not None
        self.shortage = None
        self._mask(self._epoll.modify, select.EPOLLIN)

    def close(self) -> None:
        """Closes all of them; the epoll object forgets a socket that is closed."""
        for listener, _ in self.values():
            listener.close()
        self.clear()

    def _mask(self, tell: Callable[[int, int], None], mask: int) -> None:
        for descriptor in self:
            tell(descriptor, mask)
