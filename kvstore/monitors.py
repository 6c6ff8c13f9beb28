"""Clients that sent MONITOR: each is told every command that this node gets, as it is taken up."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from time import time
from typing import TYPE_CHECKING

from kvstore.redaction import NEVER_SHOWN, redacted
from kvstore.resp import Command

if TYPE_CHECKING:
    from kvstore.commands.client import Client
    from kvstore.connection import Connection

ARGUMENT_BYTES_MAX = 1024
"""Of a longer word the beginning is shown: values of megabytes would drown the one who looks on."""
_UNPLAIN = re.compile(rb"[^ !#-\[\]-~]")
_NAMED = {b"\n": b"\\n", b"\r": b"\\r", b"\t": b"\\t", b"\a": b"\\a", b"\b": b"\\b",
          b'"': b'\\"', b"\\": b"\\\\"}  # fmt: skip


def quoted(word: bytes) -> bytes:
    """A word in quotes, as Redis prints it."""
    shown = _UNPLAIN.sub(lambda found: _escape(found[0]), word[:ARGUMENT_BYTES_MAX])
    more = len(word) - ARGUMENT_BYTES_MAX
    return b'"%b... (%d more bytes)"' % (shown, more) if more > 0 else b'"%b"' % shown


def _escape(byte: bytes) -> bytes:
    return _NAMED.get(byte) or b"\\x%02x" % ord(byte)


class Monitors:
    """The connections that look on; a server has one, and asks it only while it is not empty."""

    def __init__(
        self, send: Callable[[Connection], None], close: Callable[[Connection], None]
    ) -> None:
        """Empty.

        Args:
          send: called for each connection that has something to send.
          close: called for one that takes too little of what it is told.
        """
        self._send = send
        self._close = close
        self._connections: list[Connection] = []

    def __bool__(self) -> bool:
        return bool(self._connections)

    def add(self, connection: Connection) -> None:
        """From now on this connection is told, until it is closed or RESET."""
        connection.client.monitoring = True
        if connection not in self._connections:
            self._connections.append(connection)

    def show(self, client: Client, commands: Sequence[Command]) -> None:
        """Tells commands of a client to all who look on."""
        source = b"[%d %b]" % (client.database, client.address.encode())
        now = b"%.6f" % time()
        lines = b"".join(
            b"+%b %b %b\r\n" % (now, source, b" ".join(map(quoted, redacted(command))))
            for command in commands
            if command[0].lower() not in NEVER_SHOWN
        )
        for connection in list(self._connections) if lines else ():
            if connection.closed or not connection.client.monitoring:
                self._connections.remove(connection)
            elif connection.choked:
                self._close(connection)
            else:
                connection.out.append(lines)
                self._send(connection)
