"""The discovery service: leases, watching, capacities, the reaper; and life without it."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import trio

from p4xos.chunnels import (
    Busy,
    Chunnel,
    Context,
    Messages,
    Runtime,
    anycast,
    datagrams,
    endpoint,
    layer,
    local_or_remote,
    reliable,
    serialize,
)
from p4xos.chunnels.discovery import VERSION
from p4xos.chunnels.discovery import book as book_module
from p4xos.chunnels.discovery.book import Book, Hold
from p4xos.chunnels.discovery.client import Discovery
from p4xos.chunnels.discovery.service import InUse, Service
from p4xos.chunnels.implementations import Implementation, implementation
from p4xos.cli import main
from p4xos.errors import BadPacket
from p4xos.framing import FrameStream
from tests.chunnels.messages import ANYWHERE, Op, echo, patiently

STACK = serialize(Op) | reliable() | local_or_remote()
OP = Op("put", "a")
POLL_S = 0.01


async def until(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while not condition():
            await trio.sleep(POLL_S)


# What it knows -----------------------------------------------------------------------------------


def implementation_hold(ttl_s: float = 1.0, **capacities: int) -> Hold:
    data = {"type": "crypt", "name": "card", "parameters": {}, "capacities": capacities}
    return Hold("implementation", ttl_s, ttl_s, data, ["true"])


def claim(**resources: int) -> Hold:
    return Hold("claim", 1.0, None, {"resources": resources})


def test_a_lease_that_is_not_renewed_ends() -> None:
    book = Book()
    lease = book.hold(implementation_hold(1.0))
    assert book.deadline() == 1.0
    assert book.renew(lease, 0.9)
    assert book.expire(1.5) == []
    (ended,) = book.expire(1.9)
    assert ended.teardown == ["true"]
    assert not book.renew(lease, 2.0)
    assert book.deadline() is None


def test_claims_take_what_is_there_and_give_it_back() -> None:
    book = Book({"stages": 3})
    book.hold(implementation_hold(slots=2))
    assert book.free() == {"stages": 3, "slots": 2}
    first = book.hold(claim(slots=1, stages=3))
    with pytest.raises(Busy, match="0 of stages are free and 1 are wanted"):
        book.hold(claim(slots=1, stages=1))
    assert book.free() == {"stages": 0, "slots": 1}
    book.lost([first])
    assert book.free() == {"stages": 3, "slots": 2}


def test_a_registration_that_ends_takes_its_capacity_with_it() -> None:
    book = Book()
    book.hold(implementation_hold(1.0, slots=1))
    book.hold(claim(slots=1))
    book.expire(2.0)
    assert book.free()["slots"] == -1
    with pytest.raises(Busy):
        book.hold(claim(slots=1))


def test_what_must_last_survives_a_restart() -> None:
    before, after = Book(), Book()
    lease = before.hold(implementation_hold(2.0))
    before.hold(claim())
    after.restore(before.lasting(), now=100.0)
    assert list(after.holds) == [lease]
    assert after.expire(101.9) == []
    assert len(after.expire(102.1)) == 1


# A service in this process -----------------------------------------------------------------------


@asynccontextmanager
async def serving(path: Path, capacities: dict[str, int] | None = None) -> AsyncIterator[Service]:
    service = Service(path, capacities=capacities)
    async with patiently(), trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield service
        nursery.cancel_scope.cancel()


async def test_a_name_is_found_while_its_server_runs(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    async with serving(path) as service:
        ours, theirs = Runtime(discovery=path), Runtime(discovery=path)
        kv = endpoint("kv", STACK, runtime=theirs)
        async with (
            kv.serving(echo, ANYWHERE, announce="kv.prod"),
            endpoint("c", STACK, runtime=ours).connect("kv.prod") as connection,
        ):
            await connection.send(OP)
            assert await connection.receive() == OP
        assert service.book.picture()["names"] == {}
    assert not path.exists()


async def test_who_watches_need_not_ask(tmp_path: Path) -> None:
    """Two extra round trips at most: one to discovery, none when watching, one to the server."""
    path = tmp_path / "d.sock"
    async with serving(path):
        server = endpoint("kv", STACK, runtime=Runtime(discovery=path))
        async with server.serving(echo, ANYWHERE, announce="kv.prod"):
            alone = Runtime(discovery=path)
            async with endpoint("c", STACK, runtime=alone).connect("kv.prod"):
                assert alone.discovery is not None
                assert alone.discovery.asked == 1
            async with Runtime(discovery=path) as watching:
                assert watching.discovery is not None
                before = watching.discovery.asked
                for _ in range(3):
                    async with endpoint("c", STACK, runtime=watching).connect("kv.prod"):
                        pass
                assert watching.discovery.asked == before


async def test_what_needs_no_discovery_asks_none(tmp_path: Path) -> None:
    """An address, and layers of which nothing must be registered: one round trip, to the server."""
    path = tmp_path / "d.sock"
    async with (
        serving(path) as service,
        endpoint("kv", STACK, runtime=Runtime(discovery=path)).serving(echo, ANYWHERE) as address,
    ):
        for to in (address, [address], f"{address[0]}:{address[1]}"):
            asked = service.counters["requests"]
            async with endpoint("c", STACK, runtime=crypting(path)).connect(to) as connection:
                await connection.send(OP)
                assert await connection.receive() == OP
            assert service.counters["requests"] == asked
        # Of one that takes the server's layers all that it has may matter.
        thin = crypting(path)
        async with endpoint("thin", runtime=thin).connect(address):
            assert thin.discovery is not None
            assert thin.discovery.asked == 1


async def test_anycast_takes_a_nearer_server_when_it_appears(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    stack = serialize(Op) | reliable() | anycast() | local_or_remote()
    async with serving(path), Runtime(discovery=path) as client:

        async def chosen() -> str:
            async with endpoint("c", stack, runtime=client).connect("kv.prod") as connection:
                await connection.send(OP)
                await connection.receive()
                return connection.explain().implementation("transport")

        far, near = Runtime(discovery=path), Runtime(discovery=path)
        far.place = far.place._replace(host="far")
        async with endpoint("far", STACK, runtime=far).serving(
            echo, ANYWHERE, announce="kv.prod"
        ):
            assert await chosen() == "udp"
            async with endpoint("near", STACK, runtime=near).serving(
                echo, ANYWHERE, announce="kv.prod"
            ):
                assert client.discovery is not None
                discovery = client.discovery
                await until(lambda: len((discovery.newest or NONE).names["kv.prod"]) == 2)
                assert await chosen() == "unix"
            await until(lambda: len((discovery.newest or NONE).names["kv.prod"]) == 1)
            assert await chosen() == "udp"


NONE = type("None", (), {"names": {"kv.prod": ()}})()


# Accelerated implementations, and room for one ---------------------------------------------------


def card(slots: int = 1) -> Implementation:
    @implementation(
        "crypt", "card", priority=9, when_registered=True, resources={"card.slots": slots}
    )
    @asynccontextmanager
    async def wrap(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
        assert context.registration == {"device": "card0"}
        yield below

    return wrap


def soft() -> Implementation:
    @implementation("crypt", "soft", priority=1)
    @asynccontextmanager
    async def wrap(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
        yield below

    return wrap


def crypting(path: Path) -> Runtime:
    runtime = Runtime(discovery=path)
    runtime.register(card(), soft())
    return runtime


CRYPT: Chunnel[bytes, bytes] = layer("crypt")


async def test_two_programs_and_room_for_one(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    stack = CRYPT | datagrams()
    async with serving(path) as service:
        owner = Runtime(discovery=path)
        # Each connection takes a slot at both of its ends.
        async with (
            owner.registered(
                "crypt", "card", parameters={"device": "card0"}, capacities={"card.slots": 2}
            ),
            endpoint("kv", stack, runtime=crypting(path)).serving(echo, ANYWHERE) as address,
        ):

            async def runs(runtime: Runtime, hold: trio.Event | None = None) -> str:
                async with endpoint("c", stack, runtime=runtime).connect(address) as connection:
                    await connection.send(b"x")
                    assert await connection.receive() == b"x"
                    if hold is not None:
                        started.set()
                        await hold.wait()
                    return connection.explain().implementation("crypt")

            found: list[str] = []
            started, release = trio.Event(), trio.Event()
            async with trio.open_nursery() as nursery:

                async def first() -> None:
                    found.append(await runs(crypting(path), release))

                nursery.start_soon(first)
                await started.wait()
                found.append(await runs(crypting(path)))
                release.set()
            assert found == ["soft", "card"]
            await until(lambda: service.book.free()["card.slots"] == 2)
            assert await runs(crypting(path)) == "card"
        await until(lambda: "card.slots" not in service.book.free())


async def test_two_at_once_never_share_the_one_slot(tmp_path: Path) -> None:
    """Whoever claims second finds out before any message is sent, and takes the fallback."""
    path = tmp_path / "d.sock"
    stack = CRYPT | datagrams()
    async with serving(path) as service:
        owner = Runtime(discovery=path)
        async with (
            owner.registered(
                "crypt", "card", parameters={"device": "card0"}, capacities={"card.slots": 2}
            ),
            endpoint("kv", stack, runtime=crypting(path)).serving(echo, ANYWHERE) as address,
        ):
            found: list[str] = []
            everyone = trio.Event()

            async def one() -> None:
                own = crypting(path)
                async with endpoint("c", stack, runtime=own).connect(address) as connection:
                    found.append(connection.explain().implementation("crypt"))
                    assert service.book.free()["card.slots"] >= 0
                    if len(found) == 6:
                        everyone.set()
                    await everyone.wait()

            async with trio.open_nursery() as nursery:
                for _ in range(6):
                    nursery.start_soon(one)
            assert found.count("card") <= 1
            assert len(found) == 6


async def test_layers_that_take_resources_claim_them_at_once(tmp_path: Path) -> None:
    """One round trip at each end, however many there are; a full one names what is left out."""
    path = tmp_path / "d.sock"

    def able() -> Runtime:
        runtime = Runtime(discovery=path)
        for k, name in enumerate(("one", "two")):
            for priority, resources in ((1, {}), (9, {"slots": 1 + k, f"{name}.slots": 1})):

                @runtime.implementation(
                    name, f"{name}-{priority}", priority=priority, resources=resources
                )
                @asynccontextmanager
                async def wrap(
                    below: Messages[bytes], context: Context
                ) -> AsyncIterator[Messages[bytes]]:
                    yield below

        return runtime

    one: Chunnel[bytes, bytes] = layer("one")
    two: Chunnel[bytes, bytes] = layer("two")
    stack = one | two | datagrams()
    capacities = {"slots": 6, "one.slots": 2, "two.slots": 4}
    async with serving(path, capacities) as service:
        server = endpoint("kv", stack, runtime=able())
        async with server.serving(echo, ANYWHERE) as address:
            before = service.counters["requests"]
            async with endpoint("c", stack, runtime=able()).connect(address) as connection:
                assert connection.explain().implementation("one") == "one-9"
                assert connection.explain().implementation("two") == "two-9"
                assert service.counters["requests"] - before == 2
                assert service.book.free() == {"slots": 0, "one.slots": 0, "two.slots": 2}
                async with endpoint("c", stack, runtime=able()).connect(address) as second:
                    assert second.explain().implementation("one") == "one-1"
                    assert second.explain().implementation("two") == "two-1"
            await until(lambda: service.book.free() == capacities)


# Its death, and that of others -------------------------------------------------------------------


def start_service(path: Path) -> subprocess.Popen[bytes]:
    started = subprocess.Popen(
        [sys.executable, "-m", "p4xos", "discovery", "--socket", str(path)],
        stderr=subprocess.DEVNULL,
    )
    while True:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
                return started
            except (FileNotFoundError, ConnectionRefusedError):
                assert started.poll() is None


OWNER = """
import sys, trio
from p4xos.chunnels import Runtime

