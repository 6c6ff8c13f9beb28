"""The workload against stores that are right, wrong, refusing, or gone."""

from __future__ import annotations

import contextlib
import random
import socket
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path

import pytest
import trio

from kvstore.checking import Attempt, History, Workload, judge, read_history, running
from kvstore.checking import workload as workload_module
from kvstore.checking.connection import Connection
from kvstore.checking.history import BadHistory, Command, Output, to_line
from kvstore.checking.model import NOT_AN_INTEGER
from kvstore.checking.workload import NotAdmitted
from kvstore.client.dialing import Greeting
from kvstore.replies import Error
from tests.checking.fake_store import FakeStore, Hangup, Refusal, fake_store

Sabotage = Callable[[FakeStore], Callable[[str, Command], Output]]


async def used(sabotage: Sabotage | None = None, operations: int = 600) -> Workload:
    """A workload that has run to its end."""
    async with fake_store() as (store, nodes):
        if sabotage is not None:
            store.run = sabotage(store)
        workload = Workload(nodes, seed=7, keys=6, patience_s=20)
        with trio.fail_after(60):
            await workload.run(operations=operations)
            await workload.read_all()
            await workload.remove()
        return workload


async def test_a_right_store_is_linearizable_and_left_empty() -> None:
    async with fake_store() as (store, nodes):
        workload = Workload(nodes, seed=7, keys=6)
        await workload.run(operations=1000)
        assert await workload.read_all() == 0
        ran = {command[0] for command in store.commands}
        assert ran == {b"GET", b"SET", b"DEL", b"INCR", b"APPEND", b"MULTI"}
        assert store.store.values
        assert await workload.remove() == 0
        assert not store.store.values
    judged = judge(workload.history.attempts)
    assert judged.good
    assert judged.outcomes == {"answered": judged.attempts, "refused": 0, "unknown": 0}
    assert {attempt.node for attempt in workload.history.attempts} == {"n1", "n2", "n3"}
    assert any(isinstance(attempt.output, Error) for attempt in workload.history.attempts)


def stale_node(store: FakeStore) -> Callable[[str, Command], Output]:
    """One node answers reads with what it was asked to forget: the value before."""
    old: dict[bytes, bytes | None] = {}

    def run(node: str, command: Command) -> Output:
        if node == "n2" and command[0] == b"GET":
            return old.get(command[1])
        before = store.store.values.get(command[1]) if command[0] == b"SET" else None
        answer = store.store.run(command)
        if command[0] == b"SET" and answer == b"OK":
            old[command[1]] = before
        return answer

    return run


def sometimes(
    wrong: Callable[[FakeStore, Command], Output], *names: bytes
) -> Sabotage:
    """One command in 3 of these names is done wrong: often enough to be seen in a short run."""

    def sabotage(store: FakeStore) -> Callable[[str, Command], Output]:
        chance = random.Random(3)

        def run(node: str, command: Command) -> Output:
            if command[0] in names and chance.random() < 0.3:
                return wrong(store, command)
            return store.store.run(command)

        return run

    return sabotage


def twice(store: FakeStore, command: Command) -> Output:
    store.store.run(command)
    return store.store.run(command)


def twice_in_silence(store: FakeStore, command: Command) -> Output:
    answer = store.store.run(command)
    store.store.run(command)
    return answer


def acknowledged_and_lost(store: FakeStore, command: Command) -> Output:
    held = dict(store.store.values)
    answer = store.store.run(command)
    store.store.values = held
    return answer


def torn(store: FakeStore, command: Command) -> Output:
    """The first part of a transaction alone is done."""
    held = dict(store.store.values)
    answer = store.store.run(command)
    first = command[1][1]
    store.store.values = {**held, first: store.store.values.get(first)}
    return answer


def said_refused_but_done(store: FakeStore, command: Command) -> Output:
    store.store.run(command)
    raise Refusal("LOADING not now")


