"""What programs do with what the interface hands them; settings and addresses of paxos.conf."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import trio

from tests.libpaxos_c.building import build_program, environment
from tests.libpaxos_c.stand_in import StandIn

VALUES = [b"one", b"two", b"three", b"four", b"five", b"six"]
LINES = [f"{iid} {value.decode()}" for iid, value in enumerate(VALUES, 1)]


@pytest.fixture(scope="module")
def handles(programs: Path) -> Path:
    return build_program(Path(__file__).with_name("handles.c"), programs)


def told_by(program: Path, *arguments: object) -> list[str]:
    """What it prints, to its end."""
    done = subprocess.run(
        [str(program), *map(str, arguments)],
        capture_output=True, text=True, check=False, env=environment(),
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


async def told_with(log: StandIn, directory: Path, program: Path, word: str) -> list[str]:
    """The same with a log that serves it."""
    async with log.serving(directory) as config:
        return await trio.to_thread.run_sync(told_by, program, word, config)


@pytest.mark.parametrize(
    ("word", "lines"),
    [
        ("free-inside", LINES[:3]),
        ("free-replica-inside", LINES[:3]),
        ("go-back", [*LINES[:3], *LINES[1:3]]),
        ("go-on", LINES[4:6]),
        ("trim-inside", LINES),
        ("base-first", LINES[:2]),
    ],
)
async def test_handles(handles: Path, tmp_path: Path, word: str, lines: list[str]) -> None:
    """Freed inside of the callback, and behind their event_base; sent back, and ahead."""
    log = StandIn()
    log.append(*VALUES)
    assert (await told_with(log, tmp_path, handles, word))[: len(lines)] == lines


async def test_a_learner_misses_nothing_that_is_submitted_behind_its_init(
    handles: Path, tmp_path: Path
) -> None:
    """With `learner-catch-up no`, however late its loop begins."""
    log = StandIn()
    log.append(*VALUES)
    async with log.serving(tmp_path) as config:
        config.write_text(config.read_text() + "learner-catch-up no\n")
        lines = await trio.to_thread.run_sync(told_by, handles, "from-now", config)
    assert lines == ["7 of mine"]
    assert log.first_asked == [0, 7]


async def test_submit_waits_for_the_cluster(handles: Path, tmp_path: Path) -> None:
    """24 MiB without a turn of the loop: 16 are pending at most, nothing is lost."""
    log = StandIn()
    assert await told_with(log, tmp_path, handles, "back-pressure") == ["1 settled 24 refused 1"]
    assert len(log.values) == 24


def test_roles_and_addresses(handles: Path, tmp_path: Path) -> None:
    """An id that the file does not have is refused; nothing has to listen."""
    config = tmp_path / "paxos.conf"
    config.write_text(
        "# roles apart\n\na 0 127.0.0.1 18001\nacceptor 1 127.0.0.1 18002 # the second\n"
        "\tacceptor 2 127.0.0.1 18003\nproposer 0 127.0.0.1 18004\np 1 10.0.0.1 18005\n"
    )
    assert told_by(handles, "roles", config) == [
        "1 1 0 0 0",
        "proposer 1 10.0.0.1:18005",
        "proposer 77 0.0.0.0:0",
        "3 acceptors, the first at 18001, quorum 2",
    ]


def test_settings(handles: Path, tmp_path: Path) -> None:
    """Every option of libpaxos; what the file does not name keeps its default."""
    config = tmp_path / "paxos.conf"
    config.write_text("replica 0 127.0.0.1 18001\n")
    assert told_by(handles, "settings", config) == ["1: 1 1 1 1 128 0 0 0 - 10485760"]
    config.write_text(
        "replica 0 127.0.0.1 18001\nverbosity debug\ntcp-nodelay no\nlearner-catch-up no\n"
        "proposer-timeout 10\nproposer-preexec-window 1024\nstorage-backend lmdb\n"
        "acceptor-trash-files yes\nlmdb-sync yes\nlmdb-env-path /tmp/a\nlmdb-mapsize 2 GB\n"
    )
    assert told_by(handles, "settings", config) == ["1: 3 0 0 10 1024 1 1 1 /tmp/a 2147483648"]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("replica 0 127.0.0.1 1\nreplica one 127.0.0.1 1\n", ":2:9: an id has to stand here"),
        ("replica 0 localhost 1\n", ":1:11: an IPv4 address has to stand here"),
        ("acceptor 0 127.0.0.1 65536\n", ":1:22: a port has to stand here"),
        ("acceptor 0 127.0.0.1\n", ":1:21: a port has to stand here"),
        ("acceptor 0 127.0.0.1 1 2\n", ":1:24: nothing more belongs on this line"),
        ("  verbosity loud\n", ":1:13: quiet, error, info or debug has to stand here"),
        ("lmdb-mapsize 10tb\n", ":1:14: a size has to stand here"),
        ("lmdb-mapsize 18446744073709551615gb\n", ":1:14: a size has to stand here"),
        ("proposer-timeout 0\n", ":1:18: a whole number above 0 has to stand here"),
        ("acceptors 0 127.0.0.1 1\n", ":1:1: this is neither a role nor an option"),
        ("acceptor 0 127.0.0.1 1\n" * 11, ":11:22: there are ten of this kind already"),
        ("#" + "x" * 5000 + "\n", ":1:1: this line is longer than"),
        ("verbosity error\n", ": no acceptor and no replica is named"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(
    handles: Path, tmp_path: Path, text: str, complaint: str
) -> None:
    config = tmp_path / "paxos.conf"
    config.write_text(text)
    told = told_by(handles, "settings", config)
    assert f"{config}{complaint}" in told[0]
    assert told[1].startswith("0:")


def test_a_file_that_is_not_there(handles: Path, tmp_path: Path) -> None:
    told = told_by(handles, "settings", tmp_path / "none.conf")
    assert "none.conf: No such file or directory" in told[0]
