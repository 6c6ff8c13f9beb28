"""Connecting takes two round trips at most, whoever claims what; and what that rests on is safe."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
import trio

from p4xos.chunnels import (
    Chunnel,
    Context,
    Messages,
    Runtime,
    Wire,
    connecting,
    datagrams,
    endpoint,
    layer,
    local_or_remote,
    passes,
)
from p4xos.chunnels.discovery.book import Book, Hold
from p4xos.chunnels.discovery.client import Claims, Discovery
from p4xos.chunnels.discovery.service import Service
from p4xos.chunnels.implementations import Carrier, Ends, Serving
from p4xos.chunnels.negotiation import Admitted
from p4xos.chunnels.passes import Guard
from p4xos.chunnels.stack import Layer
from tests.chunnels.messages import ANYWHERE, echo, patiently

ONE: Chunnel[bytes, bytes] = layer("one")
TWO: Chunnel[bytes, bytes] = layer("two")
KEY, NONCE, OFFER = b"k" * 32, b"n" * 16, b"an offer"


@asynccontextmanager
async def plain(below: Messages[bytes], context: Context) -> AsyncIterator[Messages[bytes]]:
    yield below


def able(path: Path, *taking: str) -> Runtime:
    """Runs the layers "one" (by its client) and "two" (by its server), some with resources."""
    runtime = Runtime(discovery=path)
    for type, ends in (("one", Ends.CLIENT), ("two", Ends.SERVER)):
        runtime.implementation(type, "soft", ends=ends)(plain)
        if type in taking:
            runtime.implementation(
                type, "card", ends=ends, priority=9, resources={f"{type}.slots": 1}
            )(plain)
    return runtime


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await trio.sleep(0.01)


@asynccontextmanager
async def world(path: Path, *stack: Chunnel[bytes, bytes]) -> AsyncIterator[Service]:
    """A service with room for one of each."""
    service = Service(path, capacities={"one.slots": 1, "two.slots": 1})
    async with patiently(), trio.open_nursery() as nursery:
        await nursery.start(service.run)
        yield service
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("wire", [datagrams(), local_or_remote()], ids=["udp", "near"])
@pytest.mark.parametrize("watched", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("taking", [(), ("one",), ("two",), ("one", "two")])
async def test_two_round_trips_are_enough(
    tmp_path: Path, taking: tuple[str, ...], named: bool, watched: bool,
    wire: Chunnel[bytes, Wire],
) -> None:  # fmt: skip
    path = tmp_path / "d.sock"
    stack = ONE | TWO | wire
    serving = able(path, *taking)
    server = endpoint("kv", stack, runtime=serving)
    async with (
        world(path) as service,
        server.serving(echo, ANYWHERE, announce="kv.prod") as address,
        AsyncExitStack() as watching,
    ):
        runtime = able(path, *taking)
        assert runtime.discovery is not None
        if watched:
            await watching.enter_async_context(runtime)
        for _ in range(2):
            # The server's own picture is as old as its news, and the client asks again.
            await until(lambda: set(serving.at_hand().free.amounts.values()) == {1})
            runtime.discovery._seen = None
            client = endpoint("c", stack, runtime=runtime)
            async with client.connect("kv.prod" if named else address) as connection:
                assert 1 <= connection.round_trips <= 2
                for each in ("one", "two"):
                    wanted = "card" if each in taking else "soft"
                    assert connection.explain().implementation(each) == wanted
                    await until(
                        lambda each=each: service.book.free()[f"{each}.slots"]  # type: ignore[misc]
                        == (each not in taking)
                    )
                await connection.send(b"x")
                assert await connection.receive() == b"x"
            await until(lambda: set(service.book.free().values()) == {1})


async def test_what_was_reserved_and_is_not_needed_is_given_back(tmp_path: Path) -> None:
    """The server knows no card: the client's reservation ends while the connection lasts."""
    path = tmp_path / "d.sock"
    stack = ONE | datagrams()
    server = Runtime(discovery=path)
    server.implementation("one", "soft", ends=Ends.SERVER, priority=1)(plain)
    server.policy = lambda candidates: [e for e in candidates if e.name != "card"]
    async with (
        world(path) as service,
        endpoint("kv", stack, runtime=server).serving(echo, ANYWHERE, announce="kv"),
        endpoint("c", stack, runtime=able(path, "one")).connect("kv") as connection,
    ):
        assert connection.explain().implementation("one") == "soft"
        await until(lambda: service.book.free()["one.slots"] == 1)


