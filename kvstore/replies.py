"""Replies as Python values, and their bytes in RESP2 and RESP3.

A handler returns what it means and knows no protocol: None, bytes, int, bool, float, a list, a
dict, a set, or one of the small classes here. A connection encodes it in the protocol that its
HELLO chose. Redis' protocol specification: https://redis.io/docs/reference/protocol-spec/
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from p4xos.errors import P4xosError

log = logging.getLogger(__name__)


class Status(NamedTuple):
    """A simple string: `+OK`."""

    text: bytes


class Verbatim(NamedTuple):
    """Text to be shown as it is; a bulk string in RESP2."""

    text: bytes


class Flags(NamedTuple):
    """A set of simple strings, as COMMAND lists flags; an array in RESP2."""

    names: tuple[bytes, ...]


class Raw(NamedTuple):
    """A reply of a type that no command of the store has, as its bytes; for DEBUG PROTOCOL."""

    resp2: bytes
    resp3: bytes


class NoArray(NamedTuple):
    """An array that is missing, as an aborted EXEC answers; RESP2 has a null of its own for it."""


class Error(NamedTuple):
    """An error reply, its code first: `ERR ...`."""

    text: bytes


class CommandError(Exception):
    """What a handler raises to answer with an error; nothing of the command has happened."""

    def __init__(self, text: str | bytes) -> None:
        self.reply = Error(text.encode() if isinstance(text, str) else text)
        super().__init__(self.reply.text.decode("utf-8", "replace"))


def internal_error(name: bytes, error: Exception) -> Error:
    """The reply where a handler that changes nothing broke on what a client sent: our bug.

    One client's command must not stop the node for all the others. A handler of writes is another
    matter: what it left may be half written, so its error stops the replica.

    Raises:
      Exception: it is the world's error and no bug: what failed must not be used any more.
    """
    if isinstance(error, P4xosError | OSError | MemoryError):
        raise error
    log.error("internal error in %s, please report it", name.decode(), exc_info=error)
    return Error(b"ERR internal error in '%b' (%b); the node's log tells more"
                 % (name, type(error).__name__.encode()))  # fmt: skip


Reply = None | bytes | int | float | Status | Verbatim | Flags | Raw | Error | NoArray | list[
    "Reply"
] | dict[bytes, "Reply"]
"""bool is an int, and is encoded as one in RESP2."""

RESP2 = 2
RESP3 = 3

OK = Status(b"OK")
OK_BYTES = b"+OK\r\n"
_LINE = bytes.maketrans(b"\r\n", b"  ")


def encode(reply: Reply, protocol: int) -> bytes:
    """The bytes of one reply.

    Args:
      reply: what a handler returned.
      protocol: 2 or 3.
    """
    if reply is OK:
        return OK_BYTES
    return _ENCODERS[type(reply)](reply, protocol)


def error_bytes(text: str | bytes) -> bytes:
    """An error reply in either protocol; line breaks in it become spaces, as in Redis."""
    return b"-%b\r\n" % (text.encode() if isinstance(text, str) else text).translate(_LINE)


def _null(reply: None, protocol: int) -> bytes:
    return b"$-1\r\n" if protocol == RESP2 else b"_\r\n"


def _bulk(reply: bytes, protocol: int) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(reply), reply)


def _no_array(reply: NoArray, protocol: int) -> bytes:
    return b"*-1\r\n" if protocol == RESP2 else b"_\r\n"


def _integer(reply: int, protocol: int) -> bytes:
    return b":%d\r\n" % reply


def _boolean(reply: bool, protocol: int) -> bytes:
    if protocol == RESP2:
        return b":%d\r\n" % reply
    return b"#t\r\n" if reply else b"#f\r\n"


def _double(reply: float, protocol: int) -> bytes:
    text = b"%.17g" % reply
    return _bulk(text, protocol) if protocol == RESP2 else b",%b\r\n" % text


def _status(reply: Status, protocol: int) -> bytes:
    return b"+%b\r\n" % reply.text.translate(_LINE)


def _error(reply: Error, protocol: int) -> bytes:
    return error_bytes(reply.text)


def _verbatim(reply: Verbatim, protocol: int) -> bytes:
    if protocol == RESP2:
        return _bulk(reply.text, protocol)
    return b"=%d\r\ntxt:%b\r\n" % (len(reply.text) + 4, reply.text)


def _flags(reply: Flags, protocol: int) -> bytes:
    mark = b"*" if protocol == RESP2 else b"~"
    return b"%b%d\r\n%b" % (mark, len(reply.names), b"".join(b"+%b\r\n" % n for n in reply.names))


def _raw(reply: Raw, protocol: int) -> bytes:
    return reply.resp2 if protocol == RESP2 else reply.resp3


def _array(reply: list[Reply], protocol: int) -> bytes:
    return b"*%d\r\n%b" % (len(reply), b"".join([encode(item, protocol) for item in reply]))


def _map(reply: dict[bytes, Reply], protocol: int) -> bytes:
    items = [encode(item, protocol) for pair in reply.items() for item in pair]
    header = b"*%d\r\n" % len(items) if protocol == RESP2 else b"%%%d\r\n" % len(reply)
    return header + b"".join(items)


_ENCODERS: dict[type, Callable[..., bytes]] = {
    type(None): _null,
    bytes: _bulk,
    int: _integer,
    bool: _boolean,
    float: _double,
    Status: _status,
    Verbatim: _verbatim,
    Flags: _flags,
    Raw: _raw,
    Error: _error,
    NoArray: _no_array,
    list: _array,
    dict: _map,
}
