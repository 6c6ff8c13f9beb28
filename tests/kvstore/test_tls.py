"""TLS on a port of its own: what works, what is refused, and what it costs others."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
import redis
import trio

from kvstore import Client, admission
from kvstore import tls as tls_module
from kvstore.client import Unavailable
from kvstore.limits import Limits
from kvstore.shell import Shell
from kvstore.tls import RECORD_BYTES, BadTls, ServerTls, TlsFiles, TlsSocket, client_context
from tests.kvstore.access import auth, password_of, users_file
from tests.kvstore.certificates import ENDS, Certificates
from tests.kvstore.serving import Running, pack, serving

T = TypeVar("T")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("tls") / "files")


@pytest.fixture
async def guarded(tmp_path: Path, certificates: Certificates) -> AsyncIterator[Running]:
    async with serving(tmp_path, tls=ServerTls(certificates.files)) as running:
        yield running


async def in_thread(call: Callable[[], T]) -> T:
    return await trio.to_thread.run_sync(call)


def connected(port: int, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A blocking client behind its handshake."""
    sock = socket.create_connection(("127.0.0.1", port), 20)
    return context.wrap_socket(sock, server_hostname="127.0.0.1")


def closed_by(sock: socket.socket) -> bytes:
    """What comes until the server closes, or breaks the connection."""
    got = b""
    with sock:
        try:
            while data := sock.recv(65536):
                got += data
        except OSError:
            pass
    return got


# It works -----------------------------------------------------------------------------------------


