"""The secret that the nodes and clients of one cluster share: a file beside the cluster file.

    cluster.secret    p4xos secret 1      the version of this file
                      <64 hex digits>     drawn at random, once for a cluster

It is apart from the cluster file, since that is shown and copied without a thought. Whoever has it
is trusted as a node is; it never leaves the file but as keys derived from it (`sealing`), and is in
no argument, log line or error.
"""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path

from p4xos.config import Cluster
from p4xos.errors import P4xosError
from p4xos.storage.disk import RealDisk
from p4xos.tables import ConfigError

SECRET_NAME = "cluster.secret"
VERSION = 1
SECRET_BYTES = 32
_FIRST_LINE = "p4xos secret"
_FILE_BYTES_MAX = 4096  # a secret file has 80; more is some other file
_TEXT = re.compile(rf"{_FIRST_LINE} (\d{{1,6}})\n([0-9a-f]{{{2 * SECRET_BYTES}}})\n", re.ASCII)
_VERSION_LINE = re.compile(rf"{_FIRST_LINE} (\d{{1,6}})\n", re.ASCII)


class Secret:
    """The key itself, which prints as nothing."""

    __slots__ = ("key",)

    def __init__(self, key: bytes) -> None:
        self.key = key

    def __repr__(self) -> str:
        return "<secret>"


class SecretExists(P4xosError):
    """There is a secret already; nothing was changed."""


def path_of(cluster: Cluster) -> Path:
    """Where the secret of a cluster is, if it has one."""
    return cluster.directory / SECRET_NAME


def of(cluster: Cluster) -> Secret | None:
    """The secret of a cluster; None where it has none, and was made to have none.

    Raises:
      ConfigError: the cluster file says that there is one and it is missing, or it cannot be used.
      OSError: it cannot be read.
    """
    path = path_of(cluster)
    try:
        return read(path)
    except FileNotFoundError:
        if cluster.secret == "none":
            return None
        raise ConfigError(
            str(path), "", f"the secret of this cluster is missing, and {cluster.source} says that "
            "there is one: copy it here from another machine of the cluster, with mode 0600"
        ) from None  # fmt: skip


def read(path: Path) -> Secret:
    """The secret in a file.

    Raises:
      ConfigError: it is no secret, or others than its owner may read it.
      OSError: it cannot be read, FileNotFoundError among them.
    """
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(_FILE_BYTES_MAX + 1)
    # Root's file is the one that a container gets: it may be shared with the group of the process.
    shared = stat.S_IWGRP | stat.S_IXGRP | stat.S_IRWXO
    if status.st_uid == os.geteuid():
        shared |= stat.S_IRGRP
    if status.st_mode & shared:
        mode = stat.S_IMODE(status.st_mode)
        complaint = f"others than its owner may use this secret (mode {mode:04o})"
        raise ConfigError(str(path), "", f"{complaint}; run: chmod 600 {path}")
    text = content.decode("ascii", "replace")
    version = _VERSION_LINE.match(text)
    if version is not None and int(version[1]) != VERSION:
        raise ConfigError(
            str(path), "", f"the secret has format version {version[1]}, and this program reads "
            f"version {VERSION}; upgrade p4xos here to the release that wrote it"
        )  # fmt: skip
    found = _TEXT.fullmatch(text)
    if found is None:
        complaint = "this is no secret of a cluster, or a damaged one"
        raise ConfigError(str(path), "", f"{complaint}; copy it from another machine once more")
    return Secret(bytes.fromhex(found[2]))


def create(path: Path) -> None:
    """Draws a secret and writes it, durably, for its owner alone.

    Raises:
      SecretExists: there is one.
      OSError: it cannot be written.
    """
    text = f"{_FIRST_LINE} {VERSION}\n{secrets.token_hex(SECRET_BYTES)}\n"
    fresh = path.with_name(path.name + ".new")
    fresh.unlink(missing_ok=True)  # of a run that was killed
    handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(handle, "w", encoding="ascii") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(fresh, path)  # fails where a name is taken, which a rename would not
    except FileExistsError:
        raise SecretExists(
            f"{path} is there already, and is not overwritten: all machines need the same one; "
            "to change it, move it away first"
        ) from None
    finally:
        fresh.unlink()
    RealDisk().sync_directory(path.parent)


def make_command(cluster: Cluster) -> str:
    """What to type where a cluster has no secret."""
    return f"p4xos secret --cluster {cluster.source}"