async def main():
    runtime = Runtime(discovery=sys.argv[1])
    async with runtime.registered(
        "crypt", "card", parameters={"device": "card0"}, capacities={"card.slots": 2},
        teardown=["touch", sys.argv[2]], ttl_s=0.3,
    ):
        print("held", flush=True)
        await trio.sleep_forever()

trio.run(main)
"""


async def test_an_owner_that_is_killed_is_torn_down_by_the_service(tmp_path: Path) -> None:
    path, mark = tmp_path / "d.sock", tmp_path / "torn-down"
    async with serving(path) as service:
        owner = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(OWNER), str(path), str(mark)],
            stdout=subprocess.PIPE,
        )
        try:
            assert owner.stdout is not None
            assert await trio.to_thread.run_sync(owner.stdout.readline) == b"held\n"
            assert service.book.free() == {"card.slots": 2}
            assert not mark.exists()
        finally:
            owner.kill()
            await trio.to_thread.run_sync(owner.wait)
            assert owner.stdout is not None
            owner.stdout.close()
        await until(mark.exists)
        assert service.book.holds == {}
        await until(lambda: service.counters["teardowns"] == 1)
        assert service.counters["failed_teardowns"] == 0


async def test_everything_works_on_fallbacks_when_it_is_down(tmp_path: Path) -> None:
    path = tmp_path / "nobody.sock"
    stack = CRYPT | local_or_remote()
    async with (
        patiently(),
        endpoint("kv", stack, runtime=crypting(path)).serving(echo, ANYWHERE) as address,
        endpoint("c", stack, runtime=crypting(path)).connect(address) as connection,
    ):
        await connection.send(b"x")
        assert await connection.receive() == b"x"
        assert connection.explain().implementation("crypt") == "soft"


async def test_killed_in_the_middle_of_connecting(tmp_path: Path) -> None:
    """Connections begin before, through and after its death, and again when it is back."""
    path = tmp_path / "d.sock"
    service = await trio.to_thread.run_sync(start_service, path)
    try:
        server = endpoint("kv", CRYPT | local_or_remote(), runtime=crypting(path))
        async with patiently(), server.serving(echo, ANYWHERE, announce="kv.prod") as address:
            made = 0
            killed = trio.Event()

            async def connect_again_and_again() -> None:
                nonlocal made
                client = endpoint("c", CRYPT | local_or_remote(), runtime=crypting(path))
                after = 0
                while after < 5:
                    async with client.connect(address) as connection:
                        await connection.send(b"x")
                        assert await connection.receive() == b"x"
                        made += 1
                        after += killed.is_set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(connect_again_and_again)
                await until(lambda: made >= 3)
                service.send_signal(signal.SIGKILL)
                await trio.to_thread.run_sync(service.wait)
                killed.set()
            service = await trio.to_thread.run_sync(start_service, path)
            again = Discovery(path)
            with trio.fail_after(30):
                while "kv.prod" not in (await again.look()).names:
                    await trio.sleep(POLL_S)  # the server announces itself anew
    finally:
        service.kill()
        service.wait()


async def test_a_second_service_is_refused_and_a_dead_ones_socket_is_taken(
    tmp_path: Path,
) -> None:
    path = tmp_path / "d.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(path))
    async with serving(path):
        with pytest.raises(InUse, match="runs there already"):
            await Service(path).run()
        assert path.stat().st_mode & 0o777 == 0o600


async def test_garbage_closes_its_connection_only(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    async with serving(path) as service:
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xc1" * 64, b"\0\0\0\1\0\0\0\0\xc0"):
            async with await trio.open_unix_socket(str(path)) as stream:
                await stream.send_all(data)
                assert await stream.receive_some(10) == b""
        for head in (
            {"ask": "dance"}, {"ask": "hold"}, {"ask": "hold", "kind": "claim", "ttl_ms": 0},
            {"ask": "hold", "kind": "claim", "ttl_ms": 100, "data": {"resources": {"a": -1}}},
            {"ask": "renew", "leases": 3}, {"ask": "release"},
            {"ask": "look", "reserve": 3}, {"ask": "look", "reserve": [{"slots": -1}]},
            {"ask": "look", "reserve": [{}] * 65}, {"ask": "settle"},
            {"ask": "settle", "lease": "of nobody", "resources": {}},
            {"ask": "hold", "kind": "instance", "ttl_ms": 100, "data": []},
        ):  # fmt: skip
            frames = FrameStream(await trio.open_unix_socket(str(path)))
            frames.post({"version": VERSION, **head})
            await frames.flush()
            assert await frames.receive_untrusted() is None
            await frames.aclose()
        assert service.counters["bad_frames"] == 15
        assert (await Discovery(path).look()).note == ""


async def test_what_one_holds_keeps_no_other_from_looking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Pictures that no frame has room for, words that no program takes: each ended the service."""
    monkeypatch.setattr(book_module, "HELD_BYTES_MAX", 50_000)
    path = tmp_path / "d.sock"
    async with serving(path) as service:

        async def ask(**head: object) -> dict[str, object]:
            stream = await trio.open_unix_socket(str(path))
            kept.append(stream)
            frames = FrameStream(stream)
            frames.post({"version": VERSION, **head})
            await frames.flush()
            found = await frames.receive_untrusted()
            assert found is not None
            return found.head

        kept: list[trio.SocketStream] = []
        data = {"type": "crypt", "name": "card", "parameters": {}, "capacities": {}}
        large = {**data, "parameters": {str(k): "y" * 120 for k in range(200)}}
        refused = False
        for _ in range(3):
            answer = await ask(ask="hold", kind="implementation", ttl_ms=60_000, data=large)
            refused = refused or "error" in answer
        assert refused
        assert "lease" in await ask(ask="look")
        stream = await trio.open_unix_socket(str(path))
        frames = FrameStream(stream)
        frames.post(
            {"version": VERSION, "ask": "hold", "kind": "implementation", "ttl_ms": 10,
             "data": data, "teardown": ["true", "a\0b"]}
        )  # fmt: skip
        await frames.flush()
        with suppress(BadPacket, trio.BrokenResourceError):
            assert await frames.receive_untrusted() is None
        monkeypatch.setattr(service.book, "picture", lambda: {"wrong": object()})
        with pytest.raises((AssertionError, BadPacket, trio.BrokenResourceError)):
            await ask(ask="look")
        assert service.counters["failed_connections"] == 1
        assert "a connection failed" in caplog.text
        monkeypatch.undo()
        assert "lease" in await ask(ask="look")
        for each in (*kept, stream):
            await each.aclose()


