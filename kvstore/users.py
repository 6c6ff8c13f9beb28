"""The users file: who may connect as a client, and with which rights.

    # name rights hash
    default write scrypt:14:8:5:...
    reports read  scrypt:14:8:5:...

A line a user; `kvstore users` writes it, and keeps the lines that it does not change. `read` has
all commands that change nothing; `write` those of keys too; `admin` all: also what empties
databases, and what looks at or changes the server and its other clients.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from kvstore.passwords import PASSWORD_BYTES_MAX, Hash
from p4xos.errors import P4xosError

Rights = Literal["read", "write", "admin"]
RIGHTS: tuple[Rights, ...] = get_args(Rights)
DEFAULT_USER = "default"
"""Whom `AUTH password` means."""
PASSWORD_VARIABLE = "KVSTORE_PASSWORD"
"""Where command lines that connect find a password."""
USERS_MAX = 1000
_FILE_BYTES_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
_HEADING = "# name rights hash: made by `kvstore users`; a node reads it again on SIGHUP\n"


class BadUsers(P4xosError):
    """The users file cannot be used; the message says where and what to do."""

    def __init__(self, path: Path, line: int, reason: str, mend: str) -> None:
        place = f"{path}, line {line}" if line else str(path)
        super().__init__(f"{place}: {reason}; {mend}")
        self.path = path
        self.line = line


@dataclass(frozen=True, slots=True)
class User:
    """One line of the file."""

    name: str
    rights: Rights
    hash: Hash


def load(path: Path) -> dict[str, User]:
    """The users by name, in the order of the file.

    Raises:
      BadUsers: it is damaged, others may read or change it, or it cannot be read.
    """
    return _parse(path, _read(path))


def check_name(name: str) -> str:
    """The name, if a user may have it; a ValueError if not."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name of a user: take up to 64 letters, digits and any of . _ - @"
        )
    return name


def check_password(password: bytes) -> bytes:
    """The password, if it can be one; a ValueError, which does not quote it, if not."""
    if not password:
        raise ValueError("the password is empty; type one, or give it on standard input")
    if len(password) > PASSWORD_BYTES_MAX:
        raise ValueError(f"the password is longer than {PASSWORD_BYTES_MAX} bytes; take another")
    return password


def put(path: Path, user: User) -> bool:
    """Writes a user into the file, which is made if need be.

    Returns:
      Whether there was one of this name, in whose place it is now.
    """
    text = _read(path) if path.exists() else _HEADING
    known = _parse(path, text)
    if user.name not in known and len(known) >= USERS_MAX:
        raise BadUsers(path, 0, f"it has {USERS_MAX} users", "remove some")
    line = f"{user.name} {user.rights} {user.hash}\n"
    lines = [line if _name_in(old) == user.name else old for old in _lines(text)]
    if user.name not in known:
        lines.append(line)
    _write(path, "".join(lines))
    return user.name in known


def remove(path: Path, name: str) -> None:
    """Takes a user out of the file.

    Raises:
      BadUsers: there is none of this name.
    """
    text = _read(path)
    if name not in _parse(path, text):
        raise BadUsers(path, 0, f"there is no user {name!r}", "`kvstore users list` tells who is")
    _write(path, "".join(line for line in _lines(text) if _name_in(line) != name))


def check_private(path: Path, status: os.stat_result) -> None:
    """Refuses a file with secrets that others may read, or the group change.

    Raises:
      BadUsers: with the command that mends it.
    """
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o027:
        reason = f"its mode is {mode:04o}, so that others may read or change it"
        raise BadUsers(path, 0, reason, f"chmod 600 {path}")


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            check_private(path, os.fstat(file.fileno()))
            content = file.read(_FILE_BYTES_MAX + 1)
    except OSError as error:
        mend = "make it with `kvstore users add`, or mend the path in [clients] of the cluster file"
        raise BadUsers(path, 0, f"cannot be read ({error.strerror})", mend) from None
    if len(content) > _FILE_BYTES_MAX:
        raise BadUsers(path, 0, "it is larger than 1 MiB", "name a users file")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadUsers(
            path, line, "it is no UTF-8", "restore the file, or write the line again"
        ) from None


def _parse(path: Path, text: str) -> dict[str, User]:
    """All lines; what is wrong is told without the line, which has a hash in it."""
    found: dict[str, User] = {}
    again = "remove the line, then `kvstore users add` the user again"
    for number, line in enumerate(text.splitlines(), start=1):
        name = _name_in(line)
        if not name:
            continue
        words = line.split()
        if len(words) != 3:
            reason = f"found {len(words)} words, allowed are three: name, rights, hash"
            raise BadUsers(path, number, reason, again)
        if not _NAME.fullmatch(name):
            reason = "the first word is no name of a user"
            raise BadUsers(path, number, reason, again)
        rights = next((known for known in RIGHTS if known == words[1]), None)
        if rights is None:
            raise BadUsers(
                path, number, "the second word is not among the rights",
                f"write one of {', '.join(RIGHTS)}",
            )  # fmt: skip
        if name in found:
            raise BadUsers(path, number, f"{name} has a line already", "remove one of the two")
        try:
            found[name] = User(name, rights, Hash.parse(words[2]))
        except ValueError as error:
            raise BadUsers(path, number, str(error), again) from None
    if len(found) > USERS_MAX:
        raise BadUsers(path, 0, f"it has more than {USERS_MAX} users", "remove some")
    return found


def _name_in(line: str) -> str:
    """The name in a line; empty in one that is empty or a remark."""
    words = line.split(maxsplit=1)
    return "" if not words or words[0].startswith("#") else words[0]


def _lines(text: str) -> list[str]:
    return [line + "\n" for line in text.splitlines()]


def _write(path: Path, text: str) -> None:
    """As a whole or not at all; for its owner alone."""
    descriptor, unfinished = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            if path.exists():
                kept = path.stat()
                os.fchmod(file.fileno(), stat.S_IMODE(kept.st_mode) & 0o640)
                if os.geteuid() == 0:
                    os.fchown(file.fileno(), kept.st_uid, kept.st_gid)
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    except BaseException:
        Path(unfinished).unlink(missing_ok=True)
        raise


def described(users: Mapping[str, User]) -> dict[str, str]:
    """Names and rights: what may be told."""
    return {user.name: user.rights for user in users.values()}
