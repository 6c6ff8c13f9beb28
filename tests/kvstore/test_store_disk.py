"""The store on disks that refuse, end or decay: tried for real, in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kvstore.store import Store, StoreError

CLUSTER = 7


def run_child(directory: Path, code: str) -> list[str]:
    """The lines that a Python program prints; its working directory is `directory`."""
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=directory, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


# Imports and `chdir` come first: whom root becomes may neither read this program's files nor
# search the directories above its own.
FORBIDDEN = """
import os, pickle, pwd  # pickle: rocksdict imports it when it opens a database
from pathlib import Path
from kvstore.store import Store, StoreError
if os.geteuid() == 0:
    nobody = pwd.getpwnam("nobody")
    os.setgroups([])
    os.setgid(nobody.pw_gid)
    os.setuid(nobody.pw_uid)
for name in ("new", "old"):
    try:
        Store(Path(name), 7)
    except StoreError as error:
        print(error)
"""


def test_a_forbidden_directory_is_named(tmp_path: Path) -> None:
    Store(tmp_path / "old", CLUSTER).close()
    for path in (tmp_path / "old").rglob("*"):
        path.chmod(0o555 if path.is_dir() else 0o444)
    (tmp_path / "old").chmod(0o555)
    tmp_path.chmod(0o555)
    try:
        said = run_child(tmp_path, FORBIDDEN)
    finally:
        for path in (tmp_path, tmp_path / "old", *(tmp_path / "old").glob("generation-*")):
            path.chmod(0o755)
    assert len(said) == 2
    for name, line in zip(("new", "old"), said, strict=True):
        assert line.startswith(f"store {name}: not permitted (")
        assert line.endswith("; give this user the directory, or name another")


# A value of 64 KiB a batch, as long as the disk takes it; then room, and a look at what is there.
UNTIL_FULL = """
from pathlib import Path
from kvstore.store import Store, StoreError

def until_full(make_room):
    store = Store(Path("s"), 7)
    kept = 0
    try:
        for instance in range(1, 10_000):
            store.keyspaces[0].put(b"last", b"%d" % instance)
            store.keyspaces[0].put(b"k%d" % instance, b"x" * 65536)
            store.commit(instance, {b"table": b"%d" % instance})
            kept = store.sync()
    except StoreError as error:
        print(error)
    store.abandon()
    make_room()
    store = Store(Path("s"), 7)
    applied = store.applied
    print(0 < kept <= applied, store.keyspaces[0].get(b"last") == b"%d" % applied,
          store.learner_state() == {b"table": b"%d" % applied},
          store.keyspaces[0].count() == 1 + applied)
    store.close()
"""

LIMITED_FILE = UNTIL_FULL + """
import resource
unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (4 << 20, unlimited[1]))
until_full(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, unlimited))
"""

SMALL_DISK = UNTIL_FULL + """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
NEW_MOUNTS, NEW_USER, RECURSIVE, PRIVATE = 0x20000, 0x10000000, 1 << 14, 1 << 18
disk = os.path.join(os.getcwd(), "disk").encode()
if (
    (libc.unshare(NEW_MOUNTS) and libc.unshare(NEW_MOUNTS | NEW_USER))
    or libc.mount(None, b"/", None, RECURSIVE | PRIVATE, None)
    or libc.mount(b"small", disk, b"tmpfs", 0, b"size=12m")
):
    print("no mount:", os.strerror(ctypes.get_errno()))
else:
    os.chdir("disk")
    with open("filler", "wb") as file:
        os.posix_fallocate(file.fileno(), 0, 8 << 20)
    until_full(lambda: os.unlink("filler"))
"""


def test_a_file_that_may_not_grow_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    """docs/traps.md, 14."""
    complaint, kept = run_child(tmp_path, LIMITED_FILE)
    assert re.match(r"store s: a file may not grow \(.*\); raise the limit \(ul", complaint)
    assert kept == "True True True True"


def test_a_full_disk_loses_nothing_that_was_synced(tmp_path: Path) -> None:
    """docs/traps.md, 14; on a small disk in a mount namespace of its own, gone with the process."""
    (tmp_path / "disk").mkdir()
    said = run_child(tmp_path, SMALL_DISK)
    if said[0].startswith("no mount:"):
        pytest.skip(f"neither root nor a user namespace may mount here ({said[0]})")
    complaint, kept = said
    assert re.match(r"store s: the disk is full \(.*No space left.*\); make room", complaint)
    assert kept == "True True True True"


def test_a_damaged_table_is_told_when_it_is_read(tmp_path: Path) -> None:
    """Data are not read back at the start: damage in them shows at the first look, and is loud."""
    store = Store(tmp_path / "s", CLUSTER)
    for number in range(500):
        store.keyspaces[0].put(b"key%03d" % number, b"%d" % number * 200)
    store.commit(1, {})
    store.close()  # writes the table
    (table,) = (tmp_path / "s").glob("generation-*/*.sst")
    content = bytearray(table.read_bytes())
    for position in range(len(content) // 4, len(content) // 2, 100):
        content[position] ^= 0xFF
    table.write_bytes(content)
    store = Store(tmp_path / "s", CLUSTER)

    def read_everything() -> None:
        for number in range(500):
            store.keyspaces[0].get(b"key%03d" % number)

    with pytest.raises(StoreError, match=r"damaged \(Corruption: .* move the directory away"):
        read_everything()
    store.abandon()


@pytest.mark.parametrize("content", ["generation-000007\n", "nonsense", ""])
def test_a_damaged_current_file_is_named(tmp_path: Path, content: str) -> None:
    Store(tmp_path / "s", CLUSTER).close()
    (tmp_path / "s" / "CURRENT").write_text(content)
    with pytest.raises(StoreError, match=r"damaged \(.*CURRENT names .* move the directory away"):
        Store(tmp_path / "s", CLUSTER)