WRONG: dict[str, Sabotage] = {
    "a node answers stale values": stale_node,
    "an increment or append is done twice": sometimes(twice, b"INCR", b"APPEND"),
    "the same, and the answer tells nothing": sometimes(twice_in_silence, b"INCR", b"APPEND"),
    "acknowledged writes are lost": sometimes(acknowledged_and_lost, b"SET", b"APPEND", b"INCR"),
    "a transaction is done in part": sometimes(torn, b"MULTI"),
    "refused, and done": sometimes(said_refused_but_done, b"INCR", b"APPEND"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_a_wrong_store_is_found_out(name: str) -> None:
    workload = await used(WRONG[name])
    judged = judge(workload.history.attempts)
    assert judged.verdict.judgement == "violation"
    assert not judged.good
    assert len(judged.offence()) > 1
    assert len(judged.verdict.offences[0].operations) < 40


def faulty(store: FakeStore) -> Callable[[str, Command], Output]:
    """Right, but answers get lost, before or behind what they answer; and it refuses at times."""
    chance = random.Random(3)

    def run(node: str, command: Command) -> Output:
        fault = chance.random()
        if fault < 0.01:
            raise Hangup
        if fault < 0.02:
            store.store.run(command)
            raise Hangup
        if fault < 0.03:
            store.store.run(command)
            raise Refusal("NOQUORUM the outcome of this write is unknown")
        if fault < 0.04:
            raise Refusal("UNKNOWN the outcome of this write is unknown")
        if fault < 0.06:
            raise Refusal("LOADING not now")
        return store.store.run(command)

    return run


async def test_faults_are_no_violations() -> None:
    """What may have been done and what was not are told apart."""
    workload = await used(faulty)
    judged = judge(workload.history.attempts)
    assert judged.good, judged.lines()
    assert min(judged.outcomes.values()) > 5


async def test_a_node_that_is_gone_is_left_and_the_others_go_on() -> None:
    async with fake_store() as (_, nodes), fake_store(("n4",)) as (_, gone):
        pass
    async with fake_store(("n1", "n2")) as (_, nodes):
        workload = Workload({**nodes, **gone}, seed=1, clients=3)
        await workload.run(operations=150)
        assert workload.history.outcomes["answered"] == 150
        assert "n4" in workload.problems


async def test_it_ends_by_itself_when_all_nodes_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workload_module, "GIVE_UP_S", 0.2)
    async with fake_store() as (_, nodes):
        pass
    workload = Workload(nodes, seed=1, clients=2)
    with trio.fail_after(30):
        await workload.run()
    assert workload.gave_up
    assert set(workload.problems) <= set(nodes)
    assert workload.problems
    assert not workload.history.attempts


USER = Greeting(2, 0, "", "ada", "secret")
REFUSED = "WRONGPASS invalid username-password pair or user is disabled."


def logins(store: FakeStore) -> list[Command]:
    return [command for command in store.commands if command[0] == b"AUTH"]


async def test_a_client_whose_password_is_changed_does_not_guess() -> None:
    """It ends by itself; no node is asked again, neither for the reads nor for the removal."""
    async with fake_store() as (store, nodes):
        right = True

        def run(node: str, command: Command) -> Output:
            nonlocal right
            if command[0] == b"AUTH":
                if not right:
                    raise Refusal(REFUSED)
                return b"OK"
            if len(store.commands) == 200:
                right = False
            if not right:
                raise Hangup  # a node closes the connections of a user that was changed
            return store.store.run(command)

        store.run = run
        workload = Workload(nodes, seed=1, clients=1, greeting=USER)
        with trio.fail_after(60):
            await workload.run()
            assert await workload.read_all() > 0
            assert await workload.remove() > 0
    assert isinstance(workload.not_admitted, NotAdmitted)
    assert REFUSED in str(workload.not_admitted)
    assert "secret" not in str(workload.not_admitted)
    assert not workload.gave_up
    assert judge(workload.history.attempts).good
    last = max(place for place, c in enumerate(store.commands) if c[0] != b"AUTH")
    assert len(store.commands[last + 1 :]) == 1, "one client, one node, one refusal"


async def test_one_node_that_refuses_ends_a_check_before_anything_is_done() -> None:
    async with fake_store() as (store, nodes):

        def run(node: str, command: Command) -> Output:
            if command[0] != b"AUTH":
                return store.store.run(command)
            if node == "n2":
                raise Refusal(REFUSED)
            return b"OK"

        store.run = run
        with pytest.raises(NotAdmitted, match=r"^n2: WRONGPASS .*--user NAME"):
            await running._knock(nodes, USER)
    assert len(logins(store)) == len(store.commands) == 3


async def test_what_is_under_way_when_it_is_cancelled_is_unknown() -> None:
    async with fake_store() as (store, nodes):
        arrived = trio.Event()

        def run(node: str, command: Command) -> Output:
            arrived.set()
            raise Hangup

        store.run = run
        workload = Workload(nodes, seed=1, clients=1)
        async with trio.open_nursery() as nursery:
            (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(workload.run)
            await arrived.wait()
            workload.stop()
            with trio.fail_after(20):
                while not workload.history.attempts:
                    await trio.sleep(0)
            nursery.cancel_scope.cancel()
            await listener.aclose()
    assert workload.history.outcomes["unknown"] >= 1


async def test_several_workloads_share_keys_and_are_judged_as_one() -> None:
    async with fake_store() as (store, nodes):
        store.run = faulty(store)
        workloads = [
            Workload(nodes, seed=7, clients=3, keys=4, first_client=first, prefix="shared:")
            for first in (0, 3)
        ]
        async with trio.open_nursery() as nursery:
            for workload in workloads:
                nursery.start_soon(partial(workload.run, operations=300))
    one, other = (workload.history.attempts for workload in workloads)
    assert {a.command[1] for a in one} & {a.command[1] for a in other}
    assert judge([*one, *other]).good
    assert not judge(one).good, "each has seen what the other wrote"


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[tuple[Connection, trio.socket.SocketType]]:
    """A connection, and the node's end of it."""
    ours, other = socket.socketpair()
    ours.setblocking(False)
    with trio.socket.from_stdlib_socket(other) as theirs:
        connection = Connection(ours)
        yield connection, theirs
        connection.close()


async def test_a_command_that_left_and_is_not_answered_is_unknown() -> None:
    async with connected() as (connection, _):
        result = await connection.attempt((b"SET", b"k", b"v"), 0.05)
    assert (result.outcome, result.lost) == ("unknown", True)
    assert result.problem == "no answer within 0.05 s"


async def test_a_command_that_did_not_leave_in_full_is_refused() -> None:
    """The node runs whole commands only; it got a part of this one, and takes no more."""
    async with connected() as (connection, node):
        result = await connection.attempt((b"SET", b"k", bytes(16 << 20)), 0.2)
        assert await node.recv(65536)
    assert (result.outcome, result.lost) == ("refused", True)


@pytest.mark.parametrize(
    ("reply", "outcome", "output"),
    [
        (b"+OK\r\n", "answered", b"OK"),
        (b"$-1\r\n", "answered", None),
        (b"-ERR value is not an integer or out of range\r\n", "answered", NOT_AN_INTEGER),
        (b"-NOQUORUM no majority\r\n", "unknown", None),
        (b"-UNKNOWN the outcome\r\n", "unknown", None),
        (b"-LOADING wait\r\n", "refused", None),
        (b"-ERR max number of clients reached\r\n", "refused", None),
        (b"nonsense\r\n", "unknown", None),
    ],
)
async def test_what_a_reply_says(reply: bytes, outcome: str, output: Output) -> None:
    async with connected() as (connection, node):
        await node.send(reply)
        result = await connection.attempt((b"INCR", b"k"), 20)
    assert (result.outcome, result.output) == (outcome, output)


@pytest.mark.parametrize(
    ("replies", "outcome", "output"),
    [
        (b"+OK\r\n+QUEUED\r\n*1\r\n:1\r\n", "answered", (1,)),
        (b"+OK\r\n+QUEUED\r\n*1\r\n-ERR no\r\n", "answered", (Error(b"ERR no"),)),
        (b"+OK\r\n+QUEUED\r\n-NOQUORUM no majority\r\n", "unknown", None),
        (b"+OK\r\n-ERR no\r\n-EXECABORT because\r\n", "refused", None),
        (b"-LOADING\r\n-LOADING\r\n-LOADING\r\n", "refused", None),
        (b"-LOADING\r\n:1\r\n-ERR EXEC without MULTI\r\n", "unknown", None),
    ],
)
async def test_what_the_replies_to_a_transaction_say(
    replies: bytes, outcome: str, output: Output
) -> None:
    async with connected() as (connection, node):
        await node.send(replies)
        result = await connection.attempt((b"MULTI", (b"INCR", b"k")), 20)
    assert (result.outcome, result.output) == (outcome, output)


async def test_the_same_seed_does_the_same() -> None:
    """One client, so that nothing depends on who comes first."""
    commands = []
    for _ in range(2):
        async with fake_store(("n1",)) as (_, nodes):
            workload = Workload(nodes, seed=5, clients=1, prefix="same:")
            await workload.run(operations=200)
            commands.append([attempt.command for attempt in workload.history.attempts])
    assert commands[0] == commands[1]


async def test_keys_are_given_up_behind_unknown_outcomes() -> None:
    workload = await used(faulty)
    by_key: dict[bytes, int] = {}
    for attempt in workload.history.attempts:
        if attempt.outcome == "unknown" and attempt.command[0] not in (b"GET", b"MULTI"):
            key = attempt.command[1].split(b":")[2]
            by_key[key] = by_key.get(key, 0) + 1
    assert max(by_key.values()) <= 2 + 8


async def test_a_history_is_read_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "history"
    async with fake_store() as (store, nodes):
        store.run = faulty(store)
        with History(file) as history:
            workload = Workload(nodes, seed=7, history=history)
            await workload.run(operations=500)
        assert read_history(file) == history.attempts
    odd = Attempt(1, "n1", 5, 6, (b"SET", b"k", b"\xff\x00\""), "answered", Error(b"ERR \xfe"))
    several = odd._replace(output=(None, 1, b"x", Error(b"ERR")))
    file.write_text(to_line(odd) + to_line(several) + to_line(odd)[:-5])
    assert read_history(file) == [odd, several]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("{", "line 1"), ("[]", "no object"), ("{}", "client"),
     (to_line(Attempt(1, "n", 5, 4, (b"GET", b"k"), "answered")), "lies before"),
     (to_line(Attempt(1, "n", 5, 6, (), "answered")), "list of words"),
     (to_line(Attempt(1, "n", 5, 6, (b"GET", b"k"), "answered")).replace("answered", "done"),
      "must be one of"),
     (to_line(Attempt(1, "n", 5, 6, (b"GET", b"k"), "unknown")).replace("unknown", "answered", 1),
      "missing"), ("[" * 100_000, "line 1")],
)  # fmt: skip
def test_a_file_that_holds_no_history(tmp_path: Path, line: str, complaint: str) -> None:
    file = tmp_path / "history"
    file.write_text(line.strip() + "\n")
    with pytest.raises(BadHistory, match=complaint):
        read_history(file)


