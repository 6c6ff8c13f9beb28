"""MULTI, EXEC, DISCARD, WATCH: one atomic entry of the log, in Redis' words."""

from __future__ import annotations

from pathlib import Path

import msgpack
import pytest
import redis
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from kvstore.commands import queued as queued_module
from kvstore.commands import transactions as transactions_module
from kvstore.packing import (
    DATABASES,
    TRANSACTION,
    BadValue,
    Watched,
    join_value,
    pack_commands,
    pack_transaction,
    split_transaction,
    split_value,
)
from kvstore.resp import Command
from p4xos.errors import NoQuorum
from tests.kvstore.replicas import NOON, Clock, Replica, value_of
from tests.kvstore.serving import Running, Talker, pack, serving, talk, talk_to_empty


@pytest.fixture
def clock() -> Clock:
    return Clock()


# What is sent, and every byte of the replies (of Redis 7.0.15).
CONVERSATIONS: list[tuple[bytes, bytes]] = [
    (b"EXEC\nDISCARD\nUNWATCH\nWATCH\nMULTI x\n",
     b"-ERR EXEC without MULTI\r\n-ERR DISCARD without MULTI\r\n+OK\r\n"
     b"-ERR wrong number of arguments for 'watch' command\r\n"
     b"-ERR wrong number of arguments for 'multi' command\r\n"),
    (b"MULTI\nSET a 1\nINCR a\nGET a\nEXEC\nGET a\nEXEC\n",
     b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*3\r\n+OK\r\n:2\r\n$1\r\n2\r\n$1\r\n2\r\n"
     b"-ERR EXEC without MULTI\r\n"),
    (b"MULTI\nEXEC\nMULTI\nPING\nECHO hi\nEXEC\n",
     b"+OK\r\n*0\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+PONG\r\n$2\r\nhi\r\n"),
    (b"SET a 1\nMULTI\nSET a 2\nDISCARD\nGET a\nDISCARD\n",
     b"+OK\r\n+OK\r\n+QUEUED\r\n+OK\r\n$1\r\n1\r\n-ERR DISCARD without MULTI\r\n"),
    (b"MULTI\nMULTI\nWATCH a\nSET a 1\nEXEC\n",
     b"+OK\r\n-ERR MULTI calls can not be nested\r\n-ERR WATCH inside MULTI is not allowed\r\n"
     b"+QUEUED\r\n*1\r\n+OK\r\n"),
    (b"MULTI\nfoo\nSET a 1\nEXEC\nEXISTS a\n",
     b"+OK\r\n-ERR unknown command 'foo', with args beginning with: \r\n+QUEUED\r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n:0\r\n"),
    (b"MULTI\nGET\nEXEC\nMULTI\nWATCH\nEXEC\nMULTI\nDISCARD x\nEXEC\n",
     b"+OK\r\n-ERR wrong number of arguments for 'get' command\r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n"
     b"+OK\r\n-ERR wrong number of arguments for 'watch' command\r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n"
     b"+OK\r\n-ERR wrong number of arguments for 'discard' command\r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n"),
    (b"MULTI\nEXEC foo\nEXEC\n",
     b"+OK\r\n-EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' "
     b"command\r\n-ERR EXEC without MULTI\r\n"),
    (b"MULTI\nCLIENT FOO\nEXEC\nMULTI\nCLIENT GETNAME a\nEXEC\nMULTI\nCLIENT GETNAME\nEXEC\n",
     b"+OK\r\n-ERR unknown subcommand 'FOO'. Try CLIENT HELP.\r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n"
     b"+OK\r\n-ERR wrong number of arguments for 'client|getname' command\r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n"
     b"+OK\r\n+QUEUED\r\n*1\r\n$-1\r\n"),
    (b"SET a x\nMULTI\nINCR a\nSET b 1\nAUTH a b\nSELECT 77\nEXEC\nGET b\n",
     b"+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n"
     b"-ERR value is not an integer or out of range\r\n+OK\r\n"
     b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
     b"-ERR DB index is out of range\r\n$1\r\n1\r\n"),
    (b"SET a zero\nMULTI\nSELECT 1\nSET a one\nSELECT 2\nSET a two\nEXEC\nGET a\n"
     b"SELECT 1\nGET a\nSELECT 0\nGET a\n",
     b"+OK\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n"
     b"$3\r\ntwo\r\n+OK\r\n$3\r\none\r\n+OK\r\n$4\r\nzero\r\n"),
    (b"MULTI\nSELECT 1\nDISCARD\nSET a 1\nSELECT 0\nEXISTS a\n",
     b"+OK\r\n+QUEUED\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n"),
    (b"MULTI\nSET a 1\nRESET\nEXEC\nEXISTS a\n",
     b"+OK\r\n+QUEUED\r\n+RESET\r\n-ERR EXEC without MULTI\r\n:0\r\n"),
    (b"MULTI\nUNWATCH\nEXEC\n", b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n"),
    (b"SET a 1\nWATCH a b\nMULTI\nGET a\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"),
    (b"SET a 1\nWATCH a\nSET a 1\nMULTI\nSET a 9\nEXEC\nGET a\nMULTI\nGET a\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n$1\r\n1\r\n"
     b"+OK\r\n+QUEUED\r\n*1\r\n$1\r\n1\r\n"),
    (b"WATCH a\nSET a 1\nMULTI\nEXEC\nWATCH a\nDEL a\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n*-1\r\n+OK\r\n:1\r\n+OK\r\n+QUEUED\r\n*-1\r\n"),
    (b"WATCH a\nSET a 1\nUNWATCH\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"),
    (b"WATCH a\nSET a 1\nMULTI\nDISCARD\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"),
    (b"WATCH a\nSET a 1\nMULTI\nfoo\nEXEC\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n-ERR unknown command 'foo', with args beginning with: \r\n"
     b"-EXECABORT Transaction discarded because of previous errors.\r\n"
     b"+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"),
    (b"SET a 1\nWATCH a\nSELECT 1\nSET a 2\nMULTI\nGET a\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n$1\r\n2\r\n"),
    (b"SET a 1\nWATCH a\nFLUSHALL\nMULTI\nPING\nEXEC\nWATCH a\nFLUSHALL\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n"
     b"+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n"),
    (b"SET a 1\nWATCH a\nSWAPDB 0 1\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n+OK\r\n+OK\r\n+QUEUED\r\n*-1\r\n"),
    (b"SET a 1\nWATCH a\nEXPIRE a 100\nMULTI\nPING\nEXEC\n",
     b"+OK\r\n+OK\r\n:1\r\n+OK\r\n+QUEUED\r\n*-1\r\n"),
    (b"MULTI\nSET a 1\nFLUSHALL\nSET b 2\nDBSIZE\nEXEC\n",
     b"+OK\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n+QUEUED\r\n*4\r\n+OK\r\n+OK\r\n+OK\r\n:1\r\n"),
]  # fmt: skip
IDS = [sent.replace(b"\n", b",").decode()[:40] for sent, _ in CONVERSATIONS]


async def line(talker: Talker) -> bytes:
    got = b""
    while not got.endswith(b"\r\n"):
        got += await talker.receive(1)
    return got[:-2]


def in_lines(sent: bytes) -> bytes:
    """Lines as the protocol ends them."""
    return sent.replace(b"\n", b"\r\n")


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS, ids=IDS)
async def test_replies_in_redis_words(running: Running, sent: bytes, expected: bytes) -> None:
    assert await talk(await running.connect(), in_lines(sent)) == expected


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS, ids=IDS)
async def test_redis_says_the_same(real_redis: int, sent: bytes, expected: bytes) -> None:
    assert await talk_to_empty(real_redis, in_lines(sent)) == expected


