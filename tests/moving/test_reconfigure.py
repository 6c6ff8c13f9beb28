"""A running group moves to another data plane and back: real nodes on loopback, in one process.

docs/PROTOCOL.md, sections 4 and 8.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from p4xos import placement, reconfiguring, secret
from p4xos.client import Client
from p4xos.config import ConfigError
from p4xos.dialing import ask_untrusted, dial
from p4xos.errors import NoQuorum, P4xosError
from p4xos.inquiries import described
from p4xos.logstore import LogStore
from p4xos.metrics import families
from p4xos.node import Node
from p4xos.reconfiguring import NotReconfigured, reconfigure
from p4xos.remote_errors import Refused
from p4xos.roles.memory import Memory
from p4xos.roles.rejoining import ForgetfulAcceptor
from switch.control.acceptor import SwitchAcceptor
from tests.moving.groups import Killed, MovableNodes, install, new_cluster, running
from tests.service.clusters import until

ROLES = [f"{role} {id}" for role in ("acceptor", "coordinator") for id in range(3)]
AT_ONCE = 8


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fast data plane, and the P4 programs."""
    install(
        monkeypatch, registers="tests.moving.groups:RegisterPlanes",
        p4="switch.control.planes:P4Planes",
    )  # fmt: skip


class Load:
    """A client that submits without a pause, and what it was told."""

    def __init__(self, client: Client) -> None:
        self.told: list[tuple[int, bytes]] = []
        self.submitted = 0
        self._client = client

    async def run(self) -> None:
        while True:
            values = [b"value %d" % (self.submitted + k) for k in range(AT_ONCE)]
            self.submitted += len(values)
            with suppress(NoQuorum):  # of a machine that stood still: it may be there or not
                instances = await self._client.submit_many(values)
                self.told += zip(instances, values, strict=True)

    async def goes_on(self) -> None:
        """Two rounds of values that began behind this moment came back."""
        wanted = len(self.told) + 2 * AT_ONCE
        await until(lambda: len(self.told) >= wanted)


@asynccontextmanager
async def loaded(nodes: MovableNodes) -> AsyncIterator[Load]:
    """Load as long as the block runs; then nothing is lost, and nothing is there twice."""
    async with Client.connect(nodes.cluster) as client:
        load = Load(client)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(load.run)
            await load.goes_on()
            yield load
            nursery.cancel_scope.cancel()
        last = await client.submit(b"last")
        delivered: list[tuple[int, bytes]] = []
        async for instance, value in client.deliver():
            if instance == last:
                break
            delivered.append((instance, value))
    told = sorted(load.told)
    # What was on its way when the load ended may be there or not; each value once.
    assert [pair for pair in delivered if pair in set(told)] == told
    values = [value for _, value in delivered]
    assert len(set(values)) == len(values)
    assert len(told) <= len(values) <= load.submitted


@pytest.mark.parametrize(
    ("data_plane", "apart"), [("registers", False), ("registers", True), ("p4", False)]
)
async def test_there_and_back_under_load(tmp_path: Path, data_plane: str, apart: bool) -> None:
    async with running(new_cluster(tmp_path, apart=apart)) as nodes, loaded(nodes) as load:
        async with Client.connect(nodes.cluster) as operator:
            for name in (data_plane, "numpy"):
                found = await operator.reconfigure(name)
                await load.goes_on()
                assert sorted(f"{m.role} {m.id}" for m in found.moved) == ROLES
                assert [m.role for m in found.moved] == ["acceptor"] * 3 + ["coordinator"] * 3
                assert {m.after for m in found.moved} == {found.data_plane} == {name}
                # The one that serves is the last, and the only one that anybody waits for.
                assert [m.pause_s > 0 for m in found.moved[3:]] == [False, False, True]
                assert found.pause_s == found.moved[-1].pause_s
                assert nodes.planes == dict.fromkeys(ROLES, name)
                again = await operator.reconfigure(name)
                assert again == (name, ())
        assert {node.moves.counters["failed"] for node in nodes.running.values()} == {0}
        assert not any(node.forgetful for node in nodes.running.values())


