"""Commands run on a store without server and log, and the same commands told to a real Redis."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis

from kvstore import commands
from kvstore.commands.table import wrong_arity
from kvstore.records import DATA
from kvstore.replies import CommandError, Error, Reply, encode
from kvstore.resp import Command, split_inline
from kvstore.store import Store

NOW = 1_700_000_000_000
"""Log time, until a test moves it."""

Conversation = Sequence[tuple[bytes, Reply]]
"""Commands as a user types them, each with its reply."""

SYNTAX = Error(b"ERR syntax error")
NOT_AN_INTEGER = Error(b"ERR value is not an integer or out of range")
WRONG_TYPE = Error(b"WRONGTYPE Operation against a key holding the wrong kind of value")


class Replica:
    """Database 0 of a store; commands run as they do when they come out of the log."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.keys = store.keyspaces[0]
        self._instance = 0
        self.pass_time(NOW)

    def pass_time(self, milliseconds: int) -> None:
        """The next entry's stamp is so much later."""
        self._instance += 1
        self.store.time.alone = True  # a leap is believed
        self.store.begin(self._instance, self.store.time.now + milliseconds, 1, 1000)

    def run(self, *words: bytes) -> Reply:
        """The reply to one command."""
        entry = commands.find(words[0])
        assert entry is not None, words
        try:
            if not entry.minimum <= len(words) <= entry.maximum:
                raise wrong_arity(entry)
            return entry.handler(self.keys, list(words))
        except CommandError as error:
            return error.reply

    def hold(self, conversation: Conversation) -> None:
        """Types every command and compares the replies."""
        for line, expected in conversation:
            assert self.run(*split_inline(line)) == expected, line

    def hold_another_kind(self, key: bytes) -> None:
        """Makes a key hold what is no string."""
        self.store.memory.write(bytes((DATA,)) + key, b"h" + bytes(8))


@contextlib.contextmanager
def fresh_replica(directory: Path) -> Iterator[Replica]:
    """An empty store."""
    store = Store(directory / "store", 7)
    try:
        yield Replica(store)
    finally:
        store.abandon()


class RealRedis:
    """A connection that keeps replies as the bytes they are."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._stream = self._socket.makefile("rb")

    def run(self, words: Command) -> bytes:
        """The bytes of one reply."""
        self._socket.sendall(hiredis.pack_command(tuple[Any, ...](words)))
        return self._read()

    def hold(self, conversation: Conversation) -> None:
        """Types every command and compares the replies' bytes, on empty databases."""
        assert self.run([b"FLUSHALL"]) == b"+OK\r\n"
        for line, expected in conversation:
            assert self.run(split_inline(line)) == encode(expected, 2), line

    def _read(self) -> bytes:
        line = self._stream.readline()
        assert line, "the server closed"
        if line[:1] == b"$" and line != b"$-1\r\n":
            return line + self._stream.read(int(line[1:]) + 2)
        if line[:1] == b"*":
            return line + b"".join(self._read() for _ in range(int(line[1:])))
        return line

    def close(self) -> None:
        self._stream.close()
        self._socket.close()
