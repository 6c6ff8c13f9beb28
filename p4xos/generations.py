"""The directories of a RocksDB store: numbered copies, and one file that names the live one.

`CURRENT` holds the name of the generation in use and is replaced by a rename, so that a snapshot
takes the place of the old data in one step. A generation that is not named there was either never
in use or is no longer, and is removed when the store is opened.

`DURABLE` holds an instance that the data were durable through (`Reached`): less than that found in
them is damage, and no crash. `DAMAGED` is there when the data were found damaged while in use.
"""

from __future__ import annotations

import os
import shutil
import struct
from contextlib import suppress
from itertools import count
from pathlib import Path
from zlib import crc32

from p4xos.storage.disk import RealDisk

DAMAGED = "damaged"
"""Begins what is said of a store that holds something else than was written to it."""

_CURRENT = "CURRENT"
_CONDEMNED = "DAMAGED"
_DURABLE = "DURABLE"
_PREFIX = "generation-"
_REACHED = struct.Struct(">8sQI")
_REACHED_MAGIC = b"P4xReach"


def is_marked(directory: Path) -> bool:
    """Whether the store was ever in use."""
    return (directory / _CURRENT).exists()


def condemn(directory: Path, reason: str) -> None:
    """Notes that the store was found damaged while it was used: opening it may not show that.

    Raises:
      OSError: it could not be noted.
    """
    path = directory / _CONDEMNED
    path.write_text(f"{reason}\n")
    with path.open("rb") as file:
        os.fsync(file.fileno())
    _sync_directory(directory)


def condemned(directory: Path) -> str | None:
    """Why the store must not be used any more; None: nothing is known against it."""
    try:
        return (directory / _CONDEMNED).read_text(errors="replace").strip()
    except FileNotFoundError:
        return None


def set_aside(directory: Path) -> Path:
    """Gives a store another name, durably, so that a new one may begin; returns the new name."""
    for number in count(1):
        aside = directory.with_name(f"{directory.name}.{DAMAGED}-{number}")
        if not aside.exists():
            break
    directory.rename(aside)
    _sync_directory(directory.parent)
    return aside


def kept_aside(directory: Path) -> list[Path]:
    """The stores that were set aside here and are still there."""
    return sorted(directory.parent.glob(f"{directory.name}.{DAMAGED}-*"))


def first(directory: Path) -> Path:
    """Where a store's data are when nothing has taken their place yet."""
    return directory / f"{_PREFIX}000001"


def open_current(directory: Path) -> Path:
    """The directory of the live data; that of a new store does not exist yet.

    Raises:
      OSError: the directory cannot be created or read.
      ValueError: the directory is something else than a store, or damaged; with what to do.
    """
    RealDisk().make_directory(directory)
    if is_marked(directory):
        name = (directory / _CURRENT).read_text().strip()
        live = directory / name
        if not name.startswith(_PREFIX) or not live.is_dir():
            raise ValueError(
                explain(f"Corruption: {directory / _CURRENT} names {name!r}, which is not there")
            )
    else:
        strangers = [p.name for p in directory.iterdir() if not p.name.startswith(_PREFIX)]
        strangers = [name for name in strangers if name not in (f"{_CURRENT}.new", _DURABLE)]
        if strangers:
            raise ValueError(
                f"not a store, and not empty (it holds {sorted(strangers)[0]!r}); "
                "name another directory, or move what it holds away"
            )
        live = first(directory)
        shutil.rmtree(live, ignore_errors=True)  # created, but never came into use
        (directory / _DURABLE).unlink(missing_ok=True)
    drop_others(directory, live)
    return live


