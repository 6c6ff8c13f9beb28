"""A backup on a disk: a snapshot of one replica, and a manifest that tells what it must be.

    manifest.json     what follows, with a checksum of its own
    state/            RocksDB's files, as `Store.snapshot` wrote them

A backup is a directory, or the same as one file whose name ends in `.tar`.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from kvstore.digest import digest_of
from kvstore.store import FORMAT as STORE_FORMAT
from kvstore.store import Store, StoreError
from p4xos.errors import P4xosError

FORMAT = 1
"""Version of the manifest."""
MANIFEST = "manifest.json"
STATE = "state"
TAR_SUFFIX = ".tar"
_READ_BYTES = 1 << 20
_MEMBER = re.compile(rf"{re.escape(MANIFEST)}|{STATE}/[A-Za-z0-9][A-Za-z0-9._-]{{0,99}}", re.ASCII)


class BackupError(P4xosError):
    """The backup cannot be used or made; the message names it and what to do."""

    def __init__(self, path: Path, what: str) -> None:
        super().__init__(f"backup {path}: {what}")
        self.path = path


@dataclass(frozen=True)
class Manifest:
    """What a backup holds."""

    format: int
    store_format: int
    cluster: str
    """The id of the cluster it was taken from, in hexadecimal."""
    node: str
    taken_at: str
    """UTC, when it was complete."""
    applied: int
    """The last instance of the log that is in it."""
    log_time_ms: int
    keys: int
    databases: dict[str, int]
    """Keys by database, those that have any."""
    state_hash: str
    """As `kvstore status --hash` tells it."""
    files: dict[str, dict[str, object]]
    """Bytes and SHA-256 of each file of the state."""

    def summary(self) -> str:
        """For people."""
        return (
            f"cluster {self.cluster} through instance {self.applied}, taken from {self.node} at "
            f"{self.taken_at}, {self.keys} keys, state {self.state_hash}"
        )


@contextmanager
def named(path: Path) -> Iterator[None]:
    """An error of the system that names no file names this one: writes do not tell where."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(error.filename or path)) from None


def describe(state: Path, node: str, taken_at: str) -> Manifest:
    """The manifest of a snapshot, by reading all of it.

    Raises:
      StoreError: it is no snapshot of a store, or a damaged one.
      OSError: it cannot be read.
    """
    found = examine(state)
    return Manifest(
        FORMAT, STORE_FORMAT, found.cluster, node, taken_at, found.applied, found.log_time_ms,
        sum(found.databases.values()), found.databases, found.state_hash,
        {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)}
            for path in sorted(state.iterdir())
        },
    )  # fmt: skip


class Found(NamedTuple):
    """What a snapshot is, read anew; the fields are those of the manifest."""

    cluster: str
    applied: int
    log_time_ms: int
    databases: dict[str, int]
    state_hash: str