async def test_a_reservation_is_waited_for_and_not_taken_for_a_claim(tmp_path: Path) -> None:
    """Who comes while somebody only asks gets what that one does not take."""
    path = tmp_path / "d.sock"
    async with world(path) as service:
        first, second = Claims(Discovery(path)), Claims(Discovery(path))
        view = await first.look([{"one.slots": 1}])
        assert view.free.amounts["one.slots"] == 1
        assert service.book.free()["one.slots"] == 0
        async with trio.open_nursery() as nursery:
            nursery.start_soon(second.take, {"one.slots": 1})
            await until(lambda: service.counters["requests"] == 2)
            await first.take({})
        assert service.book.free()["one.slots"] == 0
        await first.give_back()
        assert service.book.free()["one.slots"] == 0
        await second.give_back()
        await until(lambda: service.book.free()["one.slots"] == 1)


async def test_a_reservation_that_nobody_settles_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client whose server is silent holds nothing until its deadline."""
    path = tmp_path / "d.sock"
    monkeypatch.setattr("p4xos.chunnels.connecting.RESERVED_S", 0.01)
    async with world(path) as service, trio.open_nursery() as nursery:
        stack = ONE | datagrams()
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as silent:
            await silent.bind(ANYWHERE)

            async def connect() -> None:
                to = silent.getsockname()
                async with endpoint("c", stack, runtime=able(path, "one")).connect(to, timeout=60):
                    pass

            nursery.start_soon(connect)
            await until(lambda: service.counters["requests"] == 1)
            await until(lambda: service.book.free()["one.slots"] == 1)
            nursery.cancel_scope.cancel()


def test_the_picture_shows_what_is_only_reserved_as_free() -> None:
    book = Book({"slots": 2})
    lease = book.hold(Hold("claim", 1.0, None, {"resources": {"slots": 2}}, reserved=True))
    assert book.free() == {"slots": 0}
    assert book.picture()["free"] == {"slots": 2}
    book.settle(lease, {"slots": 1})
    assert book.free() == book.picture()["free"] == {"slots": 1}


# What takes long at the server -------------------------------------------------------------------


def admitting(path: Path, seen: list[bool], *, wants: bool = False) -> Runtime:
    """Runs "two" at its server, with something to be done before a connection's first message."""
    runtime = Runtime(discovery=path)

    @asynccontextmanager
    async def admit(
        carrier: Carrier, admitted: Admitted, opened: Mapping[str, object]
    ) -> AsyncIterator[None]:
        if wants:
            await carrier.messages()
        seen.append(True)
        yield
        seen.append(False)

    @asynccontextmanager
    async def listen(serving: Serving, layer: Layer) -> AsyncIterator[Mapping[str, object]]:
        yield {}

    declared = {"ends": Ends.SERVER, "admit": admit, "listen": listen}
    runtime.implementation("two", "card", resources={"two.slots": 1}, **declared)(plain)
    return runtime


@pytest.mark.parametrize(
    ("wire", "wants", "round_trips"),
    [(datagrams(), True, 2), (local_or_remote(), False, 2), (local_or_remote(), True, 3)],
)
async def test_what_must_be_done_first_is_done_before_the_answer(
    tmp_path: Path, wire: Chunnel[bytes, Wire], wants: bool, round_trips: int
) -> None:
    path, seen = tmp_path / "d.sock", list[bool]()
    stack = TWO | wire
    server = endpoint("kv", stack, runtime=admitting(path, seen, wants=wants))
    async with world(path), server.serving(echo, ANYWHERE, announce="kv"):
        async with endpoint("c", stack, runtime=able(path)).connect("kv") as connection:
            assert seen == [True]
            assert connection.round_trips == round_trips
            await connection.send(b"x")
            assert await connection.receive() == b"x"
        await until(lambda: seen == [True, False])


