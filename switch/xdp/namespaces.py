"""Namespaces for programs in the kernel: what cannot be is said as all else that keeps them out."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from switch import namespaces
from switch.xdp.errors import XdpUnavailable


class Namespace(namespaces.Namespace):
    """A network namespace, in which `ip` makes links and addresses."""

    @classmethod
    def new(cls) -> Self:
        """An empty one; XdpUnavailable where that is not allowed."""
        try:
            return super().new()
        except OSError:
            raise XdpUnavailable(
                "it may not make a network of its own",
                "run it as root, in a container as a privileged one",
            ) from None

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


def check() -> None:
    """Whether networks can be made here; XdpUnavailable where they cannot, and nothing is left."""
    if shutil.which("ip") is None:
        raise _no_ip()
    Namespace.new().close()


def _no_ip() -> XdpUnavailable:
    mend = "install it (Debian: apt-get install iproute2)"
    return XdpUnavailable("the program ip is missing", mend)
