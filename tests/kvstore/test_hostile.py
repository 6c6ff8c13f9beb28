"""One client's commands, however odd, stop no replica, and keep nobody waiting for long."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from kvstore import commands
from kvstore import connection as connection_module
from kvstore import machine as machine_module
from kvstore.commands import queued as queued_module
from kvstore.commands import scanning as scanning_module
from kvstore.commands.introspection import NAMED_MAX
from kvstore.commands.queued import LOCAL_MAX
from kvstore.commands.table import Entry
from kvstore.digest import digest_of
from kvstore.dump import dump
from kvstore.packing import TRANSACTION, pack_commands, pack_transaction
from kvstore.patterns import Glob, compile_glob
from kvstore.replies import OK, Error
from kvstore.resp import ChunkReader, Command, CommandParser
from tests.kvstore.replicas import NOON, Replica, value_of
from tests.kvstore.serving import pack, serving

NUMBERS = [
    b"0", b"1", b"-1", b"-0", b"+1", b"01", b"1_0", b" 1", b"1 ", b"1\n", b"1.5", b"1e400", b"nan",
    b"-inf", b"0x10", b"0x1p-99999999999999999999", b"1e99999999999999999999", b"9" * 19, b"9" * 20,
    b"9" * 5000, b"-" + b"9" * 19, b"9223372036854775807", b"-9223372036854775808",
    b"9223372036854775808", b"18446744073709551615", b"4294967296", b"8388607", b"8388608",
    b"67108863", b"67108864", b"-67108865", b"\xd9\xa1", b"1\x002", b"",
]  # fmt: skip
WORDS = [
    b"nx", b"XX", b"gt", b"lt", b"get", b"keepttl", b"ex", b"px", b"exat", b"pxat", b"ifeq",
    b"persist", b"replace", b"absttl", b"idletime", b"freq", b"db", b"and", b"or", b"xor", b"not",
    b"sync", b"async", b"overflow", b"wrap", b"sat", b"fail", b"set", b"incrby", b"u8", b"i64",
    b"u64", b"i0", b"u", b"#0", b"#", b"#67108863", b"#9223372036854775807", b"bit", b"byte",
    b"encoding", b"help", b"\x00", b"\x00\x03", TRANSACTION, b"\xff\xfe", b"*", b"[^a]",
]  # fmt: skip
KEYS = [b"", b"k", b"number", b"text", b"long", b"dying", b"\x00", b"\xff" * 300, b"missing"]
VALUES = [
    b"", b"x", b"y" * 300, dump(b"x"), dump(b"12")[:-1],
    b"\x00\xc3\x02\x05\xe0\xff\x0a\x00" + bytes(8),
    b"\x00\x81" + b"\xff" * 8 + b"\x0a\x00" + bytes(8), b"\x0a\x00" + bytes(8),
    b"\x00\xc3\x81" + b"\xff" * 8 + b"\x81" + b"\xff" * 8 + b"\x0a\x00" + bytes(8),
]  # fmt: skip
SCRIPTS = [
    b"c3f8721cbb97f72bc19e972846bd7aaf91901658", b"1cac51482acf5858da00f6d685d68f886cd6b6b2",
    b"a4e8783852e6b949f9ef3a97212805108459a890",
]  # fmt: skip
EVERY = [*NUMBERS, *WORDS, *KEYS, *VALUES, *SCRIPTS]
SOME = [b"0", b"-1", b"1", b"9223372036854775807", b"67108863", b"8388607", b"k", b"number", b"get",
        b"ex", b"", b"u8", b"not", b"\x00\x03", b"nan"]  # fmt: skip


def odd_commands(entry: Entry) -> list[Command]:
    """All odd words at each place of a short command, and many long ones by chance."""
    chance = random.Random(entry.name)
    found: list[Command] = []
    for length in range(4):
        pool = EVERY if length == 1 else SOME
        found += [[entry.name, *words] for words in itertools.product(pool, repeat=length)]
    for _ in range(1000):
        words = [chance.choice(EVERY) for _ in range(chance.randint(1, 9))]
        words[0] = chance.choice(KEYS + SCRIPTS)
        found.append([entry.name, *words])
    return found


def filled(replica: Replica) -> None:
    replica.run(
        [b"SET", b"number", b"41"], [b"SET", b"text", b"abc"], [b"SET", b"long", b"z" * 70_000],
        [b"SET", b"dying", b"1", b"PX", b"5"], [b"SET", b"", b"empty"],
    )  # fmt: skip


@pytest.mark.parametrize(
    "entry", [e for e in commands.TABLE.values() if e.writes], ids=lambda e: e.name.decode()
)
def test_no_arguments_of_a_write_raise_what_stops_the_replicas(
    entry: Entry, tmp_path: Path
) -> None:
    """Its own replica and another one take all of them, and hold the same then."""
    replicas = [Replica(tmp_path / name) for name in ("one", "other")]
    own, other = replicas
    for replica in replicas:
        filled(replica)
    sent = odd_commands(entry)
    for first in range(0, len(sent), 200):
        some = sent[first : first + 200]
        for place, command in enumerate(some[::20]):  # and as a transaction of another database
            some[20 * place] = pack_transaction([], pack_commands([command], place % 16))
        replies = own.run(*some, stamp=NOON + first)
        assert len(replies) == len(some)
        other.apply(value_of(NOON + first, *some))
    views = [replica.store.view(replica.store.applied) for replica in replicas]
    assert digest_of(views[0]) == digest_of(views[1])
    for replica in replicas:
        replica.store.close()


def test_classes_of_a_pattern_stay_short() -> None:
    """Four bytes of a pattern were 1020 of a regular expression, and 16 KiB took five seconds."""
    for unit in (b"[^a]", b"*[^a]", b"[\\x00-\\xff]", b"[^ac]"):
        pattern = (unit * 4096)[: 1 << 14]
        expression = compile_glob(pattern).expression
        assert expression is not None
        assert len(expression.pattern) < 12 * len(pattern)
    assert compile_glob(b"[^a]").choose([b"a", b"b", b"\xff", b"\n"]) == [b"b", b"\xff", b"\n"]


def test_of_many_patterns_one_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[bytes] = []

    def counted(pattern: bytes) -> Glob:
        compiled.append(pattern)
        return compile_glob(pattern)

    monkeypatch.setattr(scanning_module, "compile_glob", counted)
    replica = Replica(tmp_path)
    filled(replica)
    words = [word for k in range(100) for word in (b"MATCH", b"*%d*" % k)]
    found = replica.run([b"SCAN", b"0", *words, b"MATCH", b"te*"])
    assert found == [[b"0", [b"text"]]]
    assert compiled == [b"te*"]
    replica.store.close()


def test_reads_in_a_transaction_take_so_long_and_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand KEYS of one client were hours in which its node did nothing else."""
    monkeypatch.setattr(machine_module, "RIDING_S", 1e-9)
    replica = Replica(tmp_path)
    filled(replica)
    first, second, third = replica.run([b"GET", b"text"], [b"KEYS", b"z*"], [b"SET", b"text", b"1"])
    assert first == b"abc"
    assert isinstance(second, Error)
    assert second.text.startswith(b"ERR reads among these writes have taken more than")
    assert third is OK
    assert replica.run([b"GET", b"text"]) == [b"1"]
    replica.store.close()


