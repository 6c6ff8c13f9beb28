"""`ordered_mcast` on whole groups: submit, deliver, recover, and what is negotiated."""

from __future__ import annotations

from pathlib import Path

import pytest

from p4xos import planes
from p4xos.chunnels import (
    BadMessage,
    Delivered,
    NoAgreement,
    endpoint,
    ordered_mcast,
    reliable,
    select,
    serialize,
    shard,
)
from p4xos.chunnels.group import members
from p4xos.dialing import Unreachable
from p4xos.planes import NumpyPlanes
from p4xos.remote_errors import Refused
from tests.chunnels.messages import Op
from tests.moving.groups import install
from tests.moving.groups import new_cluster as movable_cluster
from tests.moving.groups import running as movable
from tests.service.clusters import Nodes, running

OPS = [Op("put", str(k), bytes([k])) for k in range(20)]


async def taken(nodes: Nodes, count: int, after: int = 0) -> list[Delivered[Op]]:
    found: list[Delivered[Op]] = []
    async with endpoint("reader", serialize(Op) | ordered_mcast()).connect(nodes.cluster) as rsm:
        async for delivered in rsm.deliver(after):
            found.append(delivered)
            if len(found) == count:
                break
    return found


async def test_one_order_for_all_members_and_clients(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        group = endpoint("writer", serialize(Op) | ordered_mcast(durability="majority-disk"))
        async with group.connect(nodes.cluster) as rsm:
            first = await rsm.submit(OPS[0])
            assert first.value == OPS[0]
            instances = await rsm.submit_many(OPS[1:])
            found = await taken(nodes, len(OPS))
            rest = map(Delivered, instances, OPS[1:])
            assert found == sorted([first, *rest])
            assert await taken(nodes, 3, after=found[4].instance) == found[5:8]
            for each in found[:3]:
                assert await rsm.recover(each.instance) == (each.instance, "value", each.value)
            assert (await rsm.recover(1)).kind in ("open", "no-op")
            assert (await rsm.recover(1)).value is None
            assert rsm.metrics["ordered_mcast"].sent == len(OPS)
            told = rsm.explain()
            assert told.implementation("ordered_mcast") == "numpy"
            assert "n1, n2, n3" in told.title

        # The same stack reads in a member's own process, with nothing between.
        async with group.connect(nodes.running["n2"]) as rsm:
            async for delivered in rsm.deliver():
                assert delivered == found[0]
                break
            mine = await rsm.submit(Op("put", "mine"))
            assert mine.instance > found[-1].instance


async def test_a_member_that_cannot_is_named_with_the_layer(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        for stack, why in (
            (ordered_mcast(value_bytes=100_000), "value_bytes=100000 is required"),
            (ordered_mcast().require(plane="tofino"), "plane=tofino is required"),
        ):
            with pytest.raises(NoAgreement, match="member n1 refuses: layer ordered_mcast") as told:
                async with endpoint("c", stack).connect(nodes.cluster):
                    pass
            assert why in str(told.value)
            assert told.value.member == "member n1"


async def test_groups_without_a_majority_are_told_member_by_member(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        group = endpoint("c", ordered_mcast())
        await nodes.stop("n3")
        async with group.connect(nodes.cluster, timeout=2) as rsm:
            await rsm.submit(b"two are enough")
        await nodes.stop("n2")
        with pytest.raises(Unreachable) as told:
            async with group.connect(nodes.cluster, timeout=2):
                pass
        assert len(told.value.problems) == 2


async def test_addresses_and_a_secret_will_do(tmp_path: Path) -> None:
    async with running(tmp_path) as nodes:
        addresses = [(node.peer.host, node.peer.port) for node in nodes.cluster.nodes]
        group = endpoint("c", ordered_mcast())
        async with group.connect(addresses, secret_file=nodes.secret_file) as rsm:
            delivered = await rsm.submit(b"x")
            assert (await rsm.recover(delivered.instance)).value == b"x"
        with pytest.raises(NoAgreement, match="has a secret and you have none"):
            async with group.connect(addresses):
                pass


async def test_other_layers_are_noticed_when_reading(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        async with endpoint("w", serialize(Op) | ordered_mcast()).connect(nodes.cluster) as rsm:
            await rsm.submit(OPS[0])
        for other in (serialize(str), serialize(Op).require(codec="json")):
            async with endpoint("r", other | ordered_mcast()).connect(nodes.cluster) as reader:
                with pytest.raises(BadMessage, match="was written with other layers"):
                    async for _ in reader.deliver():
                        pass


async def test_what_is_needless_or_impossible_above_a_group(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        stack = serialize(Op) | reliable() | ordered_mcast()
        async with endpoint("w", stack).connect(nodes.running["n1"]) as rsm:
            assert rsm.explain().notes == (
                "reliable is left out: ordered_mcast provides as much",
            )
            await rsm.submit(OPS[0])
        impossible = shard(Op, by="key") | serialize(Op) | ordered_mcast()
        with pytest.raises(ValueError, match="shard cannot stand above ordered_mcast"):
            async with endpoint("w", impossible).connect(nodes.running["n1"]):
                pass
        chosen = select(serialize(Op), serialize(Op)) | ordered_mcast()
        with pytest.raises(ValueError, match="say what is wanted"):
            async with endpoint("w", chosen).connect(nodes.running["n1"]):
                pass


async def test_the_state_machine_of_a_node_gets_its_log_directly(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1, retained_bytes=1 << 20) as nodes:
        node = nodes.running["n1"]
        attached = endpoint("kv", ordered_mcast(durability="majority")).attach(node)
        assert attached.log is node.application
        assert attached.explain().implementation("ordered_mcast") == "numpy"
        with pytest.raises(NoAgreement):
            endpoint("kv", ordered_mcast(value_bytes=1 << 20)).attach(node)
        with pytest.raises(NoAgreement, match="runs an application of its own"):
            async with endpoint("kv", ordered_mcast()).connect(nodes.cluster):
                pass


def test_a_group_does_what_all_of_its_members_do() -> None:
    one = members.Member("n1", ("numpy",), {"value_bytes": 1400, "durability": "majority-disk"})
    two = members.Member("n2", ("p4",), {"value_bytes": 900, "durability": "majority"})
    assert members.common([one, two]) == members.Member(
        "all", ("numpy", "p4"), {"value_bytes": 900, "durability": "majority"}
    )
    wider = [each._replace(movable_to=("numpy", each.name)) for each in (one, two)]
    assert members.common(wider).movable_to == ("numpy",)


def test_a_member_that_only_learns_is_where_the_group_is() -> None:
    """As beside switches: the cluster file says where the group began, not where it has moved."""
    learns = members.Member("n1", (), {}, created_on="xdp")
    switches = [members.Member("a1", ("numpy",), {}), members.Member("a2", ("xdp",), {})]
    assert members._placed([learns], switches)[0].planes == ("numpy", "xdp")
    assert members._placed([learns], [])[0].planes == ("xdp",)
    assert members._placed([*switches, learns], [])[2].planes == ("numpy", "xdp")


async def test_negotiation_may_move_a_group_to_what_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, registers="tests.moving.groups:RegisterPlanes")
    stack = ordered_mcast().require(plane="registers")
    async with movable(movable_cluster(tmp_path)) as nodes:
        with pytest.raises(NoAgreement, match="plane=registers is required and it provides numpy"):
            async with endpoint("c", stack).connect(nodes.cluster):
                pass
        async with endpoint("c", ordered_mcast()).connect(nodes.cluster, move=True) as rsm:
            assert rsm.explain().implementation("ordered_mcast") == "numpy"
            first = await rsm.submit(b"before")
        async with endpoint("c", stack).connect(nodes.cluster, move=True) as rsm:
            assert rsm.explain().implementation("ordered_mcast") == "registers"
            assert (await rsm.recover(first.instance)).value == b"before"
            assert (await rsm.submit(b"after")).instance > first.instance
        assert set(nodes.planes.values()) == {"registers"}
        async with endpoint("c", stack).connect(nodes.cluster) as rsm:
            assert rsm.explain().implementation("ordered_mcast") == "registers"


async def test_a_running_group_is_moved_through_its_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `tests/moving` does it for the nodes; here for whoever holds a connection."""
    monkeypatch.setattr(planes, "find", lambda name: NumpyPlanes())
    async with running(tmp_path) as nodes:
        async with endpoint("w", serialize(Op) | ordered_mcast()).connect(nodes.cluster) as rsm:
            before = await rsm.submit(OPS[0])
            with pytest.raises(Refused, match="would be lost"):
                await rsm.reconfigure("other")  # where acceptors have no log
            moved = await rsm.reconfigure("other", roles=["coordinator"])
            assert {each.after for each in moved.moved} == {"other"}
            after = await rsm.submit(OPS[1])
            assert [d.value for d in await taken(nodes, 2)] == OPS[:2]
            assert after.instance > before.instance
        async with endpoint("r", ordered_mcast()).connect(nodes.cluster) as rsm:
            assert rsm.explain().implementation("ordered_mcast") == "numpy+other"
