"""libpaxos: its configuration, what its client tells, and the whole with stand-ins."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bench.errors import BenchError
from bench.peers.libpaxos import (
    LMDB_BYTES,
    PROGRAMS,
    VARIABLE,
    Libpaxos,
    Second,
    conf_text,
    parse_statistics,
)
from p4xos.tables import Address

ACCEPTORS = [Address("127.0.0.1", 8800 + k) for k in range(3)]
PROPOSER = Address("127.0.0.1", 8810)
SAID = """\
Connected to proposer
388 value/sec, 0.28 Mbps, latency min 116 us max 12203 us avg 2590 us
11531 value/sec, 8.39 Mbps, latency min 86 us max 16167 us avg 1906 us
Caught signal 2
"""

LISTENER = """#!{python}
import socket, sys
name, number = sys.argv[0].rpartition("/")[2], sys.argv[1]
for line in open(sys.argv[2]):
    words = line.split()
    if words[:2] == [name, number]:
        with socket.create_server((words[2], int(words[3]))) as server:
            while True:
                server.accept()[0].close()
"""
CLIENT = """#!{python}
import sys, time
assert sys.argv[2:] == ["-o", "16", "-v", "64"], sys.argv
print("Connected to proposer")
for values in (1, 1000, 2000, 3000):
    print(f"{{values}} value/sec, 0.28 Mbps, latency min 1 us max 3 us avg 2 us")
sys.stdout.flush()
time.sleep({sleep})
"""


def stand_ins(directory: Path, client: str) -> None:
    for name in PROGRAMS:
        program = directory / name
        text = client if name == "client" else LISTENER
        program.write_text(text.format(python=sys.executable, sleep=600))
        program.chmod(0o755)


def test_configuration_in_memory() -> None:
    assert conf_text(ACCEPTORS, PROPOSER, "memory", Path("/data")).splitlines() == [
        "acceptor 0 127.0.0.1 8800",
        "acceptor 1 127.0.0.1 8801",
        "acceptor 2 127.0.0.1 8802",
        "proposer 0 127.0.0.1 8810",
        "verbosity error",
        "tcp-nodelay yes",
        "learner-catch-up no",
        "storage-backend memory",
    ]


def test_configuration_on_disk_is_synced_and_large() -> None:
    lines = conf_text(ACCEPTORS, PROPOSER, "lmdb", Path("/data/lmdb")).splitlines()
    assert lines[-4:] == [
        "storage-backend lmdb",
        "lmdb-sync yes",
        "lmdb-env-path /data/lmdb",
        f"lmdb-mapsize {LMDB_BYTES}",
    ]


def test_statistics_of_its_client() -> None:
    assert parse_statistics(SAID) == [
        Second(388, 116, 12203, 2590),
        Second(11531, 86, 16167, 1906),
    ]


@pytest.mark.parametrize("text", ["", "Connected to proposer\n", "388 value/sec, 0.28 Mbps, lat"])
def test_no_statistics(text: str) -> None:
    assert parse_statistics(text) == []


def test_all_programs_with_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    stand_ins(tmp_path, CLIENT)
    peer = Libpaxos("libpaxos", "memory")
    assert peer.missing() is None
    peer.start(tmp_path / "run")
    assert peer.load(16, "write", 0.1) == (2000.0, None, None)
    assert peer.load(16, "write", 0.1) == (2000.0, None, None)


def test_a_client_that_is_told_nothing_makes_the_run_void(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    stand_ins(tmp_path, CLIENT.replace("(1, 1000, 2000, 3000)", "(1, 0, 0, 0)"))
    peer = Libpaxos("libpaxos", "memory")
    peer.start(tmp_path / "run")
    with pytest.raises(BenchError, match="delivered nothing; it said:\nConnected"):
        peer.load(16, "write", 0.1)


def test_a_client_that_ends_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    stand_ins(tmp_path, "#!{python}\nprint('Connection refused')\n")
    peer = Libpaxos("libpaxos", "memory")
    peer.start(tmp_path / "run")
    with pytest.raises(BenchError, match=r"client ended with status 0.*\nConnection refused"):
        peer.load(16, "write", 0.1)


def test_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert f"{VARIABLE} is not set; build libpaxos3" in str(Libpaxos("l", "memory").missing())
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert "has no acceptor, proposer, client" in str(Libpaxos("l", "memory").missing())
