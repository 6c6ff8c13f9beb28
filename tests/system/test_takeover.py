"""Coordinators that are killed, that cannot hear one another, that sleep and wake up.

docs/PROTOCOL.md, section 4: time decides who coordinates, never what is chosen.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import permutations
from pathlib import Path

import hiredis
import pytest
import trio

from bench.appenders import Appender, appending, judge, wait_for_more
from bench.processes import wait_until
from bench.store_cluster import START_LIMIT_S, StoreCluster
from bench.takeover import bring_back, survivors
from bench.writers import connect
from kvstore import comparison
from kvstore.client import Client
from p4xos import inquiries
from p4xos.tables import Address
from tests.system.networks import filter_packets, own_network

LIMIT_S = 60.0
CLIENTS = 6
"""Tasks of one client; each counts up a key of its own."""


@contextmanager
def running(tmp_path: Path, nodes: int) -> Iterator[StoreCluster]:
    with StoreCluster(tmp_path / "cluster", nodes=nodes) as store:
        store.start()
        store.wait_until_writable()
        yield store


def everywhere(store: StoreCluster) -> list[Address]:
    return [store.endpoint(name) for name in store.names]


def assert_as_told(store: StoreCluster, appenders: Sequence[Appender]) -> None:
    """Every node has what was acknowledged, once; nothing that was denied; the same state."""
    assert all(not appender.denied for appender in appenders)
    for name in store.names:
        verdict = judge(appenders, store.endpoint(name))
        assert verdict.good, f"node {name}: {verdict}"
    compared = comparison.compare(store.cluster)
    assert compared.good, compared


def counters(store: StoreCluster, name: str) -> dict[str, int]:
    """What the coordinator of a running node has counted."""
    told = inquiries.status(store.cluster)[name]
    assert isinstance(told, dict)
    (found,) = (of for owner, of in told["counters"].items() if owner.startswith("coordinator"))
    assert isinstance(found, dict)
    return found


@contextmanager
def stopped(store: StoreCluster, *names: str) -> Iterator[None]:
    """Nodes that are there and do nothing, and then wake up as if no time had passed."""
    for name in names:
        store.children[name].process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for name in names:
            store.children[name].process.send_signal(signal.SIGCONT)


def serving(store: StoreCluster, *asleep: str) -> str:
    """Who serves beside those that sleep; asking those would wait for them."""
    awake = [name for name in store.names if name not in asleep]
    found: list[str] = []

    def known() -> bool:
        found[:] = [n for n in awake if store.consensus(n).get("coordinator") == "serving"]
        return len(found) == 1

    wait_until(known, START_LIMIT_S, "that one coordinator serves")
    return found[0]


@pytest.mark.parametrize(("nodes", "kills"), [(3, 2), (5, 2)])
def test_the_coordinator_is_killed_again_and_again(tmp_path: Path, nodes: int, kills: int) -> None:
    """Of five nodes the second is killed while the first is still down."""
    with running(tmp_path, nodes) as store, appending(everywhere(store)) as appenders:
        wait_for_more(appenders, 10)
        dead: list[str] = []
        for _ in range(kills):
            dead.append(store.coordinator())
            store.kill(dead[-1])
            wait_for_more(survivors(appenders, store, *dead), 10)
            if len(dead) > nodes // 2 - 1:
                bring_back(store, appenders, dead.pop(0))
        bring_back(store, appenders, *dead)
        for appender in appenders:
            appender.stop()
            appender.join()
        assert_as_told(store, appenders)


def patient_client(store: StoreCluster, name: str) -> Client:
    """Of one node, whose own answer it waits for."""
    return Client([store.endpoint(name)], limit_s=LIMIT_S, patience_s=LIMIT_S)


async def test_what_is_under_way_is_done_once(tmp_path: Path) -> None:
    """A client of another node notices nothing: its node sends again what nobody has answered.

    No outcome may be unknown (that would end the test), so each counter shows how often each was
    done. Two of five nodes are killed, so none has to be started while the client's tasks run.
    """
    done = [0] * CLIENTS

    async def count(client: Client, number: int) -> None:
        while True:
            value = await client.incr(f"{len(dead)}:{number}")
            done[number] += 1
            assert value == done[number]

    async def more(count: int) -> None:
        wanted = [found + count for found in done]
        while any(found < want for found, want in zip(done, wanted, strict=True)):
            await trio.sleep(0.01)

    dead: list[str] = []
    with running(tmp_path, 5) as store:
        for _ in range(2):
            dead.append(store.coordinator())
            alive = [name for name in store.names if name not in dead]
            done[:] = [0] * CLIENTS
            async with patient_client(store, alive[0]) as client, trio.open_nursery() as nursery:
                for number in range(CLIENTS):
                    nursery.start_soon(count, client, number)
                with trio.fail_after(LIMIT_S):
                    await more(10)
                    store.kill(dead[-1])
                    await more(10)
                nursery.cancel_scope.cancel()


def deaf(ports: Sequence[int]) -> str:
    """Rules that drop what one of these ports sends to another of them."""
    pairs = permutations(ports, 2)
    drops = "\n".join(f"udp sport {one} udp dport {other} drop" for one, other in pairs)
    hook = "type filter hook input priority 0"
    return f"table inet duel {{\nchain heard {{\n{hook}\n{drops}\n}}\n}}\n"


@pytest.mark.parametrize("nodes", [3, 5])
def test_coordinators_that_cannot_hear_each_other_make_progress(tmp_path: Path, nodes: int) -> None:
    """Each believes that it is alone; every heartbeat, and only that, is lost between them."""
    with own_network(), running(tmp_path, nodes) as store:
        with appending(everywhere(store)) as appenders:
            wait_for_more(appenders, 10)
            before = {name: counters(store, name)["takeovers"] for name in store.names}
            ports = [member.address.port for member in store.cluster.coordinators]
            filter_packets(deaf(ports))

            def duelled() -> bool:
                """All but the first one have won a round, none knowing of the others."""
                return sum(counters(store, n)["takeovers"] > before[n] for n in before) >= nodes - 1

            wait_until(duelled, LIMIT_S, "that every coordinator takes over")
            wait_for_more(appenders, 10)
            filter_packets("")
            assert store.coordinator()  # one, and one only
            wait_for_more(appenders, 10)
        assert_as_told(store, appenders)


GET = b"*2\r\n$3\r\nGET\r\n$4\r\nseen\r\n"
APPEND = b"*3\r\n$6\r\nAPPEND\r\n$4\r\nseen\r\n$1\r\n!\r\n"


class Question:
    """A request that a sleeping node will find when it wakes: its kernel takes it meanwhile."""

    def __init__(self, address: Address, request: bytes) -> None:
        self._connection = socket.create_connection(address, LIMIT_S)
        self._connection.sendall(request)

    def answer(self) -> object:
        reader = hiredis.Reader()
        with self._connection:
            while (found := reader.gets()) is False:
                data = self._connection.recv(4096)
                assert data, "the node ended the connection without an answer"
                reader.feed(data)
        return found


def said_unknown(answer: object) -> bool:
    return isinstance(answer, hiredis.ReplyError) and str(answer).startswith("NOQUORUM")


@pytest.mark.parametrize(("nodes", "sleepers"), [(3, 1), (5, 2)])
def test_a_coordinator_that_wakes_up_does_no_harm(
    tmp_path: Path, nodes: int, sleepers: int
) -> None:
    """Of five nodes two coordinators fall asleep, one after the other, and wake together."""
    with running(tmp_path, nodes) as store, appending(everywhere(store)) as appenders:
        with connect(store.endpoint(store.names[0])) as client:
            client.set("seen", "before")
        wait_for_more(appenders, 10)
        asleep: dict[str, int] = {}  # the round that each serves in
        with ExitStack() as waking:
            for _ in range(sleepers):
                name = serving(store, *asleep)
                asleep[name] = int(store.consensus(name)["round"])
                waking.enter_context(stopped(store, name))
                wait_for_more(survivors(appenders, store, *asleep), 10)
            with connect(store.endpoint(serving(store, *asleep))) as client:
                client.set("seen", "after")
            # Acknowledged before these begin: whoever answers them must know of it.
            sleeping = [store.endpoint(name) for name in asleep]
            reads = [Question(address, GET) for address in sleeping * 20]
            writes = [Question(address, APPEND) for address in sleeping * 5]
        for answer in [read.answer() for read in reads]:
            stale = isinstance(answer, bytes) and not answer.startswith(b"after")
            assert not stale, f"a read that began after SET was answered {answer!r}"
            assert isinstance(answer, bytes) or said_unknown(answer), answer
        lengths = [write.answer() for write in writes]
        written = [length for length in lengths if isinstance(length, int)]
        assert all(isinstance(length, int) or said_unknown(length) for length in lengths), lengths
        assert len(set(written)) == len(written), "two writes were told that they were the same"
        wait_for_more(appenders, 10)  # those of the nodes that slept among them
        assert store.coordinator()  # one, and one only
        for name, round in asleep.items():
            assert int(store.consensus(name)["round"]) > round, "its term is over, and it knows"
        for appender in appenders:
            appender.stop()
            appender.join()
        with connect(store.endpoint(store.names[-1])) as client:
            seen = client.get("seen")
        assert isinstance(seen, bytes)
        assert max([len(b"after"), *written]) <= len(seen) <= len(b"after") + len(lengths)
        assert_as_told(store, appenders)
