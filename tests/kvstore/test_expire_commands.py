"""EXPIRE, TTL and their kin: against fixed bytes, a real Redis, and stamps that a test chooses."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from kvstore.machine import KvStateMachine
from kvstore.packing import join_value, pack_commands
from kvstore.replies import Error, Reply
from kvstore.store import Store
from p4xos.log import Delivered
from tests.kvstore.serving import Running, talk, talk_to_empty

FAR_MS = 99_999_999_999_000
FAR = FAR_MS // 1000
NO_INTEGER = b"-ERR value is not an integer or out of range\r\n"
NX_AND = b"-ERR NX and XX, GT or LT options at the same time are not compatible\r\n"
GT_LT = b"-ERR GT and LT options at the same time are not compatible\r\n"
OVER = b"-ERR invalid expire time in '%b' command\r\n"

CONVERSATIONS: list[tuple[bytes, bytes]] = [
    (b"TTL a\r\nPTTL a\r\nEXPIRETIME a\r\nPEXPIRETIME a\r\nPERSIST a\r\nEXPIRE a 9\r\nSET a 1\r\n"
     b"TTL a\r\nPTTL a\r\nEXPIRETIME a\r\nPEXPIRETIME a\r\nPERSIST a\r\n",
     b":-2\r\n" * 4 + b":0\r\n:0\r\n+OK\r\n" + b":-1\r\n" * 4 + b":0\r\n"),
    (b"SET a 1\r\nEXPIREAT a %d\r\nEXPIRETIME a\r\nPEXPIRETIME a\r\nGET a\r\nPERSIST a\r\nTTL a\r\n"
     b"PEXPIREAT a %d\r\nEXPIRETIME a\r\nPEXPIREAT a %d\r\nEXPIRETIME a\r\nPEXPIRETIME a\r\n"
     % (FAR, FAR_MS + 499, FAR_MS + 500),
     b"+OK\r\n:1\r\n:%d\r\n:%d\r\n$1\r\n1\r\n:1\r\n:-1\r\n:1\r\n:%d\r\n:1\r\n:%d\r\n:%d\r\n"
     % (FAR, FAR_MS, FAR, FAR + 1, FAR_MS + 500)),
    (b"SET a 1\r\nEXPIRE a 100000\r\nTTL a\r\nSET a 2\r\nTTL a\r\nPEXPIRE a 100000400\r\nTTL a\r\n",
     b"+OK\r\n:1\r\n:100000\r\n+OK\r\n:-1\r\n:1\r\n:100000\r\n"),
    (b"SET a 1\r\nEXPIRE a 0\r\nGET a\r\nSET a 1\r\nEXPIRE a -1\r\nEXISTS a\r\nSET a 1\r\n"
     b"PEXPIREAT a 1\r\nDBSIZE\r\nSET a 1\r\nEXPIREAT a -9223372036854775\r\nDBSIZE\r\nSET a 1\r\n"
     b"PEXPIREAT a -9223372036854775808\r\nDBSIZE\r\n",
     b"+OK\r\n:1\r\n$-1\r\n+OK\r\n:1\r\n:0\r\n" + b"+OK\r\n:1\r\n:0\r\n" * 3),
    (b"EXPIRE a x\r\nEXPIRE a ''\r\nEXPIRE a 1.5\r\nEXPIRE a 9223372036854775808\r\n"
     b"EXPIRE a 9223372036854776\r\nEXPIREAT a 9223372036854776\r\n"
     b"EXPIREAT a -9223372036854776\r\nPEXPIRE a 9223372036854775807\r\n"
     b"PEXPIREAT a 9223372036854775807\r\nSET a 1\r\nPEXPIREAT a 9223372036854775807\r\n"
     b"PEXPIRETIME a\r\n",
     NO_INTEGER * 4 + OVER % b"expire" + OVER % b"expireat" * 2 + OVER % b"pexpire"
     + b":0\r\n+OK\r\n:1\r\n:9223372036854775807\r\n"),
    (b"EXPIRE a 1 AB\r\nEXPIRE a x NX AB\r\nEXPIRE a x NX XX\r\nEXPIRE a x\r\nexpire a 1 nx gt\r\n"
     b"EXPIRE a 1 lt NX\r\nPEXPIRE a 1 GT LT\r\nEXPIRE a 1 GT LT NX\r\nEXPIRE a 1 XX GT gt\r\n"
     b"EXPIRE a\r\n",
     b"-ERR Unsupported option AB\r\n" * 2 + NX_AND + NO_INTEGER + NX_AND * 2 + GT_LT + NX_AND
     + b":0\r\n-ERR wrong number of arguments for 'expire' command\r\n"),
]  # fmt: skip
for conditions in (b"NX", b"XX", b"GT", b"LT", b"XX GT", b"XX LT", b"LT XX LT"):
    wants_none, wants_some = b"NX" in conditions, b"XX" in conditions
    later, earlier = b"GT" in conditions, b"LT" in conditions
    CONVERSATIONS.append((
        b"SET none 1\r\nSET same 1\r\nSET less 1\r\nSET more 1\r\nPEXPIREAT same %d\r\n"
        b"PEXPIREAT less %d\r\nPEXPIREAT more %d\r\n" % (FAR_MS, FAR_MS - 1, FAR_MS + 1)
        + b"".join(b"PEXPIREAT %b %d %b\r\n" % (key, FAR_MS, conditions)
                   for key in (b"none", b"same", b"less", b"more")),
        b"+OK\r\n" * 4 + b":1\r\n" * 3 + b":%d\r\n:%d\r\n:%d\r\n:%d\r\n" % (
            not wants_some and not later,
            not wants_none and not later and not earlier,
            not wants_none and not earlier,
            not wants_none and not later,
        ),
    ))  # fmt: skip

IDS = [f"{sent[:20].decode()!r} {n}" for n, (sent, _) in enumerate(CONVERSATIONS)]


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS, ids=IDS)
async def test_replies_in_redis_words(running: Running, sent: bytes, expected: bytes) -> None:
    assert await talk(await running.connect(), sent) == expected


@pytest.mark.parametrize(("sent", "expected"), CONVERSATIONS, ids=IDS)
async def test_redis_says_the_same(real_redis: int, sent: bytes, expected: bytes) -> None:
    assert await talk_to_empty(real_redis, sent) == expected


class Replica:
    """A state machine that is handed entries with the stamps that a test chooses."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory, 1)
        self.store.time.alone = True
        self.machine = KvStateMachine(self.store)
        self.machine.on_replies = self._keep
        self._instances = itertools.count(1)
        self._replies: list[Reply] = []

    def _keep(self, ticket: int, replies: list[Reply]) -> None:
        self._replies += replies

    def apply(self, stamp: int, *lines: bytes) -> list[Reply]:
        commands = [line.split() for line in lines]
        value = join_value(pack_commands(commands, 0), stamp, 1)
        instance = next(self._instances)
        self._replies = []
        self.machine.apply([Delivered(instance, 1, value)], instance, {})
        return self._replies


