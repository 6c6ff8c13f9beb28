"""`kvstore check` against real nodes that want TLS, a certificate and a user of each client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from bench.processes import wait_until
from bench.store_cluster import StoreCluster
from kvstore.config import endpoints
from kvstore.shell import Shell
from p4xos.creation import CLUSTER_NAME
from tests.kvstore.access import SECRET, password_of, users_file
from tests.kvstore.certificates import Certificates

LIMIT_S = 120
RULES = """
[clients]
users = "users.txt"
tls_certificate = "files/server.pem"
tls_key = "files/server-key.pem"
tls_client_ca = "files/ca.pem"
"""


class Guarded(NamedTuple):
    """A running cluster whose nodes serve nothing without TLS."""

    file: Path
    addresses: list[str]
    certificates: Certificates

    def check(
        self, *flags: object, password: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a short check; whatever it says, no password is in it."""
        environment = {**os.environ, **({"KVSTORE_PASSWORD": password} if password else {})}
        done = subprocess.run(
            [sys.executable, "-m", "kvstore", "check", "--operations", "60", *map(str, flags)],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=LIMIT_S,
            env=environment,
        )  # fmt: skip
        assert SECRET not in done.stdout + done.stderr
        return done


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    directory = tmp_path_factory.mktemp("guarded")
    StoreCluster(directory)
    file = directory / CLUSTER_NAME
    head, stores = file.read_text().split("[[kvstore]]", 1)
    stores = stores.replace("\naddress", "\ntls_address")
    file.write_text(f"{head}[[kvstore]]{stores}{RULES}")
    certificates = Certificates(directory / "files")
    users_file(directory)
    tls = certificates.client_context(shown=True)
    credentials = ("default", password_of("default"))
    with StoreCluster(directory) as store:
        for name in store.names:
            store.launch(name)
        for name in store.names:
            host, port = store.endpoint(name)
            with closing(Shell(host, port, tls=tls, credentials=credentials)) as shell:

                def written(shell: Shell = shell) -> bool:
                    try:
                        return shell.call([b"SET", b"probe", b"1"]).raw == b"OK"
                    except OSError:
                        return False

                wait_until(written, LIMIT_S, f"that {name} takes writes")
        yield Guarded(file, [str(a) for a in endpoints(store.cluster).values()], certificates)


def test_a_guarded_cluster_is_linearizable(guarded: Guarded, tmp_path: Path) -> None:
    files, history = guarded.certificates, tmp_path / "history"
    flags = ("--tls-ca", files.ca, "--tls-certificate", files.client, "--user", "default")
    done = guarded.check(
        "--cluster", guarded.file, *flags, "--json", "--history", history,
        password=password_of("default"),
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    told = json.loads(done.stdout)
    assert (told["verdict"], told["reads missing at the end"]) == ("linearizable", 0)
    assert told["outcomes"]["answered"] == told["attempts"] > 60
    assert "keys left behind" not in told
    assert SECRET not in history.read_text()


@pytest.mark.parametrize(
    ("user", "password", "complaint"),
    [
        (None, None, "NOAUTH Authentication required."),
        ("root", f"{SECRET}-wrong", "WRONGPASS"),
        ("nobody", f"{SECRET}-none", "WRONGPASS"),
        ("reader", password_of("reader"), "NOPERM"),
    ],
)
def test_a_user_who_is_not_let_in_is_told_so_at_once(
    guarded: Guarded, user: str | None, password: str | None, complaint: str
) -> None:
    files = guarded.certificates
    flags = ["--tls-ca", files.ca, "--tls-certificate", files.client]
    flags += [] if user is None else ["--user", user]
    done = guarded.check("--cluster", guarded.file, *flags, password=password)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert complaint in done.stderr
    assert done.stderr.endswith("; give --user NAME, who may write, and the right password\n")


def test_certificates_that_are_not_taken_are_told_at_once(guarded: Guarded) -> None:
    files = guarded.certificates
    untrusted = guarded.check("--cluster", guarded.file, "--tls", "--tls-certificate", files.client)
    assert "TLS: the certificate is not trusted" in untrusted.stderr
    missing = guarded.check("--cluster", guarded.file, "--tls-ca", files.ca)
    assert "certificate required" in missing.stderr
    for done in (untrusted, missing):
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
        assert done.stderr.endswith("; look at --tls-ca and --tls-certificate\n")


def test_without_tls_no_node_is_reached(guarded: Guarded) -> None:
    done = guarded.check("--cluster", guarded.file)
    assert done.returncode == 2
    assert "[[kvstore]] of n1, n2, n3 has no address: give --tls" in done.stderr
    done = guarded.check(
        *(word for address in guarded.addresses for word in ("--address", address))
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "no node answers" in done.stderr


def test_a_password_that_is_missing_is_asked_for_nowhere(guarded: Guarded) -> None:
    """Standard input is no terminal, and the environment has none."""
    done = guarded.check("--cluster", guarded.file, "--tls", "--user", "default")
    assert done.returncode == 2
    assert "the password is missing: put it into KVSTORE_PASSWORD" in done.stderr
