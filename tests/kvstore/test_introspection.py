"""Commands about the server, its clients and its commands; where Redis has them, against Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import hiredis
import pytest
import trio

from kvstore import commands
from kvstore.commands.debug import SLEEP_S_MAX
from kvstore.commands.keyspecs import CATEGORIES, categories
from kvstore.keyspace import MAX_VALUE_BYTES
from tests.kvstore.serving import Running, pack, talk, talk_to_empty

WRONG = b"-ERR wrong number of arguments for '%b' command\r\n"
SYNTAX = b"-ERR syntax error\r\n"
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"
FAILED = b"-ERR CONFIG SET failed (possibly related to argument '%b') - %b\r\n"
RANGE = b"argument must be between %d and %d inclusive"

CONVERSATIONS: list[tuple[bytes, bytes]] = [
    (b"CONFIG SET slowlog-max-len 128\r\nCONFIG GET SLOWLOG-max-len\r\n"
     b"CONFIG GET slowlog-max-le? slowlog-max-len\r\nCONFIG GET [a\r\n"
     b"CONFIG SET slowlog-max-len 7 slowlog-log-slower-than 5000\r\nCONFIG GET slowlog-max-len\r\n"
     b"CONFIG SET slowlog-max-len 8 slowlog-log-slower-than -2\r\nCONFIG GET slowlog-max-len\r\n"
     b"CONFIG SET slowlog-max-len 128 slowlog-log-slower-than 10000\r\n",
     b"+OK\r\n*2\r\n$15\r\nSLOWLOG-max-len\r\n$3\r\n128\r\n*2\r\n$15\r\nslowlog-max-len\r\n$3\r\n128\r\n"
     b"*0\r\n+OK\r\n*2\r\n$15\r\nslowlog-max-len\r\n$1\r\n7\r\n"
     + FAILED % (b"slowlog-log-slower-than", RANGE % (-1, (1 << 63) - 1))
     + b"*2\r\n$15\r\nslowlog-max-len\r\n$1\r\n7\r\n+OK\r\n"),
    (b"CONFIG SET foo 1\r\nCONFIG SET databases 3\r\nCONFIG SET maxclients x\r\n"
     b"CONFIG SET maxclients 0\r\nCONFIG SET slowlog-max-len 1 slowlog-max-len 2\r\n"
     b"CONFIG SET maxclients 1 2\r\nCONFIG SET maxclients\r\nCONFIG SET maxclients 0 foo 1\r\n"
     b"CONFIG SET daemonize yes slowlog-max-len x\r\nCONFIG REWRITE\r\nCONFIG GET\r\n"
     b"CONFIG SET save '' appendfsync always save ''\r\n",
     b"-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n"
     + FAILED % (b"databases", b"can't set immutable config")
     + FAILED % (b"maxclients", b"argument couldn't be parsed into an integer")
     + FAILED % (b"maxclients", RANGE % (1, (1 << 32) - 1))
     + FAILED % (b"slowlog-max-len", b"duplicate parameter") + SYNTAX + WRONG % b"config|set"
     + b"-ERR Unknown option or number of arguments for CONFIG SET - 'foo'\r\n"
     + FAILED % (b"daemonize", b"can't set immutable config")
     + b"-ERR The server is running without a config file\r\n" + WRONG % b"config|get"
     + FAILED % (b"save", b"duplicate parameter")),
    (b"COMMAND GETKEYSANDFLAGS SET a 1\r\nCOMMAND GETKEYSANDFLAGS set a 1 get\r\n"
     b"COMMAND GETKEYSANDFLAGS COPY a b\r\nCOMMAND GETKEYSANDFLAGS DEL a b\r\n"
     b"COMMAND GETKEYSANDFLAGS PING x\r\nCOMMAND GETKEYSANDFLAGS\r\n"
     b"COMMAND GETKEYS OBJECT ENCODING a\r\nCOMMAND GETKEYS OBJECT foo a\r\n"
     b"COMMAND GETKEYS CLIENT ID\r\nCOMMAND GETKEYS RENAME a b\r\nCOMMAND GETKEYS RENAME a\r\n",
     b"*1\r\n*2\r\n$1\r\na\r\n*2\r\n+OW\r\n+update\r\n"
     b"*1\r\n*2\r\n$1\r\na\r\n*3\r\n+RW\r\n+access\r\n+update\r\n"
     b"*2\r\n*2\r\n$1\r\na\r\n*2\r\n+RO\r\n+access\r\n*2\r\n$1\r\nb\r\n*2\r\n+OW\r\n+update\r\n"
     b"*2\r\n*2\r\n$1\r\na\r\n*2\r\n+RM\r\n+delete\r\n*2\r\n$1\r\nb\r\n*2\r\n+RM\r\n+delete\r\n"
     b"-ERR The command has no key arguments\r\n" + WRONG % b"command|getkeysandflags"
     + b"*1\r\n$1\r\na\r\n-ERR Invalid command specified\r\n"
     b"-ERR The command has no key arguments\r\n*2\r\n$1\r\na\r\n$1\r\nb\r\n"
     b"-ERR Invalid number of arguments specified for command\r\n"),
    (b"COMMAND GETKEYS EVAL x 1 a b\r\nCOMMAND GETKEYS EVAL x 0\r\nCOMMAND GETKEYS EVAL x 5 a\r\n"
     b"COMMAND GETKEYS EVAL x y a\r\nCOMMAND GETKEYS EVAL x -1 a\r\n",
     b"*1\r\n$1\r\na\r\n" + b"*0\r\n" * 4),
    (b"COMMAND LIST FILTERBY MODULE none\r\nCOMMAND LIST FILTERBY ACLCAT none\r\n"
     b"COMMAND LIST FILTERBY PATTERN GETSE?\r\nCOMMAND LIST FILTERBY PATTERN CONFIG|GET\r\n"
     b"COMMAND LIST FILTERBY FOO x\r\nCOMMAND LIST FILTERBY MODULE\r\n"
     b"COMMAND LIST foo bar baz\r\n",
     b"*0\r\n*0\r\n*1\r\n$6\r\ngetset\r\n*1\r\n$10\r\nconfig|get\r\n" + SYNTAX * 3),
    (b"WAIT x 0\r\nWAIT 0 x\r\nWAIT 0 -1\r\nWAIT 0\r\nWAIT 0 0\r\n",
     NO_INTEGER + b"-ERR timeout is not an integer or out of range\r\n"
     b"-ERR timeout is negative\r\n" + WRONG % b"wait" + b":0\r\n"),
    (b"CLIENT KILL 1.2.3.4:5\r\nCLIENT KILL ID 99999999\r\nCLIENT KILL ID 0\r\nCLIENT KILL ID x\r\n"
     b"CLIENT KILL TYPE foo\r\nCLIENT KILL TYPE pubsub\r\nCLIENT KILL ID 1 SKIPME\r\n"
     b"CLIENT KILL SKIPME maybe\r\nCLIENT KILL foo bar\r\nCLIENT KILL USER bob\r\n"
     b"CLIENT KILL ADDR 1.2.3.4:5 LADDR 1.2.3.4:6 TYPE normal USER default\r\nCLIENT KILL\r\n",
     b"-ERR No such client\r\n:0\r\n" + b"-ERR client-id should be greater than 0\r\n" * 2
     + b"-ERR Unknown client type 'foo'\r\n:0\r\n" + SYNTAX * 3
     + b"-ERR No such user 'bob'\r\n:0\r\n" + WRONG % b"client|kill"),
    (b"CLIENT NO-EVICT on\r\nCLIENT NO-EVICT x\r\nCLIENT UNBLOCK 1\r\nCLIENT UNBLOCK x\r\n"
     b"CLIENT UNBLOCK 1 foo\r\nCLIENT UNBLOCK 1 ERROR\r\nCLIENT GETREDIR\r\nCLIENT TRACKING off\r\n"
     b"CLIENT TRACKING x\r\nCLIENT UNPAUSE\r\nCLIENT PAUSE x\r\nCLIENT PAUSE -1\r\n"
     b"CLIENT PAUSE 0 foo\r\nCLIENT PAUSE 0 WRITE\r\nCLIENT PAUSE\r\n",
     b"+OK\r\n" + SYNTAX + b":0\r\n" + NO_INTEGER
     + b"-ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR\r\n:0\r\n:-1\r\n+OK\r\n" + SYNTAX
     + b"+OK\r\n-ERR timeout is not an integer or out of range\r\n-ERR timeout is negative\r\n"
     b"-ERR CLIENT PAUSE mode must be WRITE or ALL\r\n+OK\r\n" + WRONG % b"client|pause"),
    (b"PING\r\nCLIENT REPLY SKIP\r\nSET a 1\r\nGET a\r\nCLIENT REPLY foo\r\nCLIENT REPLY OFF\r\n"
     b"GET a\r\nPING\r\nSET b 2\r\nfoo\r\nCLIENT REPLY SKIP\r\nCLIENT REPLY ON\r\nGET b\r\n"
     b"CLIENT REPLY SKIP\r\nfoo\r\nPING\r\nCLIENT REPLY SKIP\r\nGET a\r\nGET b\r\n",
     b"+PONG\r\n$1\r\n1\r\n" + SYNTAX + b"+OK\r\n$1\r\n2\r\n+PONG\r\n$1\r\n2\r\n"),
    (b"TIME x\r\nROLE x\r\nINFO x y\r\n", WRONG % b"time" + WRONG % b"role" + b"$0\r\n\r\n"),
]  # fmt: skip


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS)
async def test_replies_in_redis_words(running: Running, sent: bytes, expected: bytes) -> None:
    assert await talk(await running.connect(), sent) == expected


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS)
async def test_redis_says_the_same(real_redis: int, sent: bytes, expected: bytes) -> None:
    assert await talk_to_empty(real_redis, sent) == expected


async def ask(port: int, *words: bytes) -> Any:
    """One command's reply in RESP3, as hiredis reads it."""
    reader = hiredis.Reader()
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(pack(b"HELLO", b"3") + pack(*words))
        replies: list[Any] = []
        with trio.fail_after(20):
            while len(replies) < 2:
                reader.feed(await stream.receive_some(65536))
                while (reply := reader.gets()) is not False:
                    replies.append(reply)
    return replies[1]


