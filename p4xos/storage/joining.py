"""Storage of an acceptor that forgot: nothing until it joins, then a log of its own again.

What lies in its directory is of no use to it any more, but perhaps to a person: it is set aside as
a whole, under a name of its own, before the new log begins (docs/PROTOCOL.md, section 8).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from p4xos.storage.directory import LOCK_NAME, read_contents
from p4xos.storage.disk import Disk, RealDisk, disk_errors
from p4xos.storage.memory import AcceptorStorage
from p4xos.wire import Rows

log = logging.getLogger(__name__)


class StorageOfJoined:
    """Begins with the first record, which is what the acceptor joins with."""

    def __init__(self, begin: Callable[[], AcceptorStorage]) -> None:
        """Keeps nothing and holds nothing yet; `begin` makes the storage when it is needed."""
        self.begun: AcceptorStorage | None = None
        self._begin = begin

    @property
    def counters(self) -> dict[str, int]:
        """Those of the storage; none before it has begun."""
        return {} if self.begun is None else self.begun.counters

    def append(self, records: list[Rows]) -> None:
        """All of them are durable when this returns; StorageError when they may not be."""
        if self.begun is None:
            self.begun = self._begin()
        self.begun.append(records)

    def close(self) -> None:
        """Gives the files back."""
        if self.begun is not None:
            self.begun.close()


def set_aside(directory: Path, *, disk: Disk | None = None) -> Path | None:
    """Moves what an acceptor can no longer use out of its way; where to, None if there was nothing.

    Raises StorageError when it cannot be moved.
    """
    disk = disk or RealDisk()
    with disk_errors(directory, "set the forgotten log aside"):
        disk.make_directory(directory)
        found = read_contents(disk, directory)
        if not (found.segments or found.foreign or found.mark or found.temporary):
            return None
        taken = set(disk.list_directory(directory.parent))
        number = 1
        while (name := f"{directory.name}.forgotten-{number}") in taken:
            number += 1
        target = directory.with_name(name)
        disk.make_directory(target)
        # Oldest first: what is left by a crash then lacks its beginning, which shows.
        for name in sorted(disk.list_directory(directory)):
            if name != LOCK_NAME:
                disk.rename(directory / name, target / name)
        disk.sync_directory(target)
        disk.sync_directory(directory)
    log.warning(
        "%s: what was left of the acceptor's log was moved to %s; nothing needs it any more",
        directory, target,
    )  # fmt: skip
    return target
