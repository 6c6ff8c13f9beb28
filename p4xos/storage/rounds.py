"""The last round that a coordinator used, in a file of 32 bytes (docs/PROTOCOL.md, section 4).

A missing file is NO_ROUND: before each attempt the coordinator asks a quorum for the highest round
ever promised, and a round that no quorum promised has proposed nothing. A damaged file is an error
all the same: it tells of a disk that somebody should look at. See docs/traps.md, 8.
"""

from __future__ import annotations

import struct
from pathlib import Path
from zlib import crc32

from p4xos.quorum import NO_ROUND
from p4xos.storage.disk import Disk, RealDisk, StorageError, disk_errors, replace_file

_ROUND = struct.Struct(">8sIIIIII")
_MAGIC = b"P4xRound"
_VERSION = 1
_CHECKSUM_BYTES = 4


class RoundFile:
    """Reads and writes it; each write is durable when it returns, after a crash old or new."""

    def __init__(
        self, path: Path, *, cluster: int, group: int, coordinator: int, disk: Disk | None = None
    ) -> None:
        self.path = path
        self._owner = (cluster, group, coordinator)
        self._disk = disk or RealDisk()
        self._last = NO_ROUND  # never written below

    def read(self) -> int:
        """The last round used, NO_ROUND when there is no file.

        Raises StorageError when the file is damaged, another coordinator's, or of a later version.
        """
        with disk_errors(self.path, "read the coordinator's last round"):
            try:
                data = self._disk.read(self.path)
            except FileNotFoundError:
                return NO_ROUND
        if (
            len(data) != _ROUND.size
            or not data.startswith(_MAGIC)
            or crc32(data[:-_CHECKSUM_BYTES]) != int.from_bytes(data[-_CHECKSUM_BYTES:], "big")
        ):
            raise StorageError(
                self.path,
                "the coordinator's last round is damaged",
                "check the disk, then remove this file: the coordinator asks a quorum of acceptors "
                "for the highest round before it uses one",
            )
        _, version, cluster, group, coordinator, round, _ = _ROUND.unpack(data)
        if version != _VERSION:
            raise StorageError(
                self.path,
                f"format version {version} was found, version {_VERSION} was expected",
                "start the release of p4xos that wrote it",
            )
        if (cluster, group, coordinator) != self._owner:
            raise StorageError(
                self.path,
                f"coordinator {coordinator} of group {group}, cluster {cluster:#010x} was found, "
                f"coordinator {self._owner[2]} of group {self._owner[1]}, cluster "
                f"{self._owner[0]:#010x} was expected",
                "give each coordinator its own directory, and check the cluster file",
            )
        self._last = round
        return int(round)

    def write(self, round: int) -> None:
        """Makes a round durable before it is used; ValueError when it is below the last."""
        if not self._last <= round < 1 << 32 or round == NO_ROUND:
            raise ValueError(f"round {round:#x} cannot follow {self._last:#x}: rounds only grow")
        fields = _ROUND.pack(_MAGIC, _VERSION, *self._owner, round, 0)[:-_CHECKSUM_BYTES]
        content = fields + crc32(fields).to_bytes(_CHECKSUM_BYTES, "big")
        with disk_errors(self.path, "write the coordinator's round"):
            self._disk.make_directory(self.path.parent)
            replace_file(self._disk, self.path, content)
        self._last = round
