"""The disk as storage sees it: a Protocol, the real one, and the error of this package.

Everything that storage does to a disk goes through `Disk`, so that `p4xos.testing.disk` can crash
it at any call and lose what was not synced. What is assumed of a real disk: a write that was
followed by `sync` without an error is kept, and of a write that was not, any part may be kept;
bytes that were synced keep their content while the rest of their sector is written.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from p4xos.errors import P4xosError

Buffer = bytes | memoryview

BUFFERS_MAX = 512
"""Buffers of one vectored write; the kernel takes 1024 (IOV_MAX)."""


class StorageError(P4xosError):
    """The disk failed, or holds something that must not be used or overwritten."""

    def __init__(self, path: Path, what: str, remedy: str) -> None:
        super().__init__(f"{path}: {what}; {remedy}")
        self.path = path
        self.what = what
        self.remedy = remedy


class DirectoryInUseError(Exception):
    """Another process holds the lock; `pid` when it wrote one."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid


class Disk(Protocol):
    """What storage needs of a file system; every call raises OSError as the os module does.

    A handle is an int owned by the caller until `close`.
    """

    def make_directory(self, path: Path) -> None:
        """Makes the directory and its parents, durably; nothing when it is there."""

    def list_directory(self, path: Path) -> list[str]:
        """The names in it, in any order."""

    def read(self, path: Path) -> bytes:
        """The whole file."""

    def open(self, path: Path, *, create: bool) -> int:
        """For reading and writing; `create` empties a file that is there."""

    def allocate(self, handle: int, size: int) -> None:
        """Makes the file at least so many bytes long; what is new reads as zeros."""

    def write(self, handle: int, buffers: Sequence[Buffer], offset: int) -> int:
        """One vectored write at an offset; the bytes written, which may be fewer."""

    def truncate(self, handle: int, size: int) -> None:
        """Cuts the file."""

    def sync(self, handle: int) -> None:
        """fdatasync: what was written, and the size, are durable when it returns."""

    def close(self, handle: int) -> None:
        """Gives the handle back; syncs nothing."""

    def rename(self, source: Path, target: Path) -> None:
        """Atomically, over a target that is there; durable after `sync_directory`."""

    def unlink(self, path: Path) -> None:
        """Removes a name; durable after `sync_directory`."""

    def sync_directory(self, path: Path) -> None:
        """Names made, renamed and removed in it are durable when it returns."""

    def lock(self, path: Path) -> int:
        """Makes the file if need be and locks it until `close`; raises DirectoryInUseError."""


class RealDisk:
    """The operating system's files."""

    def make_directory(self, path: Path) -> None:
        """Like mkdir -p; each new name is synced."""
        missing = [p for p in (path, *path.parents) if not p.exists()]
        for directory in reversed(missing):
            directory.mkdir(exist_ok=True)
            self.sync_directory(directory.parent)

    def list_directory(self, path: Path) -> list[str]:
        """Calls os.listdir."""
        return os.listdir(path)

    def read(self, path: Path) -> bytes:
        """Reads it in one go."""
        return path.read_bytes()

    def open(self, path: Path, *, create: bool) -> int:
        """Calls os.open; closed on exec."""
        flags = os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if create else 0)
        return os.open(path, flags, 0o640)

    def allocate(self, handle: int, size: int) -> None:
        """Calls posix_fallocate; makes a sparse file where the file system cannot reserve."""
        try:
            os.posix_fallocate(handle, 0, size)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            if os.fstat(handle).st_size < size:  # no reservation here: a full disk shows later
                os.ftruncate(handle, size)

    def write(self, handle: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Calls pwritev."""
        return os.pwritev(handle, buffers, offset)

    def truncate(self, handle: int, size: int) -> None:
        """Calls ftruncate."""
        os.ftruncate(handle, size)

    def sync(self, handle: int) -> None:
        """Calls fdatasync."""
        os.fdatasync(handle)

    def close(self, handle: int) -> None:
        """Calls os.close."""
        os.close(handle)

    def rename(self, source: Path, target: Path) -> None:
        """Calls os.rename."""
        os.rename(source, target)

    def unlink(self, path: Path) -> None:
        """Calls os.unlink."""
        os.unlink(path)

    def sync_directory(self, path: Path) -> None:
        """Calls fsync on the directory."""
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def lock(self, path: Path) -> int:
        """Calls flock; the file holds the process id of whoever has it."""
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(handle, 0)
            os.pwrite(handle, b"%d\n" % os.getpid(), 0)
        except BlockingIOError:
            holder = os.pread(handle, 32, 0).strip()
            os.close(handle)
            raise DirectoryInUseError(int(holder) if holder.isdigit() else None) from None
        except BaseException:
            os.close(handle)
            raise
        return handle


def write_fully(disk: Disk, handle: int, buffers: Sequence[Buffer], offset: int) -> int:
    """Writes all buffers, in one call unless the disk takes fewer bytes; returns their bytes."""
    if len(buffers) > BUFFERS_MAX:
        buffers = [b"".join(buffers)]
    size = sum(memoryview(buffer).nbytes for buffer in buffers)
    written = disk.write(handle, buffers, offset)
    if written < size:
        rest = memoryview(b"".join(buffers))
        while written < size:
            count = disk.write(handle, [rest[written:]], offset + written)
            if count == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            written += count
    return size


def replace_file(disk: Disk, path: Path, content: bytes) -> None:
    """The file holds `content`, durably, when this returns; after a crash the old or the new."""
    temporary = path.with_name(path.name + TEMPORARY)
    handle = disk.open(temporary, create=True)
    try:
        write_fully(disk, handle, [content], 0)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(temporary, path)
    disk.sync_directory(path.parent)


TEMPORARY = ".tmp"
"""Ends the name of a file that is not finished; it is worth nothing after a crash."""


@contextmanager
def disk_errors(path: Path, action: str) -> Iterator[None]:
    """Turns an OSError into a StorageError that says what failed and what to do."""
    try:
        yield
    except OSError as error:
        raise disk_error(path, action, error) from error


def disk_error(path: Path, action: str, error: OSError) -> StorageError:
    """The StorageError for a failed call."""
    remedy = _REMEDIES.get(error.errno or 0, "check the disk (dmesg), then start again")
    return StorageError(path, f"cannot {action}: {error.strerror or error}", remedy)


_REMEDIES = {
    errno.ENOSPC: "free some space, then start again",
    errno.EDQUOT: "raise the quota or free some space, then start again",
    errno.EFBIG: "raise the file size limit (ulimit -f), then start again",
    errno.EACCES: "give this user the right to read and write there, then start again",
    errno.EPERM: "give this user the right to read and write there, then start again",
    errno.EROFS: "mount the file system writable, then start again",
    errno.ENOTDIR: "name a directory in the configuration, then start again",
}