NAMES = sorted(
    entry.full_name
    for command in commands.TABLE.values()
    for entry in (command, *command.subcommands.values())
    if entry.name != b"help"
)
LATER = {
    b"client|setinfo", b"client|no-touch",
}  # fmt: skip
"""Of later versions of Redis."""


async def test_redis_describes_each_command_alike(running: Running, real_redis: int) -> None:
    """Arity, flags, keys, categories, tips and key specifications of what both have."""
    ours = await ask(running.server.port, b"COMMAND", b"INFO", *NAMES)
    theirs = await ask(real_redis, b"COMMAND", b"INFO", *NAMES)
    absent = {name for name, told in zip(NAMES, theirs, strict=True) if told is None}
    assert absent == LATER & set(NAMES)
    for own, other in zip(ours, theirs, strict=True):
        if other is not None:
            for specification in other[8]:
                specification.pop(b"notes", None)
            # Subcommands have lines of their own; Redis has more of them.
            assert own[:9] == other[:9]


def test_every_command_has_categories_that_redis_knows() -> None:
    for command in commands.TABLE.values():
        for entry in (command, *command.subcommands.values()):
            assert set(categories(entry)) <= set(CATEGORIES)


async def test_info_has_the_fields_that_tools_read(running: Running) -> None:
    port = running.server.port
    await ask(port, b"SET", b"a", b"1")
    await ask(port, b"SET", b"b", b"1", b"EX", b"1000")
    fields = parse_info(await ask(port, b"INFO"))
    for name in (
        "redis_version", "run_id", "process_id", "tcp_port", "uptime_in_seconds", "os",
        "connected_clients", "blocked_clients", "maxclients", "used_memory", "used_memory_human",
        "used_memory_rss", "used_memory_peak", "maxmemory", "mem_allocator", "loading",
        "rdb_bgsave_in_progress", "aof_enabled", "aof_rewrite_in_progress",
        "total_connections_received", "total_commands_processed", "rejected_connections",
        "expired_keys", "evicted_keys", "role", "connected_slaves", "master_repl_offset",
        "used_cpu_sys", "used_cpu_user", "cluster_enabled", "applied",
    ):  # fmt: skip
        assert name in fields, name
    assert fields["db0"] == "keys=2,expires=1,avg_ttl=0"
    assert fields["tcp_port"] == str(port)
    chosen = parse_info(await ask(port, b"INFO", b"server", b"KEYSPACE"))
    assert set(chosen) == {name for name in fields if name in chosen}
    assert {"redis_version", "db0"} <= set(chosen)
    assert "role" not in chosen
    assert set(parse_info(await ask(port, b"INFO", b"everything"))) == set(fields)


