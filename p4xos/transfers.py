"""Copies of this replica's state, for peers that catch up (docs/PROTOCOL.md, section 7).

A copy is what the state machine's `snapshot` writes: a directory beside its store, mostly hard
links. What is only in memory is written out before, beside the node's loop, so that taking the
copy holds nobody up for long. A peer asks for one and then pulls it piece by piece, each with its
checksum; a connection that breaks is resumed where it stood, as long as the copy is there. The
log's values behind a copy are held as long as it exists, however fast new ones come: else a peer
that has fetched the copy would find that it begins too early, for ever. One copy exists at a time,
so that what it pins on the disk is bounded; it goes when no peer has used it or what follows it
for a while.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import zlib
from itertools import count
from pathlib import Path
from typing import NamedTuple

import trio

from p4xos.application import Application
from p4xos.log import WritingOut
from p4xos.remote_errors import Refused

log = logging.getLogger(__name__)

PIECE_BYTES = 256 << 10
IDLE_S = 15.0
"""A copy goes when it, and the log behind it, have not been used for so long."""
PULL_IDLE_S = 3.0
"""A copy that nobody has pulled from for so long makes room for a newer one."""
WRITE_OUTS = 2
"""Before a copy is taken, each in a worker thread."""
FILES_MAX = 2048
"""Of one copy: their names must fit the head of a frame; RocksDB's tables are megabytes each."""


class Copy(NamedTuple):
    """A consistent copy on this disk."""

    number: int
    through: int
    """The last instance in it."""
    directory: Path
    files: dict[str, int]
    """Bytes, by name."""


class Copies:
    """The one copy that exists, and its life."""

    def __init__(self, application: Application, directory: Path) -> None:
        """None exists yet.

        Args:
          application: whose state is copied.
          directory: where copies are put; what an earlier run left there is removed.
        """
        self.counters = dict.fromkeys(("copies_made", "pieces_sent"), 0)
        self._application = application
        self._directory = directory
        self._copy: Copy | None = None
        self._used_at = 0.0
        self._pulled_at = 0.0
        self._numbers = count(secrets.randbits(32))  # a restart must not continue an old copy
        self._making = trio.Lock()
        shutil.rmtree(directory, ignore_errors=True)

    async def make(self, above: int) -> Copy:
        """A copy of a state beyond an instance: the one that exists, or a new one.

        Raises:
          Refused: this replica is not beyond it, or another peer needs the copy that exists.
        """
        async with self._making:
            copy = self._existing(above)
            if copy is None:
                # What is written meanwhile is little, and the second time next to nothing.
                machine = self._application.machine
                if isinstance(machine, WritingOut):
                    for _ in range(WRITE_OUTS):
                        await trio.to_thread.run_sync(machine.write_out)
                copy = self._take()
            self._used_at = self._pulled_at = trio.current_time()
            return copy

    def _existing(self, above: int) -> Copy | None:
        """The copy that there is, where it will do."""
        if self._application.applied <= above:
            raise Refused(f"this replica is at instance {self._application.applied} itself")
        if self._copy is not None:
            # Of use as long as what follows it is still retained here.
            joined = self._copy.through + 1 >= self._application.retained.low
            if joined and self._copy.through > above:
                return self._copy
            if joined and trio.current_time() - self._pulled_at < PULL_IDLE_S:
                raise Refused("another peer is being served; ask later, or ask another node")
        return None

    def _take(self) -> Copy:
        """A new copy, between two batches; nothing is awaited, so its instance is exact."""
        self.drop()
        directory = self._directory / "outgoing"
        self._directory.mkdir(parents=True, exist_ok=True)
        through = self._application.machine.snapshot(directory)
        files = {path.name: path.stat().st_size for path in sorted(directory.iterdir())}
        if len(files) > FILES_MAX:
            self.drop()
            raise Refused(f"a copy has {len(files)} files, and {FILES_MAX} is the limit")
        self._copy = Copy(next(self._numbers), through, directory, files)
        self._application.retained.hold(through + 1)
        self.counters["copies_made"] += 1
        size = sum(files.values())
        log.info("a copy through instance %d, %d bytes, is ready for a peer", through, size)
        return self._copy

    async def piece(self, number: int, name: str, offset: int) -> tuple[int, bytes]:
        """CRC-32 and bytes of a piece of a file.

        Raises:
          Refused: no such copy any more, or no such file.
        """
        copy = self._copy
        if copy is None or copy.number != number or name not in copy.files:
            raise Refused("this copy is gone; ask for a new one")
        self._used_at = self._pulled_at = trio.current_time()
        try:
            data = await trio.to_thread.run_sync(_read, copy.directory / name, offset)
        except OSError as error:
            raise Refused(f"this copy cannot be read ({error}); ask for a new one") from None
        self.counters["pieces_sent"] += 1
        return zlib.crc32(data), data

    def keep(self) -> None:
        """A peer fetches the log's tail: what follows the copy is still of use."""
        self._used_at = trio.current_time()

    async def run(self) -> None:
        """Drops a copy that is no longer used; the last one when it is cancelled."""
        try:
            while True:
                await trio.sleep(IDLE_S)
                if self._copy is not None and trio.current_time() - self._used_at >= IDLE_S:
                    self.drop()
        finally:
            self.drop()

    def drop(self) -> None:
        """Removes the copy."""
        self._copy = None
        self._application.retained.hold(None)
        shutil.rmtree(self._directory, ignore_errors=True)


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PIECE_BYTES)
