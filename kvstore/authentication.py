"""Who a client is: checks of passwords that neither stop the node nor can be had for nothing.

A first check is scrypt's, in a thread, one at a time. Once a user's password was found right, a
fast hash of it under a key of this process decides, of wrong ones too: there is but one right
one. So clients that come again cost little, and so do those who guess; what holds them back is that
each failure is answered late, and that a connection has a few of them.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import trio

from kvstore import users
from kvstore.passwords import PASSWORD_BYTES_MAX
from kvstore.replies import CommandError, Reply
from kvstore.users import User

log = logging.getLogger(__name__)

AT_ONCE = 1
"""Checks by scrypt, each of which takes a core and 16 MiB."""
WAITING_MAX = 64
"""Checks by scrypt that wait, ..."""
WAITING_OF_ADDRESS_MAX = 4
"""... and of one address, so that one machine's guesses do not keep the others out."""
FAILURE_S = 1.0
"""How late a failure is answered."""
FAILURES_MAX = 5
"""Of a connection; then it is closed."""

COUNTERS = (
    "authenticated", "authentications_failed", "authentications_refused", "passwords_hashed",
    "users_reload_failed",
)  # fmt: skip
WRONG = "WRONGPASS invalid username-password pair or user is disabled."
_BUSY = "ERR too many passwords are being checked; try again"


@dataclass(slots=True)
class Asked:
    """An AUTH, or a HELLO with one, that waits for its check."""

    name: bytes
    password: bytes = field(repr=False)
    finish: Callable[[], Reply]
    """Does the rest of the command, once the password was found right."""


class Authenticator:
    """The users of a file, and what is known of their passwords."""

    def __init__(self, path: Path) -> None:
        """Reads the file.

        Raises:
          BadUsers: with what to do.
        """
        self._path = path
        self.users = users.load(path)
        self.counters = dict.fromkeys(COUNTERS, 0)
        self._key = secrets.token_bytes(32)
        self._right: dict[User, bytes] = {}
        """Fast hashes of passwords that were found right."""
        self._threads = trio.Semaphore(AT_ONCE)
        self._waiting: Counter[str] = Counter()
        """Checks by scrypt under way or to come, by address."""
        self._under_way: dict[tuple[User, bytes], trio.Event] = {}
        if not self.users:
            log.warning("%s names no user: no client can use this node", path)

    def reload(self) -> None:
        """Reads the file again; one that is no good changes nothing, and is told in the log."""
        try:
            self.users = users.load(self._path)
        except users.BadUsers as error:
            self.counters["users_reload_failed"] += 1
            log.error("the users stay as they were: %s", error)
            return
        known = set(self.users.values())
        self._right = {user: fast for user, fast in self._right.items() if user in known}
        log.info("%s: %d users", self._path, len(self.users))

    def knows(self, user: User | None) -> bool:
        """Whether this user is still as it was when it authenticated."""
        return user is not None and self.users.get(user.name) == user

    async def verify(self, asked: Asked, address: str) -> User:
        """The user whose name and password these are.

        Raises:
          CommandError: they are wrong, after a while; or too many are being checked.
        """
        name = asked.name.decode("latin-1")
        user = self.users.get(name)
        if (
            user is None
            or len(asked.password) > PASSWORD_BYTES_MAX
            or not await self._matches(user, asked.password, address)
        ):
            self.counters["authentications_failed"] += 1
            await trio.sleep(FAILURE_S)
            raise CommandError(WRONG)
        self.counters["authenticated"] += 1
        return user

    async def _matches(self, user: User, password: bytes, address: str) -> bool:
        fast = blake2b(password, key=self._key, salt=user.hash.salt[:16]).digest()
        while True:
            right = self._right.get(user)
            if right is not None:
                return hmac.compare_digest(right, fast)
            other = self._under_way.get((user, fast))
            if other is None:
                return await self._hash(user, password, fast, address)
            # Many connections of one program come together: one check serves all.
            await other.wait()
            if user not in self._right:
                return False

    async def _hash(self, user: User, password: bytes, fast: bytes, address: str) -> bool:
        waiting = self._waiting
        if waiting.total() >= WAITING_MAX or waiting[address] >= WAITING_OF_ADDRESS_MAX:
            self.counters["authentications_refused"] += 1
            raise CommandError(_BUSY)
        waiting[address] += 1
        done = self._under_way[user, fast] = trio.Event()
        try:
            async with self._threads:
                right = self._right.get(user)
                if right is not None:  # found meanwhile, so this one is decided too
                    return hmac.compare_digest(right, fast)
                self.counters["passwords_hashed"] += 1
                good = await trio.to_thread.run_sync(user.hash.matches, password)
                if good:
                    self._right[user] = fast
                return good
        finally:
            done.set()
            del self._under_way[user, fast]
            waiting[address] -= 1
            if not waiting[address]:
                del waiting[address]
