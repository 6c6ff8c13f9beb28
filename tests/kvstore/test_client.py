"""kvstore.Client against nodes that behave as each test says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import trio

import kvstore
from kvstore.client import (
    READS,
    Call,
    Client,
    ErrorReply,
    OutcomeUnknown,
    Unavailable,
    UnexpectedReply,
)
from kvstore.commands import SPELLINGS
from kvstore.commands.table import Kind
from kvstore.replies import OK, Error, Reply
from kvstore.resp import MAX_BULK_BYTES, Command
from p4xos.ports import free_addresses
from tests.kvstore.fake_nodes import FakeNode, Raw, fake_nodes, hang_up, never

LONG_S = 60.0
"""A limit that no test reaches."""


def answers(reply: Reply | Raw) -> Any:
    async def answer(command: Command) -> Reply | Raw:
        return reply

    return answer


async def echo(command: Command) -> Reply | Raw:
    return command[-1]


def client_of(*nodes: FakeNode, **options: Any) -> Client:
    return Client([node.address for node in nodes], **{"limit_s": LONG_S, **options})


async def run(call: Call[Any], outcomes: list[object]) -> None:
    try:
        outcomes.append(await call)
    except kvstore.client.StoreError as error:
        outcomes.append(type(error))


async def test_tasks_share_one_connection_and_get_their_own_replies() -> None:
    async with fake_nodes() as (node,), client_of(node) as client, trio.open_nursery() as nursery:
        node.answer = echo

        async def ask(word: bytes) -> None:
            assert await client.execute("ECHO", word) == word

        for number in range(300):
            nursery.start_soon(ask, b"%d" % number)
    assert node.connections == 1


async def test_a_cancelled_call_shifts_no_reply() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        go_on = trio.Event()

        async def answer_late(command: Command) -> Reply | Raw:
            await go_on.wait()
            return command[-1]

        node.answer = answer_late
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, client.execute("ECHO", "cancelled"), [])
            await node.arrived.wait()
            nursery.cancel_scope.cancel()
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, client.execute("ECHO", "next"), outcomes)
            go_on.set()
        assert outcomes == [b"next"]
        assert node.connections == 1


async def test_a_call_cancelled_before_it_left_is_never_sent() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        with trio.CancelScope() as scope:
            scope.cancel()
            await client.set("a", 1)
        await client.set("b", 2)
        assert [command[1] for command in node.commands] == [b"b"]


async def test_a_write_that_left_has_an_unknown_outcome_and_is_not_sent_again() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = hang_up
        with pytest.raises(OutcomeUnknown, match="read before you write again") as caught:
            await client.set("a", 1)
        assert caught.value.command == "SET"
        assert caught.value.node == str(nodes[0].address)
        assert nodes[1].commands == []
        assert await client.set("a", 1)
        assert nodes[1].names == [b"SET"]


async def test_a_read_is_tried_at_another_node() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = hang_up
        nodes[1].answer = answers(b"here")
        assert await client.get("a") == b"here"
        assert client.node == nodes[1].address


async def test_a_node_that_is_down_is_passed_over() -> None:
    (nobody,) = free_addresses(1)
    async with fake_nodes() as (node,), Client([nobody, node.address], limit_s=LONG_S) as client:
        assert await client.set("a", 1)


async def test_all_nodes_down() -> None:
    (nobody,) = free_addresses(1)
    with pytest.raises(Unavailable, match="nothing was changed") as caught:
        async with Client([nobody], limit_s=1):
            raise AssertionError
    assert "refused" in caught.value.problems[str(nobody)]


async def test_calls_of_all_kinds_fail_when_no_node_is_left() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = hang_up
        with pytest.raises(Unavailable, match="GET: no node ran it within 1 s"):
            await client.get("a").within(1)
        with pytest.raises(OutcomeUnknown):
            await client.set("a", 1)


@pytest.mark.parametrize("refusal", ["LOADING dataset", "TRYAGAIN later", "CLUSTERDOWN yes"])
async def test_a_refused_write_is_tried_at_another_node(refusal: str) -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = answers(Error(refusal.encode()))
        assert await client.set("a", 1)
        assert [node.names for node in nodes] == [[b"SET"], [b"SET"]]


async def test_without_a_majority_a_read_goes_elsewhere_and_a_write_is_unknown() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = answers(Error(b"NOQUORUM no majority answered"))
        nodes[1].answer = answers(b"here")
        with pytest.raises(OutcomeUnknown, match="NOQUORUM"):
            await client.incr("n")
        assert client.node == nodes[0].address
        assert await client.get("a") == b"here"
        assert nodes[1].names == [b"GET"]


async def test_a_node_full_of_clients_is_passed_over() -> None:
    async with fake_nodes(2) as nodes:

        async def refuse(command: Command) -> bytes:
            return b"-ERR max number of clients reached\r\n"

        nodes[0].reply_to = refuse  # type: ignore[method-assign]
        async with client_of(*nodes) as client:
            assert client.node == nodes[1].address


async def test_a_write_that_cannot_have_left_in_full_is_sent_elsewhere() -> None:
    """The first node stops to read in the midst of it, and goes away."""
    async with fake_nodes() as (node,):
        stuck = trio.Event()

        async def greet_and_stop(stream: trio.SocketStream) -> None:
            await stream.receive_some(4096)
            await stream.send_all(b"%0\r\n")
            await stream.receive_some(1)
            stuck.set()
            await trio.sleep(0)
            await stream.aclose()

        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        first = listener.socket.getsockname()[:2]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, greet_and_stop, [listener])
            async with Client([first, node.address], limit_s=LONG_S) as client:
                large = bytes(MAX_BULK_BYTES)  # six of them are more than any socket buffers
                await client.mset(dict.fromkeys("abcdef", large))
            nursery.cancel_scope.cancel()
        assert stuck.is_set()
        assert node.names == [b"MSET"]


async def test_a_silent_node_is_left_by_reads_and_not_by_writes() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes, patience_s=0.05) as client:
        nodes[0].answer = never
        nodes[1].answer = answers(b"here")
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, client.set("a", 1), outcomes)
            await nodes[0].arrived.wait()
            assert await client.get("a") == b"here"
            assert outcomes == []  # its reply may come still
            nursery.cancel_scope.cancel()
        assert nodes[1].names == [b"GET"]


async def test_a_write_that_is_not_answered_in_time_has_an_unknown_outcome() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = never
        with pytest.raises(OutcomeUnknown, match="no answer within 1 s"):
            await client.set("a", 1).within(1)


async def test_a_late_reply_of_a_node_that_was_left_still_arrives() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes, patience_s=0.05) as client:
        left = trio.Event()

        async def answer_late(command: Command) -> Reply | Raw:
            await left.wait()
            return OK

        nodes[0].answer = answer_late
        nodes[1].answer = answers(b"here")
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run, client.set("a", 1), outcomes)
            await nodes[0].arrived.wait()
            assert await client.get("a") == b"here"
            left.set()
        assert outcomes == [True]


async def test_the_window_bounds_what_is_under_way() -> None:
    async with fake_nodes() as (node,), client_of(node, window=3) as client:
        most = 0

        async def watch(command: Command) -> Reply | Raw:
            nonlocal most
            link = await client._connections.shared({})
            most = max(most, link.outstanding)
            return command[-1]

        node.answer = watch
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery:
            for number in range(40):
                nursery.start_soon(run, client.execute("ECHO", number), outcomes)
        assert most == 3
        assert len(outcomes) == 40


@pytest.mark.parametrize("nonsense", [b"hello\r\n", b"+OK\r\n+OK\r\n", b"*99999999999\r\n"])
async def test_nonsense_ends_the_connection_and_no_other_call(nonsense: bytes) -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = answers(Raw(nonsense))
        outcomes: list[object] = []
        await run(client.execute("ECHO", "a"), outcomes)
        assert await client.set("b", 1)
        assert nodes[1].names[-1] == b"SET"
        assert nodes[0].connections == 1


async def test_pushed_data_is_nobodys_reply() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = answers(Raw(b">2\r\n+invalidate\r\n+a\r\n$1\r\nv\r\n"))
        assert await client.get("a") == b"v"


async def test_an_unfit_reply_is_named() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = answers(7)
        with pytest.raises(UnexpectedReply, match="GET was answered with 7"):
            await client.get("a")


async def test_an_error_reply_has_a_code() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = answers(Error(b"WRONGTYPE Operation against a key"))
        with pytest.raises(ErrorReply) as caught:
            await client.incr("a")
        assert caught.value.code == "WRONGTYPE"


async def test_name_and_database_are_set_on_every_connection() -> None:
    async with fake_nodes() as (node,):
        seen: list[Command] = []
        reply = node.reply_to

        async def watch(command: Command) -> bytes:
            seen.append(command)
            return await reply(command)

        node.reply_to = watch  # type: ignore[method-assign]
        async with client_of(node, database=3, name="worker") as client:
            await client.set("a", 1)
        assert seen[:3] == [
            [b"HELLO", b"3"], [b"CLIENT", b"SETNAME", b"worker"], [b"SELECT", b"3"],
        ]  # fmt: skip


async def test_closing_the_client_ends_what_is_under_way() -> None:
    async with fake_nodes() as (node,):
        node.answer = never
        outcomes: list[object] = []
        async with trio.open_nursery() as nursery, client_of(node) as client:
            nursery.start_soon(run, client.set("a", 1), outcomes)
            await node.arrived.wait()
        assert outcomes == [OutcomeUnknown]
        with pytest.raises(ValueError, match="this client is closed"):
            await client.get("a")


async def test_misuse_is_told_before_anything_is_sent() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        for words in (["SELECT", 1], [b"watch", "a"], ["Multi"], []):
            with pytest.raises(ValueError):
                client.execute(*words)
        with pytest.raises(ValueError, match="leave one out"):
            client.set("a", 1, expire_s=1, expire_at_ms=2)
        call = client.get("a")
        with pytest.raises(ValueError, match="has not been run"):
            _ = call.value
        assert await call == b"OK"
        with pytest.raises(ValueError, match="awaited already"):
            await call
        assert node.names == [b"GET"]


async def test_a_call_that_is_never_awaited_warns() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        call = client.set("a", 1)
        with pytest.warns(RuntimeWarning, match="SET was never awaited"):
            del call


@pytest.mark.parametrize(
    ("given", "wrong"),
    [([], "no address"), (["nowhere"], "no address"), ([":1"], "no address"), (["a:b"], "write")],
)
def test_addresses_are_checked(given: list[str], wrong: str) -> None:
    with pytest.raises(ValueError, match=wrong):
        Client(given)


def test_the_reads_of_the_client_change_nothing() -> None:
    """Else a retry would do something twice."""
    for name in READS:
        entry = SPELLINGS.get(name)
        if entry is not None:
            below = [entry, *entry.subcommands.values()]
            assert all(each.kind is not Kind.WRITE for each in below), name


Made = Callable[[Client], Call[Any]]


@pytest.mark.parametrize(
    ("make", "words", "reply", "value"),
    [
        (lambda c: c.set("k", "v"), "SET k v", OK, True),
        (lambda c: c.set("k", 1, expire_s=1.5, only="NX"), "SET k 1 NX PX 1500", None, False),
        (lambda c: c.set("k", 1, expire_at_ms=9), "SET k 1 PXAT 9", OK, True),
        (lambda c: c.set("k", 1, keep_expiry=True), "SET k 1 KEEPTTL", OK, True),
        (lambda c: c.set("k", 1, if_equal="x"), "SET k 1 IFEQ x", None, False),
        (lambda c: c.mset({"a": 1, "b": "x"}), "MSET a 1 b x", OK, None),
        (lambda c: c.mget("a", "b"), "MGET a b", [b"1", None], [b"1", None]),
        (lambda c: c.incr("n"), "INCRBY n 1", 5, 5),
        (lambda c: c.incrbyfloat("n", 0.5), "INCRBYFLOAT n 0.5", b"1.5", 1.5),
        (lambda c: c.delete("a", "b"), "DEL a b", 2, 2),
        (lambda c: c.expire("a", 2, "GT"), "PEXPIRE a 2000 GT", 1, True),
        (lambda c: c.getex("a", persist=True), "GETEX a PERSIST", b"v", b"v"),
        (lambda c: c.scan(match="a*", count=5), "SCAN 0 MATCH a* COUNT 5", [b"0", [b"a1"]],
         (b"0", [b"a1"])),
        (lambda c: c.info("server"), "INFO server", b"# Server\r\nversion:7\r\n", {"version": "7"}),
    ],
)  # fmt: skip
async def test_typed_methods(make: Made, words: str, reply: Any, value: object) -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = answers(reply)
        assert await make(client) == value
        assert b" ".join(node.commands[0]) == words.encode()


async def test_all_keys_goes_through_all_pages() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        pages: dict[bytes, Reply] = {b"0": [b"7", [b"a", b"b"]], b"7": [b"0", [b"c"]]}

        async def scan(command: Command) -> Reply | Raw:
            return pages[command[1]]

        node.answer = scan
        assert [key async for key in client.all_keys()] == [b"a", b"b", b"c"]