async def test_null_and_maps_of_resp3(running: Running) -> None:
    talker = await running.connect()
    sent = b"HELLO 3\nWATCH a\nSET a 1\nMULTI\nEXEC\nMULTI\nCONFIG GET save\nHELLO 2\nEXEC\nGET x\n"
    got = await talk(talker, in_lines(sent))
    assert got.split(b"*0\r\n", 1)[1].startswith(
        b"+OK\r\n+OK\r\n+OK\r\n_\r\n+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n"
    )
    assert got.endswith(b"$-1\r\n")


async def test_a_transaction_is_one_entry(running: Running) -> None:
    running.log.recording = True
    talker = await running.connect()
    await talker.send(b"MULTI\r\nSET a 1\r\nPING\r\nSELECT 3\r\nSET a 3\r\nEXEC\r\n")
    await talker.expect(
        b"+OK\r\n" + b"+QUEUED\r\n" * 4 + b"*4\r\n+OK\r\n+PONG\r\n+OK\r\n+OK\r\n"
    )
    (value,) = running.log.proposed
    ((name, *_),) = split_value(value)[2]
    assert name == TRANSACTION
    assert running.log.read_requests == 0
    assert [running.store.keyspaces[n].version(b"a") for n in (0, 3)] == [1, 1]


async def test_a_watched_key_whose_database_is_exchanged(running: Running) -> None:
    """Though one entry wrote both keys, so that their versions are the same."""
    one, other = await running.connect(), await running.connect()
    await one.send(b"MULTI\r\nSET k a\r\nSELECT 1\r\nSET k b\r\nSELECT 0\r\nEXEC\r\nWATCH k\r\n")
    await one.expect(
        b"+OK\r\n" + b"+QUEUED\r\n" * 4 + b"*4\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n"
    )
    await other.send(b"SWAPDB 0 1\r\n")
    await other.expect(b"+OK\r\n")
    await one.send(b"MULTI\r\nAPPEND k x\r\nEXEC\r\nGET k\r\n")
    await one.expect(b"+OK\r\n+QUEUED\r\n*-1\r\n$1\r\nb\r\n")


