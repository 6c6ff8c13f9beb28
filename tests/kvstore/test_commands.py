"""Every command's replies: against fixed bytes, and against a real Redis where there is one."""

from __future__ import annotations

import re

import pytest

from kvstore import commands
from kvstore.commands.table import parse_integer
from kvstore.replies import CommandError
from tests.kvstore.serving import Running, talk, talk_to_empty

# What is sent as inline commands, and every byte of the replies (of Redis 7.0.15).
CONVERSATIONS: list[tuple[bytes, bytes]] = [
    (b"PING\r\nping hi\r\nPING a b\r\n",
     b"+PONG\r\n$2\r\nhi\r\n-ERR wrong number of arguments for 'ping' command\r\n"),
    (b"ECHO hi\r\nECHO\r\n", b"$2\r\nhi\r\n-ERR wrong number of arguments for 'echo' command\r\n"),
    (b"foo a b\r\n", b"-ERR unknown command 'foo', with args beginning with: 'a' 'b' \r\n"),
    (b'"" x\r\n', b"-ERR unknown command '', with args beginning with: 'x' \r\n"),
    (b'"a\\r\\nb"\r\n', b"-ERR unknown command 'a  b', with args beginning with: \r\n"),
    (b"foo " + b"x" * 200 + b" y\r\n",
     b"-ERR unknown command 'foo', with args beginning with: '" + b"x" * 128 + b"' \r\n"),
    (b"f" * 200 + b"\r\n",
     b"-ERR unknown command '" + b"f" * 128 + b"', with args beginning with: \r\n"),
    (b"SELECT 3\r\nSET k three\r\nSELECT 0\r\nGET k\r\nSELECT 3\r\nGET k\r\nDBSIZE\r\nFLUSHDB\r\n"
     b"DBSIZE\r\n",
     b"+OK\r\n+OK\r\n+OK\r\n$-1\r\n+OK\r\n$5\r\nthree\r\n:1\r\n+OK\r\n:0\r\n"),
    (b"SELECT 16\r\nSELECT -1\r\nSELECT x\r\nSELECT\r\n",
     b"-ERR DB index is out of range\r\n-ERR DB index is out of range\r\n"
     b"-ERR value is not an integer or out of range\r\n"
     b"-ERR wrong number of arguments for 'select' command\r\n"),
    (b"SET a 1\r\nGET a\r\nGET b\r\nGET\r\nGET a b\r\n",
     b"+OK\r\n$1\r\n1\r\n$-1\r\n-ERR wrong number of arguments for 'get' command\r\n"
     b"-ERR wrong number of arguments for 'get' command\r\n"),
    (b"SET a\r\nSET a 1 foo\r\nSET a 1 NX XX\r\nGET a\r\n",
     b"-ERR wrong number of arguments for 'set' command\r\n-ERR syntax error\r\n"
     b"-ERR syntax error\r\n$-1\r\n"),
    (b"SET a 1 NX\r\nSET a 2 nx\r\nSET a 3 XX GET\r\nSET b 1 XX\r\nSET a 4 NX GET\r\n"
     b"SET c 1 GET KEEPTTL\r\nMGET a b c\r\n",
     b"+OK\r\n$-1\r\n$1\r\n1\r\n$-1\r\n$1\r\n3\r\n$-1\r\n*3\r\n$1\r\n3\r\n$-1\r\n$1\r\n1\r\n"),
    (b"MSET a 1 b 2 a 3\r\nMGET a b c\r\nMSET a\r\nMSET a 1 b\r\nMGET\r\n",
     b"+OK\r\n*3\r\n$1\r\n3\r\n$1\r\n2\r\n$-1\r\n"
     b"-ERR wrong number of arguments for 'mset' command\r\n"
     b"-ERR wrong number of arguments for 'mset' command\r\n"
     b"-ERR wrong number of arguments for 'mget' command\r\n"),
    (b"INCR n\r\nINCR n\r\nGET n\r\nSET s abc\r\nINCR s\r\nSET m 9223372036854775807\r\nINCR m\r\n"
     b"SET z 007\r\nINCR z\r\nSET w ' 1'\r\nINCR w\r\nSET e ''\r\nINCR e\r\nSET -5 -5\r\n"
     b"INCR -5\r\nINCRBY -5 -3\r\nINCRBY -5 x\r\nINCRBY m 1\r\n"
     b"SET big 9223372036854775808\r\nINCR big\r\n",
     b":1\r\n:2\r\n$1\r\n2\r\n+OK\r\n-ERR value is not an integer or out of range\r\n+OK\r\n"
     b"-ERR increment or decrement would overflow\r\n"
     b"+OK\r\n-ERR value is not an integer or out of range\r\n"
     b"+OK\r\n-ERR value is not an integer or out of range\r\n"
     b"+OK\r\n-ERR value is not an integer or out of range\r\n+OK\r\n:-4\r\n:-7\r\n"
     b"-ERR value is not an integer or out of range\r\n"
     b"-ERR increment or decrement would overflow\r\n"
     b"+OK\r\n-ERR value is not an integer or out of range\r\n"),
    (b"MSET a 1 b 2\r\nDEL a x\r\nDEL a\r\nEXISTS a b b x\r\nDEL b b\r\nDBSIZE\r\nDEL\r\n"
     b"EXISTS\r\n",
     b"+OK\r\n:1\r\n:0\r\n:2\r\n:1\r\n:0\r\n-ERR wrong number of arguments for 'del' command\r\n"
     b"-ERR wrong number of arguments for 'exists' command\r\n"),
    (b"MSET a 1 b 2\r\nSELECT 1\r\nSET c 3\r\nDBSIZE\r\nFLUSHALL\r\nDBSIZE\r\nSELECT 0\r\n"
     b"DBSIZE\r\nFLUSHALL foo\r\nFLUSHALL async\r\nFLUSHDB SYNC\r\nFLUSHDB a b\r\nDBSIZE x\r\n",
     b"+OK\r\n+OK\r\n+OK\r\n:1\r\n+OK\r\n:0\r\n+OK\r\n:0\r\n-ERR syntax error\r\n+OK\r\n+OK\r\n"
     b"-ERR syntax error\r\n-ERR wrong number of arguments for 'dbsize' command\r\n"),
    (b"HELLO x\r\nHELLO 4\r\nHELLO 3 foo\r\nHELLO 3 SETNAME\r\nHELLO 2 SETNAME 'a b'\r\n"
     b"HELLO 3 AUTH bob pw\r\nGET nothing\r\n",
     b"-ERR Protocol version is not an integer or out of range\r\n"
     b"-NOPROTO unsupported protocol version\r\n-ERR Syntax error in HELLO option 'foo'\r\n"
     b"-ERR Syntax error in HELLO option 'SETNAME'\r\n"
     b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
     b"-WRONGPASS invalid username-password pair or user is disabled.\r\n$-1\r\n"),
    (b"HELLO 2 SETNAME me AUTH bob x\r\nCLIENT GETNAME\r\nHELLO 2 SETNAME a foo\r\n"
     b"CLIENT GETNAME\r\n",
     b"-WRONGPASS invalid username-password pair or user is disabled.\r\n$2\r\nme\r\n"
     b"-ERR Syntax error in HELLO option 'foo'\r\n$1\r\na\r\n"),
    (b"CLIENT LIST foo\r\nCLIENT LIST ID\r\nCLIENT LIST ID 1 x\r\nCLIENT LIST ID 987654321\r\n"
     b"CLIENT LIST TYPE foo\r\nCLIENT LIST TYPE pubsub\r\nCLIENT LIST TYPE\r\n",
     b"-ERR syntax error\r\n-ERR syntax error\r\n-ERR Invalid client ID\r\n$0\r\n\r\n"
     b"-ERR Unknown client type 'foo'\r\n$0\r\n\r\n-ERR syntax error\r\n"),
    (b"AUTH pw\r\nAUTH bob pw\r\nAUTH default pw\r\nAUTH\r\nAUTH a b c\r\n",
     b"-ERR AUTH <password> called without any password configured for the default user. "
     b"Are you sure your configuration is correct?\r\n"
     b"-WRONGPASS invalid username-password pair or user is disabled.\r\n+OK\r\n"
     b"-ERR wrong number of arguments for 'auth' command\r\n-ERR syntax error\r\n"),
    (b"CLIENT GETNAME\r\nCLIENT SETNAME me\r\nCLIENT GETNAME\r\nCLIENT SETNAME 'a b'\r\n"
     b"CLIENT SETNAME ''\r\nCLIENT GETNAME\r\nCLIENT foo\r\nCLIENT\r\nCLIENT SETNAME\r\n"
     b"CLIENT GETNAME x\r\n",
     b"$-1\r\n+OK\r\n$2\r\nme\r\n"
     b"-ERR Client names cannot contain spaces, newlines or special characters.\r\n+OK\r\n$-1\r\n"
     b"-ERR unknown subcommand 'foo'. Try CLIENT HELP.\r\n"
     b"-ERR wrong number of arguments for 'client' command\r\n"
     b"-ERR wrong number of arguments for 'client|setname' command\r\n"
     b"-ERR wrong number of arguments for 'client|getname' command\r\n"),
    (b"CONFIG GET save\r\nCONFIG GET nosuch\r\nCONFIG foo\r\nCONFIG GET\r\nCONFIG RESETSTAT\r\n",
     b"*2\r\n$4\r\nsave\r\n$0\r\n\r\n*0\r\n-ERR unknown subcommand 'foo'. Try CONFIG HELP.\r\n"
     b"-ERR wrong number of arguments for 'config|get' command\r\n+OK\r\n"),
    (b"COMMAND foo\r\nCOMMAND GETKEYS set a b\r\nCOMMAND GETKEYS mset a 1 b 2\r\n"
     b"COMMAND GETKEYS foo x\r\nCOMMAND GETKEYS get a b\r\nCOMMAND GETKEYS ping x\r\n"
     b"COMMAND GETKEYS get\r\n"
     b"COMMAND INFO nosuch\r\nCOMMAND LIST x\r\nCOMMAND DOCS nosuch\r\n",
     b"-ERR unknown subcommand 'foo'. Try COMMAND HELP.\r\n*1\r\n$1\r\na\r\n"
     b"*2\r\n$1\r\na\r\n$1\r\nb\r\n-ERR Invalid command specified\r\n"
     b"-ERR Invalid number of arguments specified for command\r\n"
     b"-ERR The command has no key arguments\r\n"
     b"-ERR wrong number of arguments for 'command|getkeys' command\r\n"
     b"*1\r\n$-1\r\n-ERR syntax error\r\n*0\r\n"),
    (b"SELECT 2\r\nCLIENT SETNAME me\r\nRESET\r\nCLIENT GETNAME\r\nRESET x\r\n",
     b"+OK\r\n+OK\r\n+RESET\r\n$-1\r\n-ERR wrong number of arguments for 'reset' command\r\n"),
    (b"INFO nosuch\r\n", b"$0\r\n\r\n"),
    (b"SET a 1\r\nSELECT 1\r\nINFO keyspace\r\nQUIT\r\nPING\r\n",
     b"+OK\r\n+OK\r\n$44\r\n# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\r\n+OK\r\n"),
]  # fmt: skip