async def test_a_teardown_that_fails_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "d.sock"
    async with serving(path) as service:
        for command in (["false"], [str(tmp_path / "no-such-program")]):
            hold = implementation_hold(0.01)
            hold.teardown = command
            hold.expires_at = trio.current_time()
            service.book.hold(hold)
        service._tell()
        await until(lambda: service.counters["failed_teardowns"] == 2)
    assert "run it by hand" in caplog.text


async def test_registering_needs_a_service() -> None:
    with pytest.raises(ValueError, match="cannot be registered"):
        async with Runtime().registered("crypt", "card"):
            pass
    with pytest.raises(ValueError, match="cannot be announced"):
        async with endpoint("kv", STACK).serving(echo, ANYWHERE, announce="kv"):
            pass




# Its verb ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--show"], 1, "start one (p4xos discovery --socket"),
        (["--capacity", "many"], 2, "write NAME=COUNT, as in card.slots=4"),
        (["--capacity", "slots=-1"], 2, "write NAME=COUNT"),
        (["--capacity", f"slots={1 << 41}"], 2, "at most 1099511627776"),
        (["--capacity", "slots=1", "--capacity", "slots=2"], 2, "slots is given twice"),
        (["--json"], 2, "--json is for --show"),
        (["--state", "/nowhere/at/all"], 1, "/nowhere/at/all"),
    ],
)
def test_the_verb_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    path = tmp_path / "d.sock"
    assert main(["discovery", "--socket", str(path), *words]) == code
    assert said in capsys.readouterr().err