async def test_a_client_is_answered_when_its_server_takes_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waits then for what is not claimed yet, and does not take the server for dead."""
    path = tmp_path / "d.sock"
    monkeypatch.setattr("p4xos.chunnels.arrivals.LONG_S", 0.0)
    monkeypatch.setattr("p4xos.chunnels.discovery.service.UNSETTLED_S", 60.0)
    stack = TWO | datagrams()
    async with world(path) as service:
        server = endpoint("kv", stack, runtime=able(path, "two"))
        other = Claims(Discovery(path))
        async with server.serving(echo, ANYWHERE, announce="kv"), trio.open_nursery() as nursery:
            await other.look([{"two.slots": 1}])
            requests = service.counters["requests"]

            async def connect() -> None:
                async with endpoint("c", stack, runtime=able(path)).connect("kv") as connection:
                    assert connection.explain().implementation("two") == "card"
                    assert connection.round_trips == 3
                    assert service.book.free()["two.slots"] == 0

            nursery.start_soon(connect)
            await until(lambda: service.counters["requests"] == requests + 2)
            await other.give_back()


async def test_who_was_answered_and_then_finds_no_room_connects_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.sock"
    monkeypatch.setattr("p4xos.chunnels.arrivals.LONG_S", 0.0)
    monkeypatch.setattr("p4xos.chunnels.discovery.service.UNSETTLED_S", 60.0)
    stack = TWO | datagrams()
    async with world(path) as service:
        server = endpoint("kv", stack, runtime=able(path, "two"))
        other = Claims(Discovery(path))
        async with server.serving(echo, ANYWHERE, announce="kv"), trio.open_nursery() as nursery:
            await other.look([{"two.slots": 1}])
            requests = service.counters["requests"]

            async def connect() -> None:
                client = able(path)
                async with endpoint("c", stack, runtime=client).connect("kv") as connection:
                    assert connection.explain().implementation("two") == "soft"
                    assert client.counters["retries"] >= 1

            nursery.start_soon(connect)
            await until(lambda: service.counters["requests"] == requests + 2)
            await other.take({"two.slots": 1})
        await other.give_back()


# Passes ------------------------------------------------------------------------------------------


def test_a_pass_is_good_once_for_its_offer_while_it_is_fresh() -> None:
    guard = Guard()
    made = passes.make(KEY, NONCE, OFFER, 100.0)
    assert not guard.take_untrusted(made, KEY, NONCE, b"another offer", 100.0)
    assert not guard.take_untrusted(made, KEY, b"m" * 16, OFFER, 100.0)
    assert not guard.take_untrusted(made, b"o" * 32, NONCE, OFFER, 100.0)
    assert not guard.take_untrusted(made, b"", NONCE, OFFER, 100.0)
    assert not guard.take_untrusted(made, KEY, NONCE, OFFER, 100.0 + passes.PASS_S + 0.1)
    assert not guard.take_untrusted(made, KEY, NONCE, OFFER, 100.0 - 2 * passes.PASS_S)
    assert guard.take_untrusted(made, KEY, NONCE, OFFER, 101.0)
    assert not guard.take_untrusted(made, KEY, NONCE, OFFER, 101.0)
    assert guard.counters["forged_passes"] == 4
    assert guard.counters["stale_passes"] == 3
    # It is remembered until it is worth nothing anyway.
    later = passes.make(KEY, b"l" * 16, OFFER, 120.0)
    assert guard.take_untrusted(later, KEY, b"l" * 16, OFFER, 120.0)
    assert guard.remembered == 1


def test_without_the_key_nothing_is_a_pass() -> None:
    guard = Guard()
    empty = passes.make(b"", NONCE, OFFER, 0.0)
    assert empty == b""
    assert not guard.take_untrusted(empty, b"", NONCE, OFFER, 0.0)
    assert not guard.take_untrusted(b"x" * 24, b"", NONCE, OFFER, 0.0)


async def test_who_has_no_pass_makes_the_server_claim_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offers that are forged, or said again from elsewhere, are answered, and take nothing."""
    path = tmp_path / "d.sock"
    stack = TWO | datagrams()
    sent: list[bytes] = []

    class Overheard(socket.socket):
        def send(self, data: bytes, *flags: int) -> int:  # type: ignore[override]  # of this test
            sent.append(bytes(data))
            return super().send(data, *flags)

    monkeypatch.setattr("p4xos.chunnels.connecting.socket.socket", Overheard)
    async with (
        world(path) as service,
        endpoint("kv", stack, runtime=able(path, "two")).serving(
            echo, ANYWHERE, announce="kv"
        ) as address,
        Runtime(discovery=path) as watching,
    ):
        async with endpoint("c", stack, runtime=watching).connect("kv") as connection:
            assert connection.explain().implementation("two") == "card"
            assert service.book.free()["two.slots"] == 0
        await until(lambda: service.book.free()["two.slots"] == 1)
        (overheard,) = [data for data in sent if data[:1] == b"\xb1"]
        with trio.socket.socket(type=trio.socket.SOCK_DGRAM) as stranger:
            await stranger.connect(address)
            for data in (overheard, overheard.replace(b"two", b"one")):
                requests = service.counters["requests"]
                await stranger.send(data)
                assert (await stranger.recv(65535))[:1] in b"\xb2\xb3"
                assert service.counters["requests"] == requests
                assert service.book.free()["two.slots"] == 1


