"""Pipelines and transactions of kvstore.Client, and the rule that decides what is sent again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from kvstore.client import (
    Aborted,
    Call,
    Client,
    ErrorReply,
    OutcomeUnknown,
    Pipeline,
    Transaction,
    Unavailable,
)
from kvstore.client.outcomes import sort_out
from kvstore.client.replies import anything
from kvstore.replies import OK, Error, Reply, Status
from kvstore.resp import Command
from tests.kvstore.fake_nodes import FakeNode, Hangup, Raw, fake_nodes

LONG_S = 60.0
QUEUED = Status(b"QUEUED")


def client_of(*nodes: FakeNode) -> Client:
    return Client([node.address for node in nodes], limit_s=LONG_S)


class Each(list[Any]):
    """Replies, one each time."""


class Script:
    """Answers by name, OK where none is given; Hangup is raised."""

    def __init__(self, **replies: Any) -> None:
        self.replies = replies

    async def __call__(self, command: Command) -> Reply | Raw:
        reply = self.replies.get(command[0].decode(), OK)
        if isinstance(reply, Each):
            reply = reply.pop(0)
        if reply is Hangup:
            raise Hangup
        return reply  # type: ignore[no-any-return]  # whatever the test gave


# sort_out ----------------------------------------------------------------------------------------

KINDS = st.sampled_from(["read", "write"])
REPLIES = st.sampled_from([b"v", 1, None, ErrorReply("ERR no"), ErrorReply("LOADING"),
                           ErrorReply("NOQUORUM")])  # fmt: skip


@st.composite
def situations(draw: st.DrawFn) -> tuple[list[Call[Any]], list[object], int]:
    kinds = draw(st.lists(KINDS, min_size=1, max_size=6))
    calls = [Call(("GET" if kind == "read" else "SET", k), anything, None)
             for k, kind in enumerate(kinds)]  # fmt: skip
    replies: list[object] = [*draw(st.lists(REPLIES, max_size=len(calls)))]
    left = draw(st.integers(len(replies), len(calls)))
    return calls, replies, left


@given(situations())
def test_no_write_is_sent_again_that_may_have_been_done(
    situation: tuple[list[Call[Any]], list[object], int],
) -> None:
    calls, replies, left = situation
    again = sort_out(calls, replies, left, "node", "lost")
    first = len(calls) - len(again)
    assert again == calls[first:], "the order stays"
    for index, call in enumerate(calls):
        reply = replies[index] if index < len(replies) else None
        answered = index < len(replies)
        if index >= first:
            if not call.reads:
                refused = isinstance(reply, ErrorReply) and reply.code == "LOADING"
                assert refused if answered else index >= left
        elif not call.reads and (
            (not answered and index < left)
            or (isinstance(reply, ErrorReply) and reply.code == "NOQUORUM")
        ):
            assert isinstance(call.error, OutcomeUnknown)
        elif answered:
            assert call.error is reply if isinstance(reply, ErrorReply) else call.value == reply
        else:
            assert isinstance(call.error, Unavailable)


# Pipelines ---------------------------------------------------------------------------------------


async def test_a_pipeline_is_answered_in_order_and_typed() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = Script(GET=b"v", INCRBY=7)
        async with client.pipeline() as pipeline:
            stored = pipeline.set("a", 1)
            number = pipeline.incr("n")
            value = pipeline.get("a")
            with pytest.raises(ValueError, match="stands in a pipeline"):
                await value
        assert (stored.value, number.value, value.value) == (True, 7, b"v")
        assert node.names == [b"SET", b"INCRBY", b"GET"]


async def test_an_error_in_a_pipeline_is_raised_and_the_rest_is_there() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = Script(INCRBY=Error(b"ERR value is not an integer or out of range"))
        pipeline = client.pipeline()
        failed, stored = pipeline.incr("a"), pipeline.set("b", 1)
        with pytest.raises(ErrorReply, match="not an integer"):
            async with pipeline:
                pass
        assert failed.refused is not None
        assert stored.value is True


async def test_nothing_of_a_pipeline_is_sent_when_its_block_fails() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        with pytest.raises(KeyError):
            await fail_in(client.pipeline())
        await client.execute("ECHO", "end")
        assert node.names == [b"ECHO"]


async def test_a_pipeline_that_is_cut_off_tells_what_is_known_of_each() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = Script(APPEND=Hangup)
        pipeline = client.pipeline()
        done, unknown = pipeline.set("a", 1), pipeline.append("b", "x")
        read = pipeline.get("b")
        with pytest.raises(OutcomeUnknown) as caught:
            async with pipeline:
                pass
        assert caught.value is unknown.error
        assert done.value is True
        assert isinstance(read.error, Unavailable)
        assert nodes[1].commands == []


async def test_a_pipeline_whose_rest_only_reads_goes_on_at_another_node() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = Script(GET=Hangup)
        nodes[1].answer = Script(GET=b"v")
        async with client.pipeline() as pipeline:
            pipeline.set("a", 1)
            values = [pipeline.get("a"), pipeline.get("b")]
        assert [call.value for call in values] == [b"v", b"v"]
        assert [node.names for node in nodes] == [[b"SET", b"GET"], [b"GET", b"GET"]]


# Transactions ------------------------------------------------------------------------------------


async def test_a_transaction_is_one_block_on_the_shared_connection() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = Script(SET=QUEUED, INCRBY=QUEUED, EXEC=[OK, 5], GET=b"v")

        async def disturb() -> None:
            for _ in range(20):
                await client.get("other")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(disturb)
            async with client.transaction() as transaction:
                stored = transaction.set("a", 1)
                number = transaction.incr("n")
                await trio.sleep(0)
        assert (stored.value, number.value) == (True, 5)
        begin = node.names.index(b"MULTI")
        assert node.names[begin : begin + 4] == [b"MULTI", b"SET", b"INCRBY", b"EXEC"]
        assert node.connections == 1


async def test_watching_has_a_connection_of_its_own_which_is_used_again() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = Script(SET=QUEUED, EXEC=[OK], GET=b"3")
        for _ in range(3):
            async with client.transaction("stock") as transaction:
                stock = int(await transaction.now.get("stock") or 0)
                transaction.set("stock", stock - 1)
        assert node.connections == 2
        assert node.names[:5] == [b"WATCH", b"GET", b"MULTI", b"SET", b"EXEC"]
        assert node.commands[3][2] == b"2"


async def test_a_conflict_aborts_and_transact_tries_again() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = Script(SET=QUEUED, EXEC=Each([None, None, [OK]]), GET=b"3")
        with pytest.raises(Aborted, match="a watched key has changed"):
            async with client.transaction("stock") as transaction:
                transaction.set("stock", 2)

        async def take(transaction: Transaction) -> int:
            stock = int(await transaction.now.get("stock") or 0)
            transaction.set("stock", stock - 1)
            return stock

        assert await client.transact(take, "stock") == 3
        assert node.names.count(b"EXEC") == 3


async def test_a_connection_lost_at_exec_leaves_the_outcome_unknown() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = Script(SET=QUEUED, EXEC=Hangup)
        for watched in ([], ["a"]):
            client._connections._turn = 0
            with pytest.raises(OutcomeUnknown, match="EXEC"):
                async with client.transaction(*watched) as transaction:
                    transaction.set("a", 1)
        assert nodes[1].commands == []


async def test_a_connection_lost_before_exec_aborts_what_watches() -> None:
    async with fake_nodes(2) as nodes, client_of(*nodes) as client:
        nodes[0].answer = Script(GET=Hangup)
        nodes[1].answer = Script(SET=QUEUED, EXEC=[OK], GET=b"1")
        with pytest.raises(Aborted):
            async with client.transaction("a") as transaction:
                await transaction.now.get("a")

        async def body(transaction: Transaction) -> None:
            await transaction.now.get("a")
            transaction.set("a", 2)

        await client.transact(body, "a")
        assert nodes[1].names == [b"WATCH", b"GET", b"MULTI", b"SET", b"EXEC"]


@pytest.mark.parametrize(
    ("script", "error"),
    [
        ({"SET": Error(b"ERR syntax error"), "EXEC": Error(b"EXECABORT discarded")}, ErrorReply),
        ({"EXEC": Error(b"NOQUORUM no majority")}, OutcomeUnknown),
        ({"MULTI": Error(b"ERR unknown command 'MULTI'")}, OutcomeUnknown),
        ({"EXEC": [Error(b"WRONGTYPE no")]}, ErrorReply),
    ],
)
async def test_errors_of_a_transaction(script: dict[str, Any], error: type[Exception]) -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        node.answer = Script(**{"SET": QUEUED, **script})
        with pytest.raises(error):
            async with client.transaction() as transaction:
                transaction.set("a", 1)


async def test_a_transaction_that_fails_is_not_sent() -> None:
    async with fake_nodes() as (node,), client_of(node) as client:
        for watched in ((), ("a",)):
            with pytest.raises(KeyError):
                await fail_in(client.transaction(*watched))
        with pytest.raises(ValueError, match="nothing is watched"):
            _ = client.transaction().now
        assert set(node.names) <= {b"WATCH"}


async def fail_in(block: Transaction | Pipeline) -> None:
    async with block:
        block.set("a", 1)
        raise KeyError


def test_groups_are_plain_sequences() -> None:
    calls: Sequence[Call[Any]] = [Call(("SET", "a", 1), anything, None)]
    assert sort_out(calls, [b"OK"], 1, "node", "") == []
    assert calls[0].value == b"OK"