def test_a_socket_that_cannot_be_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "no" / "such" / "d.sock"
    assert main(["discovery", "--socket", str(path)]) == 1
    assert str(path) in capsys.readouterr().err


def test_what_is_no_socket_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    letter = tmp_path / "letter"
    letter.write_text("dear reader")
    for path in (letter, tmp_path):
        assert main(["discovery", "--socket", str(path)]) == 1
        assert f"{path}: there is something else already" in capsys.readouterr().err
    assert letter.read_text() == "dear reader"
    assert main(["discovery", "--socket", str(tmp_path / ("x" * 120))]) == 1
    assert "at most 107 bytes" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"version": 1}', '{"version": 1, "holds": {"x": {"kind": "?"}}}']
)
def test_a_damaged_file_of_what_lasts_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    state = tmp_path / "state"
    state.write_text(text)
    words = ["discovery", "--socket", str(tmp_path / "d.sock"), "--state", str(state)]
    assert main(words) == 1
    told = capsys.readouterr().err
    assert f"{state} does not hold what is to be torn down" in told
    assert state.read_text() == text


async def test_a_disk_that_fails_ends_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.sock"
    async with serving(path) as service:

        def full(self: Path, text: str) -> int:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Path, "write_text", full)
        owner = Runtime(discovery=path)
        async with owner.registered("crypt", "card", teardown=["true"]):
            assert service.counters["not_stored"] == 1
            assert "cannot be written" in caplog.text
            monkeypatch.undo()
            async with owner.registered("crypt", "other", teardown=["true"]):
                assert len(json.loads((tmp_path / "d.sock.state").read_text())["holds"]) == 2