async def test_the_bytes_of_watched_keys_are_bounded(running: Running) -> None:
    limit = running.server._facts.transaction_bytes_max = 1000
    talker = await running.connect()
    complaint = b"-ERR watched keys of more than %d bytes; UNWATCH some\r\n" % limit
    for number, expected in enumerate((b"+OK\r\n", b"+OK\r\n", complaint)):
        await talker.send(pack(b"WATCH", b"%d" % number * 400))
        await talker.expect(expected)


async def test_a_watched_key_that_another_client_changes(running: Running) -> None:
    one, other = await running.connect(), await running.connect()
    await one.send(b"WATCH k\r\nGET k\r\n")
    await one.expect(b"+OK\r\n$-1\r\n")
    await other.send(b"SET k theirs\r\n")
    await other.expect(b"+OK\r\n")
    await one.send(b"MULTI\r\nSET k mine\r\nEXEC\r\nGET k\r\n")
    await one.expect(b"+OK\r\n+QUEUED\r\n*-1\r\n$6\r\ntheirs\r\n")


async def test_a_change_that_is_in_the_log_before_the_exec_counts(running: Running) -> None:
    one, other = await running.connect(), await running.connect()
    await one.send(b"WATCH k\r\nMULTI\r\nSET k mine\r\n")
    await one.expect(b"+OK\r\n+OK\r\n+QUEUED\r\n")
    running.log.held = True
    await other.send(b"SET k theirs\r\n")
    await wait_all_tasks_blocked(0.002)
    await one.send(b"EXEC\r\n")
    await wait_all_tasks_blocked(0.002)
    running.log.release()
    await one.expect(b"*-1\r\n")
    await other.expect(b"+OK\r\n")


