"""Commands on when keys expire: EXPIRE and its kin, TTL and its kin, PERSIST.

Writes count from the log's time, the same on every replica; what is left is told by the clock of
the node that is asked, never before the log's time.
"""

from __future__ import annotations

from collections.abc import Callable

from kvstore.commands.table import Entry, Kind, parse_integer
from kvstore.keyspace import Keyspace
from kvstore.replies import CommandError, Reply
from kvstore.resp import Command

_MOST = (1 << 63) - 1
"""Milliseconds are signed 64-bit integers in Redis."""
_MISSING, _LASTING = -2, -1


def _conditions(command: Command) -> set[bytes]:
    """The options NX XX GT LT that stand behind the time."""
    found: set[bytes] = set()
    for option in command[3:]:
        if option.lower() not in (b"nx", b"xx", b"gt", b"lt"):
            raise CommandError(b"ERR Unsupported option %b" % option)
        found.add(option.lower())
    if b"nx" in found and len(found) > 1:
        raise CommandError(
            "ERR NX and XX, GT or LT options at the same time are not compatible"
        )
    if {b"gt", b"lt"} <= found:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    return found


def _allowed(conditions: set[bytes], present: int | None, wanted: int) -> bool:
    """Whether an expiry may replace the present one; none at all is later than any."""
    if b"nx" in conditions and present is not None:
        return False
    if b"xx" in conditions and present is None:
        return False
    if b"gt" in conditions and (present is None or wanted <= present):
        return False
    return not (b"lt" in conditions and present is not None and wanted >= present)


def _expire(unit_ms: int, *, relative: bool) -> Callable[[Keyspace, Command], Reply]:
    """The handler of EXPIRE, PEXPIRE, EXPIREAT or PEXPIREAT."""

    def handler(keys: Keyspace, command: Command) -> Reply:
        conditions = _conditions(command)
        time = parse_integer(command[2])
        at = time * unit_ms
        base = keys.now if relative else 0
        # Redis divides towards zero before it compares.
        if abs(time) > (_MOST if time > 0 else _MOST + 1) // unit_ms or at > _MOST - base:
            name = command[0].lower()
            raise CommandError(b"ERR invalid expire time in '%b' command" % name)
        at += base
        key = command[1]
        if not keys.contains(key):
            return 0
        if conditions and not _allowed(conditions, keys.expire_at(key), at):
            return 0
        keys.set_expiry(key, at)  # one in the past deletes the key
        return 1

    return handler


def _persist(keys: Keyspace, command: Command) -> Reply:
    key = command[1]
    if keys.expire_at(key) is None:
        return 0
    keys.set_expiry(key, None)
    return 1


def _when(keys: Keyspace, key: bytes) -> int:
    """When a key expires, in ms since the epoch; negative: it is missing, or lasts."""
    at = keys.expire_at(key)
    if at is not None:
        return at
    return _LASTING if keys.contains(key) else _MISSING


def _pttl(keys: Keyspace, command: Command) -> int:
    at = _when(keys, command[1])
    return at if at < 0 else max(0, at - keys.clock_ms())


def _ttl(keys: Keyspace, command: Command) -> int:
    left = _pttl(keys, command)
    return left if left < 0 else (left + 500) // 1000


def _pexpiretime(keys: Keyspace, command: Command) -> int:
    return _when(keys, command[1])


def _expiretime(keys: Keyspace, command: Command) -> int:
    at = _when(keys, command[1])
    return at if at < 0 else (at + 500) // 1000


def _write(
    name: bytes, arity: int, handler: Callable[[Keyspace, Command], Reply], summary: str,
    since: str,
) -> Entry:
    return Entry(name, arity, Kind.WRITE, handler, summary, since, "generic", ("write", "fast"),
                 (1, 1, 1))


def _read(
    name: bytes, handler: Callable[[Keyspace, Command], Reply], summary: str, since: str
) -> Entry:
    return Entry(name, 2, Kind.READ, handler, summary, since, "generic", ("readonly", "fast"),
                 (1, 1, 1))


COMMANDS: list[Entry] = [
    _write(b"expire", -3, _expire(1000, relative=True),
           "Set a key's time to live in seconds", "1.0.0"),
    _write(b"pexpire", -3, _expire(1, relative=True),
           "Set a key's time to live in milliseconds", "2.6.0"),
    _write(b"expireat", -3, _expire(1000, relative=False),
           "Set the expiration for a key as a UNIX timestamp", "1.2.0"),
    _write(b"pexpireat", -3, _expire(1, relative=False),
           "Set the expiration for a key as a UNIX timestamp specified in milliseconds", "2.6.0"),
    _write(b"persist", 2, _persist, "Remove the expiration from a key", "2.2.0"),
    _read(b"ttl", _ttl, "Get the time to live for a key in seconds", "1.0.0"),
    _read(b"pttl", _pttl, "Get the time to live for a key in milliseconds", "2.6.0"),
    _read(b"expiretime", _expiretime, "Get the expiration Unix timestamp for a key", "7.0.0"),
    _read(b"pexpiretime", _pexpiretime,
          "Get the expiration Unix timestamp for a key in milliseconds", "7.0.0"),
]  # fmt: skip
