"""The C library against a gateway that fails: nothing is lost, nothing comes twice."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
import trio

from p4xos.errors import SessionLost
from tests.libpaxos_c.stand_in import StandIn, additions, run

FNV_START, FNV_FACTOR = 0xCBF29CE484222325, 0x100000001B3


def digest(values: list[bytes]) -> str:
    """As `counter` makes one of what it was delivered."""
    found = FNV_START
    for iid, value in enumerate(values, 1):
        for byte in iid.to_bytes(4, "little") + value:
            found = (found ^ byte) * FNV_FACTOR % 2**64
    return f"{found:016x}"


async def test_values_come_in_order_and_once(programs: Path, tmp_path: Path) -> None:
    log = StandIn()
    log.append(b"", b"of another one" * 1000, b"add 7 from 5")
    async with log.serving(tmp_path) as config:
        told = await run(programs / "counter", config, 0, "--adds", 300, "--until", 301)
    assert told["sum"] == 7 + sum(range(301))
    assert told["own"] == 300
    assert told["out_of_order"] == 0
    assert told["digest"] == digest(log.values[: int(str(told["last"]))])
    assert set(log.values[3:]) == additions(300, 0)


@pytest.mark.parametrize("seed", range(3))
async def test_nothing_is_lost_or_comes_twice_when_connections_are(
    programs: Path, tmp_path: Path, seed: int
) -> None:
    """Cut before a frame is taken, behind that, inside of a delivery, in the greeting."""
    log = StandIn(Random(seed), cut=0.1, unanswered=3)
    told: dict[int, dict[str, object]] = {}

    async def one(id: int) -> None:
        told[id] = await run(
            programs / "counter", config, id, "--adds", 150, "--until", 300, "--at-once", 7
        )

    async with log.serving(tmp_path) as config, trio.open_nursery() as nursery:
        nursery.start_soon(one, 0)
        nursery.start_soon(one, 2)
    assert log.counts["cuts"] > 10
    assert log.counts["again"] >= 3
    assert sorted(log.values) == sorted(additions(150, 0, 2))  # each once
    for one_told in told.values():
        assert one_told["own"] == 150
        assert one_told["out_of_order"] == 0
        assert one_told["digest"] == digest(log.values[: int(str(one_told["last"]))])


async def test_a_lost_session_is_begun_anew(programs: Path, tmp_path: Path) -> None:
    """The log has forgotten the client: what it never took is submitted by a new one."""
    log = StandIn()
    forgotten: list[int] = []

    def refuse(client: int, number: int) -> SessionLost | None:
        if number == 3 and not forgotten:
            forgotten.append(client)
        return SessionLost(client) if client in forgotten else None

    log.refuse = refuse
    async with log.serving(tmp_path) as config:
        told = await run(programs / "counter", config, 0, "--adds", 100, "--at-once", 2)
    assert forgotten
    assert told["own"] == 100
    assert set(log.values) == additions(100, 0)


async def test_trims_are_sent(programs: Path, tmp_path: Path) -> None:
    log = StandIn()
    async with log.serving(tmp_path) as config:
        await run(programs / "counter", config, 1, "--adds", 100, "--trim-every", 10)
    assert log.counts["trims"] >= 9


async def test_a_gap_is_asked_for_elsewhere(programs: Path, tmp_path: Path) -> None:
    """A server that leaves something out is not believed."""
    from tests.libpaxos_c.stand_in import delivered, welcome

    log = StandIn()
    log.append(*(b"%d" % k for k in range(10)))

    async def gap(stream: trio.SocketStream) -> None:
        await stream.send_all(
            welcome() + delivered(1, log.values[:3]) + delivered(5, log.values[4:])
        )
        await stream.receive_some(1)
        await trio.sleep_forever()

    log.attacks = [gap, gap]
    async with log.serving(tmp_path) as config:
        told = await run(programs / "counter", config, 0, "--adds", 20)
    assert told["out_of_order"] == 0
    assert told["digest"] == digest(log.values[: int(str(told["last"]))])


async def test_measure_tells_values_and_latency(programs: Path, tmp_path: Path) -> None:
    log = StandIn()
    async with log.serving(tmp_path) as config:
        told = await run(
            programs / "measure", config, "--outstanding", 10, "--seconds", 0.3, "--warm-up", 0.1
        )
    assert told["twice"] == 0
    assert int(str(told["values"])) > 10
    assert 0 < int(str(told["p50_us"])) <= int(str(told["p99_us"]))
    assert log.first_asked == [0]  # it begins with what comes next
