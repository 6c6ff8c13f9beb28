"""The port that a node is watched on: a few pages, and nothing that anybody sends does harm."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

import pytest
import trio
import trio.testing

from p4xos import http
from p4xos.health import STALL_S, Health
from p4xos.http import CONNECTIONS_MAX, REQUEST_BYTES_MAX, REQUEST_S, HttpServer, Page, encode
from p4xos.service import listen
from p4xos.tables import Address

LIMIT_S = 30


def broken() -> Page:
    raise RuntimeError("a mistake")


PAGES: dict[str, Callable[[], Page]] = {
    "/metrics": lambda: Page(b"a 1\n"),
    "/readyz": lambda: Page(b"no\n", HTTPStatus.SERVICE_UNAVAILABLE),
    "/large": lambda: Page(b"x" * 3_000_000),
    "/broken": broken,
}


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[HttpServer, Address]]:
    listener = listen(Address("127.0.0.1", 0))
    server = HttpServer(PAGES)
    address = Address(*listener.getsockname())
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run, listener)
            yield server, address
            nursery.cancel_scope.cancel()


async def ask(address: Address, request: bytes) -> bytes:
    """Everything until the server closes; what it does not take is not sent."""
    async with await trio.open_tcp_stream(*address) as stream:
        answer = b""
        try:
            await stream.send_all(request)
            while data := await stream.receive_some(1 << 20):
                answer += data
        except trio.BrokenResourceError:
            pass
        return answer


def get(path: str, method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: here\r\nAccept: */*\r\n\r\n".encode()


def status_of(answer: bytes) -> int:
    assert answer.startswith(b"HTTP/1.1 ")
    return int(answer[9:12])


async def test_a_page() -> None:
    async with serving() as (server, address):
        head, _, body = (await ask(address, get("/metrics"))).partition(b"\r\n\r\n")
        assert head.splitlines()[0] == b"HTTP/1.1 200 OK"
        assert b"Content-Length: 4" in head.splitlines()
        assert b"Connection: close" in head.splitlines()
        assert body == b"a 1\n"
        assert (await ask(address, get("/metrics?name[]=a"))).endswith(b"a 1\n")
        assert server.counters["requests"] == 2


async def test_a_large_page_and_only_its_head() -> None:
    async with serving() as (_, address):
        answer = await ask(address, get("/large"))
        assert answer.endswith(b"x" * 3_000_000)
        head = await ask(address, get("/large", "HEAD"))
        assert b"Content-Length: 3000000\r\n" in head
        assert head.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (get("/readyz"), 503),
        (get("/nothing"), 404),
        (get("/../etc/passwd"), 404),
        (get("/metrics", "POST"), 405),
        (get("/metrics", "DELETE"), 405),
        (get("/broken"), 500),
        (b"GET /metrics HTTP/2.0\r\n\r\n", 400),
        (b"GET  /metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET metrics HTTP/1.1\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"get /metrics HTTP/1.1\r\n\r\n", 400),
        (b"*1\r\n$4\r\nPING\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),  # TLS
        (b"\0" * 100, 400),
        (b"\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"y" * REQUEST_BYTES_MAX, 431),
        (b"A" * (REQUEST_BYTES_MAX + 1), 431),
    ],
)
async def test_every_other_request_has_its_status(request_bytes: bytes, status: int) -> None:
    async with serving() as (_, address):
        assert status_of(await ask(address, request_bytes)) == status
        assert status_of(await ask(address, get("/metrics"))) == 200


async def test_a_request_may_come_byte_by_byte() -> None:
    async with serving() as (_, address), await trio.open_tcp_stream(*address) as stream:
        for byte in get("/metrics"):
            await stream.send_all(bytes([byte]))
        assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")


async def test_garbage_harms_nothing() -> None:
    chance = random.Random(7)
    async with serving() as (server, address):
        for _ in range(150):
            garbage = chance.randbytes(chance.choice((0, 1, 16, 900, 20_000)))
            if chance.random() < 0.3:
                garbage = get("/metrics")[: chance.randrange(40)] + garbage
            async with await trio.open_tcp_stream(*address) as stream:
                try:
                    await stream.send_all(garbage)
                    await stream.send_eof()
                    while await stream.receive_some():
                        pass
                except trio.BrokenResourceError:
                    continue
        assert status_of(await ask(address, get("/metrics"))) == 200
        assert server.counters["failed_pages"] == 0


async def test_a_client_that_sends_nothing_is_given_up(autojump_clock: trio.abc.Clock) -> None:
    server = HttpServer(PAGES)
    mine, theirs = trio.testing.memory_stream_pair()
    with trio.fail_after(LIMIT_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server._serve, theirs)
            before = trio.current_time()
            answer = bytes(await mine.receive_some())
            assert trio.current_time() - before == pytest.approx(REQUEST_S, abs=0.1)
            assert status_of(answer) == 408
            nursery.cancel_scope.cancel()


async def test_connections_are_bounded() -> None:
    async with serving() as (server, address):
        idle = [await trio.open_tcp_stream(*address) for _ in range(CONNECTIONS_MAX)]
        for stream in idle:
            await stream.send_all(b"GET ")
        while server._connections < CONNECTIONS_MAX:
            await trio.lowlevel.checkpoint()
        assert await ask(address, get("/metrics")) == b""
        assert server.counters["refused"] == 1
        for stream in idle:
            await stream.aclose()
        while server._connections:
            await trio.lowlevel.checkpoint()
        assert status_of(await ask(address, get("/metrics"))) == 200


def test_bounds_are_what_the_server_says() -> None:
    page = Page(b"body", HTTPStatus.METHOD_NOT_ALLOWED)
    assert b"Allow: GET, HEAD\r\n" in encode(page)
    assert encode(page, head=True).endswith(b"\r\n\r\n")
    assert http.ANSWER_S < 60


# Readiness -----------------------------------------------------------------------------------

WELL: dict[str, object] = {
    "silent": [],
    "coordinator": {"phase": "following", "leader": 1, "blocked": ""},
    "learner": {"behind": False, "delivered": 10, "heard": 10, "low": 5, "in_flight": 0},
}


def with_(part: str, **changes: object) -> dict[str, object]:
    told = WELL[part]
    assert isinstance(told, dict)
    return {**WELL, part: {**told, **changes}}


def test_ready_when_nothing_is_wrong() -> None:
    assert Health().problems(WELL, 0.0) == []
    assert Health().problems({"silent": []}, 0.0) == []


@pytest.mark.parametrize(
    ("status", "word"),
    [
        ({**WELL, "silent": ["acceptor 0 has forgotten (no log): it asks"]}, "has forgotten"),
        (with_("coordinator", phase="asking"), "no coordinator is known"),
        (with_("coordinator", leader=None), "no coordinator is known"),
        (with_("coordinator", blocked="window full"), "writes wait: window full"),
        (with_("learner", behind=True), "is behind"),
    ],
)
def test_each_problem_has_its_words(status: dict[str, object], word: str) -> None:
    (problem,) = Health().problems(status, 0.0)
    assert word in problem


def test_no_progress_is_a_problem_only_while_something_is_outstanding() -> None:
    health = Health()
    health.note(10, True, 100.0)
    health.note(10, True, 100.0 + STALL_S - 0.1)
    assert health.problems(WELL, 100.0 + STALL_S - 0.1) == []
    (problem,) = health.problems(WELL, 100.0 + STALL_S)
    assert problem.startswith("no progress for 3 s")
    health.note(11, True, 104.0)
    assert health.problems(WELL, 104.0) == []
    health.note(11, False, 200.0)
    assert health.problems(WELL, 202.0) == []
