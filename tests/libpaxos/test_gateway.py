"""The gateway at real ports: what libpaxos programs are told, and what becomes of what they say."""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from pathlib import Path

import pytest
import trio

from p4xos.compat.libpaxos import gateway as gateway_module
from p4xos.compat.libpaxos.connection import Stream
from p4xos.compat.libpaxos.gateway import Port, majorities
from p4xos.compat.libpaxos.packs import Values
from p4xos.compat.libpaxos.store import PackStore
from p4xos.framing import FrameStream
from p4xos.local import LocalClient
from p4xos.logstore import Retention
from p4xos.packing import pack_delivered, pack_payloads, unpack_delivered_untrusted
from p4xos.tables import Address
from tests.libpaxos.peers import (
    FrameClient,
    Gateways,
    Learner,
    Peer,
    gateways,
    new_conf,
    packed,
)
from tests.service.clusters import PATIENCE_S, until


def told(store_values: list[Values]) -> list[tuple[int, bytes]]:
    return [pair for values in store_values for pair in values.each()]


async def test_values_get_dense_instances_and_reach_a_learner_in_order(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster, trio.open_nursery() as nursery:
        learner = Learner(cluster.conf.acceptors)
        nursery.start_soon(learner.run)
        async with Peer.connect(cluster.conf.proposers[0]) as client:
            await client.submit(*(b"value %d" % k for k in range(300)))
            await client.submit(b"", b"x" * 5000, b"last")
            found = await learner.wait(303)
        assert [iid for iid, _ in found] == list(range(1, 304))
        assert sorted(value for _, value in found) == sorted(
            [*(b"value %d" % k for k in range(300)), b"", b"x" * 5000, b"last"]
        )
        own = cluster["n1"]
        assert told(own.store.values(1, 1 << 30)) == found
        nursery.cancel_scope.cancel()


async def test_gateways_agree_and_go_on_without_the_coordinator(tmp_path: Path) -> None:
    """Three processes' worth of nodes; the one that coordinates stops, and comes back."""
    conf = new_conf(proposers=3)
    async with gateways(tmp_path, 3, conf=conf) as cluster, trio.open_nursery() as nursery:
        learner = Learner(conf.acceptors)
        nursery.start_soon(learner.run)
        values = [b"value %d" % k for k in range(400)]
        async with Peer.connect(conf.proposers[0]) as client:
            await client.submit(*values[:200])
            await learner.wait(200)
        await cluster.stop("n1")
        async with Peer.connect(conf.proposers[1]) as client:
            await client.submit(*values[200:])
            await learner.wait(400)
        await cluster.start("n1")
        for name in ("n1", "n2", "n3"):
            store = cluster[name].store
            await until(lambda store=store: store.next_iid == 401)  # type: ignore[misc]  # bound
            assert told(store.values(1, 1 << 30)) == learner.delivered
        assert sorted(value for _, value in learner.delivered) == sorted(values)
        nursery.cancel_scope.cancel()


async def test_a_learner_that_comes_late_is_told_everything(tmp_path: Path) -> None:
    """On an idle cluster too, and in one go, not ten instances at a time."""
    async with gateways(tmp_path) as cluster, trio.open_nursery() as nursery:
        async with Peer.connect(cluster.conf.proposers[0]) as client:
            await client.submit(*(b"%d" % k for k in range(5000)))
        store = cluster["n1"].store
        await until(lambda: store.next_iid == 5001)
        learner = Learner(cluster.conf.acceptors)
        nursery.start_soon(learner.run)
        await learner.wait(5000)
        assert learner.delivered == told(store.values(1, 1 << 30))
        assert cluster["n1"].gateway.counters["repeats"] < 100
        later = Learner(cluster.conf.acceptors, after=4990)
        nursery.start_soon(later.run)
        assert await later.wait(10) == learner.delivered[4990:]
        nursery.cancel_scope.cancel()


async def test_what_was_told_is_told_again_when_asked_for(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster, Peer.connect(cluster.conf.acceptors[1]) as peer:
        await peer.submit(*(b"%d" % k for k in range(20)))
        first = [await peer.accepted() for _ in range(20)]
        assert [(aid, iid) for aid, iid, _ in first] == [(1, k) for k in range(1, 21)]
        await peer.say(5, 3, 5)
        assert [await peer.accepted() for _ in range(3)] == first[2:5]
        await peer.say(5, 30, 40)
        await peer.say(5, 7, 6)
        await peer.say(5, 20, 4000)
        assert await peer.accepted() == first[19]


async def test_acceptors_tell_their_state_and_proposers_tell_nothing(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster:
        async with Peer.connect(cluster.conf.acceptors[2]) as peer:
            assert await peer.hear() == [7, 2, 0]
        async with Peer.connect(cluster.conf.proposers[0]) as peer:
            await peer.submit(b"a")
            store = cluster["n1"].store
            await until(lambda: store.next_iid == 2)
            cluster["n1"].gateway.say_state()
            with pytest.raises(trio.TooSlowError), trio.fail_after(0.05):
                await peer.hear()


async def test_a_restarted_gateway_counts_on(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster, trio.open_nursery() as nursery:
        async with Peer.connect(cluster.conf.proposers[0]) as client:
            await client.submit(b"a", b"b")
            store = cluster["n1"].store
            await until(lambda: store.next_iid == 3)
        await cluster.stop()
        await cluster.start()
        learner = Learner(cluster.conf.acceptors)
        nursery.start_soon(learner.run)
        async with Peer.connect(cluster.conf.proposers[0]) as client:
            await client.submit(b"c")
            assert await learner.wait(3) == [(1, b"a"), (2, b"b"), (3, b"c")]
        nursery.cancel_scope.cancel()


GARBAGE = {
    "0xc1": b"\xc1",
    "nil": b"\xc0",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "bad acceptor id": packed(3, 10, 1, 1, 1, b"x"),
    "unknown kind": packed(9, 1),
    "wrong arity": packed(8, b"x", 1),
    "no number": packed(5, "a", 1),
    "negative": packed(5, -1, 1),
    "64 bits": packed(6, 2**32),
    "a map": packed({1: 2}),
    "long value": b"\x92\x08\xc6" + struct.pack(">I", 1 << 31),
    "a frame that is none": b"\x00" * 8,
    "a frame without hello": b"\x00\x00\x00\x01\x00\x00\x00\x00\x80",
}


async def test_garbage_closes_its_connection_and_nothing_else(tmp_path: Path) -> None:
    """What crashed libpaxos, at every port (docs/traps.md, 11)."""
    async with gateways(tmp_path, conf=new_conf(2, 1)) as cluster:
        gateway = cluster["n1"].gateway
        refused = 0
        for address in [*cluster.conf.acceptors, *cluster.conf.proposers]:
            for name, data in GARBAGE.items():
                async with Peer.connect(address) as peer:
                    await peer.stream.send_all(data)
                    await read_to_the_end(peer)
                refused += 1
                assert gateway.counters["bad_messages"] == refused, name
        async with Peer.connect(cluster.conf.acceptors[0]) as peer:
            await peer.submit(b"still here")
            assert await peer.accepted() == (0, 1, b"still here")


async def test_connections_beyond_the_bound_are_turned_away(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster:
        gateway = cluster["n1"].gateway
        gateway.connections_max = 1
        async with Peer.connect(cluster.conf.acceptors[0]) as peer:
            await until(lambda: gateway.status()["connections"] == 1)
            async with Peer.connect(cluster.conf.acceptors[1]) as another:
                await read_to_the_end(another)
            assert gateway.counters["turned_away"] == 1
            await peer.submit(b"still here")
            assert await peer.accepted() == (0, 1, b"still here")


async def read_to_the_end(peer: Peer) -> None:
    with suppress(trio.BrokenResourceError):
        while await peer.stream.receive_some():
            pass


async def test_a_foreign_proposer_is_not_listened_to(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster:
        async with Peer.connect(cluster.conf.acceptors[0]) as peer:
            await peer.say(0, 1, 10)
            await peer.say(2, 1, 10, b"theirs")
            await peer.say(1, 0, 1, 1, 1, b"")
            await peer.submit(b"ours")
            assert await peer.accepted() == (0, 1, b"ours")
        counters = cluster["n1"].gateway.counters
        assert counters["foreign_proposals"] == 2
        assert counters["unexpected_messages"] == 1


async def test_a_learner_that_takes_nothing_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It costs a bounded amount, gets all when it reads again, and is closed when it never does."""
    async with gateways(tmp_path) as cluster, trio.open_nursery() as nursery:
        gateway = cluster["n1"].gateway
        async with Peer.connect(cluster.conf.acceptors[0]) as slow:
            await narrow(slow, cluster)
            learner = Learner(cluster.conf.acceptors)
            nursery.start_soon(learner.run)
            async with Peer.connect(cluster.conf.proposers[0]) as client:
                for _ in range(10):
                    await client.submit(*([b"x" * 1000] * 100))
                await learner.wait(1000)
            behind = [c for c in gateway._connections.values() if c.out_bytes]
            assert len(behind) == 1
            assert behind[0].out_bytes < 1 << 20
            assert [(await slow.accepted())[1] for _ in range(1000)] == list(range(1, 1001))
        async with Peer.connect(cluster.conf.acceptors[0]) as slow:
            await narrow(slow, cluster)
            await slow.say(5, 1, 1)
            await until(lambda: any(c.out_bytes for c in gateway._connections.values()))
            gateway.say_state()
            monkeypatch.setattr(gateway_module, "STALL_S", -1.0)
            gateway.say_state()
            assert gateway.counters["stalled"] == 1
        nursery.cancel_scope.cancel()


async def test_a_learner_goes_on_whatever_it_was_that_sent_the_last_bytes(tmp_path: Path) -> None:
    """Not only when the socket has room again: a message of its own may find the room first."""
    async with gateways(tmp_path) as cluster:
        gateway = cluster["n1"].gateway
        async with Peer.connect(cluster.conf.acceptors[0]) as slow:
            await narrow(slow, cluster)
            await slow.submit(*([b"x" * 1000] * 1000))
            store = cluster["n1"].store
            await until(lambda: store.next_iid == 1001)
            connection = next(c for c in gateway._connections.values() if c.out)
            with socket.socket(fileno=os.dup(slow.stream.socket.fileno())) as taker:
                taker.setblocking(False)
                while connection.out:
                    with suppress(BlockingIOError):
                        while True:
                            slow._unpacker.feed(taker.recv(1 << 16))
                    gateway._send(connection)
            with trio.fail_after(PATIENCE_S):
                assert [(await slow.accepted())[1] for _ in range(1000)] == list(range(1, 1001))


async def narrow(peer: Peer, cluster: Gateways) -> None:
    """Little fits between a peer and its gateway."""
    peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 32768)
    port = peer.stream.socket.getsockname()[1]
    found: list[socket.socket] = []

    def accepted() -> bool:
        connections = cluster["n1"].gateway._connections.values()
        found.extend(c.sock for c in connections if c.sock.getpeername()[1] == port)
        return bool(found)

    await until(accepted)
    found[0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 32768)


async def test_a_trim_holds_what_its_learner_may_ask_for(tmp_path: Path) -> None:
    """Beyond the usual bound; it gives way when that learner leaves, or trims further."""
    retention = Retention(1 << 20, 1 << 10)
    async with gateways(tmp_path, retention=retention) as cluster:
        store = cluster["n1"].store
        async with Peer.connect(cluster.conf.acceptors[0]) as client:
            await submit_and_wait(client, cluster, 50, b"")
            async with Peer.connect(cluster.conf.acceptors[1]) as learner:
                await learner.say(6, 20)
                await until(lambda: cluster["n1"].gateway.counters["trims"] == 1)
                await submit_and_wait(client, cluster, 1500, b"x" * 1000)
                assert store.low_iid <= 21
                await learner.say(6, 1000)
                await until(lambda: cluster["n1"].gateway.counters["trims"] == 2)
                await submit_and_wait(client, cluster, 200, b"y" * 1000)
                assert 21 < store.low_iid <= 1001
                low = store.low_iid
            await submit_and_wait(client, cluster, 300, b"z" * 1000)
            assert store.low_iid > low
            cluster["n1"].gateway.say_state()
        async with Peer.connect(cluster.conf.acceptors[0]) as late:
            await late.accepted()
            await late.say(5, 1, 11)
            await until(lambda: cluster["n1"].gateway.counters["repeats_trimmed"] == 1)


async def submit_and_wait(client: Peer, cluster: Gateways, count: int, value: bytes) -> None:
    store = cluster["n1"].store
    wanted = store.next_iid + count
    for k in range(0, count, 25):
        await client.submit(*(value + b"%d" % j for j in range(k, min(k + 25, count))))
    while store.next_iid < wanted:
        await client.hear()


async def test_the_last_instance_that_libpaxos_can_count(tmp_path: Path) -> None:
    """Its learners are told through it and no further; this project's own clients go on."""
    async with gateways(tmp_path) as cluster:
        served = cluster["n1"]
        served.gateway.last_iid = 5
        async with Peer.connect(cluster.conf.acceptors[0]) as peer:
            stream = await stream_of(cluster)
            stream.last = 5
            await peer.submit(*(b"%d" % k for k in range(8)))
            assert [(await peer.accepted())[1] for _ in range(5)] == [1, 2, 3, 4, 5]
            await until(lambda: served.store.next_iid == 9)
            await peer.submit(b"too late")
            await until(lambda: served.gateway.counters["values_beyond_last"] == 1)
            served.gateway.say_state()
            assert (await peer.hear())[0] == 7
        async with FrameClient.connect(cluster.conf.acceptors[0]) as client:
            await client.say({"ask": "deliver", "first": 4})
            head, body = await client.hear()
            assert head["next"] == 9
            assert [iid for iid, _ in unpack_delivered_untrusted(body)] == [4, 5, 6, 7, 8]


async def stream_of(cluster: Gateways) -> Stream:
    connections = cluster["n1"].gateway._connections
    await until(lambda: bool(connections))
    stream = next(iter(connections.values())).stream
    assert stream is not None
    return stream


async def test_own_clients_are_known_by_their_first_byte_at_every_port(tmp_path: Path) -> None:
    """One log: what they submit, libpaxos learners are told, and the other way round."""
    async with gateways(tmp_path) as cluster, trio.open_nursery() as nursery:
        learner = Learner(cluster.conf.acceptors)
        nursery.start_soon(learner.run)
        expected = []
        for number, address in enumerate([*cluster.conf.acceptors, *cluster.conf.proposers], 1):
            async with FrameClient.connect(address) as client:
                submit = {"ask": "submit", "id": 7, "client": 99, "number": number}
                body = pack_payloads([b"%d a" % number, b"%d b" % number])
                await client.say(submit, body)
                head, first = await client.hear()
                assert head == {"id": 7}
                assert int.from_bytes(first, "big") == 2 * number - 1
                await client.say(submit, body)
                assert await client.hear() == ({"id": 7}, b"")
                expected += [(2 * number - 1, b"%d a" % number), (2 * number, b"%d b" % number)]
        assert await learner.wait(8) == expected
        nursery.cancel_scope.cancel()


async def test_own_clients_requests(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster:
        served = cluster["n1"]
        async with FrameClient.connect(cluster.conf.proposers[0]) as client:
            await client.say({"ask": "deliver", "first": 0})
            assert await client.hear() == ({"next": 1}, pack_delivered([]))
            one = pack_payloads([b"x"])
            await client.say({"ask": "submit", "id": 1, "client": 5, "number": 2}, one)
            assert (await client.hear())[0]["error"] == "SessionLost"
            await client.say({"ask": "submit", "id": 2, "client": 5, "number": 1}, one)
            answers = [await client.hear(), await client.hear()]
            assert sorted(head.get("id", 0) for head, _ in answers) == [0, 2]  # type: ignore[type-var]  # numbers
            await client.say({"ask": "trim", "id": 3, "instance": 1})
            assert (await client.hear())[0] == {"id": 3}
            assert [c.trimmed for c in served.gateway._connections.values()] == [1]
            await client.say({"ask": "status", "id": 4})
            status = (await client.hear())[0]["status"]
            assert isinstance(status, dict)
            assert status["next_iid"] == 2
            await client.say({"ask": "sing", "id": 5})
            head, _ = await client.hear()
            assert "sing" in str(head["text"])
            with pytest.raises(EOFError):
                await client.hear()
        for hello, word in (
            ({"ask": "hello", "version": 2, "cluster": 0}, "secret"),
            ({"ask": "hello", "version": 1, "cluster": 5}, "belongs to cluster"),
        ):
            async with await trio.open_tcp_stream(*cluster.conf.proposers[0]) as stream:
                stranger = FrameClient(FrameStream(stream))
                await stranger.say(dict(hello))
                assert word in str((await stranger.hear())[0]["text"])


async def test_values_through_the_log_itself_count_as_well(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster:
        served = cluster["n1"]
        assert served.node.application is not None
        log = LocalClient(served.node.application)
        await log.submit_many([b"plain", b"LPX1 but no pack"])
        assert [v for _, v in told(served.store.values(1))] == [b"plain", b"LPX1 but no pack"]


async def test_many_connections_are_told_alike(tmp_path: Path) -> None:
    async with gateways(tmp_path, conf=new_conf(1, 0)) as cluster:
        address = cluster.conf.acceptors[0]
        streams: list[trio.SocketStream] = []
        try:
            for _ in range(60):
                streams.append(await trio.open_tcp_stream(*address))
            peers = [Peer(stream) for stream in streams]
            for k, peer in enumerate(peers):
                await peer.submit(b"%d" % k)
            heard = [[await peer.accepted() for _ in range(60)] for peer in peers]
        finally:
            for stream in streams:
                await trio.aclose_forcefully(stream)
        assert all(one == heard[0] for one in heard)
        gateway = cluster["n1"].gateway
        await until(lambda: gateway.status()["connections"] == 0)
        assert gateway.learners == 0


async def test_what_came_through_a_gateway_it_tells_as_a_majority(tmp_path: Path) -> None:
    """A learner waits for one gateway; the others tell as their own acceptors, a little later."""
    conf = new_conf(proposers=3)
    async with (
        gateways(tmp_path, 3, conf=conf) as cluster,
        Peer.connect(conf.acceptors[0]) as other, Peer.connect(conf.acceptors[1]) as own,
    ):  # fmt: skip
        await until(lambda: all(cluster[name].gateway._live for name in ("n1", "n2")))
        await own.submit(b"a", b"b")
        told = [await own.accepted() for _ in range(4)]
        assert sorted(told) == [(0, 1, b"a"), (0, 2, b"b"), (1, 1, b"a"), (1, 2, b"b")]
        assert [await other.accepted() for _ in range(2)] == [(0, 1, b"a"), (0, 2, b"b")]


@pytest.mark.parametrize(
    ("own", "acceptors", "told"),
    [
        ([0], 3, {0: (0, 1)}),
        ([2], 3, {2: (2, 0)}),
        ([1, 4], 6, {1: (1, 0, 2), 4: (4,)}),
        ([0, 1, 2], 3, {0: (0,), 1: (1,), 2: (2,)}),
        ([0], 1, {0: (0,)}),
        ([], 3, {}),
    ],
)
def test_a_majority_is_the_own_acceptors_and_as_many_others_as_it_takes(
    own: list[int], acceptors: int, told: dict[int, tuple[int, ...]]
) -> None:
    address = Address("127.0.0.1", 1)
    ports = [Port(address, k) for k in own] + [Port(address, None)]
    assert majorities(ports, acceptors) == told


# What one of them must not be able to do ----------------------------------------------------------


async def test_who_asks_for_what_is_not_there_yet_waits_and_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that is behind the one that a client has left is asked so; and anybody may."""
    looks: list[int] = []
    next_bytes = Stream.next_bytes

    def counted(stream: Stream, store: PackStore, bytes_max: int) -> bytes:
        looks.append(stream.cursor)
        return next_bytes(stream, store, bytes_max)

    monkeypatch.setattr(Stream, "next_bytes", counted)
    async with (
        gateways(tmp_path) as cluster,
        FrameClient.connect(cluster.conf.proposers[0]) as ahead,
        FrameClient.connect(cluster.conf.proposers[0]) as other,
    ):
        await ahead.say({"ask": "deliver", "first": 6})
        for number in range(50):
            await other.say({"ask": "status", "id": number})
            await other.hear()
        assert len(looks) < 10
        body = pack_payloads([b"%d" % k for k in range(1, 11)])
        await other.say({"ask": "submit", "id": 1, "client": 7, "number": 1}, body)
        found: list[tuple[int, bytes]] = []
        while len(found) < 5:
            found += unpack_delivered_untrusted((await ahead.hear())[1])
        assert found == [(k, b"%d" % k) for k in range(6, 11)]


async def test_a_learner_that_asks_very_often_is_not_told_each_time(tmp_path: Path) -> None:
    async with gateways(tmp_path) as cluster, Peer.connect(cluster.conf.acceptors[1]) as peer:
        await peer.submit(*(b"%d" % k for k in range(20)))
        for _ in range(20):
            await peer.accepted()
        await peer.stream.send_all(packed(5, 3, 3) * 5000 + packed(6, 1) + packed(6, 2))
        counters = cluster["n1"].gateway.counters
        await until(lambda: counters["trims"] == 2)
        assert counters["repeats"] == 5000
        assert counters["repeats_left_out"] > 4500
        assert (await peer.accepted())[1] == 3


async def test_no_client_can_submit_what_would_stop_every_gateway(tmp_path: Path) -> None:
    """A payload that begins as a later release's packs do, through the node's own port."""
    async with gateways(tmp_path) as cluster:
        application = cluster["n1"].node.application
        assert application is not None
        log = LocalClient(application)
        for payload in (b"LPX2", b"LPX9 and more"):
            with pytest.raises(ValueError, match="later release"):
                await log.submit(payload)
        await log.submit(b"LPX0")
        await log.submit(b"LPX")
        async with Peer.connect(cluster.conf.acceptors[1]) as peer:
            await peer.submit(b"LPX2")
            while (await peer.accepted())[2] != b"LPX2":
                pass
