"""A cluster file that leaves open what runs the group: a node of the store negotiates it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import MethodType
from typing import NoReturn

import pytest
import trio

from kvstore.machine import KvStateMachine
from kvstore.node import LOG, attached
from kvstore.status import described
from kvstore.store import Store
from p4xos import inquiries, node, planes, watching
from p4xos.application import OneByOne
from p4xos.chunnels import GroupEndpoint, NoAgreement, Runtime, ordered_mcast
from p4xos.chunnels.choosing import Candidate, Policy, default_policy
from p4xos.chunnels.group import starting
from p4xos.chunnels.policies import POLICY_VARIABLE
from p4xos.chunnels.stack import Chunnel, Ordered
from p4xos.config import Cluster, ConfigError, RoleName
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


def alone(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, role: RoleName, policy: str = ""
) -> dict[str, object]:
    """The status of one role in a process of its own, as its verb starts it."""
    told: list[dict[str, object]] = []

    def run_main(main: Callable[..., Awaitable[None]], *arguments: object, **_: object) -> None:
        trio.run(main, *arguments)

    async def until_signalled(run: MethodType) -> None:
        assert isinstance(run.__self__, Node)
        told.append(run.__self__.status())

    monkeypatch.setattr(node, "run_main", run_main)
    monkeypatch.setattr(node, "until_signalled", until_signalled)
    monkeypatch.setenv(POLICY_VARIABLE, policy)
    starting.run_role(cluster, role, 0)
    return told[0]


def only_numpy(candidates: Sequence[Candidate]) -> Sequence[Candidate]:
    return [each for each in candidates if each.name == "numpy"]


@pytest.mark.parametrize("role", ["acceptor", "coordinator"])
def test_a_role_of_its_own_process_negotiates_as_a_node_does(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    role: RoleName,
) -> None:  # fmt: skip
    caplog.set_level("INFO")
    status = alone(cluster, monkeypatch, role)
    assert status["data_planes"] == {f"{role} 0": "registers"}
    reason = "priority 2; also possible: numpy (1); not card: there is no card"
    assert status["log"]["layers"] == [  # type: ignore[index]  # plain data
        {"type": "ordered_mcast", "implementation": "registers", "ends": "all members",
         "reason": reason}
    ]  # fmt: skip
    assert f"{role} 0 to the group of node n1\n  ordered_mcast  registers" in caplog.text


def test_a_role_of_its_own_process_keeps_to_the_policy(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = f"{__name__}:only_numpy"
    status = alone(cluster, monkeypatch, "acceptor", policy)
    assert status["data_planes"] == {"acceptor 0": "numpy"}
    (layer,) = status["log"]["layers"]  # type: ignore[index]  # plain data
    assert layer["reason"] == (
        "the only one that fits; not card (server): the policy forbids it; "
        "not registers (server): the policy forbids it"
    )
    # Where nothing that the policy allows is left open, it does not start.
    cards = replace(cluster, data_plane="open_to_cards")
    with pytest.raises(NoAgreement, match="the policy forbids it"):
        alone(cards, monkeypatch, "acceptor", policy)


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
