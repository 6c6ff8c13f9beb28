"""CLIENT: what a client may know and change of its connection and of the others."""

from __future__ import annotations

from collections.abc import Callable

from kvstore.commands.client import Client
from kvstore.commands.connection import check_told, checked_name
from kvstore.commands.introspection import parse_timeout
from kvstore.commands.table import SYNTAX_ERROR, Entry, Kind, container, parse_integer
from kvstore.replies import OK, CommandError, Reply, Verbatim
from kvstore.resp import Command
from kvstore.users import DEFAULT_USER

_KINDS = (b"normal", b"master", b"replica", b"slave", b"pubsub")
"""What Redis knows; all clients here are normal ones."""
_NO_TRACKING = "ERR client-side caching is not supported here; connect without CLIENT TRACKING"


def _monitor(client: Client, command: Command) -> Reply:
    client.server.monitor(client)
    return OK


def _id(client: Client, command: Command) -> Reply:
    return client.id


def _getname(client: Client, command: Command) -> Reply:
    return client.name or None


def _setname(client: Client, command: Command) -> Reply:
    client.name = checked_name(command[2])
    return OK


def _setinfo(client: Client, command: Command) -> Reply:
    attribute = command[2].lower()
    if attribute not in (b"lib-name", b"lib-ver"):
        raise CommandError(b"ERR Unrecognized option '%b'" % command[2])
    check_told(command[3])
    if any(not 33 <= character <= 126 for character in command[3]):
        raise CommandError(
            b"ERR %b cannot contain spaces, newlines or special characters." % attribute
        )
    client.library[attribute] = command[3]
    return OK


def _info(client: Client, command: Command) -> Reply:
    return Verbatim(client.describe())


def _checked_kind(word: bytes) -> bytes:
    if word.lower() not in _KINDS:
        raise CommandError(b"ERR Unknown client type '%b'" % word)
    return word.lower()


def _list(client: Client, command: Command) -> Reply:
    """All clients, or `TYPE` of them, or those with an `ID`."""
    clients = client.server.clients()
    option = command[2].lower() if len(command) > 2 else b""
    if option == b"type" and len(command) == 4:
        clients = clients if _checked_kind(command[3]) == b"normal" else []
    elif option == b"id" and len(command) > 3:
        try:
            wanted = {parse_integer(word) for word in command[3:]}
        except CommandError:
            raise CommandError("ERR Invalid client ID") from None
        clients = [other for other in clients if other.id in wanted]
    elif option:
        raise CommandError(SYNTAX_ERROR)
    return Verbatim(b"".join(other.describe() for other in clients))


def _kill(client: Client, command: Command) -> Reply:
    """`KILL address`, or `KILL` filters: those that all of them choose are hung up on."""
    if len(command) == 3:
        address = command[2].decode("latin-1")
        if not _hang_up(client, lambda other: other.address == address, skip_me=False):
            raise CommandError("ERR No such client")
        return OK
    if len(command) % 2:
        raise CommandError(SYNTAX_ERROR)
    tests: list[Callable[[Client], bool]] = []
    skip_me = True
    for option, value in zip(command[2::2], command[3::2], strict=True):
        if option.lower() == b"skipme":
            if value.lower() not in (b"yes", b"no"):
                raise CommandError(SYNTAX_ERROR)
            skip_me = value.lower() == b"yes"
        else:
            tests.append(_filter(client, option.lower(), value))
    return _hang_up(client, lambda other: all(test(other) for test in tests), skip_me=skip_me)


def _filter(client: Client, option: bytes, value: bytes) -> Callable[[Client], bool]:
    """Whether a client is chosen by one filter of CLIENT KILL."""
    text = value.decode("latin-1")
    if option == b"id":
        number = _client_number(value)
        return lambda other: other.id == number
    if option == b"addr":
        return lambda other: other.address == text
    if option == b"laddr":
        return lambda other: other.local_address == text
    if option == b"type":
        normal = _checked_kind(value) == b"normal"
        return lambda other: normal
    if option == b"user":
        access = client.server.access
        if text not in ((DEFAULT_USER,) if access is None else access.users):
            raise CommandError(b"ERR No such user '%b'" % value)
        return lambda other: other.user_name == text
    raise CommandError(SYNTAX_ERROR)


def _client_number(text: bytes) -> int:
    try:
        number = parse_integer(text)
    except CommandError:
        number = 0
    if number < 1:
        raise CommandError("ERR client-id should be greater than 0")
    return number


