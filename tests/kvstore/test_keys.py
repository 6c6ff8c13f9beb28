"""Commands on keys and databases: against fixed bytes, and against a real Redis."""

from __future__ import annotations

import pytest

from tests.kvstore.serving import Running, talk, talk_to_empty

WRONG = b"-ERR wrong number of arguments for '%b' command\r\n"
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"
NO_DATABASE = b"-ERR DB index is out of range\r\n"
NO_INT32 = (
    b"-ERR value is out of range, value must between -2147483648 and 2147483647\r\n"
)
SAME = b"-ERR source and destination objects are the same\r\n"
SYNTAX = b"-ERR syntax error\r\n"

CONVERSATIONS: list[tuple[bytes, bytes]] = [
    (b"MSET a 1 b 2 c 3\r\nUNLINK a b x a\r\nTOUCH c c x\r\nEXISTS c c x a\r\nUNLINK\r\nTOUCH\r\n",
     b"+OK\r\n:2\r\n:2\r\n:2\r\n" + WRONG % b"unlink" + WRONG % b"touch"),
    (b"SET a 1\r\nTYPE a\r\nTYPE b\r\nTYPE\r\nTYPE a b\r\n",
     b"+OK\r\n+string\r\n+none\r\n" + WRONG % b"type" * 2),
    (b"SET a 1\r\nRENAME a b\r\nGET a\r\nGET b\r\nRENAME a c\r\nRENAME b b\r\nRENAME a a\r\n"
     b"SET c 3\r\nRENAME b c\r\nGET c\r\nDBSIZE\r\nRENAME a\r\n",
     b"+OK\r\n+OK\r\n$-1\r\n$1\r\n1\r\n-ERR no such key\r\n+OK\r\n-ERR no such key\r\n+OK\r\n"
     b"+OK\r\n$1\r\n1\r\n:1\r\n" + WRONG % b"rename"),
    (b"SET a 1\r\nSET b 2\r\nRENAMENX a b\r\nRENAMENX a a\r\nRENAMENX x b\r\nRENAMENX a c\r\n"
     b"MGET a b c\r\n",
     b"+OK\r\n+OK\r\n:0\r\n:0\r\n-ERR no such key\r\n:1\r\n*3\r\n$-1\r\n$1\r\n2\r\n$1\r\n1\r\n"),
    (b"SET a 1\r\nPEXPIREAT a 99999999999999\r\nSET b 2\r\nPEXPIREAT b 88888888888888\r\n"
     b"RENAME a b\r\nPEXPIRETIME b\r\nSET c 3\r\nRENAME c b\r\nPTTL b\r\n",
     b"+OK\r\n:1\r\n+OK\r\n:1\r\n+OK\r\n:99999999999999\r\n+OK\r\n+OK\r\n:-1\r\n"),
    (b"SET a 1\r\nCOPY a b\r\nCOPY a b\r\nCOPY a b REPLACE\r\nCOPY x b replace\r\nCOPY a a\r\n"
     b"COPY a a DB 0\r\nCOPY a a DB 1\r\nCOPY a c DB\r\nCOPY a c FOO\r\nCOPY a c DB x\r\n"
     b"COPY a c DB 16\r\nCOPY a c DB -1\r\nCOPY a c DB 2147483648\r\nSELECT 1\r\nMGET a b\r\n"
     b"COPY a d DB 0\r\nSELECT 0\r\nMGET a b d\r\n",
     b"+OK\r\n:1\r\n:0\r\n:1\r\n:0\r\n" + SAME + SAME + b":1\r\n" + SYNTAX * 2 + NO_INTEGER
     + NO_DATABASE * 2 + NO_INT32 + b"+OK\r\n*2\r\n$1\r\n1\r\n$-1\r\n:1\r\n+OK\r\n"
     b"*3\r\n$1\r\n1\r\n$1\r\n1\r\n$1\r\n1\r\n"),
    (b"SET a 1\r\nPEXPIREAT a 99999999999999\r\nCOPY a b\r\nPEXPIRETIME b\r\nPERSIST a\r\n"
     b"COPY a b REPLACE\r\nPTTL b\r\n",
     b"+OK\r\n:1\r\n:1\r\n:99999999999999\r\n:1\r\n:1\r\n:-1\r\n"),
    (b"SET a 1\r\nSET b 2\r\nPEXPIREAT b 99999999999999\r\nMOVE a 1\r\nMOVE a 1\r\nMOVE b 1\r\n"
     b"MOVE x 1\r\nMOVE a 0\r\nMOVE a 16\r\nMOVE a x\r\nMOVE a 3000000000\r\nDBSIZE\r\nSET a 3\r\n"
     b"MOVE a 1\r\nSELECT 1\r\nGET a\r\nPEXPIRETIME b\r\nMOVE a 9\r\n",
     b"+OK\r\n+OK\r\n:1\r\n:1\r\n:0\r\n:1\r\n:0\r\n" + SAME + NO_DATABASE + NO_INTEGER + NO_INT32
     + b":0\r\n+OK\r\n:0\r\n+OK\r\n$1\r\n1\r\n:99999999999999\r\n:1\r\n"),
    (b"SELECT 2147483648\r\nSELECT 99999999999999999999\r\n", NO_INT32 + NO_INTEGER),
    (b"SET i 12\r\nSET z -0\r\nSET big 9223372036854775808\r\nSET e ''\r\nSET s " + b"x" * 44
     + b"\r\nSET l " + b"x" * 45 + b"\r\nSET n 10000\r\n"
     + b"".join(b"OBJECT ENCODING %c\r\n" % key for key in b"izesln") + b"OBJECT ENCODING big\r\n"
     b"OBJECT ENCODING no\r\nOBJECT REFCOUNT i\r\nOBJECT REFCOUNT n\r\nOBJECT REFCOUNT s\r\n"
     b"OBJECT REFCOUNT no\r\nOBJECT IDLETIME no\r\nOBJECT FREQ no\r\n"
     b"OBJECT FREQ i\r\n",
     b"+OK\r\n" * 7 + b"$3\r\nint\r\n" + b"$6\r\nembstr\r\n" * 3 + b"$3\r\nraw\r\n$3\r\nint\r\n"
     b"$6\r\nembstr\r\n$-1\r\n:2147483647\r\n:1\r\n:1\r\n$-1\r\n$-1\r\n$-1\r\n"
     b"-ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note "
     b"that when switching between policies at runtime LRU and LFU data will take some time to "
     b"adjust.\r\n"),
    (b"OBJECT\r\nOBJECT foo a\r\nOBJECT ENCODING\r\nOBJECT ENCODING a b\r\n",
     WRONG % b"object" + b"-ERR unknown subcommand 'foo'. Try OBJECT HELP.\r\n"
     + WRONG % b"object|encoding" * 2),
    (b"RANDOMKEY\r\nSET a 1\r\nRANDOMKEY\r\nRANDOMKEY x\r\nSELECT 1\r\nRANDOMKEY\r\n",
     b"$-1\r\n+OK\r\n$1\r\na\r\n" + WRONG % b"randomkey" + b"+OK\r\n$-1\r\n"),
    (b"SWAPDB x 1\r\nSWAPDB 1 3000000000\r\nSWAPDB 0 16\r\nSWAPDB -1 0\r\nSWAPDB 1 1\r\n"
     b"SWAPDB 1\r\n",
     b"-ERR invalid first DB index\r\n-ERR invalid second DB index\r\n" + NO_DATABASE * 2
     + b"+OK\r\n" + WRONG % b"swapdb"),
]  # fmt: skip