def parse_info(text: bytes) -> Mapping[str, str]:
    lines = [line for line in text.decode().splitlines() if line and not line.startswith("#")]
    return dict(line.split(":", 1) for line in lines)


async def test_config_tells_what_holds(running: Running) -> None:
    port = running.server.port
    found = await ask(port, b"CONFIG", b"GET", b"max*", b"port", b"proto-max-bulk-len")
    assert found == {
        b"maxclients": b"10000", b"maxmemory": b"0", b"maxmemory-policy": b"noeviction",
        b"port": b"%d" % port, b"proto-max-bulk-len": b"%d" % MAX_VALUE_BYTES,
    }  # fmt: skip
    talker = await running.connect()
    await talker.send(b"CONFIG SET maxclients 2 appendonly YES port %d\r\n" % port)
    await talker.send(b"CONFIG SET port 5\r\n")
    await talker.expect(b"+OK\r\n" + FAILED % (b"port", b"can't set immutable config"))
    await running.connect()
    assert await (await running.connect()).rest() == b"-ERR max number of clients reached\r\n"


async def test_role_and_time(running: Running) -> None:
    port = running.server.port
    await ask(port, b"SET", b"a", b"1")
    role = await ask(port, b"ROLE")
    assert role == [b"master", running.store.applied, []]
    seconds, microseconds = await ask(port, b"TIME")
    assert int(seconds) > 1_500_000_000
    assert 0 <= int(microseconds) < 1_000_000


