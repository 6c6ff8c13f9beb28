"""TLS for clients' connections: contexts from files, and a socket that behaves like a plain one.

`TlsSocket` has the few methods that the server and `kvstore.Client` use of a non-blocking socket,
and does the handshake within the first of them, so that neither knows what is below. OpenSSL works
on the descriptor itself: it reads one record at a time and nothing ahead, so what epoll says stays
true, and a plain connection passes through none of this.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from kvstore.users import BadUsers, check_private
from p4xos.errors import P4xosError

RECORD_BYTES = 16384
"""The most that one TLS record carries."""
_OLDEST = ssl.TLSVersion.TLSv1_2


class BadTls(P4xosError):
    """Certificates or keys cannot be used; the message names the file and what to do."""


@dataclass(frozen=True)
class TlsFiles:
    """What a server needs; all PEM."""

    certificate: Path
    """Its own, with those between it and the root behind it."""
    key: Path
    client_ca: Path | None = None
    """Given: clients must show a certificate that one of these has signed."""


class ServerTls:
    """A server's certificate and key, which can be read again while it runs."""

    def __init__(self, files: TlsFiles) -> None:
        """Reads them.

        Raises:
          BadTls: with what to do.
        """
        self._files = files
        self.context = _server_context(files)
        self.expires_at = _expiry(files.certificate) or 0.0
        """Seconds since the epoch."""

    def reload(self) -> None:
        """Reads the files again, for connections to come.

        Raises:
          BadTls: they are no good; what was read before stays.
        """
        read = ServerTls(self._files)
        self.context, self.expires_at = read.context, read.expires_at

    def wrap(self, sock: socket.socket) -> TlsSocket:
        """The server's side of a new connection.

        Raises:
          OSError: the client has gone already.
        """
        sock.getpeername()  # of a client that is gone, Python would make a socket without TLS
        return TlsSocket(
            self.context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False)
        )


def client_context(
    ca: Path | None = None, certificate: Path | None = None, key: Path | None = None
) -> ssl.SSLContext:
    """For a client of the store, which checks the name or address that it connects to.

    Args:
      ca: the certificates that are trusted; None: those that this machine trusts.
      certificate: the client's own, where servers want one.
      key: of it; None: in the same file.

    Raises:
      BadTls: a file is no good.
    """
    context = ssl.create_default_context(cafile=None if ca is None else _readable(ca, "--tls-ca"))
    context.minimum_version = _OLDEST
    if certificate is not None:
        _load_pair(context, certificate, key or certificate)
    return context


class TlsSocket:
    """A non-blocking TLS connection with the methods of a plain socket."""

    def __init__(self, sock: ssl.SSLSocket) -> None:
        """Takes it over; nothing was sent yet.

        Args:
          sock: non-blocking, wrapped without a handshake.
        """
        self._socket = sock
        self.established = False
        """The handshake is over."""
        self.failure = ""
        """Why the handshake failed."""
        self._retried = 0
        """Bytes of a record that OpenSSL has made and the kernel has not taken: OpenSSL must be
        called again with just these."""

    def fileno(self) -> int:
        """The descriptor, for epoll."""
        return self._socket.fileno()

    def handshake(self) -> None:
        """Goes on with the handshake.

        Raises:
          ssl.SSLWantReadError, ssl.SSLWantWriteError: it waits for this.
          OSError: it failed.
        """
        try:
            self._socket.do_handshake()
        except ssl.SSLError:  # of which one is a ValueError too
            raise
        except ValueError as error:  # Python's own checks, as of names with a zero byte
            raise OSError(str(error)) from None
        self.established = True

    def recv(self, size: int) -> bytes:
        """What one record holds; empty: the peer has ended its side.

        Args:
          size: at least `RECORD_BYTES`, so that OpenSSL holds nothing back.

        Raises:
          BlockingIOError: nothing is there.
          OSError: the connection, or the handshake, failed. So does one whose answer to the peer
            (part of a handshake, a new key) the kernel does not take, which no peer needs that
            reads: to wait for that as well would be a state more for every connection.
        """
        assert size >= RECORD_BYTES
        try:
            if not self.established:
                self.handshake()
                # What came with its end is read next time, once the server knows who this is: epoll
                # tells of it again, since OpenSSL has not taken it from the kernel.
                raise BlockingIOError
            return self._socket.recv(size)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except BlockingIOError:
            raise
        except OSError as error:
            self.failure = reason(error)
            raise

    def send(self, data: bytes | memoryview) -> int:
        """Sends what the kernel takes; counts whole records, which a peer can read, and no others.

        Raises:
          BlockingIOError: nothing was taken.
          OSError: the connection failed.
        """
        view = memoryview(data)
        sent = 0
        while sent < len(view):
            size = self._retried or RECORD_BYTES
            try:
                sent += self._socket.send(view[sent : sent + size])
            except ssl.SSLWantWriteError:
                self._retried = min(size, len(view) - sent)
                if sent:
                    return sent
                raise BlockingIOError from None
            self._retried = 0
        return sent

    def getsockname(self) -> tuple[str, int]:
        """Our own address."""
        host, port = self._socket.getsockname()[:2]
        return host, port

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        """Of the TCP connection below."""
        return self._socket.getsockopt(level, option, size)

    def close(self) -> None:
        """Says so to the peer, if that is possible at once, and closes."""
        if self.established:
            # Nobody may be there to hear it, or what was sent has not left yet.
            with contextlib.suppress(OSError, ValueError):
                self._socket.unwrap()
        self._socket.close()


