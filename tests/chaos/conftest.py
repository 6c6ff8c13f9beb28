"""Clusters on hosts of their own, which the kernel removes with the process that made them."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from bench.chaos.cluster import ChaosCluster


@pytest.fixture(scope="session", autouse=True)
def as_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("network namespaces, mounts and rules of nft need root")


@pytest.fixture
def chance() -> random.Random:
    return random.Random(1)


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosCluster]:
    """Hosts on which no node runs: what faults do to packets and disks shows without."""
    with ChaosCluster(tmp_path_factory.mktemp("machines"), window=256, small_disk=True) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChaosCluster]:
    """A running cluster, which each test leaves whole."""
    with ChaosCluster(tmp_path_factory.mktemp("running"), window=256, small_disk=True) as cluster:
        cluster.start()
        yield cluster