IDS = [sent.split(b"\r\n")[0].decode()[:20] for sent, _ in CONVERSATIONS]


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS, ids=IDS)
async def test_replies_in_redis_words(running: Running, sent: bytes, expected: bytes) -> None:
    assert await talk(await running.connect(), sent) == expected


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS, ids=IDS)
async def test_redis_says_the_same(real_redis: int, sent: bytes, expected: bytes) -> None:
    assert await talk_to_empty(real_redis, sent) == expected


HELLOS = [
    b"HELLO\r\n", b"HELLO 2\r\nGET x\r\n", b"HELLO 3 SETNAME me\r\nHELLO 2\r\nGET x\r\n",
    b"HELLO 3 AUTH default pw SETNAME me\r\nCLIENT GETNAME\r\n",
    b"HELLO 3\r\nHELLO 4\r\nGET x\r\n", b"HELLO 3\r\nRESET\r\nGET x\r\n", b"HELLO 3\r\nQUIT\r\n",
]  # fmt: skip


@pytest.mark.parametrize("sent", [b"HELLO 3\r\n" + sent for sent, _ in CONVERSATIONS] + HELLOS)
async def test_redis_says_the_same_in_resp3(
    running: Running, real_redis: int, sent: bytes
) -> None:
    received = []
    for port in (running.server.port, real_redis):
        answer = await talk_to_empty(port, sent)
        received.append(re.sub(rb"(\$2\r\nid\r\n:)\d+", rb"\1", answer))
    assert received[0] == received[1]


