"""Certificates for servers and clients of tests."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme

from kvstore.tls import TlsFiles, client_context

ENDS = datetime(2050, 1, 2, 3, 4, 5, tzinfo=UTC)


class Certificates:
    """An authority, a server's files and a client's, in a directory."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self.authority = trustme.CA(key_type=trustme.KeyType.ECDSA)
        self.ca = directory / "ca.pem"
        self.authority.cert_pem.write_to_path(self.ca)
        self.files = self.issue(directory, "server", "127.0.0.1")
        client = self.issue(directory, "client", "client@example.org")
        self.client = directory / "client-both.pem"
        self.client.write_bytes(client.key.read_bytes() + client.certificate.read_bytes())

    def issue(self, directory: Path, name: str, identity: str, ends: datetime = ENDS) -> TlsFiles:
        """A new certificate and key."""
        issued = self.authority.issue_cert(
            identity, not_before=ends - timedelta(days=20_000), not_after=ends,
            key_type=trustme.KeyType.ECDSA,
        )  # fmt: skip
        certificate, key = directory / f"{name}.pem", directory / f"{name}-key.pem"
        key.touch(mode=0o600)
        issued.private_key_pem.write_to_path(key)
        certificate.write_bytes(b"".join(p.bytes() for p in issued.cert_chain_pems))
        return TlsFiles(certificate, key)

    def client_context(self, *, shown: bool = False) -> ssl.SSLContext:
        """Of a client that trusts the authority."""
        return client_context(self.ca, self.client if shown else None)
