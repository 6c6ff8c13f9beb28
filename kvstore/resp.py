"""Clients' bytes to commands: RESP arrays by hiredis, everything else by a plain exact parser.

Strategy. `PlainParser` is the rule: it does what Redis does with any bytes, in any pieces, and a
reader finds each limit in it. `ChunkReader` is the speed: hiredis in C over a chunk that holds
whole commands, which nearly every chunk does. hiredis parses *replies*, so it knows no inline
commands, takes types that no request may hold, and allocates whatever an array header says; what
it says about a chunk is therefore checked against the bytes, and where it cannot be right the
chunk goes to the plain parser. `CommandParser` joins the two, one for each connection.

No I/O here, and nothing raises on input: a broken stream ends with `error` set.
"""

from __future__ import annotations

import re
import secrets
from contextlib import suppress
from itertools import chain
from typing import Any

import hiredis

Command = list[bytes]
"""Name and arguments, never empty."""

MAX_LINE_BYTES = 64 * 1024
"""Redis' PROTO_INLINE_MAX_SIZE: an inline command, or a header without its end."""
MAX_ARGUMENTS = 1024 * 1024
"""Arguments of one command, Redis' old bound. Today's Redis takes 2^31, which only costs memory."""
MAX_BULK_BYTES = 8 << 20
"""One argument: the longest value there is (`kvstore.keyspace`). Redis refuses what is over its
proto-max-bulk-len in the same words, and closes."""
MAX_COMMAND_BYTES = 8 * MAX_BULK_BYTES
"""All arguments of one command together: what an unfinished command may hold in memory."""

NEWCOMER_ARGUMENTS = 16
NEWCOMER_BULK_BYTES = 16 * 1024
"""Of a client that has not authenticated, as in Redis, which takes 10: enough for any HELLO."""
TLS_HELLO = b"\x16\x03"
"""How a TLS client begins; no command of anybody does."""
NOT_TLS = "this port speaks RESP without TLS; connect to the TLS port"

_MARKS = b"*%~>|"
_HAZARD = re.compile(rb"[*%~>|][0-9]{6}")
_LONG_ARRAY = re.compile(rb"\r\n\*[0-9]{6}")
_LENGTH = re.compile(rb"(?:0|-?[1-9][0-9]{0,17})\Z")
# Redis' string2ll: no sign but minus, no leading zeros, no spaces.
_SPACES = b" \t\n\v\f\r"
_WORD_END = b" \n\r\t"
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}
_HEX = frozenset(b"0123456789abcdefABCDEF")


class ProtocolError(Exception):
    """The stream is broken; the message is the reply's text behind `ERR Protocol error: `."""


def split_inline(line: bytes) -> Command:
    """The words of an inline command, quoted as in a shell (Redis' sdssplitargs).

    Raises:
      ProtocolError: a quote is not closed, or something touches a closing quote.
    """
    line = line.split(b"\0", 1)[0]  # Redis handles the line as a C string
    words: Command = []
    position, end = 0, len(line)
    while True:
        while position < end and line[position] in _SPACES:
            position += 1
        if position == end:
            return words
        word = bytearray()
        while position < end and line[position] not in _WORD_END:
            if line[position] in b"\"'":
                position = _quoted(line, position, word)
                if position < end and line[position] not in _SPACES:
                    raise ProtocolError("unbalanced quotes in request")
                break
            word.append(line[position])
            position += 1
        words.append(bytes(word))


def _quoted(line: bytes, position: int, word: bytearray) -> int:
    """Appends the quoted text that begins at `position` to `word`; returns the place behind it."""
    quote, end = line[position], len(line)
    double = quote == ord('"')
    position += 1
    while position < end:
        character = line[position]
        if character == quote:
            return position + 1
        if character == ord("\\") and position + 1 < end:
            following = line[position + 1 : position + 2]
            digits = line[position + 2 : position + 4]
            if double and following == b"x" and len(digits) == 2 and _HEX.issuperset(digits):
                word.append(int(digits, 16))
                position += 4
                continue
            if double:
                word += _ESCAPES.get(following, following)
                position += 2
                continue
            if following == b"'":
                word += b"'"
                position += 2
                continue
        word.append(character)
        position += 1
    raise ProtocolError("unbalanced quotes in request")


