"""Users whose passwords are quickly checked, and conversations of clients with them."""

from __future__ import annotations

from pathlib import Path

from kvstore import users
from kvstore.passwords import Hash
from kvstore.users import Rights, User
from tests.kvstore.serving import Running, Talker, pack

SECRET = "mArKeR-of-secrets"
"""In every password here: it must turn up nowhere."""
NOAUTH = b"-NOAUTH Authentication required.\r\n"
WRONG = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"


def password_of(name: str) -> str:
    return f"{SECRET}-{name}"


def quick(name: str, rights: Rights, password: str | None = None) -> User:
    """A user whose hash takes a millisecond."""
    text = password_of(name) if password is None else password
    return User(name, rights, Hash.of(text.encode(), log_n=4, parallel=1))


def users_file(directory: Path) -> Path:
    """`default` may write, `reader` read, `root` everything."""
    path = directory / "users.txt"
    for name, rights in (("default", "write"), ("reader", "read"), ("root", "admin")):
        users.put(path, quick(name, rights))  # type: ignore[arg-type]  # they are rights
    return path


def auth(name: str) -> bytes:
    return pack(b"AUTH", name.encode(), password_of(name).encode())


async def connect_as(running: Running, name: str) -> Talker:
    talker = await running.connect()
    await talker.send(auth(name))
    await talker.expect(b"+OK\r\n")
    return talker


async def ask(talker: Talker, *words: bytes) -> bytes:
    """The first line of a reply."""
    await talker.send(pack(*words))
    return await talker.line()
