"""What all clients of a node hold together: bounded, and whoever holds little is not touched."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trio

from kvstore import batcher, burden
from tests.kvstore.serving import Running, Talker, pack, serving

LIMIT_S = 60
MIB = 1 << 20


@pytest.fixture
async def running(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Running]:
    """A server whose clients may hold 4 MiB together, each way."""
    monkeypatch.setattr(burden, "INPUT_BYTES", 4 * MIB)
    monkeypatch.setattr(burden, "OUTPUT_BYTES", 4 * MIB)
    monkeypatch.setattr(burden, "LOOK_S", 0.0)
    async with serving(tmp_path) as found:
        yield found


async def until(running: Running, counter: str, count: int = 1) -> None:
    """Waits until a counter of the server has come so far."""
    with trio.fail_after(LIMIT_S):
        while running.server.counters[counter] < count:
            await trio.sleep(0.01)


async def send(talker: Talker, data: bytes) -> None:
    """As far as the server takes it."""
    try:
        await talker.stream.send_all(data)
    except trio.BrokenResourceError:
        return


async def test_half_sent_commands_wait_and_all_get_on(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burden, "PATIENCE_S", LIMIT_S * 10)
    command = pack(b"SET", b"k", b"v" * 3 * MIB)
    half = len(command) - MIB // 2
    go_on, done = trio.Event(), []

    async def client(talker: Talker) -> None:
        await talker.stream.send_all(command[:half])
        await go_on.wait()
        await talker.stream.send_all(command[half:])
        await talker.expect(b"+OK\r\n")
        done.append(talker)

    talkers = [await running.connect() for _ in range(4)]
    server = running.server
    async with trio.open_nursery() as nursery:
        for talker in talkers:
            nursery.start_soon(client, talker)
        await until(running, "inputs_parked", 3)
        # The bound, what the oldest alone sends on, and a read of each that found room.
        most = 4 * MIB + half + len(talkers) * burden.LITTLE_BYTES
        assert server.burden.input_bytes < most

        # Who holds little is served as ever.
        small = await running.connect()
        for _ in range(20):
            await small.send(pack(b"SET", b"small", b"1") + pack(b"GET", b"small"))
            await small.expect(b"+OK\r\n$1\r\n1\r\n")
        assert not done
        go_on.set()
    assert len(done) == 4
    assert server.burden.input_bytes == 0
    assert not server.burden.parked
    assert server.counters["inputs_cut_off"] == 0


async def test_who_stalls_while_others_wait_is_cut_off(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burden, "PATIENCE_S", 0.0)
    monkeypatch.setattr(burden, "PATIENCE_BYTES", 1 << 40)
    command = pack(b"SET", b"k", b"v" * 5 * MIB)
    stalled, other = await running.connect(), await running.connect()
    await send(stalled, command[:-1])
    with trio.fail_after(LIMIT_S):
        while running.server.burden.input_bytes < 5 * MIB:
            await trio.sleep(0.01)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, other, command[:-1])
        assert b"-ERR this node has no room for commands that are sent so slowly" in (
            await stalled.rest()
        )
        await until(running, "inputs_parked")
    await send(other, command[-1:])
    await other.expect(b"+OK\r\n")
    assert running.server.counters["inputs_cut_off"] == 1


async def test_a_transaction_being_queued_counts(running: Running) -> None:
    talker = await running.connect()
    await talker.send(pack(b"MULTI") + pack(b"SET", b"k", b"v" * MIB) * 2)
    await talker.expect(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n")
    assert running.server.burden.input_bytes > 2 * MIB
    await talker.send(pack(b"DISCARD"))
    await talker.expect(b"+OK\r\n")
    assert running.server.burden.input_bytes == 0


async def test_who_takes_nothing_is_cut_off_for_the_others(running: Running) -> None:
    small = await running.connect()
    await small.send(pack(b"SET", b"large", b"v" * 8 * MIB))
    await small.expect(b"+OK\r\n")
    slow = [await running.connect() for _ in range(4)]
    for talker in slow:
        await talker.send(pack(b"GET", b"large"))
        await until(running, "reads_requested")
    await until(running, "outputs_cut_off")
    assert running.server.burden.output_bytes <= 4 * MIB
    await small.send(pack(b"STRLEN", b"large"))
    await small.expect(b":%d\r\n" % (8 * MIB))


async def test_long_commands_of_a_client_that_has_gone_are_given_up(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(burden, "INPUT_BYTES", 64 * MIB)
    running.log.held = True
    monster = pack(b"SET", b"k", b"v" * (batcher.LONG_BYTES // 2 + MIB))
    talkers = [await running.connect() for _ in range(3)]
    for talker in talkers:
        await send(talker, monster)
    with trio.fail_after(LIMIT_S):
        while len(running.server._batcher._long) < 2:
            await trio.sleep(0.01)
    assert running.server._batcher.in_flight == 1, "one of these at a time"
    waiting = running.server._batcher._long[0][0][0]
    running.server._close(waiting)
    assert len(running.server._batcher._long) == 1
    running.log.release()
    answered = 0
    for talker in talkers:
        answered += await talker.receive(5) == b"+OK\r\n"
    assert answered == 2