async def test_coordinators_alone(tmp_path: Path) -> None:
    """Acceptors with a log stay: a data plane has none."""
    cluster = new_cluster(tmp_path, storage="disk")
    async with running(cluster) as nodes, loaded(nodes) as load:
        with pytest.raises(NotReconfigured, match=r'storage = "disk"\), and registers has none'):
            await reconfigure(cluster, "registers")
        assert nodes.planes == dict.fromkeys(ROLES, "numpy")
        found = await reconfigure(cluster, "registers", ("coordinator",))
        await load.goes_on()
        assert [m.role for m in found.moved] == ["coordinator"] * 3
        await nodes.stop("n3")
        await nodes.start("n3")
        assert nodes.planes == {
            role: "registers" if "coord" in role else "numpy" for role in sorted(ROLES)
        }


async def test_what_cannot_be_is_refused_before_anything_changes(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, value_bytes=256)
    async with running(cluster) as nodes, Client.connect(cluster) as client:
        for name, why in {
            "registers": "value_bytes is 256: the limit is 128",
            "p4": "value_bytes is 256: the P4 programs can have one of 8, 16, 32, 64, 128",
            "bmv2": 'no data plane "bmv2" is installed: there is numpy, p4, registers',
        }.items():
            with pytest.raises(Refused, match=why) as refused:
                await client.reconfigure(name)
            assert "nothing has moved" in str(refused.value)
        with pytest.raises(ValueError, match="data_plane is 'No such'"):
            await client.reconfigure("No such")
        with pytest.raises(ValueError, match="roles is"):
            await client.reconfigure("p4", roles=())
        assert nodes.planes == dict.fromkeys(ROLES, "numpy")
        assert not list(tmp_path.rglob("*.plane"))


async def test_roles_in_processes_of_their_own_stay(tmp_path: Path) -> None:
    """The learner's process answers for a node, and has no hold on the others."""
    cluster = new_cluster(tmp_path)
    store = LogStore(tmp_path / "log", cluster.id)
    with Node(cluster, "n1", [("learner", cluster.learners[0])]).open(store) as node:
        asked = {"data_plane": "registers", "roles": ["acceptor"]}
        with pytest.raises(Refused, match="run in processes of their own"):
            await node.moves.planes_untrusted(asked)
        with pytest.raises(Refused, match="acceptor 0 does not run in this process of node n1"):
            await node.moves.move_untrusted({**asked, "role": "acceptor", "member": 0})
    store.close()


async def test_a_node_that_is_not_there_ends_it(tmp_path: Path) -> None:
    async with running(new_cluster(tmp_path)) as nodes:
        await nodes.stop("n3")
        with pytest.raises(NotReconfigured, match=r"n3: .*; nothing has moved"):
            await reconfigure(nodes.cluster, "registers")
        with pytest.MonkeyPatch.context() as patch:  # in memory it has forgotten, and does not join
            patch.setattr(ForgetfulAcceptor, "_advance", lambda *_: None)
            await nodes.start("n3")
            with pytest.raises(NotReconfigured, match=r"n3: acceptor 2 has forgotten"):
                await reconfigure(nodes.cluster, "registers")
        await until(lambda: not nodes.running["n3"].silent)
        found = await reconfigure(nodes.cluster, "registers")
        assert len(found.moved) == len(ROLES)
        assert nodes.running["n3"].acceptors[2][0].incarnation == 1


async def test_a_client_that_knows_addresses(tmp_path: Path) -> None:
    async with running(new_cluster(tmp_path)) as nodes:
        addresses = [node.peer for node in nodes.cluster.nodes]
        file = secret.path_of(nodes.cluster)
        async with Client.connect(addresses, secret_file=file) as client:
            found = await client.reconfigure("registers", roles=("coordinator",))
            assert [m.role for m in found.moved] == ["coordinator"] * 3
            # Requests go on being answered on the connection that waits for it.
            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.reconfigure, "numpy")
                await client.submit(b"meanwhile")
        there = await nodes.running["n1"].reconfigure("numpy")
        assert there.moved == ()