class PlainParser:
    """One command at a time, exactly as Redis reads it, from bytes in any pieces.

    No byte is looked at twice, however small the pieces: the search for a line's end goes on
    where it stopped, and an argument is waited for by its length.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._position = 0
        """Bytes before it are consumed; they are dropped once per `feed`."""
        self._searched = 0
        """No line end lies between `_position` and here."""
        self._missing = 0
        """Arguments that the current array still lacks; 0 between commands."""
        self._bulk: int | None = None
        """Length of the argument being waited for, once its header is read."""
        self._arguments: Command = []
        self._argument_bytes = 0
        self.newcomer = False
        """The client has not authenticated, and may not make the node hold much."""

    @property
    def idle(self) -> bool:
        """Nothing is held: the next byte begins a command."""
        return self._missing == 0 and self._position == len(self._buffer)

    @property
    def buffered_bytes(self) -> int:
        """What is held of an unfinished command."""
        return len(self._buffer) - self._position + self._argument_bytes

    def feed(self, data: bytes) -> None:
        """Takes more bytes of the stream."""
        del self._buffer[: self._position]
        self._searched = max(0, self._searched - self._position)
        self._position = 0
        self._buffer += data

    def rest(self) -> bytes:
        """Takes back what is fed and not parsed; only between commands."""
        assert self._missing == 0
        rest = bytes(self._buffer[self._position :])
        self._buffer.clear()
        self._position = self._searched = 0
        return rest

    def next_command(self) -> Command | None:
        """The next command that is there in full, else None.

        Raises:
          ProtocolError: the stream is broken; the parser must not be used again.
        """
        while True:
            if self._missing == 0:
                if self._position == len(self._buffer):
                    return None
                if self._buffer[self._position] != ord("*"):
                    line = self._line(b"\n", "too big inline request")
                    if line is None:
                        return None
                    words = split_inline(line.removesuffix(b"\r"))
                    if words:
                        return words
                    continue
                if not self._array_header():
                    return None
            elif not self._argument():
                return None
            elif self._missing == 0:
                command, self._arguments = self._arguments, []
                self._argument_bytes = 0
                return command

    def _line(self, end: bytes, too_long: str) -> bytes | None:
        """Consumes up to the line's end and returns it without that end, if it is there."""
        start = self._position
        found = self._buffer.find(end, max(start, self._searched))
        if found < 0 or (end == b"\r" and found + 1 == len(self._buffer)):
            # A header's "\r" needs its "\n" too, which Redis skips without looking at it.
            self._searched = len(self._buffer) if found < 0 else found
            if self._searched - start > MAX_LINE_BYTES:
                raise ProtocolError(too_long)
            return None
        self._position = self._searched = found + (2 if end == b"\r" else 1)
        if found - start > MAX_LINE_BYTES:
            raise ProtocolError(too_long)
        return bytes(self._buffer[start:found])

    def _array_header(self) -> bool:
        line = self._line(b"\r", "too big mbulk count string")
        if line is None:
            return False
        if not _LENGTH.match(line, 1) or int(line[1:]) > MAX_ARGUMENTS:
            raise ProtocolError("invalid multibulk length")
        if self.newcomer and int(line[1:]) > NEWCOMER_ARGUMENTS:
            raise ProtocolError("unauthenticated multibulk length")
        self._missing = max(0, int(line[1:]))  # an empty or null array is no command at all
        return True

    def _argument(self) -> bool:
        if self._bulk is None:
            line = self._line(b"\r", "too big bulk count string")
            if line is None:
                return False
            if line[:1] != b"$":
                got = line[:1].decode("latin-1") or " "
                raise ProtocolError(f"expected '$', got '{got}'")
            if not _LENGTH.match(line, 1) or not 0 <= int(line[1:]) <= MAX_BULK_BYTES:
                raise ProtocolError("invalid bulk length")
            if self.newcomer and int(line[1:]) > NEWCOMER_BULK_BYTES:
                raise ProtocolError("unauthenticated bulk length")
            self._bulk = int(line[1:])
            if self._argument_bytes + self._bulk > MAX_COMMAND_BYTES:
                raise ProtocolError("too big command")
        end = self._position + self._bulk
        if len(self._buffer) < end + 2:
            return False
        self._arguments.append(bytes(self._buffer[self._position : end]))
        self._argument_bytes += self._bulk
        self._position = self._searched = end + 2
        self._bulk = None
        self._missing -= 1
        return True


