"""kvstore create: a cluster of several machines."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import cli
from kvstore.config import endpoints
from kvstore.joining import is_lost
from kvstore.placing import create, parse_places
from p4xos.config import Cluster
from p4xos.creation import DirectoryRefused

THREE = {"a": "10.0.0.1", "b": "10.0.0.2", "c": "10.0.0.3"}


def test_every_machine_has_the_same_ports(tmp_path: Path) -> None:
    cluster = create(tmp_path / "new", THREE)
    assert {name: str(address) for name, address in endpoints(cluster).items()} == {
        "a": "10.0.0.1:7101", "b": "10.0.0.2:7101", "c": "10.0.0.3:7101",
    }  # fmt: skip
    assert [str(node.metrics) for node in cluster.nodes] == [
        f"{host}:7141" for host in THREE.values()
    ]
    assert [member.node for member in cluster.acceptors] == list(THREE)
    assert not any(is_lost(cluster, name) for name in THREE), "each acceptor has its mark"


def test_nodes_of_one_machine_have_ports_of_their_own(tmp_path: Path) -> None:
    cluster = create(tmp_path, dict.fromkeys("abcde", "10.0.0.1"), base_port=9000)
    assert [address.port for address in endpoints(cluster).values()] == list(range(9000, 9005))


def test_a_second_call_finds_the_first_ones(tmp_path: Path) -> None:
    first = create(tmp_path, THREE)
    assert create(tmp_path, THREE).id == first.id
    for other in ({**THREE, "c": "10.0.0.4"}, {"a": "10.0.0.1"}):
        with pytest.raises(DirectoryRefused, match="was created with"):
            create(tmp_path, other)


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (["n1"], "write NAME=ADDRESS"),
        (["n1=example.org"], "no IPv4 address"),
        (["n1=10.0.0.1", "n1=10.0.0.2"], "given twice"),
    ],
)
def test_places_are_checked(given: list[str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        parse_places(given)


def test_wrong_numbers_leave_nothing_behind(tmp_path: Path) -> None:
    for places in ({"a": "10.0.0.1", "b": "10.0.0.2"}, {"a b": "10.0.0.1"}):
        with pytest.raises(ValueError):
            create(tmp_path / "new", places)
        assert not list(tmp_path.rglob("*.toml*"))


def test_the_verb_tells_what_to_do_next(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [word for name, host in THREE.items() for word in ("--at", f"{name}={host}")]
    assert cli.main(["create", "--directory", str(tmp_path), *flags]) == 0
    assert "kvstore node --cluster cluster.toml --name b" in capsys.readouterr().out
    assert len(Cluster.load(tmp_path / "cluster.toml").nodes) == 3
    assert cli.main(["create", "--directory", str(tmp_path), "--at", "n1"]) == 2
