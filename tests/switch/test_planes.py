"""Which data plane a cluster has: the file, the flag, and what is said when it is not there."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path

import pytest

from p4xos import planes
from p4xos.config import NUMPY, Cluster, ConfigError
from p4xos.creation import DirectoryRefused, Wanted, find_or_create
from p4xos.planes import ENTRY_POINTS, NoDataPlane, NumpyPlanes
from p4xos.wire import Frame
from switch.control.planes import P4Planes

P4 = EntryPoint(name="p4", value="switch.control.planes:P4Planes", group=ENTRY_POINTS)


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's entry point, whether it is installed or not."""
    found = EntryPoints([P4])
    monkeypatch.setattr(planes, "entry_points", lambda group: found.select(group=group))


def make(directory: Path, wanted: Wanted) -> Cluster:
    directory.mkdir(exist_ok=True)
    return find_or_create(directory, wanted, lambda cluster, _: cluster)


@pytest.mark.usefixtures("installed")
def test_a_new_cluster_has_its_switches_apart(tmp_path: Path) -> None:
    cluster = make(tmp_path, Wanted(base_port=0, data_plane="p4"))
    assert (cluster.data_plane, cluster.storage, cluster.value_bytes) == ("p4", "memory", 128)
    assert [node.name for node in cluster.nodes] == [
        *("n1", "n2", "n3"), *("a1", "a2", "a3"), *("c1", "c2", "c3"),
    ]  # fmt: skip
    assert [m.node for m in cluster.acceptors] == ["a1", "a2", "a3"]
    assert [m.node for m in cluster.coordinators] == ["c1", "c2", "c3"]
    assert Cluster.parse(cluster.to_toml(), "again") == cluster
    assert make(tmp_path, Wanted(nodes=3, data_plane="p4")) == cluster
    with pytest.raises(DirectoryRefused, match="created with --data-plane p4, not numpy"):
        make(tmp_path, Wanted(data_plane=NUMPY))


@pytest.mark.usefixtures("installed")
def test_a_switch_has_no_disk(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="--data-plane p4 has no disk"):
        make(tmp_path, Wanted(base_port=0, storage="disk", data_plane="p4"))
    text = Cluster.template(1, 7101).to_toml().replace('group = 0', 'group = 0\ndata_plane = "p4"')
    with pytest.raises(ConfigError, match=r'"data_plane": is "p4", which has no disk; add storage'):
        Cluster.parse(text, "file")


@pytest.mark.usefixtures("installed")
def test_a_data_plane_that_is_not_there_is_named() -> None:
    assert isinstance(planes.find(NUMPY), NumpyPlanes)
    assert isinstance(planes.find("p4"), P4Planes)
    with pytest.raises(NoDataPlane, match=r'no data plane "bmv2" is installed: there is numpy, p4'):
        planes.find("bmv2")


def test_sizes_that_no_program_has_are_refused() -> None:
    cluster = Cluster.template(3, 7101, "memory")
    with pytest.raises(ValueError, match="value_bytes is 1432"):
        P4Planes().acceptor(cluster, Frame(cluster.id, 0, 0))


def test_ports_of_many_switches_would_clash() -> None:
    with pytest.raises(ValueError, match="allowed is at most 6 with switches apart"):
        Cluster.template(7, 7101, "memory", apart=True)
