from __future__ import annotations

import dataclasses
import errno
import random
import socket
from pathlib import Path

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from kvstore import batcher as batcher_module
from kvstore import commands as commands_module
from kvstore import connection as connection_module
from kvstore import keyspace as keyspace_module
from kvstore import machine as machine_module
from kvstore import reading as reading_module
from kvstore.commands import strings as strings_module
from kvstore.commands.client import Client
from kvstore.connection import Connection
from kvstore.listening import BindFailed, bound_socket, listen
from kvstore.machine import KvStateMachine
from kvstore.packing import join_value, pack_commands, split_value
from kvstore.replies import encode
from kvstore.resp import Command
from kvstore.server import KvServer
from kvstore.store import Store, StoreError
from p4xos.errors import NoQuorum, SessionLost
from p4xos.log import Delivered
from p4xos.testing.local_log import LocalLog
from tests.kvstore.serving import Running, pack, serving


async def settle() -> None:
    """Until every task waits: everything that can happen without more input has happened."""
    await wait_all_tasks_blocked(0.002)


class Model:
    """What one client alone must see, command by command."""

    def __init__(self) -> None:
        self.databases: list[dict[bytes, bytes]] = [{} for _ in range(16)]
        self.selected = 0

    def reply(self, words: tuple[bytes, ...]) -> bytes:
        data, name = self.databases[self.selected], words[0]
        if name == b"SET":
            data[words[1]] = words[2]
            return b"+OK\r\n"
        if name == b"GET":
            return encode(data.get(words[1]), 2)
        if name == b"INCR":
            data[words[1]] = b"%d" % (int(data.get(words[1], b"0")) + 1)
            return b":%b\r\n" % data[words[1]]
        if name == b"DEL":
            return encode(sum(data.pop(key, None) is not None for key in words[1:]), 2)
        if name == b"SELECT":
            self.selected = int(words[1])
            return b"+OK\r\n"
        if name == b"DBSIZE":
            return encode(len(data), 2)
        if name == b"PING":
            return b"+PONG\r\n"
        return b"-ERR unknown command '%b', with args beginning with: \r\n" % name


def random_command(random_: random.Random, prefix: bytes) -> tuple[bytes, ...]:
    key = prefix + b"%d" % random_.randrange(4)
    return random_.choice(
        [
            (b"SET", key, b"%d" % random_.randrange(100)),
            (b"SET", key, b"%d" % random_.randrange(100)),
            (b"GET", key), (b"GET", key), (b"GET", key),
            (b"INCR", key), (b"DEL", key, key), (b"PING",), (b"FOO",),
            (b"SELECT", b"%d" % random_.randrange(2)),
        ]
    )  # fmt: skip


