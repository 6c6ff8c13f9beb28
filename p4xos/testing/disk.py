"""A disk in memory that can crash, fill up and fail (`p4xos.storage.disk.Disk`).

It keeps two states: what a reader sees, and what would survive. A write reaches the second with
`sync`, a name with `sync_directory`. `crash` keeps any part of what was not synced: of files each
sector on its own, of directories each change on its own, which is harsher than a journal. `kill`
ends the process only: what was written stays visible, and not durable.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from p4xos.storage.disk import Buffer, DirectoryInUseError

SECTOR_BYTES = 512


class SimulatedCrash(BaseException):
    """The machine stops within a call. Not an Exception: nothing may handle it as an error."""


@dataclass
class _File:
    """One file; `pending` are changes since the last sync, as functions of the durable bytes."""

    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    pending: list[Callable[[bytearray], None]] = field(default_factory=list)

    def change(self, changes: Sequence[Callable[[bytearray], None]]) -> None:
        for apply in changes:
            apply(self.seen)
        self.pending.extend(changes)


_Names = dict[Path, _File]


class SimulatedDisk:
    """Deterministic; `calls` names every call that changes something, in order.

    Attributes:
      crash_at: index into `calls` at which SimulatedCrash is raised, or None.
      failures: OSError numbers by index into `calls`; the call has no effect, except that a failed
        sync gives up what it should have kept, as Linux does: it stays visible until a crash.
      capacity_bytes: a write or reservation beyond it fails with ENOSPC, or None.
    """

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.crash_at: int | None = None
        self.failures: dict[int, int] = {}
        self.capacity_bytes: int | None = None
        self._down = False
        self._names: _Names = {}
        self._durable_names: _Names = {}
        self._pending_names: list[tuple[Path, Callable[[_Names], object]]] = []  # with directory
        self._directories: set[Path] = set()
        self._handles: dict[int, tuple[Path, _File]] = {}
        self._next_handle = 1
        self._locked: set[Path] = set()

    # What a test does to the disk --------------------------------------------------------------

    def crash(self, keep: Callable[[], bool]) -> None:
        """The machine stops and starts again; `keep` decides on each piece not synced."""
        for _, change in self._pending_names:
            if keep():
                change(self._durable_names)
        self._pending_names.clear()
        files = [*self._names.values(), *self._durable_names.values()]
        for file in {id(file): file for file in files}.values():
            for apply in file.pending:
                if keep():
                    apply(file.durable)
            file.pending.clear()
            file.seen = bytearray(file.durable)
        self._names = dict(self._durable_names)
        self.kill()

    def crash_randomly(self, random: Random) -> None:
        """Loses all, nothing or any part of what was not synced."""
        share = random.choice((0.0, 0.5, 0.9, 1.0))
        self.crash(lambda: random.random() < share)

    def kill(self) -> None:
        """The process stops: handles and locks are gone, everything written stays visible."""
        self._handles.clear()
        self._locked.clear()
        self._down = False
        self.crash_at = None
        self.failures.clear()

    def files(self) -> dict[Path, bytes]:
        """What a reader sees."""
        return {path: bytes(file.seen) for path, file in self._names.items()}

    def put(self, path: Path, content: bytes) -> None:
        """Makes a file with this content, durably."""
        self._directories.add(path.parent)
        file = _File(bytearray(content), bytearray(content))
        self._names[path] = self._durable_names[path] = file

    def remove(self, path: Path) -> None:
        """Removes a file, durably."""
        del self._names[path], self._durable_names[path]

    # What storage does -------------------------------------------------------------------------

    def make_directory(self, path: Path) -> None:
        """Durable at once."""
        self._directories.update((path, *path.parents))

    def list_directory(self, path: Path) -> list[str]:
        """The names of files; directories are not listed."""
        if path not in self._directories:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return [name.name for name in self._names if name.parent == path]

    def read(self, path: Path) -> bytes:
        """What was written, synced or not."""
        return bytes(self._file(path).seen)

    def open(self, path: Path, *, create: bool) -> int:
        """A handle; with `create` the file is made or emptied."""
        if create:
            crash = self._call("create")
            if path in self._names:
                self._names[path].change([_resize(0)])
            else:
                self._rename_or_make(path, None, _File())
            self._stop(crash)
        return self._handle(path, self._file(path))

    def allocate(self, handle: int, size: int) -> None:
        """Zeros up to the size."""
        crash = self._call("allocate")
        _, file = self._handles[handle]
        if size > len(file.seen) + self._free():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if size > len(file.seen):
            file.change([_extend(size)])
        self._stop(crash)

    def write(self, handle: int, buffers: Sequence[Buffer], offset: int) -> int:
        """Sectors, each of which a crash may keep or lose; fewer bytes when the disk fills up."""
        crash = self._call("write")
        _, file = self._handles[handle]
        data = b"".join(buffers)
        room = len(file.seen) - offset + self._free()
        if data and room <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        data = data[:room]
        bounds = range(offset // SECTOR_BYTES, (offset + len(data) - 1) // SECTOR_BYTES + 1)
        changes = []
        for sector in bounds:
            start = max(sector * SECTOR_BYTES, offset)
            stop = min((sector + 1) * SECTOR_BYTES, offset + len(data))
            changes.append(_put(start, data[start - offset : stop - offset]))
        file.change(changes)
        self._stop(crash)
        return len(data)

    def truncate(self, handle: int, size: int) -> None:
        """Cuts or extends."""
        crash = self._call("truncate")
        self._handles[handle][1].change([_resize(size)])
        self._stop(crash)

    def sync(self, handle: int) -> None:
        """What the file holds survives; a crash in the call comes before that."""
        _, file = self._handles[handle]
        try:
            self._stop(self._call("sync"))
        except OSError:
            file.pending.clear()
            raise
        for apply in file.pending:
            apply(file.durable)
        file.pending.clear()

    def close(self, handle: int) -> None:
        """Nothing is synced; also after a crash, when handles are closed on the way out."""
        path, _ = self._handles.pop(handle, (Path(), None))
        self._locked.discard(path)

    def rename(self, source: Path, target: Path) -> None:
        """Atomic."""
        crash = self._call("rename")
        self._rename_or_make(target, source, self._file(source))
        self._stop(crash)

    def unlink(self, path: Path) -> None:
        """The name goes."""
        crash = self._call("unlink")
        self._file(path)
        self._change_names(path, lambda names: names.pop(path, None))
        self._stop(crash)

    def sync_directory(self, path: Path) -> None:
        """The names in the directory survive; a crash in the call comes before that."""
        self._stop(self._call("sync_directory"))
        for directory, change in self._pending_names:
            if directory == path:
                change(self._durable_names)
        self._pending_names = [entry for entry in self._pending_names if entry[0] != path]

    def lock(self, path: Path) -> int:
        """A lock of this process, whose id is not known here."""
        if path in self._locked:
            raise DirectoryInUseError(None)
        if path not in self._names:
            self.put(path, b"")
        self._locked.add(path)
        return self._handle(path, self._file(path))

    # Inside ------------------------------------------------------------------------------------

    def _call(self, name: str) -> bool:
        """Counts a call; whether the crash comes in it. Raises what the test planned for it."""
        assert not self._down, "storage goes on after a crash"
        index = len(self.calls)
        self.calls.append(name)
        if index in self.failures:
            number = self.failures[index]
            raise OSError(number, os.strerror(number))
        return index == self.crash_at

    def _stop(self, crash: bool) -> None:
        if crash:
            self._down = True
            raise SimulatedCrash

    def _file(self, path: Path) -> _File:
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
        return self._names[path]

    def _handle(self, path: Path, file: _File) -> int:
        self._next_handle += 1
        self._handles[self._next_handle] = (path, file)
        return self._next_handle

    def _free(self) -> int:
        if self.capacity_bytes is None:
            return 1 << 62
        return self.capacity_bytes - sum(len(file.seen) for file in self._names.values())

    def _rename_or_make(self, path: Path, source: Path | None, file: _File) -> None:
        def change(names: _Names) -> None:
            if source is not None:
                names.pop(source, None)
            names[path] = file

        self._change_names(path, change)

    def _change_names(self, path: Path, change: Callable[[_Names], object]) -> None:
        change(self._names)
        self._pending_names.append((path.parent, change))


def _resize(size: int) -> Callable[[bytearray], None]:
    def apply(data: bytearray) -> None:
        del data[size:]
        data.extend(bytes(size - len(data)))

    return apply


def _extend(size: int) -> Callable[[bytearray], None]:
    return lambda data: data.extend(bytes(max(size - len(data), 0)))


def _put(offset: int, piece: bytes) -> Callable[[bytearray], None]:
    def apply(data: bytearray) -> None:
        data.extend(bytes(max(offset + len(piece) - len(data), 0)))
        data[offset : offset + len(piece)] = piece

    return apply