def mark(directory: Path, live: Path) -> None:
    """Makes `live` the generation in use, durably and in one step."""
    _sync_directory(live)
    _sync_directory(directory)  # the name of `live`, before another file names it
    _sync_directory(directory.parent)  # an earlier start may have ended before it did
    fresh = directory / f"{_CURRENT}.new"
    with fresh.open("w") as file:
        file.write(f"{live.name}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(directory / _CURRENT)
    _sync_directory(directory)


def prepare(directory: Path, live: Path, snapshot: Path) -> Path:
    """Copies a snapshot in beside the live data, durably; returns the new generation.

    RocksDB never changes a table file, so those are linked where the file system can.
    """
    number = int(live.name.removeprefix(_PREFIX)) + 1
    incoming = directory / f"{_PREFIX}{number:06}"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir()
    for source in sorted(snapshot.iterdir()):
        target = incoming / source.name
        if source.suffix == ".sst":
            try:
                target.hardlink_to(source)
            except OSError:
                shutil.copyfile(source, target)
        else:
            shutil.copyfile(source, target)
        with target.open("rb") as file:
            os.fsync(file.fileno())
    _sync_directory(incoming)
    return incoming


def drop_others(directory: Path, live: Path) -> None:
    """Removes every generation but the live one."""
    for path in directory.glob(f"{_PREFIX}*"):
        if path != live:
            shutil.rmtree(path, ignore_errors=True)


class Reached:
    """An instance that a store was durable through, in a file of 20 bytes beside the data.

    After a power cut the end of RocksDB's log may be missing, or be there in pieces; that is no
    damage, but what was synced must be there. RocksDB cannot tell the one from the other, so this
    file does: it is written behind each sync, and not synced itself, for an older one, or none, is
    also true, and merely finds less.
    """

    def __init__(self, directory: Path) -> None:
        """Opens or makes the file; OSError when it cannot."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._handle: int | None = os.open(directory / _DURABLE, flags, 0o640)
        try:
            content = os.pread(self._handle, _REACHED.size, 0)
            self.instance = 0
            """The last one written; 0 when there is none, or none that can be read."""
            if len(content) == _REACHED.size:
                magic, instance, check = _REACHED.unpack(content)
                if magic == _REACHED_MAGIC and check == crc32(content[:-4]):
                    self.instance = instance
        except BaseException:
            self.close()
            raise

    def write(self, instance: int) -> None:
        """The data are durable through this instance; OSError when it cannot be noted."""
        assert self._handle is not None, "the store is closed"
        content = _REACHED.pack(_REACHED_MAGIC, instance, 0)[:-4]
        os.pwrite(self._handle, content + crc32(content).to_bytes(4, "big"), 0)
        self.instance = instance

    def check(self, applied: int) -> str | None:
        """What is wrong with data that reach this far; None: nothing."""
        if applied >= self.instance:
            return None
        return explain(
            f"Corruption: it was durable through instance {self.instance}, and what can be read "
            f"ends at {applied}"
        )

    def close(self) -> None:
        """Gives the file back."""
        if self._handle is not None:
            with suppress(OSError):
                os.close(self._handle)
            self._handle = None


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_SIGNS_OF_DAMAGE = ("Corruption", "checksum", "No such file", "create_if_missing is false")
"""In RocksDB's messages; the last: its file CURRENT is missing where there was a database."""
START_AGAIN = (
    "move the directory away and start this node again: it then fetches a copy from the others"
)


def explain(error: Exception | str, mend: str = START_AGAIN) -> str:
    """RocksDB's or the system's message with what to do about it; `mend`: where it is damaged."""
    text = str(error)
    if "lock" in text.lower() and ("hold by" in text or "LOCK" in text):
        return f"another process uses it ({text}); stop that one, or name another directory"
    if any(sign in text for sign in _SIGNS_OF_DAMAGE):
        return f"{DAMAGED} ({text}); {mend}"
    if "No space left" in text or "Disk quota" in text:
        return f"the disk is full ({text}); make room, then start this node again"
    if "ermission denied" in text or "Read-only" in text:
        return f"not permitted ({text}); give this user the directory, or name another"
    if "File too large" in text:
        return f"a file may not grow ({text}); raise the limit (ulimit -f), then start it again"
    if "File exists" in text or "Not a directory" in text:
        return f"a file is in the way ({text}); move it away, or name another directory"
    return f"{text}; look at the disk, then start this node again"
