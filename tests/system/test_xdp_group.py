"""`ordered_mcast` in the kernel: chosen by negotiation, moved out of it and back under load."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from p4xos.chunnels import (
    Delivered,
    Explanation,
    GroupConnection,
    NoAgreement,
    endpoint,
    ordered_mcast,
    serialize,
)
from p4xos.errors import NoQuorum
from p4xos.remote_errors import Refused
from tests.chunnels.messages import Op
from tests.switch.kernel import in_the_kernel
from tests.system.test_data_plane import LIMIT_S, SwitchedCluster

pytestmark = in_the_kernel
AT_ONCE = 4
STACK = serialize(Op) | ordered_mcast()
IN_KERNEL = serialize(Op) | ordered_mcast(durability="majority").require(plane="xdp")


@pytest.fixture
def switched(tmp_path: Path) -> Iterator[SwitchedCluster]:
    """Nodes that serve the log alone."""
    running = SwitchedCluster(tmp_path, "xdp", program="p4xos")
    yield running
    running.stop()


class Load:
    """Submits without a pause, and knows what it was told."""

    def __init__(self, rsm: GroupConnection[Op]) -> None:
        self.told: list[Delivered[Op]] = []
        self.submitted = 0
        self._rsm = rsm

    async def run(self) -> None:
        while True:
            ops = [Op("put", str(self.submitted + k)) for k in range(AT_ONCE)]
            self.submitted += len(ops)
            with suppress(NoQuorum):  # of a machine that stood still: it may be there or not
                instances = await self._rsm.submit_many(ops)
                self.told += map(Delivered, instances, ops)

    async def goes_on(self) -> None:
        """Two rounds that began behind this moment came back."""
        wanted = len(self.told) + 2 * AT_ONCE
        while len(self.told) < wanted:
            await trio.sleep(0.01)


@asynccontextmanager
async def loaded(rsm: GroupConnection[Op]) -> AsyncIterator[Load]:
    """Load as long as the block runs; then nothing is lost, and nothing is there twice."""
    load = Load(rsm)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(load.run)
        await load.goes_on()
        yield load
        nursery.cancel_scope.cancel()
    last = await rsm.submit(Op("last", ""))
    delivered: list[Delivered[Op]] = []
    async for each in rsm.deliver():
        if each.instance == last.instance:
            break
        if each.value.verb == "put":
            delivered.append(each)
    told = set(load.told)
    assert [each for each in delivered if each in told] == sorted(load.told)
    assert len({each.value.key for each in delivered}) == len(delivered) <= load.submitted


def why(told: Explanation) -> str:
    (row,) = [each for each in told.layers if each.type == "ordered_mcast"]
    return row.reason


async def test_out_of_the_kernel_and_back(switched: SwitchedCluster) -> None:
    """docs/PROTOCOL.md, sections 4 and 8."""
    cluster = switched.cluster
    with trio.fail_after(LIMIT_S):
        async with endpoint("c", IN_KERNEL).connect(cluster, timeout=LIMIT_S) as rsm:
            assert rsm.explain().implementation("ordered_mcast") == "xdp"
            async with loaded(rsm) as load:
                # Every member must be there, and take part, before one after the other moves.
                while True:
                    try:
                        moved = await rsm.reconfigure("numpy")
                        break
                    except Refused:
                        await trio.sleep(0.1)
                assert {each.after for each in moved.moved} == {"numpy"}
                assert rsm.explain().implementation("ordered_mcast") == "numpy"
                assert why(rsm.explain()).startswith("moved there in ")
                await load.goes_on()

                with pytest.raises(NoAgreement, match="plane=xdp is required and it provides nump"):
                    async with endpoint("c", IN_KERNEL).connect(cluster):
                        pass
                async with endpoint("c", STACK).connect(cluster) as other:
                    assert other.explain().implementation("ordered_mcast") == "numpy"

                # The negotiation itself moves it to where it is required to be.
                async with endpoint("c", IN_KERNEL).connect(cluster, move=True) as other:
                    assert other.explain().implementation("ordered_mcast") == "xdp"
                    await other.submit(Op("other", ""))
                await load.goes_on()
                moved = await rsm.reconfigure("xdp")
                assert moved.moved == ()
                await load.goes_on()