async def test_a_client_that_goes_before_it_comes_gives_back_what_was_prepared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "d.sock"
    monkeypatch.setattr("p4xos.chunnels.negotiation.PREPARED_S", 0.05)
    stack = TWO | datagrams()

    def going(*arguments: object) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(connecting, "ClientCarrier", going)
    async with world(path) as service:
        server = endpoint("kv", stack, runtime=able(path, "two"))
        async with server.serving(echo, ANYWHERE, announce="kv"):
            with pytest.raises(KeyError):
                async with endpoint("c", stack, runtime=able(path)).connect("kv"):
                    pass
            await until(lambda: service.book.free()["two.slots"] == 1)
            monkeypatch.undo()
            async with endpoint("c", stack, runtime=able(path)).connect("kv") as connection:
                assert connection.explain().implementation("two") == "card"


async def test_a_server_that_finds_no_room_chooses_again_before_it_answers(
    tmp_path: Path,
) -> None:
    """It takes no further round trip that somebody else was faster."""
    path = tmp_path / "d.sock"
    stack = TWO | datagrams()
    async with world(path) as service:
        server = endpoint("kv", stack, runtime=able(path, "two"))
        async with server.serving(echo, ANYWHERE, announce="kv"):
            # Taken behind the back of the service's watchers: the picture still shows it free.
            service.book.holds["x"] = Hold("claim", 1.0, None, {"resources": {"two.slots": 1}})
            client = able(path)
            async with endpoint("c", stack, runtime=client).connect("kv") as connection:
                assert connection.explain().implementation("two") == "soft"
            assert client.counters["retries"] == 0


async def test_the_key_is_new_with_each_service_and_told_to_nobody_by_the_verb(
    tmp_path: Path,
) -> None:
    keys = []
    for _ in range(2):
        async with world(tmp_path / "d.sock"):
            view = await Discovery(tmp_path / "d.sock").picture()
            keys.append(view.key)
            assert repr(view.key) not in repr(view)
    assert len(set(keys)) == 2
    assert [len(key) for key in keys] == [passes.KEY_BYTES] * 2
