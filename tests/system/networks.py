"""A network of one's own for a test: its rules touch nobody else, and it ends with the test."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def own_network() -> Iterator[None]:
    """What this thread starts, processes and threads alike, sees only a loopback of its own.

    The kernel removes the namespace with all its rules when the last process in it has ended:
    nothing can be left behind, not even by a test that is killed.
    """
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    outside = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if _libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"a network of its own is refused: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            if _libc.setns(outside, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), "there is no way back to the first network")
    finally:
        os.close(outside)


def filter_packets(rules: str) -> None:
    """Loads rules of nftables, in place of those before."""
    subprocess.run(["nft", "--file", "-"], input=f"flush ruleset\n{rules}", text=True, check=True)
