"""The same on a real file system, and what only a kernel can do: locks and limits."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from p4xos.storage import (
    Forgetful,
    MemoryStorage,
    RealDisk,
    Restored,
    RoundFile,
    StorageError,
    create_mark,
)
from p4xos.storage.disk import disk_errors, write_fully
from tests.storage.helpers import CLUSTER, OWNER, new_log, open_log, records_of, reopened, vote


def test_records_and_rolls(tmp_path: Path) -> None:
    disk, directory = RealDisk(), tmp_path / "data" / "acceptor"
    log = new_log(disk, directory)
    random = Random(1)
    for counter in range(1, 200):
        log.append([vote(counter % 8 + 1, counter << 8, random.randbytes(random.randint(0, 200)))])
    assert log.counters["segments_deleted"] > 3
    assert log.disk_bytes <= 8 * 1024
    log.close()
    opened = reopened(disk, directory)
    rounds = {m.instance: m.round >> 8 for m in records_of(opened.records) if m.round}
    assert sorted(rounds.values()) == [*range(192, 200)]
    opened.log.close()


def test_a_torn_tail(tmp_path: Path) -> None:
    log = new_log(RealDisk(), tmp_path / "a")
    log.append([vote(1)])
    log.append([vote(2)])
    log.close()
    path = tmp_path / "a" / "segment-0000000001.log"
    end = len(path.read_bytes().rstrip(b"\0"))
    with path.open("r+b") as file:
        file.truncate(end - 1)
    opened = reopened(RealDisk(), tmp_path / "a")
    assert opened.cut is not None
    opened.log.append([vote(3)])
    opened.log.close()
    again = reopened(RealDisk(), tmp_path / "a")
    assert [m.instance for m in records_of(again.records)] == [1, 3]
    again.log.close()


def test_forgetful_and_memory(tmp_path: Path) -> None:
    assert isinstance(open_log(RealDisk(), tmp_path / "missing" / "too"), Forgetful)
    create_mark(tmp_path / "m", **OWNER)
    first = MemoryStorage.open(tmp_path / "m", **OWNER)
    assert isinstance(first, MemoryStorage)
    first.close()
    assert isinstance(MemoryStorage.open(tmp_path / "m", **OWNER), Forgetful)


def test_a_directory_in_use_names_the_process(tmp_path: Path) -> None:
    """Two processes never use a directory at once."""
    holder = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from p4xos.storage import RealDisk\n"
            "RealDisk().lock(Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read()",
            str(tmp_path / "lock"),
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(StorageError, match=f"in use by process {holder.pid}; stop"):
            open_log(RealDisk(), tmp_path)
        holder.kill()
    assert isinstance(open_log(RealDisk(), tmp_path), Forgetful), "the lock went with its holder"


# In a process of its own: the limit would also be that of the file that a test run writes to.
LIMITED = """
import resource, signal, sys
from pathlib import Path
from p4xos.storage import RealDisk, StorageError, create_mark
from tests.storage.helpers import OWNER, new_log, open_log, vote
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (700, 700))
directory = Path(sys.argv[1])
log = None

def told(action):
    try:
        action()
    except StorageError as error:
        print(error)
    else:
        print("nothing failed")

def fill():
    for instance in range(1, 20):
        log.append([vote(instance, value=b"x" * 100)])

create_mark(directory, **OWNER)
told(lambda: open_log(RealDisk(), directory))
log = new_log(RealDisk(), directory / "small", segment_bytes=256)
told(fill)
told(lambda: log.append([vote(20)]))
log.close()
"""


def test_a_file_size_limit_stops_the_log(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", LIMITED, str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    told = child.stdout.splitlines()
    assert (child.returncode, child.stderr, len(told)) == (0, "", 3), child
    assert "File too large; raise the file size limit" in told[0]
    assert "File too large" in told[1]
    assert "takes no more records" in told[2]
    again = open_log(RealDisk(), tmp_path / "small", segment_bytes=256)
    assert isinstance(again, Restored)
    assert records_of(again.records), "what was durable is there"
    again.log.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_named() -> None:
    disk, full = RealDisk(), Path("/dev/full")
    handle = disk.open(full, create=False)
    try:
        with (
            pytest.raises(StorageError, match="No space left on device; free some space"),
            disk_errors(full, "write"),
        ):
            write_fully(disk, handle, [b"x"], 0)
    finally:
        disk.close(handle)


def test_the_round_file(tmp_path: Path) -> None:
    path = tmp_path / "c" / "round"
    file = RoundFile(path, cluster=CLUSTER, group=1, coordinator=2)
    assert file.read() == 0
    file.write(0x102)
    assert RoundFile(path, cluster=CLUSTER, group=1, coordinator=2).read() == 0x102
    assert [p.name for p in path.parent.iterdir()] == ["round"]


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot open the acceptor's directory"):
        open_log(RealDisk(), tmp_path / "file" / "acceptor")