async def test_killed_between_looking_and_claiming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be claimed is not used: the connection begins on what needs no leave."""
    path = tmp_path / "d.sock"
    stack = CRYPT | datagrams()
    async with (
        serving(path) as service, Runtime(discovery=path).registered(
            "crypt", "card", parameters={"device": "card0"}, capacities={"card.slots": 9}
        ),
        endpoint("kv", stack, runtime=crypting(path)).serving(echo, ANYWHERE, announce="kv"),
    ):

        def gone(frame: object, *, trusted: bool) -> Hold:
            raise BadPacket("as if it were killed: its connections end")

        monkeypatch.setattr(service, "_to_hold_untrusted", gone)
        async with endpoint("c", stack, runtime=crypting(path)).connect("kv") as connection:
            await connection.send(b"x")
            assert await connection.receive() == b"x"
            assert connection.explain().implementation("crypt") == "soft"
        monkeypatch.undo()


async def test_the_verb_shows_what_a_running_service_knows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.sock"
    async with serving(path, {"stages": 12}):
        server = endpoint("kv", STACK, runtime=Runtime(discovery=path))
        async with server.serving(echo, ANYWHERE, announce="kv.prod") as (host, port):
            words = ["discovery", "--socket", str(path), "--show", "--json"]
            assert await trio.to_thread.run_sync(main, words) == 0
    assert json.loads(capsys.readouterr().out) == {
        "implementations": {}, "free": {"stages": 12}, "names": {"kv.prod": [f"{host}:{port}"]},
    }  # fmt: skip