# Failures ----------------------------------------------------------------------------------------


async def test_one_that_cannot_take_it_leaves_it_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An acceptor that has left stays, with all it remembers, if the new place fails."""
    def broken(self: SwitchAcceptor, memory: Memory) -> None:
        raise OSError("the switch does not answer")

    cluster = new_cluster(tmp_path)
    async with running(cluster) as nodes, loaded(nodes) as load:
        monkeypatch.setattr(SwitchAcceptor, "take", broken)
        words = "could not take acceptor 0, which stays on numpy: the switch does not answer"
        with pytest.raises(NotReconfigured, match=words):
            await reconfigure(cluster, "registers")
        monkeypatch.undo()
        install(monkeypatch, registers="tests.moving.groups:RegisterPlanes")
        await load.goes_on()
        assert nodes.planes == dict.fromkeys(ROLES, "numpy")
        assert placement.read(cluster, "acceptor", 0) == "numpy"
        assert nodes.running["n1"].moves.counters == {"moved": 0, "failed": 1}
        assert len((await reconfigure(cluster, "registers")).moved) == len(ROLES)


async def test_a_node_that_dies_in_the_middle_has_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Section 8: it comes up where it was going, silent, and the same call moves the rest."""
    cluster = new_cluster(tmp_path)
    async with running(cluster) as nodes, loaded(nodes) as load:
        dying = SwitchAcceptor.take

        def dies(self: SwitchAcceptor, memory: Memory) -> None:
            if self.frame.sender == 1:
                raise Killed
            dying(self, memory)

        monkeypatch.setattr(SwitchAcceptor, "take", dies)
        with pytest.raises(NotReconfigured, match=r"acceptor 1 of n2: .* acceptor 0 moved"):
            await reconfigure(cluster, "registers")
        monkeypatch.setattr(SwitchAcceptor, "take", dying)
        await load.goes_on()
        await nodes.start("n2")
        node = nodes.running["n2"]
        assert isinstance(node.forgetful[1][0], ForgetfulAcceptor)
        assert node.moves.planes == {("acceptor", 1): "registers", ("coordinator", 1): "numpy"}
        await until(lambda: not node.silent)
        found = await reconfigure(cluster, "registers")
        await load.goes_on()
        assert found.moved[0][:2] == ("acceptor", 2)
        assert nodes.planes == dict.fromkeys(ROLES, "registers")
        assert node.acceptors[1][0].incarnation == 1


