"""DEBUG, for tests: what Redis' own tests use of it and what can be done without harm."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from kvstore.commands.client import Client
from kvstore.commands.table import Entry, Kind
from kvstore.replies import OK, CommandError, Raw, Reply, Status, Verbatim
from kvstore.resp import Command

SLEEP_S_MAX = 3600.0
_LINES = (
    b"DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
    b"PROTOCOL <type>", b"    Reply with a test value of the specified type.",
    b"RELOAD, LOADAOF", b"    Forget what is cached: the data are read from disk again.",
    b"SET-ACTIVE-EXPIRE <0|1>", b"    Accepted; expiry follows the log on every replica alike.",
    b"SLEEP <seconds>", b"    Hold this connection's replies; nobody else waits.",
    b"HELP", b"    Print this help.",
)  # fmt: skip
_VALUES: dict[bytes, Reply] = {
    b"string": b"Hello World",
    b"integer": 12345,
    b"double": 3.141,
    b"null": None,
    b"array": [0, 1, 2],
    b"true": True,
    b"false": False,
    b"verbatim": Verbatim(b"This is a verbatim\nstring"),
    b"bignum": Raw(
        b"$37\r\n1234567999999999999999999999999999999\r\n",
        b"(1234567999999999999999999999999999999\r\n",
    ),
    b"set": Raw(b"*3\r\n:0\r\n:1\r\n:2\r\n", b"~3\r\n:0\r\n:1\r\n:2\r\n"),
    b"map": Raw(
        b"*6\r\n:0\r\n:0\r\n:1\r\n:1\r\n:2\r\n:0\r\n",
        b"%3\r\n:0\r\n#f\r\n:1\r\n#t\r\n:2\r\n#f\r\n",
    ),
    b"attrib": Raw(
        b"$39\r\nSome real reply following the attribute\r\n",
        b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n"
        b"$39\r\nSome real reply following the attribute\r\n",
    ),
    b"push": Raw(
        b"-ERR RESP2 is not supported by this command\r\n",
        b">2\r\n$16\r\nserver-cpu-usage\r\n:42\r\n"
        b"$40\r\nSome real reply following the push reply\r\n",
    ),
}


def _protocol(client: Client, argument: bytes) -> Reply:
    name = argument.lower()
    if name not in _VALUES:
        raise CommandError(
            "ERR Wrong protocol type name. Please use one of the following: string|integer|double|"
            "bignum|null|array|set|map|attrib|push|verbatim|true|false"
        )
    return _VALUES[name]


def _sleep(client: Client, argument: bytes) -> Reply:
    try:
        seconds = float(argument)
    except ValueError:
        seconds = 0.0
    if seconds > 0:
        client.asleep_until = monotonic() + min(seconds, SLEEP_S_MAX)
    return OK


def _set_active_expire(client: Client, argument: bytes) -> Reply:
    return OK


_WITH_ARGUMENT: dict[bytes, Callable[[Client, bytes], Reply]] = {
    b"protocol": _protocol,
    b"set-active-expire": _set_active_expire,
    b"sleep": _sleep,
}


def _debug(client: Client, command: Command) -> Reply:
    name = command[1].lower()
    handler = _WITH_ARGUMENT.get(name)
    if handler is not None and len(command) == 3:
        return handler(client, command[2])
    if name in (b"reload", b"loadaof"):  # RELOAD's options concern Redis' file
        client.server.reload()
        return OK
    if name == b"help" and len(command) == 2:
        return [Status(line) for line in _LINES]
    raise CommandError(
        b"ERR unknown subcommand or wrong number of arguments for '%b'. Try DEBUG HELP."
        % command[1][:128]
    )


COMMANDS: list[Entry] = [
    Entry(b"debug", -2, Kind.CONNECTION, _debug, "A container for debugging commands", "1.0.0",
          "server", ("admin", "noscript", "loading", "stale")),
]  # fmt: skip
