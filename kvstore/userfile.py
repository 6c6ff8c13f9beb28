"""`kvstore users`: adds, removes and lists the users of a file."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Mapping
from pathlib import Path

from kvstore import users
from kvstore.config import client_rules
from kvstore.passwords import PASSWORD_BYTES_MAX, Hash
from kvstore.users import RIGHTS, Rights, User
from p4xos.config import Cluster

_THEN = "running nodes read it on SIGHUP"


def named_in(cluster: Cluster) -> Path:
    """The users file of a cluster.

    Raises:
      ValueError: the cluster file names none.
    """
    path = client_rules(cluster).users
    if path is None:
        raise ValueError(
            f'{cluster.source}: [clients] names no users file; add users = "users.txt" there, or '
            "give --file"
        )
    return path


def add(path: Path, name: str, rights: Rights | None) -> str:
    """Adds a user, or changes one; asks for the password, or reads it from standard input.

    Returns:
      What was done, for people.

    Raises:
      BadUsers, ValueError, OSError: as their messages say.
    """
    users.check_name(name)
    if rights is None:
        raise ValueError(f"the rights are missing; give --rights {'|'.join(RIGHTS)}")
    password = users.check_password(_read_password(name))
    changed = users.put(path, User(name, rights, Hash.of(password)))
    done = "changed" if changed else "added"
    return f"{path}: {done} {name} with the right to {_told(rights)}; {_THEN}"


def remove(path: Path, name: str) -> str:
    """Removes a user; returns what was done, for people."""
    users.remove(path, name)
    return f"{path}: removed {name}; {_THEN}, and end its connections"


def listed(path: Path) -> Mapping[str, str]:
    """Names and rights."""
    return users.described(users.load(path))


def _told(rights: Rights) -> str:
    return {"read": "read", "write": "read and write", "admin": "do all"}[rights]


def _read_password(name: str) -> bytes:
    """Typed twice at a terminal; else the first line of standard input."""
    if sys.stdin.isatty():
        password = getpass.getpass(f"Password of {name}: ")
        if getpass.getpass("Once more: ") != password:
            raise ValueError("the two differ; nothing was changed")
        return password.encode()
    return sys.stdin.buffer.readline(PASSWORD_BYTES_MAX + 3).rstrip(b"\r\n")
