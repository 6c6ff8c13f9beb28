"""Network namespaces that no name holds: they last as long as a process has them open.

Nothing is mounted and nothing is added to the machine's own network, so nothing can clash, and
nothing is left behind by a process that is killed: the kernel removes a namespace with all that is
in it when its last process, socket and descriptor are gone.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace, by an open descriptor of it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Self:
        """An empty one; OSError where that is not allowed."""
        made: list[int | OSError] = []

        def make() -> None:  # a thread of its own: this one stays where it is
            if _libc.unshare(_CLONE_NEWNET):
                number = ctypes.get_errno()
                made.append(OSError(number, os.strerror(number)))
            else:
                made.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        (found,) = made
        if isinstance(found, OSError):
            raise found
        return cls(found)

    @classmethod
    def open(cls, path: Path | str) -> Self:
        """That of a path; OSError."""
        return cls(os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    @property
    def path(self) -> Path:
        """Where other processes find it, as long as this one has it open."""
        return Path(f"/proc/{os.getpid()}/fd/{self.descriptor}")

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Sockets and children that this thread makes in the block are there, and stay there."""
        own = os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)
        try:
            _enter(self.descriptor)
            try:
                yield
            finally:
                _enter(own)
        finally:
            os.close(own)

    def close(self) -> None:
        """Lets go of it; the kernel removes it with the last socket and process in it."""
        os.close(self.descriptor)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")
