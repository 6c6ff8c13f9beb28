"""The directories of a RocksDB store: numbered copies, and one file that names the live one.

`CURRENT` holds the name of the generation in use and is replaced by a rename, so that a snapshot
takes the place of the old data in one step. A generation that is not named there was either never
in use or is no longer, and is removed when the store is opened.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

_CURRENT = "CURRENT"
_PREFIX = "generation-"


def is_marked(directory: Path) -> bool:
    """Whether the store was ever in use."""
    return (directory / _CURRENT).exists()


def first(directory: Path) -> Path:
    """Where a store's data are when nothing has taken their place yet."""
    return directory / f"{_PREFIX}000001"


def open_current(directory: Path) -> Path:
    """The directory of the live data; that of a new store does not exist yet.

    Raises:
      OSError: the directory cannot be created or read.
      ValueError: the directory is something else than a store, or damaged; with what to do.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if is_marked(directory):
        name = (directory / _CURRENT).read_text().strip()
        live = directory / name
        if not name.startswith(_PREFIX) or not live.is_dir():
            raise ValueError(
                f"damaged ({directory / _CURRENT} names {name!r}, which is not there); move the "
                "directory away and start this node again: it then fetches a copy from the others"
            )
    else:
        strangers = [p.name for p in directory.iterdir() if not p.name.startswith(_PREFIX)]
        strangers = [name for name in strangers if name != f"{_CURRENT}.new"]
        if strangers:
            raise ValueError(
                f"not a store, and not empty (it holds {sorted(strangers)[0]!r}); "
                "name another directory, or move what it holds away"
            )
        live = first(directory)
        shutil.rmtree(live, ignore_errors=True)  # created, but never came into use
    drop_others(directory, live)
    return live


def mark(directory: Path, live: Path) -> None:
    """Makes `live` the generation in use, durably and in one step."""
    _sync_directory(live)
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


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def explain(error: Exception | str) -> str:
    """RocksDB's or the system's message with what to do about it."""
    text = str(error)
    if "lock" in text.lower() and ("hold by" in text or "LOCK" in text):
        return f"another process uses it ({text}); stop that one, or name another directory"
    if "Corruption" in text or "checksum" in text:
        return (
            f"damaged ({text}); move the directory away and start this node again: "
            "it then fetches a copy from the others"
        )
    if "No space left" in text or "Disk quota" in text:
        return f"the disk is full ({text}); make room, then start this node again"
    if "ermission denied" in text or "Read-only" in text:
        return f"not permitted ({text}); give this user the directory, or name another"
    if "File too large" in text:
        return f"a file may not grow ({text}); raise the limit (ulimit -f), then start it again"
    if "File exists" in text or "Not a directory" in text:
        return f"a file is in the way ({text}); move it away, or name another directory"
    return f"{text}; look at the disk, then start this node again"
