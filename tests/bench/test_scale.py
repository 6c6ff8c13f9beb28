"""The scenario of sizes, at small ones: each is really there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench import closed_loop, scale
from bench.closed_loop import Figures, Load
from bench.redis_benchmark import PROGRAM
from bench.results import Point
from bench.store_cluster import StoreCluster, ask
from p4xos.config import Cluster


@pytest.mark.parametrize(
    ("more", "in_flight"),
    [({"acceptors": 5}, 6144), ({"learners": 3}, 6144), ({"window": 1024}, 512)],
)
def test_a_group_of_another_size_delivers(
    more: dict[str, int], in_flight: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = closed_loop.measure
    sizes: list[dict[str, int]] = []

    def look(
        cluster: Cluster, loads: list[Load], payload_bytes: int, learners: int
    ) -> list[Figures]:
        assert [load.in_flight for load in loads] == [in_flight]
        assert len(cluster.learners) == learners
        sizes.append(
            {"acceptors": len(cluster.acceptors), "learners": learners, "window": cluster.window}
        )
        return measure(cluster, loads, payload_bytes, learners)

    monkeypatch.setattr(closed_loop, "measure", look)
    assert scale.consensus(tmp_path / "run", 10_000, **more) > 0
    assert sizes == [{"acceptors": 3, "learners": 1, "window": 65_536} | more]


def test_a_scale_ends_with_so_many_millions_of_keys() -> None:
    assert scale.sizes(1) == [10_000, 100_000, 1_000_000]
    assert scale.sizes(10)[-1] == 10_000_000
    assert scale.sizes(0.1) == [10_000, 100_000]
    assert scale.sizes(0.001) == [1000]


@pytest.mark.skipif(shutil.which(PROGRAM) is None, reason=f"{PROGRAM} is not installed")
def test_the_store_is_filled_with_the_keys_that_are_set_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sizes in ("ACCEPTORS", "LEARNERS", "WINDOWS"):
        monkeypatch.setattr(scale, sizes, ())
    stored: list[bytes] = []

    class Looked(StoreCluster):
        def running_pids(self) -> list[int]:
            stored.append(ask(self.endpoint(self.names[1]), b"*1\r\n$6\r\nDBSIZE\r\n"))
            return super().running_pids()

    monkeypatch.setattr(scale, "StoreCluster", Looked)
    taken = list(scale.run(tmp_path, 1, 0.002))
    points = [one for one in taken if isinstance(one, Point)]
    assert [(point.figure, point.x) for point in points] == [
        (scale.BY_KEYS, 2000), (scale.MEMORY, 2000),
    ]  # fmt: skip
    assert stored == [b":2001\r\n"], "2000 keys and the one by which the cluster was found writable"