class ChunkReader:
    """hiredis over one chunk of a stream that begins with a command; shared by all connections.

    Behind each chunk it feeds a command that no client can guess. If that comes out last, the
    chunk ended between two commands, and hiredis is again as empty as before it. If not, hiredis
    is replaced, and the commands are compared with the chunk byte for byte.
    """

    def __init__(self) -> None:
        secret = secrets.token_hex(16).encode()
        self._guard: Command = [secret]
        self._guard_bytes = hiredis.pack_command((secret,))
        self._reader = hiredis.Reader()

    def read(self, chunk: bytes) -> tuple[list[Command], int]:
        """The commands at the head of a chunk.

        Args:
          chunk: bytes that begin with `*`.

        Returns:
          Commands, and how many bytes of the chunk they are. Where fewer than all, the rest is
          for the plain parser: unfinished, inline, broken, or not for hiredis.
        """
        arrays = _arrays(chunk)
        if _allocates_much(chunk, arrays):
            return [], 0
        reader = self._reader
        reader.feed(chunk)
        commands: list[Any] = []  # of whatever type the stream says
        try:
            first = reader.gets()
            # One command, and nothing behind it: hiredis is as empty as before.
            whole = first is not False and not reader.has_data()
            if first is not False:
                commands.append(first)
            if not whole:
                reader.feed(self._guard_bytes)
                commands.extend(iter(reader.gets, False))
                whole = bool(commands) and commands[-1] == self._guard
                if whole:
                    commands.pop()
        except Exception:
            # hiredis raises its own error, and lets Python's out (unhashable keys of a map). The
            # commands before it are in no list; the plain parser reads them again.
            self._reader = hiredis.Reader()
            return [], 0
        if not whole:
            self._reader = hiredis.Reader()
        elif _only_requests(commands, chunk, arrays):
            return commands if all(commands) else [*filter(None, commands)], len(chunk)
        return _verified(commands, chunk)

    def read_each(self, chunks: list[bytes]) -> list[Command] | None:
        """The commands of many connections, each of which sent one and nothing else.

        Args:
          chunks: one of each connection, which begins with a command; not empty.

        Returns:
          A command for each chunk; None: that is not what they hold, or not for hiredis.
        """
        together = b"".join(chunks)
        if _allocates_much(together, _arrays(together)):
            return None
        reader = self._reader
        reader.feed(together)
        commands: list[Any] = []
        with suppress(Exception):  # hiredis' own, or unhashable keys of a map
            commands.extend(iter(reader.gets, False))
        # What a client sends may end in the midst of a command, and what the next one sends go on
        # with it: each command is compared with the bytes of its own connection.
        if all(commands) and _encoded(commands) == chunks:
            return commands
        self._reader = hiredis.Reader()  # it may hold the begin of something
        return None


def _arrays(chunk: bytes) -> int:
    """How many arrays a chunk holds, if nothing in it looks like anything else that has parts.

    Returns:
      The marks of arrays, where each is at a line's begin; 0: there are others, or elsewhere.
    """
    marks = len(chunk) - len(chunk.translate(None, _MARKS))
    return marks if chunk[:1] == b"*" and marks == 1 + chunk.count(b"\r\n*") else 0


