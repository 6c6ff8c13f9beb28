"""Commands about the connection itself: PING, ECHO, HELLO, SELECT, RESET, QUIT, AUTH."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.authentication import WRONG, Asked
from kvstore.commands.client import Client
from kvstore.commands.databases import parse_database
from kvstore.commands.table import (
    Entry,
    Kind,
    parse_integer,
    wrong_arity,
)
from kvstore.replies import OK, CommandError, Reply, Status
from kvstore.resp import Command
from kvstore.users import DEFAULT_USER

SERVER_VERSION = b"7.0.15"
"""The Redis whose replies are matched; clients choose what they send by it."""

TOLD_BYTES_MAX = 1024
"""Of a client's name, and of each word about its library: thousands of clients have them, CLIENT
LIST joins all, and the slow log keeps names."""

_PONG = Status(b"PONG")
_BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters."
_NO_PASSWORD = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
_GREET_FIRST = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH "
    "<user> <pass> option can be used to authenticate the client and select the RESP protocol "
    "version at the same time"
)


def _ping(client: Client, command: Command) -> Reply:
    if len(command) > 2:
        raise wrong_arity(_PING)
    return command[1] if len(command) == 2 else _PONG


def _echo(client: Client, command: Command) -> Reply:
    return command[1]


def _select(client: Client, command: Command) -> Reply:
    client.database = parse_database(command[1])
    return OK


def _reset(client: Client, command: Command) -> Reply:
    client.reset()
    client.server.forget(client)
    return Status(b"RESET")


def _quit(client: Client, command: Command) -> Reply:
    client.closing = True
    return OK


def _auth(client: Client, command: Command) -> Reply:
    """Asks for a check; without users, as Redis with none set, `AUTH default x` is taken."""
    if len(command) > 3:
        raise CommandError("ERR syntax error")
    if len(command) == 2 and client.server.access is None:
        raise CommandError(_NO_PASSWORD)
    name = command[1] if len(command) == 3 else DEFAULT_USER.encode()
    return _ask(client, name, command[-1], lambda: OK)


def _ask(client: Client, name: bytes, password: bytes, finish: Callable[[], Reply]) -> Reply:
    """Leaves the rest of a command for after the check of a password (`Connection.next_run`)."""
    if client.server.access is not None:
        client.asked = Asked(name, password, finish)
        return None
    if name != DEFAULT_USER.encode():
        raise CommandError(WRONG)
    return finish()


def check_told(word: bytes) -> None:
    """Refuses what is too long to be kept of a client for as long as it is connected."""
    if len(word) > TOLD_BYTES_MAX:
        raise CommandError(f"ERR more than {TOLD_BYTES_MAX} bytes about a client; make it shorter")


def checked_name(name: bytes) -> bytes:
    """A name that a client may have; a CommandError if it is none."""
    check_told(name)
    if any(not 33 <= character <= 126 for character in name):
        raise CommandError(_BAD_NAME)
    return name


def _hello(client: Client, command: Command) -> Reply:
    protocol = client.protocol
    if len(command) > 1:
        try:
            protocol = parse_integer(command[1])
        except CommandError:
            raise CommandError(
                "ERR Protocol version is not an integer or out of range"
            ) from None
        if protocol not in (2, 3):
            raise CommandError("NOPROTO unsupported protocol version")
    position = 2
    shown: tuple[bytes, bytes] | None = None
    while position < len(command):
        option, left = command[position].lower(), len(command) - position - 1
        if option == b"auth" and left >= 2:
            shown = command[position + 1], command[position + 2]
            position += 3
        elif option == b"setname" and left >= 1:
            client.name = checked_name(command[position + 1])  # kept though a later option fails
            position += 2
        else:
            raise CommandError(b"ERR Syntax error in HELLO option '%b'" % command[position])

    def finish() -> Reply:
        client.protocol = protocol
        return {
            b"server": b"redis",
            b"version": SERVER_VERSION,
            b"proto": protocol,
            b"id": client.id,
            b"mode": b"standalone",
            b"role": b"master",
            b"modules": [],
        }

    if shown is not None:
        return _ask(client, *shown, finish)
    if client.server.access is not None and client.user is None:
        raise CommandError(_GREET_FIRST)
    return finish()


def _command(
    name: bytes, arity: int, handler: object, summary: str, since: str, *flags: str
) -> Entry:
    assert callable(handler)
    return Entry(
        name, arity, Kind.CONNECTION, handler, summary, since, "connection",
        flags or ("noscript", "loading", "stale", "fast"),
    )


_PING = _command(b"ping", -1, _ping, "Ping the server", "1.0.0", "fast")
COMMANDS: list[Entry] = [
    _PING,
    _command(b"echo", 2, _echo, "Echo the given string", "1.0.0", "loading", "stale", "fast"),
    _command(b"hello", -1, _hello, "Handshake with Redis", "6.0.0",
             "noscript", "loading", "stale", "fast", "no_auth", "allow_busy"),
    _command(b"select", 2, _select, "Change the selected database for the current connection",
             "1.0.0", "loading", "stale", "fast"),
    _command(b"reset", 1, _reset, "Reset the connection", "6.2.0",
             "noscript", "loading", "stale", "fast", "no_auth", "allow_busy"),
    _command(b"quit", -1, _quit, "Close the connection", "1.0.0",
             "noscript", "loading", "stale", "fast", "no_auth", "allow_busy"),
    _command(b"auth", -2, _auth, "Authenticate to the server", "1.0.0",
             "noscript", "loading", "stale", "fast", "no_auth", "allow_busy"),
]