async def test_commands_of_all_sizes_and_pipelines(
    guarded: Running, certificates: Certificates
) -> None:
    """Values of many records, both ways; a reader that is slow in between."""
    value = os.urandom(3 << 20)

    def use() -> None:
        with connected(guarded.server.tls_port, certificates.client_context()) as client:
            sent = pack(b"SET", b"long", value) + pack(b"GET", b"long") * 3 + pack(b"PING") * 999
            client.sendall(sent)
            reply = b"$%d\r\n%b\r\n" % (len(value), value)
            expected = b"+OK\r\n" + reply * 3 + b"+PONG\r\n" * 999
            got = bytearray()
            while len(got) < len(expected):
                got += client.recv(5000)
            assert bytes(got) == expected
            client.sendall(pack(b"QUIT"))
            assert client.recv(100) == b"+OK\r\n"
            assert client.recv(100) == b""  # and a close_notify: else this raises

    await in_thread(use)
    assert guarded.server.counters["tls_handshakes"] == 1
    assert not guarded.server.admission.newcomers


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_what_comes_with_the_end_of_the_handshake(
    guarded: Running, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """A long command in one segment with it: the bounds of newcomers are not for it."""
    context = certificates.client_context()
    context.maximum_version = version
    arrived, leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(arrived, leaving, server_hostname="127.0.0.1")
    value = b"v" * 40_000

    def use() -> None:
        with socket.create_connection(("127.0.0.1", guarded.server.tls_port), 20) as sock:
            while True:
                try:
                    client.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    sock.sendall(leaving.read())
                    arrived.write(sock.recv(65536))
            client.write(pack(b"SET", b"a", value))
            sock.sendall(leaving.read())
            while True:
                try:
                    assert client.read(100) == b"+OK\r\n"
                    break
                except ssl.SSLWantReadError:
                    data = sock.recv(65536)
                    assert data
                    arrived.write(data)

    await in_thread(use)


async def test_plain_and_tls_clients_share_a_server(
    guarded: Running, certificates: Certificates
) -> None:
    plain = await guarded.connect()
    await plain.send(pack(b"SET", b"a", b"1"))
    await plain.expect(b"+OK\r\n")
    address = ("127.0.0.1", guarded.server.tls_port)
    async with Client([address], tls=certificates.client_context()) as client:
        assert await client.get("a") == b"1"
        values = {f"k{number}": os.urandom(40_000) for number in range(100)}
        async with client.pipeline() as pipeline:
            for key, value in values.items():
                pipeline.set(key, value)
        for key, value in values.items():
            assert await client.get(key) == value


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_other_clients(
    tmp_path: Path, certificates: Certificates, version: ssl.TLSVersion
) -> None:
    """redis-cli and redis-py, with a user and with a certificate of their own."""
    files = certificates.files
    strict = ServerTls(TlsFiles(files.certificate, files.key, certificates.ca))
    if strict.context.maximum_version != version:
        strict.context.maximum_version = version
    async with serving(tmp_path, tls=strict, users=users_file(tmp_path), plain=False) as running:
        port = running.server.tls_port
        assert running.server.port == 0

        def use() -> None:
            with redis.Redis(
                port=port, host="127.0.0.1", ssl=True, ssl_ca_certs=str(certificates.ca),
                ssl_certfile=str(certificates.client), ssl_keyfile=str(certificates.client),
                username="default", password=password_of("default"),
            ) as client:  # fmt: skip
                assert client.set("a", "1")
            tls = certificates.client_context(shown=True)
            shell = Shell("127.0.0.1", port, tls=tls, credentials=("reader", password_of("reader")))
            assert shell.call([b"GET", b"a"]).raw == b"1"
            shell.close()
            if shutil.which("redis-cli"):
                said = subprocess.run(
                    ["redis-cli", "-p", str(port), "--tls", "--cacert", certificates.ca,
                     "--cert", certificates.client, "--key", certificates.client,
                     "--user", "reader", "get", "a"],
                    env={**os.environ, "REDISCLI_AUTH": password_of("reader")},
                    capture_output=True, text=True, timeout=60, check=True,
                )  # fmt: skip
                assert said.stdout == "1\n"

        await in_thread(use)
        async with Client(
            [("127.0.0.1", port)], tls=certificates.client_context(shown=True),
            username="reader", password=password_of("reader"),
        ) as client:  # fmt: skip
            assert await client.get("a") == b"1"


# It is refused ------------------------------------------------------------------------------------


async def test_a_client_without_the_certificate_that_is_wanted(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    files = certificates.files
    strict = ServerTls(TlsFiles(files.certificate, files.key, certificates.ca))
    async with serving(tmp_path, tls=strict) as running:

        def use() -> bytes:
            client = connected(running.server.tls_port, certificates.client_context())
            return closed_by(client)  # TLS 1.3: the alert comes behind the handshake

        assert await in_thread(use) == b""
        while not running.server.counters["tls_handshakes_failed"]:
            await trio.sleep(0.001)
        assert "TLS handshake failed: peer did not return a certificate" in caplog.text
        assert running.server.counters["commands_received"] == 0


@pytest.mark.parametrize("words", [b"PING\r\n", pack(b"PING"), b"GET / HTTP/1.1\r\n\r\n"])
async def test_no_tls_on_the_tls_port(
    guarded: Running, caplog: pytest.LogCaptureFixture, words: bytes
) -> None:
    def use() -> bytes:
        sock = socket.create_connection(("127.0.0.1", guarded.server.tls_port), 20)
        sock.sendall(words)
        return closed_by(sock)

    assert b"PONG" not in await in_thread(use)
    assert guarded.server.counters["tls_handshakes_failed"] == 1
    assert "its TLS handshake failed: this is no TLS" in caplog.text
    assert guarded.server.connected == 0


async def test_tls_on_the_plain_port(
    guarded: Running, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    def use() -> None:
        with pytest.raises(ssl.SSLError):
            connected(guarded.server.port, certificates.client_context())

    await in_thread(use)
    assert guarded.server.counters["tls_on_plain_port"] == 1
    assert "it speaks TLS on the port without" in caplog.text


async def test_our_client_tells_whom_it_does_not_trust(guarded: Running) -> None:
    address = ("127.0.0.1", guarded.server.tls_port)
    with pytest.raises(Unavailable, match="the certificate is not trusted"):
        async with Client([address], tls=client_context(), limit_s=0.5):
            raise AssertionError
    plain = ("127.0.0.1", guarded.server.port)
    with pytest.raises(Unavailable, match=r"this is no TLS|wrong version"):
        async with Client([plain], tls=client_context(), limit_s=0.5):
            raise AssertionError


async def test_a_handshake_has_a_time(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    """Neither a client that says nothing nor one that stops half-way stays; others do."""
    monkeypatch.setattr("kvstore.server.LOOK_S", 0.01)
    limits = Limits(greeting_timeout_s=0.1)
    async with serving(tmp_path, tls=ServerTls(certificates.files), limits=limits) as running:
        port = running.server.tls_port

        def use() -> None:
            with connected(port, certificates.client_context()) as good:
                silent = socket.create_connection(("127.0.0.1", port), 20)
                half = socket.create_connection(("127.0.0.1", port), 20)
                half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
                assert closed_by(silent) == closed_by(half) == b""
                good.sendall(pack(b"PING"))
                assert good.recv(100) == b"+PONG\r\n"

        await in_thread(use)
        assert running.server.counters["newcomers_timed_out"] == 2
        assert "has not shown who it is within 0.1 s" in caplog.text


async def test_a_silent_client_is_told_that_it_is_closed(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kvstore.server.LOOK_S", 0.01)
    limits = Limits(idle_timeout_s=0.1)
    async with serving(tmp_path, tls=ServerTls(certificates.files), limits=limits) as running:

        def use() -> bytes:
            with connected(running.server.tls_port, certificates.client_context()) as client:
                return client.recv(1)  # an end without close_notify would raise

        assert await in_thread(use) == b""
        assert running.server.counters["idle_closed"] == 1


async def test_the_oldest_of_too_many_newcomers_goes(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "NEWCOMERS_MAX", 3)
    async with serving(tmp_path, tls=ServerTls(certificates.files)) as running:
        port = running.server.tls_port

        def use() -> None:
            with connected(port, certificates.client_context()) as good:
                waiting = [socket.create_connection(("127.0.0.1", port), 20) for _ in range(4)]
                assert closed_by(waiting.pop(0)) == b""
                good.sendall(pack(b"PING"))
                assert good.recv(100) == b"+PONG\r\n"
                for sock in waiting:
                    sock.close()

        await in_thread(use)
        assert running.server.counters["newcomers_displaced"] == 1


async def test_garbage_of_any_kind_ends_its_connection_alone(guarded: Running) -> None:
    """Records that are cut, false or empty, before and behind a client's hello."""
    hello = b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00"
    messages = [b"\x00" * 100, hello, hello * 300, b"\x15\x03\x03\x00\x02\x02\x28",
                b"\x17\x03\x03\x00\x01x", b"\x16\x03\x03\xff\xff" + b"x" * 70_000,
                b"\x80\x2e"]  # fmt: skip

    def use() -> None:
        for message in messages:
            sock = socket.create_connection(("127.0.0.1", guarded.server.tls_port), 20)
            sock.sendall(message)
            sock.shutdown(socket.SHUT_WR)
            assert b"+" not in closed_by(sock)[:1]

    await in_thread(use)
    assert guarded.server.counters["tls_handshakes_failed"] == len(messages)
    assert guarded.server.connected == 0


async def test_a_client_that_is_gone_before_it_was_taken(
    guarded: Running, certificates: Certificates
) -> None:
    """A reset connection is still accepted, and cannot be wrapped."""
    for said in (b"", b"\x16\x03\x01"):
        sock = socket.create_connection(("127.0.0.1", guarded.server.tls_port), 20)
        if said:
            sock.sendall(said)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sock.close()  # the server is a task of this thread: it has not run since the connection
    with trio.fail_after(60):
        while guarded.server.counters["tls_handshakes_failed"] < 2:
            await trio.sleep(0.001)
    address = ("127.0.0.1", guarded.server.tls_port)
    async with Client([address], tls=certificates.client_context()) as client:
        assert await client.get("a") is None
    assert guarded.server.admission._addresses.total() == 0


# The socket ---------------------------------------------------------------------------------------


def pair(certificates: Certificates) -> tuple[TlsSocket, ssl.SSLSocket, socket.socket]:
    """A TLS connection of two ends in this thread, the server's with a small send buffer."""
    ours, theirs = socket.socketpair()
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    for end in (ours, theirs):
        end.setblocking(False)
    server = ServerTls(certificates.files).wrap(ours)
    client = certificates.client_context().wrap_socket(
        theirs, server_hostname="127.0.0.1", do_handshake_on_connect=False
    )
    while not server.established:
        for step in (client.do_handshake, lambda: server.recv(RECORD_BYTES)):
            try:
                step()
            except (ssl.SSLWantReadError, BlockingIOError):
                continue
    return server, client, theirs


def test_what_is_counted_as_sent_is_what_a_peer_can_read(certificates: Certificates) -> None:
    """Records that the kernel takes in part are not counted, sent once, and not made anew."""
    server, client, _ = pair(certificates)
    data = os.urandom(300_000)
    got, sent, refusals = bytearray(), 0, 0
    while len(got) < len(data):
        try:
            # What waits grows at the end meanwhile, as it does while a client reads slowly.
            sent += server.send(data[sent : sent + 3000 * (refusals + 1)])
            if sent < len(data):
                continue
        except BlockingIOError:
            refusals += 1
        with contextlib.suppress(ssl.SSLWantReadError):
            while True:
                got += client.recv(100_000)
        assert len(got) >= sent  # all that was counted has come
    assert bytes(got) == data
    assert sent == len(data)
    assert refusals > 3
    server.close()
    assert client.recv(1) == b""
    client.close()


# Files --------------------------------------------------------------------------------------------


def test_files_that_are_no_good_are_named(tmp_path: Path, certificates: Certificates) -> None:
    files = certificates.files
    other = certificates.issue(tmp_path, "other", "127.0.0.1")
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    empty.chmod(0o600)
    cases: list[tuple[TlsFiles, str]] = [
        (TlsFiles(files.certificate, other.key), "other-key.pem: this key does not belong to "),
        (TlsFiles(tmp_path / "none.pem", files.key), "none.pem: cannot be read .*tls_certificate"),
        (TlsFiles(files.certificate, tmp_path / "none.pem"), "none.pem: cannot be read .*tls_key"),
        (TlsFiles(empty, files.key), "empty.pem: there is no certificate in it"),
        (TlsFiles(files.certificate, empty), "empty.pem: cannot be used with .*give a private key"),
        (TlsFiles(files.certificate, files.key, empty), "empty.pem: there is no certificate"),
    ]
    for chosen, complaint in cases:
        with pytest.raises(BadTls, match=complaint):
            ServerTls(chosen)
    other.key.chmod(0o644)
    with pytest.raises(BadTls, match=r"its mode is 0644.*chmod 600"):
        ServerTls(TlsFiles(other.certificate, other.key))


def test_a_key_with_a_pass_phrase_is_refused_and_nobody_is_asked(
    tmp_path: Path, certificates: Certificates
) -> None:
    from cryptography.hazmat.primitives import serialization

    key: Any = serialization.load_pem_private_key(certificates.files.key.read_bytes(), None)
    locked = tmp_path / "locked.pem"
    locked.touch(mode=0o600)
    locked.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"phrase"),
        )
    )  # fmt: skip
    with pytest.raises(BadTls, match=r"locked.pem: the key has a pass phrase; remove it"):
        ServerTls(TlsFiles(certificates.files.certificate, locked))


@pytest.mark.parametrize("ends", [ENDS, datetime(2049, 12, 31, tzinfo=UTC)])
def test_when_a_certificate_ends_is_known(
    tmp_path: Path, certificates: Certificates, ends: datetime
) -> None:
    """Both forms of a date: X.509 writes years from 2050 on with four digits."""
    files = certificates.issue(tmp_path, "dated", "127.0.0.1", ends)
    assert ServerTls(files).expires_at == ends.timestamp()
    assert tls_module._expiry(files.certificate) == ends.timestamp()


async def test_certificates_are_read_again(
    tmp_path: Path, certificates: Certificates, caplog: pytest.LogCaptureFixture
) -> None:
    """Connections go on with the old one; new ones get the new; a bad one changes nothing."""
    files = certificates.issue(tmp_path, "live", "127.0.0.1")
    async with serving(tmp_path, tls=ServerTls(files)) as running:

        def shown() -> tuple[ssl.SSLSocket, bytes]:
            client = connected(running.server.tls_port, certificates.client_context())
            certificate = client.getpeercert(binary_form=True)
            assert certificate is not None
            return client, certificate

        old, first = await in_thread(shown)
        certificates.issue(tmp_path, "live", "127.0.0.1", datetime(2048, 1, 1, tzinfo=UTC))
        running.server.reload()
        assert running.server.tls is not None
        assert running.server.tls.expires_at == datetime(2048, 1, 1, tzinfo=UTC).timestamp()
        new, second = await in_thread(shown)
        assert second != first
        files.key.write_text("damaged")
        running.server.reload()
        assert running.server.counters["tls_reload_failed"] == 1
        assert "the TLS certificate stays as it was" in caplog.text
        third, same = await in_thread(shown)
        assert same == second

        def ping() -> None:
            for client in (old, new, third):
                with client:
                    client.sendall(pack(b"PING"))
                    assert client.recv(100) == b"+PONG\r\n"

        await in_thread(ping)


async def test_a_password_over_tls_then_commands(
    tmp_path: Path, certificates: Certificates
) -> None:
    """A handshake alone lets nobody in where there are users."""
    tls = ServerTls(certificates.files)
    async with serving(tmp_path, tls=tls, users=users_file(tmp_path)) as running:

        def use() -> None:
            with connected(running.server.tls_port, certificates.client_context()) as client:
                client.sendall(pack(b"PING"))
                assert client.recv(100) == b"-NOAUTH Authentication required.\r\n"
                assert len(running.server.admission.newcomers) == 1
                client.sendall(auth("reader") + pack(b"PING"))
                got = b""
                while len(got) < 12:
                    got += client.recv(100)
                assert got == b"+OK\r\n+PONG\r\n"
                assert not running.server.admission.newcomers

        await in_thread(use)