def _allocates_much(chunk: bytes, arrays: int) -> bool:
    """Whether hiredis may meet an announced size of six digits or more: it allocates that at once.

    It does not look at what stands behind an argument, so a header need not be at a line's begin.
    """
    if not arrays:
        return _HAZARD.search(chunk) is not None
    return chunk[1:7].isdigit() or (arrays > 1 and _LONG_ARRAY.search(chunk) is not None)


def _only_requests(commands: list[Any], chunk: bytes, arrays: int) -> bool:
    """Whether a fully parsed chunk holds nothing but arrays of bulk strings.

    hiredis also takes other types at the top (to Redis an inline command) and inside (to Redis an
    error). Where no value has a mark in it, the marks of the chunk are counted: as many arrays as
    commands, as many strings as arguments, and so nothing else. Where one has, that could make up
    for a mark that lacks, and the chunk is compared with what it should be.
    """
    if set(map(type, commands)) != {list}:
        return False
    try:
        values = b"".join(chain.from_iterable(commands))
    except TypeError:
        return False
    if arrays == len(commands) and b"$" not in values:
        # Of a verbatim text hiredis drops the first four bytes, a mark among them perhaps; its own
        # mark is then in the chunk and in no value.
        return chunk.count(b"$") == sum(map(len, commands)) and (
            chunk.count(b"=") == values.count(b"=")
        )
    return b"".join(_encoded(commands)) == chunk


def _encoded(commands: list[Any]) -> list[bytes]:
    """As clients encode these commands; empty if one of them is of a type that no request has."""
    try:
        return [*map(hiredis.pack_command, map(tuple, commands))]
    except TypeError:
        return []


def _verified(commands: list[Any], chunk: bytes) -> tuple[list[Command], int]:
    """The leading commands whose encoding is what the chunk holds, and their bytes."""
    position = 0
    verified: list[Command] = []
    for command in commands:
        encoded = _encoded([command])
        if not command or not encoded or not chunk.startswith(encoded[0], position):
            break
        position += len(encoded[0])
        verified.append(command)
    return verified, position


class CommandParser:
    """The commands of one connection."""

    def __init__(self, chunks: ChunkReader) -> None:
        self._chunks = chunks
        self._plain = PlainParser()
        self._plain_idle = True
        self.error: str | None = None
        """Once set, the stream is broken here: reply it, and close."""

    @property
    def buffered_bytes(self) -> int:
        """What is held of an unfinished command."""
        return self._plain.buffered_bytes

    @property
    def idle(self) -> bool:
        """The next byte begins a command, of a client that need not be bounded as a newcomer."""
        return self._plain_idle and not self._plain.newcomer and self.error is None

    def bound(self, *, newcomer: bool) -> None:
        """Sets the bounds of a client that has not authenticated, or of one that has."""
        self._plain.newcomer = newcomer

    def feed(self, chunk: bytes) -> list[Command]:
        """The commands that these bytes complete."""
        plain = self._plain
        commands: list[Command] = []
        if self._plain_idle:
            if chunk[:1] == b"*":
                commands, consumed = self._chunks.read(chunk)
                if consumed == len(chunk):
                    return commands
                chunk = chunk[consumed:]
            elif chunk.startswith(TLS_HELLO):
                self.error = NOT_TLS
                return commands
            plain.feed(chunk)
        else:
            # First what was begun. hiredis gets what follows once, and only once a chunk: a
            # stream that alternates would else be read again for every command in it.
            plain.feed(chunk)
            if not self._next(commands):
                return commands
            rest = plain.rest()
            if rest[:1] == b"*":
                more, consumed = self._chunks.read(rest)
                commands += more
                rest = rest[consumed:]
            plain.feed(rest)
        while self._next(commands):
            pass
        self._plain_idle = plain.idle
        return commands

    def _next(self, commands: list[Command]) -> bool:
        """Appends the plain parser's next command; false when there is none."""
        try:
            command = self._plain.next_command()
        except ProtocolError as error:
            self.error = str(error)
            return False
        if command is None:
            return False
        commands.append(command)
        return True
