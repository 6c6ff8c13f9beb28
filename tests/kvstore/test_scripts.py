"""EVAL, EVALSHA and SCRIPT for the scripts that are known."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha1
from pathlib import Path

import pytest
from redis.lock import Lock

from kvstore.replies import Error
from tests.kvstore.replicas import NOON, Replica

RELEASE = sha1(Lock.LUA_RELEASE_SCRIPT.encode()).hexdigest().encode()
REACQUIRE = sha1(Lock.LUA_REACQUIRE_SCRIPT.encode()).hexdigest().encode()
EXTEND = sha1(Lock.LUA_EXTEND_SCRIPT.encode()).hexdigest().encode()


@pytest.fixture
def replica(tmp_path: Path) -> Iterator[Replica]:
    made = Replica(tmp_path)
    made.run([b"SET", b"lock", b"mine", b"PX", b"1000"])
    yield made
    made.store.close()


def test_only_the_owner_releases(replica: Replica) -> None:
    assert replica.run(
        [b"EVALSHA", RELEASE, b"1", b"lock", b"theirs"],
        [b"EXISTS", b"lock"],
        [b"EVALSHA", RELEASE.upper(), b"1", b"lock", b"mine"],
        [b"EXISTS", b"lock"],
        [b"EVALSHA", RELEASE, b"1", b"lock", b"mine"],
    ) == [0, 1, 1, 0, 0]


def test_the_owner_gets_more_time(replica: Replica) -> None:
    assert replica.run(
        [b"EVALSHA", REACQUIRE, b"1", b"lock", b"theirs", b"9000"],
        [b"EVALSHA", REACQUIRE, b"1", b"lock", b"mine", b"2000"],
        [b"PEXPIRETIME", b"lock"],
        [b"EVALSHA", EXTEND, b"1", b"lock", b"mine", b"500", b"0"],
        [b"PEXPIRETIME", b"lock"],
        [b"EVALSHA", EXTEND, b"1", b"lock", b"mine", b"700", b"1"],
        [b"PEXPIRETIME", b"lock"],
        [b"EVALSHA", EXTEND, b"1", b"lock", b"theirs", b"700", b"1"],
    ) == [0, 1, NOON + 2000, 1, NOON + 2500, 1, NOON + 700, 0]


def test_a_lock_that_lasts_is_not_extended(replica: Replica) -> None:
    assert replica.run(
        [b"PERSIST", b"lock"],
        [b"EVALSHA", EXTEND, b"1", b"lock", b"mine", b"500", b"0"],
        [b"PTTL", b"lock"],
    ) == [1, 0, -1]


def test_a_lock_that_expired_is_nobodys(replica: Replica) -> None:
    assert replica.run([b"EVALSHA", RELEASE, b"1", b"lock", b"mine"], stamp=NOON + 1000) == [0]


@pytest.mark.parametrize(
    "text",
    [
        b'if redis.call("get",KEYS[1]) == ARGV[1] then return redis.call("del",KEYS[1]) '
        b"else return 0 end",
        b"\n  if redis.call('GET', KEYS[1]) == ARGV[1] then\n    return redis.call('DEL', "
        b"KEYS[1])\n  else\n    return 0\n  end\n",
        Lock.LUA_RELEASE_SCRIPT.encode(),
    ],
)
def test_eval_knows_a_script_by_its_text(replica: Replica, text: bytes) -> None:
    assert replica.run(
        [b"EVAL", text, b"1", b"lock", b"theirs"],
        [b"EVAL", text, b"1", b"lock", b"mine"],
        [b"EXISTS", b"lock"],
    ) == [0, 1, 0]


@pytest.mark.parametrize(
    ("command", "error"),
    [
        ([b"EVALSHA", b"0" * 40, b"0"], b"NOSCRIPT No matching script. Please use EVAL."),
        ([b"EVAL", b"return 1", b"0"], b"ERR this script is not known"),
        ([b"EVAL", b"return 1", b"x"], b"ERR value is not an integer or out of range"),
        ([b"EVAL", b"return 1", b"1"],
         b"ERR Number of keys can't be greater than number of args"),
        ([b"EVAL", b"return 1", b"-1"], b"ERR Number of keys can't be negative"),
        ([b"EVALSHA", RELEASE, b"1", b"lock"], b"ERR this script takes 1 key and 1 arguments"),
        ([b"EVALSHA", RELEASE, b"2", b"lock", b"mine", b"x"], b"ERR this script takes 1 key"),
        ([b"EVALSHA", REACQUIRE, b"1", b"lock", b"mine", b"x"], b"ERR value is not an integer"),
    ],
)  # fmt: skip
def test_refusals_change_nothing(replica: Replica, command: list[bytes], error: bytes) -> None:
    reply, value = replica.run(command, [b"GET", b"lock"])
    assert isinstance(reply, Error)
    assert reply.text.startswith(error)
    assert value == b"mine"