async def test_a_watch_is_a_linearizable_read(running: Running) -> None:
    """docs/PROTOCOL.md, section 9: what was acknowledged before WATCH is no change behind it."""
    one, other = await running.connect(), await running.connect()
    running.log.held = True
    await other.send(b"SET k 1\r\n")
    await wait_all_tasks_blocked(0.002)
    await one.send(b"WATCH k\r\nMULTI\r\nINCR k\r\nEXEC\r\n")
    await wait_all_tasks_blocked(0.002)
    running.log.release()
    await other.expect(b"+OK\r\n")
    await one.expect(b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n")


async def test_a_watched_key_that_expires(running: Running, clock: Clock) -> None:
    """As in Redis: one that expires is a change, one that had expired before WATCH is none."""
    talker = await running.connect()
    await talker.send(b"SET k v PX 100\r\nWATCH k\r\n")
    await talker.expect(b"+OK\r\n+OK\r\n")
    clock.now += 100
    await talker.send(b"MULTI\r\nPING\r\nEXEC\r\n")
    await talker.expect(b"+OK\r\n+QUEUED\r\n*-1\r\n")
    await talker.send(b"SET k v PX 100\r\n")
    await talker.expect(b"+OK\r\n")
    clock.now += 100
    await talker.send(b"WATCH k\r\nMULTI\r\nPING\r\nEXEC\r\n")
    await talker.expect(b"+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+PONG\r\n")


async def test_an_exec_of_unknown_outcome_says_so(running: Running) -> None:
    """docs/traps.md, 16."""
    talker = await running.connect()
    await talker.send(b"MULTI\r\nSET k v\r\n")
    await talker.expect(b"+OK\r\n+QUEUED\r\n")
    running.log.failing = NoQuorum(None, 5.0)
    await talker.send(b"EXEC\r\n")
    assert b"the outcome of this write is unknown" in await line(talker)
    running.log.failing = None
    await talker.send(b"EXEC\r\n")
    await talker.expect(b"-ERR EXEC without MULTI\r\n")


async def test_a_transaction_too_long_is_refused_and_nothing_of_it_happens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queued_module, "COMMANDS_MAX", 20)
    async with serving(tmp_path, max_command_bytes=1000) as running:
        talker = await running.connect()
        await talker.send(b"SET k old\r\nMULTI\r\n" + pack(b"SET", b"k", b"x" * 600) * 2)
        limit = running.server._facts.transaction_bytes_max
        error = b"-ERR transaction is over the limit of %d bytes; split it\r\n" % limit
        abort = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
        await talker.expect(b"+OK\r\n+OK\r\n+QUEUED\r\n" + error)
        await talker.send(b"EXEC\r\nGET k\r\n")
        await talker.expect(abort + b"$3\r\nold\r\n")
        await talker.send(b"MULTI\r\n" + b"PING\r\n" * 21 + b"EXEC\r\n")
        await talker.expect(
            b"+OK\r\n" + b"+QUEUED\r\n" * 20
            + b"-ERR transaction is over the limit of 20 commands; split it\r\n" + abort
        )  # fmt: skip
        keys = [b"%0100d" % n for n in range(8)]
        await talker.send(
            pack(b"WATCH", *keys) + b"MULTI\r\n" + pack(b"SET", b"k", b"n" * 200)
            + b"EXEC\r\nGET k\r\n"
        )  # fmt: skip
        await talker.expect(b"+OK\r\n+OK\r\n+QUEUED\r\n-ERR command of ")
        assert b"over the limit of" in await line(talker)
        await talker.expect(b"$3\r\nold\r\n")


async def test_watched_keys_are_bounded(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transactions_module, "WATCHED_MAX", 3)
    talker = await running.connect()
    await talker.send(b"WATCH a b\r\nWATCH c d\r\nWATCH c\r\n")
    await talker.expect(b"+OK\r\n-ERR more than 3 watched keys; UNWATCH some\r\n+OK\r\n")


async def test_a_client_that_leaves_takes_its_transaction_along(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"MULTI\r\nSET k v\r\nQUIT\r\nEXEC\r\n")
    assert await talker.rest() == b"+OK\r\n+QUEUED\r\n+OK\r\n"
    assert not running.store.keyspaces[0].contains(b"k")


async def test_optimistic_locking_of_many_clients_loses_nothing(running: Running) -> None:
    async def add(times: int) -> None:
        talker = await running.connect()
        done = 0
        while done < times:
            await talker.send(b"WATCH n\r\nGET n\r\n")
            await talker.expect(b"+OK\r\n")
            held = 0 if await line(talker) == b"$-1" else int(await line(talker))
            await talker.send(b"MULTI\r\nSET n %d\r\nEXEC\r\n" % (held + 1))
            await talker.expect(b"+OK\r\n+QUEUED\r\n")
            if await line(talker) == b"*1":
                await talker.expect(b"+OK\r\n")
                done += 1

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(add, 10)
    assert running.store.keyspaces[0].get(b"n") == b"50"


