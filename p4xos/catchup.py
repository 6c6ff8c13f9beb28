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
import shutil

import trio

from p4xos.application import Application
from p4xos.config import Cluster
from p4xos.dialing import ConnectionLost, Dialed, dial
from p4xos.errors import P4xosError, Trimmed
from p4xos.fetching import ANSWER_S, PROGRESS_S, CopyInvalid, Fetch
from p4xos.log import Verifying
from p4xos.packing import unpack_runs_untrusted
from p4xos.remote_errors import Refused, raise_error_untrusted
from p4xos.secret import Secret
from p4xos.tables import Address

log = logging.getLogger(__name__)

PAUSE_S, PAUSE_MAX_S = 0.2, 5.0
"""Between attempts when no peer could help; doubled each time."""


class CatchUp:
    """Watches a replica, and brings it back into the acceptors' window."""

    def __init__(
        self, cluster: Cluster, node: str, application: Application, secret: Secret | None
    ) -> None:
        """Idle until `run`.

        Args:
          cluster: where the peers are.
          node: this one's name.
          application: its replica.
          secret: the cluster's, if it has one.
        """
        self._secret = secret
        self.counters = dict.fromkeys(
            ("catch_ups", "tail_values", "copies_installed", "copies_refused", "copy_bytes",
             "peer_failures"), 0
        )
        self._cluster = cluster
        self._application = application
        self._peers: list[Address] = [
            cluster.node(learner.node).peer for learner in cluster.learners if learner.node != node
        ]
        self._directory = cluster.data_directory(node) / "incoming"
        self._from = ""
        """The peer that is asked now; empty when none is."""
        self._fetch: Fetch | None = None

    def status(self) -> dict[str, object] | None:
        """How far catching up has come; None when nothing is missing that only peers have."""
        if not self._application.behind:
            return None
        told: dict[str, object] = {"instances_missing": self._missing()}
        if self._from:
            told["from"] = self._from
        progress = None if self._fetch is None else self._fetch.progress
        if progress is not None:
            told |= {
                "bytes": progress.done,
                "bytes_total": progress.total,
                "percent": progress.percent,
                "bytes_per_s": round(progress.rate(trio.current_time())),
            }
        return told

    def _missing(self) -> int:
        """Instances that are known to exist and are not applied here."""
        learner = self._application.replica.learner
        return max(learner.heard, learner.low - 1) - self._application.applied

    async def run(self) -> None:
        """Until cancelled."""
        shutil.rmtree(self._directory, ignore_errors=True)  # of a run that was killed
        try:
            while True:
                await self._application.fell_behind.wait()
                if self._application.behind:
                    await self._catch_up()
                self._application.fell_behind = trio.Event()
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
        dialed = await dial(address, self._cluster.id, self._secret, peer=True)
        self._from = dialed.node
        try:
            while self._application.behind:
                before = self._application.applied
                try:
                    await self._fetch_tail(dialed)
                except Trimmed:
                    await dialed.frames.aclose()
                    await self._fetch_copy(address)
                    dialed = await dial(address, self._cluster.id, self._secret, peer=True)
                if self._application.applied == before:
                    raise Refused(f"node {dialed.node} has nothing beyond instance {before}")
        finally:
            self._from = ""
            await dialed.frames.aclose()

    # The tail ------------------------------------------------------------------------------------

    async def _fetch_tail(self, dialed: Dialed) -> None:
        """What the peer retains from the next instance on; Trimmed when that begins later."""
        application = self._application
        frames = dialed.frames
        frames.post({"ask": "tail", "first": application.applied + 1})
        tell_at = trio.current_time() + PROGRESS_S
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
                if trio.current_time() >= tell_at:
                    tell_at += PROGRESS_S
                    log.info(
                        "applied through instance %d, %d more are missing",
                        application.applied, self._missing(),
                    )  # fmt: skip
                await trio.lowlevel.checkpoint()
                continue
            raise ConnectionLost(dialed.node, f"silent for {ANSWER_S:g} s")

    # A copy --------------------------------------------------------------------------------------

    async def _fetch_copy(self, address: Address) -> None:
        """Fetches a copy of a peer's state and installs it."""
        fetch = self._fetch = Fetch(
            self._cluster.id, self._secret, address, self._directory, peer=True
        )
        try:
            through = await fetch.run(self._application.applied)
            await self._verify(fetch.node, through)
            self.counters["copy_bytes"] += 0 if fetch.progress is None else fetch.progress.done
            self._install(fetch.node, through)
        finally:
            self._fetch = None
            shutil.rmtree(self._directory, ignore_errors=True)

    async def _verify(self, node: str, through: int) -> None:
        """A peer whose disk is damaged must not give the damage on: the copy is read, all of it."""
        machine = self._application.machine
        if not isinstance(machine, Verifying):
            return
        try:
            reached = await trio.to_thread.run_sync(machine.verify, self._directory)
        except P4xosError as error:
            self.counters["copies_refused"] += 1
            raise CopyInvalid(
                node, f"look at the disk of node {node} ({error.__cause__ or error})"
            ) from error
        if reached != through:
            self.counters["copies_refused"] += 1
            raise CopyInvalid(node, f"it reaches instance {reached}, not {through}")

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
