"""What one entry may make every replica do: values copied or built, refused or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from kvstore import keyspace
from kvstore.keyspace import ENTRY_WORK_BYTES, MAX_VALUE_BYTES
from kvstore.replies import Error, Reply
from kvstore.resp import Command
from tests.kvstore.replicas import NOON, Replica, value_of

LARGE = b"v" * MAX_VALUE_BYTES
REFUSAL = (
    f"ERR values that one pipeline or transaction works on are over {ENTRY_WORK_BYTES} bytes; "
    "write them in smaller steps"
).encode()


def refused(replies: list[Reply]) -> list[bool]:
    """Which replies say that there was too much to work on."""
    return [isinstance(reply, Error) and reply.text == REFUSAL for reply in replies]


@pytest.mark.parametrize(
    "command",
    [
        [b"APPEND", b"large", b"x"],
        [b"INCR", b"large"],
        [b"EXPIRE", b"large", b"100"],
        [b"RENAME", b"large", b"other"],
        [b"SETRANGE", b"none", b"%d" % (MAX_VALUE_BYTES - 1), b"x"],
        [b"SETBIT", b"none", b"%d" % (MAX_VALUE_BYTES * 8 - 1), b"1"],
        [b"BITFIELD", b"none", b"SET", b"u8", b"%d" % (MAX_VALUE_BYTES * 8 - 8), b"1"],
    ],
    ids=lambda command: command[0].decode(),
)
def test_refused_commands_on_a_large_value_end_by_their_work(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """131,072 of these in one MULTI used to copy 8 MiB each, on all replicas: for minutes."""
    replica = Replica(tmp_path / "a")
    replica.run([b"SET", b"large", LARGE])
    monkeypatch.setattr(keyspace, "ENTRY_BYTES", 1 << 20)  # so that every one of them is refused
    replies = replica.run(*[command] * 200, [b"SET", b"small", b"1"])
    told = refused(replies[:-1])
    assert not told[0]
    assert all(told[-50:])
    assert told == sorted(told), "once there was too much it stays so"
    assert str(replies[-1]) == str(replica.run([b"SET", b"small", b"2"])[0]), "others go on"
    # The next entry begins anew.
    assert refused(replica.run(command)) == [False]


def test_reads_among_writes_do_not_count(tmp_path: Path) -> None:
    """They run where their client is and nowhere else: what is refused must not depend on them."""
    own, other = Replica(tmp_path / "own"), Replica(tmp_path / "other", origin=1)
    commands: list[Command] = [
        [b"SET", b"large", LARGE[:-1]],
        *[[b"STRLEN", b"large"]] * 200,
        [b"APPEND", b"large", b"x"],
    ]
    replies = own.run(*commands)
    assert replies[-1] == MAX_VALUE_BYTES
    other.apply(value_of(NOON, *commands))
    assert own.content() == other.content()