SWAPS: list[tuple[bytes, bytes]] = [
    (b"SET a 1\r\nPEXPIREAT a 99999999999999\r\nSELECT 3\r\nSET b 2\r\nSET c 3\r\nSWAPDB 0 3\r\n"
     b"PEXPIRETIME a\r\nDBSIZE\r\nSET d 4\r\nSELECT 0\r\nMGET a b c\r\nDBSIZE\r\nSWAPDB 3 0\r\n"
     b"GET a\r\nDBSIZE\r\nFLUSHDB\r\nDBSIZE\r\nSELECT 3\r\nDBSIZE\r\n",
     b"+OK\r\n:1\r\n+OK\r\n+OK\r\n+OK\r\n+OK\r\n:99999999999999\r\n:1\r\n+OK\r\n+OK\r\n"
     b"*3\r\n$-1\r\n$1\r\n2\r\n$1\r\n3\r\n:2\r\n+OK\r\n$1\r\n1\r\n:2\r\n+OK\r\n:0\r\n+OK\r\n:2\r\n"),
]  # fmt: skip

ALL = CONVERSATIONS + SWAPS
IDS = [sent.split(b"\r\n")[0].decode()[:20] + f" {n}" for n, (sent, _) in enumerate(ALL)]


@pytest.mark.parametrize(("sent", "expected"), ALL, ids=IDS)
async def test_replies_in_redis_words(running: Running, sent: bytes, expected: bytes) -> None:
    assert await talk(await running.connect(), sent) == expected


@pytest.mark.parametrize(("sent", "expected"), ALL, ids=IDS)
async def test_redis_says_the_same(real_redis: int, sent: bytes, expected: bytes) -> None:
    assert await talk_to_empty(real_redis, sent) == expected


async def test_commands_ride_the_log_in_the_order_of_a_pipeline(running: Running) -> None:
    """Reads between writes see what is before them, whatever kind of reads they are."""
    sent = (
        b"SET a 1\r\nTYPE a\r\nKEYS *\r\nRENAME a b\r\nKEYS *\r\nSCAN 0\r\nOBJECT ENCODING b\r\n"
        b"RANDOMKEY\r\nDEL b\r\nRANDOMKEY\r\nTYPE b\r\n"
    )
    assert await talk(await running.connect(), sent) == (
        b"+OK\r\n+string\r\n*1\r\n$1\r\na\r\n+OK\r\n*1\r\n$1\r\nb\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\nb\r\n"
        b"$3\r\nint\r\n$1\r\nb\r\n:1\r\n$-1\r\n+none\r\n"
    )
