"""The peer port of a cluster with a secret: nothing is given to strangers, nothing taken from them.

SECURITY.md, "Peers and the consensus network".
"""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from p4xos import cli, inquiries, secret, service
from p4xos.client import Client
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME, Wanted, find_or_create
from p4xos.dialing import Unreachable, ask_untrusted, dial
from p4xos.errors import BadPacket, P4xosError
from p4xos.fetching import Fetch
from p4xos.framing import FrameStream, encode_frame
from p4xos.logstore import Retention
from p4xos.remote_errors import Refused
from p4xos.sealing import NONCE_BYTES, TAG_BYTES, Altered, Seal
from p4xos.secret import Secret, SecretExists
from p4xos.service import OPEN_VERSION, SEALED_VERSION, UNPROVEN, Service
from p4xos.tables import Address, ConfigError
from tests.service.clusters import Nodes, running, until

OTHER = Secret(bytes(32))
WINDOW = 64


def served(nodes: Nodes, name: str = "n1") -> Service:
    found = nodes.running[name].service
    assert found is not None
    return found


def unproven(nodes: Nodes) -> dict[str, int]:
    """Those of the reasons that have been counted."""
    counters = served(nodes).counters
    return {reason: counters[reason] for reason in UNPROVEN if counters[reason]}


def hello(version: int, cluster: int = 0, **more: object) -> dict[str, object]:
    return {"ask": "hello", "version": version, "cluster": cluster, "peer": True, **more}


# The keys ----------------------------------------------------------------------------------------


def seals(
    one: Secret = OTHER, cluster: int = 7, nonces: bytes = b"ab", said: bytes = b"hello"
) -> tuple[Seal, Seal]:
    return (
        Seal.of(OTHER, "dialing", 7, b"ab", b"hello"),
        Seal.of(one, "listening", cluster, nonces, said),
    )


def accepted(seal: Seal, data: bytes, tag: bytes) -> bool:
    try:
        seal.check_untrusted(memoryview(data), memoryview(tag))
    except Altered:
        return False
    return True


def test_keys_are_of_one_secret_cluster_connection_and_direction() -> None:
    ours, theirs = seals()
    assert accepted(theirs, b"frame", ours.tag(b"fr", b"ame"))
    assert accepted(ours, b"answer", theirs.tag(b"answer"))
    mirrored = Seal.of(OTHER, "dialing", 7, b"ab", b"hello")
    assert not accepted(mirrored, b"frame", seals()[0].tag(b"frame")), "it came from this side"
    for _, other in (
        seals(one=Secret(b"\x01" + bytes(31))), seals(cluster=8), seals(nonces=b"ac"),
        seals(said=b"jello"), seals(nonces=b"abh", said=b"ello"),
    ):  # fmt: skip
        assert not accepted(other, b"frame", seals()[0].tag(b"frame"))


@given(st.binary(min_size=1, max_size=60), st.data())
def test_no_bit_of_a_frame_may_change(data: bytes, chance: st.DataObject) -> None:
    tag = seals()[0].tag(data)
    whole = bytearray(data + tag)
    whole[chance.draw(st.integers(0, len(whole) - 1))] ^= 1 << chance.draw(st.integers(0, 7))
    assert not accepted(seals()[1], bytes(whole[: len(data)]), bytes(whole[len(data) :]))


def test_frames_are_not_repeated_left_out_or_moved() -> None:
    ours, theirs = seals()
    tags = [ours.tag(b"same") for _ in range(4)]
    assert not accepted(theirs, b"same", tags[1]), "the first one is missing"
    assert accepted(theirs, b"same", tags[0])
    assert not accepted(theirs, b"same", tags[0]), "once more"
    assert not accepted(theirs, b"same", tags[2])
    assert accepted(theirs, b"same", tags[1])


def test_a_secret_does_not_print() -> None:
    assert repr(Secret(b"k" * 32)) == str(Secret(b"k" * 32)) == "<secret>"


# The file ----------------------------------------------------------------------------------------


def created(directory: Path) -> Cluster:
    directory.mkdir(exist_ok=True)
    return find_or_create(directory, Wanted(1, 0), lambda new, _: new)