async def test_a_list_of_clients_may_be_chosen(running: Running) -> None:
    talkers = [await running.connect() for _ in range(3)]
    for number, talker in enumerate(talkers, 1):
        await talker.send(b"CLIENT ID\r\n")
        await talker.expect(b":%d\r\n" % number)
    for chosen, ids in [
        (b"", [1, 2, 3]), (b" TYPE normal", [1, 2, 3]), (b" TYPE pubsub", []), (b" ID 3 1", [1, 3]),
    ]:  # fmt: skip
        await talkers[0].send(b"CLIENT LIST" + chosen + b"\r\nPING\r\n")
        answer = b""
        while not answer.endswith(b"+PONG\r\n"):
            answer += await talkers[0].receive(1)
        assert [int(found) for found in re.findall(rb"id=(\d+) ", answer)] == ids


async def test_a_container_explains_itself(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"CONFIG HELP\r\n")
    await talker.expect(
        b"*11\r\n+CONFIG <subcommand> [<arg> ...]. Subcommands are:\r\n"
        b"+GET\r\n+    Get the values of configuration parameters.\r\n"
    )


async def test_hello_switches_to_resp3(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"HELLO 3 SETNAME me\r\n")
    await talker.expect(
        b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$6\r\n7.0.15\r\n$5\r\nproto\r\n:3\r\n"
        b"$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        b"$7\r\nmodules\r\n*0\r\n"
    )
    await talker.send(b"GET x\r\nSET x 1 GET\r\nMGET x y\r\nCONFIG GET save\r\nCOMMAND DOCS no\r\n")
    await talker.expect(b"_\r\n_\r\n*2\r\n$1\r\n1\r\n_\r\n%1\r\n$4\r\nsave\r\n$0\r\n\r\n%0\r\n")
    await talker.send(b"INFO keyspace\r\nCLIENT GETNAME\r\nRESET\r\nGET no\r\n")
    await talker.expect(
        b"=48\r\ntxt:# Keyspace\r\ndb0:keys=1,expires=0,avg_ttl=0\r\n\r\n"
        b"$2\r\nme\r\n+RESET\r\n$-1\r\n"
    )


async def test_command_describes_the_table(running: Running) -> None:
    talker = await running.connect()
    await talker.send(b"COMMAND COUNT\r\nCOMMAND INFO get\r\n")
    await talker.expect(
        b":%d\r\n*1\r\n*10\r\n$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n"
        b"*3\r\n+@read\r\n+@string\r\n+@fast\r\n*0\r\n*1\r\n*6\r\n" % len(commands.TABLE)
    )


def test_spellings_are_bounded() -> None:
    assert commands.find(b"gEt") is commands.TABLE[b"get"]
    assert commands.find(b"nope") is None
    for number in range(10_000):
        name = bytes(b"flushall"[i] & (0xDF if number >> i & 1 else 0xFF) for i in range(8))
        assert commands.find(name) is commands.TABLE[b"flushall"]
    assert len(commands.SPELLINGS) <= 4096 + len(commands.TABLE)


@pytest.mark.parametrize(
    "text", [b"", b"+1", b"01", b" 1", b"1_0", b"1.0", b"9" * 30, "١".encode()]
)
def test_integers_are_written_in_one_way(text: bytes) -> None:
    with pytest.raises(CommandError):
        parse_integer(text)