@pytest.mark.parametrize("seed", range(6))
async def test_pipelines_of_mixed_commands_keep_their_order(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several clients, pipelines in odd pieces; every reply is what its own commands give."""
    monkeypatch.setattr(connection_module, "RUN_COMMANDS", 40)
    monkeypatch.setattr(connection_module, "RIDING_READS", 8)
    monkeypatch.setattr(batcher_module, "RUN_BYTES", 300)
    monkeypatch.setattr(reading_module, "READ_BYTES", 300)
    random_ = random.Random(seed)
    async with serving(tmp_path, max_value_bytes=200) as running:

        async def client(prefix: bytes) -> None:
            model = Model()
            talker = await running.connect()
            for _ in range(6):
                batch = [random_command(random_, prefix) for _ in range(random_.randrange(1, 120))]
                stream = b"".join(pack(*words) for words in batch)
                expected = b"".join(map(model.reply, batch))
                while stream:
                    count = random_.randrange(1, 800)
                    await talker.send(stream[:count])
                    stream = stream[count:]
                await talker.expect(expected)

        async with trio.open_nursery() as nursery:
            for name in (b"a", b"b", b"c"):
                nursery.start_soon(client, name)


async def test_commands_of_many_clients_share_a_value(running: Running) -> None:
    running.log.recording = True
    running.log.held = True
    talkers = [await running.connect() for _ in range(5)]
    for number, talker in enumerate(talkers):
        await talker.send(pack(b"SET", b"k%d" % number, b"v"))
    await settle()
    running.log.release()
    for talker in talkers:
        await talker.expect(b"+OK\r\n")
    assert sum(len(split_value(value)[2]) for value in running.log.proposed) == 5


async def test_what_arrives_together_is_packed_together(running: Running) -> None:
    server = running.server
    connections = [Connection(sock, client_of(server), server._chunks) for sock in pairs(3)]
    batcher = server._batcher
    batcher._short = [
        ([connection], pack_commands([[b"SET", b"k", b"%d" % number]], 0))
        for number, connection in enumerate(connections)
    ]
    values, owners = batcher._fill_values()
    commands = [split_value(value)[2] for value in values]
    assert [[words[2] for words in group] for group in commands] == [[b"0", b"1", b"2"]]
    assert [[run[0][0] for run in runs] for runs in owners] == [connections]
    batcher._short = []
    for connection in connections:
        connection.sock.close()


def client_of(server: KvServer) -> Client:
    return Client(1, "", server._facts)


def pairs(count: int) -> list[socket.socket]:
    return [socket.socket() for _ in range(count)]


async def test_a_pipeline_of_writes_is_one_value_though_long(tmp_path: Path) -> None:
    """Two values of one session may be delivered in the other order; one value cannot."""
    async with serving(tmp_path, max_value_bytes=100) as running:
        running.log.recording = True
        talker = await running.connect()
        await talker.send(b"".join(pack(b"SET", b"k", b"%050d" % n) for n in range(50)))
        await talker.expect(b"+OK\r\n" * 50)
        assert [len(split_value(value)[2]) for value in running.log.proposed] == [50]


async def test_a_client_has_one_value_outstanding(running: Running) -> None:
    running.log.held = True
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"1"))
    await settle()
    await talker.send(pack(b"SET", b"k", b"2") + pack(b"GET", b"k"))
    await settle()
    assert running.log.in_flight == 1
    running.log.release()
    await talker.expect(b"+OK\r\n+OK\r\n$1\r\n2\r\n")


async def test_a_read_behind_a_write_of_its_client_sees_it(running: Running) -> None:
    talker = await running.connect()
    await talker.send(pack(b"GET", b"k") + pack(b"SET", b"k", b"v") + pack(b"GET", b"k"))
    await talker.expect(b"$-1\r\n+OK\r\n$1\r\nv\r\n")
    assert running.log.read_requests == 0  # they rode the log, in one round


async def test_reads_of_all_clients_share_read_indexes(running: Running) -> None:
    running.log.held = True
    talkers = [await running.connect() for _ in range(10)]
    for talker in talkers:
        await talker.send(pack(b"GET", b"k") * 3)
    await settle()
    requests = running.log.read_requests
    running.log.release()
    for talker in talkers:
        await talker.expect(b"$-1\r\n" * 3)
    assert requests <= 10
    assert running.machine.counters["commands_applied"] == 0


async def test_a_read_waits_for_its_index(running: Running) -> None:
    """docs/PROTOCOL.md, section 9."""
    running.log.held = True
    reader, writer = await running.connect(), await running.connect()
    await writer.send(pack(b"SET", b"k", b"new"))
    await settle()
    await reader.send(pack(b"GET", b"k"))
    await settle()
    running.log.deliver()
    await reader.expect(b"$3\r\nnew\r\n")
    await writer.expect(b"+OK\r\n")


async def test_an_unknown_outcome_says_so(running: Running) -> None:
    """docs/traps.md, 16: a timeout is an unknown outcome, not a failure."""
    running.log.failing = NoQuorum(None, 5.0)
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v") * 2)
    unknown = (
        b"-NOQUORUM no majority answered within 5 s; the outcome of this write is unknown: "
        b"read before you write again\r\n"
    )
    await talker.expect(unknown * 2)
    await talker.send(pack(b"GET", b"k"))
    await talker.expect(
        b"-NOQUORUM no majority answered within 5 s; nothing was read: "
        b"try again, or ask another node\r\n"
    )
    running.log.failing = None
    await talker.send(pack(b"GET", b"k"))
    await talker.expect(b"$-1\r\n")
    assert running.server.counters["unknown_outcomes"] == 2
    assert running.server.counters["failed_reads"] == 1


async def test_a_lost_session_is_an_unknown_outcome(running: Running) -> None:
    running.log.held = True
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v"))
    await settle()
    running.machine.unknown([1], SessionLost(3))
    await talker.expect(b"-UNKNOWN the outcome of this write is unknown: session 3 was dropped")


async def test_a_command_too_large_for_the_log_names_both_sizes(tmp_path: Path) -> None:
    async with serving(tmp_path, max_command_bytes=1000) as running:
        talker = await running.connect()
        small, large = pack(b"SET", b"k", b"v"), pack(b"SET", b"k", b"x" * 1000)
        await talker.send(small + large + small + large + large + pack(b"PING"))
        error = (
            b"-ERR command of 1012 bytes is over the limit of 983 bytes; split the value\r\n"
        )
        await talker.expect(b"+OK\r\n" + error + b"+OK\r\n" + error * 2 + b"+PONG\r\n")
        await talker.send(pack(b"SET", b"k", b"x" * 970) + pack(b"GET", b"k"))
        await talker.expect(b"+OK\r\n$970\r\n" + b"x" * 970 + b"\r\n")


async def test_an_overloaded_log_keeps_commands_and_stops_reading(tmp_path: Path) -> None:
    async with serving(tmp_path, limit=2, max_value_bytes=30) as running:
        running.log.held = True
        talkers = [await running.connect() for _ in range(6)]
        for talker in talkers:
            await talker.send(pack(b"INCR", b"n"))
            await settle()
        blocked = [c for c in running.server._connections.values() if c.blocked]
        assert len(blocked) == 4
        assert not any(c.wanted_mask() for c in blocked)
        assert running.log.in_flight == 2
        running.log.release()
        for number, talker in enumerate(talkers):
            await talker.expect(b":%d\r\n" % (number + 1))
        assert running.server.counters["overloaded"] > 0


async def test_a_slow_reader_is_not_read_and_holds_little(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "OUTPUT_BYTES", 100_000)
    slow, other = await running.connect(), await running.connect()
    value = b"x" * 50_000
    await slow.send(pack(b"SET", b"k", value))
    await slow.expect(b"+OK\r\n")
    count = 2000  # 100 MB of replies: more than sockets take
    await slow.send(pack(b"GET", b"k") * count)
    await settle()
    held = next(iter(running.server._connections.values()))
    assert held.reads
    assert held.output_bytes < 100_000 + 3 * reading_module.READ_BYTES + 50_000
    await other.send(pack(b"PING"))
    await other.expect(b"+PONG\r\n")
    reply = b"$50000\r\n" + value + b"\r\n"
    for _ in range(count):
        await slow.expect(reply)
    await slow.send(pack(b"PING"))
    await slow.expect(b"+PONG\r\n")


async def test_commands_waiting_behind_a_run_are_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "BACKLOG_BYTES", 10_000)
    monkeypatch.setattr(connection_module, "RECEIVE_BYTES", 4096)
    running.log.held = True
    talker = await running.connect()
    await talker.send(pack(b"INCR", b"n"))
    await settle()
    count = 5000
    await talker.send(pack(b"INCR", b"n") * count)
    await settle()
    held = next(iter(running.server._connections.values()))
    assert held.backlog_bytes <= 10_000 + 4096
    assert not held.wanted_mask()
    running.log.release()
    await talker.expect(b"".join(b":%d\r\n" % n for n in range(1, count + 2)))


async def test_long_commands_that_wait_are_bounded_too(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of which most pieces complete no command, and all but one of a run are put back."""
    monkeypatch.setattr(connection_module, "BACKLOG_BYTES", 100_000)
    monkeypatch.setattr(connection_module, "RECEIVE_BYTES", 4096)
    monkeypatch.setattr(batcher_module, "RUN_BYTES", 10_000)
    running.log.held = True
    talker = await running.connect()
    await talker.send(pack(b"INCR", b"n"))
    await settle()
    count, size = 20, 50_000
    held = next(iter(running.server._connections.values()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(talker.send, pack(b"SET", b"k", b"x" * size) * count)
        await settle()
        for _ in range(3):
            assert sum(len(command[-1]) for command in held.backlog) <= 100_000 + 2 * size
            assert not held.wanted_mask()
            running.log.deliver()
            await settle()
        running.log.release()
        await talker.expect(b":1\r\n" + b"+OK\r\n" * count)


GARBAGE = [
    (b"*1\r\n:1\r\n", b"-ERR Protocol error: expected '$', got ':'\r\n"),
    (b"*-2000000000000000000000\r\n", b"-ERR Protocol error: invalid multibulk length\r\n"),
    (b"*1\r\n$99999999999\r\n", b"-ERR Protocol error: invalid bulk length\r\n"),
    (b"PING\r\n*1\r\nx\r\n", b"+PONG\r\n-ERR Protocol error: expected '$', got 'x'\r\n"),
    (b"SET k v\r\n'\r\n", b"+OK\r\n-ERR Protocol error: unbalanced quotes in request\r\n"),
    (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nSET k v\r\n",
     b"-ERR this port speaks RESP, not HTTP; use a Redis client\r\n"),
    (b"POST / HTTP/1.1\r\nHost: a\r\n\r\nSET k v\r\n",
     b"-ERR this port speaks RESP, not HTTP; use a Redis client\r\n"),
    (b"Host: a\r\nSET k v\r\n", b"-ERR this port speaks RESP, not HTTP; use a Redis client\r\n"),
    (b"\xff" * 70_000, b"-ERR Protocol error: too big inline request\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), GARBAGE)
async def test_garbage_gets_an_error_and_a_close(
    running: Running, sent: bytes, expected: bytes
) -> None:
    """docs/traps.md, 11."""
    talker = await running.connect()
    await talker.send(sent)
    assert await talker.rest() == expected
    again = await running.connect()
    await again.send(b"PING\r\n")
    await again.expect(b"+PONG\r\n")


@pytest.mark.parametrize("seed", range(4))
async def test_random_bytes_never_end_the_loop(running: Running, seed: int) -> None:
    """docs/traps.md, 11."""
    random_ = random.Random(seed)
    for _ in range(40):
        talker = await running.connect()
        junk = bytes(random_.choices(b"*$:\r\n013PINGSET abc\"'\xc1\xff", k=random_.randrange(200)))
        await talker.send(junk)
        await talker.stream.send_eof()
        await talker.rest()
    last = await running.connect()
    await last.send(pack(b"PING"))
    await last.expect(b"+PONG\r\n")
    await settle()
    assert len(running.server._connections) == 1


async def test_replies_arrive_though_the_client_has_ended_its_side(running: Running) -> None:
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v") + pack(b"PING") + pack(b"GET", b"k"))
    await talker.stream.send_eof()
    assert await talker.rest() == b"+OK\r\n+PONG\r\n$1\r\nv\r\n"


async def test_a_client_that_vanishes_with_a_write_under_way(running: Running) -> None:
    running.log.held = True
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v") + pack(b"GET", b"k"))
    await settle()
    talker.stream.socket.setsockopt(
        socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0"
    )  # a reset, not an end
    await talker.stream.aclose()
    await settle()
    assert not running.server._connections
    running.log.release()
    other = await running.connect()
    await other.send(pack(b"GET", b"k"))
    await other.expect(b"$1\r\nv\r\n")
    assert not running.server._batcher.in_flight


async def test_quit_answers_what_was_before_it_and_nothing_after(running: Running) -> None:
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"v") + pack(b"QUIT") + pack(b"DEL", b"k"))
    assert await talker.rest() == b"+OK\r\n+OK\r\n"
    assert running.store.keyspaces[0].get(b"k") == b"v"


async def test_too_many_clients_are_told(running: Running) -> None:
    running.server.admission.max_clients = 1
    first = await running.connect()
    await first.send(b"PING\r\n")
    await first.expect(b"+PONG\r\n")
    second = await running.connect()
    assert await second.rest() == b"-ERR max number of clients reached\r\n"
    assert running.server.counters["connections_refused"] == 1


async def test_out_of_descriptors_is_waited_out(running: Running) -> None:
    ((descriptor, real),) = running.server._listeners.items()

    class Exhausted:
        def accept(self) -> None:
            running.server._listeners[descriptor] = real
            raise OSError(errno.EMFILE, "too many open files")

        def fileno(self) -> int:
            return descriptor

    running.server._listeners[descriptor] = Exhausted(), None  # type: ignore[assignment]
    talker = await running.connect()
    await talker.send(b"PING\r\n")
    await talker.expect(b"+PONG\r\n")
    assert running.server.counters["accept_errors"] == 1


async def test_a_port_in_use_is_named(running: Running) -> None:
    with pytest.raises(BindFailed, match=rf"{running.server.port}: the port is in use.*; stop"):
        bound_socket(("127.0.0.1", running.server.port))


async def test_of_two_that_bind_before_either_listens_one_is_told(running: Running) -> None:
    with bound_socket(("127.0.0.1", 0)) as first, bound_socket(first.getsockname()) as second:
        listen(first)
        with pytest.raises(BindFailed, match="the port is in use"):
            listen(second)


@pytest.mark.parametrize(
    ("host", "reason"),
    [("203.0.113.1", "no interface here has this address"), ("no such host", "does not resolve")],
)
def test_an_address_of_elsewhere_is_named(host: str, reason: str) -> None:
    with pytest.raises(BindFailed, match=reason):
        bound_socket((host, 0))


async def test_shutdown_closes_every_client(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        talker = await running.connect()
        await talker.send(b"PING\r\n")
        await talker.expect(b"+PONG\r\n")
        stream = talker.stream
        running._talkers.clear()
    assert await stream.receive_some(10) == b""
    await stream.aclose()
    assert running.server._epoll is None


async def test_trap_14_no_reply_leaves_when_the_store_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not written is not acknowledged; the node stops, loudly."""
    store = Store(tmp_path / "s", 1)
    machine = KvStateMachine(store)
    log = LocalLog()
    log.attach(machine)
    replies: list[int] = []
    machine.on_replies = lambda ticket, _: replies.append(ticket)

    def fail(*_: object) -> None:
        raise StoreError(store.directory, "the disk is full")

    monkeypatch.setattr(store, "commit", fail)
    log.propose([join_value(pack_commands([[b"SET", b"k", b"v"]], 0), 0, 0)])
    with pytest.raises(StoreError):
        log.deliver()
    assert replies == []
    monkeypatch.undo()
    store.close()


def value_of(*commands: Command, database: int = 0) -> bytes:
    return join_value(pack_commands(commands, database), 0, 0)


def test_replicas_agree_on_what_they_cannot_understand(tmp_path: Path) -> None:
    values = [
        b"\xc1",
        value_of([b"SET", b"k", b"v"], [b"NOPE"], [b"SET", b"k"]),
        value_of([b"PING"], [b"\0\x01"], [b"GET", b"k"], [b"INCR", b"k"]),
        value_of([b"SET", b"k", b"db3"], database=3),
        b"",
    ]
    states = []
    for replica in range(2):
        store = Store(tmp_path / str(replica), 1)
        machine = KvStateMachine(store)
        tickets = range(5) if replica == 0 else [None] * 5
        batch = [
            Delivered(instance, ticket, value)
            for instance, (ticket, value) in enumerate(zip(tickets, values, strict=True), 1)
        ]
        machine.apply(batch, 5, {})
        spaces = store.keyspaces
        states.append((machine.counters, [spaces[n].get(b"k") for n in (0, 3)], store.applied))
        store.close()
    assert states[0] == states[1]
    assert states[0][1] == [b"v", b"db3"]
    assert states[0][0]["bad_values"] == 2
    assert states[0][0]["bad_commands"] == 3




LARGE = 8 << 20


async def test_values_of_8_mib_are_written_read_and_bounded(tmp_path: Path) -> None:
    """A pipeline of large values and a reader that takes none of them: memory stays bounded."""
    async with serving(tmp_path) as running:
        talker = await running.connect()
        value = random.Random(1).randbytes(LARGE)
        reply = b"$%d\r\n%b\r\n" % (LARGE, value)
        await talker.send(pack(b"SET", b"k", value) + pack(b"GET", b"k"))
        await talker.expect(b"+OK\r\n" + reply)
        other = await running.connect()
        await other.send(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$%d\r\n" % (LARGE + 1))
        assert await other.rest() == b"-ERR Protocol error: invalid bulk length\r\n"
        count = 40
        await talker.send(pack(b"GET", b"k") * count)
        await settle()
        held = next(iter(running.server._connections.values()))
        assert held.output_bytes + sum(map(len, held.out)) <= 2 * LARGE
        for _ in range(count):
            await talker.expect(reply)


async def test_large_replies_among_writes_are_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads that ride the log cannot wait for their client; those that are too much say so."""
    monkeypatch.setattr(machine_module, "RIDING_BYTES", 2500)
    talker = await running.connect()
    value = b"x" * 1000
    reply = b"$1000\r\n" + value + b"\r\n"
    await talker.send(pack(b"SET", b"k", value) + pack(b"GET", b"k") * 3 + pack(b"GET", b"k"))
    await talker.expect(b"+OK\r\n" + reply * 3 + b"-ERR replies to reads among these writes are")
    await talker.expect(
        b" over 2500 bytes; read them apart from the writes, or in smaller pieces\r\n"
    )
    await talker.send(b"MULTI\r\nMGET k k k\r\nGET k\r\nSET k v\r\nEXEC\r\nGET k\r\n")
    await talker.expect(
        b"+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n*3\r\n" + reply * 3 + b"-ERR replies to reads"
    )
    await talker.send(b"QUIT\r\n")
    assert (await talker.rest()).endswith(b"+OK\r\n$1\r\nv\r\n+OK\r\n")


async def test_commands_that_lengthen_values_are_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few bytes in the log may become megabytes in memory; the same on all replicas."""
    monkeypatch.setattr(keyspace_module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(keyspace_module, "ENTRY_BYTES", 5000)
    talker = await running.connect()
    await talker.send(b"".join(pack(b"SETRANGE", b"k%d" % n, b"1999", b"x") for n in range(4)))
    await talker.expect(b":2000\r\n" * 2 + b"-ERR large values of one pipeline or transaction")
    await talker.send(b"EXISTS k0 k1 k2 k3\r\nSETRANGE k2 1999 x\r\nQUIT\r\n")
    assert (await talker.rest()).endswith(b":2\r\n:2000\r\n+OK\r\n")


async def test_values_copied_or_replied_by_writes_are_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A transaction of a few bytes a command would else fill the memory of every replica."""
    monkeypatch.setattr(keyspace_module, "ENTRY_SMALL_BYTES", 5000)
    talker = await running.connect()
    value = b"x" * 2000
    reply = b"$2000\r\n" + value + b"\r\n"
    refusal = b"-ERR values of one pipeline or transaction are over 5000 bytes; write them in sm"
    await talker.send(pack(b"SET", b"k", value))
    await talker.expect(b"+OK\r\n")
    for command, answer in (
        (b"COPY k %d\r\n", b":1\r\n"), (b"GETEX k\r\n", reply), (b"SET k v NX GET\r\n", reply),
    ):  # fmt: skip
        lines = [command % n if b"%" in command else command for n in range(3)]
        await talker.send(b"MULTI\r\n" + b"".join(lines) + b"EXEC\r\n")
        await talker.expect(
            b"+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n" + answer * 2 + refusal + b"aller steps\r\n"
        )
    for command in (b"GETSET", b"GETDEL"):
        await talker.send(b"MULTI\r\nCOPY k 3 REPLACE\r\nCOPY k 4 REPLACE\r\n")
        await talker.send(pack(command, *[b"k", b"v"][: 2 if command == b"GETSET" else 1]))
        await talker.send(b"EXEC\r\nSTRLEN k\r\n")
        await talker.expect(
            b"+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n" + b":1\r\n" * 2 + refusal
            + b"aller steps\r\n:2000\r\n"
        )


async def test_what_bitop_reads_is_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyspace_module, "ENTRY_WORK_BYTES", 5000)
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"x" * 2000) + b"BITOP OR d k k k\r\n")
    await talker.expect(
        b"+OK\r\n-ERR values that one pipeline or transaction works on are over 5000 bytes; "
        b"write them in smaller steps\r\n"
    )
    await talker.send(b"BITOP OR d k k\r\nEXISTS d\r\n")
    await talker.expect(b":2000\r\n:1\r\n")


@pytest.mark.parametrize("name", [b"MSET", b"MSETNX"])
async def test_mset_writes_all_or_nothing_where_room_ends(
    running: Running, monkeypatch: pytest.MonkeyPatch, name: bytes
) -> None:
    monkeypatch.setattr(keyspace_module, "LARGE_BYTES", 1000)
    monkeypatch.setattr(keyspace_module, "ENTRY_BYTES", 5000)
    talker = await running.connect()
    large = b"x" * 2000
    await talker.send(pack(b"SET", b"a", large) + pack(name, b"b", large, b"c", large))
    await talker.expect(
        b"+OK\r\n-ERR large values of one pipeline or transaction are over 5000 bytes; "
        b"write them in smaller steps\r\n"
    )
    await talker.send(b"EXISTS a b c\r\n")
    await talker.expect(b":1\r\n")


async def test_the_reply_to_mget_is_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strings_module, "MGET_BYTES", 2500)
    talker = await running.connect()
    await talker.send(pack(b"SET", b"k", b"x" * 1000))
    await talker.expect(b"+OK\r\n")
    await talker.send(b"MGET k none k k\r\n")
    await talker.expect(b"-ERR values of more than 2500 bytes; ask for fewer\r\n")


@pytest.mark.parametrize("name", [b"strlen", b"echo"])
async def test_a_bug_in_a_command_is_an_error_reply_and_no_more(
    running: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: bytes
) -> None:
    """Of reads and connection commands: they change nothing, and other clients go on."""

    def broken(*_: object) -> None:
        raise KeyError("a bug")

    entry = commands_module.TABLE[name]
    monkeypatch.setitem(
        commands_module.SPELLINGS, name, dataclasses.replace(entry, handler=broken)
    )
    talker = await running.connect()
    await talker.send(pack(name, b"k") + pack(b"SET", b"k", b"v"))
    await talker.expect(
        b"-ERR internal error in '%b' (KeyError); the node's log tells more\r\n+OK\r\n" % name
    )
    assert "internal error" in caplog.text
