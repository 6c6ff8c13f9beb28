"""The directory of one acceptor: its names, its lock and the one-time mark of its creation.

    lock                  locked while a process uses the directory; holds its process id
    fresh.mark            made with the cluster: this acceptor has never run, so it has forgotten
                          nothing; without it an empty directory is that of an acceptor that forgot
    segment-<number>.log  the log; anything else does not belong here

The mark goes when the first segment is durable, and before any answer leaves
(docs/PROTOCOL.md, sections 3 and 8).
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from p4xos.storage.disk import (
    TEMPORARY,
    DirectoryInUseError,
    Disk,
    RealDisk,
    StorageError,
    disk_errors,
    replace_file,
)

LOCK_NAME = "lock"
MARK_NAME = "fresh.mark"
_SEGMENT_NAME = re.compile(r"segment-(\d{10,20})\.log")
_MARK = struct.Struct(">8sIIIII")
_MARK_MAGIC = b"P4xFresh"
_MARK_VERSION = 1
_CHECKSUM_BYTES = 4


@dataclass(frozen=True)
class Forgetful:
    """The directory does not hold all that this acceptor has promised and voted.

    The acceptor must go through docs/PROTOCOL.md, section 8. Nothing was changed on the disk.
    """

    path: Path
    reason: str
    offset: int | None = None  # bytes into the file, where a file is damaged

    def __str__(self) -> str:
        place = "" if self.offset is None else f", byte {self.offset}"
        return f"{self.path}{place}: {self.reason}"


class Owner(NamedTuple):
    """Whose directory it is."""

    cluster: int
    group: int
    acceptor: int


class Contents(NamedTuple):
    """The names in an acceptor's directory."""

    segments: list[int]  # numbers, ascending
    mark: bool
    temporary: list[str]  # unfinished files, worth nothing
    foreign: list[str]  # what does not belong there


def segment_path(directory: Path, number: int) -> Path:
    """Where a segment lies."""
    return directory / f"segment-{number:010}.log"


def read_contents(disk: Disk, directory: Path) -> Contents:
    """Sorts the names of a directory."""
    contents = Contents([], MARK_NAME in (names := disk.list_directory(directory)), [], [])
    for name in sorted(names):
        match = _SEGMENT_NAME.fullmatch(name.removesuffix(TEMPORARY))
        known = name.removesuffix(TEMPORARY) in (LOCK_NAME, MARK_NAME)
        if name.endswith(TEMPORARY) and (match or known):
            contents.temporary.append(name)
        elif match and segment_path(directory, int(match[1])).name == name:
            contents.segments.append(int(match[1]))
        elif not known:
            contents.foreign.append(name)
    contents.segments.sort()
    return contents


def lock_directory(disk: Disk, directory: Path) -> int:
    """Makes the directory if need be and locks it; the handle is the caller's to close."""
    try:
        with disk_errors(directory, "open the acceptor's directory"):
            disk.make_directory(directory)
            return disk.lock(directory / LOCK_NAME)
    except DirectoryInUseError as error:
        holder = "another process" if error.pid is None else f"process {error.pid}"
        raise StorageError(
            directory,
            f"in use by {holder}",
            "stop that process, or give this acceptor a directory of its own",
        ) from None


@contextmanager
def released_on_error(disk: Disk, handle: int) -> Iterator[None]:
    """Closes the lock when the block raises."""
    try:
        yield
    except BaseException:
        disk.close(handle)
        raise


def create_mark(
    directory: Path, *, cluster: int, group: int, acceptor: int, disk: Disk | None = None
) -> None:
    """Marks an acceptor's directory as that of a cluster just created.

    Raises StorageError when the directory is in use, or holds a mark, a log or anything else.
    """
    disk = disk or RealDisk()
    lock = lock_directory(disk, directory)
    try:
        with disk_errors(directory, "mark the acceptor as new"):
            found = read_contents(disk, directory)
            if found.mark or found.segments or found.foreign:
                what = "an acceptor's mark" if found.mark else "an acceptor's log"
                if found.foreign:
                    what = repr(found.foreign[0])
                raise StorageError(
                    directory,
                    f"already holds {what}",
                    "create the cluster in another directory, or remove this one if the acceptor "
                    "in it is no longer needed",
                )
            fields = _MARK.pack(_MARK_MAGIC, _MARK_VERSION, cluster, group, acceptor, 0)
            data = fields[:-_CHECKSUM_BYTES]
            data += crc32(data).to_bytes(_CHECKSUM_BYTES, "big")
            replace_file(disk, directory / MARK_NAME, data)
    finally:
        disk.close(lock)


def read_mark(disk: Disk, directory: Path, owner: Owner) -> Forgetful | None:
    """None when the mark is this acceptor's; StorageError when it is another's."""
    path = directory / MARK_NAME
    data = disk.read(path)
    if len(data) != _MARK.size or crc32(data[:-_CHECKSUM_BYTES]) != int.from_bytes(
        data[-_CHECKSUM_BYTES:], "big"
    ):
        return Forgetful(path, "the mark of a new acceptor is damaged", 0)
    _, version, *fields, _ = _MARK.unpack(data)
    refuse_version(path, version, _MARK_VERSION)
    refuse_other_owner(path, Owner(*fields), owner)
    return None


def remove_mark(disk: Disk, directory: Path) -> None:
    """The mark is used up, durably."""
    disk.unlink(directory / MARK_NAME)
    disk.sync_directory(directory)


def refuse_version(path: Path, found: int, known: int) -> None:
    """StorageError when a file was written in a format that this program does not know."""
    if found != known:
        raise StorageError(
            path,
            f"format version {found} was found, version {known} was expected",
            "start the release of p4xos that wrote it",
        )


def refuse_other_owner(path: Path, found: Owner, expected: Owner) -> None:
    """StorageError when a file is not that of the owner expected."""
    if found != expected:
        raise StorageError(
            path,
            f"{_name(found)} was found, {_name(expected)} was expected",
            "give each acceptor its own directory, and check the cluster file",
        )


def _name(owner: Owner) -> str:
    return f"acceptor {owner.acceptor} of group {owner.group}, cluster {owner.cluster:#010x}"