def test_a_new_cluster_has_a_secret_that_only_its_owner_reads(tmp_path: Path) -> None:
    cluster = created(tmp_path / "new")
    path = tmp_path / "new" / secret.SECRET_NAME
    assert (path.stat().st_mode & 0o777, cluster.secret) == (0o600, "file")
    found = secret.of(cluster)
    assert found is not None
    assert len(set(found.key)) > 8
    assert found.key.hex() not in (tmp_path / "new" / CLUSTER_NAME).read_text()
    assert secret.of(created(tmp_path / "new")).key == found.key  # type: ignore[union-attr]  # it has one
    assert secret.of(created(tmp_path / "two")).key != found.key  # type: ignore[union-attr]  # it has one


def test_creation_that_was_interrupted_keeps_the_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(path: Path) -> None:
        secret_create(path)
        raise OSError("the power is gone")

    secret_create = secret.create
    monkeypatch.setattr("p4xos.creation.secret.create", stop)
    with pytest.raises(OSError, match="power"):
        created(tmp_path)
    before = (tmp_path / secret.SECRET_NAME).read_bytes()
    monkeypatch.undo()
    created(tmp_path)
    assert (tmp_path / secret.SECRET_NAME).read_bytes() == before


def test_what_is_wrong_with_the_file_is_said(tmp_path: Path) -> None:
    cluster = created(tmp_path)
    path = tmp_path / secret.SECRET_NAME
    good = path.read_text()
    path.chmod(0o640)
    with pytest.raises(ConfigError, match=r"mode 0640.*chmod 600"):
        secret.of(cluster)
    path.chmod(0o600)
    for bad in ("", good[:-2], good + "x", good.upper(), "0" * 5000, "\xff" * 80):
        path.write_text(bad, encoding="latin-1")
        with pytest.raises(ConfigError, match="no secret of a cluster") as caught:
            secret.of(cluster)
        assert good.split()[-1] not in str(caught.value)
    path.unlink()
    with pytest.raises(ConfigError, match=r"missing.*copy it here"):
        secret.of(cluster)
    assert secret.of(replace(cluster, secret="none")) is None


def test_an_older_cluster_gets_one_by_a_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / CLUSTER_NAME
    cluster = Cluster.template(1, directory=tmp_path)
    file.write_text(cluster.to_toml())
    assert secret.of(Cluster.load(file)) is None
    assert cli.main(["secret", "--cluster", str(file)]) == 0
    found = secret.of(Cluster.load(file))
    assert found is not None
    told = capsys.readouterr()
    assert "copy it beside the cluster file" in told.out
    assert found.key.hex() not in told.out + told.err
    assert cli.main(["secret", "--cluster", str(file)]) == 1, "never a second one"
    assert secret.of(Cluster.load(file)).key == found.key  # type: ignore[union-attr]  # it has one
    assert not list(tmp_path.glob("*.new"))
    with pytest.raises(SecretExists):
        secret.create(secret.path_of(cluster))


# Strangers at a node -----------------------------------------------------------------------------


