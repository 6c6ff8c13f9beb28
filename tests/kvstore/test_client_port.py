"""A node as a process: its ports, its users and certificates, and what is read again on SIGHUP."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import redis
import trustme

from kvstore import users
from kvstore.cli import main
from kvstore.cluster import StoreApplication
from kvstore.config import endpoint
from p4xos.config import Cluster
from p4xos.creation import CLUSTER_NAME, Wanted, find_or_create
from p4xos.ports import free_addresses
from p4xos.tables import Address
from tests.kvstore.access import SECRET, password_of, quick, users_file

LIMIT_S = 60
"""Far longer than a node takes to start."""


@contextmanager
def running_node(cluster: Cluster) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """The only node of a cluster, and its log so far, which grows."""
    command = StoreApplication().command(cluster.directory / CLUSTER_NAME, "n1")
    lines: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            until(process, lines, "serves RESP")
            yield process, lines
            process.send_signal(signal.SIGTERM)
            lines += process.communicate(timeout=LIMIT_S)[0].splitlines()
            assert process.returncode == 0, lines
        finally:
            process.kill()


def until(process: subprocess.Popen[str], lines: list[str], said: str) -> None:
    """Reads the log until it says so."""
    assert process.stdout is not None
    while not lines or said not in lines[-1]:
        line = process.stdout.readline()
        assert line, f"it ended: {lines}"
        lines.append(line)


def new_cluster(directory: Path, more: str = "", tls: Address | None = None) -> Cluster:
    """A cluster of one node, with something added to its file."""
    directory.mkdir(exist_ok=True)
    wanted = Wanted(nodes=1, base_port=0, storage="memory")
    cluster = find_or_create(directory, wanted, StoreApplication().complete)
    file = directory / CLUSTER_NAME
    text = file.read_text()
    if tls is not None:
        head, behind = text.split("[[kvstore]]")
        text = f'{head}[[kvstore]]\ntls_address = "{tls}"{behind}'
    file.write_text(text + more)
    return Cluster.load(file) if more or tls else cluster


def sockets_of(pid: int) -> set[tuple[str, Address]]:
    """What a process listens on or is bound to, as the kernel tells."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        found = None
        with suppress(FileNotFoundError):  # a file that RocksDB has closed meanwhile
            found = re.fullmatch(r"socket:\[(\d+)\]", os.readlink(link))
        if found:
            inodes.add(found[1])
    bound: set[tuple[str, Address]] = set()
    for table in ("tcp", "udp", "tcp6", "udp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            columns = line.split()
            if columns[9] in inodes and (table.startswith("udp") or columns[3] == "0A"):
                host, port = columns[1].split(":")
                assert len(host) == 8, f"an IPv6 socket: {line}"
                name = socket.inet_ntoa(bytes.fromhex(host)[::-1])
                bound.add((table, Address(name, int(port, 16))))
    return bound


def test_a_node_has_the_sockets_of_the_cluster_file_and_no_others(tmp_path: Path) -> None:
    (tls,) = free_addresses(1)
    rules = '\n[clients]\ntls_certificate = "node.pem"\ntls_key = "node.pem"\n'
    cluster = new_cluster(tmp_path, rules, tls)
    issued = trustme.CA().issue_cert("127.0.0.1")
    (tmp_path / "node.pem").touch(mode=0o600)
    issued.private_key_and_cert_chain_pem.write_to_path(tmp_path / "node.pem")
    node = cluster.nodes[0]
    expected = {("tcp", node.peer), ("tcp", node.metrics), ("tcp", tls),
                ("tcp", endpoint(cluster, "n1"))}  # fmt: skip
    for _, member in cluster.members_of("n1"):
        expected.add(("udp", member.address))
    with running_node(cluster) as (process, _):
        assert sockets_of(process.pid) == expected


@contextmanager
def typed(monkeypatch: pytest.MonkeyPatch, said: str) -> Iterator[None]:
    """Standard input that is a pipe with this in it."""
    read, write = os.pipe()
    os.write(write, said.encode())
    os.close(write)
    with open(read) as stdin, monkeypatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        yield


def test_users_are_made_read_again_and_told_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """`kvstore users`, a node with the file, SIGHUP, the shell; all that is said is searched."""
    cluster = new_cluster(tmp_path, '\n[clients]\nusers = "users.txt"\n')
    file = str(tmp_path / CLUSTER_NAME)
    port = endpoint(cluster, "n1").port

    def shell(user: str, password: str, *words: str) -> tuple[int, str]:
        with monkeypatch.context() as patch:
            patch.setenv("KVSTORE_PASSWORD", password)
            code = main(["shell", "-p", str(port), "--user", user, *words])
        return code, capfd.readouterr().out

    with typed(monkeypatch, password_of("ada") + "\n"):
        assert main(["users", "add", "ada", "--rights", "write", "--cluster", file]) == 0
    told = capfd.readouterr()
    assert "added ada with the right to read and write" in told.out
    assert main(["users", "list", "--cluster", file, "--json"]) == 0
    assert capfd.readouterr().out == '{"ada": "write"}\n'
    with (
        running_node(cluster) as (process, lines),
        redis.Redis(port=port, username="ada", password=password_of("ada")) as client,
    ):
        assert client.set("a", "1")
        users.put(tmp_path / "users.txt", quick("bob", "read"))
        process.send_signal(signal.SIGHUP)
        until(process, lines, "2 users")
        assert shell("bob", password_of("bob"), "get", "a") == (0, "1\n")
        code, refused = shell("bob", password_of("bob"), "set", "a", "2")
        assert code == 1
        assert refused.startswith("NOPERM")
        code, wrong = shell("bob", f"{SECRET}-wrong", "get", "a")
        assert code == 1
        assert wrong.startswith("WRONGPASS")
        assert client.get("a") == b"1"
    said = "".join([*lines, *told, refused, wrong])
    assert SECRET not in said
    assert SECRET not in (tmp_path / "users.txt").read_text()


def test_a_node_with_damaged_users_does_not_start(tmp_path: Path) -> None:
    cluster = new_cluster(tmp_path, '\n[clients]\nusers = "users.txt"\n')
    with users_file(tmp_path).open("a") as file:
        file.write("oops\n")
    command = StoreApplication().command(cluster.directory / CLUSTER_NAME, "n1")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S)
    assert ended.returncode == 1
    assert ended.stderr.startswith(f"kvstore: {tmp_path}/users.txt, line 5: found 1 words, ")
    assert "; remove the line" in ended.stderr


@pytest.mark.parametrize(
    ("words", "said", "complaint"),
    [
        (["add", "a b", "--rights", "read"], "x\n", "is no name of a user"),
        (["add", "a"], "x\n", "the rights are missing"),
        (["add", "a", "--rights", "read"], "\n", "the password is empty"),
        (["add", "--rights", "read"], "x\n", "the name is missing"),
        (["remove", "a"], "", "cannot be read"),
        (["check"], "", "cannot be read"),
    ],
)
def test_misuse_of_users_is_told(
    tmp_path: Path, words: list[str], said: str, complaint: str,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    with typed(monkeypatch, said):
        assert main(["users", *words, "--file", str(tmp_path / "users.txt")]) in (1, 2)
    assert complaint in capsys.readouterr().err
