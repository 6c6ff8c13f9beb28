"""Taking a backup: a copy of one replica's state, fetched while the cluster goes on.

    <to>.unfinished/state/        fetched piece by piece, resumed where a connection is lost
    <to>.unfinished/manifest.json once all of it was read back, opened and counted
    <to>                          renamed: it is complete, or not there
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import trio

from kvstore.archive import (
    STATE,
    TAR_SUFFIX,
    BackupError,
    Manifest,
    describe,
    named,
    pack,
    write_manifest,
)
from p4xos import secret
from p4xos.config import Cluster
from p4xos.dialing import Unreachable
from p4xos.fetching import Fetch
from p4xos.framing import Frame
from p4xos.inquiries import ask_each
from p4xos.remote_errors import Refused

log = logging.getLogger(__name__)

UNFINISHED = ".unfinished"
PATIENCE_S = 30.0
"""How long a node may be busy with another copy, or not have caught up."""
TRY_AGAIN_S = 0.5


def take(cluster: Cluster, to: Path, node: str | None = None) -> Manifest:
    """Takes a backup that holds everything acknowledged before this call.

    Args:
      cluster: whose state; some of its nodes run.
      to: must not exist; a name that ends in .tar becomes one file, others a directory.
      node: which replica is copied; by default one that does not coordinate.

    Raises:
      BackupError, P4xosError, OSError: why there is none; what was fetched is removed.
    """
    to = to.absolute()
    if to.exists() or to.is_symlink():
        raise BackupError(to, "it is there already, and is not overwritten; give another name")
    to.parent.mkdir(parents=True, exist_ok=True)
    unfinished = to.with_name(to.name + UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)  # of a run that was killed
    try:
        with named(unfinished):
            source = trio.run(_fetch, cluster, unfinished / STATE, node)
            log.info("checking what was fetched")
            now = datetime.now(UTC).isoformat(timespec="seconds")
            manifest = describe(unfinished / STATE, source, now)
            write_manifest(unfinished, manifest)
            _publish(unfinished, to)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return manifest


def _publish(unfinished: Path, to: Path) -> None:
    """Gives a backup its name, durably and in one step."""
    if to.name.endswith(TAR_SUFFIX):
        file = unfinished / to.name
        pack(unfinished, file)
        file.rename(to)
    else:
        for directory in (unfinished / STATE, unfinished):
            _sync_directory(directory)
        unfinished.rename(to)
    _sync_directory(to.parent)


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


async def _fetch(cluster: Cluster, directory: Path, node: str | None) -> str:
    """Fetches the state of a replica; returns its node's name."""
    answers = await ask_each(cluster, {"ask": "status", "id": 1})
    statuses = {
        name: status
        for name, answer in answers.items()
        if isinstance(answer, Frame) and isinstance(status := answer.head.get("status"), dict)
    }
    problems = {name: str(error) for name, error in answers.items() if name not in statuses}
    delivered = {name: _delivered(status) for name, status in statuses.items()}
    if not any(delivered.values()):
        if statuses:
            raise BackupError(directory.parent, "nothing was ever written to this cluster")
        raise Unreachable(problems)
    newest = max(delivered.values())
    source = _choose(statuses, delivered) if node is None else cluster.node(node).name
    if source in problems:
        raise Unreachable({source: problems[source]})
    fetch = Fetch(
        cluster.id, secret.of(cluster), cluster.node(source).peer, directory, peer=False
    )
    # Whoever got an acknowledgement got it from a node that had delivered the write.
    until = trio.current_time() + PATIENCE_S
    while True:
        try:
            await fetch.run(newest - 1)
            return source
        except Refused:
            if trio.current_time() >= until:
                raise
        await trio.sleep(TRY_AGAIN_S)


def _delivered(status: Mapping[str, object]) -> int:
    learner = status.get("learner")
    delivered = learner.get("delivered") if isinstance(learner, dict) else 0
    return delivered if isinstance(delivered, int) else 0


def _choose(statuses: Mapping[str, Mapping[str, object]], delivered: Mapping[str, int]) -> str:
    """Who has most; of those about alike, one that does not coordinate."""

    def rank(name: str) -> tuple[bool, bool, int]:
        coordinator = statuses[name].get("coordinator")
        serves = isinstance(coordinator, dict) and coordinator.get("phase") == "serving"
        behind = "catching_up" in statuses[name]
        return (behind, serves, -delivered[name])

    return min((name for name in statuses if delivered[name]), key=rank)