@pytest.fixture
def replica(tmp_path: Path) -> Replica:
    return Replica(tmp_path / "store")


NOW = 1_700_000_000_000


def test_relative_times_count_from_the_time_of_the_entry(replica: Replica) -> None:
    assert replica.apply(NOW, b"SET a 1", b"EXPIRE a 10", b"PEXPIRETIME a") != []
    assert replica.apply(NOW + 5, b"PEXPIRETIME a", b"PTTL a", b"TTL a") == [NOW + 10_000, 9995, 10]
    # An entry of a clock that is behind: the log's time stands still.
    assert replica.apply(NOW - 9999, b"PEXPIRE a 10", b"PEXPIRETIME a") == [1, NOW + 15]
    assert replica.apply(NOW + 14, b"EXISTS a", b"PTTL a", b"TTL a") == [1, 1, 0]
    assert replica.apply(NOW + 15, b"EXISTS a", b"PTTL a", b"PERSIST a") == [0, -2, 0]
    replica.store.close()


def test_an_expired_key_is_no_key_to_any_command(replica: Replica) -> None:
    replica.apply(NOW, b"SET a 1 PX 10", b"SET b 2", b"SET c 3 PX 10")
    assert replica.apply(
        NOW + 10, b"TYPE a", b"EXISTS a", b"TOUCH a", b"DEL a", b"EXPIRE a 5", b"PERSIST a",
        b"RENAMENX b a", b"COPY c d", b"MOVE c 1", b"OBJECT ENCODING c", b"KEYS *", b"DBSIZE",
    )[1:] == [0, 0, 0, 0, 0, 1, 0, 0, None, [b"a"], 1]  # fmt: skip
    assert replica.apply(NOW + 11, b"RENAME c x") == [Error(b"ERR no such key")]
    assert replica.apply(NOW + 12, b"SCAN 0", b"RANDOMKEY", b"GET a") == [
        [b"0", [b"a"]], b"a", b"2",
    ]  # fmt: skip
    replica.store.close()


def test_what_takes_a_key_over_takes_its_expiry_too(replica: Replica) -> None:
    replica.apply(NOW, b"SET a 1 PX 10", b"SET b 2 PX 20", b"RENAME a b", b"COPY b c")
    assert replica.apply(NOW + 9, b"MGET b c") == [[b"1", b"1"]]
    assert replica.apply(NOW + 10, b"MGET b c") == [[None, None]]
    replica.store.close()