@pytest.mark.parametrize(
    "command",
    [(b"LPUSH", b"a", b"b"), (b"SET", b"a"), (b"SET", b"a", b"b", b"NX", b"c"), (b"MULTI",),
     (b"MULTI", b"GET"), (b"MULTI", (b"MULTI", (b"GET", b"a"))), (b"GET", (b"a",)), (b"GET", 5)],
)  # fmt: skip
def test_commands_that_the_model_does_not_know_are_refused(command: Command) -> None:
    with pytest.raises(ValueError, match=r"MULTI|known are|texts"):
        judge([Attempt(1, "n", 5, 6, command, "unknown")])


def test_where_nothing_was_answered_nothing_is_proven() -> None:
    judged = judge([Attempt(1, "n", 5, 6, (b"GET", b"a"), "unknown")])
    assert not judged.good
    assert judged.data()["verdict"] == "undecided"
    assert "nothing is proven" in judged.lines()[0]


def test_beyond_its_bound_nothing_is_proven() -> None:
    attempts = [
        Attempt(k, "n", 0, 9, (b"MULTI", (b"SET", b"a", b"%d" % k), (b"APPEND", b"b", b"x")),
                "unknown")
        for k in range(12)
    ]  # fmt: skip
    read = Attempt(99, "n", 10, 11, (b"MULTI", (b"GET", b"a"), (b"GET", b"b")), "answered", (1, 2))
    judged = judge([*attempts, read], steps_max=1000)
    assert not judged.good
    assert judged.data()["verdict"] == "undecided"
    assert judged.lines()[-1] == "undecided: a b"