async def test_wait_tells_what_a_majority_stands_for(running: Running) -> None:
    running.server._facts.copies = lambda: 2
    talker = await running.connect()
    await talker.send(b"SET a 1\r\nWAIT 1 0\r\nWAIT 9 0\r\n")
    await talker.expect(b"+OK\r\n:2\r\n:2\r\n")


async def test_tracking_is_refused_clearly(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"CLIENT TRACKING ON BCAST\r\n")
    await talker.expect(
        b"-ERR client-side caching is not supported here; connect without CLIENT TRACKING\r\n"
    )


async def test_a_client_hangs_up_on_others_and_on_itself(running: Running) -> None:
    talkers = [await running.connect() for _ in range(4)]
    for number, talker in enumerate(talkers, 1):
        await talker.send(b"CLIENT ID\r\n")
        await talker.expect(b":%d\r\n" % number)
    await talkers[0].send(b"CLIENT KILL ID 2 SKIPME yes\r\nCLIENT KILL ID 1\r\n")
    await talkers[0].expect(b":1\r\n:0\r\n")
    assert await talkers[1].rest() == b""
    address = running.server._clients()[1].address
    await talkers[0].send(b"CLIENT KILL %b\r\n" % address.encode())
    await talkers[0].expect(b"+OK\r\n")
    assert await talkers[2].rest() == b""
    await talkers[0].send(b"CLIENT KILL SKIPME no\r\nPING\r\n")
    assert await talkers[0].rest() == b":2\r\n"
    assert await talkers[3].rest() == b""
    assert running.server.connected == 0


async def test_a_killed_client_with_a_write_under_way(running: Running) -> None:
    running.log.held = True
    victim, killer = await running.connect(), await running.connect()
    await victim.send(b"CLIENT ID\r\nSET a 1\r\nGET a\r\n")
    await victim.expect(b":1\r\n")
    await killer.send(b"CLIENT KILL ID 1\r\n")
    await killer.expect(b":1\r\n")
    assert await victim.rest() == b""
    running.log.release()
    await killer.send(b"GET a\r\n")
    await killer.expect(b"$1\r\n1\r\n")


async def test_only_the_sleeper_waits(running: Running) -> None:
    sleeper, other = await running.connect(), await running.connect()
    await sleeper.send(b"SET a 1\r\nDEBUG SLEEP 3000\r\nSET a 2\r\nPING\r\n")
    await sleeper.expect(b"+OK\r\n")
    await other.send(b"GET a\r\nSET b 1\r\n")
    await other.expect(b"$1\r\n1\r\n+OK\r\n")
    connection = next(iter(running.server._pauses.held))
    assert connection.client.asleep_until > 0
    assert connection.out
    connection.client.asleep_until = 1e-9
    await sleeper.expect(b"+OK\r\n+OK\r\n+PONG\r\n")
    assert not running.server._pauses.held