def examine(state: Path) -> Found:
    """Opens a snapshot and reads all of it.

    Raises:
      StoreError: it cannot be opened, or the counts that it keeps are not those of its keys.
    """
    with tempfile.TemporaryDirectory(prefix="kvstore-") as scratch:
        store = Store.look_at(state, Path(scratch))
        try:
            view = store.view(store.applied)
            digest = digest_of(view)
            if digest.counts != view.counts:
                raise StoreError(
                    state, f"it keeps count of {sum(view.counts)} keys and has {digest.keys}: it "
                    "is damaged, or made by a faulty program; use another backup"
                )  # fmt: skip
            by_database = {str(n): digest.counts[slot] for n, slot in enumerate(view.slots)}
            return Found(
                f"{store.cluster:08x}", store.applied, store.time.now,
                {name: count for name, count in by_database.items() if count}, digest.hash,
            )  # fmt: skip
        finally:
            store.abandon()


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Writes it beside the state, durably."""
    data = asdict(manifest)
    data["checksum"] = _checksum(data)
    with named(directory / MANIFEST), (directory / MANIFEST).open("w") as file:
        json.dump(data, file, indent=1)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())


def read_manifest(directory: Path) -> Manifest:
    """What the backup in a directory says of itself.

    Raises:
      BackupError: there is no manifest, or a damaged one, or of another format.
    """
    path = directory / MANIFEST
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
        checksum = data.pop("checksum")
        version = data["format"]
    except FileNotFoundError:
        raise BackupError(directory, f"it has no {MANIFEST}; name a complete backup") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BackupError(directory, f"{MANIFEST} is damaged; use another backup") from None
    if version != FORMAT or data.get("store_format") != STORE_FORMAT:
        raise BackupError(
            directory, f"it has format {version}/{data.get('store_format')}, and this program "
            f"reads {FORMAT}/{STORE_FORMAT}; use the release that wrote it"
        )  # fmt: skip
    if checksum != _checksum(data):
        raise BackupError(directory, f"{MANIFEST} is damaged; use another backup")
    try:
        manifest = Manifest(**data)
        for told in manifest.files.values():
            told["bytes"], told["sha256"]
    except (TypeError, AttributeError, KeyError):  # a field is missing, too many, or no map
        raise BackupError(directory, f"{MANIFEST} is damaged; use another backup") from None
    return manifest


def check_files(directory: Path, manifest: Manifest) -> None:
    """Compares the files of a backup with its manifest.

    Raises:
      BackupError: one is missing, too many, or another one.
    """
    state = directory / STATE
    found = {path.name for path in state.iterdir()} if state.is_dir() else set()
    for name in sorted(found ^ manifest.files.keys()):
        what = "is missing" if name in manifest.files else "does not belong to it"
        raise BackupError(directory, f"{STATE}/{name} {what}; use another backup")
    for name, told in manifest.files.items():
        path = state / name
        if path.stat().st_size != told["bytes"] or _sha256(path) != told["sha256"]:
            raise BackupError(
                directory, f"{STATE}/{name} is damaged: its checksum is another one; "
                "use another backup"
            )  # fmt: skip


def check(directory: Path) -> Manifest:
    """Checks everything about a backup: checksums, that it opens, keys and state hash.

    Raises:
      BackupError, StoreError: it is not what it was.
    """
    manifest = read_manifest(directory)
    check_files(directory, manifest)
    for name, value in examine(directory / STATE)._asdict().items():
        if value != getattr(manifest, name):
            raise BackupError(
                directory, f"its {name} is {value}, and {getattr(manifest, name)} by its "
                f"{MANIFEST}; use another backup"
            )  # fmt: skip
    return manifest


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """The directory of a backup; one in a file is unpacked beside it, and removed at the end.

    Raises:
      BackupError: there is none, or it is no backup.
    """
    if path.is_dir():
        yield path
        return
    if not path.exists():
        raise BackupError(path, "there is none; check the name")
    with tempfile.TemporaryDirectory(prefix=f"{path.name}.", dir=path.parent) as scratch:
        directory = Path(scratch)
        (directory / STATE).mkdir()
        try:
            with tarfile.open(path) as archive:
                for member in archive:
                    # Written by name, and only such names: nothing can leave the directory.
                    source = archive.extractfile(member) if member.isfile() else None
                    if source is None or not _MEMBER.fullmatch(member.name):
                        if member.isdir() and member.name == STATE:
                            continue
                        raise BackupError(path, f"it holds {member.name!r}: not a backup")
                    target = directory / member.name
                    with named(target), target.open("wb") as file:
                        shutil.copyfileobj(source, file, _READ_BYTES)
        except (tarfile.TarError, EOFError) as error:
            raise BackupError(path, f"no backup, or a damaged one ({error})") from None
        yield directory


def pack(directory: Path, file: Path) -> None:
    """Writes a backup's directory as one file, durably."""
    with named(file), file.open("wb") as raw:
        with tarfile.open(fileobj=raw, mode="w") as archive:
            archive.add(directory / MANIFEST, MANIFEST)
            for path in sorted((directory / STATE).iterdir()):
                archive.add(path, f"{STATE}/{path.name}")
        raw.flush()
        os.fsync(raw.fileno())


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checksum(data: Mapping[str, object]) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
