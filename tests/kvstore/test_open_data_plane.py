"""A cluster file that leaves open what runs the group: a node of the store negotiates it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from kvstore.machine import KvStateMachine
from kvstore.node import LOG, attached
from kvstore.status import described
from kvstore.store import Store
from p4xos import inquiries, planes, watching
from p4xos.application import OneByOne
from p4xos.chunnels import GroupEndpoint, NoAgreement, Runtime, ordered_mcast
from p4xos.chunnels.choosing import Candidate, Policy, default_policy
from p4xos.chunnels.stack import Chunnel, Ordered
from p4xos.config import Cluster, ConfigError
from p4xos.node import Node
from p4xos.planes import OnThisNetwork
from p4xos.wire import Frame
from tests.moving.groups import RegisterPlanes, install, new_cluster


class NoCard(OnThisNetwork, RegisterPlanes):
    """A data plane that this machine lacks something for."""

    def acceptor(self, cluster: Cluster, frame: Frame) -> NoReturn:
        raise ValueError("there is no card")

    def sequencer(self, cluster: Cluster, frame: Frame) -> NoReturn:
        raise ValueError("there is no card")


class Open(OnThisNetwork, RegisterPlanes):
    among: tuple[str, ...] = ("card", "registers", "numpy")


class OpenToCards(Open):
    among = ("card",)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    here = {"card": NoCard, "open": Open, "open_to_cards": OpenToCards}
    install(monkeypatch, registers="tests.moving.groups:RegisterPlanes")
    real = planes.find
    monkeypatch.setattr(
        planes, "find", lambda name: here[name]() if name in here else real(name)
    )
    return replace(new_cluster(tmp_path), data_plane="open")


@contextmanager
def node_of(
    cluster: Cluster, policy: Policy = default_policy, stack: Chunnel[bytes, Ordered] = LOG
) -> Iterator[Node]:
    group = GroupEndpoint("kvstore on n1", stack, Runtime(builtin=False, policy=policy))
    with Store(cluster.data_directory("n1") / "store", cluster.id) as store:
        opened = Node(cluster, "n1", prefer=group.prefer(cluster))
        with opened.open(OneByOne(KvStateMachine(store))) as node:
            attached(group, node)
            yield node


async def test_each_role_takes_the_best_that_it_can_have(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    with node_of(cluster) as node:
        status = node.status()
        page = watching.pages(node)["/metrics"]().body.decode()
    assert status["data_planes"] == {"acceptor 0": "registers", "coordinator 0": "registers"}
    assert status["log"] == {
        "layers": [
            {
                "type": "ordered_mcast", "implementation": "registers", "ends": "all members",
                "reason": "priority 2; also possible: numpy (1); not card: there is no card",
            }
        ],
        "notes": [],
    }  # fmt: skip
    assert described({"n1": status})["n1"].split("; NOT READY")[0].endswith(", log on registers")
    assert 'implementation="registers",layer="ordered_mcast",side="member"' in page
    assert "acceptor 0 cannot be on card: there is no card" in caplog.text


async def test_roles_of_other_processes_choose_for_themselves(cluster: Cluster) -> None:
    """Their nodes have no store: each tells what it is on, and what it could not have."""
    apart = replace(cluster, acceptors=tuple(replace(m, node="n2") for m in cluster.acceptors))
    apart = replace(
        apart, coordinators=tuple(replace(m, node="n2") for m in cluster.coordinators)
    )
    with node_of(apart) as node:
        (layer,) = node.status()["log"]["layers"]  # type: ignore[index]  # plain data
    assert layer["implementation"] == "open"
    assert layer["reason"].endswith("each role takes the first of card, registers, numpy that "
                                    "it can have")  # fmt: skip
    with Node(apart, "n2", apart.members_of("n2")[:1]).open() as alone:
        line = inquiries.described({"n2": alone.status()})["n2"]
    assert line.startswith("acceptor 0 on registers, not on card: there is no card")


async def test_the_operators_policy_decides(cluster: Cluster) -> None:
    def no_registers(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
        return [each for each in default_policy(candidates) if each.name != "registers"]

    with node_of(cluster, no_registers) as node:
        assert set(node.moves.planes.values()) == {"numpy"}


async def test_what_is_asked_for_decides(cluster: Cluster) -> None:
    with node_of(cluster, stack=ordered_mcast().require(plane="numpy")) as node:
        assert set(node.moves.planes.values()) == {"numpy"}
        assert not node.moves.declined  # it was never tried
    with (
        pytest.raises(NoAgreement, match=r"layer ordered_mcast: .*durability=majority-disk is "),
        node_of(cluster, stack=ordered_mcast(durability="majority-disk")),
    ):
        pass


async def test_where_nothing_can_run_a_role_all_reasons_are_told(cluster: Cluster) -> None:
    told = r"none of what it leaves open can run acceptor 0: not card: there is no card"
    with (
        pytest.raises(ConfigError, match=told),
        node_of(replace(cluster, data_plane="open_to_cards")),
    ):
        pass
