"""What clients may take: each bound of [clients], its counter, and that others go on."""

from __future__ import annotations

import contextlib
import re
import socket
from pathlib import Path
from time import monotonic

import pytest
import trio

from kvstore import admission, reference
from kvstore.config import client_rules, endpoints, served_at, tls_endpoints
from kvstore.limits import Ages, HasOptions, Limits, ages
from p4xos.config import Cluster
from p4xos.tables import Address, ConfigError
from tests.kvstore.access import NOAUTH, connect_as, users_file
from tests.kvstore.serving import Running, pack, serving


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvstore.server.LOOK_S", 0.01)


async def alive(running: Running) -> None:
    talker = await running.connect()
    await talker.send(pack(b"ECHO", b"yes"))
    await talker.expect(b"$3\r\nyes\r\n")


def never_reads(port: int) -> socket.socket:
    """A client with a small buffer, which asks for what it will not take."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.connect(("127.0.0.1", port))
    return sock


async def counted(running: Running, name: str) -> None:
    """Until it was counted; a hang is the failure."""
    with trio.fail_after(60):
        while not running.server.counters[name]:
            await trio.sleep(0.005)


# Of known clients ---------------------------------------------------------------------------------


async def test_an_address_has_its_share(tmp_path: Path) -> None:
    async with serving(tmp_path, limits=Limits(max_per_address=2)) as running:
        first, second = await running.connect(), await running.connect()
        third = await running.connect()
        assert await third.rest() == (
            b"-ERR max number of clients from one address reached (2)\r\n"
        )
        assert running.server.counters["connections_refused_of_address"] == 1
        await first.send(pack(b"QUIT"))
        assert await first.rest() == b"+OK\r\n"
        await alive(running)
        await second.send(pack(b"PING"))
        await second.expect(b"+PONG\r\n")


async def test_who_is_silent_is_closed_and_who_speaks_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quiet: set[int] = set()

    def known(sock: HasOptions) -> Ages:
        """What the kernel says, but for clients that have been silent for an hour."""
        assert isinstance(sock, socket.socket)
        found = ages(sock)
        assert 0 <= found.received_s < 60
        return Ages(3600.0, 3600.0) if sock.getpeername()[1] in quiet else found

    monkeypatch.setattr(admission, "ages", known)
    async with serving(tmp_path, limits=Limits(idle_timeout_s=60)) as running:
        idle, busy = await running.connect(), await running.connect()
        quiet.add(idle.stream.socket.getsockname()[1])
        assert await idle.rest() == b""
        assert running.server.counters["idle_closed"] == 1
        await busy.send(pack(b"PING"))
        await busy.expect(b"+PONG\r\n")


async def test_the_kernel_knows_when_data_came() -> None:
    """tcp_info's fields are where they are believed to be."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
    ):
        peer, _ = server.accept()
        with peer:
            await trio.sleep(0.3)
            assert min(ages(peer)) >= 0.25
            began = monotonic()
            client.sendall(b"x")
            peer.recv(1)
            found = ages(peer)
            assert found.received_s <= monotonic() - began + 0.05  # it counts in ticks
            assert found.sent_s >= 0.25
            peer.sendall(b"y")
            assert ages(peer).sent_s <= monotonic() - began + 0.05


async def test_timeout_is_set_by_config(running: Running) -> None:
    talker = await running.connect()
    await talker.send(
        pack(b"CONFIG", b"SET", b"timeout", b"7") + pack(b"CONFIG", b"GET", b"timeout")
    )
    await talker.expect(b"+OK\r\n*2\r\n$7\r\ntimeout\r\n$1\r\n7\r\n")
    assert running.server.admission.idle_timeout_s == 7


async def test_who_takes_nothing_of_its_replies_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with serving(tmp_path, limits=Limits(stalled_timeout_s=1.0)) as running:
        talker = await running.connect()
        await talker.send(pack(b"SET", b"long", b"v" * (1 << 20)))
        await talker.expect(b"+OK\r\n")
        with never_reads(running.server.port) as stalled:
            stalled.sendall(pack(b"GET", b"long") * 8)
            await counted(running, "stalled_closed")
        assert running.server.connected == 1
        await alive(running)