def test_replies_of_any_shape_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_module, "RIDING_BYTES", 2000)
    replica = Replica(tmp_path)
    replica.run([b"SET", b"a", b"ab" * 100], [b"SET", b"b", b"axb" * 100])
    replies = replica.run(*[[b"LCS", b"a", b"b", b"IDX"]] * 3)
    assert isinstance(replies[0], dict)
    assert isinstance(replies[2], Error)
    replica.store.close()


async def test_what_replies_much_waits_for_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand COMMANDs, eight kilobytes, were made at once: nine seconds for everybody."""
    monkeypatch.setattr(connection_module, "ANSWERED_BYTES", 10)
    async with serving(tmp_path) as running:
        talker = await running.connect()
        await talker.send(b"".join(pack(b"ECHO", b"%d" % k) for k in range(3000)) + b"GET x\r\n")
        for k in range(3000):
            await talker.expect(b"$%d\r\n%d\r\n" % (len(b"%d" % k), k))
        await talker.expect(b"$-1\r\n")
        # Muted, they leave nothing to send; what follows them goes on all the same.
        await talker.send(b"CLIENT REPLY OFF\r\n" + b"PING\r\n" * 3000 + b"CLIENT REPLY ON\r\n")
        await talker.expect(b"+OK\r\n")
        # A transaction in the midst of it is whole.
        await talker.send(b"PING\r\nMULTI\r\nPING\r\nSET k v\r\nPING\r\nEXEC\r\nGET k\r\n")
        await talker.expect(
            b"+PONG\r\n+OK\r\n" + b"+QUEUED\r\n" * 3
            + b"*3\r\n+PONG\r\n+OK\r\n+PONG\r\n$1\r\nv\r\n"
        )


async def test_what_is_told_of_a_client_is_short(tmp_path: Path) -> None:
    async with serving(tmp_path) as running:
        talker = await running.connect()
        long, most = b"x" * 1025, b"x" * 1024
        for command in (
            [b"CLIENT", b"SETNAME"], [b"CLIENT", b"SETINFO", b"lib-name"],
            [b"CLIENT", b"SETINFO", b"lib-ver"], [b"HELLO", b"2", b"SETNAME"],
        ):  # fmt: skip
            await talker.send(pack(*command, long))
            await talker.expect(
                b"-ERR more than 1024 bytes about a client; make it shorter\r\n"
            )
        await talker.send(pack(b"CLIENT", b"SETNAME", most) + pack(b"CLIENT", b"GETNAME"))
        await talker.expect(b"+OK\r\n$1024\r\n" + most + b"\r\n")


async def test_few_commands_are_described_at_a_time(tmp_path: Path) -> None:
    """A million names were gigabytes of replies."""
    async with serving(tmp_path) as running:
        talker = await running.connect()
        for subcommand in (b"INFO", b"DOCS"):
            await talker.send(pack(b"COMMAND", subcommand, *[b"get"] * (NAMED_MAX + 1)))
            await talker.expect(b"-ERR more than 1024 commands; ask for fewer\r\n")
            await talker.send(pack(b"COMMAND", subcommand, *[b"nothing"] * NAMED_MAX))
            expected = b"*1024\r\n" + b"$-1\r\n" * 1024 if subcommand == b"INFO" else b"*0\r\n"
            await talker.expect(expected)
        await talker.send(pack(b"CONFIG", b"GET", *[b"*%d" % k for k in range(NAMED_MAX + 1)]))
        await talker.expect(b"-ERR more than 1024 patterns; ask for fewer\r\n")


async def test_connection_commands_of_a_transaction_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand COMMANDs between MULTI and EXEC were gigabytes in one reply."""
    monkeypatch.setattr(queued_module, "LOCAL_REPLY_BYTES", 1000)
    async with serving(tmp_path) as running:
        talker = await running.connect()
        await talker.send(b"MULTI\r\nCOMMAND\r\nPING\r\nSET k v\r\nEXEC\r\nCOMMAND\r\n")
        await talker.expect(b"+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n")
        rest = await talker.rest_of(b"send it apart\r\n+OK\r\n")
        described = rest[: rest.index(b"-ERR replies to commands that concern no key")]
        await talker.expect(described)
        await talker.send(b"MULTI\r\n" + b"PING\r\n" * (LOCAL_MAX + 1) + b"EXEC\r\n")
        await talker.expect(b"+OK\r\n" + b"+QUEUED\r\n" * LOCAL_MAX + b"-ERR transaction is over")
        await talker.rest_of(b"send them apart from it\r\n-EXECABORT Transaction discarded because "
                             b"of previous errors.\r\n")  # fmt: skip


def test_a_mark_in_what_is_cut_off_a_text_makes_up_for_none() -> None:
    """hiredis drops the first four bytes of a verbatim text, and so a `$` among them."""
    for stream in (b"*1\r\n=5\r\n$xt:a\r\n", b"*2\r\n$1\r\na\r\n=5\r\nx$x:a\r\n"):
        parser = CommandParser(ChunkReader())
        assert parser.feed(stream) == []
        assert parser.error == "expected '$', got '='"