async def test_a_sleep_in_a_transaction_has_an_end(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"MULTI\r\nSET a 1\r\nDEBUG SLEEP 0.001\r\nEXEC\r\n")
    await talker.expect(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n*2\r\n+OK\r\n+OK\r\n")


async def test_sleep_takes_what_strtod_takes_and_has_an_end(running: Running) -> None:
    talker = await running.connect()
    await talker.send(
        b"DEBUG SLEEP 0\r\nDEBUG SLEEP x\r\nDEBUG SLEEP -1\r\nDEBUG SLEEP nan\r\n"
        b"DEBUG SLEEP 0.001\r\nDEBUG SLEEP\r\nPING\r\n"
    )
    await talker.expect(
        b"+OK\r\n" * 5 + b"-ERR unknown subcommand or wrong number of arguments for 'SLEEP'. "
        b"Try DEBUG HELP.\r\n+PONG\r\n"
    )
    await talker.send(b"DEBUG SLEEP 1e99\r\n")
    while not running.server._pauses.held:
        await trio.lowlevel.checkpoint()
    connection = next(iter(running.server._pauses.held))
    left = connection.client.asleep_until - connection.client.connected_at
    assert left < SLEEP_S_MAX + 100


async def test_debug_for_tests(running: Running) -> None:
    port = running.server.port
    talker = await running.connect()
    await talker.send(
        b"SET a 1\r\nDEBUG SET-ACTIVE-EXPIRE 0\r\nDEBUG RELOAD\r\nDEBUG LOADAOF\r\nGET a\r\n"
        b"DEBUG PROTOCOL foo\r\nDEBUG FOO\r\nDEBUG PROTOCOL bignum\r\nDEBUG PROTOCOL push\r\n"
    )
    await talker.expect(
        b"+OK\r\n" * 4 + b"$1\r\n1\r\n-ERR Wrong protocol type name. Please use one of the "
        b"following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|"
        b"false\r\n-ERR unknown subcommand or wrong number of arguments for 'FOO'. Try DEBUG HELP."
        b"\r\n$37\r\n1234567999999999999999999999999999999\r\n"
        b"-ERR RESP2 is not supported by this command\r\n"
    )
    bignum = await ask(port, b"DEBUG", b"PROTOCOL", b"bignum")
    assert bignum == b"1234567999999999999999999999999999999"
    assert await ask(port, b"DEBUG", b"PROTOCOL", b"true") is True
    assert await ask(port, b"DEBUG", b"PROTOCOL", b"verbatim") == b"This is a verbatim\nstring"


@pytest.mark.parametrize("mode", [b"", b" ALL", b" WRITE"])
async def test_a_pause_holds_commands_on_keys(running: Running, mode: bytes) -> None:
    one, two = await running.connect(), await running.connect()
    await one.send(b"CLIENT PAUSE 3600000%b\r\nSET a 1\r\nGET a\r\n" % mode)
    await one.expect(b"+OK\r\n")
    await two.send(b"PING\r\nCLIENT ID\r\nGET a\r\n")
    await two.expect(b"+PONG\r\n:2\r\n")
    if mode == b" WRITE":
        await two.expect(b"$-1\r\n")
    await until(lambda: len(running.server._pauses.held) == (1 if mode == b" WRITE" else 2))
    assert not running.log.applied
    third = await running.connect()
    await third.send(b"CLIENT UNPAUSE\r\n")
    await third.expect(b"+OK\r\n")
    await one.expect(b"+OK\r\n$1\r\n1\r\n")
    if mode != b" WRITE":
        assert (await two.receive(4))[:1] == b"$"
    assert not running.server._pauses.held


async def until(condition: Any) -> None:
    with trio.fail_after(20):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_a_paused_client_that_has_ended_is_still_answered(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"CLIENT PAUSE 3600000\r\nSET a 1\r\n")
    await talker.stream.send_eof()
    await talker.expect(b"+OK\r\n")
    await until(lambda: running.server._pauses.held)
    other = await running.connect()
    await other.send(b"CLIENT UNPAUSE\r\n")
    assert await talker.rest() == b"+OK\r\n"


async def test_a_transaction_waits_for_the_end_of_a_pause(running: Running) -> None:
    talker, other = await running.connect(), await running.connect()
    await other.send(b"CLIENT PAUSE 3600000 WRITE\r\n")
    await other.expect(b"+OK\r\n")
    await talker.send(b"MULTI\r\nSET a 1\r\nEXEC\r\nGET a\r\n")
    await talker.expect(b"+OK\r\n+QUEUED\r\n")
    await until(lambda: running.server._pauses.held)
    await other.send(b"GET a\r\nCLIENT UNPAUSE\r\n")
    await other.expect(b"$-1\r\n+OK\r\n")
    await talker.expect(b"*1\r\n+OK\r\n$1\r\n1\r\n")