async def test_who_looks_on_and_takes_nothing_is_closed(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.connection.OUTPUT_BYTES", 1000)
    talker = await running.connect()
    with never_reads(running.server.port) as looking:
        looking.sendall(pack(b"MONITOR"))
        while not running.server._monitors:
            await trio.sleep(0.001)
        with trio.fail_after(60):
            while not running.server.counters["outputs_overrun"]:
                await talker.send(pack(b"ECHO", b"x" * 900) * 100)
                await talker.receive(100 * len(b"$900\r\n\r\n" + b"x" * 900))
    await alive(running)


async def test_the_kernel_finds_clients_whose_machine_is_gone(running: Running) -> None:
    ((_, (listener, _)),) = running.server._listeners.items()
    assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
    assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 300


# Of newcomers -------------------------------------------------------------------------------------


async def test_who_does_not_authenticate_in_time_is_closed(tmp_path: Path) -> None:
    limits = Limits(greeting_timeout_s=0.1)
    async with serving(tmp_path, users=users_file(tmp_path), limits=limits) as running:
        known = await connect_as(running, "reader")
        silent, talks = await running.connect(), await running.connect()
        await talks.send(pack(b"PING"))
        await talks.expect(NOAUTH)
        assert await silent.rest() == await talks.rest() == b""
        assert running.server.counters["newcomers_timed_out"] == 2
        await known.send(pack(b"PING"))
        await known.expect(b"+PONG\r\n")


async def test_strangers_cannot_take_all_places(tmp_path: Path) -> None:
    limits = Limits(max_clients=4)
    async with serving(tmp_path, users=users_file(tmp_path), limits=limits) as running:
        strangers = [await running.connect() for _ in range(6)]
        for stranger in strangers[:4]:
            assert await stranger.rest() == b""
        await connect_as(running, "reader")
        await connect_as(running, "default")
        assert running.server.counters["newcomers_displaced"] > 0
        assert running.server.counters["connections_refused"] == 0


async def test_a_newcomer_gains_no_time_by_reset(tmp_path: Path) -> None:
    limits = Limits(greeting_timeout_s=0.3)
    async with serving(tmp_path, users=users_file(tmp_path), limits=limits) as running:
        talker = await running.connect()
        with contextlib.suppress(trio.BrokenResourceError), trio.fail_after(60):
            while not running.server.counters["newcomers_timed_out"]:
                await talker.send(pack(b"RESET"))
                await trio.sleep(0.01)
        assert running.server.connected == 0


async def test_newcomers_give_way_to_newer_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "NEWCOMERS_MAX", 2)
    async with serving(tmp_path, users=users_file(tmp_path)) as running:
        known = await connect_as(running, "reader")
        waiting = [await running.connect() for _ in range(3)]
        assert await waiting[0].rest() == b""
        assert running.server.counters["newcomers_displaced"] == 1
        await connect_as(running, "root")
        await known.send(pack(b"PING"))
        await known.expect(b"+PONG\r\n")


@pytest.mark.parametrize(
    ("sent", "complaint"),
    [
        (b"*17\r\n", b"unauthenticated multibulk length"),
        (b"*2\r\n$4\r\nAUTH\r\n$16385\r\n", b"unauthenticated bulk length"),
        (b"*1000000\r\n", b"unauthenticated multibulk length"),
        (b"x" * 70_000, b"too big inline request"),
    ],
)
async def test_newcomers_cannot_make_a_node_hold_much(
    tmp_path: Path, sent: bytes, complaint: bytes
) -> None:
    async with serving(tmp_path, users=users_file(tmp_path)) as running:
        talker = await running.connect()
        await talker.send(sent)
        assert await talker.rest() == b"-ERR Protocol error: %b\r\n" % complaint
        known = await connect_as(running, "default")
        await known.send(pack(b"SET", b"a", b"v" * 20_000) + pack(b"DEL", *[b"k"] * 40))
        await known.expect(b"+OK\r\n:0\r\n")


