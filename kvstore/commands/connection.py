"""Commands about the connection itself: PING, ECHO, HELLO, SELECT, RESET, QUIT, AUTH, CLIENT."""

from __future__ import annotations

from kvstore.commands.client import Client
from kvstore.commands.table import (
    SYNTAX_ERROR,
    Entry,
    Kind,
    container,
    parse_integer,
    wrong_arity,
)
from kvstore.packing import DATABASES
from kvstore.replies import OK, CommandError, Reply, Status, Verbatim
from kvstore.resp import Command

SERVER_VERSION = b"7.0.15"
"""The Redis whose replies are matched; clients choose what they send by it."""

_PONG = Status(b"PONG")
_BAD_NAME = "ERR Client names cannot contain spaces, newlines or special characters."
_NO_PASSWORD = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)


def _ping(client: Client, command: Command) -> Reply:
    if len(command) > 2:
        raise wrong_arity(_PING)
    return command[1] if len(command) == 2 else _PONG


def _echo(client: Client, command: Command) -> Reply:
    return command[1]


def _select(client: Client, command: Command) -> Reply:
    database = parse_integer(command[1])
    if not 0 <= database < DATABASES:
        raise CommandError("ERR DB index is out of range")
    client.database = database
    return OK


def _reset(client: Client, command: Command) -> Reply:
    client.reset()
    return Status(b"RESET")


def _quit(client: Client, command: Command) -> Reply:
    client.closing = True
    return OK


def _auth(client: Client, command: Command) -> Reply:
    """There are no passwords yet: as Redis with none set, only `AUTH default x` is taken."""
    if len(command) > 3:
        raise CommandError("ERR syntax error")
    if len(command) == 2:
        raise CommandError(_NO_PASSWORD)
    _check_user(command[1])
    return OK


def _check_user(user: bytes) -> None:
    if user != b"default":
        raise CommandError("WRONGPASS invalid username-password pair or user is disabled.")


def _checked_name(name: bytes) -> bytes:
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
    while position < len(command):
        option, left = command[position].lower(), len(command) - position - 1
        if option == b"auth" and left >= 2:
            _check_user(command[position + 1])
            position += 3
        elif option == b"setname" and left >= 1:
            client.name = _checked_name(command[position + 1])  # kept though a later option fails
            position += 2
        else:
            raise CommandError(b"ERR Syntax error in HELLO option '%b'" % command[position])
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


def _client_id(client: Client, command: Command) -> Reply:
    return client.id


def _client_getname(client: Client, command: Command) -> Reply:
    return client.name or None


def _client_setname(client: Client, command: Command) -> Reply:
    client.name = _checked_name(command[2])
    return OK


def _client_setinfo(client: Client, command: Command) -> Reply:
    attribute = command[2].lower()
    if attribute not in (b"lib-name", b"lib-ver"):
        raise CommandError(b"ERR Unrecognized option '%b'" % command[2])
    if any(not 33 <= character <= 126 for character in command[3]):
        raise CommandError(
            b"ERR %b cannot contain spaces, newlines or special characters." % attribute
        )
    client.library[attribute] = command[3]
    return OK


def _client_info(client: Client, command: Command) -> Reply:
    return Verbatim(client.describe())


def _client_list(client: Client, command: Command) -> Reply:
    """All clients, or `TYPE` of them, or those with an `ID`; all of them are of type normal."""
    clients = client.server.clients()
    option = command[2].lower() if len(command) > 2 else b""
    if option == b"type" and len(command) == 4:
        kind = command[3].lower()
        if kind not in (b"normal", b"master", b"replica", b"slave", b"pubsub"):
            raise CommandError(b"ERR Unknown client type '%b'" % command[3])
        clients = clients if kind == b"normal" else []
    elif option == b"id" and len(command) > 3:
        try:
            wanted = {parse_integer(word) for word in command[3:]}
        except CommandError:
            raise CommandError("ERR Invalid client ID") from None
        clients = [other for other in clients if other.id in wanted]
    elif option:
        raise CommandError(SYNTAX_ERROR)
    return Verbatim(b"".join(other.describe() for other in clients))


def _command(
    name: bytes, arity: int, handler: object, summary: str, since: str, *flags: str
) -> Entry:
    assert callable(handler)
    return Entry(
        name, arity, Kind.CONNECTION, handler, summary, since, "connection",
        flags or ("noscript", "loading", "stale", "fast"),
    )


_SUBCOMMAND = ("noscript", "loading", "stale")
_PING = _command(b"ping", -1, _ping, "Ping the server", "1.0.0", "fast")
COMMANDS = [
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
    container(b"client", "A container for client connection commands", "2.4.0", "connection", [
        _command(b"id", 2, _client_id, "Returns the client ID for the current connection",
                 "5.0.0", *_SUBCOMMAND),
        _command(b"getname", 2, _client_getname, "Get the current connection name", "2.6.9",
                 *_SUBCOMMAND),
        _command(b"setname", 3, _client_setname, "Set the current connection name", "2.6.9",
                 *_SUBCOMMAND),
        _command(b"setinfo", 4, _client_setinfo, "Set client or connection specific info",
                 "7.2.0", *_SUBCOMMAND),
        _command(b"info", 2, _client_info,
                 "Returns information about the current client connection.", "6.2.0",
                 *_SUBCOMMAND),
        _command(b"list", -2, _client_list, "Get the list of client connections", "2.4.0",
                 "admin", *_SUBCOMMAND),
    ]),
]
