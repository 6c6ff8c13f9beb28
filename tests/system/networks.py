"""A network of one's own for a test: its rules touch nobody else, and it ends with the test."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from switch.namespaces import Namespace


@contextmanager
def own_network() -> Iterator[None]:
    """What this thread starts, processes and threads alike, sees only a loopback of its own.

    The kernel removes the namespace with all its rules when the last process in it has ended:
    nothing can be left behind, not even by a test that is killed.
    """
    if os.geteuid() != 0:
        pytest.skip("a network of its own needs root")
    try:
        namespace = Namespace.new()
    except OSError as error:
        pytest.skip(f"a network of its own is refused: {error.strerror}")
    with closing(namespace), namespace.entered():
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield


def filter_packets(rules: str) -> None:
    """Loads rules of nftables, in place of those before."""
    subprocess.run(["nft", "--file", "-"], input=f"flush ruleset\n{rules}", text=True, check=True)
