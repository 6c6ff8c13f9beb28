"""Fetches a copy of a node's state, piece by piece; `transfers` is the other side.

A connection that is lost is made again, and the fetch goes on where it stood. Nothing of a copy is
used before all of it is there and on the disk.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import zlib
from pathlib import Path

import trio

from p4xos.dialing import ConnectionLost, Dialed, ask_untrusted, dial
from p4xos.errors import BadPacket, P4xosError
from p4xos.framing import Frame, integer_untrusted
from p4xos.secret import Secret
from p4xos.tables import Address
from p4xos.transfers import FILES_MAX

log = logging.getLogger(__name__)

ANSWER_S = 30.0
"""A node that is silent for so long is given up; making a copy is the slowest answer."""
DISK_RESERVE_BYTES = 64 << 20
"""Left free on the disk when a copy is fetched."""
RESUMES_MAX = 10
PROGRESS_S = 5.0
"""How often a transfer tells how far it is."""

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class CopyInvalid(P4xosError):
    """A copy that was fetched cannot be used; it was removed and nothing was changed."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"the copy from node {node} is no good: {reason}; fetch another one")


class DiskTooSmall(P4xosError):
    """There is no room for a copy; nothing was fetched."""

    def __init__(self, directory: Path, node: str, size: int, free: int) -> None:
        super().__init__(
            f"{directory}: the copy from node {node} takes {in_words(size)}, and {in_words(free)} "
            f"are free ({in_words(DISK_RESERVE_BYTES)} of them stay so): make room on that disk"
        )


class Progress:
    """How far a transfer of bytes has come, and how fast."""

    def __init__(self, total: int, now: float) -> None:
        """Nothing is done yet.

        Args:
          total: bytes in all.
          now: seconds, of any clock that does not jump.
        """
        self.total = total
        self.done = 0
        self._started = now
        self._tell_at = now + PROGRESS_S

    @property
    def percent(self) -> int:
        """Of the bytes, 0 to 100."""
        return 100 * self.done // self.total if self.total else 100

    def rate(self, now: float) -> float:
        """Bytes a second since the beginning."""
        return self.done / max(now - self._started, 1e-3)

    def is_due(self, now: float) -> bool:
        """Whether it is time to tell; true once in PROGRESS_S."""
        if now < self._tell_at:
            return False
        self._tell_at = now + PROGRESS_S
        return True

    def told(self, now: float) -> str:
        """For people."""
        return (
            f"{in_words(self.done)} of {in_words(self.total)} ({self.percent} %), "
            f"{in_words(self.rate(now))}/s"
        )


def in_words(size: float) -> str:
    """A number of bytes with three figures: 417 B, 12.3 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} B" if unit == "B" else f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


class Fetch:
    """One copy on its way."""

    def __init__(
        self,
        cluster: int,
        secret: Secret | None,
        address: Address,
        directory: Path,
        *,
        peer: bool,
    ) -> None:
        """Nothing is asked yet.

        Args:
          cluster: the id that the node must have.
          secret: the cluster's, if it has one.
          address: its `peer` address.
          directory: for the files; what is there is removed.
          peer: whether this is a node that catches up.
        """
        self.node = str(address)
        self.progress: Progress | None = None
        self._cluster = cluster
        self._secret = secret
        self._address = address
        self._directory = directory
        self._peer = peer
        self._dialed: Dialed | None = None
        self._copy = 0

    async def run(self, above: int) -> int:
        """Fetches a copy of a state beyond an instance; returns an instance that it reaches.

        Raises:
          P4xosError, OSError: what kept it from being fetched; what was fetched may still be there.
        """
        try:
            frame = await self._ask({"ask": "copy", "above": above})
            self._copy = integer_untrusted(frame.head, "copy")
            through = integer_untrusted(frame.head, "through", above + 1)
            files = _files_untrusted(frame.head)
            self._make_room(sum(files.values()))
            await self._pull(files, through)
            # The files are nobody else's yet, so this may be done beside the node's loop.
            await trio.to_thread.run_sync(_sync_files, self._directory)
            return through
        finally:
            await self._hang_up()

    def _make_room(self, size: int) -> None:
        shutil.rmtree(self._directory, ignore_errors=True)
        self._directory.mkdir(parents=True)
        free = shutil.disk_usage(self._directory).free
        if size + DISK_RESERVE_BYTES > free:
            raise DiskTooSmall(self._directory, self.node, size, free)

    async def _pull(self, files: dict[str, int], through: int) -> None:
        progress = self.progress = Progress(sum(files.values()), trio.current_time())
        log.info(
            "fetching the state of node %s through %d: %s",
            self.node, through, in_words(progress.total),
        )  # fmt: skip
        for name, size in files.items():
            with (self._directory / name).open("wb") as file:
                while file.tell() < size:
                    data = await self._piece(name, file.tell())
                    if not data or file.tell() + len(data) > size:
                        raise CopyInvalid(self.node, f"{name} is not {size} bytes long")
                    file.write(data)
                    progress.done += len(data)
                    now = trio.current_time()
                    if progress.is_due(now):
                        log.info("fetched %s", progress.told(now))
        log.info("fetched %s", progress.told(trio.current_time()))

    async def _piece(self, name: str, offset: int) -> bytes:
        """The next bytes of a file, at a new connection where the old one was lost."""
        ask: dict[str, object] = {
            "ask": "piece", "copy": self._copy, "name": name, "offset": offset
        }  # fmt: skip
        for attempt in range(RESUMES_MAX + 1):
            try:
                frame = await self._ask(ask)
            except ConnectionLost as error:
                if attempt == RESUMES_MAX:
                    raise
                log.warning("%s; going on at byte %d of %s", error, offset, name)
                await self._hang_up()
                continue
            if integer_untrusted(frame.head, "check") == zlib.crc32(frame.body):
                return frame.body
            log.warning("a piece of %s from node %s was damaged; once more", name, self.node)
        raise CopyInvalid(self.node, f"{name} comes damaged every time")

    async def _ask(self, ask: dict[str, object]) -> Frame:
        if self._dialed is None:
            self._dialed = await dial(
                self._address, self._cluster, self._secret, peer=self._peer
            )
            self.node = self._dialed.node
        with trio.move_on_after(ANSWER_S):
            return await ask_untrusted(self._dialed, ask)
        raise ConnectionLost(self.node, f"silent for {ANSWER_S:g} s")

    async def _hang_up(self) -> None:
        if self._dialed is not None:
            await self._dialed.frames.aclose()
            self._dialed = None


def _files_untrusted(head: dict[str, object]) -> dict[str, int]:
    """Names and sizes of a copy's files: plain names only, none can leave its directory."""
    files = head.get("files")
    if not isinstance(files, dict) or not 0 < len(files) <= FILES_MAX:
        raise BadPacket("a copy has no files, or too many")
    for name, size in files.items():
        if not isinstance(name, str) or not _FILE_NAME.fullmatch(name):
            raise BadPacket(f"{name!r} is no file name of a copy")
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size < 2**62:
            raise BadPacket(f"{name} has no size")
    return files


def _sync_files(directory: Path) -> None:
    for path in directory.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
