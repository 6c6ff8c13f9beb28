"""EVAL, EVALSHA and SCRIPT for the few scripts that are known by name: those of locks.

Lua is not run here. A lock that clients build on SET NX must be released and extended by its
owner alone, which takes a read and a write with nothing between them; Redis documents a script for
that, and redis-py sends three. These are known by their SHA1, or by their text, and each is a
function below. To add one: its SHA1 (`sha1sum` of the text as the client sends it), its function.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from hashlib import sha1

from kvstore.commands import expiry
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, container, parse_integer
from kvstore.keyspace import Keyspace
from kvstore.replies import OK, CommandError, Reply
from kvstore.resp import Command

_NO_SCRIPT = "NOSCRIPT No matching script. Please use EVAL."
_UNKNOWN = (
    "ERR this script is not known: Lua is not run here, only the scripts of common locks are there"
)
_PEXPIRE = next(entry.handler for entry in expiry.COMMANDS if entry.name == b"pexpire")

TEXT_BYTES_MAX = 4096
"""No script that is known is as long, with whatever spaces in it."""

Program = Callable[[Keyspace, bytes, Sequence[bytes]], Reply]
"""What a script does with the one key and the other arguments that it was given."""


def _release(keys: Keyspace, key: bytes, arguments: Sequence[bytes]) -> Reply:
    """Deletes a key that still holds the owner's token."""
    return int(keys.get(key) == arguments[0] and keys.remove(key))


def _reacquire(keys: Keyspace, key: bytes, arguments: Sequence[bytes]) -> Reply:
    """Gives a key that still holds the owner's token so many ms more from now."""
    return _PEXPIRE(keys, [b"pexpire", key, arguments[1]]) if _owns(keys, key, arguments) else 0


def _extend(keys: Keyspace, key: bytes, arguments: Sequence[bytes]) -> Reply:
    """As above, or adds them to what is left, when the third argument is 0; never to no expiry."""
    at = keys.expire_at(key)
    if at is None or not _owns(keys, key, arguments):
        return 0
    more = parse_integer(arguments[1])
    if arguments[2] == b"0":
        more += max(0, at - keys.now)
    return _PEXPIRE(keys, [b"pexpire", key, b"%d" % more])


def _owns(keys: Keyspace, key: bytes, arguments: Sequence[bytes]) -> bool:
    return keys.get(key) == arguments[0]


_BY_SHA1: dict[bytes, tuple[Program, int]] = {
    # redis-py (3.5 to 8.1): Lock.release, Lock.reacquire, Lock.extend.
    b"c3f8721cbb97f72bc19e972846bd7aaf91901658": (_release, 1),
    b"1cac51482acf5858da00f6d685d68f886cd6b6b2": (_reacquire, 2),
    b"a4e8783852e6b949f9ef3a97212805108459a890": (_extend, 3),
}
"""With the number of arguments behind the key."""
_COMPARED = b'if redis.call("get",keys[1]) == argv[1] then return redis.call(%b) else return 0 end'
_BY_TEXT: dict[bytes, tuple[Program, int]] = {
    # https://redis.io/commands/set/ (patterns), and the same for a longer life.
    _COMPARED % b'"del",keys[1]': (_release, 1),
    _COMPARED % b'"pexpire",keys[1],argv[2]': (_reacquire, 2),
}
"""By the text with its spaces, quotes and case made one."""


def _plain(text: bytes) -> bytes:
    words = b" ".join(text.lower().replace(b"'", b'"').split())
    return words.replace(b", ", b",").replace(b"( ", b"(").replace(b" )", b")")


def _eval(keys: Keyspace, command: Command) -> Reply:
    text = command[1]
    known = None
    if len(text) <= TEXT_BYTES_MAX:  # else every replica takes a long one apart for nothing
        known = _BY_SHA1.get(_digest(text)) or _BY_TEXT.get(_plain(text))
    return _run(keys, known, _UNKNOWN, command)


def _evalsha(keys: Keyspace, command: Command) -> Reply:
    return _run(keys, _BY_SHA1.get(command[1].lower()), _NO_SCRIPT, command)


def _run(
    keys: Keyspace, known: tuple[Program, int] | None, unknown: str, command: Command
) -> Reply:
    """Checks the number of keys as Redis does, then that it is what the script takes."""
    key_count = parse_integer(command[2])
    if key_count > len(command) - 3:
        raise CommandError("ERR Number of keys can't be greater than number of args")
    if key_count < 0:
        raise CommandError("ERR Number of keys can't be negative")
    if known is None:
        raise CommandError(unknown)
    program, arguments = known
    if key_count != 1 or len(command) < 4 + arguments:
        raise CommandError(f"ERR this script takes 1 key and {arguments} arguments")
    return program(keys, command[3], command[4:])


def _digest(text: bytes) -> bytes:
    return sha1(text, usedforsecurity=False).hexdigest().encode()


def _load(client: object, command: Command) -> Reply:
    digest = _digest(command[2])
    if digest not in _BY_SHA1:
        raise CommandError(_UNKNOWN)
    return digest


def _exists(client: object, command: Command) -> Reply:
    return [int(digest.lower() in _BY_SHA1) for digest in command[2:]]


def _flush(client: object, command: Command) -> Reply:
    """There is nothing to forget: scripts that are known stay known."""
    if len(command) > 3 or (len(command) == 3 and command[2].lower() not in (b"sync", b"async")):
        raise CommandError(SYNTAX_ERROR)
    return OK


def _subcommand(
    name: bytes, arity: int, handler: object, summary: str, *flags: str
) -> Entry:
    assert callable(handler)
    return Entry(name, arity, Kind.CONNECTION, handler, summary, "2.6.0", "scripting",
                 ("noscript", *flags))  # fmt: skip


_FLAGS = ("noscript", "stale", "skip_monitor", "no_mandatory_keys", "movablekeys")
COMMANDS: list[Entry] = [
    Entry(b"eval", -3, Kind.WRITE, _eval, "Run a script that is known here", "2.6.0",
          "scripting", _FLAGS),
    Entry(b"evalsha", -3, Kind.WRITE, _evalsha, "Run a script that is known here, by its SHA1",
          "2.6.0", "scripting", _FLAGS),
    container(b"script", "A container for commands on scripts", "2.6.0", "scripting", [
        _subcommand(b"load", 3, _load, "Returns the SHA1 of a script that is known here.",
                    "stale"),
        _subcommand(b"exists", -3, _exists, "Returns whether scripts are known, by their SHA1."),
        _subcommand(b"flush", -2, _flush, "Does nothing: known scripts stay known."),
    ]),
]  # fmt: skip