def reason(error: OSError) -> str:
    """Why a handshake or a connection failed, in a few words and without the peer's bytes."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        said = (error.reason or "").replace("_", " ").lower()
        if said in (
            "http request",
            "wrong version number",
            "unexpected message",
            "bad record type",
            "packet length too long",
            "record layer failure",
        ):
            return f"this is no TLS ({said})"
        return said or "the peer ended it"
    return os.strerror(error.errno).lower() if error.errno else str(error) or "the peer ended it"


def _server_context(files: TlsFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _OLDEST
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_CIPHER_SERVER_PREFERENCE
    _readable(files.key, "tls_key")
    try:
        check_private(files.key, files.key.stat())
    except BadUsers as error:
        raise BadTls(str(error)) from None
    _readable(files.certificate, "tls_certificate")
    _load_pair(context, files.certificate, files.key)
    if files.client_ca is not None:
        _readable(files.client_ca, "tls_client_ca")
        try:
            context.load_verify_locations(files.client_ca)
        except ssl.SSLError:
            raise BadTls(f"{files.client_ca}: there is no certificate in it; give PEM") from None
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    def no_phrase() -> str:
        raise BadTls(f"{key}: the key has a pass phrase; remove it (openssl pkey)")

    try:
        context.load_cert_chain(certificate, key, password=no_phrase)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            raise BadTls(
                f"{key}: this key does not belong to the certificate {certificate}; "
                "name the key that the certificate was made with"
            ) from None
        if _expiry(certificate, strict=False) is None:
            raise BadTls(f"{certificate}: there is no certificate in it; give PEM") from None
        said = (error.reason or "no PEM").replace("_", " ").lower()
        raise BadTls(
            f"{key}: cannot be used with {certificate} ({said}); give a private key as PEM"
        ) from None


def _readable(path: Path, key: str) -> Path:
    try:
        path.open("rb").close()
    except OSError as error:
        raise BadTls(f"{path}: cannot be read ({error.strerror}); mend it, or {key}") from None
    return path


# When a certificate ends: Python's ssl tells it of a peer's alone, so the few bytes are read here.


def _expiry(certificate: Path, *, strict: bool = True) -> float | None:
    """The end of the first certificate of a file, in seconds since the epoch.

    Args:
      certificate: PEM.
      strict: raise BadTls rather than give None where there is none.
    """
    try:
        text = certificate.read_text(encoding="latin-1")
        begin = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", begin)
        der = ssl.PEM_cert_to_DER_cert(text[begin:end] + "-----END CERTIFICATE-----")
        return _not_after(der)
    except (ValueError, IndexError):
        if strict:
            complaint = "there is no certificate in it that can be read; give PEM"
            raise BadTls(f"{certificate}: {complaint}") from None
        return None


def _not_after(der: bytes) -> float:
    """RFC 5280, section 4.1: Certificate, tbsCertificate, validity, notAfter."""
    _, outer, _ = _element(der)
    _, rest, _ = _element(outer)
    tag, _, after = _element(rest)
    if tag == 0xA0:  # the version, which the oldest leave out
        rest = after
    for _ in ("serial number", "signature", "issuer"):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    form = "%y%m%d%H%M%SZ" if tag == 0x17 else "%Y%m%d%H%M%SZ"
    return datetime.strptime(text.decode("ascii"), form).replace(tzinfo=UTC).timestamp()


def _element(der: bytes) -> tuple[int, bytes, bytes]:
    """The first element's tag and contents, and what follows it."""
    length, begin = der[1], 2
    if length & 0x80:
        begin += length & 0x7F
        length = int.from_bytes(der[2:begin])
    if begin + length > len(der):
        raise ValueError("cut")
    return der[0], der[begin : begin + length], der[begin + length :]
