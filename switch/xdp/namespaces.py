"""Network namespaces that no name holds: they last as long as a process has them open.

Nothing is mounted and nothing is added to the machine's own network, so nothing can clash, and
nothing is left behind by a process that is killed.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from switch.xdp.errors import XdpUnavailable

_CLONE_NEWNET = 0x40000000  # linux/sched.h
_OWN = "/proc/thread-self/ns/net"
_libc = ctypes.CDLL(None, use_errno=True)


class Namespace:
    """A network namespace, by an open descriptor of it."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    @classmethod
    def new(cls) -> Self:
        """An empty one; XdpUnavailable where that is not allowed."""
        made: list[int] = []

        def make() -> None:  # a thread of its own: this one stays where it is
            if _libc.unshare(_CLONE_NEWNET) == 0:
                made.append(os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC))

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if not made:
            raise XdpUnavailable(
                "it may not make a network of its own",
                "run it as root, in a container as a privileged one",
            )
        return cls(made[0])

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

    def set_up(self, lines: Sequence[str]) -> None:
        """Runs lines of `ip -batch` there.

        Raises:
          XdpUnavailable: the system refuses one.
        """
        with self.entered():
            Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
            try:
                done = subprocess.run(
                    ["ip", "-batch", "-"], input="\n".join(lines), capture_output=True, text=True
                )
            except FileNotFoundError:
                raise _no_ip() from None
        if done.returncode:
            told = " ".join(done.stderr.split())
            raise XdpUnavailable(f"its network cannot be made: {told}", "mend what it names")

    def close(self) -> None:
        """Lets go of it; the kernel removes it with the last socket and process in it."""
        os.close(self.descriptor)


def check() -> None:
    """Whether networks can be made here; XdpUnavailable where they cannot, and nothing is left."""
    if shutil.which("ip") is None:
        raise _no_ip()
    Namespace.new().close()


def _no_ip() -> XdpUnavailable:
    mend = "install it (Debian: apt-get install iproute2)"
    return XdpUnavailable("the program ip is missing", mend)


def _enter(descriptor: int) -> None:
    if _libc.setns(descriptor, _CLONE_NEWNET):
        number = ctypes.get_errno()
        raise OSError(number, f"cannot enter a network namespace: {os.strerror(number)}")