def _hang_up(client: Client, chosen: Callable[[Client], bool], *, skip_me: bool) -> int:
    """Closes the chosen clients; the one that asks gets its reply first."""
    killed = 0
    for other in client.server.clients():
        if not chosen(other) or (other is client and skip_me):
            continue
        if other is client:
            client.closing = True
        else:
            client.server.close(other)
        killed += 1
    return killed


def _reply(client: Client, command: Command) -> Reply:
    mode = command[2].lower()
    if mode == b"on":
        client.muted = 0
    elif mode == b"off":
        client.muted = -1
    elif mode != b"skip":
        raise CommandError(SYNTAX_ERROR)
    elif client.muted >= 0:
        client.muted = 2  # this command's reply, and the next one's
    return OK


def _pause(client: Client, command: Command) -> Reply:
    """Holds commands on keys that this node's clients send; the cluster goes on.

    Commands about connections are answered meanwhile, CLIENT UNPAUSE among them.
    """
    mode = command[3].lower() if len(command) > 3 else b"all"
    if len(command) > 4:
        raise CommandError(SYNTAX_ERROR)
    if mode not in (b"all", b"write"):
        raise CommandError("ERR CLIENT PAUSE mode must be WRITE or ALL")
    client.server.pause(parse_timeout(command[2]) / 1000, mode == b"write")
    return OK


def _unpause(client: Client, command: Command) -> Reply:
    client.server.pause(0.0, False)
    return OK


def _on_or_off(client: Client, command: Command) -> Reply:
    """NO-EVICT, NO-TOUCH: no client is evicted here, and no key's use is noted."""
    if command[2].lower() not in (b"on", b"off"):
        raise CommandError(SYNTAX_ERROR)
    return OK


def _unblock(client: Client, command: Command) -> Reply:
    """No command here blocks, so there is nobody to unblock."""
    if len(command) > 4:
        raise CommandError(SYNTAX_ERROR)
    if len(command) == 4 and command[3].lower() not in (b"timeout", b"error"):
        raise CommandError("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    parse_integer(command[2])
    return 0


def _tracking(client: Client, command: Command) -> Reply:
    mode = command[2].lower()
    if mode == b"on":
        raise CommandError(_NO_TRACKING)
    if mode != b"off":
        raise CommandError(SYNTAX_ERROR)
    return OK


def _getredir(client: Client, command: Command) -> Reply:
    return -1


def _sub(
    name: bytes, arity: int, handler: Callable[[Client, Command], Reply], summary: str,
    since: str, *flags: str,
) -> Entry:
    return Entry(name, arity, Kind.CONNECTION, handler, summary, since, "connection",
                 (*flags, "noscript", "loading", "stale"))  # fmt: skip


COMMANDS: list[Entry] = [
    Entry(b"monitor", 1, Kind.CONNECTION, _monitor,
          "Listen for all requests received by the server in real time", "1.0.0", "server",
          ("admin", "noscript", "loading", "stale")),
    container(b"client", "A container for client connection commands", "2.4.0", "connection", [
        _sub(b"id", 2, _id, "Returns the client ID for the current connection", "5.0.0"),
        _sub(b"getname", 2, _getname, "Get the current connection name", "2.6.9"),
        _sub(b"setname", 3, _setname, "Set the current connection name", "2.6.9"),
        _sub(b"setinfo", 4, _setinfo, "Set client or connection specific info", "7.2.0"),
        _sub(b"info", 2, _info, "Returns information about the current client connection.",
             "6.2.0"),
        _sub(b"list", -2, _list, "Get the list of client connections", "2.4.0", "admin"),
        _sub(b"kill", -3, _kill, "Kill the connection of a client", "2.4.0", "admin"),
        _sub(b"reply", 3, _reply, "Instruct the server whether to reply to commands", "3.2.0"),
        _sub(b"pause", -3, _pause, "Stop processing commands from clients for some time",
             "3.0.0", "admin"),
        _sub(b"unpause", 2, _unpause, "Resume processing of clients that were paused", "6.2.0",
             "admin"),
        _sub(b"unblock", -3, _unblock, "Unblock a client blocked in a blocking command from a "
             "different connection", "5.0.0", "admin"),
        _sub(b"no-evict", 3, _on_or_off, "Set client eviction mode for the current connection",
             "7.0.0", "admin"),
        _sub(b"no-touch", 3, _on_or_off, "Control whether commands sent by the client will alter "
             "the LRU/LFU of the keys they access", "7.2.0"),
        _sub(b"tracking", -3, _tracking, "Disable server assisted client side caching support",
             "6.0.0"),
        _sub(b"getredir", 2, _getredir, "Get tracking notifications redirection client ID if any",
             "6.0.0"),
    ]),
]  # fmt: skip
