"""Clusters of real processes. Whatever a test does to them, none of them outlives it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.store_cluster import StoreCluster


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoreCluster]:
    """A running cluster for the tests of one file, which leave it as they found it."""
    with StoreCluster(tmp_path_factory.mktemp("shared")) as cluster:
        cluster.start()
        yield cluster


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StoreCluster]:
    """A new cluster, running, to be broken."""
    with StoreCluster(tmp_path / "cluster") as cluster:
        cluster.start()
        yield cluster