async def test_an_acceptor_that_is_nowhere_stops_its_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither place can be had: what it would answer is not known, so nothing more leaves."""
    def broken(*_: object) -> None:
        raise OSError("gone")

    cluster = new_cluster(tmp_path)
    with pytest.RaisesGroup(pytest.RaisesExc(OSError, match="gone"), flatten_subgroups=True):
        async with running(cluster):
            monkeypatch.setattr(SwitchAcceptor, "take", broken)
            monkeypatch.setattr(SwitchAcceptor, "close", broken)
            with pytest.raises(P4xosError):
                await reconfigure(cluster, "registers")
            await trio.sleep_forever()


# What is kept ------------------------------------------------------------------------------------


async def test_a_role_comes_up_where_it_was(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path)
    async with running(cluster) as nodes:
        await reconfigure(cluster, "registers")
        told = {
            (sample.name, *sorted(sample.labels.values())): sample.value
            for family in families(nodes.running["n1"].status())
            for sample in family.samples
        }
        assert told["p4xos_data_plane", "0", "acceptor", "registers"] == 1
        assert told["p4xos_data_plane", "0", "coordinator", "registers"] == 1
        assert told["p4xos_moves_moved_total",] == 2
        assert told["p4xos_moves_failed_total",] == 0
        await nodes.stop("n1")
        await nodes.start("n1")
        assert nodes.planes == dict.fromkeys(ROLES, "registers")
        line = described({"n1": nodes.running["n1"].status()})["n1"]
        assert "acceptor 0 on registers, coordinator 0 on registers" in line
    path = placement.plane_file(cluster, "acceptor", 0)
    assert path == tmp_path / "n1" / "acceptor-0.plane"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "version None was found, version 1 was expected"),
        ("version = 2\n", "version 2 was found, version 1 was expected; use the release"),
        ('version = 1\ncluster = 1\ndata_plane = "p4"\n', "of another cluster"),
        ('version = 1\ncluster = ID\ndata_plane = "P 4"\n', "the name of a data plane"),
        ("version = 1\ncluster = ID\n", "the key is missing"),
        ("\0", "not TOML"),
        ("#" * 5000, "larger than 4 KiB; remove it, and the role is on numpy again"),
    ],
)
def test_a_file_that_is_no_good(tmp_path: Path, text: str, complaint: str) -> None:
    cluster = new_cluster(tmp_path)
    path = placement.plane_file(cluster, "coordinator", 2)
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.replace("ID", str(cluster.id)))
    with pytest.raises(ConfigError, match=complaint):
        placement.read(cluster, "coordinator", 2)


def test_a_data_plane_that_is_gone_is_named_with_the_file(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path)
    placement.write(cluster, "acceptor", 0, "bmv2")
    with pytest.raises(ConfigError, match=r'acceptor-0.plane: .*no data plane "bmv2" is installed'):
        Node(cluster, "n1", [("acceptor", cluster.acceptors[0])]).open()


def test_a_log_is_not_given_up_by_a_file(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path)
    placement.write(cluster, "acceptor", 0, "registers")
    assert placement.read(cluster, "acceptor", 0) == "registers"
    with pytest.raises(ConfigError, match=r'storage = "disk".*remove it, and the role is on numpy'):
        placement.read(replace(cluster, storage="disk"), "acceptor", 0)


# Strangers ---------------------------------------------------------------------------------------


NONSENSE: tuple[dict[str, object], ...] = (
    {"ask": "move", "data_plane": "numpy", "role": "learner", "member": 0},
    {"ask": "move", "data_plane": "numpy", "role": "acceptor", "member": -1},
    {"ask": "move", "data_plane": "../numpy", "role": "acceptor", "member": 0},
    {"ask": "planes", "data_plane": "numpy", "roles": []},
    {"ask": "planes", "data_plane": 7, "roles": ["acceptor"]},
    {"ask": "reconfigure", "data_plane": "numpy", "roles": [["acceptor"]]},
    {"ask": "reconfigure", "data_plane": "numpy", "roles": ["acceptor"] * 3},
    {"ask": "reconfigure", "data_plane": "x" * 60000, "roles": ["acceptor"]},
)


async def test_nonsense_ends_the_connection_alone(tmp_path: Path) -> None:
    async with running(new_cluster(tmp_path)) as nodes:
        cluster = nodes.cluster
        for head in NONSENSE:
            dialed = await dial(cluster.node("n1").peer, cluster.id, secret.of(cluster))
            with pytest.raises(P4xosError):
                await ask_untrusted(dialed, {"id": 1, **head})
            assert await dialed.frames.receive_untrusted() is None
            await dialed.frames.aclose()
        service = nodes.running["n1"].service
        assert service is not None
        assert service.counters["bad_frames"] == len(NONSENSE)
        assert nodes.planes == dict.fromkeys(ROLES, "numpy")
        async with Client.connect(cluster) as client:
            await client.submit(b"still there")


@pytest.mark.parametrize(
    "head",
    [{}, {"moved": 3}, {"moved": [3], "data_plane": "p4"}, {"moved": [{}], "data_plane": "p4"}],
)
def test_an_answer_that_is_none(head: dict[str, object]) -> None:
    with pytest.raises(P4xosError):
        reconfiguring.reconfigured_untrusted(head)
