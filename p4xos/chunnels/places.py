"""Where something is, and how far apart two ends of a connection are."""

from __future__ import annotations

import os
import secrets
import tempfile
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Scope(IntEnum):
    """How far something reaches; each holds those before it."""

    APPLICATION = 0
    """One process, and one runtime in it."""
    HOST = 1
    """One machine, or containers on it that share a directory for sockets."""
    LOCAL_NETWORK = 2
    """One site, as its operator names it."""
    GLOBAL = 3

    @property
    def words(self) -> str:
        """For people."""
        return self.name.lower().replace("_", " ")


class Place(NamedTuple):
    """One end; each name is equal at both ends when they share it, and empty when unknown."""

    process: str
    host: str
    site: str = ""


def distance(one: Place, other: Place) -> Scope:
    """The smallest scope that holds both."""
    if one.process and one.process == other.process:
        return Scope.APPLICATION
    if one.host and one.host == other.host:
        return Scope.HOST
    if one.site and one.site == other.site:
        return Scope.LOCAL_NETWORK
    return Scope.GLOBAL


def new_process_name() -> str:
    """A name that nobody else has."""
    return secrets.token_hex(8)


def socket_directory() -> Path:
    """Where this user's Unix sockets of connections are; made when it is not there.

    Raises:
      OSError: it cannot be made, or it belongs to somebody else.
    """
    directory = Path(tempfile.gettempdir()) / f"p4xos-chunnels-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    found = directory.lstat()
    if found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{directory}: others may write there; remove it, or set TMPDIR to a directory of "
            "your own"
        )
    return directory


def host_name(directory: Path) -> str:
    """A name that ends have in common exactly when they can share Unix sockets of a directory.

    The name of a machine would not do: containers on it may see different files.
    """
    try:
        boot = BOOT_ID.read_text().strip()
        found = directory.stat()
    except OSError:
        return ""
    return f"{boot}:{found.st_dev:x}:{found.st_ino:x}"
