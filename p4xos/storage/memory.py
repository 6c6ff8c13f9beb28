"""What an acceptor's driver needs of storage, and the storage that keeps nothing.

In memory mode a restarted acceptor has forgotten what it promised (docs/PROTOCOL.md, section 8;
docs/traps.md, 9): the one-time mark is used up at the first start, and later ones are Forgetful.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from p4xos.storage.directory import (
    Forgetful,
    Owner,
    lock_directory,
    read_contents,
    read_mark,
    released_on_error,
    remove_mark,
)
from p4xos.storage.disk import Disk, RealDisk, StorageError, disk_errors
from p4xos.wire import Rows


class AcceptorStorage(Protocol):
    """Where an acceptor's records go before its answers leave."""

    counters: dict[str, int]

    def append(self, records: list[Rows]) -> None:
        """All of them are durable when this returns; StorageError when they may not be."""

    def close(self) -> None:
        """Gives the files back; what was appended stays."""


class MemoryStorage:
    """Keeps nothing. Made directly it is for tests; a node uses `open`."""

    def __init__(self, disk: Disk | None = None, lock: int | None = None) -> None:
        self.counters = dict.fromkeys(("appends", "rows"), 0)
        self._disk = disk
        self._lock = lock

    @classmethod
    def open(
        cls, directory: Path, *, cluster: int, group: int, acceptor: int, disk: Disk | None = None
    ) -> MemoryStorage | Forgetful:
        """Uses up the mark of a new acceptor, or tells that this one has forgotten.

        Raises StorageError when a durable log lies there: votes cast in memory would not be in it,
        and a later durable start would believe it.
        """
        disk = disk or RealDisk()
        lock = lock_directory(disk, directory)
        with released_on_error(disk, lock), disk_errors(directory, "start in memory mode"):
            found = read_contents(disk, directory)
            if found.segments:
                raise StorageError(
                    directory,
                    "holds the log of a durable acceptor, and this one is to run in memory",
                    "choose durable mode, or move the log away: the acceptor has forgotten then",
                )
            forgetful: Forgetful | None = Forgetful(
                directory, "an acceptor in memory mode forgets when it stops"
            )
            if found.mark:
                forgetful = read_mark(disk, directory, Owner(cluster, group, acceptor))
            if forgetful is None:
                remove_mark(disk, directory)
                return cls(disk, lock)
        disk.close(lock)
        return forgetful

    @classmethod
    def begin(cls, directory: Path, *, disk: Disk | None = None) -> MemoryStorage:
        """For a forgetful acceptor that has joined again."""
        disk = disk or RealDisk()
        return cls(disk, lock_directory(disk, directory))

    def append(self, records: list[Rows]) -> None:
        """Counts them."""
        self.counters["appends"] += 1
        self.counters["rows"] += sum(map(len, records))

    def close(self) -> None:
        """Gives the directory back."""
        if self._disk is not None and self._lock is not None:
            self._disk.close(self._lock)
            self._lock = None