async def test_a_newcomer_that_takes_no_replies_is_closed(tmp_path: Path) -> None:
    async with serving(tmp_path, users=users_file(tmp_path)) as running:
        ((_, (listener, _)),) = running.server._listeners.items()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)  # connections inherit it
        with never_reads(running.server.port) as greedy, trio.fail_after(60):
            greedy.setblocking(False)
            while not running.server.counters["newcomers_too_large"]:
                with contextlib.suppress(OSError):  # full, or closed at last
                    greedy.send(b"PING\r\n" * 10_000)
                await trio.sleep(0.001)
        await connect_as(running, "root")


async def test_reasons_are_told_seldom(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Anybody can be turned away a million times; the log does not fill."""
    async with serving(tmp_path, limits=Limits(max_clients=1)) as running:
        kept = await running.connect()
        await kept.send(pack(b"PING"))
        await kept.expect(b"+PONG\r\n")
        for _ in range(50):
            refused = await running.connect()
            await refused.rest()
            refused.stream.socket.close()
        assert running.server.counters["connections_refused"] == 50
        assert caplog.text.count("is turned away") == 1


# The cluster file ---------------------------------------------------------------------------------

STORE = """
[[kvstore]]
node = "n1"
address = "127.0.0.1:7101"
tls_address = "127.0.0.1:7201"

[[kvstore]]
node = "n2"
tls_address = "127.0.0.1:7202"
"""
CLIENTS = """
[clients]
users = "users.txt"
tls_certificate = "/tls/node.pem"
tls_key = "node-key.pem"
max_clients = 5
"""


def parse(text: str) -> Cluster:
    base = Cluster.template(3, 7101, cluster_id=7).to_toml()
    return Cluster.parse(base + text, "test.toml", Path("/etc/p4xos"))


def test_both_ports_and_files_are_read() -> None:
    cluster = parse(STORE + CLIENTS)
    assert endpoints(cluster) == {
        "n1": Address("127.0.0.1", 7101), "n2": Address("127.0.0.1", 7202),
    }  # fmt: skip
    assert tls_endpoints(cluster)["n1"] == Address("127.0.0.1", 7201)
    assert served_at(cluster)["n2"].address is None
    rules = client_rules(cluster)
    assert rules.users == Path("/etc/p4xos/users.txt")
    assert rules.tls is not None
    assert rules.tls.certificate == Path("/tls/node.pem")
    assert rules.limits == Limits(max_clients=5)
    again = Cluster.parse(cluster.to_toml(), "again.toml", Path("/etc/p4xos"))
    assert client_rules(again) == rules
    assert client_rules(parse("")).limits == Limits()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (STORE, r'\[clients\], "tls_certificate": .*a \[\[kvstore\]\] has a tls_address'),
        ('[clients]\ntls_key = "a"\n', '"tls_certificate": the key is missing'),
        ('[clients]\ntls_certificate = "a"\n', '"tls_key": the key is missing'),
        ('[clients]\nuser = "a"\n', 'did you mean "users"'),
        ('[clients]\nusers = ""\n', "name the file"),
        ("[clients]\nmax_clients = 0\n", "a whole number from 1"),
        ("[clients]\ngreeting_timeout_s = 0\n", "a number of seconds from 0.1"),
        ("[[clients]]\n", r"allowed is a table; write it as \[clients\]"),
    ],
)
def test_mistakes_are_told(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        client_rules(parse(text))


def test_addresses_are_given_once() -> None:
    with pytest.raises(ConfigError, match="it is given twice"):
        endpoints(parse('[[kvstore]]\nnode = "n1"\naddress = "127.0.0.1:7101"\n'
                        'tls_address = "127.0.0.1:7101"\n'))  # fmt: skip


async def test_every_counter_of_the_page_exists(running: Running) -> None:
    section = reference.text().split("## Limits of a client")[1].split("\n## ")[0]
    named = set(re.findall(r"\| `(\w+)` \|$", section, re.MULTILINE))
    assert len(named) > 10
    assert named <= set(running.server.counted)
