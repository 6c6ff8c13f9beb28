"""Clients of one command at a time, taken together: each gets its own answers, in its order."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import pytest
import trio

from kvstore.connection import Connection
from kvstore.crowd import Crowd, Other
from kvstore.packing import split_value
from p4xos.errors import NoQuorum
from tests.kvstore.serving import Running, Talker, pack, serving
from tests.kvstore.test_server import Model, random_command, settle

CLIENTS = 8


class Seen:
    """What went through the crowd, and what came out of it again."""

    def __init__(self) -> None:
        self.taken = self.others = 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Seen:
    counts = Seen()
    receive = Crowd.receive

    def counted(crowd: Crowd, connections: Iterable[Connection]) -> list[Other]:
        ready = list(connections)
        others = receive(crowd, ready)
        counts.taken += len(ready) - len(others)
        counts.others += len(others)
        return others

    monkeypatch.setattr(Crowd, "receive", counted)
    return counts


@pytest.fixture
async def running(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path) as started:
        yield started


async def crowd_of(running: Running, count: int = CLIENTS) -> list[Talker]:
    """So many clients, each of which has had an answer to one command."""
    talkers = [await running.connect() for _ in range(count)]
    for number, talker in enumerate(talkers):
        await talker.send(pack(b"SET", b"own%d" % number, b"%d" % number))
    for talker in talkers:
        await talker.expect(b"+OK\r\n")
    return talkers


async def test_reads_and_writes_of_a_turn_share_their_way(running: Running, seen: Seen) -> None:
    talkers = await crowd_of(running)
    running.log.recording = running.log.held = True
    for number, talker in enumerate(talkers):
        words = (b"APPEND", b"own%d" % number, b"!") if number % 2 else (b"GET", b"own%d" % number)
        await talker.send(pack(*words))
    await settle()
    running.log.release()
    for number, talker in enumerate(talkers):
        await talker.expect(b":2\r\n" if number % 2 else b"$1\r\n%d\r\n" % number)
    assert sum(len(split_value(value)[2]) for value in running.log.proposed) == CLIENTS // 2
    assert (seen.taken, seen.others) == (CLIENTS, 0)
    counted = {entry.name: count for entry, count in running.server.meter.commands.items()}
    assert counted == {b"set": CLIENTS, b"append": CLIENTS // 2, b"get": CLIENTS // 2}
    assert running.server.meter.reads.count == CLIENTS // 2
    assert running.server.meter.writes.count == CLIENTS + CLIENTS // 2
    assert running.server.counters["commands_received"] == 2 * CLIENTS


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_clients_send_each_gets_its_own(
    running: Running, seen: Seen, seed: int
) -> None:
    """One command at a time, two, or one in pieces; from the table or not."""

    async def client(number: int) -> None:
        random_ = random.Random(seed * 100 + number)
        model, talker = Model(), await running.connect()
        for _ in range(60):
            words = [
                random_command(random_, b"%d:" % number)
                for _ in range(random_.choice((1, 1, 1, 1, 1, 2, 5)))
            ]
            stream = b"".join(pack(*each) for each in words)
            cut = random_.randrange(1, len(stream)) if random_.random() < 0.1 else len(stream)
            await talker.send(stream[:cut])
            if cut < len(stream):
                await trio.lowlevel.checkpoint()
                await talker.send(stream[cut:])
            await talker.expect(b"".join(map(model.reply, words)))

    async with trio.open_nursery() as nursery:
        for number in range(CLIENTS):
            nursery.start_soon(client, number)
    assert seen.taken > 0
    assert seen.others > 0


@pytest.mark.parametrize(
    ("sent", "answered"),
    [
        (b"*1\r\n$4\r\nPI", b""),
        (b"*1\r\n:5\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
        (pack(b"GET"), b"-ERR wrong number of arguments for 'get' command\r\n"),
        (pack(b"NO"), b"-ERR unknown command 'NO', with args beginning with: \r\n"),
        (pack(b"PING"), b"+PONG\r\n"),
        (b"PING\r\n", b"+PONG\r\n"),
        (pack(b"GET", b"own0") * 2, b"$1\r\n0\r\n" * 2),
        (b"*1\r\n$4\r\nPING\r\n%1\r\n$5\r\n\r\n*ab\r\n:5\r\n", b"+PONG\r\n-ERR"),
        (pack(b"SET", b"k", b"v" * 5000), b"+OK\r\n"),
    ],
)
async def test_what_one_sends_changes_nothing_for_the_others(
    running: Running, seen: Seen, sent: bytes, answered: bytes
) -> None:
    talkers = await crowd_of(running)
    running.log.held = True
    for number, talker in enumerate(talkers):
        await talker.send(sent if number == 3 else pack(b"GET", b"own%d" % number))
    await settle()
    running.log.release()
    for number, talker in enumerate(talkers):
        await talker.expect(answered if number == 3 else b"$1\r\n%d\r\n" % number)
    assert seen.taken + seen.others == CLIENTS


@pytest.mark.parametrize("write", [False, True])
async def test_what_comes_before_the_answer_waits_behind_it(
    running: Running, seen: Seen, write: bool
) -> None:
    talkers = await crowd_of(running)
    running.log.held = True
    for number, talker in enumerate(talkers):
        await talker.send(pack(b"INCR" if write else b"GET", b"own%d" % number))
    await settle()
    for number, talker in enumerate(talkers):
        await talker.send(pack(b"INCR", b"own%d" % number) + pack(b"GET", b"own%d" % number))
    await settle()
    running.log.release()
    for number, talker in enumerate(talkers):
        first = b":%d\r\n" % (number + 1) if write else b"$1\r\n%d\r\n" % number
        value = b"%d" % (number + 1 + write)
        await talker.expect(first + b":%b\r\n$%d\r\n%b\r\n" % (value, len(value), value))
    assert (seen.taken, seen.others) == (CLIENTS, 0)


@pytest.mark.parametrize("write", [False, True])
async def test_a_client_that_has_gone_leaves_the_others_theirs(
    running: Running, seen: Seen, write: bool
) -> None:
    talkers = await crowd_of(running)
    running.log.held = True
    for number, talker in enumerate(talkers):
        key = b"own%d" % number
        await talker.send(pack(b"INCR", key) if write else pack(b"GET", key))
    await settle()
    await talkers[2].stream.aclose()
    await settle()
    running.log.release()
    for number, talker in enumerate(talkers):
        if number != 2:
            await talker.expect(b":%d\r\n" % (number + 1) if write else b"$1\r\n%d\r\n" % number)
    assert seen.taken == CLIENTS
    assert running.server.connected == CLIENTS - 1


async def test_a_reply_that_a_socket_does_not_take_at_once_arrives_whole(
    running: Running, seen: Seen
) -> None:
    value = random.Random(1).randbytes(6 << 20)
    talkers = await crowd_of(running, 3)
    await talkers[0].send(pack(b"SET", b"large", value))
    await talkers[0].expect(b"+OK\r\n")
    for talker in talkers:
        await talker.send(pack(b"GET", b"large"))
    await settle()
    assert any(connection.unsent for connection in running.server._connections.values())
    for number, talker in enumerate(talkers):
        await talker.send(pack(b"GET", b"own%d" % number))
    for number, talker in enumerate(talkers):
        await talker.expect(b"$%d\r\n%b\r\n$1\r\n%d\r\n" % (len(value), value, number))
    assert seen.taken >= 2


@pytest.mark.parametrize("write", [False, True])
async def test_no_majority_is_told_to_each(running: Running, seen: Seen, write: bool) -> None:
    talkers = await crowd_of(running)
    running.log.held = True
    running.log.failing = NoQuorum(None, 5.0)
    for number, talker in enumerate(talkers):
        key = b"own%d" % number
        await talker.send(pack(b"INCR", key) if write else pack(b"GET", key))
    await settle()
    running.log.release()
    for talker in talkers:
        assert (await talker.line()).startswith(b"-NOQUORUM")
    running.log.failing = None
    for number, talker in enumerate(talkers):
        await talker.send(pack(b"GET", b"own%d" % number))
        await talker.expect(b"$1\r\n%d\r\n" % number)
    assert seen.taken == 2 * CLIENTS
    name = "unknown_outcomes" if write else "failed_reads"
    assert running.server.counters[name] == CLIENTS


async def test_an_overloaded_log_keeps_them_all(tmp_path: Path, seen: Seen) -> None:
    """One of them goes meanwhile; what it sent was not given to the log, and is given up."""
    async with serving(tmp_path, limit=1) as running:
        talkers = await crowd_of(running)
        running.log.held = True
        await talkers[0].send(pack(b"INCR", b"own0"))
        await settle()
        for number, talker in enumerate(talkers[1:], 1):
            await talker.send(pack(b"INCR", b"own%d" % number))
        await settle()
        assert running.server.counters["overloaded"] > 0
        running.server._close(next(
            connection for connection in running.server._connections.values()
            if connection.client.address.endswith(f":{talkers[5].stream.socket.getsockname()[1]}")
        ))  # fmt: skip
        running.log.release()
        for number, talker in enumerate(talkers):
            await talker.expect(b"" if number == 5 else b":%d\r\n" % (number + 1))
        await talkers[0].send(pack(b"GET", b"own5"))
        await talkers[0].expect(b"$1\r\n5\r\n")


async def test_values_that_hold_little_hold_few_of_them(tmp_path: Path, seen: Seen) -> None:
    async with serving(tmp_path, max_command_bytes=100) as running:
        talkers = await crowd_of(running)
        running.log.recording = True
        for number, talker in enumerate(talkers):
            await talker.send(pack(b"SET", b"own%d" % number, b"v" * 30))
        for talker in talkers:
            await talker.expect(b"+OK\r\n")
        await talkers[0].send(pack(b"SET", b"k", b"v" * 100))
        assert b"over the limit" in await talkers[0].line()
        assert max(map(len, running.log.proposed)) <= 100
        assert sum(len(split_value(value)[2]) for value in running.log.proposed) == CLIENTS
        assert seen.taken > 0


async def test_modes_of_a_client_and_of_the_server_hold_here_too(
    running: Running, seen: Seen
) -> None:
    """What changes how the next command is run or answered: nobody stays simple with it."""
    one, two = await crowd_of(running, 2)
    get = pack(b"GET", b"own1")
    for changed, restored, reply, count in (
        (pack(b"SELECT", b"1"), pack(b"SELECT", b"0"), b"$-1\r\n", 2),
        (pack(b"MULTI"), pack(b"DISCARD"), b"+QUEUED\r\n", 2),
        (pack(b"CLIENT", b"REPLY", b"OFF"), pack(b"CLIENT", b"REPLY", b"ON"), b"", 1),
    ):
        await one.send(changed)
        await one.expect(b"" if b"REPLY" in changed else b"+OK\r\n")
        await settle()
        before = seen.taken
        await one.send(get)
        await one.expect(reply)
        await settle()
        assert seen.taken == before
        await one.send(restored)
        await one.expect(b"+OK\r\n")
        for _ in range(count):
            await one.send(get)
            await one.expect(b"$1\r\n1\r\n")
    await two.send(pack(b"MONITOR"))
    await two.expect(b"+OK\r\n")
    await one.send(get)
    await one.expect(b"$1\r\n1\r\n")
    assert b'"GET" "own1"' in await two.line()