async def test_redis_py_pipelines_and_transactions(running: Running) -> None:
    def use() -> None:
        with redis.Redis(port=running.server.port) as client:
            with client.pipeline() as pipeline:
                pipeline.set("a", 1).incr("a").get("a")
                assert pipeline.execute() == [True, 2, b"2"]
            with client.pipeline() as pipeline:
                pipeline.watch("a")
                client.set("a", 5)
                pipeline.multi()
                pipeline.set("a", 6)
                with pytest.raises(redis.WatchError):
                    pipeline.execute()

            def double(pipeline: redis.client.Pipeline) -> None:
                held = pipeline.get("a")
                assert isinstance(held, bytes)
                pipeline.multi()
                pipeline.set("a", 2 * int(held))

            assert client.transaction(double, "a") == [True]
            assert client.get("a") == b"10"

    with trio.fail_after(30):
        await trio.to_thread.run_sync(use)


def test_replicas_agree_on_transactions(tmp_path: Path) -> None:
    """Watched marks decide alike everywhere; what cannot be taken apart is skipped alike."""
    packed = pack_commands([[b"SET", b"t", b"1"], [b"NOPE"], [b"INCR", b"k"], [b"GET", b"k"]], 0)
    good = pack_transaction([Watched(0, b"k", 1 * DATABASES), Watched(3, b"k", 0)], packed)
    values = [
        value_of(NOON, [b"SET", b"k", b"5"]),
        value_of(NOON, good, [b"SET", b"behind", b"v"]),
        value_of(NOON, good),
        value_of(NOON, [TRANSACTION], [TRANSACTION, b""], [TRANSACTION, b"\x90", b"x"], good[:2]),
        join_value(pack_commands([pack_transaction([], pack_commands([good], 0))], 2), NOON, 0),
    ]
    one, other = Replica(tmp_path / "one"), Replica(tmp_path / "other")
    one.apply(*values)
    for value in values:
        other.apply(value)
    assert one.content() == other.content()
    assert one.machine.counters == other.machine.counters
    assert one.machine.counters["bad_commands"] == 1 + 3 + 1
    space = one.store.keyspaces[0]
    assert [space.get(key) for key in (b"k", b"t", b"behind")] == [b"6", b"1", b"v"]
    assert [space.version(key) for key in (b"k", b"t", b"behind")] == [2, 2, 2]
    one.store.close()
    other.store.close()


watched_keys = st.lists(
    st.builds(Watched, st.integers(0, 15), st.binary(max_size=9), st.integers(0, 2**64 - 1))
)
some_commands = st.lists(st.lists(st.binary(max_size=9), min_size=1, max_size=4), max_size=9)


@given(watched_keys, some_commands)
def test_a_transaction_comes_back(watched: list[Watched], batch: list[Command]) -> None:
    command = pack_transaction(watched, pack_commands(batch, 0))
    assert split_value(join_value(pack_commands([command], 0), 1, 1))[2] == [command]
    assert split_transaction(command) == (watched, batch)


@given(st.lists(st.binary(max_size=20), max_size=4))
def test_foreign_bytes_are_no_transaction(words: list[bytes]) -> None:
    try:
        watched, batch = split_transaction([TRANSACTION, *words])
    except BadValue:
        return
    assert all(type(word) is bytes for command in batch for word in command)
    assert all(0 <= database < 16 for database, _, _ in watched)


@pytest.mark.parametrize(
    "watched", [5, [5], [[1]], [["a", b"k", 1]], [[16, b"k", 1]], [[0, "k", 1]], [[0, b"k", 1.0]],
                {b"a": 1}, [[True, b"k", 1]]],
)  # fmt: skip
def test_bad_watches_are_bad(watched: object) -> None:
    with pytest.raises(BadValue):
        split_transaction([TRANSACTION, msgpack.packb(watched)])
