"""A learner that needs what the acceptors have forgotten fetches it from another (section 7).

    behind, a peer retains what is needed next:   its tail, value by value
    behind, it does not:                          a copy of its state, verified and installed; then
                                                  its tail from there
    the peer fails or cannot help:                the next one
    no longer behind:                             done: votes and LEARN do the rest

What is next may be forgotten again while the tail is on its way, so this goes on until it is not:
tails come as fast as they can be applied, and the learner's ring takes live votes as soon as its
end is within a window of them. docs/PROTOCOL.md, section 7.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import zlib
from pathlib import Path

import trio

from p4xos.application import Application
from p4xos.config import Cluster
from p4xos.dialing import ConnectionLost, Dialed, ask_untrusted, dial
from p4xos.errors import BadPacket, P4xosError, Trimmed
from p4xos.framing import Frame, integer_untrusted
from p4xos.packing import unpack_runs_untrusted
from p4xos.remote_errors import Refused, raise_error_untrusted
from p4xos.tables import Address
from p4xos.transfers import FILES_MAX

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""How often it is looked whether this replica is behind."""
PAUSE_S, PAUSE_MAX_S = 0.2, 5.0
"""Between attempts when no peer could help; doubled each time."""
ANSWER_S = 30.0
"""A peer that is silent for so long is given up; making a copy is the slowest answer."""
DISK_RESERVE_BYTES = 64 << 20
"""Left free on the disk when a copy is fetched."""
RESUMES_MAX = 10
PROGRESS_S = 5.0

_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


class CopyInvalid(P4xosError):
    """A copy that was fetched cannot be used; it was removed and nothing was changed."""

    def __init__(self, node: str, reason: str) -> None:
        super().__init__(f"the copy from node {node} is no good: {reason}; another one is fetched")


class CatchUp:
    """Watches a replica, and brings it back into the acceptors' window."""

    def __init__(self, cluster: Cluster, node: str, application: Application) -> None:
        """Idle until `run`.

        Args:
          cluster: where the peers are.
          node: this one's name.
          application: its replica.
        """
        self.counters = dict.fromkeys(
            ("catch_ups", "tail_values", "copies_installed", "copy_bytes", "peer_failures"), 0
        )
        self._cluster = cluster
        self._application = application
        self._peers: list[Address] = [
            cluster.node(learner.node).peer for learner in cluster.learners if learner.node != node
        ]
        self._directory = cluster.data_directory(node) / "incoming"

    async def run(self) -> None:
        """Until cancelled."""
        shutil.rmtree(self._directory, ignore_errors=True)  # of a run that was killed
        try:
            while True:
                if self._application.behind:
                    await self._catch_up()
                await trio.sleep(LOOK_S)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _catch_up(self) -> None:
        """Asks the peers in turn until nothing is missing that only they have."""
        application = self._application
        self.counters["catch_ups"] += 1
        learner = application.replica.learner
        log.info(
            "behind: instance %d is next here, and the acceptors have forgotten what is below %d",
            application.applied + 1, learner.low,
        )  # fmt: skip
        pause_s = PAUSE_S
        turn = 0
        while application.behind:
            before = application.applied
            for _ in self._peers:
                address = self._peers[turn % len(self._peers)]
                try:
                    await self._from_peer(address)
                    break
                except (P4xosError, OSError) as error:
                    self.counters["peer_failures"] += 1
                    log.warning("catching up from %s: %s", address, error)
                    turn += 1
                if not application.behind:
                    break
            if application.applied > before:
                pause_s = PAUSE_S
            elif application.behind:
                log.warning(
                    "still behind at instance %d: no other learner could help; trying again in "
                    "%g s", application.applied, pause_s,
                )  # fmt: skip
                await trio.sleep(pause_s)
                pause_s = min(2 * pause_s, PAUSE_MAX_S)
        log.info("caught up: delivered through instance %d", application.applied)

    async def _from_peer(self, address: Address) -> None:
        """Fetches from one peer until no longer behind, or it can do no more for us."""
        dialed = await dial(address, self._cluster.id, peer=True)
        try:
            while self._application.behind:
                before = self._application.applied
                try:
                    await self._fetch_tail(dialed)
                except Trimmed:
                    await dialed.frames.aclose()
                    await self._fetch_copy(address)
                    dialed = await dial(address, self._cluster.id, peer=True)
                if self._application.applied == before:
                    raise Refused(f"node {dialed.node} has nothing beyond instance {before}")
        finally:
            await dialed.frames.aclose()

    # The tail ------------------------------------------------------------------------------------

    async def _fetch_tail(self, dialed: Dialed) -> None:
        """What the peer retains from the next instance on; Trimmed when that begins later."""
        application = self._application
        frames = dialed.frames
        frames.post({"ask": "tail", "first": application.applied + 1})
        while True:
            with trio.move_on_after(ANSWER_S):
                try:
                    await frames.flush()
                    frame = await frames.receive_untrusted()
                except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                    raise ConnectionLost(dialed.node, str(error)) from None
                if frame is None:
                    raise ConnectionLost(dialed.node, "it was closed there")
                raise_error_untrusted(frame.head)
                if "end" in frame.head:
                    return
                for run in unpack_runs_untrusted(frame.body):
                    self.counters["tail_values"] += len(run.lengths)
                    application.learned(run)
                await trio.lowlevel.checkpoint()
                continue
            raise ConnectionLost(dialed.node, f"silent for {ANSWER_S:g} s")

    # A copy --------------------------------------------------------------------------------------

    async def _fetch_copy(self, address: Address) -> None:
        """Fetches a copy of a peer's state and installs it."""
        fetch = _Fetch(self._cluster.id, address, self._directory)
        try:
            through = await fetch.run(self._application.applied)
            self.counters["copy_bytes"] += fetch.bytes_done
            self._install(fetch.node, through)
        finally:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _install(self, node: str, through: int) -> None:
        """Replaces the state; without an await, so that nothing is applied in between."""
        application = self._application
        if through <= application.applied:
            return  # votes that came late have brought us farther meanwhile
        application.machine.install(self._directory)
        assert application.machine.applied >= application.applied, "a copy never takes back"
        application.installed()
        self.counters["copies_installed"] += 1
        log.info("installed the state of node %s through instance %d", node, through)


class _Fetch:
    """One copy on its way: pulled piece by piece, resumed where a connection was lost."""

    def __init__(self, cluster: int, address: Address, directory: Path) -> None:
        self.node = str(address)
        self.bytes_done = 0
        self._cluster = cluster
        self._address = address
        self._directory = directory
        self._dialed: Dialed | None = None
        self._copy = 0

    async def run(self, above: int) -> int:
        """Fetches a copy of a state beyond an instance; returns the instance it holds."""
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
            raise CopyInvalid(
                self.node, f"it takes {size} bytes and {free} are free here: make room on the disk"
            )

    async def _pull(self, files: dict[str, int], through: int) -> None:
        total = sum(files.values())
        log.info("fetching the state of node %s through %d: %d bytes", self.node, through, total)
        tell_at = trio.current_time() + PROGRESS_S
        for name, size in files.items():
            with (self._directory / name).open("wb") as file:
                while file.tell() < size:
                    data = await self._piece(name, file.tell())
                    if not data or file.tell() + len(data) > size:
                        raise CopyInvalid(self.node, f"{name} is not {size} bytes long")
                    file.write(data)
                    self.bytes_done += len(data)
                    if trio.current_time() >= tell_at:
                        tell_at += PROGRESS_S
                        log.info("fetched %d of %d bytes", self.bytes_done, total)

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
            self._dialed = await dial(self._address, self._cluster, peer=True)
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