async def test_who_has_the_secret_is_served(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        async with Client.connect(nodes.cluster) as client:
            instance = await client.submit(bytes(100_000))
            assert (await client.recover(instance)).instance == instance
            assert (await anext(client.deliver()))[1] == bytes(100_000)
        found = await inquiries._status(nodes.cluster)
        assert "learner" in found["n1"]  # type: ignore[operator]  # a status
        assert unproven(nodes) == {}


async def test_strangers_are_told_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Without the secret, with another one, half way, and with what others have said."""
    async with running(tmp_path, nodes=1) as nodes:
        cluster, address = nodes.cluster, nodes.cluster.nodes[0].peer
        async with Client.connect(cluster, window=8) as client:
            await client.submit(b"nobody else may see this")

            with pytest.raises(Refused, match=r"has a secret and you have none; put its"):
                await dial(address, cluster.id, None)
            fetch = Fetch(cluster.id, None, address, tmp_path / "copy", peer=True)
            with pytest.raises(Refused, match="has a secret"):
                await fetch.run(0)
            assert unproven(nodes) == {"unproven_open": 2}

            with pytest.raises(Refused, match=r"cluster\.secret is another one"):
                await dial(address, cluster.id, OTHER)
            with pytest.raises(Unreachable, match=r"cluster\.secret is another one"):
                await with_other_secret(cluster, tmp_path)
            assert unproven(nodes) == {"unproven_open": 2, "unproven_wrong": 2}

            nonce = bytes(NONCE_BYTES)
            greeting = encode_frame(hello(SEALED_VERSION, nonce=nonce))
            for more in (b"", b"\x00", encode_frame({"ask": "prove"})):
                answer = await said(address, greeting + more)
                assert b"nobody else" not in answer
                assert len(answer) < 400
            # The last of these lacks a tag, and so ended inside a frame.
            assert unproven(nodes)["unproven_ended"] == 3
            await said(address, greeting + encode_frame({"ask": "prove"}) + bytes(TAG_BYTES))
            assert unproven(nodes)["unproven_wrong"] == 3
            for bad in (hello(SEALED_VERSION), hello(SEALED_VERSION, nonce=b"short")):
                assert b"nonce" in await said(address, encode_frame(bad))

            assert await client.submit(b"and all is well")
        told = [line for line in caplog.records if "did not prove" in line.getMessage()]
        assert len(told) == 1, "one line for all of them, within the time of a line"
        assert "127.0.0.1" in told[0].getMessage()
        key = secret.read(secret.path_of(cluster)).key
        assert key.hex() not in caplog.text


async def with_other_secret(cluster: Cluster, directory: Path) -> None:
    path = directory / "other.secret"
    secret.create(path)
    async with Client.connect([cluster.nodes[0].peer], secret_file=path):
        pytest.fail("it was let in")


async def said(address: Address, data: bytes) -> bytes:
    """All that a node says to these bytes, until it closes."""
    answer = b""
    async with await trio.open_tcp_stream(*address) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        try:
            while more := await stream.receive_some():
                answer += more
        except trio.BrokenResourceError:
            pass
    return answer


async def test_what_was_recorded_is_of_no_use(tmp_path: Path) -> None:
    """All bytes of a good connection, sent once more."""
    async with running(tmp_path, nodes=1) as nodes:
        async with between(nodes, forward) as (place, recorded):
            await ask_status(place, nodes.cluster.id, secret.of(nodes.cluster))
        before = served(nodes).counters["requests"]
        await said(nodes.cluster.nodes[0].peer, bytes(recorded))
        assert served(nodes).counters["requests"] == before
        assert unproven(nodes) == {"unproven_wrong": 1}


async def test_bounds_before_the_proof(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bytes, time, and connections from machines that are not the cluster's."""
    monkeypatch.setattr(service, "STRANGERS_MAX", 2)
    monkeypatch.setattr(service, "HELLO_S", 0.2)
    async with running(tmp_path, nodes=1) as nodes:
        address, node = nodes.cluster.nodes[0].peer, served(nodes)
        long = hello(SEALED_VERSION, nonce=bytes(NONCE_BYTES), more=bytes(2000))
        assert b"too long a one" in await said(address, encode_frame(long))
        # Silent behind the hello: closed by the node, counted.
        async with await trio.open_tcp_stream(*address) as stream:
            await stream.send_all(encode_frame(hello(SEALED_VERSION, nonce=bytes(NONCE_BYTES))))
            with trio.fail_after(20):
                while await stream.receive_some():
                    pass
        assert unproven(nodes) == {"unproven_ended": 1}
        monkeypatch.setattr(service, "HELLO_S", 20.0)
        elsewhere = [await stranger(address) for _ in range(2)]
        await until(lambda: node.strangers == 2)
        third = await stranger(address)
        answer = b""
        while more := await third.receive_some():
            answer += more
        assert b"have not said who they are" in answer
        dialed = await dial(address, nodes.cluster.id, secret.of(nodes.cluster))  # a member gets in
        await dialed.frames.aclose()
        for other in (*elsewhere, third):
            await trio.aclose_forcefully(other)
        await until(lambda: node.connections == 0)
        assert (node.strangers, node.clients) == (0, 0)
        monkeypatch.setattr(service, "CONNECTIONS_MAX", 0)
        assert await said(address, b"") == b""
        assert node.counters["turned_away"] == 1


async def stranger(address: Address) -> trio.SocketStream:
    """A connection from another machine's address, as far as loopback has them."""
    sock = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    await sock.bind(("127.0.0.2", 0))
    await sock.connect(address)
    return trio.SocketStream(sock)


# Somebody in the middle --------------------------------------------------------------------------

Change = Callable[[int, bytes], bytes]


def forward(count: int, data: bytes) -> bytes:
    return data


@asynccontextmanager
async def between(
    nodes: Nodes, to_client: Change, to_node: Change = forward
) -> AsyncIterator[tuple[Address, bytearray]]:
    """Listens in the place of n1 and hands on what a change makes of it, recording one side.

    The change is told how many bytes went that way before.
    """
    recorded = bytearray()
    address = nodes.cluster.nodes[0].peer

    async def carry(
        source: trio.SocketStream, target: trio.SocketStream, change: Change, copy: bytearray
    ) -> None:
        try:
            while data := await source.receive_some():
                sent = len(copy)
                copy += data
                await target.send_all(change(sent, data))
            await target.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def serve(client: trio.SocketStream) -> None:
        node = await trio.open_tcp_stream(*address)
        async with client, node, trio.open_nursery() as nursery:
            nursery.start_soon(carry, client, node, to_node, recorded)
            nursery.start_soon(carry, node, client, to_client, bytearray())

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield Address(*listener.socket.getsockname()), recorded
        nursery.cancel_scope.cancel()


def flip(at: int) -> Change:
    """Changes one bit of the byte at this place."""

    def change(count: int, data: bytes) -> bytes:
        changed = bytearray(data)
        if count <= at < count + len(data):
            changed[at - count] ^= 1
        return bytes(changed)

    return change


async def test_a_copy_that_was_changed_on_the_way_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        async with Client.connect(nodes.cluster) as client:
            await client.submit_many([os.urandom(1000) for _ in range(200)])
        cluster, shared = nodes.cluster, secret.of(nodes.cluster)
        for at in (2000, 20_000, 60_000):
            async with between(nodes, flip(at)) as (place, _):
                fetch = Fetch(cluster.id, shared, place, tmp_path / "copy", peer=True)
                with pytest.raises((Altered, P4xosError), match=r"changed|took longer|prove"):
                    await fetch.run(0)
        async with between(nodes, forward) as (place, _):
            fetch = Fetch(cluster.id, shared, place, tmp_path / "copy", peer=True)
            assert await fetch.run(0) == nodes.delivered("n1")


async def ask_status(address: Address, cluster: int, shared: Secret | None) -> None:
    dialed = await dial(address, cluster, shared)
    try:
        await ask_untrusted(dialed, {"ask": "status", "id": 1})
    finally:
        await dialed.frames.aclose()


async def test_a_request_that_was_changed_on_the_way_does_nothing(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1) as nodes:
        shared = secret.of(nodes.cluster)
        greeting = len(encode_frame(hello(SEALED_VERSION, nodes.cluster.id, nonce=bytes(32))))
        proof = len(encode_frame({"ask": "prove"})) + TAG_BYTES
        for at, counted in ((greeting + 10, "unproven_wrong"), (greeting + proof + 20, "altered")):
            async with between(nodes, forward, flip(at)) as (place, _):
                with pytest.raises(P4xosError, match=r"prove|changed, repeated or left out"):
                    await ask_status(place, nodes.cluster.id, shared)
            assert any(counted in reason for reason in unproven(nodes))
        # In the hello itself: a peer is made a client, which only the keys can tell.
        async with between(nodes, forward, flip(greeting - NONCE_BYTES - 9)) as (place, _):
            with pytest.raises(P4xosError):
                await dial(place, nodes.cluster.id, shared, peer=True)


# A node that is none -----------------------------------------------------------------------------


@asynccontextmanager
async def impostor(answer: Callable[[FrameStream], Awaitable[None]]) -> AsyncIterator[Address]:
    """Somebody who listens where a node should, and has no secret."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            with suppress(BadPacket, trio.BrokenResourceError):
                await answer(FrameStream(stream))

    async with trio.open_nursery() as nursery:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        yield Address(*listener.socket.getsockname())
        nursery.cancel_scope.cancel()


WELCOME = {"node": "n1", "version": OPEN_VERSION, "cluster": 7, "log": ""}


async def open_answer(frames: FrameStream) -> None:
    """As a node without a secret would: the downgrade."""
    await frames.receive_untrusted()
    frames.post(WELCOME)
    frames.post({"copy": 1, "through": 9, "files": {"CURRENT": 1}})
    await frames.flush()
    await frames.receive_untrusted()


async def unsealed_answer(frames: FrameStream) -> None:
    """Goes on behind the nonces without any proof."""
    await frames.receive_untrusted()
    frames.post({"cluster": 7, "nonce": bytes(NONCE_BYTES)})
    frames.post(WELCOME, bytes(TAG_BYTES))
    await frames.flush()
    await frames.receive_untrusted()


async def guessed_answer(frames: FrameStream) -> None:
    """Seals with a secret of its own."""
    said = await frames.receive_untrusted()
    assert said is not None
    frames.post({"cluster": 7, "nonce": bytes(NONCE_BYTES)})
    frames.seal = Seal.of(Secret(b"\x02" * 32), "listening", 7, bytes(64), b"")
    frames.post(WELCOME)
    await frames.flush()
    await frames.receive_untrusted()


async def reflected_answer(frames: FrameStream) -> None:
    """Sends back what it gets, nonce and proof."""
    said = await frames.receive_untrusted()
    assert said is not None
    frames.post({"cluster": 7, "nonce": said.head["nonce"]})
    await frames.flush()
    await frames.stream.send_all(await frames.stream.receive_some())


async def error_answer(frames: FrameStream) -> None:
    """An error, with what would make a line of its own in a log."""
    await frames.receive_untrusted()
    frames.post({"error": "Refused", "text": "no\n2026-11-21 all is well"})
    await frames.flush()


@pytest.mark.parametrize(
    "answer",
    [open_answer, unsealed_answer, guessed_answer, reflected_answer, error_answer],
)
async def test_a_forged_copy_is_not_fetched(
    tmp_path: Path, answer: Callable[[FrameStream], Awaitable[None]]
) -> None:
    async with impostor(answer) as address:
        with pytest.raises(P4xosError) as caught:
            await Fetch(7, OTHER, address, tmp_path / "copy", peer=True).run(0)
        assert not (tmp_path / "copy").exists()
        assert "\n" not in str(caught.value)


async def test_a_node_takes_nothing_from_an_impostor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node that is behind asks the others, of whom one is none: it catches up from the good."""
    async with running(tmp_path, window=WINDOW, retention=Retention(1 << 30, WINDOW)) as nodes:
        peers = [nodes.cluster.node(name).peer for name in ("n1", "n2")]
        await nodes.stop("n3")
        async with Client.connect(peers, secret_file=nodes.secret_file) as client:
            await client.submit_many([b"x" * 100] * 10 * WINDOW)
        async with impostor(open_answer) as address:
            moved = replace(
                nodes.cluster,
                nodes=tuple(
                    replace(node, peer=address) if node.name == "n1" else node
                    for node in nodes.cluster.nodes
                ),
            )
            monkeypatch.setattr(nodes, "cluster", moved)
            await nodes.start("n3")
            await until(lambda: nodes.delivered("n3") >= 8 * WINDOW)
            catch_up = nodes.running["n3"].catch_up
            assert catch_up is not None
            assert catch_up.counters["peer_failures"] >= 1
            assert catch_up.counters["copies_installed"] >= 1


async def test_one_side_without_the_secret_is_told_what_to_do(tmp_path: Path) -> None:
    async with running(tmp_path, nodes=1, sealed=False) as nodes:
        address = nodes.cluster.nodes[0].peer
        with pytest.raises(Refused, match="node n1 has no secret and you have one; put"):
            await dial(address, nodes.cluster.id, OTHER)
        async with Client.connect(nodes.cluster) as client:  # as before there were secrets
            assert await client.submit(b"value")
        assert served(nodes).counters["refused"] == 1


def test_a_secret_of_another_owner_may_be_read_by_the_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a container gets: root's file, and the group of the process."""
    path = tmp_path / secret.SECRET_NAME
    secret.create(path)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    path.chmod(0o640)
    assert secret.read(path).key
    for mode in (0o660, 0o644, 0o606):
        path.chmod(mode)
        with pytest.raises(ConfigError, match="chmod 600"):
            secret.read(path)
