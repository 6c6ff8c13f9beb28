"""Who may connect, and what each may run; secrets that turn up nowhere."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis
import trio
import trio.testing
from redis.backoff import NoBackoff
from redis.retry import Retry

from kvstore import Client, authentication, commands, users
from kvstore.authentication import Asked, Authenticator
from kvstore.client import ErrorReply
from kvstore.commands.permissions import views
from kvstore.commands.table import Entry
from kvstore.metrics import store_families
from kvstore.passwords import Hash
from kvstore.replies import OK, CommandError
from kvstore.users import BadUsers
from tests.kvstore.access import (
    NOAUTH,
    SECRET,
    WRONG,
    ask,
    auth,
    connect_as,
    password_of,
    quick,
    users_file,
)
from tests.kvstore.conversations import RealRedis
from tests.kvstore.serving import Running, pack, serving


@pytest.fixture(autouse=True)
def _failures_are_answered_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "FAILURE_S", 0.01)


@pytest.fixture
async def guarded(tmp_path: Path) -> AsyncIterator[Running]:
    async with serving(tmp_path, users=users_file(tmp_path)) as running:
        yield running


def no_permission(name: bytes) -> bytes:
    return b"-NOPERM this user has no permissions to run the '%b' command\r\n" % name


# Who is who ---------------------------------------------------------------------------------------


async def test_nothing_is_run_before_authentication(guarded: Running) -> None:
    talker = await guarded.connect()
    for words in ((b"PING",), (b"GET", b"a"), (b"SET", b"a", b"1"), (b"MULTI",), (b"EXEC",),
                  (b"CONFIG", b"GET", b"*"), (b"MONITOR",), (b"ACL", b"WHOAMI"),
                  (b"EVAL", b"return 1", b"0"), (b"WATCH", b"a"), (b"COMMAND",),
                  (b"CLIENT", b"KILL", b"TYPE", b"normal")):  # fmt: skip
        assert await ask(talker, *words) == NOAUTH, words
    assert guarded.store.applied == 0
    # Redis looks a command up before it asks who wants it.
    assert (await ask(talker, b"NOSUCH")).startswith(b"-ERR unknown command 'NOSUCH'")
    assert (await ask(talker, b"GET")).startswith(b"-ERR wrong number of arguments")
    assert (await ask(talker, b"HELLO", b"3")).startswith(b"-NOAUTH HELLO must be called")
    await talker.send(auth("default") + pack(b"PING"))
    await talker.expect(b"+OK\r\n+PONG\r\n")


async def test_what_follows_auth_in_a_pipeline_waits_for_it(guarded: Running) -> None:
    talker = await guarded.connect()
    await talker.send(
        pack(b"GET", b"a") + auth("default") + pack(b"SET", b"a", b"1") + pack(b"GET", b"a")
        + pack(b"AUTH", b"nobody", b"x") + pack(b"INCR", b"a") + auth("reader")
        + pack(b"INCR", b"a") + pack(b"ACL", b"WHOAMI")
    )  # fmt: skip
    await talker.expect(
        NOAUTH + b"+OK\r\n+OK\r\n$1\r\n1\r\n" + WRONG + b":2\r\n+OK\r\n"
        + no_permission(b"incr") + b"$6\r\nreader\r\n"
    )  # fmt: skip


async def test_auth_with_one_word_is_the_default_users(guarded: Running) -> None:
    talker = await guarded.connect()
    await talker.send(pack(b"AUTH", password_of("reader").encode()))
    await talker.expect(WRONG)
    await talker.send(pack(b"AUTH", password_of("default").encode()))
    await talker.expect(b"+OK\r\n")
    assert await ask(talker, b"AUTH", b"a", b"b", b"c") == b"-ERR syntax error\r\n"


async def test_hello_authenticates_and_changes_nothing_if_it_cannot(guarded: Running) -> None:
    talker = await guarded.connect()
    await talker.send(pack(b"HELLO", b"3", b"AUTH", b"reader", b"wrong"))
    await talker.expect(WRONG)
    assert await ask(talker, b"GET", b"a") == NOAUTH
    word = password_of("reader").encode()
    await talker.send(pack(b"HELLO", b"3", b"AUTH", b"reader", word, b"SETNAME", b"me"))
    assert await talker.line() == b"%7\r\n"
    await talker.send(pack(b"GET", b"a") + pack(b"CLIENT", b"GETNAME"))
    assert (await talker.rest_of(b"$2\r\nme\r\n")).endswith(b"_\r\n$2\r\nme\r\n")


async def test_without_users_auth_answers_as_before(running: Running) -> None:
    talker = await running.connect()
    assert (await ask(talker, b"AUTH", b"x")).startswith(b"-ERR AUTH <password> called without")
    assert await ask(talker, b"AUTH", b"default", b"x") == b"+OK\r\n"
    assert await ask(talker, b"AUTH", b"bob", b"x") == WRONG
    await talker.send(pack(b"ACL", b"WHOAMI") + pack(b"ACL", b"USERS"))
    await talker.expect(b"$7\r\ndefault\r\n*1\r\n$7\r\ndefault\r\n")


async def test_reset_forgets_who_it_was(guarded: Running) -> None:
    talker = await connect_as(guarded, "root")
    await talker.send(pack(b"PING") + pack(b"RESET") + pack(b"GET", b"a") + pack(b"PING"))
    await talker.expect(b"+PONG\r\n+RESET\r\n" + NOAUTH + NOAUTH)
    assert len(guarded.server.admission.newcomers) == 1


async def test_redis_refuses_in_the_same_words(guarded: Running, real_redis: int) -> None:
    """Redis 7.0.15 with the same users is asked the same, before and behind AUTH."""
    own = RealRedis(guarded.server.port)
    other = RealRedis(real_redis)
    for words in (
        [b"ACL", b"SETUSER", b"default", b"on", b">pw"],
        [b"ACL", b"SETUSER", b"reader", b"on", b">" + password_of("reader").encode(), b"~*",
         b"+@read", b"+acl|whoami", b"+multi", b"+exec"],
    ):  # fmt: skip
        assert other.run(words) == b"+OK\r\n"
    stranger = RealRedis(real_redis)
    try:
        # `nopass` has made the first connection the default user for good: ask on a new one.
        for words in (
            [b"GET", b"a"], [b"HELLO", b"3"], [b"AUTH", b"bob", b"x"],
            [b"HELLO", b"3", b"AUTH", b"reader", b"x"],
            [b"AUTH", b"reader", password_of("reader").encode()], [b"ACL", b"WHOAMI"],
            [b"SET", b"a", b"1"], [b"CONFIG", b"GET", b"port"], [b"FLUSHALL"], [b"MULTI"],
            [b"SET", b"a", b"1"], [b"EXEC"], [b"MONITOR"], [b"GET", b"a"],
        ):  # fmt: skip
            expected = stranger.run(words)
            assert await trio.to_thread.run_sync(own.run, words) == expected, words
    finally:
        other.run([b"ACL", b"SETUSER", b"default", b"nopass"])
        other.run([b"ACL", b"DELUSER", b"reader"])
        for connection in (own, other, stranger):
            connection.close()


# Rights -------------------------------------------------------------------------------------------


def every(table: dict[bytes, Entry]) -> list[tuple[Entry, list[bytes]]]:
    """All commands and subcommands, with the words that call them."""
    found: list[tuple[Entry, list[bytes]]] = []
    for entry in table.values():
        for child in entry.subcommands.values():
            found.append((child, [entry.name, child.name]))
        if not entry.subcommands:
            found.append((entry, [entry.name]))
    return found


def test_rights_follow_from_the_table() -> None:
    seen = views(commands.TABLE)

    def may(rights: str, words: list[bytes]) -> bool:
        view = seen[rights]
        entry = view.known(words[0])
        assert entry is view.find(words[0].upper())
        assert entry is not None
        try:
            view.check(entry, words)
        except CommandError:
            return False
        return True

    named = {b"|".join(words): words for _, words in every(commands.TABLE)}
    for entry, words in every(commands.TABLE):
        name = b"|".join(words)
        assert may("", words) == ("no_auth" in entry.flags), name
        if entry.writes:
            assert not may("read", words), name
        if "admin" in entry.flags and name != b"client|no-evict":
            assert not may("write", words), name
            assert not may("read", words), name
        if may("read", words):
            assert may("write", words), name
    for name in (b"flushall", b"flushdb", b"swapdb", b"debug", b"monitor", b"config|set",
                 b"config|get", b"client|kill", b"client|list", b"client|pause", b"slowlog|get",
                 b"acl|users"):  # fmt: skip
        assert not may("write", named[name]), name
    for name in (b"set", b"eval", b"evalsha", b"restore", b"getdel", b"getex", b"expire", b"copy"):
        assert may("write", named[name]), name
        assert not may("read", named[name]), name
    for name in (b"get", b"scan", b"keys", b"multi", b"exec", b"watch", b"client|setname", b"info",
                 b"acl|whoami", b"hello", b"select", b"dump", b"object|encoding"):  # fmt: skip
        assert may("read", named[name]), name


async def test_a_reader_reads_and_no_more(guarded: Running) -> None:
    writer = await connect_as(guarded, "default")
    assert await ask(writer, b"SET", b"a", b"1") == b"+OK\r\n"
    reader = await connect_as(guarded, "reader")
    await reader.send(pack(b"get", b"a") + pack(b"GeT", b"a") + pack(b"SCAN", b"0"))
    await reader.expect(b"$1\r\n1\r\n$1\r\n1\r\n*2\r\n$1\r\n0\r\n*1\r\n$1\r\na\r\n")
    for words in ((b"SET", b"a", b"2"), (b"sEt", b"a", b"2"), (b"DEL", b"a"), (b"FLUSHALL",),
                  (b"MONITOR",), (b"EVAL", b"x", b"0"), (b"GETDEL", b"a")):  # fmt: skip
        assert await ask(reader, *words) == no_permission(words[0].lower())
    assert await ask(reader, b"CONFIG", b"SET", b"maxclients", b"1") == no_permission(b"config|set")
    assert await ask(reader, b"CLIENT", b"KILL", b"ID", b"1") == no_permission(b"client|kill")
    assert await ask(writer, b"FLUSHALL") == no_permission(b"flushall")
    assert await ask(reader, b"GET", b"a") == b"$1\r\n"


async def test_a_transaction_is_judged_when_it_is_queued(guarded: Running) -> None:
    reader = await connect_as(guarded, "reader")
    await reader.send(
        pack(b"MULTI") + pack(b"GET", b"a") + pack(b"SET", b"a", b"1") + pack(b"EXEC")
        + pack(b"GET", b"a")
    )  # fmt: skip
    await reader.expect(
        b"+OK\r\n+QUEUED\r\n" + no_permission(b"set")
        + b"-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n"
    )  # fmt: skip
    await reader.send(pack(b"MULTI") + auth("root"))
    await reader.expect(b"+OK\r\n-ERR AUTH inside MULTI is not allowed; authenticate before it\r\n")
    assert (await ask(reader, b"EXEC")).startswith(b"-EXECABORT")


async def test_clients_are_told_and_killed_by_user(guarded: Running) -> None:
    root = await connect_as(guarded, "root")
    reader = await connect_as(guarded, "reader")
    listed = {client.user_name for client in guarded.server._clients()}
    assert listed == {"root", "reader"}
    await root.send(pack(b"CLIENT", b"KILL", b"USER", b"reader"))
    await root.expect(b":1\r\n")
    assert await reader.rest() == b""
    assert await ask(root, b"CLIENT", b"KILL", b"USER", b"bob") == b"-ERR No such user 'bob'\r\n"


# Passwords ----------------------------------------------------------------------------------------


async def test_a_connection_has_a_few_failures(guarded: Running) -> None:
    talker = await guarded.connect()
    await talker.send(pack(b"AUTH", b"wrong") * 9 + auth("root") + pack(b"PING"))
    assert await talker.rest() == WRONG * authentication.FAILURES_MAX
    assert guarded.server.counted["authentications_failed"] == authentication.FAILURES_MAX


async def test_only_the_first_check_is_slow(guarded: Running) -> None:
    """Once a password was found right, a fast hash decides, of wrong ones too."""
    for _ in range(5):
        await connect_as(guarded, "reader")
    assert guarded.server.counted["passwords_hashed"] == 1
    talker = await guarded.connect()
    await talker.send(pack(b"AUTH", b"reader", b"guess"))
    await talker.expect(WRONG)
    assert guarded.server.counted["passwords_hashed"] == 1
    assert guarded.server.counted["authenticated"] == 5


async def test_checks_go_on_beside_the_server_and_are_bounded(tmp_path: Path) -> None:
    """One runs at a time; an address has few that wait; those that ask the same share one."""
    access = Authenticator(users_file(tmp_path))
    outcomes: list[str] = []

    async def check(name: str, password: str, address: str) -> None:
        asked = Asked(name.encode(), password.encode(), lambda: OK)
        try:
            user = await access.verify(asked, address)
        except CommandError as error:
            outcomes.append(error.reply.text.decode().split()[0])
        else:
            outcomes.append(user.name)

    held = access._threads
    held.acquire_nowait()  # none begins before all have come
    async with trio.open_nursery() as nursery:
        for number in range(7):
            nursery.start_soon(check, "default", f"guess {number}", "10.0.0.1")
        for _ in range(20):
            nursery.start_soon(check, "reader", password_of("reader"), "10.0.0.2")
        await trio.testing.wait_all_tasks_blocked(0.01)
        assert outcomes == ["ERR"] * 3  # four of the seven wait
        assert access._waiting == {"10.0.0.1": 4, "10.0.0.2": 1}
        held.release()
    assert sorted(outcomes) == ["ERR"] * 3 + ["WRONGPASS"] * 4 + ["reader"] * 20
    assert access.counters["passwords_hashed"] == 5
    assert not access._waiting
    assert not access._under_way


def test_a_hash_is_of_one_password_and_salted() -> None:
    hash = Hash.of(b"open", log_n=4, parallel=1)
    assert Hash.parse(str(hash)) == hash
    assert hash.matches(b"open")
    assert not hash.matches(b"Open")
    assert Hash.of(b"open", log_n=4, parallel=1).digest != hash.digest
    assert "open" not in repr(quick("a", "read", "open"))
    assert str(hash) not in repr(quick("a", "read", "open"))


# The file -----------------------------------------------------------------------------------------


GOOD = str(Hash.of(b"x", log_n=4, parallel=1))


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("alice write", r"line 3: found 2 words"),
        (f"alice writes {GOOD}", "line 3: the second word is not among the rights; write one of "),
        (f"alice write {GOOD[:-8]}", "line 3: the hash is cut or changed"),
        (f"alice write {GOOD} {GOOD}", "line 3: found 4 words"),
        ("alice write plain-password", "line 3: the hash is not scrypt"),
        ("alice write scrypt:24:9999:1:AAAA:AAAA", "line 3: the hash has no good numbers"),
        ("alice write scrypt:24:32:1:AAAA:AAAA", "more than 256 MiB"),
        (f"al/ice write {GOOD}", "line 3: the first word is no name of a user; remove the line"),
        (f"first read {GOOD}", "line 3: first has a line already; remove one of the two"),
        ("alice write \udcff", "line 3: it is no UTF-8"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(tmp_path: Path, line: str, complaint: str) -> None:
    path = tmp_path / "users.txt"
    text = f"# users\nfirst write {GOOD}\n{line}\n"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    path.chmod(0o600)
    with pytest.raises(BadUsers, match=complaint) as caught:
        users.load(path)
    assert "plain-password" not in str(caught.value)
    assert GOOD[-20:] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o660, 0o602])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = users_file(tmp_path)
    path.chmod(mode)
    with pytest.raises(BadUsers, match="chmod 600"):
        users.load(path)
    path.chmod(0o640)
    assert len(users.load(path)) == 3


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(BadUsers, match=r"No such file .*kvstore users add"):
        users.load(tmp_path / "none")


def test_remarks_and_order_are_kept(tmp_path: Path) -> None:
    path = users_file(tmp_path)
    with path.open("a") as file:
        file.write("\n# of the reports\n")
    assert users.put(path, quick("reader", "write"))
    assert not users.put(path, quick("late", "read"))
    users.remove(path, "default")
    assert users.described(users.load(path)) == {"reader": "write", "root": "admin", "late": "read"}
    assert "# of the reports" in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["users.txt"]
    with pytest.raises(BadUsers, match="there is no user 'default'"):
        users.remove(path, "default")


async def test_users_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = users_file(tmp_path)
    async with serving(tmp_path, users=path) as running:
        reader, writer = await connect_as(running, "reader"), await connect_as(running, "default")
        users.remove(path, "reader")
        users.put(path, quick("late", "read"))
        running.server.reload()
        assert await reader.rest() == b""
        assert await ask(writer, b"PING") == b"+PONG\r\n"
        await connect_as(running, "late")
        with path.open("a") as file:
            file.write("damaged\n")
        running.server.reload()
        await connect_as(running, "late")
        assert running.server.counted["users_reload_failed"] == 1
        assert "line 5: found 1 words" in caplog.text
        path.write_text(path.read_text().replace("damaged\n", ""))
        users.put(path, quick("default", "read"))
        running.server.reload()
        assert await writer.rest() == b""  # its rights are others now


# Secrets ------------------------------------------------------------------------------------------


async def test_passwords_turn_up_nowhere(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """Right, wrong and misplaced ones; then everything that can be read is searched."""
    caplog.set_level(logging.DEBUG)
    async with serving(tmp_path, users=users_file(tmp_path)) as running:
        root = await connect_as(running, "root")
        assert await ask(root, b"CONFIG", b"SET", b"slowlog-log-slower-than", b"0") == b"+OK\r\n"
        looking = await connect_as(running, "root")
        assert await ask(looking, b"MONITOR") == b"+OK\r\n"
        secret = SECRET.encode()
        other = await running.connect()
        await other.send(
            pack(b"AUTH", secret) + pack(b"auth", b"reader", secret) + pack(b"AUTH", b"a", b"b",
            secret) + pack(b"HELLO", b"3", b"AUTH", b"root", secret) + auth("reader")
            + pack(b"HELLO", b"3", b"auth", secret) + pack(b"MULTI") + auth("root")
            + pack(b"DISCARD") + pack(b"QUIT")
        )  # fmt: skip
        await other.rest()
        await root.send(pack(b"CONFIG", b"SET", b"requirepass", secret) + auth("default"))
        assert (await root.line()).startswith(b"-ERR CONFIG SET failed")
        await root.expect(b"+OK\r\n")
        root = await connect_as(running, "root")
        said = []
        for words in ((b"SLOWLOG", b"GET", b"-1"), (b"CLIENT", b"LIST"), (b"INFO",),
                      (b"CONFIG", b"GET", b"*"), (b"ACL", b"USERS"),
                      (b"CLIENT", b"INFO")):  # fmt: skip
            await root.send(pack(*words) + pack(b"ECHO", b"the end"))
            said.append(await root.rest_of(b"the end\r\n"))
        await looking.send(pack(b"RESET"))
        said.append(await looking.rest_of(b"RESET\r\n"))
        said.append(repr(list(store_families(running.server))).encode())
        assert b"(redacted)" in said[0]
        assert b"slowlog" in said[-2].lower()  # it did look on
    said += [caplog.text.encode(), *(part.encode() for part in capfd.readouterr())]
    said += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    for text in said:
        assert SECRET.encode() not in text


# Clients ------------------------------------------------------------------------------------------


async def test_redis_py_authenticates(guarded: Running) -> None:
    def use() -> object:
        with redis.Redis(
            port=guarded.server.port, username="default", password=password_of("default")
        ) as client:
            client.set("a", "1")
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()
        once = Retry(NoBackoff(), 0)
        for protocol in (2, 3):
            with redis.Redis(
                port=guarded.server.port, password="wrong", retry=once, protocol=protocol
            ) as client, pytest.raises(redis.exceptions.AuthenticationError):  # fmt: skip
                client.get("a")
        with (
            redis.Redis(port=guarded.server.port, retry=once) as client,
            pytest.raises(redis.exceptions.AuthenticationError),
        ):
            client.get("a")
        return True

    assert await trio.to_thread.run_sync(use)


@pytest.mark.parametrize("protocol", [2, 3])
async def test_our_client_authenticates(guarded: Running, protocol: int) -> None:
    address = ("127.0.0.1", guarded.server.port)
    async with Client(
        [address], username="default", password=password_of("default"), name="me",
        protocol=protocol,  # type: ignore[arg-type]  # it is one of the two
    ) as client:  # fmt: skip
        assert await client.set("a", "1")
        assert await client.get("a") == b"1"
        with pytest.raises(ErrorReply, match="NOPERM"):
            await client.execute("FLUSHALL")
    assert password_of("default") not in repr(client._connections._greeting)


async def test_our_client_gives_up_when_no_node_lets_it_in(guarded: Running) -> None:
    """It does not go on guessing until its limit."""
    address = ("127.0.0.1", guarded.server.port)
    for options in ({"password": "wrong"}, {}):
        with pytest.raises(ErrorReply, match=r"WRONGPASS|NOAUTH"):
            async with Client([address], limit_s=600, **options):  # type: ignore[arg-type]  # a text
                raise AssertionError
    assert guarded.server.counted["authentications_failed"] == 1


async def test_a_client_that_goes_away_while_its_password_is_checked(guarded: Running) -> None:
    access = guarded.server.logins.access
    assert access is not None
    access._threads.acquire_nowait()
    talker = await guarded.connect()
    await talker.send(auth("root"))
    while not access._waiting:
        await trio.sleep(0.001)
    talker.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    await talker.stream.aclose()
    while guarded.server.connected:
        await trio.sleep(0.001)
    access._threads.release()
    await connect_as(guarded, "root")
